"""What is chosen to go to devices."""

from __future__ import annotations

from dataclasses import dataclass

#: Experts of a layer, by the names of their tensors behind the layer's index.
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


@dataclass(frozen=True, slots=True)
class Offload:
    """What goes to devices.

    Attributes
    ----------
    layers
        How many layers, the output as one more.
    shares
        Share of each device.
    overrides
        Patterns of tensor names with the buffer that they go to.
    """

    layers: int
    shares: tuple[float, ...]
    overrides: tuple[tuple[str, str], ...] = ()
