"""What start-ups have in common, worked out once: a planner asks for many devices, formats and dtypes of a cache."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.vllm.loading.loaded import Loaded, loaded
from willfit.engines.vllm.loading.weights import runs_triton_mxfp4
from willfit.engines.vllm.profiling.run import Run, run_of
from willfit.engines.vllm.settings import Settings
from willfit.hardware.device import Device


class Shared:
    """The two halves of start-ups by what each depends on.

    It is of the subjects that it was asked about while they live: it knows them by identity. One model in several
    formats has equal architectures.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[object, ...], Run] = {}
        self._loaded: dict[tuple[object, ...], Loaded] = {}
        self._of_weights: dict[Settings, Settings] = {}
        self._distinct: list[Architecture] = []
        self._classes: dict[int, int] = {}

    def run_of(self, subject: Subject, device: Device, settings: Settings) -> Run:
        """`profiling.run.run_of`."""
        recipe = subject.recipe
        stored = recipe.kv_cache_dtype, recipe.rule is None
        key = self._class_of(subject.architecture), id(subject.draft), stored, device, settings
        known = self._runs.get(key)
        if known is None:
            known = self._runs[key] = run_of(subject, device, settings)
        return known

    def loaded(self, subject: Subject, settings: Settings, dtype: str, device: Device) -> Loaded:
        """`loading.loaded.loaded`, which knows nothing of the cache."""
        of = self._of_weights.get(settings)
        if of is None:
            of = replace(settings, kv_cache_dtype="auto", max_model_len=None)
            self._of_weights[settings] = of
        key = id(subject), of, dtype, runs_triton_mxfp4(settings, device)
        known = self._loaded.get(key)
        if known is None:
            known = self._loaded[key] = loaded(subject, of, dtype, device)
        return known

    def _class_of(self, architecture: Architecture) -> int:
        """The same number for equal architectures."""
        known = self._classes.get(id(architecture))
        if known is None:
            known = next(
                (at for at, one in enumerate(self._distinct) if one == architecture), len(self._distinct)
            )
            if known == len(self._distinct):
                self._distinct.append(architecture)
            self._classes[id(architecture)] = known
        return known
