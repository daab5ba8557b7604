"""What a process of llama.cpp takes of a device beside its buffers, where drivers and logs tell."""

from __future__ import annotations

from typing import Any

from willfit.engines.llama_cpp import estimate_alone
from willfit.file_types import known_quantization
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.llama_builds import builds_of
from willfit.validation.predictors.llama_cpp import (
    machine_of,
    programs_of,
    settings_of,
    subject_of,
)

#: No context is known to be larger: where more is in use, something else uses the card as well.
_LARGEST = GIB

_ENGINES = ("llama.cpp", "ik_llama.cpp")
_BUFFERS = ("model_buffer_mib", "kv_buffer_mib", "rs_buffer_mib", "compute_buffer_mib")
#: Without them, a sum of logged buffers lacks something.
_NEEDED = ("model_buffer_mib", "compute_buffer_mib")


def _cuda(case: Case) -> float | None:
    return _context(case) if case.settings.get("backend") in ("cuda", "rocm") else None


def _vulkan(case: Case) -> float | None:
    return _context(case) if case.settings.get("backend") == "vulkan" else None


def _context(case: Case) -> float | None:
    """What is in use on a card beside the buffers of the process."""
    gpu = case.fields.get("gpu")
    if case.engine not in _ENGINES or (isinstance(gpu, str) and find_device(gpu).unified_memory):
        return None
    if not isinstance(gpu, str) and not case.fields.get("gpu_stated"):
        return None
    size = _beside(case)
    return size if size is not None and 0 < size < _LARGEST else None


def _beside(case: Case) -> float | None:
    measured = case.measured
    table = measured.get("unaccounted_mib")
    if isinstance(table, dict):
        return min(float(size) for size in table.values()) * MIB
    shown = measured.get("driver_delta_gib") or measured.get("nvidia_smi_gib")
    if not isinstance(shown, int | float):
        return None
    if all(key in measured for key in _NEEDED):
        return float(shown) * GIB - _logged(measured) * MIB
    stated = str(case.fields.get("gguf_type") or "")
    if known_quantization(stated) is None or case.unknown_settings:
        return None
    build = builds_of(case)[1]
    settings = settings_of(case, build, programs_of(case, build)[0])
    answer = estimate_alone(subject_of(case), machine_of(case), settings)
    return float(shown) * GIB - sum(term.bytes for term in answer.devices[0].terms if term.name != "context")


def _logged(measured: dict[str, Any]) -> float:
    """MiB of the buffers that a log puts on its device."""
    tables = [measured.get(key) or {} for key in _BUFFERS]
    on_device = [
        float(size)
        for table in tables
        for place, size in table.items()
        if not place.startswith("CPU") and "Host" not in place
    ]
    return sum(on_device) + float(measured.get("mtp_context_mib") or 0)


FITS = (
    Fit("llama_cpp.context.cuda", "bytes", _cuda, once_for="gpu"),
    Fit("llama_cpp.context.vulkan", "bytes", _vulkan, once_for="gpu"),
)
