"""The constants of the vLLM engine, and the start-up logs that show them."""

from __future__ import annotations

from collections.abc import Callable

from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.vllm import machine_of, settings_of, subject_of

#: Before this version allocator slack was booked as memory outside torch.
_CLEAN_BOOKS = (0, 6, 5)


def _sizing(case: Case) -> Sizing:
    settings = settings_of(case)
    return size_up(subject_of(case), machine_of(case, settings), settings)


def _is_log(case: Case) -> bool:
    return case.engine == "vllm" and "oracle" not in case.id


def _non_torch(many: bool) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """Memory outside torch, as logged."""
        logged = case.measured.get("non_torch_gib")
        if not _is_log(case) or logged is None:
            return None
        settings = settings_of(case)
        version = tuple(int(part) for part in settings.version.split(".")[:3] if part.isdigit())
        if version < _CLEAN_BOOKS or (settings.tensor_parallel > 1) != many:
            return None
        return float(logged) * GIB

    return observe


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
        terms = {term.name: term.bytes for term in (*sizing.inside, *sizing.outside)}
        logged = case.measured.get("activation_peak_gib")
        if logged is None:
            logged = _left_over(case, sizing, terms)
        return None if logged is None else float(logged) * GIB / terms["activations"]

    return observe


def _left_over(case: Case, sizing: Sizing, terms: dict[str, int]) -> float | None:
    """GiB of the budget that neither weights, cache, libraries nor counted graphs take."""
    weights, pool = case.measured.get("weights_gib"), case.measured.get("kv_cache_gib")
    device = case.fields.get("gpu")
    if weights is None or pool is None or not device or sizing.requested_bytes == 0:
        return None
    if sizing.resolved.era.generation == "v0" or "gpu_memory_utilization" not in case.settings:
        return None
    left = sizing.requested_bytes / GIB - weights - pool - terms["runtime"] / GIB
    inside = {term.name for term in sizing.inside}
    if "cuda_graphs" in inside:
        left -= case.measured.get("cuda_graph_estimated_gib") or terms["cuda_graphs"] / GIB
    # A card whose visible total differs from the table's shows as less than nothing.
    return left if left > 0 else None


def _graphs(key: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """Graph memory for each layer and captured size."""
        logged = case.measured.get(key)
        if not _is_log(case) or not logged or logged <= 0:
            return None
        sizing = _sizing(case)
        sizes = len(sizing.resolved.capture_sizes)
        layers = len(subject_of(case).architecture.layers)
        return float(logged) * GIB / (layers * sizes) if sizes else None

    return observe


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
    Fit("vllm.non_torch.one_rank", "bytes", _non_torch(many=False)),
    Fit("vllm.non_torch.many_ranks", "bytes", _non_torch(many=True)),
    Fit("vllm.graphs_taken", "bytes", _graphs("cuda_graph_gib")),
    Fit("vllm.graphs_estimated", "bytes", _graphs("cuda_graph_estimated_gib")),
    Fit("vllm.activation_ratio.v0", "ratio", _activations("v0")),
    Fit("vllm.activation_ratio.v1", "ratio", _activations("v1")),
)
