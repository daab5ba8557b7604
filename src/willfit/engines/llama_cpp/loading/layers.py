"""Which device holds which layer (`llama-model.cpp: load_tensors`).

The repeating layers and, as one more, the output are offloaded from the end. Devices fill in order, each with its
share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerPlaces:
    """Where layers are.

    Attributes
    ----------
    layers
        Index of the device of each repeating layer; None on the host.
    output
        That of the output.
    """

    layers: tuple[int | None, ...]
    output: int | None

    @property
    def fully_offloaded(self) -> bool:
        """Whether nothing but the input is on the host."""
        return self.output is not None and None not in self.layers


def place_layers(
    count: int, offloaded: int, shares: Sequence[float], output_first: bool = True
) -> LayerPlaces:
    """Give each layer its place.

    Parameters
    ----------
    count
        Repeating layers, those that draft tokens included.
    offloaded
        Layers to offload, the output being one more.
    shares
        Share of each device (`--tensor-split`, or its free memory); empty without devices.
    output_first
        The output is the first to be offloaded; before, it was the last.
    """
    wanted = min(offloaded, count + 1) if shares else 0
    first = max(count + output_first - offloaded, 0)
    total = sum(shares)
    ends, so_far = [], 0.0
    for share in shares:
        so_far += share
        ends.append(so_far / total if total else 1.0)

    def device_of(index: int) -> int | None:
        if index < first or index - first >= wanted:
            return None
        reached = (index - first) / wanted
        return next((device for device, end in enumerate(ends) if end > reached), len(ends) - 1)

    places = [device_of(index) for index in range(count + 1)]
    return LayerPlaces(tuple(places[:-1]), places[-1])
