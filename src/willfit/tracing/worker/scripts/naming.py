"""Names of a script's modules, and what is in them on the device."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.nn.modules.loss import _Loss

from willfit.tracing.worker.tracer import Tracer

#: Where wrappers keep the module that they wrap: DistributedDataParallel, torch.compile, FSDP.
_INSIDE = ("module", "_orig_mod", "_fsdp_wrapped_module")


class Names:
    """Paths of modules, as the innermost model that no wrapper is part of has them."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._paths: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()
        self._outer: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()

    def of(self, module: torch.nn.Module) -> str:
        """A module's path; empty for a model itself and for modules that no model has."""
        return self._paths.get(module, "")

    def take(self, module: torch.nn.Module) -> bool:
        """Learn the paths in a model that the script calls, and say whether they are new."""
        if module in self._outer:
            return False
        self._outer.add(module)
        if isinstance(module, _Loss):
            self._paths[module] = "loss"
        inner = unwrapped(module)
        for path, one in module.named_modules():
            self._paths.setdefault(one, path)
        for path, one in inner.named_modules():
            self._paths[one] = path
        head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
        if head is not None:
            self._tracer.heads.add(self.of(head))
        return True

    def label(self, module: torch.nn.Module) -> None:
        """Say which storages are parameters and buffers of a model."""
        for path, one in module.named_modules():
            prefix = self.of(one) or ("" if one is unwrapped(module) else path)
            for name, parameter in one.named_parameters(recurse=False):
                self._tracer.label(parameter, "parameter", f"{prefix}.{name}".strip("."))
            for name, buffer in one.named_buffers(recurse=False):
                self._tracer.label(buffer, "buffer", f"{prefix}.{name}".strip("."))


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The model inside of wrappers and adapters."""
    found: Any = module
    for _ in range(len(_INSIDE)):
        kind = type(found)
        inner = next((getattr(found, name) for name in _INSIDE if name in found._modules), None)
        if inner is None or not kind.__module__.startswith("torch."):
            break
        found = inner
    if hasattr(found, "get_base_model"):
        found = found.get_base_model()  # PEFT's
    return found
