"""Which devices run a model: of each kind the fewest that do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.vllm import NAME as VLLM
from willfit.engines.vllm import settings_for
from willfit.hardware.device import Device
from willfit.planning.search.devices import by_engine, every_device, sized
from willfit.planning.search.judging import judge
from willfit.planning.search.layouts import COUNTS, Layout
from willfit.planning.search.ways import Way


@dataclass(frozen=True, slots=True)
class Found:
    """What one kind of device can do.

    Attributes
    ----------
    device
        The kind.
    way
        With the fewest that surely fit, else the fewest that may; None if no number does.
    tried
        The numbers that were tried, up to the first that surely fits.
    """

    device: Device
    way: Way | None
    tried: tuple[Way, ...]


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
    import numpy as np

    known = every_device() if devices is None else sized(devices)
    found: list[Found] = []
    for name, kinds in by_engine(subject, known, engine, is_gguf).items():
        ways = judge([subject], name, kinds, question, partial(unasked, engine=name, question=question))
        tried: dict[int, list[Way]] = defaultdict(list)
        for row in np.lexsort((ways.count, ways.device)):
            on = tried[int(ways.device[row])]
            # More of what surely fits would fit as well.
            if not on or on[-1].verdict != "fits":
                on.append(ways.way(row))
        found += [Found(device, smallest(tried[at]), tuple(tried[at])) for at, device in enumerate(kinds)]
    return sorted(found, key=_memory)


def unasked(subject: Subject, most: int, engine: str, question: Question) -> list[tuple[Layout, tuple[int]]]:
    """One server over all devices, as an engine spreads it unasked."""
    counts = [count for count in COUNTS if count <= most]
    if engine != VLLM:
        return [(Layout(count), (1,)) for count in counts]
    settings = (settings_for(subject, Machine((Device(""),) * count), question) for count in counts)
    return [(Layout(one.tensor_parallel, one.pipeline_parallel), (1,)) for one in settings]


def smallest(tried: Sequence[Way]) -> Way | None:
    """The fewest devices that surely fit, else that may; None if none do."""
    for verdict in ("fits", "tight"):
        fitting = [one for one in tried if one.verdict == verdict]
        if fitting:
            return min(fitting, key=lambda one: one.count)
    return None


def _memory(found: Found) -> tuple[bool, int, str]:
    count = found.way.count if found.way else 0
    return found.way is None, count * (found.device.usable_bytes or 0), found.device.name
