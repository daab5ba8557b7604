"""`torch.cuda` and `torch.accelerator` for a program that asks whether there is a card, and makes use of it.

Only a script needs this: it decides by `torch.cuda.is_available()` where it puts things. Nothing is computed, so that
nothing waits and no time passes. Streams are `distributed.streams`'s, bytes are `memory.py`'s.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.cuda

from willfit.tracing.question import Card
from willfit.tracing.worker.distributed import streams

#: CUDA that torch 2.13's own wheels are built for; a build without it has None, and is told by that.
CUDA_VERSION = "13.0"
#: Threads of a multiprocessor and of a warp, of all cards since compute capability 7.0 but 7.5 and 8.6 on, whose
#: multiprocessors run 1024 and 1536 (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
THREADS, WARP = 2048, 32
FEWER_THREADS = {(7, 5): 1024, (8, 6): 1536, (8, 7): 1536, (8, 9): 1536, (12, 0): 1536}
#: Bytes of a CUDA generator's state: seed and offset (ATen/cuda/CUDAGeneratorImpl.cpp: `get_state`).
GENERATOR_STATE = 16


def install(card: Card, count: int) -> None:
    """Let programs see some cards, of which they are on the first."""
    streams.install()
    for name, said in _said(card, count).items():
        setattr(torch.cuda, name, _says(said))
    for name in _DO_NOTHING:
        setattr(torch.cuda, name, _says(None))
    for name in (
        "get_rng_state",
        "set_rng_state",
        "get_rng_state_all",
        "set_rng_state_all",
        "manual_seed",
        "seed",
    ):
        setattr(torch.cuda.random, name, getattr(torch.cuda, name))
    torch.cuda.get_device_properties = lambda device=None: properties(card)
    torch.cuda.get_rng_state = lambda device="cuda": torch.zeros(GENERATOR_STATE, dtype=torch.uint8)
    torch.cuda.get_rng_state_all = lambda: [torch.cuda.get_rng_state() for _ in range(count)]
    torch.cuda.device = torch.cuda.device_of = _Anywhere
    torch.cuda.graph = torch.cuda.CUDAGraph = torch.cuda.make_graphed_callables = _no_graphs
    torch.version.cuda = torch.version.cuda or CUDA_VERSION
    torch.backends.cuda.is_built = lambda: True
    # Also outside of dispatch modes, in a loader's thread.
    torch.Tensor.pin_memory = lambda self, device=None: self
    _accelerator(count)
    generators()


def _said(card: Card, count: int) -> dict[str, Any]:
    """What functions answer."""
    major, minor = card.capability
    return {
        "is_available": True,
        "is_initialized": True,
        "device_count": count,
        "current_device": 0,
        "initial_seed": 0,
        "can_device_access_peer": True,
        "is_current_stream_capturing": False,
        "get_arch_list": [f"sm_{major}{minor}"],
        "utilization": 0,
        "memory_usage": 0,
        "temperature": 0,
        "power_draw": 0,
        "clock_rate": 0,
        "is_tf32_supported": major >= 8,  # as torch.cuda.is_tf32_supported asks
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
    }


_DO_NOTHING = (
    "init", "_lazy_init", "_lazy_call", "synchronize", "set_device", "ipc_collect", "_sleep", "set_rng_state",
    "set_rng_state_all", "manual_seed", "manual_seed_all", "seed", "seed_all", "set_sync_debug_mode",
)  # fmt: skip


def _says(what: Any) -> Callable[..., Any]:
    return lambda *args, **named: what


def properties(card: Card) -> types.SimpleNamespace:
    """What `torch.cuda.get_device_properties` gives."""
    major, minor = card.capability
    return types.SimpleNamespace(
        name=card.name,
        major=major,
        minor=minor,
        total_memory=card.total_bytes,
        multi_processor_count=card.multiprocessors,
        max_threads_per_multi_processor=FEWER_THREADS.get(card.capability, THREADS),
        warp_size=WARP,
        is_integrated=0,
        is_multi_gpu_board=0,
        gcnArchName="",
        uuid="00000000-0000-0000-0000-000000000000",
    )


class _Anywhere(contextlib.nullcontext[None]):
    """`with torch.cuda.device(...)`: there is only one."""

    def __init__(self, device: object = None) -> None:
        super().__init__()
        self.idx = self.prev_idx = 0


class _no_graphs:
    """CUDA graphs keep what runs in them, which is not followed."""

    def __init__(self, *_: object, **__: object) -> None:
        raise NotImplementedError("CUDA graphs are not traced: run the step without them")


def _accelerator(count: int) -> None:
    """`torch.accelerator`, which asks C++ and not `torch.cuda`."""
    accelerator = torch.accelerator
    said: dict[str, Any] = {"is_available": True, "device_count": count, "current_device_index": 0}
    for name, what in said.items():
        setattr(accelerator, name, _says(what))
    accelerator.current_device_idx = accelerator.current_device_index
    for name in ("set_device_index", "set_device_idx", "synchronize"):
        setattr(accelerator, name, _says(None))
    accelerator.current_stream = streams.current
    accelerator.set_stream = torch.cuda.set_stream
    accelerator.device_index = _Anywhere


def generators() -> None:
    """Let `torch.Generator(device="cuda")` be one of the host: no random number is drawn on the device."""
    plain: Any = torch.Generator

    class Generator(plain):
        """A generator for any device."""

        def __new__(cls, device: object = "cpu") -> Any:
            return plain.__new__(cls, "cpu")

        def set_state(self, state: torch.Tensor) -> Any:
            """Go on from a state; one that came from the device says nothing."""
            return super().set_state(state) if type(state) is torch.Tensor else self

    torch.Generator = Generator
