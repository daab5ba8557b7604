"""Whether ways to train fit: an estimate for each run and kind of kernels, whatever the device's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.device import Device
from willfit.planning.training_search.schemes import Scheme
from willfit.speed.answer import Speed
from willfit.speed.training_answer import training_speed_of
from willfit.training.estimate import estimate_alone
from willfit.training.settings import CheckpointingSettings, TrainingSettings

#: Sequences of a device at once that are tried.
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class TrainingWay:
    """A run on devices.

    Attributes
    ----------
    device, count
        On what.
    scheme
        How it is spread.
    settings
        All of it: checkpointing, micro-batch and accumulation among them.
    estimate, speed
        Its answer; the estimate is None where the run cannot be, for the reason in `why`.
    """

    device: Device
    count: int
    scheme: Scheme
    settings: TrainingSettings
    estimate: Estimate | None
    speed: Speed | None = None
    why: str = ""

    @property
    def spare_bytes(self) -> int:
        """What is left over on the fullest device; negative if that much is missing."""
        usable = self.device.usable_bytes or 0
        return (
            usable - max((one.peak_bytes for one in self.estimate.devices), default=0) if self.estimate else 0
        )


@dataclass
class Judge:
    """Estimates of runs of one model, each made once.

    Attributes
    ----------
    subject, asked
        The model, and the run as far as it was said.
    global_batch
        Sequences of a step over all devices; None for whatever a micro-batch on each makes.
    batches
        Micro-batches that are tried, the smallest first.
    """

    subject: Subject
    asked: TrainingSettings
    global_batch: int | None = None
    batches: Sequence[int] = BATCHES
    known: dict[tuple[object, ...], Estimate | BadInput] = field(default_factory=dict)

    def best(self, device: Device, count: int, scheme: Scheme) -> list[TrainingWay]:
        """Of each way to keep activations the largest micro-batch that surely fits; else the smallest one."""
        kinds = ["none", "full"]
        if self.asked.checkpointing.kind is not None:
            kinds = [self.asked.checkpointing.kind]
        found = []
        for kind in kinds:
            kept = replace(self.asked.checkpointing, kind=kind)
            way = self._largest(device, count, scheme, kept)
            found.append(way)
            if way.estimate is None:
                break  # what cannot be divided so cannot whatever is kept
        return found

    def _largest(
        self, device: Device, count: int, scheme: Scheme, kept: CheckpointingSettings
    ) -> TrainingWay:
        batches = [size for size in self.batches if self._accumulated(scheme, count, size)]
        if not batches:
            ranks = self._data_ranks(scheme, count)
            why = f"{self.global_batch} sequences of a step are no multiple of {ranks} data-parallel ranks"
            return TrainingWay(device, count, scheme, self.asked, None, None, why)
        low, high = 0, len(batches) - 1
        first = self._at(device, count, scheme, kept, batches[0])
        if first.estimate is None or first.estimate.verdict != "fits":
            return first
        best = first
        while low < high:
            middle = (low + high + 1) // 2
            way = self._at(device, count, scheme, kept, batches[middle])
            if way.estimate is not None and way.estimate.verdict == "fits":
                low, best = middle, way
            else:
                high = middle - 1
        speed = training_speed_of(self.subject, Machine((device,) * count), best.settings)
        return replace(best, speed=speed)

    def _data_ranks(self, scheme: Scheme, count: int) -> int:
        layout = scheme.layout
        return max(1, count // (layout.tp * layout.pp * layout.cp))

    def _accumulated(self, scheme: Scheme, count: int, batch: int) -> int:
        """Micro-batches before a step; 0 if the batch of a step cannot be divided so."""
        stages = scheme.layout.pp
        if self.global_batch is None:
            # A pipeline is kept busy by several times as many micro-batches as it has stages.
            return 1 if stages == 1 else 4 * stages
        at_once = self._data_ranks(scheme, count) * batch
        number = self.global_batch // at_once
        return number if number * at_once == self.global_batch and number >= stages else 0

    def _at(
        self, device: Device, count: int, scheme: Scheme, kept: CheckpointingSettings, batch: int
    ) -> TrainingWay:
        settings = replace(
            scheme.of(self.asked),
            micro_batch=batch,
            gradient_accumulation=self._accumulated(scheme, count, batch),
            checkpointing=kept,
        )
        key = _kernels_of(device), count, scheme, kept, batch
        if key not in self.known:
            try:
                self.known[key] = estimate_alone(self.subject, Machine((device,) * count), settings)
            except BadInput as error:
                self.known[key] = error
        answer = self.known[key]
        if isinstance(answer, BadInput):
            return TrainingWay(device, count, scheme, settings, None, None, answer.message)
        return TrainingWay(device, count, scheme, settings, _on(answer, device))


def _kernels_of(device: Device) -> str:
    """All that a training run's memory depends on of a device."""
    return device.compute_capability


def _on(answer: Estimate, device: Device) -> Estimate:
    """An estimate on devices of another size."""
    return replace(
        answer,
        devices=tuple(
            replace(one, name=device.name, usable_bytes=device.usable_bytes) for one in answer.devices
        ),
    )
