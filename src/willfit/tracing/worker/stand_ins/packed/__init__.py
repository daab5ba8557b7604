"""Bases in GPTQ, AWQ and HQQ: layers of GPTQModel, auto_gptq, fms-acceleration, AutoAWQ and HQQ.

`install` puts modules of their names where Python looks for imports, so that peft's own code for them runs.
"""

from __future__ import annotations

import sys
from importlib import metadata, reload
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from willfit.engines.versions import parse_version
from willfit.tracing.worker.stand_ins.packed.awq import AutoAwqLinear, AwqLinear
from willfit.tracing.worker.stand_ins.packed.gptq import AutoGptqLinear, FmsLinear, GptqModelLinear
from willfit.tracing.worker.stand_ins.packed.hqq import HQQLinear
from willfit.tracing.worker.stand_ins.packed.layers import QuantLinear

#: Layers by method and library.
LAYERS: dict[tuple[str, str], Any] = {
    ("gptq", "gptqmodel"): GptqModelLinear,
    ("gptq", "auto_gptq"): AutoGptqLinear,
    ("gptq", "fms_acceleration"): FmsLinear,
    ("awq", "gptqmodel"): AwqLinear,
    ("awq", "autoawq"): AutoAwqLinear,
    ("hqq", "hqq"): HQQLinear,
}

#: The oldest versions that peft takes (import_utils.py: is_gptqmodel_available, 0.21.2).
VERSIONS = {"gptqmodel": "7.3.4", "optimum": "2.0.0"}

#: From this version of peft on its layers for GPTQ cast their input under autocast as well (tuners/lora/gptq.py).
CASTS_ALWAYS = (0, 16)


class _Distribution(metadata.Distribution):
    """What peft asks of an installed package: its version."""

    def __init__(self, name: str) -> None:
        self.asked = name

    def read_text(self, filename: str) -> str | None:
        if filename != "METADATA":
            return None
        return f"Metadata-Version: 2.1\nName: {self.asked}\nVersion: {VERSIONS[self.asked]}\n"

    def locate_file(self, path: Any) -> Any:
        return path


class _Finder:
    """Finds the distributions of `VERSIONS`."""

    @staticmethod
    def find_spec(*_: Any) -> None:
        """Modules are where Python looks before it asks."""

    @staticmethod
    def find_distributions(context: Any) -> list[metadata.Distribution]:
        """See `importlib.metadata.DistributionFinder`."""
        return [_Distribution(context.name)] if context.name in VERSIONS and _stands_in(context.name) else []


def install(peft_version: str | None = None) -> None:
    """Let `import gptqmodel` and `import hqq` find the stand-ins; before peft is imported, which asks once.

    Parameters
    ----------
    peft_version
        Whose layers for GPTQ are meant; None for the installed one's.

    Raises
    ------
    RuntimeError
        If another module of one of the names was imported already.
    """
    if not _stands_in("gptqmodel"):
        for name in ("gptqmodel", "hqq"):
            if name in sys.modules:
                raise RuntimeError(f"{name} was imported already")
        _put("gptqmodel.nn_modules.qlinear", BaseQuantLinear=QuantLinear)
        _put("hqq.core.quantize", HQQLinear=HQQLinear)
        if find_spec("optimum") is None:
            _put("optimum")
        sys.meta_path.insert(0, _Finder)
        if "peft" in sys.modules:
            _ask_again()
    if peft_version is not None and parse_version(peft_version) < CASTS_ALWAYS:
        _cast_as_before()


def _ask_again() -> None:
    """peft was imported before: what it looked for then is there now."""
    from peft import import_utils
    from peft.tuners.lora import hqq
    from peft.tuners.lora import model as lora

    for asked in (
        import_utils.is_gptqmodel_available,
        import_utils.is_optimum_available,
        import_utils.is_hqq_available,
    ):
        getattr(asked, "cache_clear", lambda: None)()
    lora.dispatch_hqq = reload(hqq).dispatch_hqq


def _cast_as_before() -> None:
    from peft.tuners.lora.gptq import GPTQLoraLinear

    usual = GPTQLoraLinear._cast_input_dtype

    def cast(self: Any, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        found: torch.Tensor = rows if torch.is_autocast_enabled() else usual(self, rows, dtype)
        return found

    GPTQLoraLinear._cast_input_dtype = cast


def _put(path: str, **names: Any) -> None:
    """A module of that path and the packages that it is in."""
    parent: ModuleType | None = None
    parts = path.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None, is_package=count < len(parts))
        made.__path__ = []
        made.__dict__["stands_in"] = True
        sys.modules[name] = made
        if parent is not None:
            setattr(parent, parts[count - 1], made)
        parent = made
    assert parent is not None
    parent.__dict__.update(names)


def _stands_in(name: str) -> bool:
    return bool(getattr(sys.modules.get(name), "stands_in", False))
