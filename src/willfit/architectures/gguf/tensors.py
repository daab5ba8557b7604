"""What a tensor of a GGUF file is, by its name and shape.

Names: llama.cpp, `src/llama-arch.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from willfit.architectures.model import FeedForward, Kind, Part, Split, Tensor
from willfit.checkpoints.gguf import GgufTensor

#: Stored, but no parameters: rotary factors, router corrections, layer scales, token-to-expert tables.
_BUFFERS = re.compile(
    r"rope_(freqs|factors_long|factors_short)|exp_probs_b(_vl)?|layer_output_scale|ffn_gate_tid2eid"
)
#: Files of early 2024 hold each expert on its own: `ffn_up.7.weight`.
_LONE_EXPERT = re.compile(r"ffn_(?:gate|up|down)\.\d+\.weight")

#: Gates of MLPs and experts, alone or fused with what they gate.
_GATES = ("gate", "gate_shexp", "gate_exps", "gate_up_exps")


def record(tensor: GgufTensor, part: Part, name: str | None = None) -> Tensor:
    """The record of a stored tensor, under its own name or another."""
    shape = tensor.shape
    kind = _kind(tensor.name, shape, part)
    split = Split(0, shape[0]) if kind in ("linear", "embedding") and len(shape) == 2 else None
    return Tensor(name or tensor.name, shape, part, kind, split)


def _kind(name: str, shape: tuple[int, ...], part: Part) -> Kind:
    module = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
    if _BUFFERS.fullmatch(module):
        return "buffer"
    if module.endswith("norm") or "_norm_" in module:
        return "norm"
    if name.endswith(".bias"):
        return "bias"
    if module == "conv" or "conv1d" in module:
        return "conv"
    if len(shape) < 2 or module.endswith(("rel_b", "token_types", "position_embd", "ssm_a", "_lerp_fused")):
        return "other"
    return "embedding" if part == "embedding" and module.endswith("token_embd") else "linear"


def part_of(leaf: str) -> Part:
    """Where a tensor of a layer belongs.

    Parameters
    ----------
    leaf
        Its name behind the layer's index: `attn_q.weight`.
    """
    first = leaf.partition(".")[0]
    if first.endswith("norm") or "_norm_" in first:
        return "norm"
    if first.startswith(("ffn_gate_inp", "exp_probs", "ffn_gate_tid2eid")):
        return "router"
    if first.endswith("exps") and leaf.endswith(".scale"):
        return "router"
    if first.endswith("exps") or _LONE_EXPERT.fullmatch(leaf):
        return "experts"
    if first.startswith(("ffn", "channel_mix", "layer_output", "hc_ffn", "vis_gate", "vis_up", "vis_down")):
        return "mlp"
    if first.startswith(("ssm", "shortconv", "time_mix")):
        return "mixer"
    return "mlp" if first.startswith(("altup", "laurel", "inp_gate", "proj", "ple", "nextn")) else "attention"


def outer_part(name: str) -> Part:
    """Where a tensor outside of the layers belongs."""
    stem = name.removeprefix("dec.").removeprefix("enc.")
    module = stem.partition(".")[0]
    if module.endswith("norm"):
        return "norm"
    if module.startswith(("token_", "position_embd", "per_layer_")):
        return "embedding"
    return "head" if module.startswith(("output", "cls", "dense_")) else "mlp"


def feed_forward(shapes: Mapping[str, tuple[int, ...]], top_k: int) -> FeedForward | None:
    """The widths of a layer's MLP or experts, from the shapes of its tensors.

    Parameters
    ----------
    shapes
        Shape of each tensor of the layer, by the name behind the layer's index: `ffn_down.weight`.
    top_k
        Experts that a token uses.
    """
    down = shapes.get("ffn_down.weight") or shapes.get("channel_mix_value.weight")
    shared = shapes.get("ffn_down_shexp.weight")
    width = sum(shape[-1] for shape in (down, shared) if shape and len(shape) == 2)
    up = shapes.get("ffn_up.weight")
    fused = bool(down and up and up[0] == 2 * down[-1])
    gated = fused or any(f"ffn_{name}.weight" in shapes for name in _GATES)
    routed = shapes.get("ffn_down_exps.weight")
    if routed and len(routed) == 3:
        return FeedForward(width, gated, experts=routed[0], top_k=top_k, expert_width=routed[2])
    lone = [shape for leaf, shape in shapes.items() if re.fullmatch(r"ffn_down\.\d+\.weight", leaf)]
    if lone:
        return FeedForward(width, True, experts=len(lone), top_k=top_k, expert_width=lone[0][-1])
    return FeedForward(width, gated) if width else None
