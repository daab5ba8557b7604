"""Predictions for cases of LMDeploy: the blocks that it logs at start-up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from willfit.engines.lmdeploy import Settings
from willfit.engines.lmdeploy.sizing import size_up
from willfit.quantities import GIB, MIB
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import DEGREES, known_only, machine_of, settings_from, whole
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Prediction

_POOL = ("num_gpu_blocks", "kv_cache_tokens", "kv_cache_gib")


def predict(case: Case) -> dict[str, Any]:
    """`[BlockManager] block_size`, `max_block_count`; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    subject = subject_of(case)
    settings = Settings(**settings_from(case, {field.name for field in fields(Settings)}, DEGREES))
    sizing = size_up(subject, machine_of(case), settings)
    block = sizing.blocks
    counts = [max(0, size) // block.bytes for size in (sizing.pool_bytes, *sizing.pool_interval)]
    found = {
        "kv_block_mib": whole(block.bytes / MIB),
        "num_gpu_blocks": Prediction(*(float(count) for count in counts)),
        "kv_cache_tokens": Prediction(*(float(count * block.length) for count in counts)),
        "kv_cache_gib": Prediction(*(count * block.bytes / GIB for count in counts)),
    }
    return known_only(case, "cache_max_entry_count", found, _POOL)
