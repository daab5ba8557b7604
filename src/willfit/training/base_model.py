"""The formats of a frozen base: as the checkpoint has them, or as a method makes them while loading."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.model import Tensor
from willfit.engines.base import Subject
from willfit.formats.base import Format
from willfit.formats.recipe import Recipe, Rule, plain_recipe
from willfit.formats.recipes.select import Uniform
from willfit.formats.recognise import recipe_named
from willfit.training.run import Run
from willfit.training.settings import QuantizationSettings

#: Names of quantization methods as the recipes have them.
_NAMES = {"int8": "bnb-int8", "llm.int8": "bnb-int8"}


#: Methods that replace linear layers alone.
_LAYERS = ("bitsandbytes",)

#: Modules that stay in float32 and are not quantized, by model type (transformers `_keep_in_fp32_modules`,
#: `quantizers/base.py: get_modules_to_not_convert`).
_KEPT = dict.fromkeys(("t5", "mt5", "umt5", "pop2piano", "udop"), ("wo",))


@dataclass(frozen=True)
class _Layers:
    """A rule that sees linear layers alone, and leaves some of them as they are.

    Attributes
    ----------
    rule
        What it does to the others.
    kept
        Names of modules that it leaves.
    stacked
        Experts are no linear layers.
    """

    rule: Rule
    kept: tuple[str, ...] = ()
    stacked: bool = False

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        left = self.stacked and tensor.part == "experts"
        return None if left or any(f".{one}." in name for one in self.kept) else self.rule(name, tensor)


def experts_note(subject: Subject, run: Run) -> tuple[str, ...]:
    """What to say of experts that stay as they are beside a quantized model."""
    quantization = run.settings.quantization
    named = None if quantization is None else recipe_named(_name(quantization), "bf16", subject.architecture)
    if named is None or named.method not in _LAYERS or not run.habits.stacked_experts:
        return ()
    if not any(
        tensor.part == "experts" for layer, _ in subject.architecture.blocks for tensor in layer.tensors
    ):
        return ()
    return (
        "experts are not quantized: transformers holds those of a layer as one parameter, and bitsandbytes replaces"
        " linear layers",
    )


def converted_note(subject: Subject, adapted: bool) -> tuple[str, ...]:
    """What to say of a quantized checkpoint of which the model itself is trained."""
    if adapted or subject.recipe.rule is None:
        return ()
    return (
        f"{subject.recipe.method} numbers cannot be trained: the checkpoint is counted as converted to 16 bits",
    )


def base_recipe(
    subject: Subject,
    quantization: QuantizationSettings | None,
    weights: str,
    head: bool = False,
    adapted: bool = True,
    stacked: bool = False,
) -> Recipe:
    """How the model's tensors lie in memory.

    Parameters
    ----------
    subject
        The model as it is stored.
    quantization
        What the run does to it; None to load it as it is.
    weights
        Dtype of what is not quantized.
    head
        The framework quantizes the head as well.
    adapted
        Adapters are trained on it. A model that is trained itself is converted first, for quantized numbers get no
        gradients (transformers `trainer_utils.py: validate_quantization_for_training`).
    stacked
        Experts are one parameter, which bitsandbytes does not see (transformers `integrations/bitsandbytes.py:
        replace_with_bnb_linear`, 5.0 to 5.23).

    Raises
    ------
    BadInput
        If the method is not known.
    """
    if quantization is None:
        return subject.recipe if subject.recipe.rule is not None and adapted else plain_recipe(weights)
    name = _NAMES.get(quantization.method, quantization.method)
    if subject.recipe.rule is not None and subject.recipe.method in (name, quantization.method):
        return subject.recipe
    found = recipe_named(_name(quantization), weights, subject.architecture)
    if head and isinstance(found.rule, Uniform):
        found = replace(found, rule=replace(found.rule, head=True))
    kept = _KEPT.get(subject.architecture.model_type, ())
    if (stacked or kept) and found.rule is not None and found.method in _LAYERS:
        return replace(found, rule=_Layers(found.rule, kept, stacked))
    return found


def _name(quantization: QuantizationSettings) -> str:
    """Of a method, as the recipes have it."""
    name = _NAMES.get(quantization.method, quantization.method)
    return f"{name}-double" if quantization.double_quant else name
