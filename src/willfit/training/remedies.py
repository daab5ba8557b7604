"""What would make a run fit: the smallest changes first, each with what it saves and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    name
        One word for it.
    what
        In words, with the option that makes it.
    cost
        What is paid for it.
    settings
        The run with the change made.
    other
        Something else is trained then.
    """

    name: str
    what: str
    cost: str
    settings: TrainingSettings
    other: bool = False


def changes(settings: TrainingSettings, ranks: int) -> Iterator[Change]:
    """Changes that may be made to a run, the cheapest first."""
    checkpointing, loss, optimizer = settings.checkpointing, settings.loss, settings.optimizer
    if loss.kind in (None, "hf", "chunked") and settings.objective in ("sft", "pretrain"):
        yield Change(
            "liger",
            "fuse head and loss (--loss liger)", "logits never exist as a whole; nothing else changes",
            replace(settings, loss=replace(loss, kind="liger")),
        )  # fmt: skip
    if settings.attention == "eager":
        yield Change(
            "sdpa",
            "attend without holding scores (--attention sdpa)", "none",
            replace(settings, attention="sdpa"),
        )  # fmt: skip
    if checkpointing.kind in (None, "none", "selective-op"):
        yield Change(
            "checkpoint",
            "checkpoint every layer (--checkpointing full)", "the forward pass runs twice: about a third more time",
            replace(settings, checkpointing=replace(checkpointing, kind="full")),
        )  # fmt: skip
    if settings.micro_batch > 1:
        accumulation = settings.gradient_accumulation * settings.micro_batch
        yield Change(
            "batch",
            f"batch 1, accumulated {accumulation} times (--batch 1 --grad-accum {accumulation})",
            "smaller products, so somewhat slower",
            replace(settings, micro_batch=1, gradient_accumulation=accumulation),
        )  # fmt: skip
    megatron = settings.framework == "megatron"
    ordinary = optimizer.name in (None, "adamw", "adam", "adamw_torch") and not megatron
    if ordinary and not settings.offload.optimizer:
        if optimizer.implementation != "fused":
            yield Change(
                "fused",
                "step with the fused optimizer (--optimizer-impl fused)", "none",
                replace(settings, optimizer=replace(optimizer, implementation="fused")),
            )  # fmt: skip
        yield Change(
            "8bit",
            "keep optimizer states in 8 bits (--optimizer adamw_8bit)", "states are rounded block by block",
            replace(settings, optimizer=replace(optimizer, name="adamw_8bit", implementation=None)),
        )  # fmt: skip
    shared = (None, "none", "ddp", "zero1", "zero2")
    if ranks > 1 and megatron and settings.layout.data in shared:
        yield Change(
            "distribute",
            "share optimizer states among the devices (--distributed-optimizer)", "none but its messages",
            replace(settings, layout=replace(settings.layout, data="distributed-optimizer")),
        )  # fmt: skip
    elif ranks > 1 and settings.layout.data in shared:
        yield Change(
            "shard",
            "share weights and states among the devices (--fsdp 2)", "weights are gathered layer by layer",
            replace(settings, layout=replace(settings.layout, data="fsdp2")),
        )  # fmt: skip
    if not checkpointing.offload and checkpointing.kind == "full":
        yield Change(
            "offload-activations",
            "keep checkpoints on the host (--offload activations)", "each is copied there and back",
            replace(settings, checkpointing=replace(checkpointing, offload=True)),
        )  # fmt: skip
    if not settings.offload.optimizer and settings.adapter is None:
        sharded = (settings.layout.data or "").startswith("fsdp")
        yield Change(
            "offload-step",
            "shards and the step on the host (--offload params)" if sharded
            else "step on the host (--offload optimizer)",
            "the step is as slow as the host's RAM",
            replace(settings, offload=replace(settings.offload, optimizer=True, params=sharded)),
        )  # fmt: skip
    if settings.adapter is None:
        adapter = AdapterSettings(rank=16, targets=("all-linear",))
        yield Change(
            "adapter",
            "train an adapter (--method lora)", "fewer parameters learn",
            replace(settings, adapter=adapter), other=True,
        )  # fmt: skip
    if settings.quantization is None and not megatron:
        adapter = settings.adapter or AdapterSettings(rank=16, targets=("all-linear",))
        yield Change(
            "qlora",
            "train an adapter on a 4-bit base (--method qlora)",
            "the base is rounded; matrices are expanded as they run",
            replace(settings, adapter=adapter, quantization=QuantizationSettings("nf4", True)),
            other=settings.adapter is None,
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
    found: list[tuple[bool, bool, str]] = []
    suffice: list[str] = []
    for change in changes(settings, ranks):
        size, fits = judge(change.settings)
        suffice += [change.name] if fits else []
        saved = needed - size
        if saved <= _WORTH * needed:
            continue
        text = f"{change.what}: {format_bytes(saved)} less, {format_bytes(size)} in all; cost: {change.cost}"
        found.append((fits, change.other, text))
    enough = [text for fits, other, text in found if fits and not other]
    elsewhere = [text for fits, other, text in found if fits and other]
    names = tuple(change.name for change in changes(settings, ranks))
    # What suffices alone, and what costs more, is not needed where cheaper changes do together.
    cheaper = names[: names.index(suffice[0])] if suffice else names
    together = _together(settings, ranks, judge, cheaper)
    first = (together,) if together else ()
    if enough or elsewhere:
        return (*first, *enough, *elsewhere)
    return (*first, *(text for _, _, text in found))


def _together(settings: TrainingSettings, ranks: int, judge: Judge, names: Sequence[str]) -> str:
    """The fewest of some changes that suffice together, the cheapest first."""
    made: list[str] = []
    size, fits = judge(settings)
    for name in names:
        smaller, fits = judge(_changed(settings, ranks, (*made, name)))
        if size - smaller > _WORTH * size:
            made.append(name)
            size = smaller
        if fits:
            break
    if not fits or len(made) < 2:
        return ""
    for name in tuple(made):
        rest = tuple(one for one in made if one != name)
        smaller, fits = judge(_changed(settings, ranks, rest))
        if fits:
            made, size = list(rest), smaller
    words, current = [], settings
    for name in made:
        change = _named(current, ranks, name)
        if change is not None:
            words.append(change.what)
            current = change.settings
    return f"together: {', '.join(words)}: {format_bytes(size)} in all"


def _changed(settings: TrainingSettings, ranks: int, names: Sequence[str]) -> TrainingSettings:
    """The run with some changes made one after the other."""
    for name in names:
        change = _named(settings, ranks, name)
        settings = settings if change is None else change.settings
    return settings


def _named(settings: TrainingSettings, ranks: int, name: str) -> Change | None:
    return next((change for change in changes(settings, ranks) if change.name == name), None)
