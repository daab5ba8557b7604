"""The answer: terms per device and on the host, what fits, what would help."""

from __future__ import annotations

from typing import Any

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.context import context_term
from willfit.engines.llama_cpp.eras import NEWEST
from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.llama_cpp.sizing import Sizing, devices_of, size_up
from willfit.engines.llama_cpp.terms import (
    compute_term,
    keys_values_term,
    output_term,
    states_term,
    weights_term,
)
from willfit.estimate import DeviceEstimate, Estimate, Term

NAME = "llama.cpp"

#: Types of caches for the dtypes that a question can name.
_CACHE_TYPES = {"auto": "f16", "fp16": "f16", "fp32": "f32", "int8": "q8_0", "fp8": "q8_0", "int4": "q4_0"}

#: Buffers on the host, with what their weights are called.
_HOST_WEIGHTS = {"CPU": "weights", "CPU_REPACK": "repacked_weights"}


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """A server with so many slots, all layers on the devices."""
    kind = _CACHE_TYPES.get(question.kv_dtype, question.kv_dtype)
    settings = Settings(
        version=question.version,
        n_ctx=question.context_for(subject.architecture) * question.users,
        n_parallel=question.users,
        n_gpu_layers="all",
        cache_type_k=kind,
        cache_type_v=kind,
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What a process of llama.cpp would allocate on each device and in host RAM.

    Parameters
    ----------
    subject
        The model, with its GGUF header.
    machine
        The devices; without any, or with the processor alone, all is on the host.
    settings
        Under the programs' own names.
    users
        Sequences that shall run at once.

    Raises
    ------
    BadInput
        If the subject is no GGUF file, or a setting cannot be used.
    """
    used = devices_of(machine, settings)
    contexts = [context_term(device) for device in used]
    free = [
        None if device.usable_bytes is None else max(0, device.usable_bytes - term.bytes)
        for device, term in zip(used, contexts, strict=True)
    ]
    sizing = size_up(subject, machine, settings, free)
    devices = tuple(
        DeviceEstimate(
            device.name, index, device.usable_bytes, (*_device_terms(sizing, index), contexts[index])
        )
        for index, device in enumerate(sizing.devices)
    )
    mapped = weights_term(sizing, "CPU_Mapped", "mapped_weights")
    host = DeviceEstimate(
        "host",
        0,
        machine.host_bytes,
        _host_terms(sizing),
        page_cache=(mapped,) if mapped is not None else (),
    )
    return Estimate(
        model=subject.model,
        engine=settings.fork,
        engine_version=sizing.resolved.version,
        kind="serve",
        devices=devices,
        host=host,
        notes=(*subject.notes,),
        details=_details(sizing),
    )


def _device_terms(sizing: Sizing, index: int) -> tuple[Term, ...]:
    place = sizing.model.backends[index].place
    return _present(
        weights_term(sizing, place),
        keys_values_term(sizing, place),
        states_term(sizing, place),
        compute_term(sizing, place),
    )


def _host_terms(sizing: Sizing) -> tuple[Term, ...]:
    pinned = sizing.model.backends[-1].place
    places = {**_HOST_WEIGHTS, pinned: "weights" if pinned == "CPU" else "pinned_weights"}
    return _present(
        *(weights_term(sizing, place, name) for place, name in places.items()),
        keys_values_term(sizing, "CPU"),
        states_term(sizing, "CPU"),
        compute_term(sizing, pinned),
        output_term(sizing),
    )


def _present(*terms: Term | None) -> tuple[Term, ...]:
    return tuple(term for term in terms if term is not None)


def _details(sizing: Sizing) -> dict[str, Any]:
    resolved = sizing.resolved
    return {
        "context": resolved.n_ctx if resolved.unified else resolved.cells,
        "n_ctx": resolved.n_ctx,
        "sequences": resolved.sequences,
        "flash_attn": sizing.context.flash_attn,
        "n_gpu_layers": sizing.offload.layers if sizing.devices else 0,
        "buffers": {
            "model": sizing.model.bytes,
            "kv": dict(sizing.context.keys_values),
            "rs": dict(sizing.context.states),
            "compute": dict(sizing.context.compute),
            "output": {sizing.model.backends[-1].place: sizing.context.output},
        },
        "splits": sizing.context.splits,
        "nodes": sizing.context.nodes,
        "pipelined": sizing.pipelined,
    }


__all__ = ["NAME", "NEWEST", "answer", "estimate"]
