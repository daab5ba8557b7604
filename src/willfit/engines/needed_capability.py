"""The least compute capability that an engine takes, by version: its own, and those of how a checkpoint is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from willfit.engines.base import Subject
from willfit.engines.capability import capability_named, is_below
from willfit.engines.stored import kinds_of, method_of
from willfit.engines.versions import Version
from willfit.hardware.device import Device

#: Since which version which minimum holds, oldest first. Before the first one, and of 0, nothing is asked for.
Steps = tuple[tuple[Version, int], ...]

_UNDATED: Steps = ()

#: CUDA 12 has no code for what is older.
_MAXWELL = 50


def since(*steps: tuple[Version, int]) -> Steps:
    """Minima with the versions from which on they hold."""
    return steps


def always(minimum: int) -> Steps:
    """A minimum of all versions."""
    return (((0,), minimum),)


def lowest(steps: Steps, version: Version) -> int:
    """The minimum that holds in a version; 0 if none does."""
    return next((minimum for first, minimum in reversed(steps) if version >= first), 0)


@dataclass(frozen=True)
class Minima:
    """An engine's tables. Kinds are those of `stored.kinds_of`, methods those of `stored.method_of`.

    Attributes
    ----------
    title
        What the engine is called.
    own
        What it asks of every device.
    methods
        By quantization method.
    modelopt
        ModelOpt's checkpoints, by kind; `mixed` for several of them in one.
    linears
        By method and kind: what is asked for each linear layer; experts are not asked about.
    kernels
        By kind, whatever the method: below that there is no kernel.
    experts
        The same for experts.
    """

    title: str
    own: Steps = _UNDATED
    methods: Mapping[str, Steps] = field(default_factory=dict)
    modelopt: Mapping[str, Steps] = field(default_factory=dict)
    linears: Mapping[str, Mapping[str, Steps]] = field(default_factory=dict)
    kernels: Mapping[str, Steps] = field(default_factory=dict)
    experts: Mapping[str, Steps] = field(default_factory=dict)

    def of(self, subject: Subject, version: Version) -> tuple[int, str]:
        """The least compute capability for a checkpoint as it is stored, and what asks for it; 0 where nothing does."""
        method, stored = method_of(subject), kinds_of(subject)
        asked = [(self.methods.get(method, _UNDATED), f"{method} checkpoints")]
        if method == "modelopt":
            kinds = {kind for kind, _ in stored}
            kind = "mixed" if len(kinds) > 1 else next(iter(kinds), "")
            asked.append((self.modelopt.get(kind, _UNDATED), f"{kind} checkpoints of ModelOpt"))
        for kind, experts in stored:
            if not experts:
                asked.append((self.linears.get(method, {}).get(kind, _UNDATED), f"{kind} of {method}"))
            kernels = self.experts if experts else self.kernels
            asked.append((kernels.get(kind, _UNDATED), f"experts in {kind}" if experts else kind))
        return max((lowest(steps, version), what) for steps, what in asked)

    def refusal(self, subject: Subject, version: Version, device: Device) -> str:
        """Why a checkpoint as it is stored needs a newer device, and which version does not; empty if it runs."""
        if unfit := self.unfit(version, device):
            return unfit
        if not is_below(device, self._most(version)):
            return ""
        least, what = self.of(subject, version)
        if not is_below(device, least):
            return ""
        later = next((one for one in self._later(version) if self._runs(subject, one, device)), None)
        hint = f"{self.title} {_text(later)} does" if later else "take a gptq checkpoint or 16 bits"
        return f"{self.title} {_text(version)} runs {what} on {_cards(least)}; {hint}"

    def unfit(self, version: Version, device: Device) -> str:
        """Why a version runs nothing on a device; empty if it runs something, or that is not known."""
        least = lowest(self.own, version)
        if not is_below(device, least):
            return ""
        dated = len(self.own) > 1
        title = f"{self.title} {_text(version)}" if dated else self.title
        others = "" if is_below(device, _MAXWELL) else "; llama.cpp runs on older ones"
        return f"{title} runs on {_cards(least)}{others}"

    def _most(self, version: Version) -> int:
        """The highest minimum of a version, which spares newer devices the look at how a checkpoint is stored."""
        return max(lowest(steps, version) for table in self._tables() for steps in table.values())

    def _later(self, version: Version) -> list[Version]:
        """Later versions that change a minimum, in order."""
        return sorted(
            {
                first
                for table in self._tables()
                for steps in table.values()
                for first, _ in steps
                if first > version
            }
        )

    def _tables(self) -> Iterable[Mapping[str, Steps]]:
        return (
            {"": self.own}, self.methods, self.modelopt, self.kernels, self.experts, *self.linears.values(),
        )  # fmt: skip

    def _runs(self, subject: Subject, version: Version, device: Device) -> bool:
        return not is_below(device, max(self.of(subject, version)[0], lowest(self.own, version)))


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def _cards(least: int) -> str:
    return f"cards of {capability_named(least)} and newer"
