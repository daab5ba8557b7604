"""What changed in MLC-LLM, and when.

Read in the repository at its tags: `cpp/serve/config.cc` (its own account of memory), `cpp/serve/model.cc`,
`python/mlc_llm/cli/gen_config.py`, the models and the passes of the compiler; and in TVM, which it builds upon:
`src/runtime/vm/paged_kv_cache.cc` (`relax_vm` before) and `attn_utils.h` at the same dates, and
`src/relax/transform/static_plan_block_memory.cc`. The builds called 0.1.dev are those of mid-2024; 0.20.dev was the
name from February 2025 to July 2026, so that what such a build does may be either.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.versions import changed, era_of, succession
from willfit.quantities import MIB

NEWEST = "0.20.0"


@dataclass(frozen=True, slots=True)
class Era:
    """How MLC-LLM behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    chunk, batch
        Most tokens of a part of a prompt, and most sequences, where a model's configuration is made.
    attention_workspace
        Bytes that FlashInfer's kernels are given.
    tables
        Bytes of the merged tables of pages on NVIDIA's cards; 0 if they are as large as they have to be.
    depth
        Levels of common prefixes that tables are kept for.
    one_hidden_more
        The compiler's plan holds one hidden state more on cards (additions and norms were matched as a pattern).
    """

    since: tuple[int, ...]
    chunk: int = 2048
    batch: int = 80
    attention_workspace: int = 6 * 8 * MIB
    tables: int = 0
    depth: int = 5
    one_hidden_more: bool = True


ERAS = succession(
    Era((0, 1)),
    changed((0, 17), attention_workspace=3 * 128 * MIB, depth=2, one_hidden_more=False),
    changed((0, 17, 2), chunk=8192, batch=128, attention_workspace=3 * MIB + 768 * MIB),
    changed((0, 20), attention_workspace=3 * 8 * MIB + 768 * MIB, tables=128 * MIB),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
