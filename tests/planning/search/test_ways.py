"""What columns say of ways is what the engine's own estimate says of each."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest

from willfit.asking import find_subject
from willfit.engines.base import Question
from willfit.engines.vllm import NAME as VLLM
from willfit.hardware.table import find_device
from willfit.planning.search.judging import judge
from willfit.planning.search.layouts import Layout
from willfit.planning.search.searching import spread
from willfit.planning.search.settling import settled
from willfit.planning.search.speeds import speeds_of

DEVICES = [
    find_device(name)
    for name in ("t4", "rtx4090", "l40s", "a100-40g", "a100-80g", "h100", "h200", "b200", "mi300x", "gb10")
]
MODELS = {
    "Qwen/Qwen3-8B": (None, "fp8", "awq"),
    "Qwen/Qwen3-30B-A3B": (None, "fp8"),
    "deepseek-ai/DeepSeek-V2-Lite": (None,),
    "google/gemma-3-27b-it": (None, "awq"),
    "openai/gpt-oss-20b": (None,),
}


@pytest.mark.parametrize("model", MODELS)
def test_ways_are_what_the_engine_says_of_each(model):
    subjects = [find_subject(model, name, offline=True)[0] for name in MODELS[model]]
    question = Question(8192, 24)
    ways = judge(subjects, VLLM, DEVICES, question, partial(spread, most=16), ("auto", "fp8"))
    speeds = speeds_of(ways, np.arange(len(ways)), 8192, 24)
    draw = random.Random(model)
    timed = 0
    for row in draw.sample(range(len(ways)), 120):
        way = ways.way(row)
        one = settled(way, question)
        said = way.device.name, way.layout, way.subject.recipe.name, way.kv_dtype
        place = one.estimate.devices[0]
        assert way.verdict == one.estimate.verdict, said
        if way.peak_bytes == int(way.subject.weight_bytes) // way.layout.server_devices:
            assert place.peak_bytes >= way.peak_bytes, said  # weights alone are too much: no more was asked
            continue
        assert way.peak_bytes == place.peak_bytes, said
        if one.estimate.demands:
            demand = one.estimate.demands[0]
            assert way.spare_bytes == min(
                place.usable_bytes - place.peak_bytes, demand.pool_bytes - demand.needed_bytes
            ), said
        if way.verdict != "fits" or one.speed is None:
            continue
        servers = way.layout.replicas
        figures = one.speed.figures
        assert speeds.per_user[row] == pytest.approx(figures["tokens_per_s_per_user"].value), said
        assert speeds.first_token_s[row] == pytest.approx(figures["first_token_s"].value), said
        if 24 % (servers * way.layout.data) == 0:
            assert speeds.total[row] == pytest.approx(servers * figures["tokens_per_s"].value), said
        timed += 1
    assert timed > 20


def test_as_many_users_as_there_is_room_for_fit_and_one_more_does_not():
    subject = find_subject("Qwen/Qwen3-8B", None, offline=True)[0]
    one = find_device("rtx4090")
    for context in (1024, 8192, 32_768):
        ways = judge([subject], VLLM, [one], Question(context), lambda *_: [(Layout(), (1,))])
        room = int(ways.room[0])
        for users, fits in ((room, True), (room + 1, False)):
            demand = settled(ways.way(0), Question(context, users)).estimate.demands[0]
            assert (demand.needed_bytes <= demand.pool_bytes) is fits or room == 256
