"""The page: whole in itself, its numbers the trace's, and names only names."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from random_traces import storage, traces

from willfit.errors import BadInput
from willfit.pictures.palette import CATEGORIES
from willfit.quantities import MIB
from willfit.tracing.export.timeline import POINTS, timeline
from willfit.tracing.export.view import Caption
from willfit.tracing.trace import PhaseStart, Trace

HOSTILE = '</script><script>alert("x")</script><img src=https://example.com/x onerror=alert(1)>\u2028'
VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """Elements of a page, and what its scripts and texts are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    @property
    def data(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.texts["script"][0])
        return found


def named_badly() -> Trace:
    storages = [
        storage(100, "parameter", op="parameter", name=HOSTILE, dtype=HOSTILE),
        storage(50, "activation", HOSTILE, op=HOSTILE, source=HOSTILE),
        storage(20, "optimizer_state", name=HOSTILE),
        storage(20, "optimizer_state", name="exp_avg"),
    ]
    return Trace(
        storages, [0, 1, 2, 3], phases=[PhaseStart(0, 1, 1, HOSTILE)], versions={HOSTILE: HOSTILE},
        kernels={HOSTILE: 2}, notes=[HOSTILE],
    )  # fmt: skip


def test_names_are_only_names() -> None:
    page = Page(timeline(named_badly(), Caption(HOSTILE, HOSTILE)))
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "link", "object", "embed")]
    assert page.texts["title"] == [f"{HOSTILE}: memory over time"]
    assert page.texts["h1"] == [HOSTILE]
    assert HOSTILE in page.data["words"]  # type: ignore[operator]
    assert page.texts["style"][0].count("</") == 0


def test_nothing_is_loaded_from_outside_and_nothing_leaves() -> None:
    text = timeline(named_badly(), Caption("a model"))
    page = Page(text)
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy == (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    )
    own = page.texts["script"][2] + "".join(page.texts["style"])
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|innerHTML", own)
    assert "showSendToCloud: false" in own
    assert 'plotlyServerURL: ""' in own
    assert "Plotly" in page.texts["script"][1][:500] or "plotly" in page.texts["script"][1][:500]


@settings(max_examples=20)
@given(traces())
def test_its_numbers_are_the_traces(trace: Trace) -> None:
    page = Page(timeline(trace, Caption("a model", reserved=trace.totals, capacity=7)))
    data = page.data
    assert data["totals"] == trace.totals == data["reserved"]
    columns = [sum(column) for column in zip(*data["series"].values(), strict=True)] or [0] * len(
        trace.events
    )  # type: ignore[attr-defined]
    assert columns == trace.totals
    assert data["events"][data["peak"]] == trace.peak_event  # type: ignore[index]
    assert set(data["series"]) <= set(CATEGORIES)  # type: ignore[call-overload]
    assert len(data["changes"]) == len(trace.events)  # type: ignore[arg-type]
    for event, change in zip(trace.events, data["changes"], strict=True):  # type: ignore[call-overload]
        made = trace.storages[event if event >= 0 else ~event]
        assert (change[0], change[-1]) == (event >= 0, made.nbytes)
        assert data["words"][change[1]] == made.op  # type: ignore[index]


def test_tables_say_what_is_alive_at_the_peak() -> None:
    storages = [storage(MIB, "activation", f"model.layers.{i}.mlp", source="model.py:7") for i in range(32)]
    page = Page(timeline(Trace(storages, list(range(32))), Caption("a model")))
    cells = [text.strip() for text in page.texts["td"]]
    assert "model.layers.*.mlp" in page.texts["span"]
    assert "×32" in page.texts["span"]
    assert "model.py:7" in page.texts["span"]
    assert "32.0 MiB" in page.texts["span"]
    assert "mm" in cells
    assert f"{MIB}" in cells  # its shape
    assert "100.0 %" in cells


def test_a_long_trace_is_a_page_of_the_same_size() -> None:
    count = 200_000
    storages = [
        storage(MIB + i, CATEGORIES_IN_TURN[i % 11], f"model.layers.{i % 80}.mlp") for i in range(count)
    ]
    events = [event for i in range(count) for event in ([i] if i < 500 else [i, ~(i - 500)])]
    trace = Trace(storages, events, phases=[PhaseStart(0, 1, 1, "forward")])
    text = timeline(trace, Caption("a model"))
    assert len(text) < 5_700_000
    data = Page(text).data
    assert len(data["events"]) == POINTS  # type: ignore[arg-type]
    assert max(data["totals"]) == max(trace.totals)  # type: ignore[call-overload]


CATEGORIES_IN_TURN = list(CATEGORIES)


def test_without_plotly_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(BadInput, match="needs plotly") as raised:
        timeline(Trace([storage(1)], [0]), Caption("a"))
    assert "willfit[trace]" in raised.value.hint


def test_an_empty_trace_is_refused() -> None:
    with pytest.raises(BadInput, match="trace is empty"):
        timeline(Trace(), Caption("a"))
