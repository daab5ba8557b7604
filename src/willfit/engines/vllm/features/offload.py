"""Weights that vLLM keeps in host RAM: read in place (UVA), or copied to the device ahead of their use.

`model_executor/offloader/` (0.17), before that `models/utils.py: maybe_offload_to_cpu`. Only layers are offloaded,
parameter by parameter in the order of the modules, so what is moved is at least what was asked for, and by at most
one parameter more.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from willfit.architectures.model import Layer, Tensor
from willfit.engines.base import Subject
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.loading.pieces import is_loaded, rank_bytes
from willfit.engines.vllm.loading.slack import MODULES
from willfit.engines.vllm.loading.stages import pipeline_stages
from willfit.engines.vllm.options import Offload
from willfit.engines.vllm.settings import Settings
from willfit.hardware.device import Device
from willfit.quantities import ceil_div

#: Groups of layers are copied ahead since this version.
_PREFETCHES: Version = (0, 17)


@dataclass(frozen=True, slots=True)
class Offloaded:
    """What is moved from one rank.

    Attributes
    ----------
    host_bytes
        Parameters in pinned host RAM.
    buffer_bytes
        Buffers on the device that layers are copied into; 0 if they are read in place.
    """

    host_bytes: int = 0
    buffer_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """By how much the device's weights shrink."""
        return self.host_bytes - self.buffer_bytes


def offloaded(subject: Subject, settings: Settings, dtype: str, device: Device) -> Offloaded:
    """What the settings move to host RAM from the fullest rank."""
    asked = settings.offload
    if asked is None:
        return Offloaded()
    layers = _layers(subject, settings)
    sizes = _LayerSizes(subject, settings, dtype, device)
    if asked.group_size:
        return _prefetched(layers, sizes, asked)
    moved = 0
    for layer in layers:
        for name, size in sizes.of(layer):
            if moved >= asked.uva_bytes:
                return Offloaded(moved)
            if _matches(name, asked.uva_params):
                moved += size
    return Offloaded(moved)


def offload_refusal(settings: Settings) -> str:
    """Why the offloading is not what this version can do; empty if it can."""
    asked = settings.offload
    if asked is None or not asked.group_size:
        return ""
    if parse_version(settings.version) < _PREFETCHES:
        return "this version of vLLM does not copy groups of layers ahead; use --cpu-offload-gb"
    if asked.num_in_group > asked.group_size:
        return f"--offload-num-in-group {asked.num_in_group} is more than --offload-group-size {asked.group_size}"
    return "" if asked.prefetch_step else "--offload-prefetch-step must be at least 1"


def _prefetched(layers: tuple[Layer, ...], sizes: _LayerSizes, asked: Offload) -> Offloaded:
    """The last layers of each group are moved, and the device keeps a slot for each layer that is ahead."""
    moved = 0
    slot: dict[tuple[str, int], int] = {}
    for index, layer in enumerate(layers):
        if index % asked.group_size < asked.group_size - asked.num_in_group:
            continue
        for name, size in sizes.of(layer):
            if _matches(name, asked.prefetch_params):
                moved += size
                # Parameters of one name and shape share their slots.
                slot[name, size] = size
    return Offloaded(moved, min(moved, asked.prefetch_step * sum(slot.values())))


def _layers(subject: Subject, settings: Settings) -> tuple[Layer, ...]:
    layers = subject.architecture.layers
    if settings.pipeline_parallel == 1:
        return layers
    return layers[: max(pipeline_stages(len(layers), settings.pipeline_parallel))]


def _matches(name: str, segments: tuple[str, ...]) -> bool:
    return not segments or any(f".{segment}." in f".{name}." for segment in segments)


class _LayerSizes:
    """Bytes of the parameters of a layer on a rank, by their names in vLLM and in its order."""

    def __init__(self, subject: Subject, settings: Settings, dtype: str, device: Device) -> None:
        # A tensor that several layers share may be stored in several formats: each layer takes the mean.
        sums: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for line in subject.lines:
            if is_loaded(line, subject, settings):
                size, times = sums[id(line.tensor)]
                added = rank_bytes(line, subject, settings, dtype, device)
                sums[id(line.tensor)] = size + added, times + line.times
        self._each = {key: ceil_div(size, max(1, times)) for key, (size, times) in sums.items()}
        self._known: dict[int, list[tuple[str, int]]] = {}

    def of(self, layer: Layer) -> list[tuple[str, int]]:
        """(name, bytes) of each parameter, norms last."""
        known = self._known.get(id(layer))
        if known is None:
            merged: dict[str, int] = defaultdict(int)
            for tensor in sorted(layer.tensors, key=lambda tensor: tensor.part == "norm"):
                merged[_parameter(tensor)] += self._each.get(id(tensor), 0)
            known = self._known[id(layer)] = [(name, size) for name, size in merged.items() if size]
        return known


def _parameter(tensor: Tensor) -> str:
    """What vLLM calls the parameter that a stored tensor becomes part of."""
    name, _, kind = tensor.name.rpartition(".")
    if tensor.part == "experts":
        module = tensor.name.partition(".experts.")[0]
        half = "w2" if "down_proj" in tensor.name or ".w2." in tensor.name else "w13"
        return f"{module}.experts.{half}_{'bias' if tensor.kind == 'bias' else 'weight'}"
    parent, _, leaf = name.rpartition(".")
    return f"{parent}.{MODULES.get(leaf, leaf)}.{kind}"
