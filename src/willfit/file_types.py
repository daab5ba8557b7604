"""The file types of llama.cpp: what a name like `Q4_K_M` stands for, and the names of others' mixes that are near one.

Sources: `tools/quantize/quantize.cpp` (`QUANT_OPTIONS`) and `llama_ftype_get_default_type` in `src/llama-quant.cpp`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from willfit.errors import BadInput

#: File type -> the type that most of its tensors have.
BASES: dict[str, str] = {
    **{name: name for name in (
        "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K", "Q1_0", "Q2_0",
        "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0",
    )},
    "Q2_K": "Q2_K", "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K",
    "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S",
    "MXFP4_MOE": "MXFP4", "NVFP4": "NVFP4",
}  # fmt: skip

#: What people call a file type, too: `llama-quantize` takes the bare name of a K-quant for its medium mix.
ALIASES: dict[str, str] = {
    "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M",
    "FP16": "F16", "FP32": "F32", "MXFP4": "MXFP4_MOE",
}  # fmt: skip

#: The number by which a header names its file type (`include/llama.h`, `llama_ftype`).
NUMBERS: dict[str, int] = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
    "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25,
    "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32,
    "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "NVFP4": 39, "Q1_0": 40, "Q2_0": 41,
}  # fmt: skip

#: The tag of the file that llama.cpp takes of a repository where none is named, and what it looks for; failing these it
#: takes the first (`common/download.cpp: find_best_model`).
LATEST = "latest"
USUAL = ("Q4_K_M", "Q8_0")

#: What the converter itself writes; every other type is made from one of these by `llama-quantize`. Of a checkpoint in
#: NVFP4 it keeps the tensors that are, and writes the others in 16 bits.
CONVERTED = ("F32", "F16", "BF16", "NVFP4")


#: File types from small to large, for what lies about a mix that is not known.
_LADDER = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S",
    "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "BF16",
)  # fmt: skip
#: Where a file type that is not on the ladder stands.
_STANDS_AT = {
    "TQ1_0": "IQ1_S", "TQ2_0": "IQ2_XXS", "Q2_K_S": "IQ2_M", "IQ3_XS": "Q3_K_S", "IQ3_S": "Q3_K_S", "IQ3_M": "Q3_K_M",
    "IQ4_XS": "Q3_K_L", "IQ4_NL": "Q4_K_S", "Q4_0": "Q4_K_S", "Q4_1": "Q4_K_M", "Q5_0": "Q5_K_S", "Q5_1": "Q5_K_M",
    "F16": "BF16", "F32": "BF16", "MXFP4_MOE": "Q4_K_S", "NVFP4": "Q4_K_S", "Q1_0": "IQ1_S", "Q2_0": "IQ2_XXS",
}  # fmt: skip

#: Eight bits for table and head, beside a usual mix: `Q4_K_L`, `Q3_K_XL`.
_WIDE_ENDS = {
    "Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K_L", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K",
}  # fmt: skip
#: Dynamic mixes that hold other types than their names say.
_MISNAMED = {"TQ1_0": "IQ1_S"}
_DYNAMIC = re.compile(r"Q(?P<bits>[1-8])_K_(?:XL|XXL|L)")
_DYNAMIC_BASES = {"2": "Q2_K", "3": "Q3_K_M", "4": "Q4_K_M", "5": "Q5_K_M", "6": "Q6_K", "8": "Q8_0"}


@dataclass(frozen=True, slots=True)
class Quantization:
    """What the name of a quantized file says about its tensors.

    Attributes
    ----------
    label
        The name as people write it.
    file_type
        The file type of llama.cpp that it is, or is nearest to.
    outer
        The type of table and head, if it is not that of the file type.
    imatrix
        Whether an importance matrix was given; None if the name leaves it open.
    between
        Two file types between which the file lies, if its mix is not known.
    note
        What a reader should know.
    """

    label: str
    file_type: str
    outer: str | None = None
    imatrix: bool | None = None
    between: tuple[str, str] | None = None
    note: str = ""


def quantization(text: str) -> Quantization:
    """What a name such as `Q4_K_M` or `UD-Q4_K_XL` stands for.

    Raises
    ------
    BadInput
        If no file type is called that; the hint has the nearest names.
    """
    found = known_quantization(text) or known_quantization(_spelt(text))
    if found is not None:
        return found
    from difflib import get_close_matches

    known = [*BASES, *_WIDE_ENDS]
    wanted = text.strip().upper()
    # Of those that it is the beginning of, the one that most people run comes first.
    begun = sorted((name for name in known if name.startswith(wanted)), key=lambda name: name not in USUAL)
    close = list(dict.fromkeys([*begun, *get_close_matches(wanted, known, n=3, cutoff=0.5)]))[:3]
    hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known)}"
    raise BadInput(f"llama.cpp has no file type {text[:40]!r}", hint)


def _spelt(text: str) -> str:
    """The name with its underscores where they were left out or in other places: `q4km`, `Q4_KM`."""
    squeezed = text.strip().upper().removeprefix("GGUF-").replace("_", "").replace("-", "")
    names = (*BASES, *ALIASES, *_WIDE_ENDS)
    return next((name for name in names if name.replace("_", "") == squeezed), text)


def known_quantization(text: str) -> Quantization | None:
    """As `quantization`, but None if no file type is called that."""
    label = text.strip().upper().removeprefix("GGUF-")
    name = label
    imatrix = None
    for prefix in ("I1-", "IMATRIX-"):
        if name.startswith(prefix):
            name, imatrix = name.removeprefix(prefix), True
    dynamic = name.startswith("UD-")
    name = name.removeprefix("UD-").replace("-", "_")
    name = ALIASES.get(name, name)
    if name in BASES and not dynamic:
        return Quantization(label, name, imatrix=imatrix)
    if name in _WIDE_ENDS and not dynamic:
        note = f"{label}: the mix of {_WIDE_ENDS[name]} with table and head in Q8_0, as those who use the name make it"
        return Quantization(label, _WIDE_ENDS[name], outer="Q8_0", imatrix=imatrix, note=note)
    wide = _DYNAMIC.fullmatch(name)
    base = _DYNAMIC_BASES.get(wide["bits"], "") if wide else _MISNAMED.get(name, name)
    if base not in BASES:
        return None
    step = _LADDER.index(_STANDS_AT.get(base, base))
    between = (_LADDER[max(0, step - 1)], _LADDER[min(len(_LADDER) - 1, step + 1)])
    note = (
        f"{label} is a mix of its maker's own, chosen tensor by tensor: sized as {base}, between {between[0]} and "
        f"{between[1]}; the file's own header says it exactly"
    )
    return Quantization(label, base, imatrix=True, between=between, note=note)


#: Dtypes that are file types, too: where a dtype may be meant they need `gguf-` before them.
_DTYPES = ("bf16", "f16", "f32", "fp16", "fp32", "mxfp4", "nvfp4")


def named_file_type(text: str) -> Quantization | None:
    """The file type that the name of a format stands for; None if it is that of another method or a dtype."""
    key = text.strip().lower()
    return None if key in _DTYPES else known_quantization(key) or known_quantization(_spelt(key))
