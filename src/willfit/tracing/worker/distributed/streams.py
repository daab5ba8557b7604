"""Streams of a card that is not there: which one an allocation is made on, for each has blocks of its own.

Kernels of different streams run beside each other, so that the caching allocator never gives a block of one stream to
another (c10/cuda/CUDACachingAllocator.cpp: `BlockComparator`). FSDP gathers and scatters on streams of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_current = threading.local()  # a thread begins on the default stream
_numbers = itertools.count(1)


class Stream:
    """A stream, by number; nothing waits, for nothing runs."""

    def __init__(self, device: object = None, priority: int = 0, **_: object) -> None:
        self.device, self.priority = device, priority
        self.number = next(_numbers)
        self.stream_id = self.cuda_stream = self.number

    def wait_stream(self, stream: object) -> None:
        """Wait for another stream."""

    def wait_event(self, event: object) -> None:
        """Wait for an event."""

    def record_event(self, event: object = None) -> Event:
        """An event at this point."""
        return event if isinstance(event, Event) else Event()

    def synchronize(self) -> None:
        """Wait for all that was put on it."""

    def query(self) -> bool:
        """Whether all of it has run."""
        return True

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is captured on it."""
        return False


class Event:
    """An event that has happened."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def record(self, stream: object = None) -> None:
        """Happen."""

    def wait(self, stream: object = None) -> None:
        """Wait for it."""

    def synchronize(self) -> None:
        """Wait for it on the host."""

    def query(self) -> bool:
        """Whether it has happened."""
        return True

    def elapsed_time(self, end: object) -> float:
        """Milliseconds up to another."""
        return 1.0


#: The stream that is there from the beginning.
DEFAULT = Stream()
DEFAULT.number = DEFAULT.stream_id = DEFAULT.cuda_stream = 0


def current(device: object = None) -> Stream:
    """The stream that this thread works on."""
    return getattr(_current, "stream", DEFAULT)


@contextmanager
def on(stream: Stream | None) -> Iterator[None]:
    """Work on a stream."""
    before = current()
    _current.stream = before if stream is None else stream
    try:
        yield
    finally:
        _current.stream = before


def number() -> int:
    """The number of the stream that this thread works on; 0 for the default one."""
    return current().number


def install() -> None:
    """Let `torch.cuda` have them."""
    cuda = torch.cuda
    cuda.Stream, cuda.Event = Stream, Event
    cuda.current_stream = current
    cuda.default_stream = lambda device=None: DEFAULT
    cuda.stream = on
    cuda.set_stream = lambda stream: setattr(_current, "stream", stream)
    cuda.synchronize = lambda device=None: None
    cuda.current_device = lambda: 0
    cuda.set_device = lambda device: None
    cuda.is_initialized = lambda: True
    cuda.device_count = lambda: 1
    torch.Tensor.record_stream = lambda self, stream: None
