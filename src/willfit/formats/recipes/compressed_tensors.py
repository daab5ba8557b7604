"""compressed-tensors checkpoints: config groups with targets, and an ignore list.

A target is a class name (`Linear` means every linear, `Embedding` the look-up tables), a module name, or
`re:` and a regular expression; `ignore` wins (`utils/match.py`). The group's `format`, else the config's,
names the layout; `weights` gives bits, type, strategy and group size; scales have the model's dtype
(`lifecycle/initialize.py`). Routers that are no linear layer are left alone whatever the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.compressed_tensors import PackQuantized
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import is_linear
from willfit.formats.scaled import Granularity, Scaled

_LINEAR_CLASSES = frozenset({"Linear", "LinearBase"})


@dataclass(frozen=True)
class _Group:
    """One config group."""

    format: Format
    linears: bool
    embeddings: bool
    targets: Patterns


@dataclass(frozen=True)
class _Groups:
    """The first group that means a tensor decides."""

    groups: tuple[_Group, ...]
    ignore: Patterns

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        linear = is_linear(name, tensor)
        if not linear and tensor.kind != "embedding":
            return None
        for group in self.groups:
            meant = group.linears if linear else group.embeddings
            if meant or (group.targets and group.targets.match(name)):
                return None if self.ignore.match(name) else group.format
        return None


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    sections = quant.section("config_groups")
    if sections is None:
        raise BadInput(f"{quant.where}: the field 'config_groups' is missing", "compressed-tensors needs it")
    usual = quant.text("format", default="")
    groups = []
    by_layer = False
    for label in sections:
        section = sections.section(label)
        weights = section.section("weights") if section else None
        if section is None or weights is None:
            continue
        targets = section.strings("targets")
        classes = {"Linear", "LinearBase", "Embedding"}
        names = Patterns([text for text in targets if text not in classes], section.where)
        by_layer = by_layer or names.by_layer
        groups.append(
            _Group(
                _format(section, weights, section.text("format", default=usual), dtype),
                bool(_LINEAR_CLASSES.intersection(targets)) or not targets,
                "Embedding" in targets,
                names,
            )
        )
    if not groups:
        raise BadInput(f"{quant.where}: no config group says how weights are stored")
    ignore = Patterns(quant.strings("ignore"), quant.where)
    return Recipe(
        " + ".join(dict.fromkeys(group.format.name for group in groups)),
        Plain(dtype),
        _Groups(tuple(groups), ignore),
        by_layer or ignore.by_layer,
        kv_dtype(quant),
    )


def kv_dtype(quant: Config) -> str | None:
    """What `kv_cache_scheme` asks the cache to be: an object of bits and type, or ModelOpt's name."""
    scheme = quant.raw("kv_cache_scheme", "kv_cache_quant_algo")
    if isinstance(scheme, str):
        return {"FP8": "fp8_e4m3", "INT8": "int8", "NVFP4": "nvfp4"}.get(scheme.upper())
    section = quant.section("kv_cache_scheme")
    if section is None:
        return None
    kind = section.text("type", default="float"), section.integer("num_bits", default=8)
    return {("float", 8): "fp8_e4m3", ("int", 8): "int8", ("float", 4): "nvfp4"}.get(kind)


def _block(weights: Config) -> tuple[int, int]:
    """Rows and columns of a block, written as `[128, 128]` or, in older files, as `128x128`."""
    raw = weights.raw("block_structure")
    sizes = raw.split("x") if isinstance(raw, str) else weights.items("block_structure")
    if len(sizes) != 2 or not all(str(size).isdecimal() and int(size) > 0 for size in sizes):
        raise BadInput(f"{weights.where}: 'block_structure' is {raw!r}, expected two positive numbers")
    return int(sizes[0]), int(sizes[1])


def _format(group: Config, weights: Config, layout: str, dtype: str) -> Format:
    bits = weights.integer("num_bits", default=8)
    kind = weights.text("type", default="int")
    size = weights.optional_integer("group_size") if weights.raw("group_size") != -1 else None
    strategy = weights.text("strategy", default="group" if size else "tensor")
    symmetric = weights.boolean("symmetric", default=True)
    activations = group.section("input_activations")
    static = activations is not None and activations.raw("dynamic") in (None, False)
    if kind == "float" and bits == 4:
        if size == 32 or layout.startswith("mxfp4"):
            return Mxfp4()
        scaled_input = activations is not None and activations.raw("dynamic") is not True
        return Nvfp4(scaled_input, size or 16, "weight_packed", "weight_global_scale", "input_global_scale")
    if kind == "int" and (layout in ("pack-quantized", "") and activations is None):
        reach = {"tensor": -1, "channel": 0}.get(strategy, size or 0)
        return PackQuantized(bits, reach, dtype, symmetric, weights.raw("actorder") == "group")
    if bits != 8:
        raise BadInput(f"{weights.where}: {bits}-bit {kind} weights have no known layout")
    label = "fp8" if kind == "float" else "int8"
    if layout.startswith("mxfp8") or weights.text("scale_dtype", default="").endswith("uint8"):
        return Scaled("mxfp8", "fp8_e4m3", "group", (1, size or 32), "uint8")
    block = _block(weights) if strategy == "block" else (1, size or 1)
    granularity: Granularity = (
        "tensor" if strategy == "tensor"
        else "channel" if strategy == "channel"
        else "block" if strategy == "block"
        else "group"
    )  # fmt: skip
    return Scaled(
        label,
        "fp8_e4m3" if kind == "float" else "int8",
        granularity,
        block,
        scale_dtype=dtype,
        zero_dtype="" if symmetric else "int8",
        input_dtype=dtype if static else "",
    )
