"""Grids: which points they mean, how they are cut, and what is said of those that cannot be used."""

from __future__ import annotations

from itertools import product

import grids
import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import catalogue_ids
from willfit.errors import BadInput
from willfit.sweeping.chunks import Chunk, chunks_of
from willfit.sweeping.grid import grid_of, read_grid

POINT = {"model": "Qwen/Qwen3-8B", "gpu": "rtx4090"}


def points(written):
    return [point for chunk in chunks_of(grid_of(written)) for point in chunk.points()]


def test_points_are_the_product_in_order_without_those_skipped():
    found = points(
        {
            "vary": {
                "gpu": {"devices": ["l40s", "h100"], "counts": [1, 2]},
                "model": ["b", "a"],
                "users": {"from": 1, "to": 5, "by": "double"},
                "context": {"from": "1k", "to": "2k", "by": 512},
            },
            "fixed": {"format": "fp8"},
            "skip": [
                {"users": "> 2", "devices": 1},
                {"device": "L40S", "users": [1, 2]},
                {"context": "!= 1k", "model": "b"},
            ],
        }
    )
    gpus = {"l40s": ("l40s", 1), "2xl40s": ("l40s", 2), "h100": ("h100", 1), "2xh100": ("h100", 2)}
    assert found == [
        {"model": model, "users": users, "context": context, "gpu": gpu, "format": "fp8"}
        for model, users, context, gpu in product("ba", (1, 2, 4), (1024, 1536, 2048), gpus)
        if not (users > 2 and gpus[gpu][1] == 1)
        and not (gpus[gpu][0] == "l40s" and users in (1, 2))
        and not (context != 1024 and model == "b")
    ]
    assert len(found) == (1 + 3) * (
        2 + 2 + 2
    )  # of each: H100 alone and in pairs for few, pairs of both for four


def test_the_catalogue_and_the_device_table_are_lists_of_values():
    found = points({"vary": {"model": {"catalogue": "qwen3-*b"}, "gpu": {"devices": "nvidia hopper"}}})
    models, devices = ({point[name] for point in found} for name in ("model", "gpu"))
    assert {"Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"} <= models
    assert all(name.lower().partition("/")[2].startswith("qwen3-") for name in models)
    assert "H200 SXM" in devices or any("H200" in name for name in devices)
    assert len(found) == len(models) * len(devices)
    everything = chunks_of(grid_of({"vary": {"model": "catalogue", "gpu": "all"}}))
    assert len(everything) == len(catalogue_ids())


@given(
    users=st.lists(st.integers(1, 99), min_size=1, max_size=40, unique=True),
    formats=st.lists(st.sampled_from([None, "fp8", "awq", "nf4", "bf16"]), min_size=1, unique=True),
    counts=st.lists(st.integers(1, 64), min_size=1, max_size=30, unique=True),
    limit=st.integers(0, 99),
    data=st.data(),
)
def test_chunks_hold_each_point_once_and_are_read_back(users, formats, counts, limit, data):
    dropped = data.draw(st.sampled_from(formats))
    gpu = {"devices": ["h100"], "counts": counts}
    written = {
        "vary": {"model": ["m", "n"], "users": users, "format": formats, "gpu": gpu},
        "skip": [{"format": dropped, "users": users}, {"devices": counts[:1]}],
    }  # fmt: skip
    if any(value > limit for value in users):
        written["skip"].append({"users": f"> {limit}"})
    chunks = chunks_of(grid_of(written))
    found = [tuple(point.values()) for chunk in chunks for point in chunk.points()]
    expected = [
        (model, number, kind, "h100" if count == 1 else f"{count}xh100")
        for model, number, kind, count in product(("m", "n"), users, formats, counts)
        if kind != dropped and count != counts[0] and number <= limit
    ]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    for chunk in chunks:
        assert chunk.size == len(list(chunk.points())) > 0
        assert Chunk.from_text(chunk.text) == chunk
        assert Chunk.from_text(chunk.text).name == chunk.name


def test_a_value_more_of_an_outer_option_leaves_the_other_chunks_as_they_are():
    def names(models, contexts):
        vary = {"model": models, "context": contexts, "users": {"from": 1, "to": 1000, "by": 1}, "gpu": "all"}
        return {chunk.name for chunk in chunks_of(grid_of({"vary": vary}))}

    once = names(["a", "b"], ["1k"])
    assert len(once) > 2  # so that users are cut as well
    assert once < names(["c", "a", "b"], ["1k"])
    assert once < names(["a", "b"], ["2k", "1k"])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"varies": {}}, "a grid has no 'varies'"),
        ({"run": "serve"}, "run is 'serve'"),
        ({"speed": 1}, "speed is 1"),
        ({"run": "trace", "speed": True}, "a trace has no speed"),
        ({"vary": []}, "vary does not hold names and values"),
        ({"vary": {"seq_len": ["1k"]}, "run": "train"}, "did you mean seq-len?"),
        ({"vary": {"seq-len": ["1k"]}}, "vary.seq-len: willfit has no option 'seq-len'"),
        ({"vary": {"json": [True]}}, "no option 'json' that a grid can set"),
        ({"vary": {"users": [1]}, "fixed": {"users": 2}}, "fixed.users sets --users, which the grid sets already"),
        ({"run": "train", "vary": {"attn": ["sdpa"], "attention": ["eager"]}}, "which the grid sets already"),
        ({"vary": {"users": []}}, "vary.users has no values"),
        ({"vary": {"users": 3}}, "vary.users is 3, expected a list"),
        ({"vary": {"users": [1, 1]}}, "vary.users has 1 twice"),
        ({"vary": {"users": [1, "two"]}}, "vary.users[1] is 'two', expected a whole number"),
        ({"vary": {"users": [1, 2.5]}}, "vary.users[1] is 2.5, expected a whole number"),
        ({"vary": {"users": [1, 0]}}, "vary.users[1] is 0: --users is 0, expected 1"),
        ({"vary": {"users": [[1]]}}, "vary.users[0] is [1], expected one value"),
        ({"vary": {"users": {"from": 1, "to": 8}}}, "vary.users needs by"),
        ({"vary": {"users": {"from": 1, "to": 8, "by": 0}}}, "vary.users needs by"),
        ({"vary": {"users": {"from": 9, "to": 8, "by": 1}}}, "vary.users goes from 9 to 8"),
        ({"vary": {"users": {"from": 1, "to": 8, "step": 1}}}, "vary.users has no 'step'"),
        ({"vary": {"users": {"from": 1, "to": 10**7, "by": 1}}}, "more than 100,000 values"),
        ({"vary": {"format": {"from": 1, "to": 8, "by": 1}}}, "--format takes no whole numbers"),
        ({"vary": {"format": ["fp8", "fp7"]}}, "vary.format[1] is 'fp7': unknown format"),
        ({"vary": {"format": [False]}}, "vary.format[0] is a truth value to YAML"),
        ({"vary": {"context": ["4k", "lots"]}}, "vary.context[1]: "),
        ({"vary": {"engine": ["vllm", "vlm"]}}, "vary.engine[1] is 'vlm': unknown engine"),
        ({"fixed": {"offline": "yes"}}, "fixed.offline is 'yes', but --offline takes no value"),
        ({"fixed": {"engine": "vlm"}}, "no point of the grid can be asked: unknown engine"),
        ({"run": "train", "vary": {"targets": ["q_proj"]}}, "--targets belongs to adapters"),
        ({"run": "train", "vary": {"zero": [3, 4]}}, "vary.zero[1] is '4'"),
        ({"fixed": {"gpu": "rtx9999"}}, "fixed.gpu: unknown device"),
        ({"fixed": {"gpu": None}}, "the grid names no devices"),
        ({"fixed": {"gpu": "cpu"}}, "put host-ram under fixed"),
        ({"vary": {"gpu": ["rtx4090", "rtx9999"]}}, "vary.gpu[1]: unknown device"),
        ({"vary": {"gpu": {"devices": ["rtx9999"]}}}, "vary.gpu.devices[0]: unknown device"),
        ({"vary": {"gpu": {"devices": "voodoo"}}}, "no device is called anything like 'voodoo'"),
        ({"vary": {"gpu": {"devices": "all", "counts": [0]}}}, "vary.gpu.counts is [0]"),
        ({"vary": {"gpu": {"counts": [1]}}}, "vary.gpu needs devices"),
        ({"vary": {"model": "all"}}, "vary.model is 'all'"),
        ({"vary": {"model": {"catalogue": "zzz*"}}}, "no bundled model is like 'zzz*'"),
        ({"fixed": {"model": None}}, "the grid names no model"),
        ({"skip": {"users": 1}}, "skip is no list"),
        ({"skip": [{"users": 1}]}, "skip[0]: the grid has no 'users'"),
        ({"vary": {"users": [1, 2]}, "skip": [{"users": 3}]}, "skip[0].users is 3, which no point"),
        ({"vary": {"users": [1, 2]}, "skip": [{"users": "> many"}]}, "skip[0].users is 'many'"),
        ({"vary": {"format": ["fp8"]}, "skip": [{"format": "> fp4"}]}, "it holds no numbers"),
        ({"skip": [{"device": "rtx9999"}]}, "skip[0].device: unknown device"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(written, said):
    fixed = {name: value for name, value in POINT.items() if name not in written.get("vary", {})}
    if not isinstance(written.get("vary", {}), dict):
        fixed = POINT
    with pytest.raises(BadInput) as raised:
        grid_of({**written, "fixed": {**fixed, **written.get("fixed", {})}})
    assert said in str(raised.value)


def test_a_value_that_needs_another_one_is_no_mistake():
    vary = {"method": ["full", "lora"], "targets": [None, "q_proj"]}
    assert len(points({"run": "train", "fixed": POINT, "vary": vary})) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vary: [", "is not YAML"),
        ("- 1", "does not hold names and values"),
        ("vary:\n  users: [1]\n  users: [2]\n", "has 'users' twice in one place"),
        ("", "the grid names no model"),
    ],
)
def test_a_file_that_is_no_grid_is_named(tmp_path, text, said):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_grid(path)
    with pytest.raises(BadInput, match="there is no such file"):
        read_grid(tmp_path / "none.yaml")


def test_the_grid_that_tests_share_is_what_it_says(tmp_path):
    chunks = chunks_of(read_grid(grids.written(tmp_path, grids.MANY_CHUNKS)))
    models = {chunk.options["model"] for chunk in chunks}
    assert len(chunks) == len(models) >= 12
    assert {chunk.size for chunk in chunks} == {grids.EACH}
