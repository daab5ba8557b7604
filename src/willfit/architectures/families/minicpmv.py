"""MiniCPM-V: SigLIP, a resampler that makes 64 tokens of each slice, and a language model by version.

Source: vLLM `model_executor/models/minicpmv.py`; names as published with openbmb/MiniCPM-V-2_6.
"""

from __future__ import annotations

from willfit.architectures.blocks.clip import siglip_encoder
from willfit.architectures.blocks.tensors import layer_norm, linear, parameter
from willfit.architectures.blocks.towers import text_model, vision_section, with_towers
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: Family of the language model, whose fields lie at the top, by `version` (vLLM `_SUPPORT_VERSION`).
_TEXT = {"2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4.5": "qwen3"}

#: SigLIP so400m at 980 pixels, as the published sections have it.
_VISION = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 980, "patch_size": 14,
}  # fmt: skip

#: The published processors cut an image into up to nine slices, beside the whole.
_SLICES = 10


def build(config: Config) -> Architecture:
    """The architecture of a MiniCPM-V config.

    Raises
    ------
    BadInput
        If the version is not known: it decides about the language model.
    """
    version = f"{config.number('version', default=2.6):.1f}"
    if version not in _TEXT:
        raise BadInput(f"{config.where}: MiniCPM-V {version} is not known", f"known: {', '.join(_TEXT)}")
    text = text_model(config, prefix="llm.model", head_name="llm.lm_head", text_type=_TEXT[version])
    queries = config.integer("query_num", default=64)
    shape, tensors, _ = siglip_encoder(vision_section(config, **_VISION), "vpm")
    tensors += _resampler("resampler", queries, shape.hidden, text.hidden_size)
    return with_towers(text, config, "minicpmv", (shape.tower("vision", tensors, queries * _SLICES),))


def _resampler(prefix: str, queries: int, seen: int, hidden: int) -> tuple[Tensor, ...]:
    attention = f"{prefix}.attn"
    return (
        *parameter(f"{prefix}.query", (queries, hidden), "vision"),
        *linear(f"{prefix}.kv_proj", seen, hidden, "vision"),
        *parameter(f"{attention}.in_proj_weight", (3 * hidden, hidden), "vision"),
        *parameter(f"{attention}.in_proj_bias", (3 * hidden,), "vision"),
        *linear(f"{attention}.out_proj", hidden, hidden, "vision", bias=True),
        *layer_norm(f"{prefix}.ln_q", hidden, part="vision"),
        *layer_norm(f"{prefix}.ln_kv", hidden, part="vision"),
        *layer_norm(f"{prefix}.ln_post", hidden, part="vision"),
        *parameter(f"{prefix}.proj", (hidden, hidden), "vision"),
    )
