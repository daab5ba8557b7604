"""The picture is XML whatever things are called, and its heights are bytes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_traces import storage, traces

from willfit.errors import BadInput
from willfit.pictures.palette import CATEGORIES, THEMES
from willfit.pictures.svg import fitting, ticks
from willfit.quantities import GIB, MIB
from willfit.tracing.export import picture as of
from willfit.tracing.export.picture import picture
from willfit.tracing.export.view import Caption
from willfit.tracing.trace import PhaseStart, Trace

SVG = "{http://www.w3.org/2000/svg}"


def parts(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def heights(path: str) -> dict[float, float]:
    """Of a step-shaped path's way forth: y from each x on."""
    found, y = {}, 0.0
    start = re.match(r"M([\d.]+) ([\d.]+)", path)
    assert start
    x, y = map(float, start.groups())
    for kind, value in re.findall(r"([HV])([\d.]+)", path):
        if kind == "H" and float(value) < x:
            break
        if kind == "H":
            x = float(value)
        else:
            y = float(value)
            found.setdefault(x, y)
    return found


@given(traces(), st.text(), st.text(), st.sampled_from(list(THEMES)))
def test_any_trace_and_any_words_give_xml(trace: Trace, title: str, settings: str, theme: str) -> None:
    svg = picture(trace, Caption(title, settings, trace.totals, 3000), theme)
    svg.encode()  # no lone surrogates either
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == f"0 0 {of.WIDTH} {of.HEIGHT}"
    assert {child.tag.removeprefix(SVG) for child in root.iter()} <= {
        "svg",
        "title",
        "desc",
        "rect",
        "path",
        "text",
        "circle",
    }
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "") or "http" in title + settings


def test_words_are_words() -> None:
    svg = picture(Trace([storage(5)], [0]), Caption('<script>"&\x00', "</svg>"))
    assert '<script>"&\ufffd' in [text.text for text in parts(svg, "text")]


def test_areas_are_as_high_as_their_bytes() -> None:
    sizes = [3 * GIB, 5 * GIB, 2 * GIB]
    kinds = ("parameter", "gradient", "temporary")
    storages = [storage(size, kind) for size, kind in zip(sizes, kinds, strict=True)]
    trace = Trace(storages, [0, 1, 2, ~2], phases=[PhaseStart(0, 1, 1, "forward")])
    svg = picture(trace, Caption("a model", reserved=[12 * GIB] * 4, capacity=16 * GIB))
    scale = (of.BOTTOM - of.TOP) / (16 * GIB * of.HEADROOM)
    paths = {path.get("class"): path.get("d", "") for path in parts(svg, "path")}
    tops = {kind: min(heights(paths[kind]).values()) for kind in kinds}
    for kind, below in zip(kinds, (3 * GIB, 8 * GIB, 10 * GIB), strict=True):
        assert tops[kind] == pytest.approx(of.BOTTOM - below * scale, abs=0.1)
    (dot,) = parts(svg, "circle")
    assert float(dot.get("cy", "")) == pytest.approx(tops["temporary"], abs=0.1)
    words = [text.text for text in parts(svg, "text")]
    assert words.count("10.00 GiB") == 2  # at the mark, and large above
    for expected in (
        CATEGORIES["gradient"],
        "5.00 GiB",
        "reserved",
        "12.00 GiB",
        "device limit",
        "16.00 GiB",
        "forward",
        "step 1",
    ):
        assert expected in words
    assert "out of memory" not in words


def test_a_replay_that_found_no_room_says_so() -> None:
    trace = Trace([storage(GIB), storage(GIB)], [0, 1])
    svg = picture(trace, Caption("a model", reserved=[GIB]))
    assert "out of memory" in [text.text for text in parts(svg, "text")]


def test_an_unknown_theme_and_an_empty_trace_are_refused() -> None:
    with pytest.raises(BadInput, match="no theme is called 'sepia'"):
        picture(Trace([storage(5)], [0]), Caption("a"), "sepia")
    with pytest.raises(BadInput, match="trace is empty"):
        picture(Trace(), Caption("a"))


def test_a_long_trace_makes_a_small_picture() -> None:
    storages = [storage(MIB, CATEGORIES_IN_TURN[i % 11]) for i in range(50_000)]
    assert len(picture(Trace(storages, list(range(50_000))), Caption("a"))) < 400_000


CATEGORIES_IN_TURN = list(CATEGORIES)


@given(st.integers(1, 2**46))
def test_ticks_are_round_rising_and_inside(most: int) -> None:
    found = ticks(most)
    sizes, words = zip(*found, strict=True)
    assert (sizes[0], words[0]) == (0, "0")
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] <= most
    assert 1 <= len(found) - 1 <= 10 or most == 1
    assert len(set(words)) == len(words)


@given(st.text(), st.floats(0, 500), st.floats(5, 40))
def test_words_are_cut_to_their_room(words: str, width: float, size: float) -> None:
    found = fitting(words, width, size)
    assert found == words or len(found) * size * 0.56 <= width
