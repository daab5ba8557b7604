"""Points that vLLM answers for many devices at once, as `planning/search` does: devices of a kind have one budget."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.budget import Budget
from willfit.engines.table import newest_version
from willfit.engines.vllm import NAME as VLLM
from willfit.engines.vllm import settings_for
from willfit.engines.vllm.budgets import budget
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.kinds import kind_of
from willfit.engines.vllm.shared import Shared
from willfit.estimate import VERDICTS, probability_of_fitting
from willfit.hardware.device import Device
from willfit.planning.search.columns import judged
from willfit.sweeping.rows import Row, rounded

Name = TypeVar("Name", bound=Hashable)


class Columns:
    """What is known of vLLM's start-ups while a chunk is answered."""

    def __init__(self) -> None:
        self._shared = Shared()
        #: `Shared` knows subjects by identity, so they live as long.
        self._subjects: dict[int, Subject] = {}

    def rows(
        self, subject: Subject, sets: Mapping[Name, tuple[Device, int]], question: Question
    ) -> dict[Name, Row]:
        """The rows of a model on sets of devices, by their names.

        Parameters
        ----------
        sets
            So many of one device, in a host of which nothing is known.

        Raises
        ------
        BadInput
            If vLLM cannot be asked about the model.
        """
        import numpy as np

        self._subjects[id(subject)] = subject
        budgets: list[Budget] = []
        at: dict[tuple[Device, int], int] = {}
        of_set = []
        for device, count in sets.values():
            key = kind_of(device), count
            if key not in at:
                settings = settings_for(subject, Machine((key[0],) * count), question)
                at[key] = len(budgets)
                budgets.append(budget(subject, key[0], settled(subject, settings), self._shared))
            of_set.append(at[key])
        usable = np.array([device.usable_bytes for device, _ in sets.values()], np.int64)
        users = np.full(len(sets), question.users, np.int64)
        found = judged(budgets, np.array(of_set, np.int64), usable, users)
        figures = (
            usable, found.verdict, found.pool, found.pool_low, found.pool_high, found.needed, found.peak, found.low,
            found.high,
        )  # fmt: skip
        version = question.version or newest_version(VLLM)
        return {
            name: _row(budgets[place], version, *numbers)
            for name, place, *numbers in zip(
                sets, of_set, *(column.tolist() for column in figures), strict=True
            )
        }


def _row(
    one: Budget, version: str, usable: int, verdict: int, pool: int, pool_low: int, pool_high: int, needed: int,
    peak: int, low: int, high: int,
) -> Row:  # fmt: skip
    chance, spare = probability_of_fitting(peak, low, high, usable), usable - peak
    if one.block_bytes:
        chance = min(chance, probability_of_fitting(-pool, -pool_high, -pool_low, -needed))
        spare = min(spare, pool - needed)
    return Row(
        engine=VLLM,
        engine_version=version,
        verdict=VERDICTS[verdict],
        probability=0.0 if one.refusal else rounded(chance),
        usable_bytes=usable,
        peak_bytes=peak,
        low_bytes=low,
        high_bytes=high,
        pool_bytes=pool if one.block_bytes else None,
        needed_bytes=needed if one.block_bytes else None,
        spare_bytes=spare,
        host_bytes=one.host_bytes,
        refusal=one.refusal or None,
    )
