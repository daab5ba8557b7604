"""What a tensor of a GGUF file is used for: in which layer, and by which operation (`llama-arch.cpp`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Stage = Literal["input", "layer", "output"]

_BLOCK = re.compile(r"^(?:enc\.|dec\.)?blk\.(\d+)\.(.+)$")

#: Tensors outside of the layers that the input needs: always on the host.
_INPUT = frozenset(("token_embd", "position_embd", "token_types", "per_layer_token_embd", "token_embd_norm"))
#: Leaves that experts are chosen from.
_EXPERTS = re.compile(r"_(ch)?exps$")
_NORM = re.compile(r"norm(_\d+)?$")


@dataclass(frozen=True, slots=True)
class Role:
    """What a tensor is for.

    Attributes
    ----------
    stage, layer
        Input, a layer (which one) or output.
    op
        The operation that reads it.
    """

    stage: Stage
    layer: int
    op: str


def role_of(name: str) -> Role:
    """The role of a tensor by its name."""
    found = _BLOCK.match(name)
    leaf = found[2] if found else name.removeprefix("enc.").removeprefix("dec.")
    stem, _, suffix = leaf.partition(".")
    op = _operation(stem, suffix)
    if found:
        return Role("layer", int(found[1]), op)
    if stem in _INPUT:
        return Role("input", -1, op)
    if stem in ("rope_freqs", "rope_factors_long", "rope_factors_short"):
        return Role("layer", 0, "rope")
    return Role("output", -1, op)


def _operation(stem: str, suffix: str) -> str:
    if suffix == "bias" or stem.startswith("exp_probs_b"):
        return "add_id" if _EXPERTS.search(stem) else "add"
    if stem in ("token_embd", "position_embd", "token_types", "per_layer_token_embd"):
        return "get_rows"
    if _EXPERTS.search(stem):
        return "mul_mat_id"
    if _NORM.search(stem) or suffix == "scale" or stem in ("attn_sub_norm", "ssm_d"):
        return "mul"
    if stem.startswith("ssm_conv1d"):
        return "ssm_conv"
    if stem == "ssm_a":
        return "ssm_scan"
    return "mul_mat"
