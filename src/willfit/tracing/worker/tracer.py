"""Every storage on the traced device, from birth to death.

A storage dies when its last tensor goes; torch keeps the Python object of a storage as long as the storage itself, so
that a weak reference to it fires at that moment. What a kernel takes and gives back by itself no tensor shows; where
its source says how much, it is noted beside.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from willfit.tracing.question import Card
from willfit.tracing.trace import Mark, PhaseStart, Storage, Trace
from willfit.tracing.worker import sums
from willfit.tracing.worker.cuda import workspaces
from willfit.tracing.worker.whereabouts import Whereabouts

#: Namespace of collectives that return their result.
_COLLECTIVE = "_c10d_functional::"
#: What FSDP1 puts into paths (torch `distributed/fsdp/_common_utils.py: FSDP_PREFIX`).
_WRAPPED = "_fsdp_wrapped_module."


def own(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor that another holds as this rank's part or as a collective's result; itself if it is no such."""
    for inner in ("_local_tensor", "elem"):
        tensor = getattr(tensor, inner, tensor)
    return tensor


class Tracer(TorchDispatchMode):
    """Records every storage that is born while it is active.

    Parameters
    ----------
    device
        Whose storages are recorded: `cuda:0`, or `cpu`.
    card
        What the device is: how much its libraries and kernels take for themselves.
    progress
        Told of the phase, the step and how many events there were, whenever a module begins.

    Attributes
    ----------
    trace
        What was seen.
    step, micro, phase
        Where the program is; set by who runs it (`at`).
    heads
        Modules that make logits, or a loss of them.
    stream
        Number of the stream on which an allocation is made now.
    wrappers
        Tensors that hold others, which come by themselves.
    """

    def __init__(
        self, device: str, card: Card, progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        super().__init__()
        self.card = card
        self.device = torch.device(device)
        self.trace = Trace()
        self._progress = progress
        self.step, self.micro, self.phase = 0, 0, "build"
        self.heads = {"loss"}
        self._alive: dict[int, tuple[int, object]] = {}
        sums.alone_counts()  # which needs a backward pass of its own, before any is traced
        self.whereabouts = Whereabouts()
        self._threads = {threading.get_ident()}
        self._again_from = 0
        self.stream: Callable[[], int] = lambda: 0
        self.wrappers: tuple[type, ...] = ()
        self._empty: dict[int, tuple[int, object]] = {}  # storages that were resized to nothing
        self._blind = 0
        self._meant = ""
        self._held: dict[int, int] = {}  # storages of the workspaces that a kernel has not given back
        self._kept: set[tuple[bool, str]] = set()  # those that libraries keep, by the engine's thread or not

    # What happens

    def __enter__(self) -> Tracer:
        if not gc.isenabled():
            gc.freeze()  # what was imported needs no looking at
            gc.enable()
        super().__enter__()
        return self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if threading.get_ident() not in self._threads:
            # Fake mode sets this where it is entered; a list as an index would else be put on a device in autograd's
            # thread.
            self._threads.add(threading.get_ident())
            torch._C._set_only_lift_cpu_tensors(True)
        if self.wrappers and any(issubclass(kind, self.wrappers) for kind in types):
            return NotImplemented
        named = kwargs or {}
        if self._blind:
            return func(*args, **named)
        held = sums.added_to(*args) if sums.is_sum(func, args, named) else None
        result = func(*args, **named)
        if held is not None:
            self._take_place(result, held)
        name = func._schema.name.removeprefix("aten::")
        here = False
        for leaf in _tensors(result):
            here |= self._see(leaf, name)
        if here and name in workspaces.RULES:
            for taken, begins in workspaces.events(workspaces.of(name, args, named, result, self.card)):
                self._workspace(taken, name, begins)
        return result

    def adopt(self, tensor: torch.Tensor, category: str, name: str) -> None:
        """Take a tensor that was made outside."""
        self._see(own(tensor), "empty")
        self.label(tensor, category, name)

    def label(self, tensor: torch.Tensor, category: str, name: str = "") -> None:
        """Say what a tensor is; the first word holds."""
        self.label_storage(own(tensor).untyped_storage(), category, name)

    def label_storage(self, storage: torch.UntypedStorage, category: str, name: str = "") -> None:
        """Say what a storage is; the first word holds."""
        found = self._alive.get(storage._cdata)
        if found is None:
            return
        seen = self.trace.storages[found[0]]
        if not seen.category:
            seen.category, seen.name = category, name

    def relabel(self, tensor: torch.Tensor, category: str, name: str = "") -> None:
        """Say what a tensor is from here on, whatever was said before."""
        found = self._alive.get(own(tensor).untyped_storage()._cdata)
        if found is not None:
            storage = self.trace.storages[found[0]]
            storage.category, storage.name = category, name

    @contextmanager
    def meant(self, category: str) -> Iterator[None]:
        """What is made meanwhile is this, unless something else is said of it."""
        before, self._meant = self._meant, category
        try:
            yield
        finally:
            self._meant = before

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What is made meanwhile is never there."""
        self._blind += 1
        try:
            yield
        finally:
            self._blind -= 1

    def resized(self, storage: torch.UntypedStorage) -> None:
        """A storage was resized in its place: what it had is gone, and what it has is new."""
        key, size = storage._cdata, storage.nbytes()
        found = self._alive.pop(key, None)
        if found is not None:
            self.trace.events.append(~found[0])
        else:
            found = self._empty.pop(key, None)
        if found is None:
            return
        index, old = found[0], self.trace.storages[found[0]]
        if size:
            index = self._born(size, "resize_", old.shape, old.dtype)
            new = self.trace.storages[index]
            new.category, new.name = old.category, old.name
            self._alive[key] = (index, weakref.ref(storage, self._death(key, index)))
        else:
            self._empty[key] = (index, weakref.ref(storage, lambda _: self._empty.pop(key, None)))

    def _see(self, tensor: torch.Tensor, op: str) -> bool:
        """Take note of a tensor, and say whether it is on the device."""
        device = tensor.device
        if device.type != self.device.type or (device.index or 0) != (self.device.index or 0):
            return False
        if isinstance(tensor, self.wrappers):
            return True
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive and key not in self._empty:
            index = self._born(storage.nbytes(), op, tuple(tensor.shape), str(tensor.dtype)[6:])
            self._alive[key] = (index, weakref.ref(storage, self._death(key, index)))
        return True

    def _take_place(self, made: torch.Tensor, held: torch.Tensor) -> None:
        """A tensor is what a real device would have made by adding to another, which no one holds any more."""
        found = self._alive.pop(held.untyped_storage()._cdata, None)
        if found is not None:
            storage = made.untyped_storage()
            key = storage._cdata
            # With the old reference its callback goes, so that the storage lives on under the new one.
            self._alive[key] = (found[0], weakref.ref(storage, self._death(key, found[0])))

    def _born(self, nbytes: int, op: str, shape: tuple[int, ...], dtype: str) -> int:
        trace = self.trace
        index = len(trace.storages)
        trace.storages.append(
            Storage(
                nbytes,
                op,
                shape,
                dtype,
                self.whereabouts.here(self.step, self.micro, self.phase),
                self._meant,
                cuda_stream=self.stream(),
            )
        )
        trace.events.append(index)
        return index

    def _death(self, key: int, index: int) -> Callable[[object], None]:
        events, alive = self.trace.events, self._alive

        def died(_: object) -> None:
            del alive[key]
            events.append(~index)

        return died

    def _workspace(self, taken: workspaces.Workspace, op: str, begins: bool) -> None:
        """What a kernel takes for itself, or gives back; what libraries keep they take once for a thread."""
        if not begins:
            self.trace.events.append(~self._held.pop(id(taken)))
            return
        if taken.kept:
            # The autograd engine has threads of its own for CUDA, though not for the fake CPU.
            key = torch._C._current_autograd_node() is not None, taken.name
            if key in self._kept:
                return
            self._kept.add(key)
        index = self._born(taken.nbytes, op, (taken.nbytes,), "uint8")
        storage = self.trace.storages[index]
        storage.category, storage.name = "workspace", taken.name
        if not taken.kept:
            self._held[id(taken)] = index

    # Where it happens

    def at(self, phase: str, step: int | None = None, micro: int | None = None) -> None:
        """The program comes to a phase."""
        self.phase = phase
        self.step = self.step if step is None else step
        self.micro = self.micro if micro is None else micro
        self.trace.phases.append(PhaseStart(len(self.trace.events), self.step, self.micro, phase))

    def mark(self, name: str) -> None:
        """Name this point."""
        self.trace.marks.append(Mark(len(self.trace.events), name, self.step, self.micro))

    def enter(self, module: str) -> None:
        """A module's code begins."""
        if self.whereabouts.enter(module) and self.phase == "backward":
            self._again_from = len(self.trace.storages)
        if self._progress is not None:
            self._progress(self.phase, self.step, len(self.trace.events))

    def leave(self) -> None:
        """It ends."""
        if self.whereabouts.leave() and self.phase == "backward":
            self.kept(self._again_from)

    def kept(self, since: int) -> None:
        """What was made since a storage's index and is still there is kept for the backward pass."""
        for index, _ in self._alive.values():
            if index >= since and not self.trace.storages[index].category:
                self.trace.storages[index].category = "activation"

    def watch(self, model: torch.nn.Module) -> None:
        """Follow the modules of a model, by hooks that return nothing."""
        # PEFT puts its own names before the model's.
        inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        names = {module: name for name, module in inner.named_modules()}
        head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
        if head in names:
            self.heads.add(names[head])
        for path, module in model.named_modules():
            name = names.get(module, path).replace(_WRAPPED, "")
            if name:
                module.register_forward_pre_hook(lambda *_, name=name: self.enter(name))
                module.register_forward_hook(lambda *_: self.leave(), always_call=True)

    def finished(self) -> Trace:
        """The trace up to the last `end` that was marked, with words for what no one named."""
        trace = self.trace
        end = max((mark.event for mark in trace.marks if mark.name == "end"), default=len(trace.events))
        del trace.events[end:]
        trace.emptied[:] = [event for event in trace.emptied if event <= end]
        for storage in self.trace.storages:
            if storage.category in ("", "activation") and storage.place.module in self.heads:
                storage.category = "logits"
            elif not storage.category:
                storage.category = "communication" if storage.op.startswith(_COLLECTIVE) else "temporary"
        return self.trace


def _tensors(result: object) -> Iterator[torch.Tensor]:
    """The tensors of what an operation returns."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for leaf in result:
            yield from _tensors(leaf)
