"""Which library multiplies with a base in GPTQ, AWQ or HQQ, and what its products unpack and keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from willfit.engines.versions import parse_version

#: From this version on transformers loads GPTQ by GPTQModel where it is installed (`quantizers/quantizer_gptq.py`), and
#: from 5.0 on AWQ as well (`integrations/awq.py`).
_GPTQMODEL, _GPTQMODEL_FOR_AWQ = (4, 49), (5, 0)

#: Methods by how their names begin, with the libraries whose versions name them, the newest first.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "gptq": ("gptqmodel", "fms_acceleration", "auto_gptq"),
    "awq": ("gptqmodel", "autoawq"),
    "hqq": ("hqq",),
}


@dataclass(frozen=True, slots=True)
class Packing:
    """How a library multiplies rows with a packed matrix that it unpacks.

    Attributes
    ----------
    library
        Its name.
    keeps
        What a product keeps for the gradient of its input: `matrix`, unpacked; `input`, which no gradient reads; or
        nothing.
    making
        Bytes of an element that are alive while integers are unpacked, where that is more than the matrix itself.
    copies
        Matrices of the rows' dtype that are alive while one is unpacked.
    dtype
        That the matrix is unpacked to, whatever the rows' is; empty for theirs.
    casts_rows
        Rows are cast to the matrix's dtype, and outputs back; else the matrix to that of the rows.
    repeats
        The gradient of the input takes as many copies of the matrix as there are sequences.
    """

    library: str
    keeps: str = ""
    making: int = 0
    copies: int = 1
    dtype: str = ""
    casts_rows: bool = False
    repeats: bool = False


#: GPTQModel in training (`nn_modules/qlinear/torch.py: TorchLinear._forward_eager`, which `tritonv2.py` takes while it
#: trains; 7.3): a compiled function unpacks to the scales' dtype, and a plain product keeps what it is given.
#: auto_gptq without exllama (`qlinear_cuda_old.py: forward`, 0.5 to 0.7): the same in several operations, of which the
#: shift makes int32 and then int8.
#: fms-acceleration (`gptqmodel/nn_modules/triton_utils/dequant.py`) and auto_gptq's second Triton layer: an autograd
#: function that unpacks to float16 twice.
#: AutoAWQ (`modules/linear/gemm.py: WQLinearMMFunction`, from 0.2.0; before, no gradients) and GPTQModel for it
#: (`qlinear/gemm_awq.py: AwqGemmFn`): a function that keeps its input.
#: HQQ (`core/quantize.py: HQQMatmulNoCacheMul, Quantizer.dequantize`; 0.2): the unpacked integers, those less zero
#: points, and the product with scales, each in the compute dtype.
PACKINGS = {
    ("gptq", "gptqmodel"): Packing("gptqmodel", "matrix", dtype="fp16"),
    ("gptq", "auto_gptq"): Packing("auto_gptq", "matrix", making=5, dtype="fp16"),
    ("gptq", "fms_acceleration"): Packing("fms_acceleration", dtype="fp16"),
    ("awq", "gptqmodel"): Packing("gptqmodel", "input", casts_rows=True, repeats=True),
    ("awq", "autoawq"): Packing("autoawq", "input", dtype="fp16", casts_rows=True, repeats=True),
    ("hqq", "hqq"): Packing("hqq", "input", copies=3),
}


def method_of(name: str) -> str | None:
    """`gptq`, `awq` or `hqq` of a method's name (`gptq-int8`, `hqq3`); None for any other."""
    return next((method for method in LIBRARIES if name.lower().startswith(method)), None)


def packing(name: str, versions: Mapping[str, str]) -> Packing | None:
    """How products with such a base are made; None for methods with rules of their own.

    Parameters
    ----------
    name
        Of the method.
    versions
        Of what a run stands on. A library that is among them is taken; else the one that this transformers loads.
    """
    method = method_of(name)
    if method is None:
        return None
    known = LIBRARIES[method]
    named = next((library for library in known if library in versions), None)
    if named is None:
        said = versions.get("transformers")
        since = _GPTQMODEL_FOR_AWQ if method == "awq" else _GPTQMODEL
        named = known[0] if said is None or parse_version(said) >= since else known[-1]
    return PACKINGS[method, named]
