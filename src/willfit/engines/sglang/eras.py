"""What changed in SGLang, and when.

Read in the released wheels 0.4.4, 0.4.6.post5, 0.4.8, 0.4.10, 0.5.1 to 0.5.10, 0.5.12, 0.5.15, 0.5.18, 0.5.21 and
0.5.23: `server_args.py`, later `arg_groups/memory_hook.py` (defaults),
`model_executor/model_runner.py`, later `model_runner_kv_cache_mixin.py` and `mem_cache/kv_cache_configurator.py`
with `model_executor/pool_configurator.py` (pools). A change stands at the first of these that has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from willfit.engines.versions import Version, era_of

_NAMED = frozenset({"llama4", "llama4_text", "gpt_oss", "mimo_v2_flash", "mimo_v2", "step3p5"})


@dataclass(frozen=True, slots=True)
class CardClass:
    """Defaults for cards with less memory than a limit.

    Attributes
    ----------
    below_mib
        The limit, in MiB as `nvidia-smi` reports the total.
    chunk
        Default of `chunked_prefill_size`.
    graph_batch, graph_batch_many
        Largest batch with a CUDA graph, for fewer than 4 tensor-parallel ranks and for more.
    reserved_gib, reserved_per_rank_gib
        GiB kept back where the reserve follows the class: a base, and a share for each rank.
    """

    below_mib: float
    chunk: int
    graph_batch: int
    graph_batch_many: int
    reserved_gib: float = 0.0
    reserved_per_rank_gib: float = 0.0


_ALL = float("inf")

#: 0.4.6 (`server_args.py: __post_init__`).
_FIRST = (
    CardClass(25_000, 2048, 8, 80),
    CardClass(90 * 1024, 8192, 160, 160),
    CardClass(160_000, 8192, 256, 256),
    CardClass(_ALL, 8192, 512, 512),
)

#: 0.4.8 to 0.5.2; the batches of larger cards are in `cuda_graph_runner.py: get_batch_sizes_to_capture`.
_BY_CLASS = (
    CardClass(35 * 1024, 2048, 8, 80, 2.8, 0.1),
    CardClass(90 * 1024, 8192, 160, 160, 9.5, 0.5),
    CardClass(160 * 1024, 8192, 256, 256, 12, 0.5),
    CardClass(_ALL, 16384, 512, 512, 32, 0),
)

_BY_ACTIVITY = (
    CardClass(20 * 1024, 2048, 8, 8),
    CardClass(35 * 1024, 2048, 24, 80),
    CardClass(60 * 1024, 4096, 32, 160),
    CardClass(160 * 1024, 8192, 256, 512),
    CardClass(_ALL, 16384, 512, 512),
)

_LARGER_SMALL_CARDS = (_BY_ACTIVITY[0], CardClass(35 * 1024, 4096, 48, 160), *_BY_ACTIVITY[2:])


@dataclass(frozen=True, slots=True)
class Era:
    """How SGLang behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    fraction
        What the default of `mem_fraction_static` is made of: a table `by_ranks`, a reserve `by_class` of card, or
        one `by_activity`: chunk, graphs and ranks.
    cards
        Defaults by the card's memory.
    prefill_graphs
        Whether CUDA graphs are captured for prefills by default.
    speculative_mib, standalone_mib
        MiB reserved for speculative decoding, and where the draft is a model of its own.
    windows
        Model types whose window layers have a pool of their own; None: no model has one.
    checkpoint_kv
        `kv_cache_dtype auto` follows a ModelOpt checkpoint's 8-bit cache.
    half_of_tokens
        No more requests run than half of the pool's tokens.
    draft_counted
        Draft weights are loaded, and the draft's cache is counted, before the pool is sized.
    reserves_multimodal
        Buffers for images are taken from the pool.
    state_padding
        The state pool has one slot more than are used.
    extra_buffers
        State slots that track cached prefixes while batches overlap are the default.
    joint_states
        States of drafted tokens count for the requests that the pool holds, not for all that may run.
    image_share
        Factor on the static share of models with an image encoder, given or not, before the default followed the
        encoder's size; 0 from then on.
    request_padding
        The table of requests, and so the most that run, has one row more than was resolved.
    kernels_in_loading
        The first kernels are loaded together with the weights, not before.
    doubled_scales
        Scales of NVFP4 experts exist twice while they are loaded.
    wide_default
        On Blackwell servers attention runs on TensorRT-LLM's kernels by default.
    by_role
        What a disaggregated server's role does not need is not reserved.
    """

    since: Version
    fraction: Literal["by_ranks", "by_class", "by_activity"] = "by_ranks"
    cards: tuple[CardClass, ...] = _FIRST
    prefill_graphs: bool = False
    speculative_mib: int = 0
    standalone_mib: int = 0
    windows: frozenset[str] | None = None
    checkpoint_kv: bool = False
    half_of_tokens: bool = False
    draft_counted: bool = False
    reserves_multimodal: bool = False
    state_padding: bool = False
    extra_buffers: bool = False
    joint_states: bool = False
    image_share: float = 0.95
    request_padding: int = 1
    kernels_in_loading: bool = True
    doubled_scales: bool = False
    wide_default: bool = False
    by_role: bool = False


def _table() -> tuple[Era, ...]:
    eras = [Era((0, 0))]

    def changed(since: Version, **fields: object) -> None:
        eras.append(replace(eras[-1], since=since, **fields))  # type: ignore[arg-type]

    changed((0, 4, 6), image_share=0.9)
    changed((0, 4, 8), fraction="by_class", cards=_BY_CLASS, speculative_mib=2048, standalone_mib=2048)
    changed((0, 4, 10), windows=frozenset({"gemma3", "gemma3_text"}), image_share=0.0, request_padding=0)
    changed((0, 5, 2), windows=frozenset({"gpt_oss"}), standalone_mib=6144, doubled_scales=True)
    changed((0, 5, 3), fraction="by_activity", cards=_BY_ACTIVITY, checkpoint_kv=True)
    changed((0, 5, 7), windows=frozenset({"gpt_oss", "mimo_v2_flash"}))
    changed((0, 5, 8), kernels_in_loading=False)
    changed((0, 5, 9), windows=_NAMED)
    changed((0, 5, 10), prefill_graphs=True, speculative_mib=4096, half_of_tokens=True)
    changed(
        (0, 5, 12), windows=_NAMED | {"gemma4", "gemma4_text", "gemma4_unified", "laguna"}, wide_default=True
    )
    changed((0, 5, 15), speculative_mib=2048, draft_counted=True, joint_states=True, extra_buffers=True)
    changed(
        (0, 5, 18),
        speculative_mib=0,
        standalone_mib=0,
        reserves_multimodal=True,
        state_padding=True,
        by_role=True,
    )
    changed((0, 5, 21), cards=_LARGER_SMALL_CARDS)
    changed((0, 5, 23), windows=(eras[-1].windows or frozenset()) | {"muse_glimmer", "mellum", "step3p7"})
    return tuple(eras)


ERAS = _table()

NEWEST = "0.5.23"


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
