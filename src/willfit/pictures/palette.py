"""Categories in the order in which they are stacked, their words, and colours for light and dark backgrounds.

What stays is below, what passes is above. The colours were searched for so that any two of them differ for people with
protanopia, deuteranopia and tritanopia as well; lightness alone tells those apart that often touch.
"""

from __future__ import annotations

from dataclasses import dataclass

#: From the bottom of a stack to its top, with what people are told.
CATEGORIES: dict[str, str] = {
    "parameter": "parameters",
    "buffer": "buffers",
    "optimizer_state": "optimizer states",
    "gradient": "gradients",
    "activation": "activations",
    "logits": "logits and loss",
    "kv_cache": "KV cache",
    "input": "inputs",
    "communication": "communication",
    "workspace": "workspaces",
    "temporary": "temporaries",
}


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one background.

    Attributes
    ----------
    categories
        A colour for each of `CATEGORIES`.
    page, card
        Behind everything, and behind a chart.
    ink, muted
        Of text, and of text that is less important.
    grid, line
        Of the chart's grid, and of borders.
    peak, reserved, limit
        Of the mark at the peak, the line of reserved bytes, and the device's limit.
    band
        Of every second phase's shade.
    """

    categories: dict[str, str]
    page: str
    card: str
    ink: str
    muted: str
    grid: str
    line: str
    peak: str
    reserved: str
    limit: str
    band: str


def _colours(words: str) -> dict[str, str]:
    return dict(zip(CATEGORIES, words.split(), strict=True))


LIGHT = Theme(
    categories=_colours(
        "#234b8a #89c4f3 #9f76d3 #2f9470 #e7a52a #b5271a #f3cf4e #665548 #5eaf75 #2e3134 #b6b6b6"
    ),
    page="#f5f6f8", card="#ffffff", ink="#1c2126", muted="#59636e", grid="#e4e8ec", line="#d5dae0",
    peak="#1c2126", reserved="#0b7285", limit="#c2255c", band="#eef1f4",
)  # fmt: skip

DARK = Theme(
    categories=_colours(
        "#3c6a99 #c9f4ff #b88fee #2ea984 #fcbc53 #d8432a #faf7a7 #76605c #7ec391 #797b88 #c0ced8"
    ),
    page="#0e1116", card="#161b22", ink="#e6eaef", muted="#9aa5b1", grid="#262d36", line="#2f3741",
    peak="#f0f3f6", reserved="#5ec8de", limit="#ff7a9c", band="#1c222a",
)  # fmt: skip

THEMES: dict[str, Theme] = {"light": LIGHT, "dark": DARK}
