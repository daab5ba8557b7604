"""GGUF headers of the catalogue's models, as recorded from llama.cpp's converter (`tests/data/gguf/headers.jsonl`).

The record lacks floating-point settings and a few others. Those that llama.cpp insists on are added here, with values
that decide nothing about memory.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from willfit.checkpoints.gguf import GgufHeader

from .gguf_file import make_header

_RECORD = Path(__file__).parents[2] / "data" / "gguf" / "headers.jsonl"

#: Settings of every architecture; llama.cpp ignores those that it does not know.
_COMMON = {"attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5}
_SIGMOID = {"expert_gating_func": 2}
#: What else an architecture cannot be loaded without.
_NEEDED: dict[tuple[str, ...], dict[str, Any]] = {
    ("cohere2", "granite", "granitemoe", "muse-glimmer"): {"logit_scale": 0.0625},
    ("bailingmoe2", "deepseek32", "dots1", "exaone-moe"): {"expert_gating_func": 2},
    ("kimi-k3", "kimi-linear", "lfm2moe", "minimax-m2"): {"expert_gating_func": 2},
    ("bert",): {"pooling_type": 2},
    ("qwen3vl", "qwen3vlmoe"): {"rope.dimension_sections": (24, 20, 20, 0)},
    ("kimi-k3",): {"activation.situ_beta": 1.0, "activation.situ_linear_beta": 1.0},
    ("qwen4exp",): {
        "ple.heads_per_ngram": 8,
        "ple.layer_multipliers": (1,) * 3,
        "ple.head_offsets": tuple(range(0, 16 * 20_000_000, 20_000_000)),
        "ple.head_vocab_sizes": (20_000_000,) * 16,
    },
}
#: The same for settings whose keys do not start with the architecture.
_NEEDED_BARE = {
    "apertus": {"xielu.alpha_n": 1.0, "xielu.alpha_p": 1.0, "xielu.beta": 0.5, "xielu.eps": 1e-6},
}
#: Settings that are floating-point though the record has them without a fraction.
_FLOATS = ("attention.clamp_kqv", "attention.max_alibi_bias")


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
    added = dict(_COMMON)
    for names, values in _NEEDED.items():
        if architecture in names:
            added |= values
    metadata = {f"{architecture}.{key}": value for key, value in added.items()}
    metadata |= _NEEDED_BARE.get(architecture, {})
    for key, value in entry["metadata"].items():
        if key.removeprefix(f"{architecture}.") in _FLOATS:
            metadata[key] = float(value)
        else:
            metadata[key] = tuple(value) if isinstance(value, list) else value
    tensors = [(name, kind, tuple(shape)) for name, kind, *shape in entry["outside"]]
    for stack, patterns in entry["layers"]:
        for index, pattern in enumerate(patterns):
            tensors.extend(
                (f"{stack}.{index}.{leaf}", kind, tuple(shape))
                for leaf, kind, *shape in entry["patterns"][pattern]
            )
    return make_header(metadata, tensors)
