"""One call put together: what is loaded, where its layers go, and the moments at which memory can peak."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.context import context_term
from willfit.engines.transformers.cache import as_cached
from willfit.engines.transformers.devices import runs_dequantized
from willfit.engines.transformers.loading import load
from willfit.engines.transformers.moments import Moment, Run, moments
from willfit.engines.transformers.placement import Share, place, split
from willfit.engines.transformers.settings import Settings
from willfit.formats.plain import Plain
from willfit.hardware.device import Device


@dataclass(frozen=True, slots=True)
class Place:
    """One device with what it holds of the model.

    Attributes
    ----------
    share, part
        Its layers, and their part of all layers.
    guessed
        Bytes of the layers that it may hold less, since what is free on a device is not known that well.
    """

    index: int
    device: Device
    share: Share
    part: float
    guessed: int = 0

    @property
    def returned(self) -> bool:
        """Whether another device's logits come back to it, as the prompt came from here."""
        return self.share.first and not self.share.last

    def size(self, moment: Moment) -> float:
        """Bytes of a moment on this device."""
        logits = moment.logits * self.share.last + moment.returned * self.returned
        return (moment.kv_cache + moment.slack) * self.part + moment.activations + logits


@dataclass(frozen=True)
class Plan:
    """A call on a machine.

    Attributes
    ----------
    run
        The call.
    places
        The devices.
    in_ram, on_disk
        Layers that no device has room for.
    dequantized
        Whether the weights are expanded because the first device has no kernels for them.
    """

    run: Run
    places: tuple[Place, ...]
    in_ram: Share
    on_disk: Share
    dequantized: bool

    @cached_property
    def moments(self) -> list[Moment]:
        """The moments at which memory can peak."""
        return moments(self.run)

    def worst(self, one: Place) -> Moment:
        """The moment at which a device holds most."""
        return max(self.moments, key=one.size)

    @property
    def streamed(self) -> int:
        """Bytes of one layer that is brought in from RAM or disk at a time."""
        loaded = self.run.loaded
        return loaded.layer // max(loaded.layers, 1) if self.in_ram.layers or self.on_disk.layers else 0


def plan(subject: Subject, machine: Machine, settings: Settings) -> Plan:
    """Load a model and lay it out.

    Raises
    ------
    BadInput
        If a setting makes no sense.
    """
    if settings.fused_modules:
        settings = replace(settings, cache="static")
    run, dequantized = prepare(subject, machine, settings)
    loaded, devices = run.loaded, machine.devices
    in_ram = on_disk = Share(0)
    bounded = settings.offload or settings.device_map == "sequential"
    if settings.tensor_parallel > 1 or not devices:
        shares = [Share(loaded.layers, True, True)] * len(devices)
    else:
        usable = [
            device.usable_bytes and device.usable_bytes - context_term(device).bytes for device in devices
        ]
        shares, left = place(loaded, usable, settings.device_map == "sequential", settings.offload)
        ram = machine.host_bytes
        if ram is not None:
            ram -= int(constant("transformers.host_process").value)
        in_ram, on_disk = split(left, loaded, ram)
    block = loaded.layer // max(loaded.layers, 1)
    left_over = bool(in_ram.layers or on_disk.layers)
    places = tuple(
        Place(
            index,
            replace(device, usable_bytes=machine.host_bytes) if device.is_cpu else device,
            share,
            share.layers / max(loaded.layers, 1),
            block if bounded and (left_over or index < len(devices) - 1) and share.layers else 0,
        )
        for index, (device, share) in enumerate(zip(devices, shares, strict=True))
    )
    return Plan(run, places, in_ram, on_disk, dequantized)


def prepare(subject: Subject, machine: Machine, settings: Settings) -> tuple[Run, bool]:
    """The model as loaded for a call, and whether it is expanded for lack of kernels."""
    recipe = subject.recipe
    quantized = recipe.rule is not None or not isinstance(recipe.base, Plain)
    dtype = settings.resolved_dtype(subject.architecture.dtype, quantized)
    dequantized = bool(machine.devices) and runs_dequantized(subject, machine.devices[0], settings.version)
    era = replace(settings.era, rope_tables="none") if settings.fused_modules else settings.era
    loaded = load(subject, era, dtype, settings.tensor_parallel, dequantized)
    subject = replace(subject, architecture=as_cached(subject.architecture))
    return Run(subject, settings, era, dtype, loaded, dequantized), dequantized
