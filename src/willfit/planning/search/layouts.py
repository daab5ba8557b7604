"""How a model can be spread over devices: ranks that divide its tensors, stages, shared experts, whole copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from willfit.hardware.device import Device

#: How many devices are tried together.
COUNTS = (1, 2, 4, 8, 16, 32, 64)

#: More devices than so are not planned for.
MOST = max(COUNTS)

#: Devices of one machine; those without links of their own stay within one.
MACHINE = 8
#: What `Device.interconnect` says of such.
_NO_LINK = ("", "none", "NVLink bridge")


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to spread a model.

    Attributes
    ----------
    tensor, pipeline
        Degrees of tensor and of pipeline parallelism.
    experts
        Ranks that hold the experts of a layer together; 1 where tensor parallelism divides each of them. If they are
        more than `tensor`, so many replicas of all else share them.
    replicas
        Servers that know nothing of each other.
    """

    tensor: int = 1
    pipeline: int = 1
    experts: int = 1
    replicas: int = 1

    @property
    def data(self) -> int:
        """Replicas of all but the experts."""
        return max(1, self.experts // self.tensor)

    @property
    def server_devices(self) -> int:
        """Devices of one server."""
        return self.tensor * self.pipeline * self.data

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.server_devices * self.replicas

    def __str__(self) -> str:
        parts = {"TP": self.tensor, "PP": self.pipeline, "DP": self.data, "EP": self.experts}
        said = [f"{name} {degree}" for name, degree in parts.items() if degree > 1]
        one = " ".join(said) or "1 device"
        return one if self.replicas == 1 else f"{self.replicas} × {one}"


def together(device: Device) -> int:
    """How many of a device work on one model: as many as machines have, or clusters where they are linked."""
    if device.unified_memory:
        return 1
    return MACHINE if device.interconnect in _NO_LINK else MOST


def counts_up_to(most: int) -> tuple[int, ...]:
    """Numbers of devices that are tried: doubling ones, and those that divide all of them evenly."""
    even = {count for count in range(1, most + 1) if most % count == 0}
    return tuple(sorted(even | {count for count in COUNTS if count <= most}))


def servers(most: int, sparse: bool) -> Iterator[Layout]:
    """The layouts of one server over up to so many devices.

    Ranks of tensor parallelism stay within a machine, as they talk twice a layer; stages follow where a machine is
    full, or where its devices are not linked.

    Parameters
    ----------
    most
        See `together`.
    sparse
        The model has routed experts, which ranks may share out.
    """
    counts = counts_up_to(most)
    for tensor in (count for count in counts if count <= MACHINE):
        for others in (count for count in counts if count * tensor <= most):
            if others == 1 or most <= MACHINE or tensor == MACHINE:
                yield Layout(tensor, others)
            if sparse and tensor * others > 1:
                yield Layout(tensor, experts=tensor * others)
