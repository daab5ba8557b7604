"""How a checkpoint is stored, in the words of tables that ask what a device can do with it."""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.formats.base import Format
from willfit.formats.compressed_tensors import PackQuantized
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.ggml import Ggml
from willfit.formats.plain import Plain
from willfit.formats.scaled import Scaled

#: Methods under other names.
_SAME = {
    "auto_round": "auto-round", "autoround": "auto-round", "intel/auto-round": "auto-round", "awq_marlin": "awq",
    "compressed_tensors": "compressed-tensors", "gptq_marlin": "gptq",
}  # fmt: skip

_KINDS: tuple[tuple[type, str], ...] = ((PackQuantized, "int"), (Mxfp4, "mxfp4"), (Nvfp4, "nvfp4"))


def method_of(subject: Subject) -> str:
    """The quantization method, one name for each; `gguf` for a GGUF file, empty without any."""
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    method = "modelopt" if method.startswith("modelopt") else method
    return _SAME.get(method, method)


def kinds_of(subject: Subject) -> set[tuple[str, bool]]:
    """What quantized tensors are stored in (`kind_of_format`), and whether these are experts."""
    stored = {(kind_of_format(line.format), line.tensor.part == "experts") for line in subject.lines}
    return {(kind, experts) for kind, experts in stored if kind}


def kind_of_format(stored: Format) -> str:
    """`fp8`, `fp8 block`, `int8`, `int`, `mxfp4`, ...; empty for 16 bits, and for formats of one method alone."""
    if isinstance(stored, Scaled):
        blocks = " block" if stored.label == "fp8" and stored.granularity == "block" else ""
        return stored.label + blocks
    if isinstance(stored, Plain):
        return ""
    return next((kind for known, kind in _KINDS if isinstance(stored, known)), "")
