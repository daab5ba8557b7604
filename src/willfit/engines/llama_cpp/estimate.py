"""The answer: terms per device and on the host, what fits, what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.llama_cpp.backends.table import backend_name
from willfit.engines.llama_cpp.capacity import capacity
from willfit.engines.llama_cpp.contexts import device_context
from willfit.engines.llama_cpp.drafting import Draft, draft_of, draft_term
from willfit.engines.llama_cpp.eras import NEWEST, era_for
from willfit.engines.llama_cpp.extras import (
    Pictures,
    lora_term,
    projector_compute,
    projector_compute_term,
    projector_term,
)
from willfit.engines.llama_cpp.graph import families
from willfit.engines.llama_cpp.host import (
    checkpoints_term,
    from_disk_note,
    mapped_in_use,
    prompt_cache_term,
    room_for_files,
)
from willfit.engines.llama_cpp.loading.expanded import expanded, keeps_heads, with_caches
from willfit.engines.llama_cpp.loading.offload import Offload
from willfit.engines.llama_cpp.loading.weights import LAYER
from willfit.engines.llama_cpp.remedies import Measure, remedies
from willfit.engines.llama_cpp.resolve import mla_of
from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.llama_cpp.sizing import Sizing, devices_of, resized, size_up
from willfit.engines.llama_cpp.terms import (
    compute_term,
    divided_term,
    doubt_of,
    inputs_term,
    keys_values_term,
    made_term,
    output_term,
    slices_terms,
    states_term,
    weights_term,
)
from willfit.estimate import DeviceEstimate, Estimate, Term
from willfit.quantities import format_bytes

NAME = "llama.cpp"

#: Types of caches for the dtypes that a question can name.
_CACHE_TYPES = {"auto": "f16", "fp16": "f16", "fp32": "f32", "int8": "q8_0", "fp8": "q8_0", "int4": "q4_0"}

#: Buffers on the host, with what their weights are called.
_HOST_WEIGHTS = {
    "CPU": "weights",
    "CPU_REPACK": "repacked_weights",
    "CPU_AARCH64": "repacked_weights",
    "AMX": "amx_weights",
}


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """A server with so many slots, all layers on the devices."""
    kind = _CACHE_TYPES.get(question.kv_dtype, question.kv_dtype)
    return Settings(
        version=question.version,
        n_ctx=question.context_for(subject.architecture) * question.users,
        n_parallel=question.users,
        n_gpu_layers="all",
        cache_type_k=kind,
        cache_type_v=kind,
    )


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


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
    found = _sized(subject, machine, settings, users)
    sizing, limits = found.sizing, found.limits
    held = capacity(sizing, limits, lambda asked: found.measure(asked, sizing.offload))
    longest = held.max_context if held else 0
    return replace(found.estimate, capacity=held, remedies=remedies(sizing, limits, found.measure, longest))


def estimate_alone(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """The estimate without capacity and remedies, which ask for many others.

    Raises
    ------
    BadInput
        As `estimate` does.
    """
    return _sized(subject, machine, settings, users).estimate


class _Sized(NamedTuple):
    """An estimate, and what it takes to ask for others like it."""

    estimate: Estimate
    sizing: Sizing
    limits: list[int]
    measure: Measure


def _sized(subject: Subject, machine: Machine, settings: Settings, users: int) -> _Sized:
    era = era_for(settings.version, settings.fork)
    old_file = settings.fork == "llama.cpp" and keeps_heads(subject)
    if not era.latent_cache or old_file or (era.chooses_latents and not mla_of(settings, era)):
        subject = expanded(subject, merged=not era.chooses_latents)
    if era.caches_encoders:
        subject = with_caches(subject)
    used = devices_of(machine, settings)
    backend = backend_name(used, settings.backend)
    contexts = [device_context(device, backend) for device in used]
    free = [
        None if device.usable_bytes is None else max(0, device.usable_bytes - term.bytes)
        for device, term in zip(used, contexts, strict=True)
    ]
    sizing = size_up(subject, machine, settings, free)
    limits = [one for one in free if one is not None]
    limits = limits if len(limits) == len(free) else []
    draft = draft_of(subject, machine, sizing, free)
    pictures = projector_compute(sizing)
    beside = [_beside(sizing, draft, pictures, index) for index in range(len(sizing.devices))]
    limits = [limit - sum(term.bytes for term in terms) for limit, terms in zip(limits, beside, strict=False)]
    devices = tuple(
        DeviceEstimate(
            device.name,
            index,
            device.usable_bytes,
            (*_device_terms(sizing, index), *beside[index], contexts[index]),
        )
        for index, device in enumerate(sizing.devices)
    )
    own = _host_terms(sizing, draft, pictures)
    peaks = [(device, place.peak_bytes) for device, place in zip(sizing.devices, devices, strict=True)]
    room = machine.host_beside(peaks)
    mapped = weights_term(sizing, "CPU_Mapped", "mapped_weights")
    host = DeviceEstimate("host", 0, room, own, page_cache=(mapped,) if mapped is not None else ())
    shared = [index for index, device in enumerate(sizing.devices) if device.unified_memory]
    if machine.ram_bytes is not None and room is not None and len(limits) == len(devices):
        # Where mapped weights stay in RAM, nothing that would push them out is counted as room.
        place, files = room_for_files(host.peak_bytes, room), mapped_in_use(sizing)
        taken = host.peak_bytes + sum(devices[index].peak_bytes for index in shared)
        left = place - files if files <= place else machine.ram_bytes - taken
        limits.append(left + _ram(sizing, shared))

    def measure(asked: Settings, chosen: Offload) -> tuple[int, ...]:
        same = asked == sizing.settings and chosen == sizing.offload
        found = sizing if same else resized(subject, sizing, asked, chosen)
        ram = (_ram(found, shared),) if len(limits) > len(devices) else ()
        return (*found.device_bytes, *ram)

    disk = from_disk_note(sizing, host.peak_bytes, room)
    made = Estimate(
        model=subject.model,
        engine=settings.fork,
        engine_version=sizing.resolved.version,
        kind="serve",
        devices=devices,
        host=host,
        notes=(*_notes(subject, sizing, settings, users), *((disk,) if disk else ())),
        details=_details(sizing, draft, pictures),
    )
    return _Sized(made, sizing, limits, measure)


def _ram(sizing: Sizing, shared: Sequence[int]) -> int:
    """What model and context take of RAM, with devices that share it."""
    return sizing.host_bytes + sum(sizing.device_bytes[index] for index in shared)


def _device_terms(sizing: Sizing, index: int) -> tuple[Term, ...]:
    if sizing.divided:
        return slices_terms(sizing, index)
    place = sizing.place(index)
    return _present(
        weights_term(sizing, place),
        divided_term(sizing, index),
        made_term(sizing, place),
        keys_values_term(sizing, place),
        states_term(sizing, place),
        compute_term(sizing, place),
    )


def _beside(sizing: Sizing, draft: Draft | None, pictures: Pictures, index: int) -> tuple[Term, ...]:
    """What a device holds beside the model and its context: adapters, a projector, a drafting model."""
    place = sizing.place(index)
    return _present(
        lora_term(sizing, index),
        projector_term(sizing) if index == 0 and sizing.settings.mmproj_offload else None,
        projector_compute_term(sizing, pictures, place),
        draft_term(sizing, draft, (place,)) if draft is not None else None,
    )


def _host_terms(sizing: Sizing, draft: Draft | None, pictures: Pictures) -> tuple[Term, ...]:
    pinned = sizing.model.backends[-1].place
    places = {**_HOST_WEIGHTS, pinned: "weights" if pinned == "CPU" else "pinned_weights"}
    return _present(
        *(weights_term(sizing, place, name) for place, name in places.items()),
        made_term(sizing, pinned),
        keys_values_term(sizing, "CPU"),
        states_term(sizing, "CPU"),
        compute_term(sizing, pinned),
        inputs_term(sizing),
        output_term(sizing),
        lora_term(sizing, None),
        projector_term(sizing) if not (sizing.settings.mmproj_offload and sizing.devices) else None,
        projector_compute_term(sizing, pictures, "CPU"),
        draft_term(sizing, draft, (*_HOST_WEIGHTS, pinned)) if draft is not None else None,
        prompt_cache_term(sizing),
        checkpoints_term(sizing),
    )


def _notes(subject: Subject, sizing: Sizing, asked: Settings, users: int) -> tuple[str, ...]:
    resolved, settings = sizing.resolved, sizing.settings
    notes = list(subject.notes)
    layers = len(sizing.model.places.layers) + 1
    if sizing.devices and sizing.offload.layers < layers:
        notes.append(f"{sizing.offload.layers} of {layers} layers are on the devices, the rest is in RAM")
    apart = sizing.context.keys_values.get("CPU", 0)
    if sizing.devices and apart and not settings.kv_offload:
        notes.append(f"the KV cache ({format_bytes(apart)}) is in RAM (--no-kv-offload)")
    moved = [pattern for pattern, place in sizing.offload.overrides if place == "CPU"]
    if moved and not settings.override_tensor and not settings.cpu_moe and not settings.n_cpu_moe:
        notes.append(f"experts of {len(moved)} layers stay in RAM")
    notes += _left_behind(sizing)
    if not asked.n_ctx:
        notes.append(_context_note(sizing))
    if users > resolved.sequences:
        notes.append(f"{users} users are asked for, the server has {resolved.sequences} slots: others wait")
    elif resolved.unified and resolved.sequences > 1:
        notes.append(f"{resolved.sequences} slots share {resolved.n_ctx:,} tokens")
    trained = sizing.model.architecture.max_positions
    if trained and asked.n_ctx and resolved.cells > trained:
        notes.append(
            f"{resolved.cells:,} tokens are more than the {trained:,} that the model was trained for"
        )
    if settings.lora and not settings.lora_bytes:
        notes.append(f"{len(settings.lora)} LoRA adapters could not be read: they are not counted")
    if settings.drafting is not None and settings.drafting.kind != "mtp" and subject.draft is None:
        notes.append("the drafting model is not known: it is not counted")
    if sizing.divided:
        notes.append(_division_note(sizing))
    if settings.split_mode == "row" and sizing.model.split is None and len(sizing.devices) > 1:
        notes.append("--split-mode row divides matrices; they are counted with whole layers here")
    if settings.mmproj_bytes and settings.mmproj_encoder is None:
        notes.append("what the projector computes is not known: it is not counted")
    if settings.mmproj_encoder is not None and settings.mmproj_waits:
        notes.append(
            "the projector computes nothing before the first picture, and what it needs grows with pictures"
        )
    elif settings.mmproj_encoder is not None and settings.mmproj_encoder.largest:
        notes.append(
            "what the projector computes is for a picture of the size that it starts with; larger ones take more"
        )
    doubt = doubt_of(sizing)[1]
    if doubt:
        notes.append(doubt)
    if sizing.backend == "opencl":
        notes.append("a recent Adreno is assumed: those before the 8 series leave more to the processor")
    if sizing.backend == "cann":
        notes.append("what CANN's operators work with is in a pool, which is not counted")
    if settings.rpc_servers:
        notes.append(
            f"{len(settings.rpc_servers)} RPC servers: their devices are not known, name them with --gpu"
        )
    if not families.is_known(sizing.model.architecture.model_type):
        notes.append(
            f"how llama.cpp builds {sizing.model.architecture.model_type} is not known: "
            "the compute buffer is an approximation"
        )
    return tuple(notes)


#: Weights on the host that are worth a word, as a part of all.
_MUCH = 0.01


def _left_behind(sizing: Sizing) -> list[str]:
    """Weights of offloaded layers that stay in RAM because their devices cannot compute with them."""
    places = sizing.model.places.layers
    if sizing.offload.overrides or not sizing.devices:
        return []
    kinds: Counter[str] = Counter()
    for one in sizing.model.placed:
        found = LAYER.match(one.name)
        layer = int(found[2]) if found else len(places)
        if one.buffer.device is None and layer < len(places) and places[layer] is not None:
            kinds[one.tensor.type] += one.tensor.bytes
    size = sum(kinds.values())
    if size < _MUCH * sum(one.tensor.bytes for one in sizing.model.placed):
        return []
    backend = sizing.model.backends[0].place.rstrip("0123456789")
    types = ", ".join(kind for kind, _ in kinds.most_common())
    return [f"{backend} cannot multiply {types}: {format_bytes(size)} of offloaded layers stay in RAM"]


def _context_note(sizing: Sizing) -> str:
    """What a program takes that is not told a context."""
    tokens, trained = sizing.resolved.n_ctx, sizing.model.architecture.max_positions or 0
    streams = 1 if sizing.resolved.unified else sizing.resolved.sequences
    why = "the program's own choice"
    if tokens >= trained * streams:
        why = "what the model was trained for"
    elif sizing.resolved.era.fits and sizing.settings.fit is not False:
        why = f"what --fit finds room for, of the {trained * streams:,} that the model was trained for"
    return f"no context was asked for: {tokens:,} tokens are {why}"


def _division_note(sizing: Sizing) -> str:
    """What a reader should know of tensors that are divided."""
    shares = (
        "as --tensor-split says" if any(sizing.settings.tensor_split) else "evenly, whatever memory they have"
    )
    return (
        f"each tensor is divided among {len(sizing.devices)} devices, {shares}; each has a compute buffer for whole "
        "tensors, and what libraries for their exchange take (NCCL) is not counted"
    )


def _present(*terms: Term | None) -> tuple[Term, ...]:
    return tuple(term for term in terms if term is not None)


def _each(sizing: Sizing, sizes: Mapping[str, int], held: Sequence[int]) -> dict[str, int]:
    """Bytes by buffer, those of divided tensors for each device."""
    if not held or not sizing.divided:
        return dict(sizes)
    return {**sizes, **{one.place: size for one, size in zip(sizing.divided, held, strict=True)}}


def _details(sizing: Sizing, draft: Draft | None, pictures: Pictures) -> dict[str, Any]:
    resolved = sizing.resolved
    whole = sizing.context.compute.get(sizing.model.backends[0].place, 0)
    drafted = {} if draft is None else {"kv": draft.caches, "compute": draft.compute}
    return {
        "context": resolved.n_ctx if resolved.unified else resolved.cells,
        "n_ctx": resolved.n_ctx,
        "sequences": resolved.sequences,
        "flash_attn": sizing.context.flash_attn,
        "n_gpu_layers": sizing.offload.layers if sizing.devices else 0,
        "places": [
            *(sizing.place(index) for index in range(len(sizing.devices))),
            sizing.model.backends[-1].place,
        ],
        "buffers": {
            "model": _each(sizing, sizing.model.bytes, [one.weights for one in sizing.divided]),
            "kv": _each(sizing, sizing.context.keys_values, [one.keys_values for one in sizing.divided]),
            "rs": _each(sizing, sizing.context.states, [one.states for one in sizing.divided]),
            "compute": {**{one.place: whole for one in sizing.divided}, **sizing.context.compute},
            "output": {sizing.model.backends[-1].place: sizing.context.output},
            "input": {sizing.model.backends[-1].place: sizing.context.inputs},
        },
        "kv": {"k": sizing.context.keys, "v": sizing.context.stored - sizing.context.keys},
        "draft": drafted,
        "projector": dict(pictures.first),
        "established": not doubt_of(sizing)[1],
        "splits": sizing.context.splits,
        "nodes": sizing.context.nodes,
        "pipelined": sizing.pipelined,
    }


__all__ = ["NAME", "NEWEST", "answer", "estimate"]
