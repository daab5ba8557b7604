"""The constants of the vLLM engine, and the start-up logs that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import copysign, log, sqrt

from willfit.calibration import constant
from willfit.engines.versions import parse_version
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.profiling.graphs import graph_constant
from willfit.engines.vllm.profiling.runtime import runtime_constants
from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.vllm import machine_of, settings_of, states_version, subject_of

#: Before this version allocator slack was booked as memory outside torch.
_CLEAN_BOOKS = (0, 6, 5)

#: From this size on, a peak shows in what is left of a budget, whatever else is not known of it.
_LARGE = GIB

#: From this many captured sizes on, what the first graph takes does not show.
_MANY_SIZES = 16


def _sizing(case: Case) -> Sizing:
    settings = settings_of(case)
    return size_up(subject_of(case), machine_of(case, settings), settings)


def _is_log(case: Case) -> bool:
    """Whether a case is a log of a version that is known: another's rules may differ from those applied to it."""
    return case.engine == "vllm" and "oracle" not in case.id and states_version(case)


def _non_torch(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """Memory outside torch: as logged, and for several ranks else what the profile leaves of the budget."""
        if not _is_log(case):
            return None
        settings = settings_of(case)
        if parse_version(settings.version) < _CLEAN_BOOKS:
            return None
        ranks = settings.tensor_parallel * settings.pipeline_parallel
        nccl_inside = era_for(settings.version, settings.generation).nccl_inside
        if name not in runtime_constants(ranks, machine_of(case, settings).devices[0], nccl_inside):
            return None
        logged = case.measured.get("non_torch_gib")
        if logged is not None:
            return float(logged) * GIB
        if ranks == 1 or subject_of(case).architecture.towers:
            return None
        sizing, activations = _sizing(case), _activation_readings(case)
        left = [_left_over(case, sizing, size, _graph_bytes(sizing)) for size in activations]
        return next((one * GIB for one in left if one is not None), None)

    return observe


def _non_torch_unified(case: Case) -> float | None:
    """What the profile's peak leaves of the budget where the host's memory is the device's, too."""
    if not _is_log(case) or not machine_of(case, settings_of(case)).devices[0].unified_memory:
        return None
    sizing = _sizing(case)
    left = _left_over(case, sizing, _activation_readings(case)[0], _graph_bytes(sizing))
    return None if left is None else left * GIB


def _activations(generation: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """The profile's peak over the rule: as logged, else what budget, weights and cache leave for it."""
        if not _is_log(case):
            return None
        subject, settings = subject_of(case), settings_of(case)
        machine = machine_of(case, settings)
        if machine.devices[0].unified_memory:
            return None  # what is visible of it depends on what the host uses
        if subject.architecture.towers and not settings.language_model_only:
            return None  # what the encoders hold hides the rest
        sizing = size_up(subject, machine, settings)
        if sizing.resolved.era.generation != generation:
            return None
        readings = _activation_readings(case)
        logged = case.measured.get("activation_peak_gib")
        if logged is not None and sizing.resolved.era.whole_account and _graph_bytes(sizing):
            return None  # the logged peak holds an estimate of the graphs
        if logged is None:
            if settings.tensor_parallel > 1 or readings[0] < _LARGE:
                return None  # what NCCL takes, or what drivers show of a card, would decide
            runtime = next(term.bytes for term in sizing.inside if term.name == "runtime")
            logged = _left_over(case, sizing, runtime, _graph_bytes(sizing))
        if logged is None:
            return None
        ratios = (float(logged) * GIB / size for size in readings)
        return min(ratios, key=lambda ratio: abs(log(ratio)))

    return observe


def _activation_readings(case: Case) -> list[int]:
    """The rule's peak, and what it is if FlashInfer sampled, where that may have been."""
    settings = settings_of(case)
    usual = _sizing(case)
    sizings = [usual]
    if usual.resolved.era.flashinfer == "if_installed":
        fused = replace(settings, flashinfer_sampler=True)
        sizings.append(size_up(subject_of(case), machine_of(case, settings), fused))
    return [next(term.bytes for term in one.inside if term.name == "activations") for one in sizings]


def _graph_bytes(sizing: Sizing) -> int:
    terms = (*sizing.inside, *sizing.outside)
    return next((term.bytes for term in terms if term.name == "cuda_graphs"), 0)


def _left_over(case: Case, sizing: Sizing, known: int, graphs: int) -> float | None:
    """GiB of the budget that neither weights, cache, counted graphs nor what is known of the rest take."""
    weights, pool = case.measured.get("weights_gib"), case.measured.get("kv_cache_gib")
    if weights is None or pool is None or not case.fields.get("gpu") or sizing.requested_bytes == 0:
        return None
    if sizing.resolved.era.generation == "v0" or "gpu_memory_utilization" not in case.settings:
        return None
    left = (sizing.requested_bytes - known) / GIB - weights - pool
    if any(term.name == "cuda_graphs" for term in sizing.inside):
        left -= case.measured.get("cuda_graph_estimated_gib") or graphs / GIB
    # A card whose visible total differs from the table's shows as less than nothing.
    return left if left > 0 else None


def _graphs(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """Graph memory for each layer and captured size, where many sizes hide what the first graph takes."""
        logged = case.measured.get("cuda_graph_gib")
        if not _is_log(case) or not logged or logged <= 0:
            return None
        if name == "vllm.graphs_taken" and case.settings.get("enable_lora"):
            return None  # adapters put kernels of their own into the graphs
        found, layers, sizes = _captured(case)
        return float(logged) * GIB / (layers * sizes) if found == name and sizes >= _MANY_SIZES else None

    return observe


def _few_graphs(case: Case) -> float | None:
    """What a few graphs take, however few."""
    logged = case.measured.get("cuda_graph_gib")
    if not _is_log(case) or not logged or logged <= 0:
        return None
    name, _, sizes = _captured(case)
    return float(logged) * GIB if name == "vllm.graphs_taken" and 0 < sizes < _MANY_SIZES else None


def _overestimated(case: Case) -> float | None:
    """What vLLM expects of its graphs beyond the rule for what they take."""
    logged = case.measured.get("cuda_graph_estimated_gib")
    if not _is_log(case) or not logged:
        return None
    name, layers, sizes = _captured(case)
    each = constant(name, "vllm.graphs_taken").value
    taken = max(constant("vllm.graphs_least").value, layers * sizes * each)
    return float(logged) * GIB - taken if sizes else None


def _captured(case: Case) -> tuple[str, int, int]:
    """The constant for a case's graphs, its layers and captured sizes."""
    subject, settings = subject_of(case), settings_of(case)
    machine = machine_of(case, settings)
    sizes = len(size_up(subject, machine, settings).resolved.capture_sizes)
    return graph_constant(subject, machine.devices[0]), len(subject.architecture.layers), sizes


def _pool(case: Case) -> float | None:
    """1 and the share of the budget that the cache got more than its interval explains (0 inside), signed.

    Errors add in quadrature, so what is missing to an error `e` beside a half-width `w` is `sqrt(e^2 - w^2)`. Weights
    are taken as logged: what is stored otherwise than its name says is no error of the profile.
    """
    logged = case.measured.get("kv_cache_gib")
    if not _is_log(case) or logged is None or "gpu_memory_utilization" in case.unknown_settings:
        return None
    sizing = _sizing(case)
    if sizing.requested_bytes == 0:
        return None
    low, high = sizing.pool_interval
    weights = next(term.bytes for term in sizing.inside if term.name == "weights")
    loaded = case.measured.get("weights_gib")
    error = float(logged) * GIB - sizing.pool_bytes
    if loaded is not None:
        error += float(loaded) * GIB - weights
    width = high - sizing.pool_bytes if error > 0 else sizing.pool_bytes - low
    missing = sqrt(max(0.0, error**2 - width**2))
    return 1 + copysign(missing, error) / sizing.requested_bytes


def _visible(case: Case) -> float | None:
    """The total that a program saw over the table's: it differs by driver and system."""
    logged, gpu = case.measured.get("gpu_total_gib"), case.fields.get("gpu")
    if logged is None or not isinstance(gpu, str):
        return None
    usable = find_device(gpu).usable_bytes
    return float(logged) * GIB / usable if usable else None


def _weights(case: Case) -> float | None:
    """The logged peak of loading over the parameters and buffers, where nothing unknown is loaded as well."""
    logged = case.measured.get("weights_gib")
    if not _is_log(case) or logged is None or case.fields.get("checkpoint_format"):
        return None
    if case.settings.get("enable_lora") or case.settings.get("quantization"):
        return None
    weights = next(term.bytes for term in _sizing(case).inside if term.name == "weights")
    return float(logged) * GIB / weights


FITS = (
    Fit("device.visible_ratio", "ratio", _visible),
    Fit("vllm.weights_ratio", "ratio", _weights),
    Fit("vllm.non_torch.one_rank", "bytes", _non_torch("vllm.non_torch.one_rank")),
    Fit("vllm.non_torch.turing", "bytes", _non_torch("vllm.non_torch.turing")),
    Fit("vllm.non_torch.hopper", "bytes", _non_torch("vllm.non_torch.hopper")),
    Fit("vllm.non_torch.many_ranks", "bytes", _non_torch("vllm.non_torch.many_ranks")),
    Fit("vllm.non_torch.nvlink_sharp", "bytes", _non_torch("vllm.non_torch.nvlink_sharp")),
    Fit("vllm.non_torch.amd", "bytes", _non_torch("vllm.non_torch.amd")),
    Fit("vllm.graphs_taken", "bytes", _graphs("vllm.graphs_taken")),
    Fit("vllm.graphs_taken.amd", "bytes", _graphs("vllm.graphs_taken.amd")),
    Fit("vllm.graphs_taken.bitsandbytes", "bytes", _graphs("vllm.graphs_taken.bitsandbytes")),
    Fit("vllm.graphs_least", "bytes", _few_graphs),
    Fit("vllm.graphs_overestimated", "bytes", _overestimated),
    Fit("vllm.activation_ratio.v0", "ratio", _activations("v0")),
    Fit("vllm.activation_ratio.v1", "ratio", _activations("v1")),
    Fit("vllm.non_torch.unified", "bytes", _non_torch_unified),
    Fit("vllm.pool_ratio", "ratio", _pool, conformal=True),
)
