"""What a method of PEFT is, and the options it was asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from willfit.architectures.model import Architecture
from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added
from willfit.training.settings import AdapterSettings


@dataclass(frozen=True, slots=True)
class Ask:
    """An adapter's settings with the defaults of its method filled in.

    Attributes
    ----------
    architecture, settings
        The model, and what was asked.
    options
        Options by PEFT's names, defaults filled in.
    peft
        PEFT's version.
    modules
        The modules that are adapted.
    model_dtype, quantized
        Dtype of the model's weights, and whether the adapted ones are stored in integers.
    gptq
        Those integers are GPTQ's.
    """

    architecture: Architecture
    settings: AdapterSettings
    options: Mapping[str, Any]
    peft: tuple[int, ...]
    modules: tuple[Module, ...] = ()
    model_dtype: str = "bfloat16"
    quantized: bool = False
    gptq: bool = False

    @property
    def rank(self) -> int:
        """The rank that was asked for, or the method's default."""
        return self.integer("r")

    @property
    def dropout(self) -> float:
        """The probability that was asked for; none by default."""
        return self.settings.dropout or 0.0

    def integer(self, name: str) -> int:
        """An option that is a whole number."""
        value = self.options.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadInput(f"{self.settings.kind}: {name} must be a whole number, got {value!r}")
        return value

    def rank_of(self, module: Module, name: str = "r", pattern: str = "rank_pattern") -> int:
        """The rank of a module: what `rank_pattern` says of its name, else `r`."""
        patterns: Mapping[str, int] = self.options.get(pattern) or {}
        for key, value in patterns.items():
            if _named(module.name, key):
                return int(value)
        return self.integer(name)


def _named(name: str, pattern: str) -> bool:
    """PEFT's get_pattern_key: the end of a name, or a regular expression for it."""
    if name == pattern or name.endswith("." + pattern):
        return True
    if any(sign in pattern for sign in "*\\^$|"):
        import re

        return re.match(rf"(.*\.)?({pattern})$", name) is not None
    return False


@dataclass(frozen=True, slots=True)
class Method:
    """A method that wraps modules.

    Attributes
    ----------
    kind
        PEFT's name, in lower case.
    defaults
        Options by PEFT's names. Source: the method's config class, PEFT 0.21.2.
    added
        What one module gets.
    forward
        What its forward does.
    shared
        What modules have in common, once in the model.
    kinds
        Kinds of modules that it wraps.
    targets
        Which default targets it has (`targets.py`).
    """

    kind: str
    defaults: Mapping[str, Any]
    added: Callable[[Ask, Module], Added]
    forward: Callable[[Ask, Module, Recorder], AdapterForward]
    shared: Callable[[Ask, Sequence[Module]], Added] | None = None
    kinds: tuple[str, ...] = ("linear",)
    targets: str = "lora"


LINEAR_AND_CONV1D = ("linear", "conv1d")
