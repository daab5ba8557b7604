"""What tools print of a training run: torch's counters, and what the driver shows of a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.calibration import constant
from willfit.engines.transformers.readings import hidden_bytes
from willfit.estimate import Term, between, combined
from willfit.hardware.device import Device
from willfit.training.account import Account
from willfit.training.caching import cached, class_of, reserved, spread_of
from willfit.training.outside import fragmentation
from willfit.training.run import Run
from willfit.training.timeline import Instant


def figures(one: Account, terms: Sequence[Term], run: Run, ranks: int, device: Device) -> dict[str, object]:
    """Allocated and reserved peak, and the driver's figure, each as a size with its interval; and every instant.

    Parameters
    ----------
    one, terms
        The fullest rank.
    ranks
        Over which states are shared.
    device
        What the rank runs on.
    """
    kind = class_of(run, ranks)
    beside = beside_of(terms)
    peak = peak_of(terms)
    ratio = constant("training.allocated_ratio")
    # The point is what rules give; how far published peaks lie around it is the interval.
    allocated = peak, int(peak * min(1, ratio.low)), int(peak * max(1, ratio.high))
    filled = cached(one, kind)
    # Models beside the trained one are there all the time.
    filled = replace(filled, beside=filled.beside + peak - one.peak)
    holes = fragmentation(peak).high_bytes
    held = reserved(peak, allocated[1], holes, filled, spread_of(kind), _room(device, beside))
    shown = combined([between("reserved", *held), *beside])
    if device.usable_bytes is not None and peak <= device.usable_bytes:
        # The driver counts what it keeps for itself as used.
        most = max(device.usable_bytes + hidden_bytes(device), shown[1])
        shown = max(min(shown[0], most), held[0]), shown[1], max(min(shown[2], most), held[2])
    found = {"allocated": allocated, "reserved": held, "shown": shown}
    return {
        **found,
        "training": {
            "instant": one.worst.name,
            "caching": {"class": kind, "beside_bytes": filled.beside, "extra_bytes": filled.extra},
            **{
                name: dict(zip(("bytes", "low_bytes", "high_bytes"), figure, strict=True))
                for name, figure in found.items()
            },
            "instants": [_instant(one.resident, instant) for instant in one.instants],
        },
    }


def peak_of(terms: Sequence[Term]) -> int:
    """What torch has allocated at the fullest instant."""
    return sum(term.bytes for term in terms if term.low_bytes == term.high_bytes)


def beside_of(terms: Sequence[Term]) -> list[Term]:
    """What a process holds of a device outside of torch's allocator."""
    return [term for term in terms if term.name in ("context", "nccl")]


def _room(device: Device, beside: Sequence[Term]) -> tuple[int, int] | None:
    if device.usable_bytes is None:
        return None
    return device.usable_bytes - sum(term.bytes for term in beside), device.usable_bytes


def _instant(resident: int, instant: Instant) -> dict[str, object]:
    return {
        "name": instant.name,
        "bytes": resident + instant.bytes,
        "kept_bytes": instant.kept,
        "passing_bytes": instant.passing,
        "gradient_bytes": instant.gradients,
        "communication_bytes": instant.communication,
    }
