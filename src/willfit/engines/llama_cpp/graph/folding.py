"""Which layers must be built so that buffers are as full as with all of them.

Identical layers in a row do the same to a buffer, again and again. Once it is in a state in which it was before, at
the start of an earlier layer, it goes on in a circle and grows no more. So a graph of a few of the layers needs what
that of all needs, provided that as many are left out as a multiple of the circle, and is laid out many times faster.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

#: Repetitions that are built at first, at least; those left out are a multiple of the usual circles.
_AT_FIRST = 4
_USUAL_CIRCLES = 2
#: Layers of the longest pattern.
_LONGEST = 16


@dataclass(frozen=True, slots=True)
class Run:
    """Layers that repeat.

    Attributes
    ----------
    start
        The first of them.
    length
        Layers of the pattern.
    times
        How often the model has it.
    kept
        How often it is built.
    """

    start: int
    length: int
    times: int
    kept: int

    @property
    def layers(self) -> dict[int, int]:
        """The layers to build, and for how many each stands: those of the last repetition but one for all left out."""
        built = range(self.length * self.kept)
        typical = range(self.length * (self.kept - 2), self.length * (self.kept - 1))
        return {self.start + i: 1 + (self.times - self.kept if i in typical else 0) for i in built}

    @property
    def starts(self) -> range:
        """The first layer of each repetition that is built."""
        return range(self.start, self.start + self.length * self.kept, self.length)

    def needed(self, states: Sequence[Hashable]) -> int:
        """How many repetitions must be built, given the states of the buffers before each that was.

        Equal to `kept` where these are enough.
        """
        if self.kept == self.times:
            return self.kept
        # The first repetition may be unlike others, as nothing came before it; its state is not compared.
        seen: dict[Hashable, int] = {}
        for index in range(1, len(states)):
            before = seen.setdefault(states[index], index)
            if before < index:
                circle = index - before
                if (self.times - self.kept) % circle == 0:
                    return self.kept
                return index + 1 + (self.times - index - 1) % circle
        return min(self.times, 2 * self.kept)


def runs(keys: Sequence[Hashable], kept: Mapping[int, int]) -> list[Run]:
    """All layers, in runs of those that repeat.

    Parameters
    ----------
    keys
        Of each layer: equal where layers are.
    kept
        How often to build the pattern of the run that starts at a layer, where that is known.
    """
    numbers: dict[Hashable, int] = {}
    alike = [numbers.setdefault(key, len(numbers)) for key in keys]
    found = []
    index = 0
    while index < len(keys):
        length, times = _pattern(alike, index)
        first = _AT_FIRST + (times - _AT_FIRST) % _USUAL_CIRCLES
        found.append(Run(index, length, times, min(times, kept.get(index, first))))
        index += length * times
    return found


def _pattern(keys: Sequence[int], start: int) -> tuple[int, int]:
    """The pattern that begins here and saves most: its length, and how often it is repeated."""
    best, saved = (1, 1), 0
    for length in range(1, min(_LONGEST, (len(keys) - start) // (_AT_FIRST + 1)) + 1):
        pattern = keys[start : start + length]
        times = 1
        while keys[start + times * length : start + (times + 1) * length] == pattern:
            times += 1
        if (times - _AT_FIRST) * length > saved:
            best, saved = (length, times), (times - _AT_FIRST) * length
    return best
