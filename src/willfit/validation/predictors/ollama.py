"""Predictions for Ollama's logs: what it estimates, and what its runners allocate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.architectures.build import build
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.gguf_files import subject_of_prediction
from willfit.engines.ollama import Settings, estimate
from willfit.engines.ollama.library import known
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.file_types import quantization
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Unpredictable

#: Releases by day: a log without a version is of the newest then.
_RELEASES = (
    ("2024-05-02", "0.1.33"), ("2024-06-20", "0.1.45"), ("2024-07-07", "0.2.0"), ("2024-07-25", "0.3.0"),
    ("2024-09-07", "0.3.10"), ("2024-11-05", "0.4.0"), ("2024-12-04", "0.5.0"), ("2025-01-16", "0.5.7"),
    ("2025-02-23", "0.5.12"), ("2025-03-11", "0.6.0"), ("2025-03-26", "0.6.3"), ("2025-04-30", "0.6.7"),
    ("2025-05-22", "0.7.1"), ("2025-06-26", "0.9.3"), ("2025-07-30", "0.10.0"), ("2025-08-05", "0.11.2"),
    ("2025-08-18", "0.11.5"), ("2025-08-28", "0.11.8"), ("2025-09-18", "0.12.0"), ("2025-10-16", "0.12.6"),
    ("2025-11-13", "0.12.11"), ("2025-12-18", "0.13.5"), ("2026-01-20", "0.14.3"), ("2026-02-05", "0.15.5"),
    ("2026-02-25", "0.17.1"), ("2026-04-02", "0.20.0"), ("2026-04-27", "0.22.0"), ("2026-06-01", "0.30.0"),
    ("2026-06-04", "0.30.5"), ("2026-06-17", "0.30.10"), ("2026-06-26", "0.30.11"), ("2026-06-29", "0.31.0"),
    ("2026-07-07", "0.31.2"), ("2026-07-21", "0.32.2"), ("2026-08-04", "0.32.6"), ("2026-08-19", "0.32.15"),
)  # fmt: skip

#: The last versions whose default it is to answer so many at once.
_PARALLEL = {4: "0.6.6", 2: "0.9.6"}

#: Half of the last digit that llama.cpp prints, and that Ollama does, in MiB.
_HALF_DIGIT, _HALF_TENTH = 0.005, 0.05

_VENDORS = {"rocm": "AMD", "metal": "Apple", "cuda": "NVIDIA"}


def predict(case: Case) -> dict[str, Any]:
    """Ollama's estimates and its runners' buffers; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If the model, or the context, is not known.
    """
    given = case.settings
    if "n_ctx" not in given and set(case.measured) - {"model_buffer_mib"}:
        raise Unpredictable("the source does not state the context")
    subject, settings = subject_of(case), settings_of(case)
    answer = estimate(subject, machine_of(case), settings)
    return figures(case, answer)


def figures(case: Case, answer: Estimate) -> dict[str, Any]:
    """What the case measured, as predicted: Ollama's estimates, and buffers by place."""
    required = answer.details.get("required") or {}
    found: dict[str, Any] = {
        "ollama_required_mib": {
            key: _printed(required[key])
            for key in case.measured.get("ollama_required_mib") or {}
            if required.get(key)
        }
    }
    if not _settled(case):
        return {key: made for key, made in found.items() if made}
    for kind, sizes in answer.details["buffers"].items():
        logged = case.measured.get(f"{kind}_buffer_mib")
        if isinstance(logged, dict) and not (kind == "compute" and _batch_is_open(case, answer)):
            found[f"{kind}_buffer_mib"] = {
                place: _buffer(answer, kind, size)
                for place in logged
                if (size := _named(place, sizes, logged)) and logged[place]
            }
    return {key: made for key, made in found.items() if made}


def _settled(case: Case) -> bool:
    """Whether it is known which layers went to which device."""
    given = case.settings
    if given.get("backend") == "cpu" or "available_mib" in given:
        return True
    return "n_gpu_layers" in given and int(case.fields.get("n_gpus") or 1) == 1


def _batch_is_open(case: Case, answer: Estimate) -> bool:
    """Whether Ollama chose the batch by memory that is not logged."""
    known = {"n_batch", "n_ubatch", "available_mib"} & set(case.settings)
    return answer.details["runner"] == "llama-server" and not known


def _printed(size: int) -> Prediction:
    """A figure as Ollama prints it, with one decimal (`format/bytes.go: HumanBytes2`)."""
    unit = GIB if size >= GIB else MIB
    value = round(size / unit, 1) * unit / MIB
    return Prediction(value, value, value)


def _exactly(size: int) -> Prediction:
    return Prediction(size / MIB, size / MIB - _HALF_DIGIT, size / MIB + _HALF_DIGIT)


def _buffer(answer: Estimate, kind: str, size: int) -> Prediction:
    """With the interval of the term that it is; the engine of Ollama's own prints one decimal."""
    if kind != "compute" and answer.details["runner"] == "ollama-engine":
        half = (GIB if size >= GIB else MIB) / 20
        return Prediction(size / MIB, (size - half) / MIB, (size + half) / MIB)
    terms = [term for one in (*answer.devices, answer.host) for term in one.terms if term.name == kind]
    term = next((term for term in terms if term.bytes == size), None)
    if term is None:
        return _exactly(size)
    half = _HALF_TENTH if answer.details["runner"] == "ollama-engine" else _HALF_DIGIT
    return Prediction(size / MIB, term.low_bytes / MIB - half, term.high_bytes / MIB + half)


def _named(place: str, sizes: dict[str, int], logged: dict[str, Any]) -> int:
    """Bytes of the buffer that a log calls so; 0 if there is none. Not every log tells mapped files apart."""
    if place in sizes:
        return sizes[place]
    if place.startswith("CPU"):
        return sum(size for name, size in sizes.items() if name.startswith("CPU") and name not in logged)
    if place.endswith("_Host"):
        return sum(size for name, size in sizes.items() if name == "CPU" or name.endswith("_Host"))
    devices = [name for name in sizes if not name.startswith("CPU") and not name.endswith("_Host")]
    return sizes[devices[0]] if len(devices) == 1 else 0


def version_of(case: Case) -> str:
    """The version that is stated, else the newest on that day, or by how many answers it gives at once."""
    stated = case.fields.get("engine_version")
    if stated:
        return str(stated)
    day = (str(case.fields.get("date") or "2099") + "-12-31")[:10]
    newest = next((version for since, version in reversed(_RELEASES) if since <= day), _RELEASES[0][1])
    last = _PARALLEL.get(case.settings.get("n_parallel", 0))
    if last and parse_version(newest) > parse_version(last):
        return last
    return newest


def settings_of(case: Case) -> Settings:
    """The case's settings under Ollama's own names."""
    given = case.settings
    parallel = int(given.get("n_parallel", 1))
    flash = given.get("flash_attn")
    batch = given.get("n_ubatch") or given.get("n_batch")
    layers = given.get("num_gpu")
    if layers is None and "available_mib" not in given and isinstance(given.get("n_gpu_layers"), int):
        # Where the layers went is all that is known of what was free.
        layers = given["n_gpu_layers"]
    return Settings(
        version=version_of(case),
        num_ctx=int(given["n_ctx"]) // parallel if "n_ctx" in given else None,
        num_batch=int(batch) if batch else None,
        num_gpu=layers,
        num_parallel=parallel,
        kv_cache_type=given.get("cache_type_k"),
        flash_attention=flash if isinstance(flash, bool) else None,
        sched_spread=bool(given.get("sched_spread")),
        new_engine=given.get("runner") == "ollama-engine",
        adapters=("adapter",) if given.get("lora_adapter") else (),
        **_as_in_library(case),
    )


def _as_in_library(case: Case) -> dict[str, Any]:
    """How the library stores the case's model, if its name says that it is from there."""
    name = str(case.fields.get("model_stated") or "").split(" ")[0]
    mix = str(case.fields.get("gguf_type") or "")
    try:
        found = known(name) if ":" in name else None
    except BadInput:
        found = None
    if found is None:
        return {}
    if found.stored.quant != mix:
        found = replace(found, stored=replace(found.stored, quant=mix, types=()))
    return {"stored": found.stored, "encoder": found.encoder}


def subject_of(case: Case) -> Subject:
    """The case's model as the GGUF file that it would be.

    Raises
    ------
    Unpredictable
        If its config is not known, or its file type is not stated.
    """
    name = case.fields.get("catalogue") or case.fields.get("model")
    entry = find(str(name)) if name else None
    kind = case.fields.get("gguf_type")
    if entry is None or not kind:
        raise Unpredictable(f"{case.fields.get('model')}: its config or its file type is not known")
    config = Config({**entry.config, **(case.fields.get("model_overrides") or {})}, entry.id)
    return subject_of_prediction(entry.id, config, build(config), quantization(str(kind)))


def machine_of(case: Case) -> Machine:
    """The case's devices with what was free on them, as it is logged; without any, the host's."""
    given = case.settings
    backend = str(given.get("backend", "cpu"))
    free = given.get("available_mib")
    listed = [int(float(one) * MIB) for one in (free if isinstance(free, list) else [free]) if one]
    if backend == "cpu":
        return Machine((), listed[0] if listed else None)
    count = int(case.fields.get("n_gpus") or len(listed) or 1)
    named = case.fields.get("gpu")
    device = find_device(named) if isinstance(named, str) else Device("unknown", _VENDORS.get(backend, ""))
    devices = [replace(device, usable_bytes=None) for _ in range(count)]
    if len(listed) == count:
        devices = [replace(one, usable_bytes=free) for one, free in zip(devices, listed, strict=True)]
    return Machine(tuple(devices))
