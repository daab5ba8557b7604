"""What LitGPT's model code does, by version, and what its adapters change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """LitGPT's modules as a version of it wrote them.

    Attributes
    ----------
    norm
        `narrow`: RMS norms run in the model's dtype; `wide`: in float32 up to the product with the weight; `cast`: the
        normed input is cast before that product; `float`: the weight is float32 there too.
    interleaved
        Queries, keys and values of a group lie side by side in the fused matrix, so that queries of grouped heads are
        copied, and keys and values are expanded before they are rotated; else they are views, repeated afterwards.
    adds_early, renames
        Parallel blocks add attention's output before the MLP runs; a sequential block's variable of the first norm's
        output then holds the second's.
    pads_by_copy
        LoRA on some of the three is padded with zeros in a tensor that is then copied.
    new_indices
        Where to is told by a tensor that each pass makes; else by one that the layer keeps.
    prompts
        Layers attend to a trained prompt as well (LLaMA-Adapter).
    scales
        Every linear layer has a trained bias and scale behind it (LLaMA-Adapter V2).
    whole_loss
        Cross entropy of all rows at once, on logits that the loop does not hold (Thunder's script).
    pretrains
        Targets are moved, so that logits are used as they are.
    longest_first
        The longest sample of all comes first, before optimizer states and other logits are there.
    """

    norm: str = "float"
    interleaved: bool = False
    adds_early: bool = False
    renames: bool = False
    pads_by_copy: bool = False
    new_indices: bool = False
    prompts: bool = False
    scales: bool = False
    whole_loss: bool = False
    pretrains: bool = False
    longest_first: bool = False


#: Positions of a prompt, and the first layer that has one (`litgpt/adapter.py: Config`).
PROMPT_LENGTH, PROMPT_FROM = 10, 2

#: Rows of a chunk of the loss, or positions of a chunk of the head (`litgpt/utils.py: chunked_cross_entropy`,
#: `litgpt/finetune/lora.py: fit`).
CHUNK = 128
