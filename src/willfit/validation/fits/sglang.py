"""The constants of the SGLang engine, and the start-up logs that show them."""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, sqrt

from willfit.engines.sglang.loading import before_constant, held_bytes, loading_constant, ratio_constant
from willfit.engines.sglang.sizing import beside_constant, graph_constant
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.sglang import (
    devices_of,
    free_before,
    is_requantized,
    machine_of,
    settings_of,
    sizing_of,
    subject_of,
)

#: By how much cards of a class may differ for what was free on one of them to say what is taken.
_ALIKE = 0.02

#: A device of which more than this was taken before had other programs on it.
_SHARED = 0.25


def _logged_weights(case: Case) -> float | None:
    """Bytes that free memory fell by while the weights were loaded."""
    logged = case.measured.get("weights_gib")
    before, after = (case.measured.get(f"avail_{when}_weights_gib") for when in ("before", "after"))
    if logged is None and before is not None and after is not None:
        logged = before - after
    return None if case.engine != "sglang" or logged is None else float(logged) * GIB


def _before(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """What the first reading of free memory was less than the card's."""
        free = free_before(case) if case.engine == "sglang" else None
        if free is None:
            return None
        settings = settings_of(case)
        devices = devices_of(case, settings)
        least, most = devices[0].usable_bytes or 0, devices[-1].usable_bytes or 0
        if devices[0].vendor != "NVIDIA" or most > least * (1 + _ALIKE):
            return None
        if before_constant(settings, devices[0]) != name or free < least * (1 - _SHARED):
            return None
        return float((least + most) // 2 - free)

    return observe


def _loading(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """What loading took beyond the segments of weights that are stored as they are loaded."""
        logged = _logged_weights(case)
        if logged is None or is_requantized(case):
            return None
        settings, subject = settings_of(case), subject_of(case)
        device, sizing = machine_of(case, settings).devices[0], sizing_of(case, settings)
        era = sizing.resolved.era
        if loading_constant(device, era) != name or subject.recipe.name not in ("bf16", "fp16"):
            return None
        stage = 0 if settings.pp_size > 1 else None
        return logged - held_bytes(subject, settings, sizing.dtype, era, stage)[1]

    return observe


def _weights(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """What free memory fell by over what the rule and what loads beside it give."""
        logged = _logged_weights(case)
        if logged is None:
            return None
        settings, subject = settings_of(case), subject_of(case)
        if ratio_constant(subject) != name or settings.pp_size > 1:
            return None
        return logged / sizing_of(case, settings).loaded[0].bytes

    return observe


def _graphs(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """Graph memory for each layer and captured size."""
        logged = case.measured.get("cuda_graph_gib")
        if case.engine != "sglang" or not logged:
            return None
        settings = settings_of(case)
        device = machine_of(case, settings).devices[0]
        if graph_constant(device) != name or device.vendor not in ("NVIDIA", ""):
            return None
        sizes = len(sizing_of(case, settings).resolved.capture_sizes)
        layers = len(subject_of(case).architecture.layers)
        return float(logged) * GIB / (layers * sizes) if sizes else None

    return observe


def _after_pools(name: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """What is missing after the pools beyond them, weights and pools as logged where they are."""
        end, after = (case.measured.get(f"avail_after_{what}_gib") for what in ("pool", "weights"))
        if case.engine != "sglang" or end is None or after is None or is_requantized(case):
            return None
        settings = settings_of(case)
        sizing = sizing_of(case, settings)
        if beside_constant(sizing.unified_memory) != name or settings.pp_size > 1:
            return None
        logged = case.measured.get("kv_cache_tokens")
        if settings.max_total_tokens is None and (logged is None or sizing.pools.cells.window):
            return None
        pools = sizing.pools
        tokens = logged if logged is not None else pools.tokens
        taken = (tokens + pools.page) * sizing.own_cells.full + pools.state_bytes
        taken += sum(term.bytes for term in sizing.loaded[1:])
        taken += sum(term.bytes for term in sizing.after if term.name == "request_table")
        return float(after - end) * GIB - taken

    return observe


def _pool(case: Case) -> float | None:
    """1 and the share of free memory that the pools got more than their interval explains (0 inside), signed.

    Errors add in quadrature, so what is missing to an error `e` beside a half-width `w` is `sqrt(e^2 - w^2)`. Weights
    are taken as logged.
    """
    tokens = case.measured.get("kv_cache_tokens")
    if case.engine != "sglang" or tokens is None or "mem_fraction_static" in case.unknown_settings:
        return None
    settings = settings_of(case)
    if free_before(case) is None or settings.max_total_tokens is not None:
        return None
    sizing = sizing_of(case, settings)
    if not sizing.pools.tokens or not sizing.free_bytes:
        return None
    error = sizing.available * (tokens / sizing.pools.tokens - 1)
    logged = _logged_weights(case)
    if logged is not None and settings.pp_size == 1:
        error += logged - sizing.loaded[0].bytes
    low, high = sizing.available_interval
    width = high - sizing.available if error > 0 else sizing.available - low
    return 1 + copysign(sqrt(max(0.0, error**2 - width**2)), error) / sizing.free_bytes


FITS = (
    *(
        Fit(f"sglang.before.{where}", "bytes", _before(f"sglang.before.{where}"))
        for where in ("one_rank", "many_ranks", "unified")
    ),
    Fit("sglang.loading.kernels", "bytes", _loading("sglang.loading.kernels")),
    Fit("sglang.loading.unified", "bytes", _loading("sglang.loading.unified")),
    *(
        Fit(name, "ratio", _weights(name), conformal=True)
        for name in (
            "sglang.weights_ratio",
            "sglang.weights_ratio.quantized",
            "sglang.weights_ratio.integer",
        )
    ),
    Fit("sglang.after_pools", "bytes", _after_pools("sglang.after_pools")),
    Fit("sglang.after_pools.unified", "bytes", _after_pools("sglang.after_pools.unified")),
    Fit("sglang.graphs_taken", "bytes", _graphs("sglang.graphs_taken")),
    Fit("sglang.graphs_taken.unified", "bytes", _graphs("sglang.graphs_taken.unified")),
    Fit("sglang.pool_ratio", "ratio", _pool, conformal=True),
)
