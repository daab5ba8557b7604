"""Predictions for cases of SGLang: what it logs at start-up."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from willfit.calibration import constant
from willfit.checkpoints.catalogue import find
from willfit.engines.base import Machine, Subject
from willfit.engines.sglang import Settings
from willfit.engines.sglang.loading import held_bytes
from willfit.engines.sglang.sizing import Sizing, beside_constant, size_up
from willfit.estimate import Term, between, combined
from willfit.hardware.device import Device
from willfit.hardware.table import all_devices, find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.vllm import subject_of as stored_as_stated
from willfit.validation.scoring import Prediction

#: The newest release at a date, where a source does not state its version.
_RELEASES = (
    ("2023-12", "0.4.1"), ("2025-03", "0.4.4"), ("2025-05-24", "0.4.6"), ("2025-06-24", "0.4.8"),
    ("2025-07-31", "0.4.10"), ("2025-09-11", "0.5.2"), ("2025-10-06", "0.5.3"), ("2025-12-11", "0.5.6"),
    ("2026-01-01", "0.5.7"), ("2026-01-29", "0.5.8"), ("2026-02-23", "0.5.9"), ("2026-04-05", "0.5.10"),
    ("2026-05-16", "0.5.12"), ("2026-07-10", "0.5.15"), ("2026-08-21", "0.5.18"), ("2026-10-01", "0.5.21"),
    ("2026-10-30", "0.5.23"),
)  # fmt: skip

#: Keys of a case's settings that SGLang calls otherwise.
_NAMES = {
    "tensor_parallel": "tp_size",
    "pipeline_parallel": "pp_size",
    "data_parallel": "dp_size",
    "max_model_len": "context_length",
    "expert_parallel_size": "ep_size",
    "mamba_ssm_cache_dtype": "mamba_ssm_dtype",
    "mamba_scheduler_strategy": "mamba_radix_cache_strategy",
}

#: The last digit of sizes in the log, in GiB.
_DIGIT = 0.01

#: Where configs say how weights are stored, and what they call a format there.
_QUANTIZED = ("quantization_config", "hf_quant_config")
_METHODS = {
    "awq-int4": ("awq",),
    "gptq-int4": ("gptq",),
    "int4": ("compressed-tensors",),
    "nvfp4": ("nvfp4", "fp4"),
}

#: Cards of the sizes that servers commonly have.
_COMMON = ("rtx4090", "a100-40g", "l40s", "h100", "h200", "b200", "b300")

_SETTINGS = frozenset(field.name for field in fields(Settings)) - {"version"}


def predict(case: Case) -> dict[str, Any]:
    """What SGLang logs at start-up; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or the format of its weights.
    """
    settings = settings_of(case)
    devices = devices_of(case, settings)
    sizings = [
        sizing_of(case, settings, device) for device in (devices[0], likely_of(case, devices), devices[-1])
    ]
    sizing = sizings[1]
    weights = sizing.loaded[0]
    # The log shows the first stage's, the pools follow the fullest.
    less = _fullest_beyond_first(case, settings, sizing)
    found: dict[str, Any] = {
        "weights_gib": _printed(
            *(size - less for size in (weights.bytes, weights.low_bytes, weights.high_bytes))
        )
    }
    if sizing.draft is not None:
        draft = sizing.draft
        found["draft_weights_gib"] = _printed(
            draft.loaded, *(draft.loaded * factor for factor in draft.sureness)
        )
    graphs = next((term for term in sizing.after if term.name == "cuda_graphs"), None)
    if graphs is not None:
        found["cuda_graph_gib"] = _in_gib(graphs)
    found |= _per_token(case, sizing)
    if "mem_fraction_static" in case.unknown_settings:
        return found
    found |= _left(sizing, less, settings, graphs)
    return found | _pools(sizings, settings)


def _left(sizing: Sizing, less: int, settings: Settings, graphs: Term | None) -> dict[str, Any]:
    """What is free after each step."""
    weights, free = sizing.loaded[0], sizing.free_bytes
    wide = sizing.free_interval
    after = free - weights.bytes + less
    first = between("free", after, after - (free - wide[0]), after + (wide[1] - free))
    loss = Term("weights", 0, weights.bytes - weights.high_bytes, weights.bytes - weights.low_bytes)
    beside = next(term for term in sizing.after if term.name == "runtime")
    spread = constant(beside_constant(sizing.unified_memory))
    pools, drafts = sizing.pools, sum(term.bytes for term in sizing.loaded[1:])
    table = sum(term.bytes for term in sizing.after if term.name == "request_table")
    own = pools.tokens + pools.page
    taken = own * sizing.own_cells.full + (pools.window_tokens + pools.page) * sizing.own_cells.window
    end = after - drafts - taken - pools.state_bytes - table - int(spread.value)
    capped = settings.max_total_tokens is not None
    missed = constant("sglang.pool_ratio")
    kept = 1 - sizing.resolved.mem_fraction_static
    lower, upper = (end + int(kept * (bound - free)) for bound in wide)
    rest = [
        between("free", end, lower, upper),
        between("beside", 0, int(spread.value - spread.high), int(spread.value - spread.low)),
        between("missed", 0, int(free * (1 - missed.high)), int(free * (1 - missed.low))),
    ]
    found = {
        "avail_after_weights_gib": _of(first, loss),
        "avail_after_pool_gib": _of(*rest, *([loss] if capped else ())),
        "rest_memory_gib": _printed(sizing.available, *sizing.available_interval),
        "min_viable_mem_fraction_static": Prediction(
            *(
                sum(getattr(term, side) for term in sizing.loaded) / max(1, free)
                for side in ("bytes", "low_bytes", "high_bytes")
            )
        ),
    }
    if graphs is not None:
        kernels = beside.bytes - int(spread.value)
        found["avail_after_graph_gib"] = _of(
            *rest,
            Term(
                "graphs", -graphs.bytes - kernels, -graphs.high_bytes - kernels, -graphs.low_bytes - kernels
            ),
        )
    return found


def _pools(sizings: list[Sizing], settings: Settings) -> dict[str, Any]:
    """The pools, between those of the smallest and of the largest card that the source leaves open."""
    sizing = sizings[1]
    pools = [sizing.pools]
    pools += [
        sizing.pools_at(one.available_interval[end], settings)
        for one, end in ((sizings[0], 0), (sizings[-1], 1))
    ]
    cells, page = sizing.own_cells, sizing.pools.page
    keys, window_keys = cells.keys
    found: dict[str, Any] = {
        "kv_cache_tokens": Prediction(*(float(pool.tokens) for pool in pools)),
        "kv_cache_gib": _printed(*(replace(pool, cells=cells).cache_bytes for pool in pools)),
        "max_running_requests_effective": Prediction(*(float(pool.requests) for pool in pools)),
    }
    sized = [("kv_k_gib", keys, "tokens"), ("kv_v_gib", cells.full - keys, "tokens")]
    if cells.window:
        found["swa_kv_cache_tokens"] = Prediction(*(float(pool.window_tokens) for pool in pools))
        sized.append(("swa_kv_k_gib", window_keys, "window_tokens"))
        sized.append(("swa_kv_v_gib", cells.window - window_keys, "window_tokens"))
    if sizing.draft is not None and cells.full_layers:
        layers = sizing.draft.layers
        sized.append(("draft_kv_k_gib", keys * layers // cells.full_layers, "tokens"))
        sized.append(("draft_kv_v_gib", (cells.full - keys) * layers // cells.full_layers, "tokens"))
    for key, each, which in sized:
        if each:
            found[key] = _printed(*((getattr(pool, which) + page) * each for pool in pools))
    return found


def _per_token(case: Case, sizing: Sizing) -> dict[str, Any]:
    """Bytes of a token in the pools that were logged, which no unknown of the card or the fraction touches."""
    found: dict[str, Any] = {}
    for kind, cell, tokens in (
        ("", sizing.own_cells.full, "kv_cache_tokens"),
        ("swa_", sizing.own_cells.window, "swa_kv_cache_tokens"),
    ):
        logged = sum(case.measured.get(f"{kind}kv_{part}_gib", 0.0) for part in "kv")
        count = case.measured.get(tokens)
        if cell and count and logged:
            # Each half is printed with two digits after the point.
            slack = 0.01 / logged
            guess = Prediction(cell, cell * (1 - slack), cell * (1 + slack))
            found[f"{kind}kv_bytes_per_token"] = logged * GIB / count, guess
    return found


def sizing_of(case: Case, settings: Settings, device: Device | None = None) -> Sizing:
    """SGLang's start-up for a case, on a device that it leaves open or on its own."""
    machine = _machine(case, settings, device or likely_of(case, devices_of(case, settings)))
    return size_up(subject_of(case), machine, settings, free_before(case))


def _fullest_beyond_first(case: Case, settings: Settings, sizing: Sizing) -> int:
    if settings.pp_size == 1:
        return 0
    subject, era = subject_of(case), sizing.resolved.era
    fullest = held_bytes(subject, settings, sizing.dtype, era)[1]
    return fullest - held_bytes(subject, settings, sizing.dtype, era, stage=0)[1]


def subject_of(case: Case) -> Subject:
    """The case's model as it was stored: what the case says counts more than what the catalogue's config says.

    A model that NVIDIA quantized as well is taken to be stored as NVIDIA's is; where inputs are no multiples of
    AWQ's usual group, the largest smaller group is taken that fits.
    """
    entry = find(str(case.fields.get("catalogue") or ""))
    if not is_requantized(case) or entry is None or case.fields.get("config") is not None:
        return stored_as_stated(case)
    config = {**entry.config, **(case.fields.get("model_overrides") or {})}
    for key in _QUANTIZED:
        config.pop(key, None)
    stored = case.fields["checkpoint_format"]
    if stored == "nvfp4":
        alike = find(f"nvidia/{str(case.fields['catalogue']).split('/')[-1]}-NVFP4")
        config |= {key: alike.config[key] for key in _QUANTIZED if key in alike.config} if alike else {}
    subject = stored_as_stated(_with_config(case, config))
    if stored == "awq-int4":
        inputs = [
            tensor.shape[-1]
            for layer, _ in subject.architecture.blocks
            for tensor in layer.tensors
            if tensor.kind == "linear" and tensor.part in ("attention", "mlp", "experts")
        ]
        group = next((size for size in (128, 64, 32) if not any(width % size for width in inputs)), 128)
        if group < 128:
            config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": group}
            return stored_as_stated(_with_config(case, config))
    return subject


def _with_config(case: Case, config: dict[str, Any]) -> Case:
    return Case(case.id, {**case.fields, "config": config})


def is_requantized(case: Case) -> bool:
    """Whether someone else than the catalogue's model's makers quantized it: which tensors is not known."""
    stored = str(case.fields.get("checkpoint_format") or "")
    entry = find(str(case.fields.get("catalogue") or ""))
    if not stored or entry is None or case.fields.get("model") == case.fields.get("catalogue"):
        return False
    given = (case.fields.get("model_overrides") or {}).get("quantization_config")
    quantized = given or next((entry.config[key] for key in _QUANTIZED if entry.config.get(key)), None)
    if not quantized:
        return True
    method = json.dumps(quantized).lower()
    return not any(name in method for name in _METHODS.get(stored, (stored,)))


def settings_of(case: Case) -> Settings:
    """The case's settings under SGLang's names."""
    given = {_NAMES.get(key, key): value for key, value in case.settings.items() if value is not None}
    given = {key: value for key, value in given.items() if key in _SETTINGS}
    speculative = case.settings.get("speculative") or {}
    if speculative:
        method = str(speculative.get("method", "")).upper()
        given["speculative_algorithm"] = method
        given["speculative_num_draft_tokens"] = int(speculative.get("num_tokens") or 0)
        given["speculative_draft_model_path"] = speculative.get("model")
        given["mtp"] = method in ("MTP", "NEXTN") or (method == "EAGLE" and not speculative.get("model"))
    if case.settings.get("enable_dp_attention"):
        given["attn_dp_size"] = given.pop("dp_size", 1)
    if case.settings.get("expert_parallel"):
        given["ep_size"] = int(case.settings.get("expert_parallel_size") or given.get("tp_size", 1))
    given["disable_prefill_cuda_graph"] = bool(
        case.settings.get("disable_piecewise_cuda_graph") or given.get("disable_prefill_cuda_graph")
    )
    return Settings(version=_version(case), **given)


def devices_of(case: Case, settings: Settings) -> tuple[Device, ...]:
    """The case's card; where it is not named, those that it may be, from the smallest to the largest.

    Of a card's class all cards of that size are possible. If nothing is said of it, it is taken to be the smallest
    common size that the weights leave room on, or the next.
    """
    gpu, size = case.fields.get("gpu"), case.fields.get("gpu_class_gb")
    if isinstance(gpu, str):
        return (find_device(gpu),)
    cards = sorted(
        (
            card
            for card in all_devices()
            if card.vendor == "NVIDIA" and card.usable_bytes and not card.unified_memory
        ),
        key=lambda card: card.usable_bytes or 0,
    )
    if size:
        alike = tuple(card for card in cards if card.marketing_bytes == int(size * GIB))
        return alike or (Device("unknown", reported_bytes=int(size * GIB), usable_bytes=int(size * GIB)),)
    if free_before(case) is not None:
        return (Device("unknown"),)
    common = [find_device(name) for name in _COMMON]
    for index, card in enumerate(common):
        machine = _machine(case, settings, card)
        if size_up(subject_of(case), machine, settings).pools.tokens:
            return tuple(common[index : index + 2])
    return (common[-1],)


def machine_of(case: Case, settings: Settings) -> Machine:
    """The case's devices; where the card is not named, one of its class."""
    return _machine(case, settings, likely_of(case, devices_of(case, settings)))


def likely_of(case: Case, devices: tuple[Device, ...]) -> Device:
    """The device that stands for those that a case leaves open."""
    return devices[len(devices) // 2 if case.fields.get("gpu_class_gb") else 0]


def _machine(case: Case, settings: Settings, device: Device) -> Machine:
    return Machine((device,) * max(settings.ranks, int(case.fields.get("n_gpus") or 1)))


def free_before(case: Case) -> int | None:
    """What was free before the weights were loaded, as logged: what else ran on the card is no setting.

    A log that starts with the end of loading has it as what was taken and what was left together.
    """
    free = case.measured.get("avail_before_weights_gib")
    if free is None:
        weights, after = case.measured.get("weights_gib"), case.measured.get("avail_after_weights_gib")
        free = weights + after if weights is not None and after is not None else None
    return None if free is None else int(free * GIB)


def _version(case: Case) -> str:
    version = case.fields.get("engine_version")
    if version and version[0].isdigit():
        return str(version)
    date = str(case.fields.get("date") or "2026-10-30")
    return next((release for since, release in reversed(_RELEASES) if date >= since), _RELEASES[0][1])


def _in_gib(term: Term) -> Prediction:
    return _printed(term.bytes, term.low_bytes, term.high_bytes)


def _of(*terms: Term) -> Prediction:
    return _printed(*combined(terms))


def _printed(size: float, low: float, high: float) -> Prediction:
    """Bytes as the log has them: GiB with two digits after the point."""
    return Prediction(size / GIB, low / GIB - _DIGIT / 2, high / GIB + _DIGIT / 2)
