"""Layers that predict further tokens (`TENSOR_SKIP` in `src/models/*.cpp`)."""

from __future__ import annotations

import re

from willfit.checkpoints.gguf import GgufHeader

_HEAD = r"nextn\.(embed_tokens|shared_head_head|shared_head_norm)\."
_FEED_FORWARD = r"ffn_(?!norm\.)|exp_probs_b"

#: What of these layers is loaded even where nothing drafts, as the loader does not skip it; by architecture.
_NOT_SKIPPED = {
    "cohere2moe": re.compile(_HEAD),
    "deepseek32": re.compile("exp_probs_b"),
    "glm-dsa": re.compile("exp_probs_b"),
    "hy_v3": re.compile(f"{_HEAD}|{_FEED_FORWARD}"),
    "step35": re.compile(rf"{_HEAD}|{_FEED_FORWARD}|attn_gate\.|attn_[qk]_norm\."),
}


def drafting_tensors(header: GgufHeader, layers: range, architecture: str) -> frozenset[str]:
    """Names of the tensors that are not loaded where nothing drafts.

    Parameters
    ----------
    layers
        The layers that draft.
    """
    kept = _NOT_SKIPPED.get(architecture)
    starts = {f"blk.{index}." for index in layers}
    found = set()
    for tensor in header.tensors:
        name = tensor.name
        start = name[: name.find(".", len("blk.")) + 1]
        if name.startswith("nextn.") or (
            start in starts and not (kept is not None and kept.match(name[len(start) :]))
        ):
            found.add(name)
    return frozenset(found)
