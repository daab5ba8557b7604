"""Which quantized checkpoints LMDeploy's two engines load."""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.lmdeploy.settings import Backend
from willfit.formats.compressed_tensors import PackQuantized
from willfit.formats.ggml import Ggml

#: `turbomind/converter.py` and `pytorch/config.py: QuantizationConfig.from_config`, 0.16.0.
_LOADED: dict[Backend, tuple[str, ...]] = {
    "turbomind": ("awq", "gptq", "fp8", "mxfp4", "compressed-tensors"),
    "pytorch": ("awq", "fp8"),
}
_TITLES: dict[Backend, str] = {"turbomind": "TurboMind", "pytorch": "LMDeploy's PyTorch engine"}


def unread_format(subject: Subject, backend: Backend) -> str:
    """Why an engine does not load the model as it is stored; empty if it does."""
    title = _TITLES[backend]
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    if method and method not in _LOADED[backend]:
        return f"{title} does not load {method} checkpoints; it loads {' and '.join(_LOADED[backend])}"
    if method == "compressed-tensors":
        packed = [line.format for line in subject.lines if isinstance(line.format, PackQuantized)]
        if not packed or any(stored.bits != 4 for stored in packed):
            return f"{title} loads of compressed-tensors checkpoints packed 4-bit integers only"
    return ""
