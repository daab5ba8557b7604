"""What would make a run fit: the smallest changes first, each with what it saves and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from willfit.quantities import format_bytes
from willfit.training.settings import (
    AdapterSettings,
    QuantizationSettings,
    TrainingSettings,
)

#: The bytes of a run's fullest device, and whether it fits.
Judge = Callable[[TrainingSettings], tuple[int, bool]]

#: A change that saves less than this share of the fullest device is not named.
_WORTH = 0.01


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes
    ----------
    what
        In words, with the option that makes it.
    cost
        What is paid for it.
    settings
        The run with the change made.
    """

    what: str
    cost: str
    settings: TrainingSettings


def changes(settings: TrainingSettings, ranks: int) -> Iterator[Change]:
    """Changes that may be made to a run, the cheapest first."""
    checkpointing, loss, optimizer = settings.checkpointing, settings.loss, settings.optimizer
    if loss.kind in (None, "hf", "chunked") and settings.objective in ("sft", "pretrain"):
        yield Change(
            "fuse head and loss (--loss liger)", "logits never exist as a whole; nothing else changes",
            replace(settings, loss=replace(loss, kind="liger")),
        )  # fmt: skip
    if settings.attention == "eager":
        yield Change(
            "attend without holding scores (--attention sdpa)", "none",
            replace(settings, attention="sdpa"),
        )  # fmt: skip
    if checkpointing.kind in (None, "none", "selective-op"):
        yield Change(
            "checkpoint every layer (--checkpointing full)", "the forward pass runs twice: about a third more time",
            replace(settings, checkpointing=replace(checkpointing, kind="full")),
        )  # fmt: skip
    if settings.micro_batch > 1:
        accumulation = settings.gradient_accumulation * settings.micro_batch
        yield Change(
            f"batch 1, accumulated {accumulation} times (--batch 1 --grad-accum {accumulation})",
            "smaller products, so somewhat slower",
            replace(settings, micro_batch=1, gradient_accumulation=accumulation),
        )  # fmt: skip
    if optimizer.name in (None, "adamw", "adam", "adamw_torch") and not settings.offload.optimizer:
        if optimizer.implementation != "fused":
            yield Change(
                "step with the fused optimizer (--optimizer-impl fused)", "none",
                replace(settings, optimizer=replace(optimizer, implementation="fused")),
            )  # fmt: skip
        yield Change(
            "keep optimizer states in 8 bits (--optimizer adamw_8bit)", "states are rounded block by block",
            replace(settings, optimizer=replace(optimizer, name="adamw_8bit", implementation=None)),
        )  # fmt: skip
    if ranks > 1 and settings.layout.data in (None, "none", "ddp", "zero1", "zero2"):
        yield Change(
            "share weights and states among the devices (--fsdp 2)", "weights are gathered layer by layer",
            replace(settings, layout=replace(settings.layout, data="fsdp2")),
        )  # fmt: skip
    if not checkpointing.offload and checkpointing.kind == "full":
        yield Change(
            "keep checkpoints on the host (--offload activations)", "each is copied there and back",
            replace(settings, checkpointing=replace(checkpointing, offload=True)),
        )  # fmt: skip
    if not settings.offload.optimizer and settings.adapter is None:
        yield Change(
            "step on the host (--offload optimizer)", "the step is as slow as the host's RAM",
            replace(settings, offload=replace(settings.offload, optimizer=True)),
        )  # fmt: skip
    if settings.adapter is None:
        adapter = AdapterSettings(rank=16, targets=("all-linear",))
        yield Change(
            "train an adapter (--method lora)", "fewer parameters learn", replace(settings, adapter=adapter)
        )
    if settings.quantization is None:
        adapter = settings.adapter or AdapterSettings(rank=16, targets=("all-linear",))
        yield Change(
            "train an adapter on a 4-bit base (--method qlora)",
            "the base is rounded; matrices are expanded as they run",
            replace(settings, adapter=adapter, quantization=QuantizationSettings("nf4", True)),
        )  # fmt: skip


def remedies(settings: TrainingSettings, ranks: int, needed: int, judge: Judge) -> tuple[str, ...]:
    """Changes that make a run fit: single ones that suffice first, then what must be done together.

    Parameters
    ----------
    settings
        The run, filled in.
    ranks
        Data-parallel ranks.
    needed
        Bytes of its fullest device.
    judge
        Weighs a run.
    """
    alone: list[str] = []
    others: list[str] = []
    for change in changes(settings, ranks):
        size, fits = judge(change.settings)
        saved = needed - size
        if saved <= _WORTH * needed:
            continue
        text = f"{change.what}: {format_bytes(saved)} less, {format_bytes(size)} in all; cost: {change.cost}"
        (alone if fits else others).append(text)
    if alone:
        return tuple(alone)
    together = _together(settings, ranks, judge)
    return (*([together] if together else ()), *others)


def _together(settings: TrainingSettings, ranks: int, judge: Judge) -> str:
    """The first changes that suffice together, the cheapest first."""
    done: list[str] = []
    size, fits = judge(settings)
    current = settings
    while not fits:
        for change in changes(current, ranks):
            smaller, fits = judge(change.settings)
            if size - smaller > _WORTH * size:
                done.append(change.what)
                current, size = change.settings, smaller
                break
        else:
            return ""
    return f"together: {', '.join(done)}: {format_bytes(size)} in all"
