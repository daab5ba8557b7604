"""ExLlama checkpoints: EXL2 and EXL3 at an average number of bits, the head at its own.

Embeddings, norms and encoders stay in fp16. EXL3 quantizes all linears of modules that predict further tokens as well
(`architecture/qwen3_5_mtp.py`): turboderp/Qwen3.8-27B-exl3 with 4 bits and a head of 5 takes 16,735,453,379 B, this
gives 16,686 MB. Which row or tensor gets how many bits was decided by a measurement, so single tensors are averages;
the model's total is what the bits were chosen to meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.codebook import Exl2, Exl3
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.select import Uniform

_NOTE = "ExLlama bit widths are averages over the model; single tensors differ"


@dataclass(frozen=True)
class _WithHead:
    """The usual rule, with other formats for the head and for modules that predict further tokens."""

    usual: Uniform
    head: Format
    mtp: Format | None

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        if tensor.part == "mtp":
            return self.mtp if tensor.kind == "linear" else None
        return self.head if tensor.part == "head" and tensor.kind == "linear" else self.usual(name, tensor)


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    bits, head_bits = quant.number("bits", default=4.0), quant.number("head_bits", default=6.0)
    if not (0 < bits <= 16 and 0 < head_bits <= 16):
        raise BadInput(f"{quant.where}: 'bits' is {bits:g} and 'head_bits' {head_bits:g}, expected up to 16")
    newer = quant.text("quant_method", default="exl2") == "exl3"
    kind = Exl3 if newer else Exl2
    stored = kind(bits)
    mtp = Exl3(quant.number("mtp_bits", default=4.0)) if newer else None
    rule = _WithHead(Uniform(stored, mtp=False), kind(head_bits), mtp)
    return Recipe(stored.name, Plain("fp16"), rule, notes=(_NOTE,))
