"""The formats of a frozen base: as the checkpoint has them, or as a method makes them while loading."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.base import Subject
from willfit.formats.recipe import Recipe, plain_recipe
from willfit.formats.recipes.select import Uniform
from willfit.formats.recognise import recipe_named
from willfit.training.settings import QuantizationSettings

#: Names of quantization methods as the recipes have them.
_NAMES = {"int8": "bnb-int8", "llm.int8": "bnb-int8"}


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
    if quantization.double_quant:
        name += "-double"
    found = recipe_named(name, weights, subject.architecture)
    if head and isinstance(found.rule, Uniform):
        return replace(found, rule=replace(found.rule, head=True))
    return found
