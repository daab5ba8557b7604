"""Headers with the types that a case states for its file's tensors, where its mix is nobody's default.

`gguf_hparams.types` lists pairs of a pattern of tensor names and a type, as `llama-quantize --custom-q` takes them; the
first pattern that is found in a name counts. An empty type says that the file lacks the tensor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.record import Entry, header_of
from willfit.ggml_types import GGML_TYPES

#: A type of so many tensors may be that of experts in many layers.
_ALL_LAYERS = 8
_KEYS, _VALUES, _BOTH = "attn_k_b.weight", "attn_v_b.weight", "attn_kv_b.weight"


def as_stated(header: GgufHeader, facts: Mapping[str, Any]) -> GgufHeader | None:
    """The header with the stated types; None if the case states none.

    Parameters
    ----------
    facts
        The case's `gguf_hparams`.

    Raises
    ------
    ValueError
        If the types contradict the stated count of each (`tensor_types`).
    """
    if "types" not in facts:
        return None
    patterns = [(re.compile(pattern), str(kind).upper()) for pattern, kind in facts["types"]]
    entries = [
        typed
        for tensor in header.tensors
        for entry in _with_both(Entry(tensor.name, tensor.ne, tensor.type))
        if (typed := _typed(entry, patterns)) is not None
    ]
    counted = Counter(entry.type for entry in entries)
    stated = {str(kind).upper(): int(count) for kind, count in (facts.get("tensor_types") or counted).items()}
    if dict(counted) != stated:
        raise ValueError(f"types make {dict(counted)}, the log counts {stated}")
    return header_of(entries, header.metadata)


def mix_bounds(header: GgufHeader, facts: Mapping[str, Any]) -> tuple[int, int] | None:
    """What all tensors take at least and at most if it is only known which types there are, and of how many tensors.

    Parameters
    ----------
    header
        What was predicted.
    facts
        The case's `gguf_hparams`.
    """
    counts = {str(kind).upper(): int(count) for kind, count in (facts.get("tensor_types") or {}).items()}
    bits = [
        GGML_TYPES[kind].bits_per_weight
        for kind, count in counts.items()
        if count >= _ALL_LAYERS and kind in GGML_TYPES and GGML_TYPES[kind].block > 1
    ]
    if not bits:
        return None
    matrices = [tensor for tensor in header.tensors if tensor.type != "F32"]
    elements, stored = sum(prod(one.ne) for one in matrices), sum(one.bytes for one in matrices)
    rest = sum(tensor.bytes for tensor in header.tensors) - stored
    return min(stored, int(elements * min(bits) / 8)) + rest, max(
        stored, int(elements * max(bits) / 8)
    ) + rest


def _typed(entry: Entry, patterns: Iterable[tuple[re.Pattern[str], str]]) -> Entry | None:
    """An entry with its type; None if the file lacks it."""
    kind = next((kind for pattern, kind in patterns if pattern.search(entry.name)), entry.type)
    if not kind:
        return None
    small = entry.type == "F32" or entry.ne[0] % GGML_TYPES[kind].block
    return entry if small else entry._replace(type=kind)


def _with_both(entry: Entry) -> Iterator[Entry]:
    """An entry, and behind keys' projection from latents the matrix of both, which ik_llama.cpp's converter keeps."""
    if entry.name.endswith(_KEYS):
        plain, rank, heads = entry.ne
        # As wide as keys in all models that have latents so far.
        name = entry.name.removesuffix(_KEYS) + _BOTH
        yield entry._replace(name=name, ne=(rank, heads * 2 * plain))
    yield entry
