"""What changed between two of vLLM's eras, in words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from willfit.engines.vllm.eras import ERAS, Era

#: What each field of `Era` means, by its value, as a statement about the version that has it.
WORDS: dict[str, dict[Any, str]] = {
    "generation": {
        "v0": "the V0 engine is the default",
        "v1": "the V1 engine is the default",
    },
    "utilization": {
        0.90: "the budget is 0.90 of a device by default",
        0.92: "the budget is 0.92 of a device by default",
    },
    "activation": {
        "prefill": "the profile run ends with a row of logits for each sequence",
        "sampler": "the profile run's sampler sorts whole vocabularies",
        "fused": "the profile run's sampler leaves no sorted copies",
    },
    "context_inside": {
        False: "the driver context does not count against the budget",
        True: "the driver context counts against the budget",
    },
    "graphs_inside": {
        False: "CUDA graphs come on top of the budget",
        True: "an estimate of the CUDA graphs is taken off the budget before the cache is sized",
    },
    "capacity": {
        "blocks": "the reported tokens are blocks times block size",
        "per_group": "the reported tokens are divided by the number of cache groups",
        "concurrency": "the reported tokens are concurrency times context",
    },
    "group_slack": {
        1.0: "cache groups are as large as the rarest kind of layer",
        1.25: "cache groups may be padded by up to a quarter",
        1.5: "cache groups may be padded by up to a half",
    },
    "in_flight": {
        False: "window layers hold one batch beside their window",
        True: "window layers hold all tokens in flight beside their window",
    },
    "state_caching": {
        False: "state layers cache no prefixes by default",
        True: "state layers cache prefixes by default",
    },
    "checkpoint_blocks": {
        False: "state layers keep no block more for prefix caching",
        True: "state layers keep one more block for prefix caching",
    },
    "null_block": {
        False: "the block that is never handed out counts as room",
        True: "the block that is never handed out does not count as room",
    },
    "padded_windows": {
        False: "DeepSeek-V4's windows have pages of their own size",
        True: "DeepSeek-V4's windows have pages as large as those of its entries",
    },
    "captured": {
        "grid": "CUDA graphs are captured for a grid of sizes",
        "batch": "CUDA graphs are captured for the largest batch, too",
        "decode": "CUDA graphs are captured for batches of speculative decoding, too",
        "sequences": "CUDA graphs are captured for the largest number of sequences, too",
    },
    "sparse_capture": {
        False: "CUDA graphs are captured at every 8th size above 256",
        True: "CUDA graphs are captured at every 16th size above 256",
    },
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field in which two eras differ.

    Attributes
    ----------
    field
        Name of the field of `Era`.
    words
        What holds for the newer of the two, and since when.
    """

    field: str
    words: str


def changes(one: Era, other: Era) -> tuple[Change, ...]:
    """The fields in which two eras differ, each as a statement about the newer era; the order does not matter."""
    older, newer = sorted((one, other), key=lambda era: era.since)
    found = []
    for field in fields(Era):
        value = getattr(newer, field.name)
        if field.name != "since" and value != getattr(older, field.name):
            found.append(Change(field.name, _since(newer, field.name) + WORDS[field.name][value]))
    return tuple(found)


def _since(era: Era, field: str) -> str:
    """From which version on a field has its value; nothing where a setting says otherwise than the version."""
    since: tuple[int, ...] | None = None
    value = None
    for known in ERAS:
        if known.since <= era.since and getattr(known, field) != value:
            value, since = getattr(known, field), known.since
    if since is None or value != getattr(era, field):
        return ""
    return f"since {'.'.join(map(str, since))} "
