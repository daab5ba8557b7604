"""Which devices a search is about, and who runs a model on each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from willfit.engines.base import Machine, Subject
from willfit.engines.table import default_engine
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.mig import slices_of
from willfit.hardware.prices import Prices, with_slices
from willfit.hardware.table import all_devices, every_size, matching, parse_devices
from willfit.planning.search.layouts import MOST


def every_device() -> list[Device]:
    """All devices of the table in all sizes."""
    return sized(all_devices())


def sized(devices: Iterable[Device]) -> list[Device]:
    """Devices in every size that they are sold in, as far as it is known what a program can use of them."""
    return [one for device in devices for one in every_size(device) if one.usable_bytes]


def devices_asked(within: str | None, among: str | None) -> dict[Device, int]:
    """The kinds of devices that a search is about, with how many there are of each.

    Parameters
    ----------
    within
        Devices with counts, of which there are no more.
    among
        Words of their names, vendors or generations.

    Raises
    ------
    BadInput
        If a device is not known, or its memory is not, or there are more than are planned for.
    """
    if within is None:
        devices = every_device() if among is None else sized(matching(among))
        # Desks have one computer with its memory in common.
        return {device: 1 if device.unified_memory else MOST for device in devices}
    given = parse_devices(within)
    found = {device: given.count(device) for device in given}
    most = max(found.values())
    if most > MOST:
        raise BadInput(f"--within has {most} of a device", f"no more than {MOST} are planned for")
    unknown = next((one for one in found if not one.usable_bytes), None)
    if unknown is not None:
        raise BadInput(f"how much memory {unknown.name} has is not known", "name another device")
    return found


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
