"""From a model, devices and settings to all buffers: what is offloaded, whether attention is flash, the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from willfit.architectures.gguf.metadata import Metadata
from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.base import Machine, Subject
from willfit.engines.llama_cpp.backends.cuda import Cuda
from willfit.engines.llama_cpp.backends.repacking import Repacking, repacking
from willfit.engines.llama_cpp.backends.table import backend_name, backends_of, host_buffers
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.eras import era_for
from willfit.engines.llama_cpp.fit import LEAST_CONTEXT, TARGET_BYTES, Limits, fit_context, fit_layers
from willfit.engines.llama_cpp.loading.drafting import drafting_tensors
from willfit.engines.llama_cpp.loading.interleaved import repacked
from willfit.engines.llama_cpp.loading.layers import LayerPlaces, place_layers
from willfit.engines.llama_cpp.loading.offload import EXPERTS, Offload
from willfit.engines.llama_cpp.loading.prepared import prepared
from willfit.engines.llama_cpp.loading.rows import RowSplit, row_split
from willfit.engines.llama_cpp.loading.slices import slices_of
from willfit.engines.llama_cpp.loading.weights import Loader, Placed
from willfit.engines.llama_cpp.parts import Part, parts_of
from willfit.engines.llama_cpp.plan import Context, Model, context, flash_attention, load
from willfit.engines.llama_cpp.resolve import Resolved, check_widths, require_flash_attention, resolve
from willfit.engines.llama_cpp.settings import Backend, Settings
from willfit.errors import BadInput
from willfit.ggml_types import IK_TYPES, INTERLEAVED_TYPES
from willfit.hardware.device import Device
from willfit.hardware.processors import USUAL, ProcessorKind
from willfit.hardware.processors import beside as beside_devices
from willfit.quantities import MIB


@dataclass(frozen=True, slots=True)
class Sizing:
    """All buffers of a process.

    Attributes
    ----------
    settings
        What was asked for.
    devices, backend
        What is used, and by which backend.
    resolved, offload
        Settled settings.
    model, context
        Weights and what the context takes.
    pipelined
        Batches overlap on the devices.
    processor
        The host's.
    divided
        What each device holds where tensors are divided among them; the model then has one device that stands for all,
        and each of them has a compute buffer as large as that one's.
    """

    settings: Settings
    devices: tuple[Device, ...]
    backend: Backend
    resolved: Resolved
    offload: Offload
    model: Model
    context: Context
    pipelined: bool
    processor: ProcessorKind = USUAL
    divided: tuple[Part, ...] = ()

    def place(self, index: int) -> str:
        """Name of a device's buffers."""
        return self.divided[index].place if self.divided else self.model.backends[index].place

    @property
    def device_bytes(self) -> tuple[int, ...]:
        """Weights, caches and compute buffer of each device."""
        sizes = self.model.bytes
        context = self.context
        if self.divided:
            compute = context.compute.get(self.model.backends[0].place, 0)
            return tuple(one.weights + one.keys_values + one.states + compute for one in self.divided)
        return tuple(
            sizes.get(one.place, 0)
            + self.model.divided_bytes(index)
            + self.model.made_bytes(one.place)
            + context.keys_values.get(one.place, 0)
            + context.states.get(one.place, 0)
            + context.compute.get(one.place, 0)
            for index, one in enumerate(self.model.backends[:-1])
        )

    @property
    def host_bytes(self) -> int:
        """The same of the host: what it does not map from files, with the results that are copied there."""
        pinned = self.model.backends[-1].place
        context = self.context
        return (
            sum(self.model.bytes.get(place, 0) for place in {"CPU", "CPU_REPACK", pinned})
            + context.keys_values.get("CPU", 0)
            + context.states.get("CPU", 0)
            + context.compute.get(pinned, 0)
            + context.output
        )


def header_of(subject: Subject) -> GgufHeader:
    """The GGUF header of a subject.

    Raises
    ------
    BadInput
        If it is no GGUF file and none could be predicted.
    """
    if subject.gguf is None:
        raise BadInput(
            f"{subject.model}: llama.cpp runs GGUF files, and what its converter would make of this is not known",
            "give a .gguf file",
        )
    return subject.gguf


def devices_of(machine: Machine, settings: Settings) -> tuple[Device, ...]:
    """The devices that are used.

    Raises
    ------
    BadInput
        If one is named that there is not.
    """
    found = tuple(device for device in machine.devices if not device.is_cpu)
    if settings.backend == "cpu":
        return ()
    if settings.devices is not None:
        lacking = next((index for index in settings.devices if index >= len(found)), None)
        if lacking is not None:
            raise BadInput(f"device {lacking} is asked for, there are {len(found)}", "count from 0")
        found = tuple(found[index] for index in settings.devices)
    if settings.split_mode == "none" and found:
        found = (found[min(settings.main_gpu, len(found) - 1)],)
    return found


def offload_of(settings: Settings, layers: int, free: Sequence[int | None], era: Era) -> Offload:
    """What the settings offload; where they leave it open, all layers, or none in older builds.

    Parameters
    ----------
    layers
        Repeating layers of the file.
    free
        Free bytes of each device.
    """
    wanted = settings.n_gpu_layers
    if wanted is None:
        count = layers + 1 if era.fits else 0
    else:
        whole = wanted in ("auto", "all") or int(wanted) < 0
        count = layers + 1 if whole else min(int(wanted), layers + 1)
    shares = tuple(float(share) for share in settings.tensor_split[: len(free)])
    if not any(shares):
        shares = tuple(float(one) for one in free if one) if all(free) else (1.0,) * len(free)
    shares = (*shares, *[0.0] * (len(free) - len(shares)))
    overrides = list(settings.override_tensor)
    experts = rf"{EXPERTS}\.weight" if era.keeps_expert_biases else EXPERTS
    if settings.cpu_moe:
        overrides.append((experts, "CPU"))
    overrides += [(rf"blk\.{layer}{experts}", "CPU") for layer in range(settings.n_cpu_moe)]
    return Offload(count, shares, tuple(overrides))


#: So many layers the cache counts as.
_CACHES = 2

#: What a drafting head takes from its model if its file lacks it.
_BORROWED = ("token_embd.weight", "output.weight")


def place(
    subject: Subject,
    devices: Sequence[Device],
    backend: Backend,
    resolved: Resolved,
    settings: Settings,
    offload: Offload,
    processor: ProcessorKind = USUAL,
    beside: Mapping[str, Placed] = MappingProxyType({}),
) -> Model:
    """Place a model's tensors.

    Parameters
    ----------
    processor
        The host's.
    beside
        Tensors of a model that this one drafts for, which lends it those that it lacks.
    """
    header = header_of(subject)
    count = layers_of(header, subject)
    shares = offload.shares if devices else ()
    fusion = settings.fusion
    if divides_tensors(devices, settings):
        devices, shares, fusion = devices[:1], (1.0,), False
    backends = backends_of(devices, backend, resolved.era, fusion)
    split = _row_split(backends[:-1], backend, resolved.era, settings, offload)
    if split is not None and split.main is not None:
        shares = tuple(float(index == split.main) for index in range(len(devices)))
    places: LayerPlaces = place_layers(count, offload.layers, shares, resolved.era.output_first)
    loader = Loader(
        places,
        backends,
        "" if settings.no_host else host_buffers(backend, resolved.era),
        maps_files(settings, devices, backend, resolved.era) and not settings.run_time_repack,
        repacking(resolved.era, processor)
        if settings.repack and settings.fork == "llama.cpp"
        else Repacking(),
        offload.overrides,
        split,
        lazy_buffer(resolved.era, settings),
        not resolved.era.per_layer_first,
        resolved.era.places_blindly,
        resolved.era.maps_overrides,
        resolved.era.doubles_biases,
    )
    model = load(
        header,
        subject.architecture,
        loader,
        skipped_tensors(header, subject, settings),
        subject.bounds,
        subject.from_headers,
        resolved.era.struct_bytes,
    )
    if resolved.era.chooses_latents:
        made = prepared(model.named, subject.architecture, resolved.mla)
        model = replace(model, made=made, named={**model.named, **{one.name: one for one in made}})
    if settings.run_time_repack:
        model = replace(model, named={name: repacked(one) for name, one in model.named.items()})
    borrowed = {name: beside[name] for name in _BORROWED if name in beside}
    return replace(model, named={**borrowed, **model.named})


def divides_tensors(devices: Sequence[Device], settings: Settings) -> bool:
    """Whether tensors are divided among devices."""
    return settings.split_mode == "tensor" and len(devices) > 1


def _row_split(
    devices: Sequence[object], backend: Backend, era: Era, settings: Settings, offload: Offload
) -> RowSplit | None:
    """How rows are divided; None where matrices stay whole.

    Raises
    ------
    BadInput
        If the devices cannot divide rows.
    """
    cuda = [one for one in devices if isinstance(one, Cuda)]
    if era.one_buffer and len(cuda) > 1:
        return row_split(offload.shares, cuda, min(settings.main_gpu, len(cuda) - 1))
    if settings.split_mode != "row" or not devices:
        return None
    if not cuda or not era.divides_rows:
        if backend == "sycl" or not era.layers_divide:
            return None
        raise BadInput(
            f"--split-mode row: llama.cpp of this build does not divide rows on {backend} devices",
            "use --split-mode layer or tensor",
        )
    main = None if era.layers_divide else min(settings.main_gpu, len(cuda) - 1)
    return row_split(offload.shares, cuda, main)


#: Backends that say of a device whether it shares the host's memory, and those whose devices all do.
_MAY_SHARE, _SHARE = ("cuda", "rocm", "vulkan"), ("opencl", "hexagon")


def maps_files(settings: Settings, devices: Sequence[Device], backend: Backend, era: Era) -> bool:
    """Whether the file is mapped (`llama_model::load_tensors`)."""
    if settings.mmap is not None or not era.maps_by_device:
        return settings.mmap is not False
    shares = backend in _MAY_SHARE and any(device.unified_memory for device in devices)
    return not (shares or (backend in _SHARE and devices))


def lazy_buffer(era: Era, settings: Settings) -> str:
    """Buffer of tables that are read as they are needed: they are mapped, but not where nothing is read."""
    if not era.reads_lazily:
        return ""
    return "CPU" if settings.no_alloc else "CPU_Mapped"


def layers_of(header: GgufHeader, subject: Subject) -> int:
    """Repeating layers, those that draft included; each as often as it is run."""
    meta = Metadata(header.metadata)
    found = header.metadata.get(f"{subject.architecture.model_type}.block_count")
    count = int(found) if isinstance(found, int) else len(subject.architecture.layers)
    return count * meta.integer("num_loops", 1)


def skipped_tensors(header: GgufHeader, subject: Subject, settings: Settings) -> frozenset[str]:
    """Tensors that are not loaded: modules that draft tokens, unless they are asked for."""
    if settings.drafting is not None and settings.drafting.kind == "mtp":
        return frozenset()
    return drafting_tensors(
        header,
        range(len(subject.architecture.layers), layers_of(header, subject)),
        subject.architecture.model_type,
    )


def size_up(
    subject: Subject,
    machine: Machine,
    settings: Settings,
    free: Sequence[int | None],
    beside: Mapping[str, Placed] = MappingProxyType({}),
) -> Sizing:
    """All buffers of a process, what was left open adjusted to free memory as the program does it.

    Parameters
    ----------
    free
        Free bytes of each device that is used.
    beside
        See `place`.
    """
    header = header_of(subject)
    _check_types(header, subject, settings)
    devices = devices_of(machine, settings)
    processor = machine.processor or beside_devices(machine.devices)
    backend = backend_name(devices, settings.backend)
    if settings.flash_attn != "off" and settings.fork == "llama.cpp":
        # Latents are checked by what the file states, which need not be what is cached (`llama_init_from_model`).
        meta = Metadata(header.metadata)
        check_widths(settings, *(meta.integer(f"attention.{part}_length", 0) for part in ("key", "value")))
    pooling = _pooling(header, subject)
    layers = layers_of(header, subject)
    known = [one for one in free if one is not None]
    era = era_for(settings.version, settings.fork)
    offload = offload_of(settings, layers, free, era)
    if era.caches_last and not _offloads_cache(settings, layers):
        settings = replace(settings, kv_offload=False)

    def with_context(n_ctx: int | None, chosen: Offload, planned: bool = False) -> Sizing:
        asked = settings if n_ctx is None else replace(settings, n_ctx=n_ctx)
        asked = replace(asked, no_alloc=True) if planned else asked
        resolved = resolve(subject.architecture, pooling, asked)
        return sized(subject, devices, backend, resolved, asked, chosen, processor, beside)

    whole = with_context(None, offload)
    resolved = whole.resolved
    open_ = resolved.context_open or resolved.layers_open
    # `--fit` does not adjust models whose tensors are divided.
    if not devices or len(known) < len(devices) or not open_ or settings.split_mode == "tensor":
        return whole
    targets = tuple(mib * MIB for mib in settings.fit_target_mib) or (TARGET_BYTES,)
    limits = Limits(
        tuple(known),
        tuple(targets[min(index, len(targets) - 1)] for index in range(len(devices))),
        layers,
        any("_exps." in tensor.name for tensor in header.tensors),
        tuple(one.place for one in whole.model.backends[:-1]),
    )
    n_ctx: int | None = None
    if resolved.context_open:
        trained = subject.architecture.max_positions or resolved.n_ctx
        streams = 1 if resolved.unified else resolved.sequences
        least = settings.fit_ctx or LEAST_CONTEXT
        n_ctx = fit_context(
            limits,
            lambda tokens, _: with_context(tokens, offload, True).device_bytes,
            trained,
            least,
            streams,
        )
        whole = with_context(n_ctx, offload)
    fits = all(
        used <= most
        for used, most in zip(with_context(n_ctx, offload, True).device_bytes, limits.most, strict=True)
    )
    if fits or not resolved.layers_open:
        return whole
    return with_context(
        n_ctx, fit_layers(limits, lambda chosen: with_context(n_ctx, chosen, True).device_bytes)
    )


def _check_types(header: GgufHeader, subject: Subject, settings: Settings) -> None:
    """Refuse tensors of types that only ik_llama.cpp reads."""
    if settings.fork == "ik_llama.cpp":
        return
    own = {tensor.type for tensor in header.tensors} & (IK_TYPES.keys() | INTERLEAVED_TYPES.keys())
    if own:
        raise BadInput(
            f"{subject.model}: llama.cpp cannot read tensors of type {', '.join(sorted(own))}, ik_llama.cpp can",
            "ask about a command of ik_llama.cpp, or take another file",
        )


def _offloads_cache(settings: Settings, layers: int) -> bool:
    """Whether enough layers are offloaded for the cache, which counts as two behind the output, to be one of them."""
    wanted = settings.n_gpu_layers
    return wanted in ("auto", "all") or (
        wanted is not None and (int(wanted) < 0 or int(wanted) > layers + _CACHES)
    )


def _pooling(header: GgufHeader, subject: Subject) -> int:
    return int(header.metadata.get(f"{subject.architecture.model_type}.pooling_type", 0))


def resized(subject: Subject, sizing: Sizing, settings: Settings, offload: Offload) -> Sizing:
    """The same process with other settings and another offload, nothing adjusted."""
    resolved = resolve(subject.architecture, _pooling(header_of(subject), subject), settings)
    if resolved.flash_attn is None:
        # Whether the devices can is known by now.
        resolved = replace(resolved, flash_found=sizing.context.flash_attn)
    return sized(subject, sizing.devices, sizing.backend, resolved, settings, offload, sizing.processor)


def sized(
    subject: Subject,
    devices: tuple[Device, ...],
    backend: Backend,
    resolved: Resolved,
    settings: Settings,
    offload: Offload,
    processor: ProcessorKind = USUAL,
    beside: Mapping[str, Placed] = MappingProxyType({}),
) -> Sizing:
    """All buffers with a given offload and context; see `place` for what is beside."""
    model = place(subject, devices, backend, resolved, settings, offload, processor, beside)
    pipelined = (
        len(devices) > 1
        and offload.layers > layers_of(header_of(subject), subject)
        and settings.split_mode in (None, "layer")
        and settings.kv_offload
        and (settings.fork == "ik_llama.cpp" or not offload.overrides)
        and (backend in ("cuda", "rocm", "metal") or (backend == "vulkan" and resolved.era.vulkan_pipelines))
    )
    flash = resolved.flash_attn if resolved.flash_attn is not None else resolved.flash_found
    made = resolved.context(settings, bool(flash), pipelined)
    if flash is None:
        flash = flash_attention(model, made, resolved.era)
        made = replace(made, cache=replace(made.cache, flash_attn=flash))
        if not flash:
            require_flash_attention(settings)
    taken = context(model, made, resolved.era)
    divided: tuple[Part, ...] = ()
    if divides_tensors(devices, settings):
        slices = slices_of(model.header, model.architecture, len(devices), settings.tensor_split)
        divided = parts_of(model, made, slices, backends_of(devices, backend, resolved.era, False))
    return Sizing(settings, devices, backend, resolved, offload, model, taken, pipelined, processor, divided)
