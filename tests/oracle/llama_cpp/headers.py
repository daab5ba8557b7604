"""GGUF headers of the catalogue's models, as recorded from llama.cpp's converter (`tests/data/gguf/headers.jsonl`).

The record has no floating-point settings. Those that llama.cpp insists on are added here: they decide nothing about memory.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from willfit.checkpoints.gguf import GgufHeader

from .gguf_file import make_header

_RECORD = Path(__file__).parents[2] / "data" / "gguf" / "headers.jsonl"

_FLOATS = {
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


@cache
def _record() -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in map(json.loads, _RECORD.read_text().splitlines())}


def recorded() -> tuple[str, ...]:
    """Models whose headers are recorded."""
    return tuple(_record())


def header_of(model: str) -> GgufHeader:
    """The F16 header of a model of the catalogue."""
    entry = _record()[model]
    architecture = entry["metadata"]["general.architecture"]
    metadata = {f"{architecture}.{key}": value for key, value in _FLOATS.items()}
    metadata |= {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry["metadata"].items()
    }
    tensors = [(name, kind, tuple(shape)) for name, kind, *shape in entry["outside"]]
    for stack, patterns in entry["layers"]:
        for index, pattern in enumerate(patterns):
            tensors.extend(
                (f"{stack}.{index}.{leaf}", kind, tuple(shape))
                for leaf, kind, *shape in entry["patterns"][pattern]
            )
    return make_header(metadata, tensors)
