"""FP8 checkpoints as DeepSeek, Qwen, MiniMax and Mistral publish them, and MXFP8.

`weight_block_size` gives one scale per block, its absence one per tensor; `activation_scheme: static` adds
a scale for the activations (Transformers `FP8Linear`). `modules_to_not_convert` or `ignored_layers` (vLLM)
lists what stays. The head and the token table always stay, and so do matrices with fewer rows than a block:
the published files of DeepSeek-V3.2 (the indexer's head weights) and Qwen3.5 (decay projections, the shared
expert's gate) have them in bf16. Encoders of images and sound are quantized only where a list exists and
does not name them. `expert_dtype: fp4` stores routed experts in MXFP4, `moe_quant_algo: NVFP4` in NVFP4.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import NOTHING, Uniform
from willfit.formats.scaled import Scaled, fp8_block, mxfp8


@dataclass(frozen=True)
class _ExpertsApart:
    """The usual rule, with another format for routed experts."""

    usual: Uniform
    experts: Format
    kept: Patterns

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        routed = tensor.part == "experts" or (tensor.part == "mtp" and ".experts." in name)
        if not routed or self.kept.match(name):
            return self.usual(name, tensor)
        return self.experts if self.usual(name, tensor) is not None else None


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    listed = quant.strings("modules_to_not_convert", "ignored_layers")
    skip = Patterns(listed, quant.where)
    fp4_experts = quant.text("expert_dtype", default="") == "fp4"
    stored = _format(quant, small_scales=fp4_experts)
    rule = Uniform(stored, skip, towers=bool(listed), least_rows=stored.block[0])
    if quant.text("moe_quant_algo", default="") == "NVFP4":
        kept = Patterns(quant.strings("ignore"), quant.where)
        return Recipe(f"{stored.name}, nvfp4 experts", Plain(dtype), _ExpertsApart(rule, Nvfp4(), kept), True)
    if fp4_experts:
        apart = _ExpertsApart(rule, Mxfp4(), NOTHING)
        return Recipe(f"{stored.name}, mxfp4 experts", Plain(dtype), apart, skip.by_layer)
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)


def _format(quant: Config, small_scales: bool) -> Scaled:
    if quant.text("quant_method", default="fp8") == "mxfp8":
        return mxfp8()
    block = quant.integers("weight_block_size")
    static = "fp32" if quant.text("activation_scheme", default="dynamic") == "static" else ""
    if not block:
        return Scaled(
            "fp8", "fp8_e4m3", "tensor", scale_suffix="weight_scale_inv",
            input_dtype=static, input_suffix="activation_scale",
        )  # fmt: skip
    if len(block) != 2 or 0 in block:
        raise BadInput(f"{quant.where}: 'weight_block_size' is {block}, expected two positive numbers")
    # `scale_fmt: ue8m0` alone only rounds the scales (DeepSeek-V3.1, V3.2 store fp32); DeepSeek-V4, which has
    # fp4 experts, stores them as exponents.
    return fp8_block(block[0], block[1], "fp8_e8m0" if small_scales else "fp32")
