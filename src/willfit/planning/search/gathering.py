"""Ways as they come, and the columns made of them: what is the same for many devices is said once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from willfit.engines.base import Subject
from willfit.engines.budget import Budget, Runs
from willfit.hardware.device import Device
from willfit.planning.search.columns import judged
from willfit.planning.search.layouts import Layout
from willfit.planning.search.ways import Ways

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[Any]


class Rows:
    """Blocks of rows: devices by numbers of servers, of one subject, cache dtype, layout and budget."""

    def __init__(self) -> None:
        self._layouts: dict[Layout, int] = {}
        self._runs: dict[Runs, int] = {}
        self._reasons: dict[str, int] = {"": 0}
        self._budgets: list[Budget] = []
        self._blocks: list[tuple[int, ...]] = []
        self._devices: list[Whole] = []
        self._replicas: list[Whole] = []

    def add(
        self, subject: int, kv_dtype: int, layout: Layout, devices: Whole, servers: Sequence[int], one: Budget
    ) -> None:
        """Some devices, each with some numbers of servers.

        Parameters
        ----------
        subject, kv_dtype, devices
            By their places in the sequences that `judged` is given.
        """
        self._blocks.append(
            (
                subject,
                kv_dtype,
                self._layouts.setdefault(layout, len(self._layouts)),
                self._runs.setdefault(one.runs, len(self._runs)),
                self._reasons.setdefault(one.refusal, len(self._reasons)),
                len(self._budgets),
                layout.data,
            )
        )
        self._budgets.append(one)
        self._devices.append(devices)
        self._replicas.append(_array(servers))

    def judged(
        self,
        subjects: Sequence[Subject],
        engine: str,
        version: str,
        devices: Sequence[Device],
        kv_dtypes: Sequence[str],
        users: int,
        usable: Whole,
    ) -> Ways:
        """All rows with their verdicts."""
        import numpy as np

        sizes = [len(on) * len(servers) for on, servers in zip(self._devices, self._replicas, strict=True)]
        blocks = np.repeat(np.array(self._blocks, np.int64).reshape(-1, 7), sizes, axis=0)
        device = _joined(
            [np.repeat(on, len(servers)) for on, servers in zip(self._devices, self._replicas, strict=True)]
        )
        replicas = _joined(
            [np.tile(servers, len(on)) for on, servers in zip(self._devices, self._replicas, strict=True)]
        )
        subject, kv_dtype, layout, run, reason, budget, data = blocks.T
        sequences = -(-users // (replicas * data))
        room = usable[device]
        found = judged(self._budgets, budget, room, sequences)
        cached = _array([bool(one.block_bytes) for one in self._budgets])[budget]
        spare = room - found.peak
        return Ways(
            engine, version, subjects, devices, tuple(self._layouts), kv_dtypes, tuple(self._runs),
            tuple(self._reasons), subject, device, layout, kv_dtype, run, reason, replicas, sequences,
            verdict=found.verdict,
            peak=found.peak,
            spare=np.where(cached, np.minimum(spare, found.pool - found.needed), spare),
            room=found.room * replicas * data,
        )  # fmt: skip


def _array(values: Sequence[int]) -> Whole:
    import numpy as np

    return np.array(values)


def _joined(parts: Sequence[Whole]) -> Whole:
    import numpy as np

    return np.concatenate(parts) if parts else np.array([], np.int64)
