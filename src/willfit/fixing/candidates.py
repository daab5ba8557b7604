"""An edit that might make a command fit, at each of its values, and what it costs whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, Literal

from willfit.launch.editing.changes import Change, SetFlag
from willfit.planning.binding import EVERYWHERE, Kind

#: How much is lost, from the least: what only takes memory from others, what only takes time, exactness of the cache,
#: length of a sequence, exactness of weights, and what makes every step many times slower.
#: From the last on, an edit is not made where others do, however few it takes.
SHARE, SPEED, SLOWER, DEVICES, CACHE, LENGTH, WEIGHTS, OFFLOAD = 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0

#: Contexts below this are not offered, unless less was asked for.
SHORTEST = 2048

#: Of a device, in hundredths; smaller shares are not offered.
_LEAST_SHARE = 50


@dataclass(frozen=True, slots=True)
class Candidate:
    """An edit with a value that is open.

    Attributes
    ----------
    name
        What is edited, as the program calls it.
    values
        From the one that needs least memory to the one that loses least.
    changes
        What is changed in the command for a value.
    loss
        How much a value loses, to compare edits by.
    cost
        The same in words.
    order
        `less`: a value never needs less than the one before it. `share`: with each the device lacks more, or the engine
        refuses it, and the engine's own pool less. `each`: there are few, all of which are tried, the last first.
    fills
        Where that holds (`planning.knobs.Knob`).
    kind
        Of the candidates of a kind one alone is made.
    """

    name: str
    values: Sequence[Any]
    changes: Callable[[Any], tuple[Change, ...]]
    loss: Callable[[Any], float]
    cost: Callable[[Any], str]
    order: Literal["less", "share", "each"] = "less"
    fills: frozenset[Kind] = EVERYWHERE
    kind: str = ""

    @property
    def least_loss(self) -> float:
        """At the value that loses least."""
        return min(map(self.loss, self.values)) if self.order == "share" else self.loss(self.values[-1])


def word(flag: str, value: str | None, loss: float, cost: str, kind: str = "") -> Candidate:
    """A flag with one value, or that stands alone."""
    return Candidate(
        flag, (value,), lambda _: (SetFlag(flag, value),), lambda _: loss, lambda _: cost, kind=kind
    )


def halved(flag: str, current: int | None, floor: int, loss: float, cost: str) -> list[Candidate]:
    """Powers of two below a number, down to a floor.

    Parameters
    ----------
    cost
        In words, with `{}` for the value.
    """
    if not current or current <= floor:
        return []
    values = [floor]
    while values[-1] * 2 < current:
        values.append(values[-1] * 2)
    return [
        Candidate(
            flag, values, lambda value: (SetFlag(flag, str(value)),),
            lambda value: loss + 0.1 * log2(current / value), lambda value: cost.format(f"{value:,}"),
        )
    ]  # fmt: skip


def shorter(
    flag: str,
    current: int | None,
    step: int,
    *,
    sequences: int = 1,
    also: Callable[[int], tuple[Change, ...]] | None = None,
) -> list[Candidate]:
    """A shorter context, in steps as the engine takes it.

    Parameters
    ----------
    current
        Tokens that the flag stands for now.
    step
        Tokens of a block.
    sequences
        Among which the tokens of the flag are shared out.
    also
        What else is changed with it.
    """
    if not current:
        return []
    first = -(-min(SHORTEST * sequences, current // 2) // step) * step
    if first >= current or not first:
        return []
    return [
        Candidate(
            flag, range(first, current, step),
            lambda value: (SetFlag(flag, str(value)), *(also(value) if also else ())),
            lambda value: LENGTH + 4 * (1 - value / current),
            lambda value: f"sequences end at {value // sequences:,} tokens instead of {current // sequences:,}",
        )
    ]  # fmt: skip


def shares(flag: str, current: float, most: float = 0.95) -> list[Candidate]:
    """Another share of the device for the engine, larger or smaller: the nearest that does."""
    now = round(current * 100)
    values = [value / 100 for value in range(_LEAST_SHARE, round(most * 100) + 1) if value != now]
    if not values:
        return []

    def cost(value: float) -> str:
        less = "other programs on the device" if value > current else "the cache"
        return f"less memory is left to {less}: a share of {value:g} instead of {round(current, 3):g}"

    return [
        Candidate(
            flag, values, lambda value: (SetFlag(flag, f"{value:g}"),),
            lambda value: SHARE + abs(value - current), cost, order="share",
        )
    ]  # fmt: skip


def spread(flag: str, current: int, others: int, available: int) -> list[Candidate]:
    """More ranks of tensor parallelism, over devices that are there and not used.

    Parameters
    ----------
    current, others
        Ranks now, and how many devices each takes.
    available
        Devices that there are.
    """
    values = [ranks for ranks in range(available // others, current, -1) if available >= ranks * others]
    if not values:
        return []
    return [
        Candidate(
            flag, values, lambda value: (SetFlag(flag, str(value)),),
            lambda value: DEVICES + 0.1 * log2(value / current),
            lambda value: f"{value * others} devices are used instead of {current * others}", order="each",
        )
    ]  # fmt: skip


#: What leaves a device goes to the host, so that these alone say how far (`planning.serving.LAYERS`).
ON_DEVICES: frozenset[Kind] = frozenset(("device", "pool"))


def layers(flag: str, current: Any) -> list[Candidate]:
    """Fewer layers on the devices, for programs of llama.cpp's family.

    Parameters
    ----------
    current
        Layers there now, where that is a number.
    """
    if not isinstance(current, int) or current < 1:
        return []
    return [
        Candidate(
            flag, range(current), lambda value: (SetFlag(flag, str(value)),),
            lambda value: WEIGHTS + 1.9 * (current - value) / current,
            lambda value: f"{current - value} of {current} layers run on the processor, which is slower",
            fills=ON_DEVICES,
        )
    ]  # fmt: skip
