"""Torch's own allocator, asked; and made-up programs to ask it about."""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import subprocess
from dataclasses import asdict, dataclass, field
from typing import Any

from willfit.allocator.device import Device
from willfit.allocator.history import Entry, History
from willfit.allocator.replay import replay
from willfit.allocator.settings import parse_settings
from willfit.quantities import MIB

HOME = pathlib.Path(__file__).parents[3] / ".oracle-allocator"

#: CUDA streams are numbers here, and pointers there.
STREAM = 16

SETTINGS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:20",
    "max_split_size_mb:64,max_non_split_rounding_mb:32",
    "roundup_power2_divisions:8",
    "roundup_power2_divisions:[1:4,16:8,>:2]",
    "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]",
    "roundup_power2_divisions:[>:4]",
    "large_segment_size_mb:40",
    "large_segment_size_mb:11",
    "large_segment_size_mb:12,expandable_segments:True",
    "expandable_segments:True,max_split_size_mb:64",
    "per_process_memory_fraction:0.7",
    "garbage_collection_threshold:0.6,per_process_memory_fraction:0.8",
    "max_split_size_mb:40,garbage_collection_threshold:0.3,per_process_memory_fraction:0.9",
    "expandable_segments:True,garbage_collection_threshold:0.5,per_process_memory_fraction:0.9",
    "throw_on_cudamalloc_oom:True",
    "throw_on_cudamalloc_oom:True,per_process_memory_fraction:0.9",
    "throw_on_cudamalloc_oom:True,expandable_segments:True,per_process_memory_fraction:0.5",
)


@dataclass
class Program:
    """What is asked for, on which device, under which settings."""

    settings: str
    capacity: int
    outside: int
    sizes: list[int] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)


@dataclass
class Answer:
    """What an allocator did and counted.

    Attributes
    ----------
    entries
        Event, action, address, size and stream of each thing that happened.
    counts
        Now and at most.
    held
        Segments and their blocks in the end.
    message
        Of the error, if there was one.
    """

    entries: list[tuple[int, str, int, int, int]]
    counts: dict[str, tuple[int, int]]
    held: list[Any]
    message: str | None

    def digest(self) -> dict[str, Any]:
        """What is recorded of it: segments in full, the rest as a checksum."""
        told = [list(entry) for entry in self.entries if entry[1] not in ("alloc", "free")]
        whole = hashlib.sha256(repr((self.entries, self.held)).encode()).hexdigest()
        counts = {name: list(pair) for name, pair in self.counts.items()}
        return {"segments": told, "sha256": whole, "counts": counts, "message": self.message}


def program(seed: int) -> Program:
    """Requests of any size, small ones, large ones or few sizes again and again, on a device that may be too small."""
    rng = random.Random(seed)
    made = Program(
        rng.choice(SETTINGS),
        rng.choice((100, 300, 700, 3000)) * MIB + rng.choice((0, 12345, rng.randrange(10**6))),
        rng.choice((0, 50 * MIB)),
    )
    palette = [int(2 ** rng.uniform(0, 29)) for _ in range(8)]
    low, high = rng.choice(((0, 28), (0, 21), (19, 28), (0, 0)))
    streams, most = rng.choice((1, 1, 2, 3)), rng.choice((200, 500, 2000)) * MIB
    alive: list[int] = []
    total = 0
    for _ in range(rng.choice((50, 300, 1500))):
        if rng.random() < 0.01:
            made.emptied.append(len(made.events))
        if alive and (rng.random() < 0.48 or total > most):
            storage = alive.pop(rng.randrange(len(alive)) if rng.random() < 0.7 else -1)
            made.events.append(~storage)
            total -= made.sizes[storage]
        else:
            size = int(2 ** rng.uniform(low, high)) if high else rng.choice(palette)
            made.sizes.append(size)
            made.streams.append(rng.randrange(streams))
            alive.append(len(made.sizes) - 1)
            made.events.append(alive[-1])
            total += size
    made.emptied = sorted(set(made.emptied))
    return made


def torchs(asked: Program) -> Answer:
    """What torch's own allocator does."""
    lines = []
    event_of = []  # of each line
    emptied = set(asked.emptied)
    for index, event in enumerate(asked.events):
        if index in emptied:
            lines.append("e")
            event_of.append(index)
        lines.append(
            f"a {event} {asked.sizes[event]} {asked.streams[event] * STREAM}" if event >= 0 else f"f {~event}"
        )
        event_of.append(index)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTORCH_")}
    environment |= {
        "LD_LIBRARY_PATH": str(HOME),
        "DEVICE_TOTAL": str(asked.capacity),
        "DEVICE_OUTSIDE": str(asked.outside),
        "PYTORCH_ALLOC_CONF": asked.settings,
    }
    done = subprocess.run(
        [HOME / "drive"], input="\n".join(lines), capture_output=True, text=True, env=environment, check=True
    )
    found = Answer([], {}, [], None)
    for line in done.stdout.splitlines():
        kind, *words = line.split()
        if kind == "message":
            found.message = line.removeprefix("message ")
        elif kind == "stat":
            found.counts[words[0]] = int(words[1]), int(words[2])
        elif kind == "segment":
            address, size, stream, small, expandable = map(int, words[:5])
            blocks = [tuple(map(int, word.split(":"))) for word in words[5:]]
            blocks = [(size, requested if used else 0, used) for size, requested, used in blocks]
            found.held.append((address, size, stream // STREAM, small, expandable, blocks))
        elif words[0] not in ("snapshot", "free_requested"):
            action = "free" if words[0] == "free_completed" else words[0]
            address, size, stream = map(int, words[1:])
            found.entries.append((event_of[int(kind)], action, address, size, stream // STREAM))
    return found


def replayed(asked: Program) -> Answer:
    """What the replay says, in the same form."""
    history = History()
    done = replay(
        asked.sizes,
        asked.events,
        asked.streams,
        settings=parse_settings(asked.settings),
        device=Device(asked.capacity, asked.outside, asked.outside),
        emptied=asked.emptied,
        history=history,
    )
    rejected = done.failure is not None and done.failure.rejected
    return Answer(
        [_plain(entry) for entry in history.entries],
        {
            "allocated": (done.allocated, done.peak_allocated),
            "reserved": (done.reserved, done.peak_reserved),
            "active": (done.allocated, done.peak_active),
            "requested": (done.requested, done.peak_requested),
            "inactive_split": (done.split_free, done.peak_split_free),
            "segments": (done.segments, done.peak_segments),
            "retries": (done.retries, 0),
            "rejections": (int(rejected), 0),
        },
        [
            (
                *(one.address, one.size, one.stream, int(one.small), int(one.expandable)),
                [(block.size, block.requested, int(block.storage >= 0)) for block in one.blocks],
            )
            for one in history.segments
        ],
        None if done.failure is None else done.failure.message,
    )


def _plain(entry: Entry) -> tuple[int, str, int, int, int]:
    return entry.event, entry.action, entry.address, entry.size, entry.stream


def line(asked: Program, answer: Answer) -> dict[str, Any]:
    """A program and what became of it, as it is recorded."""
    return {**asdict(asked), **answer.digest()}
