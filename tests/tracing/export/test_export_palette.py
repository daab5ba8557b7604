"""Colours that everyone can tell apart."""

from __future__ import annotations

from itertools import combinations
from math import dist

import pytest

from willfit.pictures.palette import CATEGORIES, THEMES
from willfit.tracing import trace

Triple = tuple[float, ...]

#: Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SEEN_BY = {
    "most": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}  # fmt: skip
#: Ottosson 2020: linear RGB to the cube of cone responses, and these to Oklab.
CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
OKLAB = (
    (0.2104542553, 0.793617785, -0.0040720468),
    (1.9779984951, -2.428592205, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.808675766),
)
#: Distances in Oklab, in hundredths: one just noticeable is about 2.
LEAST, LEAST_OF_NEIGHBOURS = 6, 11


def linear(colour: str) -> Triple:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return tuple(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)


def times(matrix: tuple[Triple, ...], vector: Triple) -> Triple:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def looks(colour: str, eyes: str) -> Triple:
    seen = tuple(min(1.0, max(0.0, part)) for part in times(SEEN_BY[eyes], linear(colour)))
    return times(OKLAB, tuple(part ** (1 / 3) for part in times(CONES, seen)))


def luminance(colour: str) -> float:
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def contrast(a: str, b: str) -> float:
    """As WCAG 2 defines it."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_every_category_has_its_place() -> None:
    assert set(CATEGORIES) == set(trace.CATEGORIES)


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("theme", THEMES)
def test_categories_are_told_apart(theme: str, eyes: str) -> None:
    names = list(CATEGORIES)
    for a, b in combinations(names, 2):
        apart = 100 * dist(*(looks(THEMES[theme].categories[name], eyes) for name in (a, b)))
        near = names.index(b) - names.index(a) == 1
        assert apart >= (LEAST_OF_NEIGHBOURS if near else LEAST), (a, b)


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read(theme: str) -> None:
    colours = THEMES[theme]
    for ground in (colours.card, colours.page, colours.band):
        assert contrast(colours.ink, ground) >= 7
        assert contrast(colours.muted, ground) >= 4.5
    for line in (colours.reserved, colours.limit, colours.peak):
        assert contrast(line, colours.card) >= 3
