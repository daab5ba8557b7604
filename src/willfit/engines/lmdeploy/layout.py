"""How LMDeploy spreads a model over devices: fewer ranks may share attention than matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from willfit.engines.lmdeploy.settings import Backend, Settings
from willfit.engines.sharding import Sharding
from willfit.errors import BadInput


@dataclass(frozen=True, slots=True)
class Layout:
    """Ranks by what they divide.

    Attributes
    ----------
    devices
        That take part.
    attention
        Ranks that divide heads; others serve requests of their own, or tokens of the same ones.
    context
        Ranks that divide the tokens of a sequence.
    matrices, experts
        Ranks that divide the other matrices, and groups that share the experts out.
    """

    devices: int
    attention: int
    context: int
    matrices: int
    experts: int

    @property
    def replicas(self) -> int:
        """Groups of ranks with sequences of their own."""
        return max(1, self.devices // (self.attention * self.context))

    @property
    def sharding(self) -> Sharding:
        """How the weights are spread."""
        return Sharding(self.matrices, experts=self.experts, attention=self.attention)


def layout_of(settings: Settings, backend: Backend, given: int) -> Layout:
    """What `--tp`, `--dp`, `--ep` and `--cp` come to on so many devices.

    `turbomind/parallel_config.py: derive_parallel_config` and `pytorch/config.py: DistConfig`.

    Raises
    ------
    BadInput
        If there are too few devices, or the degrees do not go together.
    """
    tp, dp, ep, cp = settings.tp, settings.dp, settings.ep, settings.cp
    if backend == "pytorch":
        if cp > 1:
            raise BadInput("LMDeploy's PyTorch engine has no --cp", "leave it out")
        devices = ep if ep > 1 else tp
        needed, attention = devices, devices // dp
        if devices % dp:
            raise BadInput(f"{devices} ranks cannot be divided into {dp} groups (--dp)")
    else:
        # As many as there are, up to one group of ranks for each of the data-parallel replicas.
        sizes = range(min(given, dp * tp * gcd(cp, ep)), 0, -1)
        fitting = (size for size in sizes if (dp * tp) % size == 0 and size >= tp)
        devices = next(fitting, tp)
        overlap = dp * tp // devices
        needed, attention = devices, tp // overlap // cp
        if tp % (overlap * cp) or not attention:
            raise BadInput(f"--tp {tp}, --dp {dp} and --cp {cp} do not go together on {devices} devices")
    if given < needed:
        raise BadInput(f"{needed} ranks need {needed} devices, {given} given", f"write --gpu {needed}x...")
    return Layout(devices, attention, cp, max(tp, ep), ep)
