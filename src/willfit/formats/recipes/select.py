"""Which linears a method replaces: what all methods share."""

from __future__ import annotations

from dataclasses import dataclass, field

from willfit.architectures.model import Tensor
from willfit.formats.base import Format
from willfit.formats.recipes.patterns import Patterns, module_of

#: Linears of a multi-token-prediction module outside its transformer block, and its gates: never quantized.
_MTP_PLAIN = frozenset(
    {"eh_proj", "fc", "head", "lm_head", "gate", "router", "shared_expert_gate", "mtp_proj", "input_proj"}
)

NOTHING = Patterns(())


def is_linear(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is the weight of a linear layer that methods quantize at all; routers are not."""
    if tensor.kind != "linear" or tensor.part in ("router", "embedding", "norm"):
        return False
    return tensor.part != "mtp" or module_of(name).rpartition(".")[2] not in _MTP_PLAIN


@dataclass(frozen=True)
class Uniform:
    """One format for all linears but the listed ones.

    Attributes
    ----------
    format
        The format.
    skip
        Modules that stay as they are.
    head, towers, mtp
        Whether the output projection, vision and audio encoders, and multi-token-prediction modules are
        quantized unless listed.
    fused
        Whether experts stored as one 3-D parameter are quantized.
    multiple
        A matrix is left alone unless its rows and columns are multiples of these.
    least_rows
        A matrix with fewer rows is left alone.
    """

    format: Format
    skip: Patterns = field(default=NOTHING)
    head: bool = False
    towers: bool = False
    mtp: bool = True
    fused: bool = True
    multiple: tuple[int, int] = (1, 1)
    least_rows: int = 1

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        part = tensor.part
        if not is_linear(name, tensor) or (part == "head" and not self.head):
            return None
        if (part in ("vision", "audio") and not self.towers) or (part == "mtp" and not self.mtp):
            return None
        if not self.fused and len(tensor.shape) > 2:
            return None
        rows, columns = tensor.shape[-2:]
        if rows < self.least_rows or rows % self.multiple[0] or columns % self.multiple[1]:
            return None
        return None if self.skip and self.skip.match(name) else self.format
