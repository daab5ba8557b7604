"""What changed in Text Generation Inference, and when.

Read at the release tags, 0.9.4 to 3.3.7: `server/text_generation_server/models/globals.py` (margin, blocks),
`flash_causal_lm.py: warmup` (budget), `launcher/src/main.rs` (defaults).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession


@dataclass(frozen=True, slots=True)
class Era:
    """How TGI behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    wiggle
        Default of `TGI_WIGGLE_ROOM`, or the share that stood for it.
    share_of
        What that is a share of: the device's `total` memory, or what is `free` after the warm-up.
    prefill
        Default of `max_batch_prefill_tokens`: the longest prompt and 50 (`prompt`), at most 4096 (`fixed`), or what
        the card can compute (`compute`).
    all_logits
        The warm-up makes logits of all tokens of its prompts.
    attention
        Kernels by default; `paged` only has blocks of 16 tokens.
    prompt, length
        Defaults of `max_input_length` and `max_total_tokens`; None where they follow from the model.
    graphs
        CUDA graphs are captured unless told not to.
    checkpoint_cache
        The cache has 8 bits if the checkpoint asks for it.
    """

    since: Version
    wiggle: float = 1.0
    share_of: Literal["free", "total"] = "free"
    prefill: Literal["prompt", "fixed", "compute"] = "fixed"
    all_logits: bool = True
    attention: Literal["paged", "flashinfer"] = "paged"
    prompt: int | None = 1024
    length: int | None = 2048
    graphs: bool = False
    checkpoint_cache: bool = False


ERAS = succession(
    Era((0, 0)),
    changed((1, 4, 1), wiggle=0.95),
    changed((2, 0), prefill="prompt", prompt=None, length=None, graphs=True),
    changed((2, 3), attention="flashinfer"),
    changed((2, 4), wiggle=0.90),
    changed((2, 4, 1), prefill="fixed"),
    changed(
        (3, 0), wiggle=0.95, share_of="total", prefill="compute", all_logits=False, checkpoint_cache=True
    ),
    changed((3, 1), wiggle=0.93),
    changed((3, 3), wiggle=0.90),
)

NEWEST = "3.3.7"


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
