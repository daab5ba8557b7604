"""What changed in ExLlamaV2, and when.

Read at the versions of `sources`, with the repository's history between them: `linear.py`, `attn.py`, `mlp.py` and
`moe_mlp.py` (what modules ask of the scratch), `cache.py` (how keys and values are stored), `model.py` (placing).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.versions import Version, changed, era_of, succession

NEWEST = "0.3.2"


@dataclass(frozen=True, slots=True)
class Era:
    """How ExLlamaV2 behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    matrix_elements
        The largest part of a matrix that is unpacked at once; 0 without a limit.
    scores
        The scratch has room for the head's scores in fp32: of all positions, of as many as `max_output_len` says, or
        of none.
    modes
        Names of caches.
    tensor_parallel
        Layers can be divided over cards.
    kernels
        torch has a kernel for attention where flash attention is not installed; otherwise scores are made.
    """

    since: Version
    matrix_elements: int = 0
    scores: str = "all"
    modes: frozenset[str] = frozenset({"FP16", "FP8"})
    tensor_parallel: bool = False
    kernels: bool = False


ERAS = succession(
    Era((0, 0)),
    changed((0, 0, 15), modes=frozenset({"FP16", "FP8", "Q4"})),
    changed((0, 0, 16), scores="asked"),
    changed((0, 0, 18), matrix_elements=512 * 2**20),
    changed((0, 1), scores="none"),
    changed((0, 1, 5), modes=frozenset({"FP16", "FP8", "Q4", "Q6", "Q8"}), kernels=True),
    changed((0, 1, 9), tensor_parallel=True),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
