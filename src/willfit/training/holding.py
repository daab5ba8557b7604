"""How each parameter of the model lies on a rank: dtype, format, whether it is trained, what adapts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod

from willfit.architectures.model import Architecture, Tensor
from willfit.formats.base import Format
from willfit.formats.bitsandbytes import Bnb4, BnbInt8
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.weights import rank_shape
from willfit.quantities import DTYPE_BYTES
from willfit.training.adapting import Adapting, adapted
from willfit.training.freezing import matches
from willfit.training.modelling.builder import LowRank, Stored
from willfit.training.modelling.low_bits import is_quantized
from willfit.training.packing import packing
from willfit.training.parameters import Parameter
from willfit.training.settings import AdapterSettings, LayoutSettings, TrainingSettings
from willfit.training.sharding.base import Unit
from willfit.training.tape import Weight

#: Methods without a rule of their own (`willfit.training.packing`) whose product first makes a 16-bit copy of the whole
#: matrix, as bitsandbytes' in 4 bits does; others read the packed matrix as they multiply.
_EXPANDING = ("aqlm",)


class Holding:
    """How a run holds a model's tensors.

    Parameters
    ----------
    architecture, recipe
        The model, and the formats of its frozen base.
    settings
        The run's, filled in.

    Attributes
    ----------
    adapting
        What an adapter adds; None without one, or where the framework's model code counts its own.
    """

    def __init__(self, architecture: Architecture, recipe: Recipe, settings: TrainingSettings) -> None:
        found = adapted(architecture, settings, recipe.rule is not None)
        weights = settings.precision.weights or "bf16"
        lying = (
            settings.adapter.dtype
            if settings.adapter is not None and settings.layout.data == "fsdp2"
            else None
        )
        self.adapting = None if found is None else Adapting(found, architecture, weights, lying)
        self.architecture = architecture
        self._recipe = recipe
        self._settings = settings
        self._found: dict[int, Stored] = {}
        self._formats: dict[int, Format] = {}
        self._own: dict[str, Tensor] = {}

    def stored(self, tensor: Tensor) -> Stored:
        """What a product sees of a tensor."""
        key = id(tensor)
        if key not in self._found:
            self._found[key] = self._stored(tensor)
        return self._found[key]

    def format_of(self, tensor: Tensor) -> Format:
        """The format that a tensor lies in."""
        key = id(tensor)
        if key not in self._formats:
            self._formats[key] = self._format(tensor)
        return self._formats[key]

    def unit(self, tensors: Iterable[Tensor]) -> Unit:
        """The parameters of one piece of the model."""
        size = gathered = trained = gradients = largest = experts = 0
        compute = DTYPE_BYTES[self._settings.precision.compute or "bf16"]
        for tensor in tensors:
            shape, copies = self._on_rank(tensor)
            stored, kept = self.stored(tensor), self.format_of(tensor).bytes(shape) * copies
            weight = stored.weight
            size += kept
            gathered += weight.elements * compute if isinstance(self.format_of(tensor), Plain) else kept
            if weight.trained:
                trained += weight.elements
                gradients += weight.gradient_bytes
                experts += weight.elements if tensor.part == "experts" else 0
            largest = max(largest, weight.elements // copies)
            if stored.adapter is not None:
                adapter = stored.adapter
                added = adapter.rank * (adapter.inputs + adapter.outputs) * copies
                trained += added
                size += added * DTYPE_BYTES[adapter.dtype]
                gathered += added * compute
                gradients += added * DTYPE_BYTES[adapter.dtype]
        return Unit(size, gathered, trained, gradients, largest, experts)

    def dtype_of(self, parameter: Parameter) -> str:
        """Dtype of a trained parameter: an adapter's, or that of a module that is trained beside one."""
        own = self._own.get(parameter.name)
        if own is not None and isinstance(stored := self.format_of(own), Plain):
            return stored.dtype
        return self.adapting.dtype if self.adapting is not None else "fp32"

    def trained(self, layers: range) -> list[Parameter]:
        """Parameters of some layers, and of what stands before and behind, that get gradients."""
        found = []
        for tensor, times in weighted(self.architecture, layers):
            shape, copies = self._on_rank(tensor)
            stored = self.stored(tensor)
            copies *= times
            if stored.weight.trained:
                self._own[tensor.name] = tensor
                found.append(Parameter(tensor.name, shape, tensor.part, tensor.kind, copies))
            adapter = stored.adapter
            if adapter is not None:
                matrices = {
                    "lora_A": (adapter.rank, adapter.inputs),
                    "lora_B": (adapter.outputs, adapter.rank),
                }
                found += [
                    Parameter(f"{tensor.name}.{name}", matrix, tensor.part, "linear", copies)
                    for name, matrix in matrices.items()
                ]
        if self.adapting is not None:
            whole = len(self.architecture.layers) or 1
            found += [
                replace(one, copies=one.copies * len(layers) // whole) if one.copies >= whole else one
                for one in self.adapting.parameters
            ]
        return found

    def quantizable(self, layers: range) -> int:
        """Elements of some layers' matrices whose products may run in few bits."""
        found = 0
        for tensor, times in weighted(self.architecture, layers):
            if is_quantized(tensor):
                shape, copies = self._on_rank(tensor)
                found += prod(shape) * copies * times
        return found

    def _on_rank(self, tensor: Tensor) -> tuple[tuple[int, ...], int]:
        """Shape and copies of a tensor on a rank: experts are divided among expert-parallel ranks first."""
        layout = self._settings.layout
        if tensor.part != "experts":
            return rank_shape(tensor, layout.tp), tensor.copies
        shape = rank_shape(tensor, expert_tensor_ranks(layout))
        if tensor.copies > 1:
            return shape, max(1, tensor.copies // layout.ep)
        return (max(1, shape[0] // layout.ep), *shape[1:]), 1

    def _format(self, tensor: Tensor) -> Format:
        precision = self._settings.precision
        weights = precision.weights or "bf16"
        stored = self._recipe.format_of(tensor.name.replace("{layer}", "0"), tensor)
        if not isinstance(stored, Plain):
            return stored
        if tensor.kind == "buffer":
            return Plain("fp32")
        quantization = self._settings.quantization
        upcast = quantization.upcast if quantization is not None else None
        if upcast == "all" or (upcast == "norms" and tensor.kind == "norm"):
            return Plain("fp32")
        if self._is_trained(tensor) and precision.trainable:
            return Plain(precision.trainable)
        return Plain(weights)

    def _stored(self, tensor: Tensor) -> Stored:
        settings = self._settings
        stored = self.format_of(tensor)
        shape, elements = self._on_rank(tensor)
        for size in shape:
            elements *= size
        adapter = self._adapter(tensor, shape)
        forward = None if self.adapting is None else self.adapting.forward(tensor)
        compute = settings.precision.compute or "bf16"
        if isinstance(stored, Plain):
            # FSDP gathers parameters in the compute dtype, and their gradients have it until they are scattered.
            gathered = (settings.layout.data or "").startswith(
                "fsdp"
            ) and settings.precision.weights != compute
            dtype = compute if gathered else stored.dtype
            # Beside an adapter, what is trained of the model itself gets gradients in its own dtype.
            narrow = "" if settings.adapter is not None else settings.precision.gradients or ""
            gradient = compute if gathered else narrow
            return Stored(Weight(elements, dtype, self._is_trained(tensor), gradient), 0, adapter, forward)
        method = settings.quantization.method if settings.quantization else self._recipe.method
        bits = 4 if isinstance(stored, Bnb4) else 8 if isinstance(stored, BnbInt8) else 0
        expanded = elements * DTYPE_BYTES[compute] if bits == 4 or method in _EXPANDING else 0
        how = packing(method, settings.versions)
        return Stored(Weight(elements, compute, False), expanded, adapter, forward, bits, how)

    def _is_trained(self, tensor: Tensor) -> bool:
        settings = self._settings
        if tensor.kind == "buffer":
            return False
        if self.adapting is not None and self.adapting.trains(tensor):
            return True
        if settings.adapter is not None:
            return any(_named(tensor.name, name) for name in settings.adapter.modules_to_save)
        if settings.trained:
            return any(matches(tensor, pattern) for pattern in settings.trained)
        return not any(matches(tensor, pattern) for pattern in settings.frozen)

    def _adapter(self, tensor: Tensor, shape: tuple[int, ...]) -> LowRank | None:
        adapter = self._settings.adapter
        if adapter is None or adapter.kind not in ("lora", "dora") or tensor.kind != "linear":
            return None
        if self._settings.framework != "litgpt" or not adapts(adapter, tensor):
            return None
        dropout = adapter.dropout or 0.0
        return LowRank(adapter.rank or 8, shape[-1], shape[-2], adapter.dtype or "fp32", dropout)


def expert_tensor_ranks(layout: LayoutSettings) -> int:
    """Tensor-parallel ranks of experts: those of the rest, unless experts are spread whole."""
    if layout.etp is not None:
        return layout.etp
    return layout.tp if layout.ep == 1 else 1


def weighted(architecture: Architecture, layers: range) -> Iterator[tuple[Tensor, int]]:
    """Distinct tensors of a pipeline stage, in the model's order, with how often each occurs."""
    if layers.start == 0:
        for tower in architecture.towers:
            for tensor in tower.tensors:
                yield tensor, 1
        for tensor in (*architecture.embeddings, *architecture.shared):
            yield tensor, 1
        for layer, times in architecture.encoder_blocks:
            for tensor in layer.tensors:
                yield tensor, times
    counts = Counter(id(architecture.layers[index]) for index in layers)
    for layer, _ in architecture.blocks:
        for tensor in layer.tensors if counts[id(layer)] else ():
            yield tensor, counts[id(layer)]
    if layers.stop == len(architecture.layers):
        for tensor in architecture.head:
            yield tensor, 1


def adapts(adapter: AdapterSettings, tensor: Tensor) -> bool:
    """Whether an adapter's targets name a matrix."""
    if "all-linear" in adapter.targets:
        return tensor.part not in ("head", "router")
    return any(_named(tensor.name, target) for target in adapter.targets)


def _named(name: str, module: str) -> bool:
    """Whether a tensor belongs to a module of that name."""
    return f".{module}." in f".{name}"
