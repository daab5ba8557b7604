"""What a step allocates and frees, byte by byte: every storage on the traced device, from birth to death.

A storage dies when its last tensor goes; PyTorch keeps the Python object of a storage as long as the storage itself, so
that a weak reference to it fires at that moment. What a kernel takes and gives back by itself cannot be seen; where its
source says how much (`workspaces.py`), it is noted beside.
"""

from __future__ import annotations

import bisect
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import workspaces
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(slots=True)
class Block:
    """One storage: its bytes, where it was born, and its life as places in the list of events."""

    nbytes: int
    op: str
    shape: tuple[int, ...]
    dtype: str
    place: Place
    born: int
    died: int | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a step something happened.

    `phase` is `build`, `input`, `forward`, `backward`, `clip`, `optimizer` or `between`; `module` the innermost module
    whose code runs, or ran forward for the autograd `node` that runs; `again` says that it is a checkpoint's second
    forward pass.
    """

    step: int
    micro: int
    phase: str
    module: str = ""
    node: str = ""
    again: bool = False


class Tracer(TorchDispatchMode):
    """Records every storage that is born while it is active."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device).type
        self.blocks: list[Block] = []
        self.totals: list[int] = []  # bytes alive after each event
        self.extra: dict[int, int] = {}  # an event's workspace
        self.places: list[Place] = []  # of each event
        self.ops: list[str] = []
        self.now = 0
        self.step, self.micro, self.phase = 0, 0, "build"
        self._alive: dict[int, tuple[Block, object]] = {}
        self._stacks: dict[int, list[str]] = {}
        self._spans: dict[int, tuple[list[int], list[str]]] = {}
        self._inside = threading.local()  # depth of reentrant checkpoints' backward
        self._main = threading.get_ident()
        self._threads = {self._main}

    # What happens

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if threading.get_ident() not in self._threads:
            # Fake mode sets this where it is entered; a list as an index would else be put on a device in autograd's
            # thread.
            self._threads.add(threading.get_ident())
            torch._C._set_only_lift_cpu_tensors(True)
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        before = len(self.totals)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf, name)
        extra = workspaces.of(name, args, result)
        if extra:
            if len(self.totals) == before:
                self._event(0, name, self.place())
            self.extra[len(self.totals) - 1] = extra
        return result

    def adopt(self, tensor: torch.Tensor, label: str, name: str) -> None:
        """Take a tensor that was made outside."""
        self._see(tensor, name)
        self.label(tensor, label)

    def label(self, tensor: torch.Tensor, label: str) -> None:
        """Say what a tensor is; the first word holds."""
        found = self._alive.get(tensor.untyped_storage()._cdata)
        if found and not found[0].label:
            found[0].label = label

    def _see(self, tensor: torch.Tensor, op: str) -> None:
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        place = self.place()
        block = Block(
            storage.nbytes(), op, tuple(tensor.shape), str(tensor.dtype)[6:], place, len(self.totals)
        )
        self._event(block.nbytes, op, place)
        self.blocks.append(block)

        def died(_: object, key: int = key, block: Block = block) -> None:
            del self._alive[key]
            block.died = len(self.totals)
            self._event(-block.nbytes, "free", self.place(quick=True))

        self._alive[key] = (block, weakref.ref(storage, died))

    def _event(self, change: int, op: str, place: Place) -> None:
        self.now += change
        self.totals.append(self.now)
        self.places.append(place)
        self.ops.append(op)

    # Where it happens

    def place(self, quick: bool = False) -> Place:
        """Where the program is."""
        thread = threading.get_ident()
        stack = self._stacks.get(thread)
        module = stack[-1] if stack else ""
        if self.phase != "backward" or quick:
            return Place(self.step, self.micro, self.phase, module)
        node = torch._C._current_autograd_node()
        if node is None:
            return Place(self.step, self.micro, self.phase, module, "", bool(stack))
        if not module:
            depth = getattr(self._inside, "depth", 0)
            module = self._made_by(thread if depth else self._main, node._sequence_nr())
        return Place(self.step, self.micro, self.phase, module, node.name(), bool(stack))

    def _made_by(self, thread: int, number: int) -> str:
        starts, modules = self._spans.get(thread, ([], []))
        found = bisect.bisect_right(starts, number) - 1
        return modules[found] if found >= 0 and number < 1 << 62 else ""

    def enter(self, module: str) -> None:
        """A module's code begins; autograd nodes from here on are its."""
        self._stacks.setdefault(threading.get_ident(), []).append(module)
        self._span(module)

    def leave(self) -> None:
        """It ends."""
        stack = self._stacks[threading.get_ident()]
        stack.pop()
        self._span(stack[-1] if stack else "")

    def _span(self, module: str) -> None:
        starts, modules = self._spans.setdefault(threading.get_ident(), ([], []))
        starts.append(torch.autograd._get_sequence_nr())
        modules.append(module)

    @contextmanager
    def reentered(self) -> Iterator[None]:
        """A backward pass inside a backward pass: its nodes were made by this thread."""
        self._inside.depth = getattr(self._inside, "depth", 0) + 1
        try:
            yield
        finally:
            self._inside.depth -= 1

    def watch(self, model: torch.nn.Module) -> None:
        """Follow the modules of a model, by hooks that return nothing, and its loss."""
        inner = (
            model.get_base_model() if hasattr(model, "get_base_model") else model
        )  # peft's names are longer
        names = {module: name for name, module in inner.named_modules()}
        for path, module in model.named_modules():
            name = names.get(module, path)
            if name:
                module.register_forward_pre_hook(lambda *_, name=name: self.enter(name))
                module.register_forward_hook(lambda *_: self.leave(), always_call=True)

    # What was seen

    def alive_at(self, event: int) -> list[Block]:
        """Storages that are alive right after an event."""
        return [b for b in self.blocks if b.born <= event and (b.died is None or b.died > event)]
