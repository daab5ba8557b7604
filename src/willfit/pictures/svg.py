"""SVG as text: elements with escaped words, step-shaped paths, and an axis in binary units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from willfit.quantities import GIB, KIB, MIB

#: What no XML document may contain (XML 1.0, section 2.2).
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Width of a letter of a sans-serif font, as a share of its size, for words whose width nobody can measure here.
_LETTER = 0.56


def clean(words: str) -> str:
    """Words without characters that XML forbids."""
    return _FORBIDDEN.sub("\ufffd", words)


def element(name: str, words: str | None = None, /, **attributes: object) -> str:
    """An element; `_` in attributes' names stands for `-`, and a last one is dropped (`class_`)."""
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(clean(str(value)))}"
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}/>" if words is None else f"<{name}{said}>{escape(clean(words))}</{name}>"


def fitting(words: str, width: float, size: float) -> str:
    """Words cut to a width in pixels, at a size of letters; empty if not even one would fit."""
    letters = int(width / (size * _LETTER))
    if len(words) <= letters:
        return words
    return words[: letters - 1].rstrip() + "…" if letters > 1 else ""


def width_of(words: str, size: float) -> float:
    """About how wide words are in pixels."""
    return len(words) * size * _LETTER


def steps_along(xs: Sequence[float], ys: Sequence[float], end: float) -> str:
    """Commands of a path that goes on from its point through values that hold until the next one, to `end`."""
    found, last = [], None
    for x, y in zip(xs, ys, strict=True):
        if y != last:
            found.append(f"H{number(x)}V{number(y)}")
            last = y
    return "".join(found) + f"H{number(end)}"


def area(xs: Sequence[float], upper: Sequence[float], lower: Sequence[float], end: float) -> str:
    """The path of what is between two step-shaped lines."""
    forth = f"M{number(xs[0])} {number(lower[0])}{steps_along(xs, upper, end)}V{number(lower[-1])}"
    back, last = [], lower[-1]
    for i in range(len(xs) - 1, 0, -1):
        if lower[i - 1] != last:
            back.append(f"H{number(xs[i])}V{number(lower[i - 1])}")
            last = lower[i - 1]
    return forth + "".join(back) + "Z"


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


def ticks(most: int, wanted: int = 5) -> list[tuple[int, str]]:
    """Round sizes from 0 up to `most` with their words, in the largest unit that gives whole numbers.

    Parameters
    ----------
    most
        Bytes at the top of the axis.
    wanted
        About how many ticks.
    """
    unit, word = next(((u, w) for u, w in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")) if most >= u), (1, "B"))
    raw = max(most / unit / wanted, 1e-9)
    scale = 10.0 ** _exponent(raw)
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= raw)
    step = max(step, 1.0) if unit == 1 else step
    digits = 0 if step >= 1 else 1
    found = []
    for i in range(int(most / unit / step) + 1):
        found.append((round(i * step * unit), f"{i * step:.{digits}f} {word}" if i else "0"))
    return found


def _exponent(value: float) -> int:
    """The power of ten that is not above a value."""
    return int(f"{value:e}".partition("e")[2])
