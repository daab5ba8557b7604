"""What changed in fastLLM, and when.

Read in the repository at its tags and in August 2026: `src/models/basellm.cpp` (both loops and the warm-up that sizes a
cache), `src/fastllm.cpp`, `src/model.cpp` (which models there are, and how weights are loaded), and the Python files
of the distribution, `ftllm`, up to 1.9.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.versions import Version, changed, era_of, succession
from willfit.quantities import MIB

NEWEST = "1.9.0"

#: The newest version whose kernels and loops were read.
READ: Version = (0, 1, 8)


@dataclass(frozen=True, slots=True)
class Era:
    """How fastLLM behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    paged
        Types of models with a cache in pages that is allocated at once; those of others grow with each sequence.
    safety
        Bytes that the sizing of such a cache leaves beside the share that nobody gets: at least, and at most.
    sampling
        How often buffers of scores count against the cache.
    one_layer_more
        A page counts with one layer more, for keys and values that come late.
    """

    since: Version
    paged: frozenset[str] = frozenset()
    safety: tuple[int, int] = (0, 0)
    sampling: int = 0
    one_layer_more: bool = False


_PAGED = frozenset(
    {"qwen2", "qwen3", "qwen3_moe", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "minimax_m2"}
)

ERAS = succession(
    Era((0, 0)),
    changed((0, 1, 6), paged=_PAGED),
    changed((0, 1, 6, 4), paged=_PAGED | {"step3p5"}),
    changed(
        (0, 1, 7),
        paged=_PAGED | {"step3p5", "step3p7"},
        safety=(128 * MIB, 512 * MIB),
        sampling=2,
        one_layer_more=True,
    ),
    changed((0, 1, 8), paged=_PAGED | {"step3p5", "step3p7", "laguna", "hy_v3"}),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
