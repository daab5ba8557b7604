"""Linear layers with products in float8, whose operands are kept as they are and cast in each pass.

torchao: float8/float8_linear.py: matmul_with_hp_or_float8_args; float8_utils.py: tensor_to_scale, to_fp8_saturated;
float8_ops.py: preprocess_addmm, addmm_float8_unwrapped (0.18.0). Run as written; compiled, casts write nothing between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins.buffers import buffer

#: Both sides of a matrix are multiples of this, or `_scaled_mm` does not take it.
ALIGNED = 16
#: `amax_to_scale`: the least that a largest value counts as.
LEAST = 1e-12
NARROW, GRADIENTS = torch.float8_e4m3fn, torch.float8_e5m2


@dataclass(frozen=True, slots=True)
class Recipe:
    """How operands are cast.

    Attributes
    ----------
    rows
        A scale for each row or column, rounded to a power of two; else one for a tensor.
    weight_rows
        The same for the weight in the product that is the input's gradient.
    wide
        The product that is the weight's gradient is not in float8.
    """

    rows: bool = False
    weight_rows: bool = False
    wide: bool = False


RECIPES = {
    "tensorwise": Recipe(),
    "rowwise": Recipe(rows=True, weight_rows=True),
    "rowwise_with_gw_hp": Recipe(rows=True, wide=True),
}

Narrow = tuple[torch.Tensor, torch.Tensor]


def convert(model: Any, name: str) -> None:
    """Give the linear layers of a model but its head such products (`convert_to_float8_training`).

    Raises
    ------
    BadInput
        For a recipe that is not written here.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise BadInput(f"products in {name} are not traced", f"traced: {', '.join(RECIPES)}")
    head = model.get_output_embeddings()
    for module in model.modules():
        fits = type(module) is torch.nn.Linear and not any(side % ALIGNED for side in module.weight.shape)
        if fits and module is not head:
            module.__class__ = Float8Linear
            module.recipe = recipe


class Float8Linear(torch.nn.Linear):
    """A linear layer that casts its operands."""

    recipe: Recipe

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply, in autocast's dtype where that is on."""
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        output = Product.apply(input, self.weight.t(), self.recipe)
        return output if self.bias is None else output + self.bias.to(output.dtype)


class Product(torch.autograd.Function):
    """A product of two operands that are cast, and are kept as they were."""

    @staticmethod
    def forward(ctx, rows, weight, recipe):  # type: ignore[no-untyped-def]
        """Multiply."""
        ctx.save_for_backward(rows, weight)
        ctx.recipe = recipe
        narrow = cast(rows, NARROW, -1 if recipe.rows else None)
        narrow_weight = cast(weight, NARROW, 0 if recipe.rows else None)
        product = multiplied(_flat(narrow), narrow_weight, rows.dtype, True)
        return product.reshape(*rows.shape[:-1], product.shape[-1])

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of both, each from operands cast anew."""
        rows, weight = ctx.saved_tensors
        recipe, shape = ctx.recipe, gradient.shape
        flat = gradient.reshape(-1, shape[-1])
        dtype = NARROW if recipe.rows else GRADIENTS
        first = cast(flat, dtype, -1 if recipe.rows else None)
        narrow_weight = cast(weight, NARROW, -1 if recipe.weight_rows else None)
        of_rows = multiplied(first, _turned(narrow_weight), gradient.dtype, False)
        of_rows = of_rows.reshape(*shape[:-1], of_rows.shape[-1])
        flat_rows = rows.reshape(-1, rows.shape[-1])
        if recipe.wide:
            return of_rows, torch.mm(flat.t(), flat_rows).t(), None
        second = cast(flat, dtype, 0 if recipe.rows else None)
        narrow = cast(flat_rows, NARROW, 0 if recipe.rows else None)
        of_weight = multiplied(_turned(second), narrow, gradient.dtype, False)
        return of_rows, of_weight.t(), None


def cast(wide: torch.Tensor, dtype: torch.dtype, axis: int | None) -> Narrow:
    """A tensor in float8, and its scales: one, or one for all along an axis."""
    limit = torch.finfo(dtype).max
    scale = _scale(wide, limit, axis)
    scaled = wide.to(torch.float32) * scale
    bounded = scaled.clamp(min=-limit, max=limit)
    return bounded.to(dtype), scale


def _scale(wide: torch.Tensor, limit: float, axis: int | None) -> torch.Tensor:
    size = torch.abs(wide)
    most = torch.max(size) if axis is None else torch.amax(size, dim=axis, keepdim=True)
    del size
    exact = most.to(torch.float64)
    scale = limit / torch.clamp(exact, min=LEAST)
    scale = scale.to(torch.float32)
    return scale if axis is None else torch.exp2(torch.floor(torch.log2(scale)))


def _flat(narrow: Narrow) -> Narrow:
    data, scale = narrow
    if scale.dim():
        scale = scale.reshape(-1, 1)
    return data.reshape(-1, data.shape[-1]), scale


def _turned(narrow: Narrow) -> Narrow:
    return narrow[0].t(), narrow[1].t()


def multiplied(left: Narrow, right: Narrow, dtype: torch.dtype, fast: bool) -> torch.Tensor:
    """`_scaled_mm`: the left operand is laid out by rows, the right one by columns."""
    (one, scale), (other, other_scale) = left, right
    if not one.is_contiguous():
        one = one.contiguous()
    if other.is_contiguous():
        other = other.t().contiguous().t()
    rows, columns = one.shape[0], other.shape[1]
    if scale.dim() and not other_scale.dim():
        other_scale = other_scale.repeat(columns).reshape(1, -1)
    inverse, other_inverse = scale.reciprocal(), other_scale.reciprocal()
    by_rows = bool(scale.dim() and other_scale.dim())
    after = inverse * other_inverse if by_rows and not fast else None
    if after is not None:
        del inverse, other_inverse
    written = torch.bfloat16 if by_rows and dtype is not torch.bfloat16 else dtype
    product = buffer("scaled_mm", one, (rows, columns), written)
    if after is not None:
        product *= after
    return product.to(dtype)
