"""Names in a run's settings that must be known, groups of kernels, and what is understood but not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.errors import BadInput
from willfit.training.modelling.low_bits import RECIPES as LOW_BITS
from willfit.training.settings import TrainingSettings

CHECKPOINTING = (
    "none", "full", "selective", "selective-op", "selective-graph", "selective-products", "selective-core-attn",
    "selective-mlp", "selective-modules",
)  # fmt: skip
LOSSES = ("hf", "chunked", "chunked-head", "chunked-backward", "fused", "liger", "cut", "vocab-parallel")
ATTENTION = (
    "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "te", "xformers",
)  # fmt: skip
SCHEDULES = (
    "gpipe", "1f1b", "interleaved", "zero-bubble", "zb-h1", "zb-h2", "zb-v", "dualpipe",
)  # fmt: skip
ROLLOUTS = ("vllm", "sglang", "transformers")

#: Kernels that replace composite operations one by one, and what packages of them stand for
#: (liger_kernel `transformers/monkey_patch.py: apply_liger_kernel_to_llama`).
KERNELS = (
    "rms_norm", "layer_norm", "rope", "swiglu", "gelu", "softmax", "cross_entropy", "lora", "foak_lora",
    "mamba_ssm", "causal_conv1d", "fla",
)  # fmt: skip
_PACKAGES = {
    "liger": ("rms_norm", "rope", "swiglu"),
    "te": ("rms_norm", "rope", "swiglu"),
    "unsloth": ("rms_norm", "rope", "swiglu", "lora"),
    "foak": ("rms_norm", "rope", "foak_lora"),
}


def checked(settings: TrainingSettings) -> TrainingSettings:
    """The settings with packages of kernels spelled out.

    Raises
    ------
    BadInput
        If a name is not known; the hint has the closest.
    """
    _known("checkpointing", settings.checkpointing.kind, CHECKPOINTING)
    _known("loss", settings.loss.kind, LOSSES)
    _known("attention", settings.attention, ATTENTION)
    _known("pipeline schedule", settings.layout.schedule, SCHEDULES)
    _known("rollout engine", settings.rollout.engine if settings.rollout else None, ROLLOUTS)
    for name in settings.kernels:
        _known("kernel", name, (*_PACKAGES, *KERNELS))
    kernels = tuple(one for name in settings.kernels for one in _PACKAGES.get(name, (name,)))
    loss = settings.loss
    if loss.kind is None and "liger" in settings.kernels:
        loss = replace(loss, kind="liger")
    elif loss.kind is None and "cross_entropy" in kernels:
        loss = replace(loss, kind="fused")
    return replace(settings, kernels=tuple(dict.fromkeys(kernels)), loss=loss)


def uncounted(settings: TrainingSettings) -> tuple[str, ...]:
    """What changes memory and is not counted, for the reader."""
    found = []
    if settings.precision.float8 and settings.precision.float8 not in LOW_BITS:
        found.append(f"products in {settings.precision.float8} are counted as 16-bit ones")
    if settings.use_cache:
        found.append("keys and values that the forward pass caches are not counted")
    if settings.rollout is not None and settings.rollout.engine == "sglang":
        found.append("the rollout engine is counted as vLLM would allocate")
    if settings.layout.schedule == "dualpipe" and settings.layout.pp > 1:
        found.append("DualPipe's second copy of each stage's parameters is not counted")
    return tuple(found)


def _known(what: str, name: str | None, names: Sequence[str]) -> None:
    if name is None or name in names:
        return
    from difflib import get_close_matches

    close = get_close_matches(name, names, 1, 0.5)
    raise BadInput(
        f"there is no {what} {name!r}", f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
    )
