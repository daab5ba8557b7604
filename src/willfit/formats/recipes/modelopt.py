"""NVIDIA ModelOpt checkpoints: `hf_quant_config.json`, or its fields inside config.json.

`quant_algo` names the format, `exclude_modules` or `ignore` what stays, with wildcards; `MIXED_PRECISION`
lists the format of each module in `quantized_layers`. A module listed there stands for all below it
(`modelopt/torch/export/quant_utils.py`). The head is quantized where it is not excluded only if it is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.compressed_tensors import kv_dtype
from willfit.formats.recipes.patterns import Patterns, module_of, without_prefix
from willfit.formats.recipes.select import Uniform, is_linear
from willfit.formats.scaled import Scaled, fp8_block, mxfp8


@dataclass(frozen=True)
class _Listed:
    """The format of each listed module; what is not listed stays."""

    formats: Mapping[str, Format]

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        if not is_linear(name, tensor):
            return None
        module = without_prefix(module_of(name))
        return self._look_up(module) or self._look_up(_first_expert(module))

    def _look_up(self, module: str) -> Format | None:
        at = len(module)
        while at > 0:
            if (found := self.formats.get(module[:at])) is not None:
                return found
            at = module.rfind(".", 0, at)
        return None


def _first_expert(module: str) -> str:
    """The name that a fused expert projection has where experts are listed one by one."""
    head, mark, tail = module.partition(".experts.")
    return f"{head}.experts.0.{tail.replace('gate_up_proj', 'up_proj')}" if mark else ""


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    quant = quant.section("quantization") or quant
    algo = quant.text("quant_algo", default="").upper()
    size = quant.integer("group_size", default=0)
    if algo == "MIXED_PRECISION":
        layers = quant.section("quantized_layers")
        if layers is None:
            raise BadInput(
                f"{quant.where}: the field 'quantized_layers' is missing", "MIXED_PRECISION needs it"
            )
        formats = _formats(layers, dtype)
        names = " + ".join(dict.fromkeys(stored.name for stored in formats.values()))
        return Recipe(names, Plain(dtype), _Listed(formats), True, kv_dtype(quant))
    stored = format_of_algorithm(algo, size, dtype, quant.where)
    listed = quant.strings("exclude_modules", "ignore")
    skip = Patterns(listed, quant.where)
    rule = Uniform(stored, skip, towers=bool(listed), mtp=bool(listed))
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer, kv_dtype(quant))


def _formats(layers: Config, dtype: str) -> dict[str, Format]:
    """The listed modules by name; of experts listed one by one only the first, which stands for all."""
    formats: dict[str, Format] = {}
    made: dict[tuple[Any, Any], Format] = {}
    for module, settings in layers.fields.items():
        _, mark, tail = module.partition(".experts.")
        if mark and tail[:1].isdigit() and not tail.startswith("0."):
            continue
        if not isinstance(settings, Mapping):
            raise BadInput(f"{layers.where}: {module!r} is not an object")
        key = settings.get("quant_algo"), settings.get("group_size")
        if key not in made:
            entry = Config(settings, f"{layers.where}: {module}")
            size = entry.integer("group_size", default=0)
            made[key] = format_of_algorithm(entry.text("quant_algo"), size, dtype, entry.where)
        formats[without_prefix(module)] = made[key]
    return formats


def format_of_algorithm(algo: str, group: int, dtype: str, where: str) -> Format:
    """The layout of a ModelOpt `quant_algo`.

    Raises
    ------
    BadInput
        If the algorithm is not known.
    """
    known: dict[str, Format] = {
        "FP8": Scaled("fp8", "fp8_e4m3", "tensor", input_dtype="fp32"),
        "FP8_PER_CHANNEL_PER_TOKEN": Scaled("fp8", "fp8_e4m3", "channel"),
        "FP8_PB_WO": fp8_block(group or 128, group or 128),
        "MXFP8": mxfp8(),
        "NVFP4": Nvfp4(True, group or 16),
        "NVFP4_AWQ": Nvfp4(True, group or 16),
        "W4A16_NVFP4": Nvfp4(False, group or 16),
        "W4A8_NVFP4_FP8": Nvfp4(True, group or 32),
        "MXFP4": Mxfp4(),
        "W4A8_MXFP4_FP8": Mxfp4(),
        "W4A16_AWQ": PackedInt("awq", 4, group or 128, "fp32", input_scale=dtype),
        "W4A8_AWQ": PackedInt("awq", 4, group or 128, "fp32", input_scale=dtype, static_input=True),
        "W8A16": Scaled("int8", "int8", "channel"),
        "W8A8_SQ_PER_CHANNEL": Scaled("int8", "int8", "channel", input_dtype="fp32"),
    }
    if algo.upper() not in known:
        raise BadInput(f"{where}: unknown quant_algo {algo!r}", f"known: {', '.join(known)}, MIXED_PRECISION")
    return known[algo.upper()]
