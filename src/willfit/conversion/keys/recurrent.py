"""Metadata of what keeps a state: state-space, delta and convolution mixers. Most of it is in the tensors' shapes."""

from __future__ import annotations

from willfit.architectures.mixers import Recurrent
from willfit.conversion.keys.source import Keys, Source

#: Gated delta layers, with the layers that have them and how often attention comes between.
_GATED_DELTA = frozenset({"qwen35", "qwen35moe", "qwen3next", "qwen4exp"})


def recurrent_keys(source: Source) -> Keys:
    """Kernels, widths and sizes of states."""
    keys: Keys = {}
    if kernel := source.width("shortconv.conv.weight"):
        keys["shortconv.l_cache"] = kernel
    if kernel := source.width("ssm_conv1d_q.weight"):
        return keys | {"ssm.conv_kernel": kernel, "kda.head_dim": source.width("ssm_norm.weight")}
    kernel = source.width("ssm_conv1d.weight")
    if not kernel:
        return keys
    channels = source.width("ssm_conv1d.weight", axis=1)
    inner = source.width("ssm_out.weight")
    keys |= {"ssm.conv_kernel": kernel, "ssm.inner_size": inner}
    if source.name in _GATED_DELTA:
        size = max(1, source.width("ssm_norm.weight"))
        keys |= {
            "ssm.state_size": size,
            "ssm.group_count": (channels - inner) // 2 // size,
            "ssm.time_step_rank": source.width("ssm_a"),
        }
        return keys | _attention_between(source)
    if source.width("ssm_x.weight"):  # Mamba
        keys |= {"ssm.state_size": source.width("ssm_a"), "ssm.time_step_rank": source.width("ssm_dt.weight")}
        return keys
    groups = source.width("ssm_norm.weight", axis=1) or source.config.integer(
        "mamba_n_groups", "n_groups", default=1
    )
    return keys | {
        "ssm.state_size": (channels - inner) // 2 // groups,
        "ssm.group_count": groups,
        "ssm.time_step_rank": source.width("ssm_a", axis=1),
    }


def _attention_between(source: Source) -> Keys:
    recurrent = tuple(any(isinstance(one, Recurrent) for one in mixers) for mixers in source.mixers)
    interval = source.config.integer("full_attention_interval", default=4)
    return {"attention.recurrent_layers": recurrent, "full_attention_interval": interval}
