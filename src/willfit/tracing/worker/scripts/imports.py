"""Changes to modules that a script may import, made when it does."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


class AfterImport(importlib.abc.MetaPathFinder):
    """Runs a function on a module when that has been imported, or now if it is.

    Stands first among Python's finders, and lets the others find.
    """

    def __init__(self) -> None:
        self._changes: dict[str, list[Callable[[Any], None]]] = {}
        sys.meta_path.insert(0, self)

    def do(self, name: str, change: Callable[[Any], None]) -> None:
        """Change a module of that name."""
        if name in sys.modules:
            change(sys.modules[name])
        else:
            self._changes.setdefault(name, []).append(change)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders give, with a loader that makes the changes."""
        changes = self._changes.pop(fullname, None)
        if changes is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    _changing(spec.loader, changes)
                return spec
        return None


def _changing(loader: Any, changes: Sequence[Callable[[Any], None]]) -> None:
    """Let this loader, which loads one module, change it afterwards."""
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        for change in changes:
            change(module)

    loader.exec_module = exec_module
