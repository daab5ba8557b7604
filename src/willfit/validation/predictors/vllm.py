"""Predictions for cases of vLLM: start-up logs, and what its own planner computed without a GPU."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from willfit.architectures.drafts import as_draft
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_from_config
from willfit.engines.vllm import Settings
from willfit.engines.vllm.features.lora import lora_era
from willfit.engines.vllm.loading.buffers import buffer_bytes
from willfit.engines.vllm.options import Draft, Lora
from willfit.engines.vllm.profiling.graphs import graph_term
from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.estimate import Term, between, combined
from willfit.formats.recognise import NAMED
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Unpredictable, hull

#: The newest release at a date, where a source does not state its version.
_RELEASES = (
    ("2023-12", "0.2.4"), ("2024-04", "0.4.0"), ("2024-06", "0.5.0"), ("2024-09", "0.6.1"),
    ("2024-12", "0.6.4"), ("2025-02", "0.7.2"), ("2025-04", "0.8.5"), ("2025-06", "0.9.1"),
    ("2025-08", "0.10.0"), ("2025-10", "0.11.0"), ("2025-12", "0.13.0"), ("2026-02", "0.15.0"),
    ("2026-04", "0.19.0"), ("2026-06", "0.22.0"), ("2026-08", "0.25.0"), ("2026-10", "0.31.0"),
)  # fmt: skip

#: Where a source states neither version nor date: the version that about half of the other cases of that engine are
#: older than, and one of each era that has rules of its own.
_MIDDLE = {"v0": "0.6.4", "v1": "0.11.0"}
_ERAS_OF = {
    "v0": ("0.2.4", "0.6.4", "0.8.5"),
    "v1": ("0.8.5", "0.9.2", "0.10.2", "0.13.0", "0.16.0", "0.19.1", "0.20.2", "0.25.1", "0.33.0"),
}

#: How weights are stored, by the name that a repository gives it, where the catalogue's config does not say.
_FORMATS = {
    "awq-int4": "awq", "gptq-int4": "gptq-int4", "gptq-int8": "gptq-int8", "fp8": "fp8", "nvfp4": "nvfp4",
    "mxfp4": "mxfp4", "bnb-4bit": "nf4-double", "w8a8": "int8", "w4a16": "w4a16", "int4": "w4a16",
}  # fmt: skip

#: What vLLM makes of 16-bit weights while it loads them: NF4 with `compress_statistics`
#: (`model_loader/bitsandbytes_loader.py`).
_QUANTIZATIONS = {"bitsandbytes": "nf4-double", "fp8": "fp8"}

#: V0 captures no batch that is larger.
_V0_LARGEST_CAPTURE = 256

#: Ranks that adapters are commonly made with, 8 to 64, as shares of vLLM's default of 16.
_RANKS_TAKEN = (1 / 2, 4)

_SETTINGS = frozenset(field.name for field in fields(Settings))


def predict(case: Case) -> dict[str, Any]:
    """What vLLM logs at start-up; see `scoring.Predictor`.

    Where neither a version nor a date is stated, the intervals hold what all eras of that engine would log.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or the format of its weights.
    """
    settings = settings_of(case)
    found = _predict_for(case, settings)
    if states_version(case):
        return found
    for version in _ERAS_OF[settings.generation or "v1"]:
        other = _predict_for(case, replace(settings, version=version))
        found = {key: hull(one, other.get(key)) for key, one in found.items()}
    return found


def states_version(case: Case) -> bool:
    """Whether the source says, or its date tells, which version ran."""
    return bool(case.fields.get("engine_version") or case.fields.get("date"))


def _predict_for(case: Case, settings: Settings) -> dict[str, Any]:
    subject = subject_of(case)
    machine = machine_of(case, settings)
    sizing = size_up(subject, machine, settings)
    found = _sizes(case, subject, sizing, settings, machine.devices[0])
    known = machine.devices[0].usable_bytes is not None or settings.kv_cache_memory_bytes is not None
    if known and "gpu_memory_utilization" not in case.unknown_settings:
        found |= _pool(case, sizing)
    found |= _per_token(case, sizing)
    return found


def subject_of(case: Case) -> Subject:
    """The case's model with its weights as they were stored.

    Raises
    ------
    Unpredictable
        If no config of the architecture is known.
    """
    subject = subject_from_config(str(case.fields.get("model")), _config_of(case), format_of(case))
    return replace(subject, draft=_draft_of(case))


def _draft_of(case: Case) -> Subject | None:
    """The model that drafts, if the case names one that the catalogue knows."""
    speculative = case.settings.get("speculative") or {}
    entry = find(str(speculative.get("model") or ""))
    if entry is None:
        return None
    config = as_draft(Config(entry.config, entry.id), str(speculative.get("method", "")))
    return subject_from_config(entry.id, config)


def _config_of(case: Case) -> Config:
    given = case.fields.get("config")
    name = case.fields.get("catalogue")
    if given is None:
        # A quantized repository that the catalogue knows says itself how its weights are stored.
        entry = find(str(case.fields.get("model"))) or (find(name) if name else None)
        if entry is None:
            raise Unpredictable(f"{case.fields.get('model')}: no config of this architecture is known")
        given = {**entry.config, **(case.fields.get("model_overrides") or {})}
    return Config(given, str(name or case.fields.get("model")))


def format_of(case: Case) -> str | None:
    """How weights are stored by the repository's name, or what the engine was asked to make of them.

    None where the config says it, or nothing is quantized.

    Raises
    ------
    Unpredictable
        If no config of the architecture is known, or no format is called so.
    """
    config = _config_of(case)
    if any(key in config for key in ("quantization_config", "hf_quant_config")):
        return None
    stored, asked = case.fields.get("checkpoint_format"), str(case.settings.get("quantization") or "")
    if stored is None:
        return _QUANTIZATIONS.get(asked)
    stored = str(stored)
    if stored == "gguf" and asked.startswith("gguf "):
        return asked.lower().replace(" ", "-")
    if stored in ("awq-int4", "gptq-int4") and asked == "compressed-tensors":
        return "w4a16"
    if stored not in _FORMATS and stored not in NAMED:
        raise Unpredictable(f"the bytes of a {stored} checkpoint are not known")
    return _FORMATS.get(stored, stored)


def settings_of(case: Case) -> Settings:
    """The case's settings under vLLM's names."""
    given = {key: value for key, value in case.settings.items() if key in _SETTINGS and value is not None}
    if "disable_hybrid_kv_cache_manager" in case.settings:
        given["hybrid_cache_manager"] = not case.settings["disable_hybrid_kv_cache_manager"]
    if "estimate_cudagraphs" in case.settings:
        given["estimate_cudagraphs"] = bool(case.settings["estimate_cudagraphs"])
    speculative = case.settings.get("speculative") or {}
    if speculative:
        method = str(speculative.get("method", ""))
        given["speculative_tokens"] = int(speculative.get("num_tokens") or 1)
        given["mtp"] = "mtp" in method
        given["draft"] = Draft("mtp" if given["mtp"] else method, str(speculative.get("model") or ""))
    if (case.settings.get("enable_lora") or {}).get("enabled"):
        given["lora"] = Lora(
            max_loras=int(case.settings["enable_lora"].get("max_loras") or 1),
            max_lora_rank=int(case.settings["enable_lora"].get("max_lora_rank") or 16),
        )
    if case.settings.get("limit_mm_per_prompt") and not any(case.settings["limit_mm_per_prompt"].values()):
        given["language_model_only"] = True
    if case.fields.get("engine_generation") == "v0" and "max_num_seqs" not in given:
        # V0 captures graphs up to max_num_seqs, and no further than 256.
        captured = given.get("cudagraph_max_capture_size") or 0
        if 0 < captured < _V0_LARGEST_CAPTURE:
            given["max_num_seqs"] = captured
    if "Embedding" in str(case.fields.get("model")):
        given["runner"] = "pooling"  # vLLM knows embedding models by files that are not in a config
    return Settings(version=_version(case), generation=case.fields.get("engine_generation"), **given)


def machine_of(case: Case, settings: Settings) -> Machine:
    """The case's devices, with the visible total where it was logged."""
    gpu = case.fields.get("gpu")
    device = find_device(gpu) if isinstance(gpu, str) else Device("unknown")
    total = case.measured.get("gpu_total_gib")
    if total is not None:
        device = replace(device, usable_bytes=int(total * GIB))
    ranks = settings.tensor_parallel * settings.pipeline_parallel
    return Machine((device,) * max(ranks, int(case.fields.get("n_gpus") or 1)))


def _version(case: Case) -> str:
    version = case.fields.get("engine_version")
    if version and version[0].isdigit() and "." in version:
        return str(version)
    if not states_version(case):
        return _MIDDLE[case.fields.get("engine_generation") or "v1"]
    date = str(case.fields.get("date") or "2026-10")
    newest = _RELEASES[0][1]
    for since, release in _RELEASES:
        if date >= since:
            newest = release
    return newest


def _sizes(
    case: Case, subject: Subject, sizing: Sizing, settings: Settings, device: Device
) -> dict[str, Any]:
    """What does not depend on the card: weights, profile, graphs."""
    terms = {term.name: term for term in (*sizing.inside, *sizing.outside)}
    found: dict[str, Any] = {"weights_gib": _in_gib(_loaded(terms, sizing, settings))}
    buffers = buffer_bytes(subject, settings, sizing.dtype)
    if "params_bytes" in case.measured:
        stored = float(terms["weights"].bytes - buffers - sizing.after_loading_bytes)
        found["params_bytes"] = Prediction(stored, stored, stored)
        found["buffers_bytes"] = Prediction(buffers, buffers, buffers)
        logged = (terms["weights"].bytes - sizing.after_loading_bytes) / GIB
        found["weights_gib"] = Prediction(logged, logged, logged)
        found["block_size_resolved"] = _exactly(sizing.block_size)
    # Where the whole account is kept, the log's peak holds the estimate of the graphs as well.
    whole = sizing.resolved.era.whole_account
    estimate = [term for term in sizing.inside if term.name == "cuda_graphs" and whole]
    found["activation_peak_gib"] = _sum_in_gib([terms["activations"], *estimate])
    # Where the books have no reading from before the start, the driver's context shows as well.
    outside = (
        [terms["runtime"], terms["context"]] if sizing.resolved.era.context_inside else [terms["runtime"]]
    )
    found["non_torch_gib"] = _sum_in_gib(outside)
    for key, estimated in (("cuda_graph_gib", False), ("cuda_graph_estimated_gib", True)):
        graphs = graph_term(subject, sizing.resolved, settings, device, estimated)
        if graphs is not None:
            found[key] = _in_gib(graphs)
    return found


def _loaded(terms: dict[str, Term], sizing: Sizing, settings: Settings) -> Term:
    """What the log counts while the model is loaded: weights, and slots and drafts where these come with them."""
    parts = [terms["weights"]]
    if settings.lora is not None and lora_era(settings.version).in_loading:
        slots = terms["lora"]
        # Where a source does not state the rank it is vLLM's default, or what people take instead.
        stated = settings.lora.max_lora_rank != Lora().max_lora_rank
        least, most = (1, 1) if stated else _RANKS_TAKEN
        parts.append(between("lora", slots.bytes, int(slots.low_bytes * least), int(slots.high_bytes * most)))
    if sizing.resolved.era.generation == "v1":
        parts += [terms[name] for name in ("draft", "expert_exchange") if name in terms]
    return between("weights", *combined(parts))


def _pool(case: Case, sizing: Sizing) -> dict[str, Any]:
    plan = sizing.plan
    pool, (low, high) = sizing.pool_bytes, sizing.pool_interval
    found: dict[str, Any] = {}
    if "fits" in case.measured:
        demand = sizing.demand(1)
        found["fits"] = 0.0 if sizing.refusal else demand.probability if demand else 1.0
    if not plan.groups or case.measured.get("fits") is False:
        return found | _lengths(case, sizing)
    found["kv_cache_gib"] = Prediction(pool / GIB, low / GIB, high / GIB)
    blocks = [plan.blocks_in(size) for size in (pool, low, high)]
    found["num_gpu_blocks"] = Prediction(*map(float, blocks))
    found["kv_cache_tokens"] = Prediction(*(float(plan.reported_tokens(count)) for count in blocks))
    length = case.measured.get("max_concurrency_at_len")
    found["max_concurrency"] = Prediction(*(plan.concurrency(count, length) for count in blocks))
    return found


def _lengths(case: Case, sizing: Sizing) -> dict[str, Any]:
    plan = sizing.plan
    if not plan.groups:
        return {}
    length = sizing.resolved.max_model_len
    needed = plan.bytes_for(length) / GIB
    pools = (sizing.pool_bytes, *sizing.pool_interval)
    return {
        "kv_needed_for_max_len_gib": Prediction(needed, needed, needed),
        "estimated_max_model_len": Prediction(*(float(plan.longest(pool, length)) for pool in pools)),
    }


def _per_token(case: Case, sizing: Sizing) -> dict[str, Any]:
    """Tokens that this version would report for the pool that was logged, as bytes per token."""
    pool, tokens = case.measured.get("kv_cache_gib"), case.measured.get("kv_cache_tokens")
    if not pool or not tokens or not sizing.plan.groups:
        return {}
    size = pool * GIB
    reported = sizing.plan.reported_tokens(sizing.plan.blocks_in(int(size)))
    if not reported:
        return {}
    guess = size / reported
    # The pool is printed with two digits after the point.
    slack = 0.005 / pool
    return {
        "kv_bytes_per_token": (size / tokens, Prediction(guess, guess * (1 - slack), guess * (1 + slack)))
    }


def _sum_in_gib(terms: list[Term]) -> Prediction:
    return Prediction(*(size / GIB for size in combined(terms)))


def _in_gib(term: Term) -> Prediction:
    return Prediction(term.bytes / GIB, term.low_bytes / GIB, term.high_bytes / GIB)


def _exactly(value: float) -> Prediction:
    return Prediction(value, value, value)
