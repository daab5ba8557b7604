"""Which devices a search is about, and who runs a model on each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from willfit.engines.base import Machine, Subject
from willfit.engines.table import default_engine
from willfit.hardware.device import Device
from willfit.hardware.mig import slices_of
from willfit.hardware.prices import Prices, with_slices
from willfit.hardware.table import all_devices, every_size


def every_device() -> list[Device]:
    """All devices of the table in all sizes."""
    return sized(all_devices())


def sized(devices: Iterable[Device]) -> list[Device]:
    """Devices in every size that they are sold in, as far as it is known what a program can use of them."""
    return [one for device in devices for one in every_size(device) if one.usable_bytes]


def divided(devices: Iterable[Device], prices: Prices) -> tuple[list[Device], Prices]:
    """Devices and the MIG slices that they make, with the prices of both."""
    slices = {card: slices_of(card) for card in devices}
    return [*slices, *(one for made in slices.values() for one, _ in made)], with_slices(prices, slices)


def by_engine(
    subject: Subject, devices: Iterable[Device], engine: str | None, is_gguf: bool
) -> dict[str, list[Device]]:
    """Devices by the engine that runs the model on them: the one that is asked for, or that people would use."""
    found: dict[str, list[Device]] = defaultdict(list)
    for device in devices:
        found[engine or default_engine(subject, Machine((device,)), is_gguf)].append(device)
    return found
