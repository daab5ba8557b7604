"""DeepSpeed's own classes read the files that are written, and mean by them what was asked.

Needs DeepSpeed (0.19.8 was tried; `DS_BUILD_OPS=0 pip install deepspeed` beside torch for the processor).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from willfit.launch.writing.sharing import deepspeed_json
from willfit.training.settings import LayoutSettings, OffloadSettings, PrecisionSettings, TrainingSettings

config = pytest.importorskip("deepspeed.runtime.config", reason="DeepSpeed is not installed here")

RANKS = 4


@pytest.fixture(autouse=True)
def ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed asks the process group how many ranks there are."""
    monkeypatch.setattr(config.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(config.dist, "get_world_size", lambda: RANKS)


def read(settings: TrainingSettings) -> Any:
    return config.DeepSpeedConfig(json.loads(deepspeed_json(settings, RANKS)))


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("offload", [OffloadSettings(), OffloadSettings(True, True, True, pinned=True)])
def test_deepspeed_reads_it(stage: int, offload: OffloadSettings) -> None:
    settings = TrainingSettings(
        micro_batch=2,
        gradient_accumulation=4,
        layout=LayoutSettings(data=f"zero{stage}", reduce_bucket=10**7, overlap=False),
        offload=offload if stage == 3 else replace(offload, params=False),
    )
    found = read(settings)
    assert found.train_batch_size == 2 * 4 * RANKS
    assert found.train_micro_batch_size_per_gpu == 2
    assert found.gradient_accumulation_steps == 4
    zero = found.zero_config
    assert zero.stage == stage
    assert zero.reduce_bucket_size == 10**7
    assert zero.overlap_comm is False
    assert (zero.offload_optimizer is not None) == offload.optimizer
    assert (zero.offload_param is not None) == (offload.params and stage == 3)
    if offload.optimizer:
        assert str(zero.offload_optimizer.device).endswith("cpu")
        assert zero.offload_optimizer.pin_memory is True


def test_dtypes() -> None:
    half = TrainingSettings(layout=LayoutSettings(data="zero2"))
    assert read(half).bfloat16_config.enabled is True
    fp16 = replace(half, precision=PrecisionSettings(recipe="deepspeed-fp16"))
    assert read(fp16).bfloat16_config.enabled is False
    assert read(fp16).float16_config.enabled is True
