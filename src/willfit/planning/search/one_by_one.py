"""Ways of engines that are asked for an estimate each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.budget import Runs
from willfit.engines.table import ask, newest_version
from willfit.errors import BadInput
from willfit.estimate import VERDICTS, Estimate
from willfit.hardware.device import Device
from willfit.planning.search.columns import DOES_NOT_FIT, FITS
from willfit.planning.search.layouts import Layout, together
from willfit.planning.search.ways import Ways
from willfit.quantities import ceil_div

#: Engines that allocate what a question needs and nothing by what a device has.
SIZE_BLIND = frozenset(("llama.cpp",))

#: How engines compute whose ranks divide tensors, and those that deal layers out to devices.
_RUNS = (Runs(), Runs(pipelined=False))


@dataclass(frozen=True, slots=True)
class _Judged:
    layout: Layout
    dealt: bool
    verdict: int
    peak: int
    spare: int
    room: int
    reason: str


def one_by_one(
    subjects: Sequence[Subject],
    engine: str,
    devices: Sequence[Device],
    question: Question,
    spread: Callable[[Subject, int], Sequence[tuple[Layout, Sequence[int]]]],
    kv_dtypes: Sequence[str],
) -> Ways:
    """Judge ways by an estimate for each number of devices; how an engine spreads a model over them is its own choice.

    No estimate is asked for where the weights alone are too large, nor for servers of more devices than one that does
    alone, nor where a device like it was asked about before. Of numbers of servers the fewest that surely do are among
    the rows, and twice as many and more, which hold as many times the users.
    """
    known: dict[object, Estimate | BadInput] = {}
    rows: list[tuple[int, int, int, int, int, _Judged]] = []
    for subject_at, subject in enumerate(subjects):
        for device_at, device in enumerate(devices):
            counts: dict[int, Sequence[int]] = {}
            for layout, servers in spread(subject, together(device)):
                counts.setdefault(layout.server_devices, servers)
            for kv_at, kv_dtype in enumerate(kv_dtypes):
                for count in sorted(counts):
                    of = _Server(
                        subject, subject_at, engine, device, count, replace(question, kv_dtype=kv_dtype)
                    )
                    judged = _fewest(of, counts[count], known)
                    rows += [
                        (subject_at, device_at, kv_at, servers, users, one) for servers, users, one in judged
                    ]
                    if judged[0][2].verdict == FITS and judged[0][0] == 1:
                        break
    return _ways(subjects, engine, question.version or newest_version(engine), devices, kv_dtypes, rows)


@dataclass(frozen=True, slots=True)
class _Server:
    """So many devices that run a model together, and what all servers are asked for."""

    subject: Subject
    subject_at: int
    engine: str
    device: Device
    count: int
    question: Question


def _fewest(
    of: _Server, numbers: Sequence[int], known: dict[object, Estimate | BadInput]
) -> list[tuple[int, int, _Judged]]:
    """The fewest servers that surely do, with the users of each, and more of them; else the most that there are.

    A server of fewer users needs no more, so that whatever the numbers before do not hold need not be asked.
    """

    def at(place: int) -> tuple[int, int, _Judged]:
        share = ceil_div(of.question.users, numbers[place])
        return numbers[place], share, _one(of, share, known)

    low, high = 0, len(numbers) - 1
    last = at(high)
    if last[2].verdict != FITS:
        return [last]
    while low < high:
        middle = (low + high) // 2
        if at(middle)[2].verdict == FITS:
            high = middle
        else:
            low = middle + 1
    return [at(place) for place in range(low, len(numbers))]


def _one(of: _Server, users: int, known: dict[object, Estimate | BadInput]) -> _Judged:
    """A number of devices, asked about or known."""
    subject, device, count = of.subject, of.device, of.count
    question = replace(of.question, users=users)
    usable = device.usable_bytes or 0
    least = int(subject.weight_bytes * subject.weight_sureness[0])
    if least > usable * count:
        needed = least // count
        return _Judged(Layout(1, count), True, DOES_NOT_FIT, needed, usable - needed, 0, "")
    like = _without_size(device) if of.engine in SIZE_BLIND else device
    key = of.subject_at, like, count, question
    if key not in known:
        try:
            known[key] = ask(of.engine, subject, Machine((device,) * count), question)
        except BadInput as error:
            known[key] = error
    answer = known[key]
    if isinstance(answer, BadInput):
        return _Judged(Layout(1, count), True, DOES_NOT_FIT, 0, 0, 0, answer.message)
    answer = replace(answer, devices=tuple(replace(one, usable_bytes=usable) for one in answer.devices))
    spare = [usable - one.peak_bytes for one in answer.devices]
    spare += [demand.pool_bytes - demand.needed_bytes for demand in answer.demands]
    peak = max((one.peak_bytes for one in answer.devices), default=0)
    holds = int(answer.capacity.max_concurrency) if answer.capacity else question.users
    layout = _layout(answer, count)
    return _Judged(
        layout or Layout(1, count),
        layout is None,
        VERDICTS.index(answer.verdict),
        peak,
        min(spare, default=0),
        holds,
        answer.refusal,
    )


def _layout(answer: Estimate, count: int) -> Layout | None:
    """As an estimate has it; None where layers are dealt out to devices."""
    tensor = answer.details.get("tensor_parallel")
    if isinstance(tensor, int) and tensor > 0 and count % tensor == 0:
        return Layout(tensor, count // tensor)
    return None


def _without_size(device: Device) -> Device:
    """The device but for how much memory it has, how fast it is and how it is called."""
    return Device(
        "", vendor=device.vendor, arch=device.arch, compute_capability=device.compute_capability,
        interconnect=device.interconnect, unified_memory=device.unified_memory,
    )  # fmt: skip


def _ways(
    subjects: Sequence[Subject],
    engine: str,
    version: str,
    devices: Sequence[Device],
    kv_dtypes: Sequence[str],
    rows: Sequence[tuple[int, int, int, int, int, _Judged]],
) -> Ways:
    import numpy as np

    layouts: dict[Layout, int] = {}
    reasons: dict[str, int] = {"": 0}

    def of(read: Callable[[int, int, int, int, int, _Judged], int]) -> Any:
        return np.array([read(*row) for row in rows], np.int64)

    return Ways(
        engine, version, subjects, devices,
        layout=of(lambda s, d, k, r, u, one: layouts.setdefault(one.layout, len(layouts))),
        reason=of(lambda s, d, k, r, u, one: reasons.setdefault(one.reason, len(reasons))),
        layouts=tuple(layouts), kv_dtypes=kv_dtypes, runs=_RUNS, reasons=tuple(reasons),
        subject=of(lambda s, d, k, r, u, one: s),
        device=of(lambda s, d, k, r, u, one: d),
        kv_dtype=of(lambda s, d, k, r, u, one: k),
        run=of(lambda s, d, k, r, u, one: int(one.dealt)),
        replicas=of(lambda s, d, k, r, u, one: r),
        sequences=of(lambda s, d, k, r, u, one: u),
        verdict=of(lambda s, d, k, r, u, one: one.verdict),
        peak=of(lambda s, d, k, r, u, one: one.peak),
        spare=of(lambda s, d, k, r, u, one: one.spare),
        room=of(lambda s, d, k, r, u, one: one.room * r),
    )  # fmt: skip
