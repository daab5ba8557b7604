"""The best plan is the best of all that an engine says, one by one; limits, prices and reasons hold."""

from __future__ import annotations

import json
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.asking import find_subject
from willfit.engines.base import Question
from willfit.engines.vllm import NAME as VLLM
from willfit.errors import BadInput
from willfit.hardware.prices import Price
from willfit.hardware.table import find_device
from willfit.planning.search.figures import BY_NAME, limit_of
from willfit.planning.search.goals import front, ranked
from willfit.planning.search.layouts import Layout, counts_up_to, servers
from willfit.planning.search.searching import Wanted, search, spread
from willfit.planning.search.settling import longest_context, settled
from willfit.planning.search.ways import Way
from willfit.planning.serving import CONTEXT
from willfit.surfaces.cli.app import main

DEVICES = [find_device(name) for name in ("rtx4090", "l40s", "a100-80g", "h100")]
PRICES = {
    device: Price(usd, "2026-01", "made up")
    for device, usd in zip(DEVICES, (0.5, 1.2, 1.9, 3.0), strict=True)
}
MOST = 8


@cache
def stored(model, name):
    return find_subject(model, name, offline=True)[0]


@cache
def everything(model, context, users):
    """Every way with its estimate, one by one."""
    found = []
    sparse = any(layer.feed_forward.experts for layer, _ in stored(model, None).architecture.blocks)
    for name, device, layout, kv_dtype in product(
        (None, "fp8"), DEVICES, servers(MOST, sparse), ("auto", "fp8")
    ):
        for replicas in counts_up_to(MOST):
            if layout.server_devices * replicas <= MOST:
                whole = Layout(layout.tensor, layout.pipeline, layout.experts, replicas)
                way = Way(stored(model, name), VLLM, device, whole, kv_dtype, "unknown", 0, 0, 0)
                found.append((way, settled(way, Question(context, users))))
    return found


@pytest.mark.parametrize("model", ["Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B"])
def test_the_best_is_the_best_of_all(model):
    context, users = 16_384, 12
    subjects = [stored(model, name) for name in (None, "fp8")]
    most, question = dict.fromkeys(DEVICES, MOST), Question(context, users)
    found = {
        goal: search({VLLM: subjects}, {VLLM: DEVICES}, question, PRICES, Wanted(goal, most=most))
        for goal in ("price", "devices", "latency")
    }
    fitting = [(way, one) for way, one in everything(model, context, users) if one.estimate.verdict == "fits"]
    assert found["price"].fitting == len(fitting)
    least = min(way.count * PRICES[way.device].usd_per_hour for way, _ in fitting)
    assert found["price"].plans[0].figures["price"] == pytest.approx(least)
    assert found["devices"].plans[0].figures["devices"] == min(way.count for way, _ in fitting)
    fastest = max(one.speed.figures["tokens_per_s_per_user"].value for _, one in fitting)
    assert found["latency"].plans[0].figures["per-user"] == pytest.approx(fastest, rel=1e-4)
    for device in DEVICES:
        cheapest = min(way.count for way, _ in fitting if way.device == device)
        own = min(plan.way.count for plan in found["price"].plans if plan.way.device == device)
        assert own == cheapest


def test_limits_leave_what_keeps_them():
    subjects = [stored("Qwen/Qwen3-32B", None)]
    limits = [limit_of("per-user >= 30"), limit_of("price at most $8")]
    wanted = Wanted("price", limits, dict.fromkeys(DEVICES, MOST))
    found = search({VLLM: subjects}, {VLLM: DEVICES}, Question(16_384, 12), PRICES, wanted)
    assert found.plans
    for plan in (*found.plans, *found.front):
        assert plan.figures["per-user"] >= 30
        assert plan.figures["price"] <= 8
    assert {one.way.device for one in found.rejected} == set(DEVICES) - {p.way.device for p in found.plans}
    for one in found.rejected:
        assert one.broken or one.way.verdict != "fits"


@pytest.mark.parametrize(
    ("text", "name", "least", "value"),
    [
        ("per-user >= 20", "per-user", True, 20),
        ("per user at least 20 tok/s", "per-user", True, 20),
        ("first-token < 500ms", "first-token", False, 0.5),
        ("price <= $30/h", "price", False, 30),
        ("headroom>=10%", "headroom", True, 0.1),
        ("devices at most 4", "devices", False, 4),
    ],
)
def test_limits_in_words(text, name, least, value):
    limit = limit_of(text)
    assert (limit.kind, limit.least, limit.value) == (BY_NAME[name], least, pytest.approx(value))


@pytest.mark.parametrize(
    "text", ["", "fast", "speed >= 3", "per-user = 3", "price <= cheap", ">= 3", "price <= -1"]
)
def test_limits_that_cannot_be_read(text):
    with pytest.raises(BadInput):
        limit_of(text)


rows = st.integers(1, 60).flatmap(
    lambda count: st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), min_size=count, max_size=count
    )
)


@given(rows)
@settings(max_examples=200, deadline=None)
def test_nothing_beats_what_is_on_the_front_and_something_beats_the_rest(points):
    values = np.array(points, float)
    kept = front(values[:, 0], [values[:, 1], values[:, 2]])
    as_good = values * [1, -1, -1]

    def beaten(row):
        others = (as_good <= as_good[row]).all(axis=1) & (as_good < as_good[row]).any(axis=1)
        return others.any()

    assert not any(beaten(row) for row in kept)
    seen = {tuple(values[row]) for row in kept}
    for row in range(len(values)):
        assert beaten(row) or tuple(values[row]) in seen
    assert len(seen) == len(kept)


def test_unknown_figures_come_last_and_headroom_decides_ties():
    figures = {
        "price": np.array([np.nan, 2.0, 2.0, 2.000001]),
        "bits": np.array([16, 8, 8, 8.0]),
        "cache-bits": np.array([16, 16, 16, 16.0]),
        "headroom": np.array([0.9, 0.1, 0.3, 0.2]),
        "full": np.array([1, 1, 1, 1.0]),
    }
    assert list(ranked(figures, ("price", "bits", "cache-bits", "headroom", "full"))) == [2, 3, 1, 0]


def test_the_longest_context_is_exact():
    subject = stored("Qwen/Qwen3-8B", None)
    wanted = Wanted("context", most={DEVICES[0]: 1})
    found = search({VLLM: [subject]}, {VLLM: DEVICES[:1]}, Question(1024, 4), PRICES, wanted)
    way = found.plans[0].way
    longest = longest_context(way, Question(1024, 4), CONTEXT)
    assert settled(way, Question(longest.step, 4)).estimate.verdict == "fits"
    assert settled(way, Question(longest.step + 1, 4)).estimate.verdict != "fits"


def test_every_layout_is_tried_once_and_none_is_larger_than_what_there_is():
    subject = stored("Qwen/Qwen3-30B-A3B", None)
    for most in (1, 3, 6, 8, 64):
        layouts = spread(subject, min(most, 8), most)
        assert len({layout for layout, _ in layouts}) == len(layouts)
        assert all(count * layout.server_devices <= most for layout, counts in layouts for count in counts)
        assert any(layout.devices == most or most > 8 for layout, _ in layouts)


def asked(capsys, *words):
    status = main(["plan", *words, "--json", "--offline"])
    return status, json.loads(capsys.readouterr().out)


def test_plans_of_the_command(capsys):
    within = ("--within", "4xl40s,8xrtx4090", "--format", "stored,fp8", "--goal", "devices")
    status, found = asked(capsys, "Qwen/Qwen3-32B", "--users", "8", "--context", "16k", *within)
    assert status == 0
    assert found["fitting"] < found["judged"]
    assert {plan["device"] for plan in found["plans"]} == {"L40S", "GeForce RTX 4090"}
    assert all(plan["count"] <= {"L40S": 4, "GeForce RTX 4090": 8}[plan["device"]] for plan in found["plans"])
    words = " ".join(found["start"]["words"])
    assert words.startswith("vllm serve Qwen/Qwen3-32B")
    capsys.readouterr()
    status = main(
        ["--gpu", "4xl40s" if found["plans"][0]["device"] == "L40S" else "8xrtx4090", *words.split()]
    )
    assert status == 0


def test_prices_of_a_user_decide(capsys, tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("device,usd_per_hour\nh100,0.10\nrtx4090,5\n")
    status, found = asked(capsys, "Qwen/Qwen3-8B", "--context", "8k", "--prices", str(file))
    assert status == 0
    assert found["plans"][0]["device"] == "H100 SXM5 80GB"
    assert {plan["device"] for plan in found["plans"]} == {"H100 SXM5 80GB", "GeForce RTX 4090"}


def test_what_nothing_holds_names_what_is_in_the_way_and_what_comes_closest(capsys):
    status, found = asked(
        capsys, "deepseek-ai/DeepSeek-V3", "--users", "500", "--context", "128k", "--within", "8xh200"
    )
    assert (status, found["plans"]) == (1, [])
    assert "missing for the cache" in found["rejected"][0]["why"]
    assert (
        main(
            [
                "plan",
                "deepseek-ai/DeepSeek-V3",
                "--users",
                "500",
                "--context",
                "128k",
                "--within",
                "8xh200",
                "--offline",
            ]
        )
        == 1
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "nothing does" in printed
    assert "nearest: 8 × H200 SXM 141GB" in printed
    assert "it holds" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--within", "8xnosuchcard"], "nosuchcard"),
        (["--within", "100xh100"], "64"),
        (["--need", "speed >= 3"], "no figure 'speed'"),
        (["--goal", "joy"], "joy"),
        (["--among", "zx81"], "zx81"),
        (["--kv-dtype", "auto,"], "empty"),
        (["--prices", "no/such/file.csv"], "file.csv"),
        (["--format", "fp8,nosuchformat"], "nosuchformat"),
        (["--picture", "front.gif"], "SVG"),
        (["--among", "jetson"], "price"),
    ],
)
def test_bad_questions(words, says):
    with pytest.raises(BadInput) as error:
        main(["plan", "Qwen/Qwen3-8B", "--offline", *words])
    assert says in str(error.value)


def test_the_picture_shows_every_plan_of_the_front(capsys, tmp_path):
    from xml.etree import ElementTree

    file = tmp_path / "front.svg"
    status, found = asked(capsys, "Qwen/Qwen3-8B", "--users", "32", "--context", "8k", "--picture", str(file))
    assert status == 0
    svg = ElementTree.parse(file).getroot()
    titles = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}title")]
    for plan in found["front"]:
        assert any(title.startswith(f"{plan['count']} × {plan['device']}") for title in titles), plan


def test_slices_share_the_price_of_their_card(capsys):
    status, found = asked(
        capsys, "Qwen/Qwen3-0.6B", "--context", "4k", "--mig", "--among", "h100", "--most", "40"
    )
    assert status == 0
    prices = {plan["device"]: plan["figures"]["price"] for plan in found["plans"]}
    whole = prices["H100 SXM5 80GB"]
    assert prices["H100 SXM5 80GB MIG 1g.20gb"] == pytest.approx(whole / 4)
    assert prices["H100 SXM5 80GB MIG 3g.40gb"] == pytest.approx(whole / 2)


def test_devices_of_several_kinds_hold_a_model_together(capsys):
    status, found = asked(capsys, "Qwen/Qwen3-32B", "--context", "16k", "--within", "1xrtx4090,1xrtx3060-12g")
    assert (status, found["plans"]) == (0, [])
    one = next(one for one in found["together"] if one["engine"] == "llama.cpp")
    assert one["verdict"] == "fits"
    words = ["--gpu", "rtx4090,rtx3060-12g", "--engine", "llama.cpp", "--context", "16k", "--offline"]
    for finer, fits in (("q8_0", 1), (one["format"].split()[-1].lower(), 0)):
        assert main(["Qwen/Qwen3-32B", *words, "--format", finer]) == fits


def test_what_does_not_go_on_devices_goes_into_ram(capsys):
    within = ("--within", "1xrtx4060ti-16g", "--host-ram", "64GiB")
    status, found = asked(capsys, "Qwen/Qwen3-32B", "--context", "8k", *within)
    assert status == 0
    one = next(one for one in found["together"] if one["engine"] == "llama.cpp")
    (layers,) = one["knob"].values()
    words = [
        "n-gpu-layers",
        "Qwen/Qwen3-32B",
        "--format",
        one["format"].split()[-1].lower(),
        "--engine",
        "llama.cpp",
    ]
    main(
        [
            "max",
            *words,
            "--gpu",
            "rtx4060ti-16g",
            "--host-ram",
            "64GiB",
            "--context",
            "8k",
            "--offline",
            "--json",
        ]
    )
    assert json.loads(capsys.readouterr().out)["rows"][0]["value"] == layers
    with pytest.raises(BadInput, match="--within"):
        main(["plan", "Qwen/Qwen3-32B", "--host-ram", "64GiB", "--offline"])
