"""What changed in ExLlamaV3, and when.

Read at the versions of `sources`, with the repository's history between them: `cache/` (what a layer keeps),
`modules/quant/exl3.py` (how weights are unpacked), `modules/attn.py` and `modules/attention_fn/` (how a quantized cache
is read), `modules/block_sparse_mlp.py` and `modules/moe_batch_recon.py` (experts), `model/model_ls.py` (placing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession

NEWEST = "1.6.5"

#: How attention reads a quantized cache: a layer is unpacked whole; kernels read it as it is; prompts unpack it to a
#: scratch as long as the cache; or to one of 65,536 tokens at most.
Reading = Literal["whole", "direct", "scratch", "window"]

#: What a recurrent layer keeps for a sequence: a state; one for each drafted token; two.
States = Literal["one", "history", "two"]


@dataclass(frozen=True, slots=True)
class Era:
    """How ExLlamaV3 behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    slice
        Output features of a matrix that are unpacked at once for a prompt; 0 for all.
    reading
        See `Reading`.
    rings
        Layers with a window keep a ring for each sequence, in models that have such modules.
    keeps_output
        Attention's output stays while the MLP runs, and is added to the stream in its norm.
    folded
        Prompts of 1024 tokens and more need no rotated copy of a matrix' input.
    expert_buffers
        A kernel runs all experts of a layer, with buffers of its own.
    grouped
        Experts with many tokens are unpacked in groups, and the loader reserves what that takes at most.
    states
        See `States`.
    state_bytes
        Bytes of an element of a state; those of Mamba-2 have 4.
    cpu_experts
        Experts of some layers can run on the processor.
    cpu_pages
        Pages of the cache can be kept in RAM.
    """

    since: Version
    slice: int = 0
    reading: Reading = "whole"
    rings: bool = False
    keeps_output: bool = False
    folded: bool = False
    expert_buffers: bool = False
    grouped: bool = False
    states: States = "one"
    state_bytes: int = 4
    cpu_experts: bool = False
    cpu_pages: bool = False


ERAS = succession(
    Era((0, 0)),
    changed((0, 0, 26), expert_buffers=True),
    changed((0, 0, 27), keeps_output=True),
    changed((0, 0, 30), rings=True),
    changed((0, 0, 35), slice=32768, states="history"),
    changed((1, 0), reading="direct"),
    changed((1, 2), cpu_experts=True),
    changed((1, 3), reading="scratch", cpu_pages=True),
    changed((1, 4), folded=True),
    changed((1, 5), grouped=True),
    changed((1, 6, 1), states="two", state_bytes=2),
    changed((1, 6, 5), reading="window"),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
