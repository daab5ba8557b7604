"""What llama.cpp's converter writes in the format that a checkpoint has, and not as floats.

Source: `GptOssModel`, `DeepseekV4Model`, `KimiK3Model`, `MimoV2Model` in `conversion/*.py` of llama.cpp 0.5.0.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.conversion.layers import Kept
from willfit.formats.recognise import recipe_for

#: Architectures whose experts are published in MXFP4 and stay so.
_MXFP4_EXPERTS = frozenset({"deepseek4", "gpt-oss", "kimi-k3", "mimo2"})


def kept_types(name: str, config: Config, architecture: Architecture) -> Kept | None:
    """Which tensors keep their format; None if none does.

    Parameters
    ----------
    name
        llama.cpp's name of the architecture.
    config
        The whole config: it says how the checkpoint is quantized.
    """
    if name not in _MXFP4_EXPERTS:
        return None
    recipe = recipe_for(config, architecture.dtype)

    def kept(full_name: str, tensor: Tensor) -> str | None:
        if full_name.endswith("tid2eid"):
            return "I32"
        stored = recipe.format_of(full_name, tensor).name if tensor.kind != "buffer" else "fp32"
        if tensor.part == "experts" and stored.startswith("mxfp4"):
            return "MXFP4"
        if name != "deepseek4":
            return None
        # DeepSeek-V4 alone keeps all it has: what was in eight bits as Q8_0, small mixing matrices as they are.
        if stored.startswith("fp8"):
            return "Q8_0"
        return "F32" if tensor.kind in ("other", "buffer") else "BF16"

    return kept if recipe.rule is not None else None
