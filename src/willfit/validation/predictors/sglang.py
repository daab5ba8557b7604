"""Predictions for cases of SGLang: what it logs at start-up."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from willfit.engines.base import Machine
from willfit.engines.sglang import Settings
from willfit.engines.sglang.sizing import Sizing, model_dtype, size_up
from willfit.engines.sglang.weights import rope_bytes, stage_bytes
from willfit.estimate import Term
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Prediction

#: The newest release at a date, where a source does not state its version.
_RELEASES = (
    ("2023-12", "0.4.1"), ("2025-03", "0.4.4"), ("2025-05-24", "0.4.6"), ("2025-06-24", "0.4.8"),
    ("2025-07-31", "0.4.10"), ("2025-09-11", "0.5.2"), ("2025-10-06", "0.5.3"), ("2025-12-11", "0.5.6"),
    ("2026-01-01", "0.5.7"), ("2026-02-23", "0.5.9"), ("2026-04-05", "0.5.10"), ("2026-05-16", "0.5.12"),
    ("2026-07-10", "0.5.15"), ("2026-08-21", "0.5.18"), ("2026-10-01", "0.5.21"), ("2026-10-30", "0.5.23"),
)  # fmt: skip

#: Keys of a case's settings that SGLang calls otherwise.
_NAMES = {
    "tensor_parallel": "tp_size",
    "pipeline_parallel": "pp_size",
    "data_parallel": "dp_size",
    "max_model_len": "context_length",
}

_SETTINGS = frozenset(field.name for field in fields(Settings)) - {"version"}


def predict(case: Case) -> dict[str, Any]:
    """What SGLang logs at start-up; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or the format of its weights.
    """
    settings = settings_of(case)
    sizing = sizing_of(case, settings)
    weights = sizing.loaded[0]
    # The log shows the first stage's, the pools follow the fullest.
    less = max(stage_bytes(subject_of(case), settings, sizing.dtype)) - first_stage_bytes(case, tables=False)
    found: dict[str, Any] = {
        "weights_gib": Prediction(
            *((size - less) / GIB for size in (weights.bytes, weights.low_bytes, weights.high_bytes))
        )
    }
    found |= _per_token(case, sizing)
    if not sizing.free_bytes or "mem_fraction_static" in case.unknown_settings:
        return found
    pools = [sizing.pools]
    pools += [sizing.pools_at(size, settings) for size in sizing.available_interval]
    keys, window_keys = sizing.cells.keys
    full, window = sizing.cells.full, sizing.cells.window
    one_line = keys and not window
    after = sizing.free_bytes - sum(term.bytes for term in sizing.loaded) + less
    taken = sum(term.bytes for term in sizing.after if term.name in ("request_table", "draft_kv_cache"))
    found |= {
        "avail_after_weights_gib": Prediction(
            after / GIB,
            (after + weights.bytes - weights.high_bytes) / GIB,
            (after + weights.bytes - weights.low_bytes) / GIB,
        ),
        "kv_cache_tokens": Prediction(*(float(pool.tokens) for pool in pools)),
        "kv_cache_gib": Prediction(*(pool.cache_bytes / GIB for pool in pools)),
        "max_running_requests_effective": Prediction(*(float(pool.requests) for pool in pools)),
        "avail_after_pool_gib": _exactly(
            (after - sizing.pools.cache_bytes - sizing.pools.state_bytes - taken) / GIB
        ),
    }
    if one_line:
        found["kv_k_gib"] = Prediction(*(pool.tokens * keys / GIB for pool in pools))
        found["kv_v_gib"] = Prediction(*(pool.tokens * (full - keys) / GIB for pool in pools))
    if window:
        found["swa_kv_cache_tokens"] = Prediction(*(float(pool.window_tokens) for pool in pools))
        found["swa_kv_k_gib"] = Prediction(*(pool.window_tokens * window_keys / GIB for pool in pools))
        found["swa_kv_v_gib"] = Prediction(
            *(pool.window_tokens * (window - window_keys) / GIB for pool in pools)
        )
    graphs = next((term for term in sizing.after if term.name == "cuda_graphs"), None)
    if graphs is not None:
        found["cuda_graph_gib"] = _in_gib(graphs)
    return found


def _per_token(case: Case, sizing: Sizing) -> dict[str, Any]:
    """Bytes of a token in the pools that were logged, which no unknown of the card or the fraction touches."""
    found: dict[str, Any] = {}
    for kind, cell, tokens in (
        ("", sizing.cells.full, "kv_cache_tokens"),
        ("swa_", sizing.cells.window, "swa_kv_cache_tokens"),
    ):
        logged = sum(case.measured.get(f"{kind}kv_{part}_gib", 0.0) for part in "kv")
        count = case.measured.get(tokens)
        if cell and count and logged:
            # Each half is printed with two digits after the point.
            slack = 0.01 / logged
            guess = Prediction(cell, cell * (1 - slack), cell * (1 + slack))
            found[f"{kind}kv_bytes_per_token"] = logged * GIB / count, guess
    return found


def sizing_of(case: Case, settings: Settings) -> Sizing:
    """SGLang's start-up for a case."""
    return size_up(subject_of(case), machine_of(case, settings), settings, free_before(case))


def first_stage_bytes(case: Case, tables: bool = True) -> int:
    """Bytes of tensors, and of rotary tables, on a rank of the first pipeline stage."""
    settings, subject = settings_of(case), subject_of(case)
    dtype = model_dtype(subject, settings, machine_of(case, settings).devices[0])
    beside = rope_bytes(subject.architecture) if tables else 0
    return stage_bytes(subject, settings, dtype)[0] + beside


def settings_of(case: Case) -> Settings:
    """The case's settings under SGLang's names."""
    given = {_NAMES.get(key, key): value for key, value in case.settings.items() if value is not None}
    given = {key: value for key, value in given.items() if key in _SETTINGS}
    speculative = case.settings.get("speculative") or {}
    if speculative:
        method = str(speculative.get("method", "")).upper()
        given["speculative_algorithm"] = method
        given["speculative_num_draft_tokens"] = int(speculative.get("num_tokens") or 0)
        given["mtp"] = method in ("MTP", "NEXTN")
    if case.settings.get("enable_dp_attention"):
        given["attn_dp_size"] = given.pop("dp_size", 1)
    if case.settings.get("expert_parallel"):
        given["ep_size"] = given.get("tp_size", 1)
    return Settings(version=_version(case), **given)


def machine_of(case: Case, settings: Settings) -> Machine:
    """The case's devices; where the card is not named, one of its class."""
    gpu, size = case.fields.get("gpu"), case.fields.get("gpu_class_gb")
    device = find_device(gpu) if isinstance(gpu, str) else Device("unknown")
    if not gpu and size:
        device = replace(device, reported_bytes=int(size * GIB))
    return Machine((device,) * max(settings.ranks, int(case.fields.get("n_gpus") or 1)))


def free_before(case: Case) -> int | None:
    """What was free before the weights were loaded, as logged: what else ran on the card is no setting."""
    free = case.measured.get("avail_before_weights_gib")
    if free is None:
        weights, after = case.measured.get("weights_gib"), case.measured.get("avail_after_weights_gib")
        free = weights + after if weights is not None and after is not None else None
    if free is None:
        return None if case.fields.get("gpu") else 0
    return int(free * GIB)


def _version(case: Case) -> str:
    version = case.fields.get("engine_version")
    if version and version[0].isdigit():
        return str(version)
    date = str(case.fields.get("date") or "2026-10-30")
    return next((release for since, release in reversed(_RELEASES) if date >= since), _RELEASES[0][1])


def _in_gib(term: Term) -> Prediction:
    return Prediction(term.bytes / GIB, term.low_bytes / GIB, term.high_bytes / GIB)


def _exactly(value: float) -> Prediction:
    return Prediction(value, value, value)
