"""The constant of Ollama's own engine, and the logs that show it."""

from __future__ import annotations

from willfit.engines.ollama.estimate import read
from willfit.engines.ollama.estimating import estimate_memory
from willfit.engines.ollama.own_answer import place
from willfit.engines.ollama.settings import resolve
from willfit.quantities import MIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.ollama import machine_of, settings_of, subject_of


def _graph_ratio(case: Case) -> float | None:
    """The compute graph on a device that holds the whole model, over llama.cpp's graph of it."""
    logged = case.measured.get("compute_buffer_mib")
    if case.engine != "ollama" or case.settings.get("runner") != "ollama-engine" or not logged:
        return None
    machine, settings = machine_of(case), settings_of(case)
    if len(machine.devices) != 1 or case.settings.get("n_gpu_layers") != "all":
        return None
    subject, facts = read(subject_of(case), settings)
    resolved = resolve(facts, machine, settings)
    if resolved.runner != "ollama-engine":
        return None
    decides = None if resolved.era.measured else estimate_memory(facts, settings, resolved)
    graphs = place(subject, machine, facts, settings, resolved, decides).layout.graphs
    device = next((value for name, value in logged.items() if not name.startswith("CPU")), None)
    if not device or not graphs.known or not graphs.whole or not graphs.devices[0]:
        return None
    return float(device) * MIB / graphs.devices[0]


FITS = (Fit("ollama.graph_ratio", "ratio", _graph_ratio),)
