"""Which devices run a model: of each kind the fewest that do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import default_engine
from willfit.hardware.device import Device
from willfit.hardware.table import all_devices, every_size
from willfit.planning.options import COUNTS, Option, options

#: Devices of one machine that have no links of their own to each other.
_UNLINKED = 8
#: What `Device.interconnect` says of such.
_NO_LINK = ("", "none", "NVLink bridge")


@dataclass(frozen=True, slots=True)
class Found:
    """What one kind of device can do.

    Attributes
    ----------
    device
        The kind.
    option
        With the fewest that surely fit, else the fewest that may; None if no number does.
    tried
        The numbers that were tried, up to the first that surely fits.
    """

    device: Device
    option: Option | None
    tried: tuple[Option, ...]


def which_devices(
    subject: Subject,
    question: Question,
    engine: str | None = None,
    devices: Iterable[Device] | None = None,
    is_gguf: bool = False,
) -> list[Found]:
    """Of each kind of device the fewest that run a model, those with the least memory in all first.

    Parameters
    ----------
    subject, question
        What shall run.
    engine
        None for the one that people would use on each device.
    devices
        None for all that are known.
    is_gguf
        The model is a GGUF file.
    """
    known = [one for device in devices or all_devices() for one in every_size(device) if one.usable_bytes]
    by_engine: dict[str, list[Device]] = defaultdict(list)
    for device in known:
        by_engine[engine or default_engine(subject, Machine((device,)), is_gguf)].append(device)
    found: list[Found] = []
    for name, kinds in by_engine.items():
        tried: dict[Device, list[Option]] = defaultdict(list)
        open_kinds = kinds
        for count in COUNTS:
            sets = [(device, count) for device in open_kinds if count <= together(device)]
            for option in options([subject], name, sets, question):
                tried[option.device].append(option)
            # More of what surely fits would fit as well.
            open_kinds = [device for device, _ in sets if tried[device][-1].verdict != "fits"]
        found += [Found(device, smallest(tried[device]), tuple(tried[device])) for device in kinds]
    return sorted(found, key=_memory)


def together(device: Device) -> int:
    """How many of a device work on one model: as many as machines have, or clusters where they are linked."""
    if device.unified_memory:
        return 1
    return _UNLINKED if device.interconnect in _NO_LINK else max(COUNTS)


def smallest(tried: Sequence[Option]) -> Option | None:
    """The fewest devices that surely fit, else that may; None if none do."""
    for verdict in ("fits", "tight"):
        fitting = [one for one in tried if one.verdict == verdict]
        if fitting:
            return min(fitting, key=lambda one: one.count)
    return None


def _memory(found: Found) -> tuple[bool, int, str]:
    count = found.option.count if found.option else 0
    return found.option is None, count * (found.device.usable_bytes or 0), found.device.name
