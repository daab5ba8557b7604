"""What llama.cpp's converter writes in the format that a checkpoint has, and not as floats.

Source: `GptOssModel`, `DeepseekV4Model`, `KimiK3Model`, `MimoV2Model` and `_generate_nvfp4_tensors` in
`conversion/*.py` of llama.cpp 0.5.0.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.conversion.layers import Kept
from willfit.conversion.record import Entry
from willfit.formats.recipe import Recipe
from willfit.formats.recognise import other_reading, recipe_for, recipe_named

#: Architectures whose experts are published in MXFP4 and stay so.
_MXFP4_EXPERTS = frozenset({"deepseek4", "gpt-oss", "kimi-k3", "mimo2"})


def readings(config: Config, architecture: Architecture, file_type: str) -> tuple[Recipe, ...]:
    """How the checkpoint is stored of which the file is made: the likely way first.

    Parameters
    ----------
    config
        The whole config: it says how the checkpoint is quantized.
    file_type
        What is asked for. `NVFP4` is made of a checkpoint in that format, whatever `config` is of.
    """
    stored = recipe_for(config, architecture.dtype)
    if file_type != "NVFP4" or "nvfp4" in stored.name:
        return (stored,)
    names = ("nvfp4", other_reading("nvfp4", architecture))
    return tuple(recipe_named(name, architecture.dtype, architecture) for name in names if name)


def kept_types(name: str, recipe: Recipe) -> Kept | None:
    """Which tensors keep the format that they have in the checkpoint; None if none does.

    Parameters
    ----------
    name
        llama.cpp's name of the architecture.
    recipe
        How the checkpoint is stored.
    """
    if recipe.rule is None:
        return None
    if name in _MXFP4_EXPERTS:
        return _experts(name, recipe)
    return _four_bits(recipe) if "nvfp4" in recipe.name else None


def _experts(name: str, recipe: Recipe) -> Kept:
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

    return kept


def _four_bits(recipe: Recipe) -> Kept:
    def kept(full_name: str, tensor: Tensor) -> str | None:
        if tensor.kind == "buffer" or tensor.part == "mtp":  # modules that draft are left in 16 bits
            return None
        return "NVFP4" if recipe.format_of(full_name, tensor).name.startswith("nvfp4") else None

    return kept


#: Tensors whose scales the loader asks for (`load_tensors` in `src/llama-model.cpp`).
_SCALED = frozenset(
    f"{name}.weight" for name in (
        "attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate", "ffn_gate", "ffn_up", "ffn_down",
        "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "ssm_in",
        "ssm_out", "ssm_alpha", "ssm_beta",
    )
)  # fmt: skip


def scales(layer: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The scales of a layer's tensors in NVFP4 as a whole, or by expert, and of what they are multiplied with."""
    names = {entry.name for entry in layer}
    made = (
        Entry(entry.name.replace(".weight", f".{which}"), entry.ne[2:] or (1,), "F32")
        for entry in layer
        if entry.type == "NVFP4" and entry.name in _SCALED
        for which in ("scale", "input_scale")
    )
    return tuple(entry for entry in made if entry.name not in names)
