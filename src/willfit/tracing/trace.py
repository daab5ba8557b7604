"""What a program allocates and frees on one device, in order.

The child process writes a `Trace`; the allocator's replay, attribution and exports read it.

Naming
------
A *storage* is what torch calls so: bytes that one or more tensors share. An *event* is its birth or its death. Sizes
are bytes that were asked for; what the allocator makes of them is the replay's part (`allocator/`).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: What a storage is for. `workspace` is what a kernel takes and gives back by itself; `temporary` what is neither kept
#: for the backward pass nor beyond.
CATEGORIES = (
    "parameter", "buffer", "input", "gradient", "optimizer_state", "activation", "logits", "kv_cache",
    "communication", "workspace", "temporary",
)  # fmt: skip

#: Phases of a program, as places name them.
PHASES = (
    "build",
    "input",
    "forward",
    "backward",
    "clip",
    "optimizer",
    "between",
    "prefill",
    "decode",
    "script",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a program something happened.

    Attributes
    ----------
    step, micro
        Optimizer step and micro-batch, from 1; of generation, the token. 0 outside of them.
    phase
        One of `PHASES`.
    module
        Path of the innermost module whose code runs, or ran forward for the autograd node that runs; `loss` for the
        loss; empty for the program's own code.
    node
        Name of the autograd node that runs.
    again
        A checkpoint's second forward pass.
    source
        File and line of the model's or the user's code, as `modeling_llama.py:123`; empty where it is not known.
    """

    step: int
    micro: int
    phase: str
    module: str = ""
    node: str = ""
    again: bool = False
    source: str = ""


@dataclass(slots=True)
class Storage:
    """One storage.

    Attributes
    ----------
    nbytes
        Bytes that were asked for.
    op, shape, dtype
        Operation that made it, and the first tensor that was seen of it.
    place
        Where it was made.
    category
        One of `CATEGORIES`.
    name
        A parameter's or buffer's path, an optimizer state's kind (`exp_avg`); else empty.
    cuda_stream
        0 for the default one; others have pools of their own.
    """

    nbytes: int
    op: str
    shape: tuple[int, ...]
    dtype: str
    place: Place
    category: str = ""
    name: str = ""
    cuda_stream: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A named point of a step, after `event` events: `start`, `output`, `forward`, `backward`, `clip`, `optimizer` or
    `end`."""

    event: int
    name: str
    step: int
    micro: int


@dataclass(frozen=True, slots=True)
class PhaseStart:
    """From `event` on a program is in this phase."""

    event: int
    step: int
    micro: int
    phase: str


@dataclass
class Trace:
    """What one rank's program allocated and freed.

    Attributes
    ----------
    storages
        Each that was ever made, in order.
    events
        `i` where `storages[i]` is made, `~i` where it dies.
    marks, phases
        See their records.
    path
        `fake-cuda`, or `fake-cpu` where torch could not be made to take fake CUDA tensors.
    versions
        Of torch, transformers and others that ran.
    kernels
        How often each attention kernel was chosen.
    notes
        What a reader must know.
    emptied
        Indices of events before which the program emptied the allocator's cache.
    """

    storages: list[Storage] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    phases: list[PhaseStart] = field(default_factory=list)
    path: str = "fake-cuda"
    versions: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each storage."""
        return [storage.nbytes for storage in self.storages]

    @property
    def streams(self) -> list[int]:
        """CUDA stream of each storage."""
        return [storage.cuda_stream for storage in self.storages]

    @cached_property
    def totals(self) -> list[int]:
        """Bytes alive after each event."""
        now, totals = 0, []
        for event in self.events:
            now += self.storages[event].nbytes if event >= 0 else -self.storages[~event].nbytes
            totals.append(now)
        return totals

    @property
    def peak_event(self) -> int:
        """The first event after which most bytes are alive.

        Raises
        ------
        ValueError
            If nothing was traced.
        """
        return max(range(len(self.events)), key=lambda event: (self.totals[event], -event))

    def alive_at(self, event: int) -> list[int]:
        """Indices of the storages that are alive after an event, oldest first."""
        alive: dict[int, None] = {}
        for change in self.events[: event + 1]:
            if change >= 0:
                alive[change] = None
            else:
                alive.pop(~change, None)
        return list(alive)

    def to_bytes(self) -> bytes:
        """In a compact form that `from_bytes` reads: columns of numbers, and words once."""
        places: _Table[Place] = _Table()
        words: _Table[str | tuple[int, ...]] = _Table()
        columns = [
            [
                s.nbytes, words.add(s.op), words.add(s.shape), words.add(s.dtype), places.add(s.place),
                words.add(s.category), words.add(s.name), s.cuda_stream,
            ]
            for s in self.storages
        ]  # fmt: skip
        content = {
            "storages": [list(column) for column in zip(*columns, strict=True)],
            "places": [astuple(place) for place in places.values],
            "words": words.values,
            "events": self.events,
            "marks": [astuple(mark) for mark in self.marks],
            "phases": [astuple(phase) for phase in self.phases],
            "path": self.path,
            "versions": self.versions,
            "kernels": self.kernels,
            "notes": self.notes,
            "emptied": self.emptied,
        }
        return zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)

    @classmethod
    def from_bytes(cls, content: bytes) -> Trace:
        """The trace that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If it is not one.
        """
        try:
            read = json.loads(zlib.decompress(content))
            words = read["words"]
            places = [Place(*place) for place in read["places"]]
            storages = [
                Storage(
                    nbytes, words[op], tuple(words[shape]), words[dtype], places[place], words[category], words[name],
                    cuda_stream,
                )
                for nbytes, op, shape, dtype, place, category, name, cuda_stream in zip(*read["storages"], strict=True)
            ]  # fmt: skip
            return cls(
                storages,
                read["events"],
                [Mark(*mark) for mark in read["marks"]],
                [PhaseStart(*phase) for phase in read["phases"]],
                read["path"],
                read["versions"],
                read["kernels"],
                read["notes"],
                read["emptied"],
            )
        except (zlib.error, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a trace: {error}") from None


class _Table(Generic[Value]):
    """Values, each once, by place."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._places: dict[Value, int] = {}

    def add(self, value: Value) -> int:
        """The value's place."""
        found = self._places.get(value)
        if found is None:
            found = self._places[value] = len(self.values)
            self.values.append(value)
        return found
