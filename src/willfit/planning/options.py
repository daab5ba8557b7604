"""Ways to run a model: so many of a device, a layout, a format, a dtype of the cache; and whether each fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.budget import Budget
from willfit.engines.table import ask
from willfit.engines.vllm import NAME as VLLM
from willfit.engines.vllm import settings_for
from willfit.engines.vllm.budgets import budget
from willfit.engines.vllm.kinds import kind_of
from willfit.errors import BadInput
from willfit.estimate import VERDICTS, Estimate, Verdict
from willfit.hardware.device import Device
from willfit.planning.columns import judged

#: Engines that allocate what a question needs and nothing by what a device has.
SIZE_BLIND = frozenset(("llama.cpp",))

#: How many devices are tried together.
COUNTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run a model.

    Attributes
    ----------
    subject
        The model as it would be stored.
    engine
        Who runs it.
    device, count
        On what.
    kv_dtype
        Of the cache.
    verdict
        Whether it fits.
    peak_bytes
        What the fullest device holds.
    spare_bytes
        What is left over where least is: of the cache beside what is asked for, or of the device; negative if that much
        is missing.
    reason
        Why the engine would not start; empty otherwise.
    """

    subject: Subject
    engine: str
    device: Device
    count: int
    kv_dtype: str
    verdict: Verdict
    peak_bytes: int
    spare_bytes: int
    reason: str = ""


def options(
    subjects: Sequence[Subject], engine: str, sets: Sequence[tuple[Device, int]], question: Question
) -> Iterator[Option]:
    """Judge every model on every set of devices.

    Parameters
    ----------
    subjects
        A model in several formats, or several models.
    engine
        Its name.
    sets
        Devices with how many of each.
    question
        What shall run on them.
    """
    judge = _in_columns if engine == VLLM else _one_by_one
    for subject in subjects:
        yield from judge(subject, engine, sets, question)


def _in_columns(
    subject: Subject, engine: str, sets: Sequence[tuple[Device, int]], question: Question
) -> Iterator[Option]:
    """Many at once: devices of a kind have one budget."""
    import numpy as np

    budgets: list[Budget] = []
    at: dict[tuple[Device, int], int] = {}
    rows = []
    for device, count in sets:
        key = kind_of(device), count
        if key not in at:
            settings = settings_for(subject, Machine((key[0],) * count), question)
            at[key] = len(budgets)
            budgets.append(budget(subject, key[0], settings, question.users))
        rows.append(at[key])
    usable = np.array([device.usable_bytes or 0 for device, _ in sets], np.int64)
    found = judged(budgets, np.array(rows, np.int64), usable)
    for row, (device, count) in enumerate(sets):
        one = budgets[rows[row]]
        spare = int(usable[row] - found.peak[row])
        if one.block_bytes:
            spare = min(spare, int(found.pool[row]) - one.needed_bytes)
        yield Option(
            subject, engine, device, count, question.kv_dtype,
            VERDICTS[found.verdict[row]], int(found.peak[row]), spare, one.refusal,
        )  # fmt: skip


def _one_by_one(
    subject: Subject, engine: str, sets: Sequence[tuple[Device, int]], question: Question
) -> Iterator[Option]:
    """An estimate each, but where the weights alone are too large, or a like device was asked about before."""
    least = subject.weight_bytes * subject.weight_sureness[0]
    known: dict[tuple[Device, int], Estimate | BadInput] = {}
    for device, count in sets:
        usable = device.usable_bytes or 0
        common = subject, engine, device, count, question.kv_dtype
        if least > usable * count:
            needed = int(least) // count
            yield Option(*common, "does_not_fit", needed, usable - needed)
            continue
        key = (_without_size(device) if engine in SIZE_BLIND else device), count
        if key not in known:
            try:
                known[key] = ask(engine, subject, Machine((device,) * count), question)
            except BadInput as error:
                known[key] = error
        answer = known[key]
        if isinstance(answer, BadInput):
            yield Option(*common, "does_not_fit", 0, 0, answer.message)
            continue
        answer = replace(answer, devices=tuple(replace(one, usable_bytes=usable) for one in answer.devices))
        spare = [usable - one.peak_bytes for one in answer.devices]
        spare += [demand.pool_bytes - demand.needed_bytes for demand in answer.demands]
        peak = max((one.peak_bytes for one in answer.devices), default=0)
        yield Option(*common, answer.verdict, peak, min(spare, default=0), answer.refusal)


def _without_size(device: Device) -> Device:
    """The device but for how much memory it has, how fast it is and how it is called."""
    return Device(
        "", vendor=device.vendor, arch=device.arch, compute_capability=device.compute_capability,
        interconnect=device.interconnect, unified_memory=device.unified_memory,
    )  # fmt: skip
