"""What changed in LMDeploy, and when.

Read in the released sources: `messages.py` (defaults), `utils.py: get_max_batch_size`,
`pytorch/engine/executor/base.py` (PyTorch engine; `pytorch/engine/model_agent.py` before 0.7),
`turbomind/turbomind.cc`, `models/llama/BlockManager.cc` and `models/llama/LlamaBatch.cc` (TurboMind; from 0.12
`generation/generation.cc`), `turbomind/supported_models.py`. TurboMind's own code was read up to 0.16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession
from willfit.quantities import MIB

NEWEST = "0.18.0"


@dataclass(frozen=True, slots=True)
class Era:
    """How LMDeploy behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    ratio, ratio_of
        Default of `cache_max_entry_count`, and whether it is a share of the card's total memory or of what is free
        once the weights are loaded.
    batches
        Default of `max_batch_size` by a word of the card's name; 128 for others.
    reserved_rows, reserved_bytes
        What the PyTorch engine sets aside before it applies the ratio: this many rows per slot of the batch beside
        `max_prefill_token_num`, and bytes for each score of a row.
    padding_blocks
        Blocks that the PyTorch engine keeps for padding.
    counts_blocks
        A `cache_max_entry_count` above 1 is a number of blocks for TurboMind.
    block
        Tokens of a block of TurboMind's, by default.
    token_tables, tables_before
        Copies of the tokens of all sequences of the batch that TurboMind keeps on the card, and whether these are
        there when free memory is read.
    index_workspace
        What the PyTorch engine sets aside for the scores of sparse attention's indexer, in bytes.
    drafts
        The PyTorch engine drafts tokens, with blocks for the draft model beside those of the model.
    """

    since: Version
    ratio: float = 0.5
    ratio_of: Literal["total", "free"] = "total"
    batches: tuple[tuple[str, int], ...] = ()
    reserved_rows: int = 0
    reserved_bytes: int = 7
    padding_blocks: int = 0
    counts_blocks: bool = True
    block: int = 128
    token_tables: int = 6
    tables_before: bool = False
    index_workspace: int = 0
    drafts: bool = False


_LARGE_CARDS = ("h100", "h800", "l20y", "h200")

ERAS = succession(
    Era((0, 0)),
    changed((0, 2, 2), ratio=0.8, ratio_of="free"),
    changed((0, 3), block=64),
    changed((0, 6), batches=(("a100", 256), ("a800", 256), ("h100", 512), ("h800", 512))),
    changed((0, 8), token_tables=5),
    changed((0, 9, 2), reserved_rows=2, reserved_bytes=2),
    changed(
        (0, 10),
        batches=(*((name, 384) for name in ("a100", "a800")), *((name, 1024) for name in _LARGE_CARDS)),
    ),
    changed((0, 11), drafts=True),
    changed((0, 12), padding_blocks=1, token_tables=1, tables_before=True),
    changed((0, 15), counts_blocks=False, tables_before=False),
    changed((0, 17), index_workspace=512 * MIB),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)


_ALWAYS: Version = (0, 0)
_NEVER: Version = (10**6,)
_REWRITTEN: Version = (0, 14)

#: Models that TurboMind runs: first version, and first version that no longer does. The list was cut in 0.14.
TURBOMIND_MODELS: dict[str, tuple[Version, Version]] = {
    "llama": (_ALWAYS, _NEVER),
    "internlm2": ((0, 2), _NEVER),
    "internlm3": ((0, 7), _NEVER),
    "qwen2": ((0, 3), _NEVER),
    "qwen2_moe": ((0, 6, 4), _NEVER),
    "qwen3": ((0, 8), _NEVER),
    "qwen3_moe": ((0, 8), _NEVER),
    "qwen3_5": ((0, 13), _NEVER),
    "qwen3_5_moe": ((0, 13), _NEVER),
    "mixtral": ((0, 6, 4), _NEVER),
    "gpt_oss": ((0, 10), _NEVER),
    "glm4_moe_lite": ((0, 13), _NEVER),
    "internvl_chat": ((0, 4), _NEVER),
    "internvl": ((0, 9), _NEVER),
    "interns1": ((0, 10), _NEVER),
    "baichuan": (_ALWAYS, _REWRITTEN),
    "internlm": (_ALWAYS, _REWRITTEN),
    "qwen": (_ALWAYS, _REWRITTEN),
    "mistral": ((0, 5), _REWRITTEN),
    "chatglm": ((0, 5), _REWRITTEN),
    "minicpmv": ((0, 5), _REWRITTEN),
    "llava": ((0, 3), _REWRITTEN),
    "deepseek_v2": ((0, 6, 4), _REWRITTEN),
    "molmo": ((0, 6, 4), _REWRITTEN),
}

#: Models that were dropped with the others and have come back: versions between which TurboMind lacks them.
TURBOMIND_PAUSES: dict[str, tuple[Version, Version, Version]] = {
    "qwen2_vl": ((0, 10), (0, 14), (0, 16)),
    "qwen2_5_vl": ((0, 10), (0, 14), (0, 16)),
}
