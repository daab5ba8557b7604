"""Which modules the names in `target_modules` mean, as PEFT matches them.

PEFT: tuners/tuners_utils.py: check_target_module_exists, _maybe_include_all_linear_layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from willfit.errors import BadInput
from willfit.training.adapters.modules import Module

ALL_LINEAR = "all-linear"

#: Part names that stand for several modules, whatever their names are.
GROUPS = {"attention": ("attention", "mixer"), "mlp": ("mlp", "experts")}
QKV_LEAVES = frozenset(
    [
        "q_proj",
        "k_proj",
        "v_proj",
        "qkv_proj",
        "query_key_value",
        "c_attn",
        "Wqkv",
        "in_proj",
        "q",
        "k",
        "v",
        "query",
        "key",
        "value",
        "qkv",
        "wqkv",
        "W_pack",
    ]
)

#: Outputs that `all-linear` leaves out: `get_output_embeddings()`, and classification heads.
HEADS = frozenset({"lm_head", "embed_out", "output_layer", "score", "classifier"})


def matches(name: str, targets: Iterable[str]) -> bool:
    """Whether a module's name is one of `targets`, or ends in `.` and one of them."""
    return any(name == target or name.endswith("." + target) for target in targets)


def is_pattern(target: str) -> bool:
    """Whether PEFT was given one regular expression: a name has no such signs."""
    return any(sign in target for sign in "*\\|()[]+?^$")


def select(
    modules: Sequence[Module],
    targets: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    saved: Sequence[str] = (),
    layers: Sequence[int] | None = None,
    kinds: Sequence[str] = ("linear", "conv1d", "embedding"),
) -> tuple[Module, ...]:
    """The modules that are adapted.

    Parameters
    ----------
    modules
        All of the model.
    targets
        Names, one regular expression (matched against whole names), or `all-linear`, `attention`, `mlp`, `qkv`.
    exclude, saved
        Names that are left out: `exclude_modules`, `modules_to_save`.
    layers
        `layers_to_transform`; None for all.
    kinds
        Kinds of modules that the method can wrap.
    """
    found = []
    for module in modules:
        if module.kind not in kinds:
            continue
        if matches(module.name, exclude) or any(f".{name}." in f".{module.name}." for name in saved):
            continue
        hit = _hit(module, targets)
        if hit is None:
            continue
        if layers is not None:
            kept = tuple(index for index in hit.layers if index in layers)
            if not kept:
                continue
            hit = replace(hit, layers=kept)
        found.append(hit)
    return tuple(found)


def _hit(module: Module, targets: Sequence[str]) -> Module | None:
    """The module with the layers in which a target means it; None if in none."""
    for target in targets:
        if target == ALL_LINEAR:
            if module.kind in ("linear", "conv1d") and not _is_output(module):
                return module
        elif target in GROUPS:
            if module.part in GROUPS[target] and module.kind != "embedding":
                return module
        elif target == "qkv":
            if module.part == "attention" and module.leaf in QKV_LEAVES:
                return module
        elif is_pattern(target):
            return _by_pattern(module, target)
        elif matches(module.name, (target,)):
            return module
        elif any(sign.isdigit() for sign in target) and "{" in module.name:
            kept = tuple(
                index
                for index in module.layers
                if matches(module.name.replace("{layer}", str(index)), (target,))
            )
            if kept:
                return replace(module, layers=kept)
    return None


def _is_output(module: Module) -> bool:
    """Whether a module gives logits or scores; a head's other matrices lead from the stream to itself."""
    inner = module.inputs == module.outputs and "classifier" not in module.name
    return module.leaf in HEADS or (module.part == "head" and not inner)


def _by_pattern(module: Module, pattern: str) -> Module | None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadInput(f"target_modules {pattern!r} is no regular expression: {error}") from None
    names = _spellings(module)
    if not module.layers:
        return module if any(compiled.fullmatch(name) for name in names) else None
    kept = tuple(
        index
        for index in module.layers
        if any(compiled.fullmatch(name.replace("{layer}", str(index))) for name in names)
    )
    return replace(module, layers=kept) if kept else None


def _spellings(module: Module) -> tuple[str, ...]:
    """A module's name in the checkpoint, and as transformers calls it in models that see or hear (from 4.52 on)."""
    name = module.name.replace("{expert}", "0")
    before, layers, rest = name.partition("layers.{layer}")
    if not layers or module.part in ("vision", "audio") or before == "model.language_model.":
        return (name,)
    return (name, f"model.language_model.{layers}{rest}")
