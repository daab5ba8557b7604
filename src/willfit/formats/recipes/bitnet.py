"""BitNet b1.58 checkpoints: ternary linears, packed where the quantization was done before saving."""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.formats.codebook import BitNet
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    # `online` checkpoints store the unquantized weights and make them ternary while loading.
    online = quant.text("quantization_mode", default="offline") == "online"
    if online:
        return Recipe("bitnet online", Plain(dtype))
    skip = Patterns(quant.strings("modules_to_not_convert"), quant.where)
    stored = BitNet(dtype)
    return Recipe(stored.name, Plain(dtype), Uniform(stored, skip, mtp=False), skip.by_layer)
