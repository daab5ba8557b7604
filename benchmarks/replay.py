"""How many allocations and frees a second the allocator's replay takes.

Prints a table and asserts nothing. Run it with the interpreter of the environment to measure:

    .venv/bin/python benchmarks/replay.py [--events 1000000]

Three made-up programs: training steps (layers that keep activations and give them back in reverse, with temporaries
between), the same under each setting that takes another way through the allocator, and requests of random sizes.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median

from willfit.allocator.device import Device
from willfit.allocator.fitting import smallest_fitting
from willfit.allocator.history import History
from willfit.allocator.replay import replay
from willfit.allocator.settings import parse_settings
from willfit.quantities import GIB, MIB

SETTINGS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:128",
    "roundup_power2_divisions:8",
    "garbage_collection_threshold:0.6,per_process_memory_fraction:0.99",
)


def training(count: int, layers: int = 32) -> tuple[list[int], list[int]]:
    """Steps of a model: sizes and events, about `count` of these."""
    rng = random.Random(1)
    sizes: list[int] = []
    events: list[int] = []

    def make(size: int) -> int:
        sizes.append(size)
        events.append(len(sizes) - 1)
        return len(sizes) - 1

    shapes = [rng.choice((4096, 8 * MIB, 32 * MIB, 57 * MIB + 512, 100_000)) for _ in range(24)]
    for _ in range(layers * 9):
        make(rng.choice((8192, 32 * MIB, 112 * MIB)))
    while len(events) < count:
        kept = []
        for _ in range(layers):
            for size in shapes:
                passing = make(size)
                kept.append(make(size))
                events.append(~passing)
        for storage in reversed(kept):
            gradient, passing = make(sizes[storage]), make(4 * sizes[storage] // 3)
            events += [~passing, ~storage, ~gradient]
    return sizes, events


def noise(count: int, alive: int = 2000) -> tuple[list[int], list[int]]:
    """Requests of all sizes, given back in any order: free lists are long."""
    rng = random.Random(2)
    sizes: list[int] = []
    events: list[int] = []
    held: list[int] = []
    while len(events) < count:
        if len(held) > rng.randrange(alive):
            place = rng.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            events.append(~held.pop())
        else:
            sizes.append(int(2 ** rng.uniform(4, 26)))
            held.append(len(sizes) - 1)
            events.append(held[-1])
    return sizes, events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="allocations and frees (1000000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, of which the median counts (3)")
    given = parser.parse_args()
    device = Device(1024 * GIB)
    print(f"{'':64}{'events':>9}{'s':>7}{'million/s':>11}{'reserved GiB':>14}")
    for title, (sizes, events) in (("training", training(given.events)), ("noise", noise(given.events))):
        for text in SETTINGS:
            settings, times = parse_settings(text), []
            for _ in range(given.runs):
                began = time.perf_counter()
                done = replay(sizes, events, settings=settings, device=device)
                times.append(time.perf_counter() - began)
            seconds = median(times)
            print(
                f"{f'{title}, {text or chr(45)}':64}{len(events):9}{seconds:7.2f}"
                f"{len(events) / seconds / 1e6:11.2f}{done.peak_reserved / GIB:14.1f}"
            )
        for name, words in (("a history", {"history": History()}), ("series", {"series": True})):
            began = time.perf_counter()
            replay(sizes, events, **words)
            seconds = time.perf_counter() - began
            print(
                f"{f'{title}, with {name}':64}{len(events):9}{seconds:7.2f}{len(events) / seconds / 1e6:11.2f}"
            )
    sizes, events = training(given.events // 20)
    began = time.perf_counter()
    smallest_fitting(sizes, events)
    print(f"{'training, the smallest device that fits':64}{len(events):9}{time.perf_counter() - began:7.2f}")


if __name__ == "__main__":
    main()
