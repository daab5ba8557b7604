"""How a command names the model: by its name on the hub, or by a file."""

from __future__ import annotations

import re
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.file_types import NUMBERS
from willfit.launch.writing.written import Order

_REPOSITORY = re.compile(r"(?:hf\.co/|hf:)?([\w.-]+/[\w.-]+?)(?:@[\w./+-]+)?:([\w./+-]+)", re.ASCII)


class Named(NamedTuple):
    """A GGUF file as a command names it.

    Attributes
    ----------
    path
        A file; empty where the hub has it.
    repository, tag
        A repository with GGUF files, and the quantization; empty where a file is named.
    notes
        What has to be done before the command can run.
    """

    path: str = ""
    repository: str = ""
    tag: str = ""
    notes: tuple[str, ...] = ()


def online_format(order: Order, online: dict[str, str], engine: str) -> str | None:
    """What tells an engine to quantize while loading; None where the checkpoint is loaded as it is stored.

    Parameters
    ----------
    online
        The engine's word for each format that it can make.

    Raises
    ------
    BadInput
        If the engine cannot make the format.
    """
    recipe = order.subject.recipe
    if order.format_name is None or not recipe.named or not recipe.method:
        return None
    word = online.get(order.format_name.lower()) or online.get(recipe.method)
    if word is None:
        raise BadInput(
            f"{engine} cannot make {order.format_name[:40]} of {order.model[:80]} while it loads it",
            f"name a checkpoint that is stored so, or one of --format {', '.join(sorted(online))}",
        )
    return word


def gguf_name(order: Order, engine: str) -> Named:
    """The GGUF file of a model, or the name that it would have.

    Raises
    ------
    BadInput
        If the model is none and would be none.
    """
    model = order.model.strip()
    if order.subject.gguf is None:
        raise BadInput(
            f"{engine} runs GGUF files, and {model[:80]} is none", "name one, or give --format q4_K_M"
        )
    if model.lower().endswith(".gguf"):
        return Named(path=model)
    pinned = (
        (f"no flag of {engine} names a revision: take the file of {order.revision}",)
        if order.revision
        else ()
    )
    found = _REPOSITORY.fullmatch(model)
    if found is not None and ("gguf" in found[1].lower() or order.subject.from_headers):
        return Named(repository=found[1], tag=found[2], notes=pinned)
    number = order.subject.gguf.metadata.get("general.file_type")
    kind = found[2] if found else next((name for name, one in NUMBERS.items() if one == number), "")
    if not kind:
        raise BadInput(
            f"{engine}: it is not known in which type {model[:80]} is stored", "name its .gguf file"
        )
    name = order.subject.model.rstrip("/").rpartition("/")[2]
    file = f"{name}-{kind}.gguf"
    made = (
        f"{file}: make it with llama.cpp's convert_hf_to_gguf.py and llama-quantize, or take the file that "
        f"someone published as {name}-GGUF"
    )
    return Named(path=file, notes=(made, *pinned))
