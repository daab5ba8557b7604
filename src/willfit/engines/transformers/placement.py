"""Which device holds which layers: `integrations/accelerate.py` and accelerate's `infer_auto_device_map`."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.transformers.loading import Loaded


@dataclass(frozen=True, slots=True)
class Share:
    """What one device, or the host, holds.

    Attributes
    ----------
    layers
        How many layers.
    first, last
        Whether it holds the input side and the output side.
    """

    layers: int
    first: bool = False
    last: bool = False

    def weights(self, loaded: Loaded) -> int:
        """Bytes of its weights; layers count alike."""
        size = loaded.layer * self.layers // max(loaded.layers, 1)
        return size + loaded.first * self.first + loaded.last * self.last


def place(
    loaded: Loaded, usable: list[int | None], sequential: bool, offload: bool
) -> tuple[list[Share], Share]:
    """Layers per device, in order, and what is left for the host.

    With one device all goes there; with several, each but the last takes its even share of the model and 1.25
    times the largest block, the first one less a block, which it keeps free for layers that are brought in.

    Parameters
    ----------
    usable
        Bytes that can be used on each device; None if that is not known.
    sequential
        Fill one device after the other instead.
    offload
        Whether layers may be left for the host.
    """
    count = len(usable)
    block = max(loaded.layer // max(loaded.layers, 1), loaded.first, loaded.last)
    limits: list[float] = []
    for index, limit in enumerate(usable):
        bounded = limit is not None and (sequential or offload)
        most = limit * (0.9 if count == 1 else 1.0) if limit is not None and bounded else float("inf")
        if index < count - 1 and not sequential:
            most = min(most, loaded.total // count + 1.25 * block)
        if index == 0 and (count > 1 or offload):
            most -= loaded.layer // max(loaded.layers, 1)
        limits.append(most)
    sizes = [loaded.first, *_even(loaded.layer, loaded.layers), loaded.last]
    where, used, device = [], 0.0, 0
    for size in sizes:
        while device < count and used + size > limits[device]:
            device, used = device + 1, 0.0
        used += size
        where.append(device)
    shares = [_share(where, device) for device in range(count)]
    return shares, _share(where, count)


def split(left: Share, loaded: Loaded, ram: int | None) -> tuple[Share, Share]:
    """What of the layers that no device has room for stays in RAM, and what on disk.

    RAM keeps a block free as the first device does, and a tenth (`integrations/accelerate.py`).

    Parameters
    ----------
    ram
        Bytes of RAM that can be used; None: all that is needed.
    """
    block = loaded.layer // max(loaded.layers, 1)
    if ram is None or not left.layers or not block:
        return left, Share(0)
    layers = min(left.layers, max(0, int(ram * 0.9 - block) // block))
    if layers == left.layers:
        return left, Share(0)
    return Share(layers, left.first, False), Share(left.layers - layers, False, left.last)


def _even(total: int, parts: int) -> list[int]:
    return [total // parts] * parts if parts else []


def _share(where: list[int], device: int) -> Share:
    return Share(where[1:-1].count(device), where[0] == device, where[-1] == device)
