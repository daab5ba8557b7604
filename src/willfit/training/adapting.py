"""What an adapter makes of a run: which modules it wraps, what it adds to each piece, and its steps on a tape."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from willfit.architectures.model import Architecture, Tensor
from willfit.engines.transformers.eras import NEWEST
from willfit.engines.versions import parse_version
from willfit.quantities import DTYPE_BYTES, dtype_name
from willfit.training.adapters import Adapted, adapt, swift, unsloth
from willfit.training.adapters.adapt import NEWEST_PEFT
from willfit.training.adapters.forward import AdapterForward
from willfit.training.packing import method_of
from willfit.training.parameters import Parameter
from willfit.training.settings import TrainingSettings
from willfit.training.sharding.base import Unit

#: Names by which torch calls dtypes, as adapters have them.
_TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Names of Houlsby's adapters, which ms-swift has.
_BOTTLENECKS = ("adapter", "bottleneck")

#: The optimizer that freezes LoRA's A (PEFT `optimizers/lorafa.py: create_lorafa_optimizer`).
LORA_FA = "lora_fa"

#: Frameworks whose adapters are their own, and are counted with their model code.
_OWN = ("litgpt",)


def adapted(architecture: Architecture, settings: TrainingSettings, quantized: bool) -> Adapted | None:
    """What PEFT would make of the run's adapter; None without one, or where the framework has its own.

    Parameters
    ----------
    architecture
        The model.
    settings
        The run's, filled in.
    quantized
        Whether the base is.

    Raises
    ------
    BadInput
        If the method is not known, or nothing is named as its targets are.
    """
    if settings.adapter is None or settings.framework in _OWN:
        return None
    precision = settings.precision
    compute = precision.compute or precision.weights or "bf16"
    peft = settings.versions.get("peft")
    transformers = settings.versions.get("transformers")
    if transformers is None and settings.framework == "transformers":
        transformers = settings.version
    asked = settings.adapter
    model_dtype = _TORCH.get(compute if quantized else precision.weights or compute, "bfloat16")
    autocast = _TORCH.get(compute) if precision.autocast else None
    if asked.kind in _BOTTLENECKS:
        return swift.houlsby(architecture, asked, model_dtype, autocast)
    if settings.optimizer.name == LORA_FA:
        asked = replace(asked, options={**asked.options, LORA_FA: True})
    found = adapt(
        architecture,
        replace(asked, dtype=_TORCH.get((compute if _cast(settings) else asked.dtype) or "")),
        peft=parse_version(peft) if peft else NEWEST_PEFT,
        transformers=parse_version(transformers or NEWEST),
        model_dtype=model_dtype,
        quantized=quantized,
        gptq=settings.quantization is not None and method_of(settings.quantization.method) == "gptq",
        autocast=autocast,
    )
    return replace(found, forwards={**found.forwards, **_fused(found, settings, quantized, compute)})


def _cast(settings: TrainingSettings) -> bool:
    """Whether FSDP2's policy casts what is trained when it is gathered (`MixedPrecisionPolicy.param_dtype`)."""
    precision = settings.precision
    return (
        settings.layout.data == "fsdp2"
        and not precision.autocast
        and precision.trainable != precision.compute
    )


def _fused(
    found: Adapted, settings: TrainingSettings, quantized: bool, compute: str
) -> dict[str, AdapterForward]:
    """Forwards by the functions of Unsloth or fms-acceleration where they run, in the compute dtype."""
    asked = settings.adapter
    assert asked is not None
    own = "lora" in settings.kernels and unsloth.fuses(asked)
    foak = "foak_lora" in settings.kernels and unsloth.foak_fuses(asked, quantized)
    if not (own or foak):
        return {}
    shapes = {
        one.name.removesuffix(".lora_A.weight"): one.shape for one in found.added if "lora_A" in one.name
    }
    modules = [module for module in found.modules if module.name in shapes]
    ranks = {module.name: shapes[module.name][0] for module in modules}
    dtype = _TORCH.get(compute, "bfloat16")
    if foak:
        return unsloth.foak_fused(modules, ranks, dtype, found.dtype, bool(asked.dropout))
    return unsloth.fused(modules, ranks, dtype, found.dtype)


class Adapting:
    """An adapter among the pieces of a model.

    Parameters
    ----------
    found
        What it adds.
    architecture
        The model.
    weights
        Dtype of the model's own weights, of which modules that are trained whole keep a frozen original.
    dtype
        Dtype of what is added as it lies in memory; that in which it computes if None.
    """

    def __init__(
        self, found: Adapted, architecture: Architecture, weights: str, dtype: str | None = None
    ) -> None:
        self.found = found
        self.dtype = dtype or dtype_name(found.dtype)
        self._wrapped = frozenset(module.name for module in found.modules)
        self._fused = {member: module.name for module in found.modules for member in module.members}
        self._layers = max(1, len(architecture.layers))
        self._weights = weights

    def wraps(self, tensor: Tensor) -> bool:
        """Whether a matrix belongs to a module that is wrapped."""
        return tensor.name.removesuffix(".weight") in self._wrapped

    def forward(self, tensor: Tensor) -> AdapterForward | None:
        """What a wrapped module's forward does, or that of a parameter which a matrix is part of."""
        name = self._fused.get(tensor.name, tensor.name.removesuffix(".weight"))
        return self.found.forwards.get(name)

    def trains(self, tensor: Tensor) -> bool:
        """Whether a copy of one of the model's own norms is trained in its place."""
        return tensor.kind == "norm" and self.wraps(tensor) and self.found.forwards != {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is added and trained, but for copies of the model's norms."""
        return tuple(one for one in self.found.added if one.kind != "norm")

    def in_layer(self) -> Unit:
        """What each layer gets."""
        return self._unit(inside=True)

    def outside(self) -> Unit:
        """What lies outside of layers: prompts, shared projections, originals of modules that are trained whole."""
        return self._unit(inside=False)

    def _unit(self, inside: bool) -> Unit:
        share = self._layers if inside else 1
        width = DTYPE_BYTES[dtype_name(self.found.dtype)]
        trained = sum(one.elements for one in self.parameters if ("{layer}" in one.name) is inside) // share
        kept = sum(
            prod(one.shape) * one.copies * self._width(one.dtype)
            for one in self.found.held
            if one.place == "device" and ("{layer}" in one.name) is inside
        )
        originals = 0
        if not inside:
            copies = [one for one in self.found.own if "modules_to_save" in one.name]
            originals = sum(one.elements for one in copies) * DTYPE_BYTES[self._weights]
        size = trained * width
        lying = trained * DTYPE_BYTES[self.dtype]
        return Unit(lying + kept // share + originals, size, trained, size)

    def _width(self, dtype: str) -> int:
        if dtype in ("adapter", "model"):
            return DTYPE_BYTES[self.dtype if dtype == "adapter" else self._weights]
        return 8 if dtype == "complex64" else DTYPE_BYTES[dtype_name(dtype)]
