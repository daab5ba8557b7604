"""What would make a model fit: fewer layers on the devices, experts on the host, a shorter context, a smaller cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from willfit.engines.llama_cpp.loading.offload import EXPERTS, Offload
from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.solving import largest
from willfit.quantities import format_bytes

#: Bytes of each device for changed settings and offload.
Measure = Callable[[Settings, Offload], Sequence[int]]


def remedies(sizing: Sizing, limits: Sequence[int], measure: Measure, longest: int) -> tuple[str, ...]:
    """Changes to the command, most promising first; empty if all fits.

    Parameters
    ----------
    limits
        Bytes of each device that weights, caches and compute buffers may take.
    longest
        The longest context of a sequence that would fit; 0 if none does.
    """
    settings, offload = sizing.settings, sizing.offload

    def over(asked: Settings, chosen: Offload) -> int:
        used = measure(asked, chosen)
        return max((taken - limit for taken, limit in zip(used, limits, strict=True)), default=0)

    if not limits or over(settings, offload) <= 0:
        return ()
    found: list[str] = []
    slots = 1 if sizing.resolved.unified else sizing.resolved.sequences
    each = sizing.resolved.n_ctx // slots
    if settings.cache_type_k == "f16" and sizing.context.flash_attn:
        small = replace(settings, cache_type_k="q8_0", cache_type_v="q8_0")
        if over(small, offload) <= 0:
            found.append("-ctk q8_0 -ctv q8_0: keys and values in 8 bits")
    if 0 < longest < each:
        found.append(f"-c {longest * slots}: {longest:,} tokens for each sequence")
    layers = len(sizing.model.places.layers)
    experts = any("_exps." in one.name for one in sizing.model.placed)
    if experts and not settings.cpu_moe:
        needed = _fewest_experts(layers, settings, offload, over)
        if needed is not None:
            moved = _expert_bytes(sizing, needed)
            found.append(
                f"--n-cpu-moe {needed}: experts of {needed} of {layers} layers in RAM ({format_bytes(moved)})"
            )
    most = largest(lambda count: over(settings, replace(offload, layers=count)), layers + 1)
    if 0 < most < offload.layers:
        held = sum(one.tensor.bytes for one in sizing.model.placed if one.buffer.device is not None)
        moved = held * (offload.layers - most) // offload.layers
        found.append(f"-ngl {most}: {offload.layers - most} layers in RAM (about {format_bytes(moved)})")
    return tuple(found)


def _fewest_experts(
    layers: int, settings: Settings, offload: Offload, over: Callable[[Settings, Offload], int]
) -> int | None:
    """Of how many layers the experts must stay in RAM; None if all of them do not suffice."""

    def without(count: int) -> Offload:
        moved = tuple((rf"blk\.{layer}{EXPERTS}", "CPU") for layer in range(count))
        return replace(offload, overrides=(*offload.overrides, *moved))

    if over(settings, without(layers)) > 0:
        return None
    kept = largest(lambda count: over(settings, without(layers - count)), layers)
    return layers - kept


def _expert_bytes(sizing: Sizing, layers: int) -> int:
    names = tuple(f"blk.{layer}." for layer in range(layers))
    return sum(
        one.tensor.bytes for one in sizing.model.placed if "_exps." in one.name and one.name.startswith(names)
    )
