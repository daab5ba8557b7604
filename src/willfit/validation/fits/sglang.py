"""The constants of the SGLang engine, and the start-up logs that show them."""

from __future__ import annotations

from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.sglang import first_stage_bytes, settings_of, sizing_of
from willfit.validation.predictors.vllm import subject_of


def _unified(case: Case) -> float | None:
    """What free memory fell by while the weights were loaded, beyond their bytes, where it is the host's."""
    found = _weights_of(case)
    return found[1] - found[2] if found is not None and found[0] else None


def _weights(case: Case) -> float | None:
    """What free memory fell by over the bytes of the weights, on cards with memory of their own."""
    found = _weights_of(case)
    return found[1] / found[2] if found is not None and not found[0] else None


def _weights_of(case: Case) -> tuple[bool, float, float] | None:
    """(whether memory is the host's, logged bytes, computed ones), where card and checkpoint are known.

    Both are of a rank of the first stage.
    """
    logged, gpu = case.measured.get("weights_gib"), case.fields.get("gpu")
    before, after = (case.measured.get(f"avail_{when}_weights_gib") for when in ("before", "after"))
    if logged is None and before is not None and after is not None:
        logged = before - after
    if case.engine != "sglang" or logged is None:
        return None
    device = find_device(gpu) if gpu else None
    if device is not None and device.vendor != "NVIDIA":
        return None
    if case.fields.get("checkpoint_format") and case.fields.get("model") != case.fields.get("catalogue"):
        return None  # quantized by someone else: what stayed in 16 bits is not known
    unified = device is not None and device.unified_memory
    return unified, float(logged) * GIB, float(first_stage_bytes(case))


def _graphs(case: Case) -> float | None:
    """Graph memory for each layer and captured size."""
    logged, gpu = case.measured.get("cuda_graph_gib"), case.fields.get("gpu")
    if case.engine != "sglang" or not logged or (gpu and find_device(gpu).vendor != "NVIDIA"):
        return None
    sizes = len(sizing_of(case, settings_of(case)).resolved.capture_sizes)
    layers = len(subject_of(case).architecture.layers)
    return float(logged) * GIB / (layers * sizes) if sizes else None


FITS = (
    Fit("sglang.weights_ratio", "ratio", _weights),
    Fit("sglang.loading.unified", "bytes", _unified),
    Fit("sglang.graphs_taken", "bytes", _graphs),
)
