"""MLX checkpoints: linears and look-up tables packed into uint32, with a scale and a bias per group.

`quantization` holds `bits` and `group_size`, and entries by module name that override them, or `false` for
a module that stays (`mlx_lm` `utils.py`). `mode` mxfp4, mxfp8 and nvfp4 have no bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.formats.base import Format
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import module_of
from willfit.formats.recipes.settings import bit_width
from willfit.formats.scaled import mxfp8


@dataclass(frozen=True)
class _Modules:
    """Every linear and look-up table whose inputs divide into groups; entries decide about their module."""

    format: Format
    group: int
    modules: Mapping[str, Format | None]

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        if tensor.kind not in ("linear", "embedding") or tensor.part in ("vision", "audio"):
            return None
        if len(tensor.shape) < 2 or tensor.shape[-1] % self.group:
            return None
        return self.modules.get(module_of(name), self.format)


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    stored = _format(quant, dtype)
    modules: dict[str, Format | None] = {}
    for module, settings in quant.fields.items():
        if settings is False:
            modules[module] = None
        elif isinstance(settings, Mapping):
            modules[module] = _format(Config(settings, f"{quant.where}: {module}"), dtype)
    rule = _Modules(stored, quant.integer("group_size", default=64) or 64, modules)
    return Recipe(f"mlx {stored.name}".replace("mlx mlx", "mlx"), Plain(dtype), rule, bool(modules))


def _format(settings: Config, dtype: str) -> Format:
    mode = settings.text("mode", default="affine")
    if mode == "mxfp4":
        return Mxfp4()
    if mode == "nvfp4":
        return Nvfp4(False)
    if mode == "mxfp8":
        return mxfp8()
    group = settings.integer("group_size", default=64)
    return PackedInt("mlx", bit_width(settings, "bits", most=8), group, dtype, dtype, word=32)
