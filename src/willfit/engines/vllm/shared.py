"""What start-ups have in common, worked out once: a planner asks for many devices, formats and dtypes of a cache."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from willfit.engines.base import Subject
from willfit.engines.vllm.devices.support import device_refusal
from willfit.engines.vllm.loading.loaded import Loaded, loaded
from willfit.engines.vllm.loading.pieces import runs_triton_mxfp4
from willfit.engines.vllm.profiling.run import Run, run_of
from willfit.engines.vllm.profiling.runner import uses_v2_runner
from willfit.engines.vllm.refusals import refusal
from willfit.engines.vllm.settings import Settings
from willfit.formats.fp4 import Mxfp4
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES


class Shared:
    """The parts of start-ups by what each depends on.

    It is of the subjects that it was asked about while they live: it knows them by identity. All else it keeps, and
    finds the equal of what it sees for the first time: one model in several formats has equal architectures.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[object, ...], Run] = {}
        self._loaded: dict[tuple[object, ...], Loaded] = {}
        self._refusals: dict[tuple[int, int], str] = {}
        self._refused: dict[tuple[int, int, int], str] = {}
        self._of_devices: dict[int, Settings] = {}
        self._of_weights: dict[int, Settings] = {}
        self._padded: dict[int, bool] = {}
        self._numbers: dict[int, tuple[object, int]] = {}
        self._hashed: dict[Hashable, int] = {}
        self._compared: list[tuple[object, int]] = []

    def run_of(self, subject: Subject, device: Device, settings: Settings) -> Run:
        """`profiling.run.run_of`."""
        recipe = subject.recipe
        key = (
            self._number(subject.architecture, hashed=False),
            id(subject.draft),
            recipe.kv_cache_dtype,
            uses_v2_runner(subject, settings),
            recipe.method == "bitsandbytes",
            self._number(device),
            self._number(settings),
        )
        known = self._runs.get(key)
        if known is None:
            known = self._runs[key] = run_of(subject, device, settings)
        return known

    def loaded(self, subject: Subject, settings: Settings, dtype: str, device: Device) -> Loaded:
        """`loading.loaded.loaded`, which knows nothing of the cache."""
        number = self._number(settings)
        of = self._of_weights.get(number)
        if of is None:
            of = self._of_weights[number] = replace(settings, kv_cache_dtype="auto", max_model_len=None)
        padded = self._padded.get(id(subject))
        if padded is None:
            padded = subject.recipe.method == "mxfp4" or any(
                isinstance(line.format, Mxfp4) for line in subject.lines
            )
            self._padded[id(subject)] = padded
        kernels = padded and runs_triton_mxfp4(settings, device)
        key = id(subject), self._number(of), DTYPE_BYTES[dtype], kernels
        known = self._loaded.get(key)
        if known is None:
            known = self._loaded[key] = loaded(subject, of, dtype, device)
        return known

    def refusal(self, subject: Subject, settings: Settings) -> str:
        """`refusals.refusal`."""
        key = id(subject), self._number(settings)
        known = self._refusals.get(key)
        if known is None:
            known = self._refusals[key] = refusal(subject, settings)
        return known

    def device_refusal(self, subject: Subject, settings: Settings, device: Device) -> str:
        """`devices.support.device_refusal`, which knows nothing of layouts."""
        number = self._number(settings)
        of = self._of_devices.get(number)
        if of is None:
            of = self._of_devices[number] = replace(
                settings, tensor_parallel=1, pipeline_parallel=1, data_parallel=1, expert_parallel=False
            )
        key = id(subject), self._number(of), self._number(device)
        known = self._refused.get(key)
        if known is None:
            known = self._refused[key] = device_refusal(subject, of, device)
        return known

    def _number(self, one: object, hashed: bool = True) -> int:
        """The same number for the same object, and for equal ones; those that take long to hash are compared."""
        known = self._numbers.get(id(one))
        if known is None:
            number = len(self._numbers)
            if hashed:
                number = self._hashed.setdefault(one, number)
            else:
                equal = next((at for other, at in self._compared if other == one), None)
                if equal is None:
                    self._compared.append((one, number))
                number = number if equal is None else equal
            known = self._numbers[id(one)] = one, number
        return known[1]
