"""Ways to serve a model, in columns: which format, device, layout and dtype of the cache, and whether each fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from willfit.engines.base import Subject
from willfit.engines.budget import Runs
from willfit.estimate import VERDICTS, Verdict
from willfit.hardware.device import Device
from willfit.planning.search.layouts import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Ways:
    """A row for each way.

    Attributes
    ----------
    engine, version
        Who serves.
    subjects, devices, layouts, kv_dtypes, runs, reasons
        What the columns of the same names choose from: the model as stored, on what, a server's layout, how the
        cache is stored and what is computed; why the engine would not start, the first of them empty.
    replicas
        Servers beside each other.
    sequences
        How many each server is asked to hold for each of its `layout.data` replicas.
    verdict
        Index into `estimate.VERDICTS`.
    peak
        Bytes that the fullest device holds.
    spare
        Bytes that are left over where least is, of the cache beside what is asked for, or of the device; negative if
        that much is missing.
    room
        Sequences that all servers hold together.
    """

    engine: str
    version: str
    subjects: Sequence[Subject]
    devices: Sequence[Device]
    layouts: Sequence[Layout]
    kv_dtypes: Sequence[str]
    runs: Sequence[Runs]
    reasons: Sequence[str]
    subject: Whole
    device: Whole
    layout: Whole
    kv_dtype: Whole
    run: Whole
    reason: Whole
    replicas: Whole
    sequences: Whole
    verdict: Whole
    peak: Whole
    spare: Whole
    room: Whole

    def __len__(self) -> int:
        return len(self.verdict)

    @property
    def count(self) -> Whole:
        """Devices of each way."""
        import numpy as np

        return np.array([one.server_devices for one in self.layouts], np.int64)[self.layout] * self.replicas

    def way(self, row: int) -> Way:
        """One row."""
        layout = self.layouts[self.layout[row]]
        replicas = int(self.replicas[row])
        return Way(
            subject=self.subjects[self.subject[row]],
            engine=self.engine,
            device=self.devices[self.device[row]],
            layout=Layout(layout.tensor, layout.pipeline, layout.experts, replicas),
            kv_dtype=self.kv_dtypes[self.kv_dtype[row]],
            verdict=VERDICTS[self.verdict[row]],
            peak_bytes=int(self.peak[row]),
            spare_bytes=int(self.spare[row]),
            room=int(self.room[row]),
            reason=self.reasons[self.reason[row]],
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way to serve a model; see `Ways`."""

    subject: Subject
    engine: str
    device: Device
    layout: Layout
    kv_dtype: str
    verdict: Verdict
    peak_bytes: int
    spare_bytes: int
    room: int
    reason: str = ""

    @property
    def count(self) -> int:
        """Devices in all."""
        return self.layout.devices

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other ways of one search."""
        return id(self.subject), self.engine, self.device, self.layout, self.kv_dtype
