"""What a tensor of a GGUF file is used for: in which layer, and by which operation (`llama-arch.cpp`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Stage = Literal["input", "layer", "output"]

_BLOCK = re.compile(r"^(?:enc\.|dec\.)?blk\.(\d+)\.(.+)$")

#: Tensors outside of the layers that the input needs: always on the host.
_INPUT = frozenset(("token_embd", "position_embd", "token_types", "per_layer_token_embd"))
#: Tensors outside of the layers that are on the first layer's device.
_FIRST = frozenset((
    "rope_freqs", "rope_factors_long", "rope_factors_short", "token_embd_norm", "per_layer_model_proj",
    "per_layer_proj_norm", "hrm", "conv1d",
))  # fmt: skip
#: Embeddings for each layer: their table and what projects them.
_PER_LAYER = frozenset(("per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm"))
#: Architectures that call the norm before the head `token_embd_norm`.
_LAST_NORM = frozenset(("lfm2", "lfm2moe"))
#: Architectures whose `ssm_a` a scan reads; in others it is a factor.
_SCANS = frozenset((
    "falcon-h1", "granitehybrid", "jamba", "mamba", "mamba2", "nemotron_h", "nemotron_h_moe", "plamo2",
))  # fmt: skip
#: Leaves that experts are chosen from.
_EXPERTS = re.compile(r"_(ch)?exps$")
_NORM = re.compile(r"norm(_\d+)?$")

#: Leaves that do not take part in a product, by operation. Those behind a `.` are named with it.
_OTHERS: dict[str, str] = {
    "get_rows": "token_embd position_embd token_types per_layer_token_embd attn_rel_b nextn.embed_tokens "
    "ffn_gate_tid2eid attn_compressor_ape indexer_compressor_ape d2t markov_w1 selector_predecessor "
    "selector_successor",
    "mul": "ssm_a ssm_d ssm_conv1d_q ssm_conv1d_k ssm_conv1d_v layer_output_scale altup_correct_scale "
    "attn_sub_norm ffn_norm_exps nextn.enorm nextn.hnorm nextn.shared_head_norm indexer.k_norm "
    "indexer.q_norm attn_res_score ffn_res_score output_res_score hc_attn_scale hc_ffn_scale "
    "output_hc_scale ple_norm_key ple_norm_query ple_norm_conv time_mix_lerp_x time_mix_ln time_mix_k_k "
    "time_mix_k_a time_mix_r_k channel_mix_lerp_k channel_mix_lerp_r attn_conv_base ffn_conv_base "
    "cls.norm",
    "add": "hc_attn_base hc_ffn_base output_hc_base time_mix_lerp_w time_mix_lerp_k time_mix_lerp_v time_mix_lerp_r "
    "time_mix_lerp_g time_mix_lerp_fused time_mix_decay time_mix_w0 time_mix_a0 time_mix_v0 hrm.z_l_init",
    "rope": "rope_freqs rope_factors_long rope_factors_short",
    "scale": "attn_sinks",
    "div": "ffn.act",
    "ssm_conv": "ssm_conv1d shortconv.conv ple_conv1d",
    "none": "cross_attn_rel_b masked_embd_centroids masked_embd_ordering",
}
_BY_LEAF = {leaf: op for op, leaves in _OTHERS.items() for leaf in leaves.split()}


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


def role_of(name: str, architecture: str = "", per_layer_last: bool = False) -> Role:
    """The role of a tensor by its name.

    Parameters
    ----------
    architecture
        Some give a name another meaning.
    per_layer_last
        Tables of embeddings for each layer, and what projects them, are the output's (older builds).
    """
    found = _BLOCK.match(name)
    leaf = found[2] if found else name.removeprefix("enc.").removeprefix("dec.")
    op = "ssm_scan" if leaf == "ssm_a" and architecture in _SCANS else _operation(leaf)
    if found:
        return Role("layer", int(found[1]), op)
    stem = leaf.partition(".")[0]
    if per_layer_last and stem in _PER_LAYER:
        return Role("output", -1, op)
    if stem in _INPUT:
        return Role("input", -1, op)
    if stem in _FIRST and not (stem == "token_embd_norm" and architecture in _LAST_NORM):
        return Role("layer", 0, op)
    return Role("output", -1, op)


def _operation(leaf: str) -> str:
    stem, _, suffix = leaf.rpartition(".")
    stem = stem or leaf
    if suffix == "bias" or stem.startswith("exp_probs_b"):
        return "add_id" if _EXPERTS.search(stem) else "add"
    known = _BY_LEAF.get(stem) or _BY_LEAF.get(leaf)
    if known is not None:
        return known
    if _EXPERTS.search(stem):
        return "mul_mat_id"
    return "mul" if _NORM.search(stem) or suffix == "scale" else "mul_mat"
