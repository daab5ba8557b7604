"""What changed in transformers' loading and generation, and when.

Read in the released wheels: `modeling_utils.py` (dtype, warm-up), `generation/utils.py` (cache, logits),
`cache_utils.py`, `integrations/sdpa_attention.py`, `integrations/moe.py`, `models/llama`, `models/qwen2`,
`models/deepseek_v3`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from willfit.engines.versions import Version, era_of

NEWEST = "5.23.0"


@dataclass(frozen=True, slots=True)
class Era:
    """How transformers behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    loads_fp32
        Without a dtype a model is loaded in fp32, whatever the checkpoint has.
    sdpa
        Attention is `sdpa` unless told otherwise, where a model has it (`attention.py`); before, eager.
    native_gqa
        `sdpa` attends with fewer key/value heads than query heads; before, both are repeated.
    rope_tables
        Which models keep a cos/sin table of all positions in each layer: `all`, `some` (`LATE_TABLES`) or
        `none`.
    tuple_cache
        generate() hands the cache on as tuples, so that the old and the new one are alive together.
    prompt_logits
        generate() computes the logits of all prompt positions, and upcasts them to fp32.
    warm_up
        Loading allocates one piece first, from which the tensors are then cut: `sized` as they will be stored; `half`
        that only where nothing is quantized, else half of what the model would take unquantized; or `no` piece.
    builds_in_ram
        Without a device map the whole model is built in RAM first, and filled from the files then.
    maps_torch_files
        torch's own files are mapped, not read.
    copied_cache
        The prompt's keys and values are copied into the cache; before, they are the cache.
    windows
        Layers with a sliding window or chunks keep no more than that while decoding.
    latent_cache
        Latent attention caches the latent; before, the keys and values of all heads.
    exllama
        4-bit GPTQ runs on ExLlama's kernels, which keep a scratch buffer; later on GPTQModel's.
    biased_sdpa
        Attention with a bias for each pair of positions (T5) may be `sdpa`; before, it is eager.
    grouped_experts
        Experts are one tensor and run in one grouped product; before, one after the other. Steps of decoding copy
        those that they need.
    wide_states
        Recurrent states are cached as they are computed, in fp32; before, in the compute dtype.
    alibi_masks
        Falcon always has a mask, onto which ALiBi could be added; before, none where attention is merely causal.
    wide_math
        SDPA without a kernel for what it is asked computes in fp32. That is torch's choice from 2.5 on, and begins
        here with the version of that month.
    """

    since: Version
    loads_fp32: bool = True
    sdpa: bool = False
    native_gqa: bool = False
    rope_tables: Literal["all", "some", "none"] = "all"
    tuple_cache: bool = True
    prompt_logits: bool = True
    warm_up: Literal["no", "half", "sized"] = "no"
    builds_in_ram: bool = True
    maps_torch_files: bool = False
    copied_cache: bool = False
    windows: bool = False
    latent_cache: bool = False
    exllama: bool = True
    biased_sdpa: bool = False
    grouped_experts: bool = False
    wide_states: bool = False
    alibi_masks: bool = False
    wide_math: bool = False


def _table() -> tuple[Era, ...]:
    eras = [Era((0, 0))]

    def changed(since: Version, **fields: object) -> None:
        eras.append(replace(eras[-1], since=since, **fields))  # type: ignore[arg-type]

    changed((4, 36), sdpa=True)
    changed((4, 38), maps_torch_files=True)
    changed((4, 41), rope_tables="some")
    changed((4, 42), tuple_cache=False)
    changed((4, 45), prompt_logits=False, rope_tables="none")
    changed((4, 46), wide_math=True)
    changed((4, 49), exllama=False)
    changed((4, 50), warm_up="half")
    changed((4, 51), builds_in_ram=False)
    changed((4, 56), windows=True, native_gqa=True, copied_cache=True)
    changed((5, 0), loads_fp32=False, grouped_experts=True, warm_up="sized")
    changed((5, 13), biased_sdpa=True)
    changed((5, 14), wide_states=True)
    changed((5, 15), latent_cache=True, alibi_masks=True)
    return tuple(eras)


ERAS = _table()

#: Model types whose rotary tables outlived those of Llama, Mistral and Gemma.
LATE_TABLES = frozenset(
    ("falcon", "gpt_neox", "mixtral", "persimmon", "phi", "qwen2", "qwen2_moe", "stablelm", "starcoder2")
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
