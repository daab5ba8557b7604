"""The answer: what Ollama estimates, and what is then really allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from willfit.architectures.gguf import architecture_of
from willfit.engines import llama_cpp
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.llama_cpp.sizing import header_of
from willfit.engines.ollama.eras import NEWEST, era_for
from willfit.engines.ollama.estimating import Estimated, estimate_memory, terms_of
from willfit.engines.ollama.facts import Facts, Vision, facts_of
from willfit.engines.ollama.habits import OWN_ENGINE, holds, who_knows
from willfit.engines.ollama.own_answer import own_answer
from willfit.engines.ollama.settings import KEEP_ALIVE, Resolved, Settings, resolve
from willfit.engines.ollama.sources import SOURCES
from willfit.engines.ollama.starting import linked, served, server
from willfit.engines.ollama.stored import as_stored, encoder_of
from willfit.estimate import DeviceEstimate, Estimate
from willfit.quantities import format_bytes

NAME = "ollama"

#: Types of caches for the dtypes that a question can name.
_CACHE_TYPES = {"auto": None, "fp16": "f16", "int8": "q8_0", "fp8": "q8_0", "int4": "q4_0"}


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """A server that answers so many requests at once."""
    kind = _CACHE_TYPES.get(question.kv_dtype, question.kv_dtype)
    return Settings(
        version=question.version or NEWEST,
        num_ctx=question.context_for(subject.architecture),
        num_parallel=question.users,
        kv_cache_type=kind,
        flash_attention=True if kind not in (None, "f16") else None,
    )


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What Ollama would allocate on each device and in host RAM once a model is loaded.

    Parameters
    ----------
    subject
        The model, with its GGUF header.
    machine
        The devices and the host.
    settings
        Under Ollama's names.
    users
        Requests that shall run at once.

    Raises
    ------
    BadInput
        If the subject is no GGUF file, or a setting cannot be used.
    """
    subject, facts = read(subject, settings)
    resolved = resolve(facts, machine, settings)
    details: dict[str, Any] = {"runner": resolved.runner, "idle_bytes": 0}
    if resolved.runner == "llama-server":
        chosen = served(facts, settings, resolved, machine)
        started = server(facts, settings, resolved, chosen, machine)
        made = llama_cpp.estimate(subject, machine, started, users)
        used = _used(started)
        details |= {"predicted": chosen.predicted, "num_batch": chosen.batch}
        notes = [f"Ollama predicts {format_bytes(chosen.predicted)} before it starts llama-server"]
        refusal, parallel = "", resolved.parallel[0]
    else:
        estimated = estimate_memory(facts, settings, resolved, machine.host_bytes)
        measured = resolved.runner == "ollama-engine" and resolved.era.measured
        parallel = resolved.parallel[0] if measured else estimated.parallel
        if resolved.runner == "ollama-engine":
            decides = None if measured else estimated
            made, used = own_answer(subject, machine, facts, settings, resolved, decides)
            refusal = "Ollama's own engine does not load LoRA adapters" if settings.adapters else ""
        else:
            started = linked(facts, settings, resolved, estimated, machine)
            made = llama_cpp.estimate(subject, machine, started, min(users, parallel))
            used = _used(started)
            refusal = _lacks_memory(resolved, estimated, machine)
        details |= _estimated(estimated, settings)
        notes = [_required(facts, estimated)] if _is_estimated(resolved) else []
    notes += _notes(facts, settings, resolved, parallel, users)
    return replace(
        made,
        engine=NAME,
        engine_version=settings.version,
        devices=_as_listed(made.devices, used, machine),
        notes=(*made.notes, *notes),
        refusal=_unknown(facts, settings) or made.refusal or refusal,
        details={**made.details, **details, "context": resolved.context, "num_parallel": parallel},
    )


def read(subject: Subject, settings: Settings) -> tuple[Subject, Facts]:
    """The model as Ollama stores it, and what Ollama reads of it.

    Raises
    ------
    BadInput
        If it is no GGUF file, or its header lacks what is needed.
    """
    stored = settings.stored
    encoder = _encoder(subject, settings)
    translated = era_for(settings.version).placing == "fit"
    header = as_stored(header_of(subject), subject.architecture, stored, translated)
    architecture = architecture_of(header) if stored.whole_heads else subject.architecture
    subject = replace(subject, gguf=header, architecture=architecture)
    return subject, facts_of(header, stored.architecture, encoder)


def _encoder(subject: Subject, settings: Settings) -> Vision | None:
    """The model's image encoder; before an engine of Ollama's own ran it, Llama 3.2's was a file of its own."""
    if settings.projector_bytes:
        return Vision(settings.projector_bytes, own_file=True)
    found = settings.encoder or encoder_of(subject.architecture, settings.stored)
    name = settings.stored.architecture
    if found is not None and name == "mllama" and not holds(OWN_ENGINE, name, settings.version):
        found = replace(found, own_file=True)
    return found


def _used(started: llama_cpp.Settings) -> tuple[int, ...]:
    """The machine's devices that llama.cpp uses."""
    devices = started.devices or ()
    return devices[started.main_gpu :][:1] if started.split_mode == "none" else devices


def _is_estimated(resolved: Resolved) -> bool:
    """Whether the engine places the model by what it estimates."""
    return resolved.runner == "llama-runner" or not resolved.era.measured


def _required(facts: Facts, estimated: Estimated) -> str:
    """Ollama's estimate in words."""
    placed, layers = estimated.placed, len(facts.layers) + 1
    where = f"{placed.layers} of {layers} layers on the devices" if placed.layers else "all layers in RAM"
    required = format_bytes(placed.full)
    if placed.layers and placed.partial != placed.full:
        required += f", {format_bytes(placed.partial)} of it on the devices"
    return f"Ollama estimates {required} and puts {where}"


def _estimated(estimated: Estimated, settings: Settings) -> dict[str, Any]:
    placed, graph = estimated.placed, estimated.graph
    reference = SOURCES.cite("sizes", settings.version)
    return {
        "required": {
            "full": placed.full,
            "partial": placed.partial if estimated.rooms else placed.full,
            "kv": sum(graph.cache),
            "allocations": list(placed.allocations),
            "weights_total": estimated.weights,
            "weights_repeating": estimated.repeating,
            "weights_nonrepeating": estimated.nonrepeating,
            "graph_full": graph.full,
            "graph_partial": graph.partial,
            "projector_weights": estimated.projector,
            "projector_graph": estimated.projector_graph,
        },
        "layers": placed.layers,
        "split": list(placed.counts),
        "estimate": [term.as_json() for term in terms_of(estimated, reference)],
    }


def _unknown(facts: Facts, settings: Settings) -> str:
    """Why a version does not load an architecture; empty if it does."""
    other = who_knows(facts.architecture, settings.version)
    return f"Ollama {settings.version} does not know {facts.architecture}; {other} does" if other else ""


def _lacks_memory(resolved: Resolved, estimated: Estimated, machine: Machine) -> str:
    """Why Ollama does not load a model of which too much would be in RAM; empty if it does."""
    if not resolved.era.checks_host or resolved.metal or machine.host_bytes is None:
        return ""
    needed = estimated.placed.full - estimated.placed.partial
    if needed <= machine.host_bytes:
        return ""
    return (
        f"model requires more system memory ({format_bytes(needed)}) than is available "
        f"({format_bytes(machine.host_bytes)}), unless swap makes up for it"
    )


def _notes(facts: Facts, settings: Settings, resolved: Resolved, parallel: int, users: int) -> list[str]:
    notes = []
    if users > parallel:
        notes.append(f"Ollama answers {parallel} at once with these settings; others of {users} users wait")
    if parallel < resolved.parallel[0]:
        notes.append(
            f"Ollama would answer {resolved.parallel[0]} at once if they fitted; it answers {parallel}"
        )
    asked = settings.num_ctx or settings.context_length
    if asked and resolved.context < asked:
        notes.append(f"num_ctx is cut to the {resolved.context:,} tokens that the model was trained for")
    elif not asked:
        notes.append(f"no context is set: Ollama takes {resolved.context:,} tokens")
    if settings.kv_cache_type and resolved.cache_type != settings.kv_cache_type.lower():
        notes.append(
            f"the cache stays f16: {settings.kv_cache_type} needs flash attention, and to be known to Ollama"
        )
    keep = KEEP_ALIVE if settings.keep_alive is None else settings.keep_alive
    if keep < 0:
        notes.append("the model stays loaded until Ollama ends")
    elif keep == 0:
        notes.append("the model is unloaded after each answer and holds nothing then")
    else:
        notes.append(f"the model is unloaded {keep:,.0f} s after its last answer and holds nothing then")
    return notes


def _as_listed(
    made: Sequence[DeviceEstimate], used: Sequence[int], machine: Machine
) -> tuple[DeviceEstimate, ...]:
    """Devices under the machine's numbers; those that are not used hold nothing."""
    found = dict(zip(used, made, strict=True))
    listed = [device for device in machine.devices if not device.is_cpu]
    return tuple(
        replace(found[index], index=index)
        if index in found
        else DeviceEstimate(device.name, index, device.usable_bytes, ())
        for index, device in enumerate(listed)
    )


__all__ = ["NAME", "NEWEST", "answer", "estimate"]
