"""Columns say what estimates say, to the byte."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from willfit.asking import find_subject
from willfit.checkpoints.catalogue import catalogue_ids
from willfit.engines.base import Machine, Subject
from willfit.engines.vllm import estimate
from willfit.engines.vllm.budgets import budget
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.kinds import kind_of
from willfit.engines.vllm.settings import Settings
from willfit.engines.vllm.startup import profiled
from willfit.errors import BadInput
from willfit.estimate import VERDICTS
from willfit.hardware.table import all_devices
from willfit.planning.search.columns import judged
from willfit.quantities import ceil_div

POINTS = 10_000
FORMATS = (None, "fp8", "awq", "nvfp4", "gptq", "nf4", "w8a8")
DEVICES = [device for device in all_devices() if device.usable_bytes and device.vendor in ("NVIDIA", "AMD")]


@cache
def subject(model: str, format_name: str | None) -> Subject | None:
    try:
        return find_subject(model, format_name, offline=True)[0]
    except BadInput:
        return None


def points(seed: int):
    """Random questions: model, format, device, settings, users."""
    draw = random.Random(seed)
    models = draw.sample(catalogue_ids(), 150)
    while True:
        stored = subject(draw.choice(models), draw.choice(FORMATS))
        if stored is None:
            continue
        asked = Settings(
            tensor_parallel=draw.choice((1, 1, 2, 4, 8)),
            pipeline_parallel=draw.choice((1, 1, 1, 2)),
            data_parallel=draw.choice((1, 1, 1, 2)),
            max_model_len=draw.choice((512, 4096, 16_384, 100_000)),
            kv_cache_dtype=draw.choice(("auto", "auto", "fp8")),
            gpu_memory_utilization=draw.choice((None, 0.5, 0.95)),
            enforce_eager=draw.choice((False, True)),
        )
        yield stored, draw.choice(DEVICES), asked, draw.choice((1, 3, 64))


def test_columns_equal_estimates_on_random_points():
    asked = [point for point, _ in zip(points(7), range(POINTS), strict=False)]
    budgets = [
        budget(stored, kind_of(device), settled(stored, settings)) for stored, device, settings, _ in asked
    ]
    usable = np.array([device.usable_bytes for _, device, _, _ in asked])
    sequences = np.array([ceil_div(users, settings.data_parallel) for _, _, settings, users in asked])
    found = judged(budgets, np.arange(POINTS), usable, sequences)
    seen = set()
    for row, (stored, device, settings, users) in enumerate(asked):
        ranks = settings.replica_ranks * settings.local_replicas
        answer = estimate(stored, Machine((device,) * ranks), settings, users)
        place = answer.devices[0]
        said = stored.model, stored.recipe.name, device.name, settings, users
        assert VERDICTS[found.verdict[row]] == answer.verdict, said
        assert (found.peak[row], found.low[row], found.high[row]) == (
            place.peak_bytes,
            *place.interval_bytes,
        ), said
        if answer.demands:
            pool = answer.demands[0]
            figures = pool.pool_bytes, pool.pool_low_bytes, pool.pool_high_bytes
            assert (found.pool[row], found.pool_low[row], found.pool_high[row]) == figures, said
            assert found.needed[row] == pool.needed_bytes, said
        seen.add((answer.verdict, bool(answer.demands), bool(answer.refusal)))
    assert {verdict for verdict, _, _ in seen} == {"fits", "tight", "does_not_fit"}


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_a_kind_is_all_that_a_profile_looks_at(device):
    for model in ("Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-20b", "google/gemma-3-27b-it"):
        for ranks in (1, 8):
            settings = settled(
                subject(model, None), Settings(tensor_parallel=ranks, max_model_len=4096, version="0.33.0")
            )
            for version in ("0.33.0", "0.11.0", "0.8.5"):
                one = replace(settings, version=version)
                assert profiled(subject(model, None), kind_of(device), one) == profiled(
                    subject(model, None), device, one
                )
