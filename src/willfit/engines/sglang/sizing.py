"""SGLang's start-up, in its own order: defaults, context, weights, pools, request table, CUDA graphs.

`model_executor/model_runner.py: initialize`, `mem_cache/kv_cache_configurator.py: _profile_available_bytes` (0.5.23).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.calibration import constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.caching_allocator import cublas_workspace
from willfit.engines.sglang.backends import workspace_bytes
from willfit.engines.sglang.cells import Cells, cells_of, kv_dtype_of
from willfit.engines.sglang.defaults import Resolved, resolve
from willfit.engines.sglang.drafts import Draft, draft_of
from willfit.engines.sglang.eras import Era, era_for
from willfit.engines.sglang.loading import adapters, before, draft_weights, weights
from willfit.engines.sglang.models import generates
from willfit.engines.sglang.pools import MULTIMODAL_BYTES, Pools, divide, table_bytes
from willfit.engines.sglang.refusals import refusal
from willfit.engines.sglang.settings import Settings
from willfit.engines.sglang.sources import SOURCES
from willfit.errors import BadInput
from willfit.estimate import Term, between, combined, exact
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, dtype_name


@dataclass(frozen=True, slots=True)
class Sizing:
    """What SGLang decides and allocates at start-up, on the fullest rank.

    Attributes
    ----------
    before
        Terms that exist before the first reading of free memory.
    loaded
        Weights, and a draft's where that is loaded before the pools are sized.
    after
        Terms that come out of the share that is left.
    free_bytes, free_interval
        What the first reading shows.
    unified_memory
        It is the host's, too.
    available, available_interval
        Bytes for the pools; negative if nothing is left.
    cells, own_cells
        What a token takes with a draft's layers, where those are counted, and without.
    draft
        What drafts tokens.
    refusal
        Why it would not start whatever the memory; empty otherwise.
    """

    resolved: Resolved
    dtype: str
    kv_dtype: str
    before: tuple[Term, ...]
    loaded: tuple[Term, ...]
    after: tuple[Term, ...]
    free_bytes: int
    free_interval: tuple[int, int]
    unified_memory: bool
    available: int
    available_interval: tuple[int, int]
    cells: Cells
    own_cells: Cells
    pools: Pools
    draft: Draft | None
    refusal: str

    def pools_at(self, available: int, settings: Settings) -> Pools:
        """The pools if so many bytes were available."""
        return divide(available, self.cells, self.resolved, settings)


def size_up(subject: Subject, machine: Machine, settings: Settings, free_bytes: int | None = None) -> Sizing:
    """Go through SGLang's start-up.

    Parameters
    ----------
    free_bytes
        What was free before the weights were loaded, where that is known; None to derive it from the device.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, the length of a sequence is not known, or a dtype does not exist.
    """
    architecture = subject.architecture
    device = smallest_device(machine, settings)
    era = era_for(settings.version)
    resolved = resolve(settings, architecture, device, era)
    dtype = model_dtype(subject, settings, device)
    kv_dtype = kv_dtype_of(subject, settings, dtype, device, era)
    draft = draft_of(subject, settings, dtype)
    cells = cells_of(architecture, settings, kv_dtype, dtype, era)
    drafted = cells.with_layers(draft.layers if draft else 0)

    context = before(settings, device)
    held = draft_weights(subject, settings, dtype)
    loaded = [weights(subject, settings, dtype, device, era)]
    if held is not None and era.draft_counted:
        loaded.append(held)
    buffers = adapters(subject, settings, dtype)
    if buffers is not None:
        loaded.append(buffers)
    free = (device.usable_bytes or 0) - context.bytes if free_bytes is None else free_bytes
    unsure = replace(context, bytes=0, low_bytes=0, high_bytes=0) if free_bytes is not None else context
    available, low, high = _available(free, unsure, loaded, subject, resolved, settings, device)
    counted = drafted if era.draft_counted else cells
    pools = replace(divide(available, counted, resolved, settings), cells=counted)

    after: list[Term] = []
    if draft is not None and held is not None and not era.draft_counted:
        after += [held, _draft_cache(drafted.full - cells.full, pools, settings.version)]
    after.append(_table(pools, resolved, settings))
    after.append(_workspaces(subject, settings, device, era))
    after.append(_activations(subject, settings, resolved, dtype))
    # Graphs are of decoding steps.
    graphs = _graphs(subject, resolved, device) if generates(subject, settings) else None
    if graphs is not None:
        after.append(graphs)
    return Sizing(
        resolved=resolved,
        dtype=dtype,
        kv_dtype=kv_dtype,
        before=(context,),
        loaded=tuple(loaded),
        after=tuple(after),
        free_bytes=free,
        free_interval=(free + unsure.bytes - unsure.high_bytes, free + unsure.bytes - unsure.low_bytes),
        unified_memory=device.unified_memory,
        available=available,
        available_interval=(low, high),
        cells=counted,
        own_cells=cells,
        pools=pools,
        draft=draft,
        refusal=refusal(subject, settings, device, resolved.context_length),
    )


def smallest_device(machine: Machine, settings: Settings) -> Device:
    """The device that decides: all ranks have as many tokens as the one with the fewest.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks.
    """
    given = len(machine.devices)
    if given < settings.ranks:
        raise BadInput(
            f"{settings.ranks} ranks need {settings.ranks} devices, {given} given",
            f"write --gpu {settings.ranks}x...",
        )
    return min(machine.devices[: settings.ranks], key=lambda device: device.usable_bytes or 0)


def model_dtype(subject: Subject, settings: Settings, device: Device) -> str:
    """The activation dtype: as asked, else the config's, fp32 as fp16; cards before Ampere have no bf16.

    `configs/model_config.py: _get_and_verify_dtype`.
    """
    asked = settings.dtype if settings.dtype in ("auto", "half", "float") else dtype_name(settings.dtype)
    asked = {"half": "fp16", "float": "fp32"}.get(asked, asked)
    dtype = subject.architecture.dtype if asked == "auto" else asked
    if asked == "auto" and dtype == "fp32":
        dtype = "fp16"
    major = device.compute_capability.split(".")[0]
    return "fp16" if dtype == "bf16" and major.isdigit() and int(major) < 8 else dtype


def _available(
    free: int,
    context: Term,
    loaded: list[Term],
    subject: Subject,
    resolved: Resolved,
    settings: Settings,
    device: Device,
) -> tuple[int, int, int]:
    """Bytes for the pools, with their interval: `free after loading - (1 - fraction) x free before`."""
    share = resolved.mem_fraction_static
    size, low, high = combined(loaded)
    images = subject.architecture.towers and not settings.language_model_only
    reserved = MULTIMODAL_BYTES if images and resolved.era.reserves_multimodal else 0
    static = int(share * free) - reserved
    less, more = (share * (bound - context.bytes) for bound in (context.high_bytes, context.low_bytes))
    terms = [
        between("free", static, static - int(less), static - int(more)),
        Term("loaded", -size, -high, -low),
    ]
    if context.bytes:
        visible = constant("device.visible_ratio")
        terms.append(between("visible", 0, int(static * (visible.low - 1)), int(static * (visible.high - 1))))
    missed = constant("sglang.pool_ratio")
    terms.append(between("missed", 0, int(free * (missed.low - 1)), int(free * (missed.high - 1))))
    return combined(terms)


def _draft_cache(each: int, pools: Pools, version: str) -> Term:
    """Before 0.5.15 the draft had a pool of as many tokens, which nothing was kept for."""
    formula = f"{pools.tokens} tokens x {each} B"
    return exact(
        "draft_kv_cache",
        each * pools.tokens,
        formula,
        SOURCES.cite("pools", version),
    )


def _workspaces(subject: Subject, settings: Settings, device: Device, era: Era) -> Term:
    """What is set up between the pools and the graphs: attention workspaces, cuBLAS's, buffers of the scheduler."""
    kernels = workspace_bytes(settings, subject.architecture, device, era)
    library = cublas_workspace(device.compute_capability)
    spread = constant(beside_constant(device.unified_memory))
    rest = int(spread.value)
    formula = (
        f"{kernels} B of attention kernels + {library} B of cuBLAS + {rest} B of what is beside the pools"
    )
    size = kernels + library + rest
    return between(
        "runtime",
        size,
        size + int(spread.low - spread.value),
        size + int(spread.high - spread.value),
        formula,
        f"{SOURCES.cite('workspaces', settings.version)}; {spread.reference}",
    )


def _table(pools: Pools, resolved: Resolved, settings: Settings) -> Term:
    size = table_bytes(pools, resolved, settings)
    return exact(
        "request_table",
        size,
        f"({pools.requests} requests + 1) x {size // 4 // (pools.requests + 1)} tokens and headroom x 4 B",
        SOURCES.cite("request table", settings.version),
    )


def _activations(subject: Subject, settings: Settings, resolved: Resolved, dtype: str) -> Term:
    """What a prompt's chunk, or the largest batch's scores, need while they run: SGLang does not measure it."""
    architecture, size = subject.architecture, DTYPE_BYTES[dtype]
    elements = widest_layer_elements(architecture, settings.tp_size)
    layer = resolved.chunk * elements * size
    rows = max(resolved.capture_sizes, default=1) if generates(subject, settings) else 0
    scores = rows * architecture.logits_per_row * (size + 4)
    peak = max(layer, scores)
    formula = (
        f"the largest of layer: {resolved.chunk} tokens x {elements} elements x {size} B = {layer}, "
        f"logits: {rows} rows x {architecture.logits_per_row} logits x {size + 4} B = {scores}"
    )
    reference = SOURCES.cite("forward", settings.version)
    return between("activations", peak, peak // 2, 2 * peak, formula, reference)


def _graphs(subject: Subject, resolved: Resolved, device: Device) -> Term | None:
    sizes = len(resolved.capture_sizes)
    if not sizes:
        return None
    layers, spread = len(subject.architecture.layers), constant(graph_constant(device))
    return between(
        "cuda_graphs",
        int(layers * sizes * spread.value),
        int(layers * sizes * spread.low),
        int(layers * sizes * spread.high),
        f"{layers} layers x {sizes} captured sizes x {spread.value:.15g} B",
        spread.reference,
    )


def beside_constant(unified_memory: bool) -> str:
    """Name of the constant for what there is beside the pools when they are allocated."""
    return "sglang.after_pools.unified" if unified_memory else "sglang.after_pools"


def graph_constant(device: Device) -> str:
    """Name of the constant for graphs: with the host's memory they take the host's part, too."""
    return "sglang.graphs_taken.unified" if device.unified_memory else "sglang.graphs_taken"
