"""SGLang's start-up, in its own order: defaults, context, weights, pools, request table, CUDA graphs.

`model_executor/model_runner.py: initialize`, `mem_cache/kv_cache_configurator.py: _profile_available_bytes` (0.5.23).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.calibration import constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.sglang.cells import Cells, cells_of, kv_dtype_of
from willfit.engines.sglang.eras import era_for
from willfit.engines.sglang.pools import MULTIMODAL_BYTES, Pools, divide, table_bytes
from willfit.engines.sglang.refusals import refusal
from willfit.engines.sglang.settings import Resolved, Settings, resolve
from willfit.engines.sglang.sources import SOURCES
from willfit.engines.sglang.weights import draft_bytes, rope_bytes, stage_bytes
from willfit.errors import BadInput
from willfit.estimate import Term, between, combined, exact
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, GIB, dtype_name


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
    free_bytes
        What the first reading shows.
    available, available_interval
        Bytes for the pools; negative if nothing is left.
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
    available: int
    available_interval: tuple[int, int]
    cells: Cells
    pools: Pools
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
    cells = cells_of(architecture, settings, kv_dtype, dtype, era)

    before = _before(device, settings)
    draft = _draft_weights(subject, settings, dtype)
    loaded = [_weights(subject, settings, dtype, device)]
    if draft is not None and era.draft_counted:
        loaded.append(draft)
    taken, taken_low, taken_high = combined(before)
    free = (device.usable_bytes or 0) - taken if free_bytes is None else free_bytes
    spread = (taken - taken_low, taken_high - taken) if free_bytes is None else (0, 0)
    available, low, high = _available(free, spread, loaded, subject, resolved, settings)
    pools = divide(available, cells, resolved, settings)

    after: list[Term] = []
    if draft is not None and not era.draft_counted:
        after += [draft, *_draft_cache(subject, settings, kv_dtype, dtype, pools, resolved)]
    after.append(_table(pools, resolved, settings))
    after.append(_activations(subject, settings, resolved, dtype))
    graphs = _graphs(subject, resolved)
    if graphs is not None:
        after.append(graphs)
    return Sizing(
        resolved=resolved,
        dtype=dtype,
        kv_dtype=kv_dtype,
        before=before,
        loaded=tuple(loaded),
        after=tuple(after),
        free_bytes=free,
        available=available,
        available_interval=(low, high),
        cells=cells,
        pools=pools,
        refusal=refusal(subject, settings),
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


def _before(device: Device, settings: Settings) -> tuple[Term, ...]:
    spread = constant("cuda.context")
    terms = [
        between(
            "context",
            int(spread.value),
            int(spread.low),
            int(spread.high),
            f"{int(spread.value)} B of the driver's context",
            spread.reference,
        )
    ]
    if settings.ranks > 1:
        links = constant("vllm.non_torch.many_ranks")
        terms.append(
            between(
                "communication",
                int(links.value),
                int(links.low),
                int(links.high),
                f"{int(links.value)} B of communicators of {settings.ranks} ranks",
                links.reference,
            )
        )
    return tuple(terms)


def _weights(subject: Subject, settings: Settings, dtype: str, device: Device) -> Term:
    """What free memory falls by while the fullest stage is loaded: the pool's tokens are the minimum over ranks.

    Where the device's memory is the host's, what the program itself takes there counts, too.
    """
    stored = max(stage_bytes(subject, settings, dtype))
    tables = rope_bytes(subject.architecture)
    held = stored + tables
    offloaded = min(int(settings.cpu_offload_gb * GIB), held)
    formula = f"{stored} B of tensors ({subject.recipe.name})"
    formula += f" on one of {settings.ranks} ranks" if settings.ranks > 1 else ""
    formula += f" + {tables} B of rotary tables in fp32"
    formula += f" - {offloaded} B kept in host RAM" if offloaded else ""
    held -= offloaded
    ratio = constant("sglang.weights_ratio")
    less, more = subject.weight_sureness
    low, high = held * less * min(1.0, ratio.low), held * more * ratio.high
    if device.unified_memory:
        beside = constant("sglang.loading.unified")
        size = held + int(beside.value)
        low, high = low + beside.low, max(held * more, high) + beside.high
        formula, source = f"{formula} + {int(beside.value)} B of the host's part", beside.reference
    else:
        size = int(held * ratio.value)
        formula, source = f"({formula}) x {ratio.value:g} (what loading leaves)", ratio.reference
    reference = f"{SOURCES.cite('weights', settings.version)}; {source}"
    return between("weights", size, int(low), int(high), formula, reference)


def _draft_weights(subject: Subject, settings: Settings, dtype: str) -> Term | None:
    size = draft_bytes(subject, settings, dtype)
    if not size:
        return None
    return exact(
        "draft_weights",
        size,
        f"{size} B of the multi-token-prediction module",
        SOURCES.cite("weights", settings.version),
    )


def _available(
    free: int,
    spread: tuple[int, int],
    loaded: list[Term],
    subject: Subject,
    resolved: Resolved,
    settings: Settings,
) -> tuple[int, int, int]:
    """Bytes for the pools, with their interval: `free after loading - (1 - fraction) x free before`."""
    share = resolved.mem_fraction_static
    size, low, high = combined(loaded)
    images = subject.architecture.towers and not settings.language_model_only
    reserved = MULTIMODAL_BYTES if images and resolved.era.reserves_multimodal else 0
    static = int(share * free) - reserved
    visible = constant("device.visible_ratio")
    terms = (
        between("free", static, static - int(share * spread[1]), static + int(share * spread[0])),
        between("visible", 0, int(static * (visible.low - 1)), int(static * (visible.high - 1))),
        Term("loaded", -size, -high, -low),
    )
    return combined(terms)


def _draft_cache(
    subject: Subject, settings: Settings, kv_dtype: str, dtype: str, pools: Pools, resolved: Resolved
) -> list[Term]:
    """Before 0.5.15 the draft had a pool of as many tokens, which nothing was kept for."""
    with_draft = cells_of(
        subject.architecture, settings, kv_dtype, dtype, replace(resolved.era, draft_counted=True)
    )
    each = with_draft.full + with_draft.window - pools.cells.full - pools.cells.window
    size = each * pools.tokens
    formula = f"{pools.tokens} tokens x {each} B"
    return [exact("draft_kv_cache", size, formula, SOURCES.cite("pools", settings.version))]


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
    rows = max(resolved.capture_sizes, default=1)
    scores = rows * architecture.logits_per_row * (size + 4)
    peak = max(layer, scores)
    formula = (
        f"the largest of layer: {resolved.chunk} tokens x {elements} elements x {size} B = {layer}, "
        f"logits: {rows} rows x {architecture.logits_per_row} logits x {size + 4} B = {scores}"
    )
    reference = SOURCES.cite("forward", settings.version)
    return between("activations", peak, peak // 2, 2 * peak, formula, reference)


def _graphs(subject: Subject, resolved: Resolved) -> Term | None:
    sizes = len(resolved.capture_sizes)
    if not sizes:
        return None
    layers, spread = len(subject.architecture.layers), constant("sglang.graphs_taken")
    return between(
        "cuda_graphs",
        int(layers * sizes * spread.value),
        int(layers * sizes * spread.low),
        int(layers * sizes * spread.high),
        f"{layers} layers x {sizes} captured sizes x {spread.value:.15g} B",
        spread.reference,
    )
