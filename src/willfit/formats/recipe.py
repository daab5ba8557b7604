"""A recipe: which tensor of a checkpoint is stored in which format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.formats.base import Format
from willfit.formats.plain import Plain

#: The format of a tensor by its full name; None for the recipe's base.
Rule = Callable[[str, Tensor], Format | None]

_FP32 = Plain("fp32")
_INT64 = Plain("int64")


@dataclass(frozen=True)
class Recipe:
    """How the tensors of one checkpoint are stored.

    Attributes
    ----------
    name
        The method and its main setting: `bf16`, `awq int4 g128`, `fp8 block 128x128`.
    base
        Format of what the method leaves alone: the model's dtype.
    rule
        What the method does to a tensor; None if nothing is quantized.
    by_layer
        Whether the rule looks at layer indices, so that equal layers may be stored differently.
    kv_cache_dtype
        The dtype that the checkpoint asks the KV cache to have; None if it says nothing.
    notes
        Assumptions that a reader should know.
    method
        The quantization method under the name that configs give it (`fp8`, `gptq`); empty without one.
    named
        Whether someone named the method, so that no checkpoint lists what it excepts.
    """

    name: str
    base: Format
    rule: Rule | None = None
    by_layer: bool = False
    kv_cache_dtype: str | None = None
    notes: tuple[str, ...] = ()
    method: str = ""
    named: bool = False

    def format_of(self, name: str, tensor: Tensor) -> Format:
        """Format of a tensor.

        Parameters
        ----------
        name
            Its full name in the checkpoint, layer index filled in; `{expert}` may stay.
        tensor
            Its record.
        """
        if tensor.kind == "buffer":
            return self.buffer_format(name)
        return (self.rule and self.rule(name, tensor)) or self.base

    def buffer_format(self, name: str) -> Format:
        """Format of a stored buffer: int64 for positions, the model's dtype for layer scalars, else fp32."""
        if name.endswith("position_ids"):
            return _INT64
        return self.base if name.endswith("layer_scalar") else _FP32


def plain_recipe(dtype: str) -> Recipe:
    """A checkpoint without quantization."""
    return Recipe(dtype, Plain(dtype))
