"""What changed in KTransformers, and when.

Read in the released sources: `ktransformers/models/custom_cache.py`, `ktransformers/local_chat.py`,
`ktransformers/configs/config.yaml` and the rules of `optimize/optimize_rules/` up to 0.3.2; from 0.4 on `kt-kernel`
(`python/experts.py`, `operators/`), which SGLang calls (`layers/moe/kt_ep_wrapper.py`). Which SGLang a version goes
with is that of its own distribution of it, `sglang-kt`, from 0.5.2 on, and by date before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession

NEWEST = "0.7.2"

Program = Literal["sglang", "ktransformers", "balance_serve"]


@dataclass(frozen=True, slots=True)
class Era:
    """How KTransformers behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    program
        What serves where nothing else is asked for.
    programs
        What there is to serve with.
    sglang
        The version of SGLang that it goes with; empty before there was one.
    methods
        Ways to hold experts in RAM (`--kt-method`).
    layerwise
        Long prompts can have the experts of one layer after another on the card.
    cache_lens
        Tokens of the cache of its own programs where none are asked for.
    page
        Tokens of a page of compressed keys and values in its own program.
    packed_head
        The rules pack the head as well, and parts of latent attention's matrices are no copies any more.
    """

    since: Version
    program: Program = "ktransformers"
    programs: frozenset[str] = frozenset({"ktransformers"})
    sglang: str = ""
    methods: frozenset[str] = frozenset()
    layerwise: bool = False
    cache_lens: int = 4096
    page: int = 1
    packed_head: bool = False


_FIRST = frozenset({"AMXINT4", "AMXINT8"})
_GGUF = _FIRST | {"LLAMAFILE"}
_PACKED = _GGUF | {"RAWINT4", "MOE_INT4", "MOE_INT8"}
_NATIVE = _PACKED | {"FP8"}
_WHOLE = _NATIVE | {"BF16", "FP8_PERCHANNEL"}
_GROUPS = _WHOLE | {"GPTQ_INT4"}
_MX = _GROUPS | {"MXFP4"}

ERAS = succession(
    Era((0, 0)),
    changed((0, 2), cache_lens=8192),
    changed((0, 2, 1), page=64),
    changed((0, 2, 2), packed_head=True),
    changed((0, 2, 4), program="balance_serve", programs=frozenset({"ktransformers", "balance_serve"})),
    changed((0, 3, 2), program="ktransformers", cache_lens=16384),
    changed((0, 4), program="sglang", programs=frozenset({"sglang"}), sglang="0.5.5", methods=_FIRST),
    changed((0, 4, 2), methods=_GGUF),
    changed((0, 4, 3), sglang="0.5.6", methods=_PACKED),
    changed((0, 5), sglang="0.5.7", methods=_NATIVE),
    changed((0, 5, 1), sglang="0.5.8", methods=_WHOLE),
    changed((0, 5, 2), sglang="0.5.9", layerwise=True),
    changed((0, 5, 3), methods=_GROUPS),
    changed((0, 6, 2), methods=_MX),
    changed((0, 6, 4), methods=_MX | {"MXFP8", "SYCL_GPTQ_INT4"}),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
