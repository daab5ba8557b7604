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

    No estimate is asked for where the weights alone are too large, nor for more devices than surely do, nor where a
    device like it was asked about before.
    """
    known: dict[object, Estimate | BadInput] = {}
    rows: list[tuple[int, int, int, int, int, _Judged]] = []
    for subject_at, subject in enumerate(subjects):
        for device_at, device in enumerate(devices):
            counts: dict[int, Sequence[int]] = {}
            for layout, servers in spread(subject, together(device)):
                counts.setdefault(layout.server_devices, servers)
            for kv_at, kv_dtype in enumerate(kv_dtypes):
                done: set[int] = set()
                for count in sorted(counts):
                    for replicas in counts[count]:
                        if replicas in done:
                            continue
                        share = replace(question, users=ceil_div(question.users, replicas), kv_dtype=kv_dtype)
                        one = _one(subject, subject_at, engine, device, count, share, known)
                        rows.append((subject_at, device_at, kv_at, replicas, share.users, one))
                        if one.verdict == FITS:
                            done.add(replicas)
    return _ways(subjects, engine, question.version or newest_version(engine), devices, kv_dtypes, rows)


def _one(
    subject: Subject,
    subject_at: int,
    engine: str,
    device: Device,
    count: int,
    question: Question,
    known: dict[object, Estimate | BadInput],
) -> _Judged:
    """A number of devices, asked about or known."""
    usable = device.usable_bytes or 0
    least = int(subject.weight_bytes * subject.weight_sureness[0])
    if least > usable * count:
        needed = least // count
        return _Judged(Layout(1, count), True, DOES_NOT_FIT, needed, usable - needed, 0, "")
    key = subject_at, (_without_size(device) if engine in SIZE_BLIND else device), count, question
    if key not in known:
        try:
            known[key] = ask(engine, subject, Machine((device,) * count), question)
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
