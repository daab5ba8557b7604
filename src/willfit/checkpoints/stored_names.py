"""What names of repositories say of how weights are stored, for those that cannot be read: `Qwen3-14B-4bit`."""

from __future__ import annotations

import re
from typing import NamedTuple

from willfit.checkpoints.catalogue import CatalogueEntry, find
from willfit.checkpoints.gguf_names import based_on
from willfit.errors import BadInput

#: Ends of names, with the format that they stand for; `{}` is what is in the pattern's group `bits`.
_ENDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"^(?P<base>.+?)[-_.]{end}$", re.IGNORECASE), meant)
    for end, meant in (
        (r"(?:unsloth-)?bnb-4bit", "nf4-double"),
        (r"bnb-8bit", "bnb-int8"),
        (r"exl(?P<bits>[23][-_.]\d(?:\.\d+)?)bpw", "exl{}bpw"),
        (r"awq(?:-int4|-4bit|-w4a16)?", "awq"),
        (r"gptq(?:-(?:int)?(?P<bits>[248])(?:-?bits?)?)?", "gptq-int{}"),
        (r"(?:mlx[-_])?(?P<bits>[234568])-?bit(?:-mlx|-dwq)?", "mlx{}"),
        (r"(?:mlx[-_])(?P<bits>mxfp4|mxfp8|nvfp4)", "mlx-{}"),
        (r"fp8(?:-dynamic)?", "fp8"),
        (r"nvfp4", "nvfp4"),
        (r"bf16", "bf16"),
    )
)

#: Organisations that publish copies under the models' own names.
_COPIERS = ("unsloth", "nousresearch")


class Stored(NamedTuple):
    """The model of the catalogue that a repository holds, and how its weights are stored (empty: as the model's)."""

    entry: CatalogueEntry
    format_name: str


def stored_as(repository: str, revision: str | None = None) -> Stored | None:
    """What a repository's name says; None unless it names a model, and a format if it is not a plain copy.

    Parameters
    ----------
    revision
        A branch, which for ExLlama's formats has the bits: `turboderp/Qwen3-14B-exl3@4.0bpw`.
    """
    organisation, _, name = repository.rpartition("/")
    if revision:
        name = f"{name}-{revision}"
    for pattern, meant in _ENDS:
        found = pattern.match(name)
        if found is None:
            continue
        entry = based_on(organisation, found["base"])
        if entry is not None:
            bits = found.groupdict().get("bits") or "4"
            return Stored(entry, meant.format(bits.lower().replace("_", "-")))
    return _copied(name) if organisation.lower() in _COPIERS and not revision else None


def _copied(name: str) -> Stored | None:
    try:
        entry = find(name)
    except BadInput:  # several organisations have a model of that name
        return None
    return Stored(entry, "") if entry else None
