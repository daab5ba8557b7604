"""Where a script is: steps, micro-batches and phases, without a word of its own loop being known.

A step begins with the first forward pass of a module that no other module calls. Backward passes, clipping and
optimizers' steps are what torch's own functions and hooks say.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizers

from willfit.tracing.worker.scripts.naming import Names
from willfit.tracing.worker.tracer import Tracer

#: Steps beyond those asked for that are taken, if it takes them for each optimizer to have stepped twice.
_MORE = 2


class Finished(BaseException):
    """The script has taken the steps that were asked for. No `except Exception` takes it for an error."""


class Following:
    """Follows a script, and ends it.

    Parameters
    ----------
    tracer
        Told where the script is.
    steps
        The script ends after so many optimizer steps.
    end
        Called then, with what is raised.

    Attributes
    ----------
    taken
        Optimizer steps so far.
    """

    def __init__(self, tracer: Tracer, steps: int, end: Callable[[BaseException], None]) -> None:
        self.tracer, self.steps, self._end = tracer, steps, end
        self.taken = 0
        self.names = Names(tracer)
        self._depths = threading.local()  # modules that run in each thread
        self._micro = 0
        self._since = 0
        self._arrived: dict[int, weakref.ref[Any]] = {}
        self._stepped: set[int] = set()  # optimizers that took a step in this step of the script,
        self._before: set[int] = set()  # and in the one before
        self._trained: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._returns: dict[int, tuple[str, int]] = {}  # where the script was when an optimizer's step began

    def install(self) -> None:
        """Put the hooks in place."""
        hooks.register_module_forward_pre_hook(self._enters)
        hooks.register_module_forward_hook(self._leaves, always_call=True)
        optimizers.register_optimizer_step_pre_hook(self._steps)
        optimizers.register_optimizer_step_post_hook(self._stepped_on)
        for name in ("backward", "grad"):
            setattr(torch.autograd, name, self._backward(getattr(torch.autograd, name)))
        for name in ("clip_grad_norm_", "clip_grad_value_"):
            wrapped = self._clip(getattr(torch.nn.utils, name))
            for owner in (torch.nn.utils, torch.nn.utils.clip_grad):
                setattr(owner, name, wrapped)

    def arrive(self, tensor: torch.Tensor) -> None:
        """A tensor was copied from the host, or made on the device of nothing that was there."""
        if not self._stack() and self.tracer.phase in ("build", "between", "script"):
            storage = tensor.untyped_storage()
            self._arrived[storage._cdata] = weakref.ref(storage)

    def is_parameter(self, tensor: torch.Tensor) -> None:
        """A tensor becomes a parameter, and is no input."""
        self._arrived.pop(tensor.untyped_storage()._cdata, None)

    # Modules

    def _enters(self, module: torch.nn.Module, _: object) -> None:
        stack = self._stack()
        again = self.tracer.phase == "backward"
        if not stack and not again:
            self._begins(module)
        name = self.names.of(module)
        stack.append(name)
        if name:
            self.tracer.enter(name)

    def _leaves(self, module: torch.nn.Module, *_: object) -> None:
        stack = self._stack()
        if stack.pop():
            self.tracer.leave()
        if not stack and self.tracer.phase == "forward":
            self.tracer.mark("output")

    def _stack(self) -> list[str]:
        if not hasattr(self._depths, "stack"):
            self._depths.stack = []
        found: list[str] = self._depths.stack
        return found

    def _begins(self, module: torch.nn.Module) -> None:
        """A module is called by the script itself."""
        tracer = self.tracer
        self._may_finish()
        new = self.names.take(module)
        if torch.is_grad_enabled():
            if next(module.parameters(), None) is not None:
                self._trained.add(module)
            new |= self._forward()
        elif tracer.phase not in ("forward", "script"):
            tracer.at("script")
        if new:
            self.names.label(module)
        for reference in self._arrived.values():
            storage = reference()
            if storage is not None:
                tracer.label_storage(storage, "input")
        self._arrived.clear()

    def _forward(self) -> bool:
        """A forward pass of a micro-batch begins, and whether it does so here."""
        tracer = self.tracer
        if tracer.phase == "forward":
            return False
        self._may_finish()
        if tracer.step == self.taken:
            if tracer.step:
                tracer.mark("end")
            self._before, self._stepped = self._stepped or self._before, set()
            tracer.at("forward", self.taken + 1, 1)
            tracer.mark("start")
            self._micro = 1
        else:
            self._micro += 1
            tracer.at("forward", micro=self._micro)
        self._since = len(tracer.trace.storages)
        return True

    # Backward passes, clipping, optimizers

    def _backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        tracer = self.tracer

        def backward(*args: Any, **named: Any) -> Any:
            if tracer.phase == "backward":
                return function(*args, **named)  # a checkpoint inside of one
            self._forward()
            tracer.mark("forward")
            tracer.kept(self._since)
            tracer.at("backward")
            result = function(*args, **named)
            tracer.mark("backward")
            for module in self._trained:
                for parameter in module.parameters():
                    if parameter.grad is not None:
                        tracer.label(parameter.grad, "gradient")
            tracer.at("between", micro=0)
            return result

        return backward

    def _clip(self, function: Callable[..., Any]) -> Callable[..., Any]:
        tracer = self.tracer

        def clip(*args: Any, **named: Any) -> Any:
            tracer.at("clip", micro=0)
            result = function(*args, **named)
            tracer.mark("clip")
            tracer.at("between")
            return result

        return clip

    def _steps(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        tracer = self.tracer
        self._returns[id(optimizer)] = tracer.phase, tracer.micro
        tracer.at("optimizer", micro=0)

    def _stepped_on(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        tracer = self.tracer
        tracer.mark("optimizer")
        for state in optimizer.state.values():
            for kind, value in state.items() if isinstance(state, dict) else ():
                if isinstance(value, torch.Tensor):
                    tracer.label(value, "optimizer_state", str(kind))
        phase, micro = self._returns.pop(id(optimizer), ("between", 0))
        tracer.at("backward" if phase == "backward" else "between", micro=micro)
        self._stepped.add(id(optimizer))
        # With several optimizers a step is over when those that stepped in the last one have stepped again.
        if self._before <= self._stepped:
            self.taken = max(self.taken, tracer.step)

    # The end

    def _may_finish(self) -> None:
        """End the script if its last step is over: what it lets go after the optimizer's step belongs to that."""
        if self.taken < self.steps:
            return
        if self._stepped != self._before and self.steps > 1 and self.taken < self.steps + _MORE:
            return  # an optimizer is new
        self.tracer.mark("end")
        finished = Finished()
        self._end(finished)
        raise finished
