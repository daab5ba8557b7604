"""Where a program is: which module's code runs, and which made the autograd node that runs now.

The engine runs nodes in threads of its own, where no module is entered. A node's sequence number says when it was made,
and whose code ran at that time is remembered for each thread.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from willfit.tracing.trace import Place
from willfit.tracing.worker.sources import source_line

#: Autograd gives nodes that no forward pass made (accumulation of gradients) numbers from the top.
_NO_FORWARD = 1 << 62


class _Log:
    """Words by the sequence number from which on they hold."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.words: list[str] = []

    def add(self, word: str) -> None:
        """A word that holds from here on."""
        self.starts.append(torch.autograd._get_sequence_nr())
        self.words.append(word)

    def at(self, number: int) -> str:
        """The word that held when a node was made."""
        found = bisect.bisect_right(self.starts, number) - 1
        return self.words[found] if found >= 0 and number < _NO_FORWARD else ""

    def after(self, number: int) -> str:
        """The word that was said right after a node was made: an operation's node has its number before it runs."""
        found = bisect.bisect_right(self.starts, number)
        return self.words[found] if found < len(self.words) and number < _NO_FORWARD else ""


class Whereabouts:
    """Follows modules, autograd nodes and lines of code. To be made in the thread that runs the forward pass."""

    def __init__(self) -> None:
        self._main = threading.get_ident()
        self._inside = threading.local()  # depth of reentrant checkpoints' backward passes
        self._modules: dict[int, list[str]] = defaultdict(list)
        self._spans: dict[int, _Log] = defaultdict(_Log)
        self._lines: dict[int, _Log] = defaultdict(_Log)

    def here(self, step: int, micro: int, phase: str) -> Place:
        """The place of what happens now."""
        thread = threading.get_ident()
        modules = self._modules[thread]
        module = modules[-1] if modules else ""
        backward = phase == "backward"
        node = torch._C._current_autograd_node() if backward else None
        if node is None:
            source = source_line()
            self._lines[thread].add(source)
            return Place(step, micro, phase, module, "", backward and bool(modules), source)
        number = node._sequence_nr()
        forward = thread if getattr(self._inside, "depth", 0) else self._main
        source = source_line() if modules else self._lines[forward].after(number)
        module = module or self._spans[forward].at(number)
        return Place(step, micro, phase, module, node.name(), bool(modules), source)

    def enter(self, module: str) -> bool:
        """A module's code begins, and autograd nodes from here on are its; whether it is the outermost."""
        modules = self._modules[threading.get_ident()]
        modules.append(module)
        self._spans[threading.get_ident()].add(module)
        return len(modules) == 1

    def leave(self) -> bool:
        """It ends; whether it was the outermost."""
        modules = self._modules[threading.get_ident()]
        modules.pop()
        self._spans[threading.get_ident()].add(modules[-1] if modules else "")
        return not modules

    @contextmanager
    def reentered(self) -> Iterator[None]:
        """A backward pass inside a backward pass: its nodes were made by this thread."""
        self._inside.depth = getattr(self._inside, "depth", 0) + 1
        try:
            yield
        finally:
            self._inside.depth -= 1
