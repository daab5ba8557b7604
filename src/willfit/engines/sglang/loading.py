"""What is there before the pools: the driver's context, the weights as the device shows them, drafts and adapters."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.sglang.drafts import draft_of
from willfit.engines.sglang.eras import Era
from willfit.engines.sglang.lora import DEFAULT_RANK, lora_bytes
from willfit.engines.sglang.settings import Settings
from willfit.engines.sglang.sources import SOURCES
from willfit.engines.sglang.weights import loading_slack, rank_lines, rope_bytes, stage_bytes
from willfit.estimate import Term, between, exact
from willfit.hardware.device import Device
from willfit.quantities import GIB

#: Formats whose layers are loaded as they are stored.
_PLAIN = ("bf16", "fp16", "fp32")

#: Methods that store integers.
_INTEGER = frozenset({"awq", "gptq", "auto_round", "auto-round"})


def before_constant(settings: Settings, device: Device) -> str:
    """Name of the constant for what the device has less than its total when loading begins."""
    if device.unified_memory:
        return "sglang.before.unified"
    return "sglang.before.one_rank" if settings.ranks == 1 else "sglang.before.many_ranks"


def before(settings: Settings, device: Device) -> Term:
    """What the first reading of free memory misses: driver, kernels, communicators."""
    spread = constant(before_constant(settings, device))
    value, low, high = int(spread.value), int(spread.low), int(spread.high)
    formula = f"{value} B of the driver's context and kernels"
    formula += f", communicators of {settings.ranks} ranks" if settings.ranks > 1 else ""
    formula += ", what the host uses" if device.unified_memory else ""
    return between("context", value, low, high, formula, spread.reference)


def held_bytes(
    subject: Subject, settings: Settings, dtype: str, era: Era, stage: int | None = None
) -> tuple[int, int]:
    """Bytes of the parameters, and what loading leaves reserved: with copies, tables and rounded segments.

    Parameters
    ----------
    stage
        A stage of the pipeline; None for the fullest.
    """
    loaded = rank_lines(subject, settings, dtype)
    stages = stage_bytes(subject, settings, dtype, loaded)
    stored = max(stages) if stage is None else stages[stage]
    slack = loading_slack(subject, loaded, era)
    return stored, stored + rope_bytes(subject.architecture) + slack * stored // max(1, sum(stages))


def loading_constant(device: Device, era: Era) -> str:
    """Name of the constant for what is taken beside the weights while they are loaded; empty if nothing is."""
    if device.unified_memory:
        return "sglang.loading.unified"
    return "sglang.loading.kernels" if era.kernels_in_loading and device.vendor in ("NVIDIA", "") else ""


def ratio_constant(subject: Subject) -> str:
    """Name of the constant for how far what is logged is from the rule.

    Which layers publishers of AWQ and GPTQ leave alone differs, so their logs lie wider around the rule.
    """
    if subject.recipe.method in _INTEGER:
        return "sglang.weights_ratio.integer"
    return "sglang.weights_ratio" if subject.recipe.name in _PLAIN else "sglang.weights_ratio.quantized"


def weights(subject: Subject, settings: Settings, dtype: str, device: Device, era: Era) -> Term:
    """What free memory falls by while the fullest stage is loaded: the pool's tokens are the minimum over ranks."""
    stored, held = held_bytes(subject, settings, dtype, era)
    offloaded = min(int(settings.cpu_offload_gb * GIB), stored)
    formula = f"{stored} B of tensors ({subject.recipe.name})"
    formula += f" on one of {settings.ranks} ranks" if settings.ranks > 1 else ""
    formula += f" + {held - stored} B of rotary tables in fp32 and rest of segments"
    formula += f" - {offloaded} B kept in host RAM" if offloaded else ""
    size, low, high, sources = held - offloaded, 0.0, 0.0, []
    name = loading_constant(device, era)
    if name:
        beside = constant(name)
        size += int(beside.value)
        low, high = beside.low - beside.value, beside.high - beside.value
        if device.unified_memory:
            # Other programs take and free the host's memory meanwhile.
            low, high = min(low, -beside.value / 2), max(high, beside.value / 2)
        formula += f" + {int(beside.value)} B of kernels" if name.endswith("kernels") else ""
        formula += f" + {int(beside.value)} B of the host's part" if device.unified_memory else ""
        sources.append(beside.reference)
    name = ratio_constant(subject)
    ratio = constant(name)
    if name != "sglang.weights_ratio":
        size = int(size * ratio.value)
        formula = f"({formula}) x {ratio.value:g} (what logs show)"
    less, more = subject.weight_sureness
    low += size * (less * min(1.0, ratio.low) / ratio.value - 1)
    high += size * (more * max(1.0, ratio.high) / ratio.value - 1)
    sources.append(ratio.reference)
    reference = "; ".join((SOURCES.cite("weights", settings.version), *sources))
    return between("weights", size, size + int(low), size + int(high), formula, reference)


def draft_weights(subject: Subject, settings: Settings, dtype: str) -> Term | None:
    """The draft's own weights, its embedding and head not counted where they are the model's."""
    draft = draft_of(subject, settings, dtype)
    if draft is None or not draft.kept:
        return None
    low, high = (int(draft.kept * factor) for factor in draft.sureness)
    return between("draft_weights", draft.kept, low, high, draft.formula, draft.reference)


def adapters(subject: Subject, settings: Settings, dtype: str) -> Term | None:
    """Buffers for LoRA adapters."""
    size = lora_bytes(subject.architecture, settings, dtype)
    if not size:
        return None
    rank = settings.max_lora_rank or DEFAULT_RANK
    adapters = settings.max_loras_per_batch
    formula = f"{adapters} adapters x {size // adapters} B for every projection (rank {rank})"
    return exact("lora_buffers", size, formula, SOURCES.cite("adapters", settings.version))
