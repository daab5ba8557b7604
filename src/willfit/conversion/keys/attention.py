"""Metadata of attention: heads, widths, windows, indexers, rotary dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
)
from willfit.conversion.extras import rope_settings
from willfit.conversion.keys.source import Keys, Source, first_positive, scalar_or_list

Attending = Attention | LatentAttention | CompressedAttention | IndexedAttention
#: What attends in each layer, if anything does.
Found = Sequence[Attending | None]

#: One number of KV heads for each layer, 0 where it has no attention.
_KV_BY_LAYER = frozenset(
    {
        "bailingmoe3", "deci", "gemma4", "glm5-next", "granitehybrid", "jamba", "kimi-k3", "kimi-linear", "lfm2",
        "lfm2moe", "mimo2", "nemotron_h", "nemotron_h_moe", "step35",
    }
)  # fmt: skip
#: One number of query heads for each layer.
_HEADS_BY_LAYER = frozenset({"deci", "laguna", "step35"})
#: Latent attention that is written out as whole heads.
_WHOLE_HEADS = frozenset({"minicpm3"})
#: The values of latent attention are not written, for they are no cache of their own.
_NO_VALUE_LENGTH = frozenset({"bailingmoe3", "kimi-linear"})
#: Windows that llama.cpp is told of, with the layers that have them; elsewhere it knows them by the architecture.
_PATTERNS = frozenset(
    {"exaone-moe", "exaone4", "gemma3n", "gemma4", "mimo2", "muse-glimmer", "olmo2", "step35"}
)
_DRAFTS_IN_PATTERN = frozenset({"mimo2", "step35"})
#: Windows without the layers.
_WINDOWS = frozenset(
    {
        "afmoe", "cohere2", "deepseek2-ocr", "deepseek4", "gemma-embedding", "gemma2", "gemma3", "gpt-oss", "laguna",
        "modern-bert", "phi3", "phimoe",
    }
)  # fmt: skip
#: A window is written where there is none, too.
_ALWAYS_WINDOW = frozenset({"phi3", "phimoe"})
#: No positions at all: what is said of rotation would be wrong.
_NO_ROPE = frozenset({"jamba", "nemotron_h", "nemotron_h_moe"})


def attention_keys(source: Source) -> Keys:
    """Heads and widths, windows, indexers and rotary dimensions."""
    found = [_whole(mixers) for mixers in source.mixers]
    named = next((mixer for mixer in found if mixer is not None), None)
    if named is None:
        return {"attention.head_count": 0} if source.name in ("mamba", "mamba2") else {}
    keys: Keys = {}
    heads = tuple(mixer.heads if mixer is not None else 0 for mixer in found)
    kv_heads = tuple(_kv_heads(mixer, source.name) for mixer in found)
    keys["attention.head_count"] = heads if source.name in _HEADS_BY_LAYER else first_positive(heads)
    if source.name in _KV_BY_LAYER:
        keys["attention.head_count_kv"] = kv_heads
    else:
        keys["attention.head_count_kv"] = scalar_or_list([count for count in kv_heads if count])
    keys |= _widths(source, named, found)
    keys |= _windows(source, found)
    keys |= _indexer(source, named)
    keys |= _rotation(source, named)
    if source.name == "gemma4":  # the proportion that is rotated is in the factors
        keys["rope.dimension_count"] = keys["attention.key_length"]
        keys["rope.dimension_count_swa"] = keys["attention.key_length_swa"]
    return keys


def _whole(mixers: tuple[Mixer, ...]) -> Attending | None:
    return next((mixer for mixer in mixers if isinstance(mixer, Attending)), None)


def _kv_heads(mixer: Attending | None, name: str) -> int:
    if isinstance(mixer, Attention | IndexedAttention):
        return mixer.kv_heads
    if isinstance(mixer, LatentAttention) and name in _WHOLE_HEADS:
        return mixer.heads
    return 0 if mixer is None else 1


def _widths(source: Source, named: Attending, found: Found) -> Keys:
    if isinstance(named, LatentAttention):
        if source.name in _WHOLE_HEADS:
            keys: Keys = {"attention.key_length": named.nope_dim + named.rope_dim}
        else:
            keys = {
                "attention.key_length": named.kv_rank + named.rope_dim,
                "attention.key_length_mla": named.nope_dim + named.rope_dim,
                "attention.value_length_mla": named.value_dim,
            }
            if source.name not in _NO_VALUE_LENGTH:
                keys["attention.value_length"] = named.kv_rank
        keys["attention.kv_lora_rank"] = named.kv_rank
        if named.query_rank:
            keys["attention.q_lora_rank"] = named.query_rank
        return keys
    if isinstance(named, CompressedAttention):
        return {
            "attention.key_length": named.head_dim,
            "attention.value_length": named.head_dim,
            "attention.q_lora_rank": named.query_rank,
        }
    heads = [mixer for mixer in found if isinstance(mixer, Attention)]
    full = next((mixer for mixer in heads if not mixer.window), named)
    keys = {"attention.key_length": full.head_dim, "attention.value_length": full.value_dim}
    if source.name == "gemma4":
        slid = next((mixer for mixer in heads if mixer.window), full)
        keys |= {"attention.key_length_swa": slid.head_dim, "attention.value_length_swa": slid.value_dim}
    return keys


def _windows(source: Source, found: Found) -> Keys:
    windows = tuple(getattr(mixer, "window", 0) for mixer in found)
    window = first_positive(windows)
    if source.name == "gemma-embedding":  # both ways together, where layers count one
        window = source.config.integer("sliding_window", default=window)
    keys: Keys = {}
    if source.name in _ALWAYS_WINDOW or (window and source.name in _WINDOWS | _PATTERNS):
        keys["attention.sliding_window"] = window
    if window and source.name in _PATTERNS:
        own = windows if source.name in _DRAFTS_IN_PATTERN else windows[: len(source.architecture.layers)]
        keys["attention.sliding_window_pattern"] = tuple(size > 0 for size in own)
    if source.name == "modern-bert" and (
        every := source.config.optional_integer("global_attn_every_n_layers")
    ):
        keys["attention.sliding_window_pattern"] = every
    if source.name == "llama4" and not any(getattr(mixer, "chunk", 0) for mixer in found):
        keys["attention.sliding_window"] = 0
    shared = sum(1 for mixer in found if getattr(mixer, "shares_cache", False))
    if source.name in ("gemma3n", "gemma4"):
        keys["attention.shared_kv_layers"] = shared
    return keys


def _indexer(source: Source, named: Attending) -> Keys:
    config = source.config
    if not source.width("indexer.attn_k.weight") and not source.width("indexer.attn_q_b.weight"):
        return {}
    keys: Keys = {
        "attention.indexer.head_count": config.integer(
            "index_n_heads", default=getattr(named, "index_heads", 0)
        ),
        "attention.indexer.key_length": config.integer(
            "index_head_dim", default=getattr(named, "index_dim", 0)
        ),
        "attention.indexer.top_k": config.integer("index_topk", default=0),
    }
    if source.name == "glm-dsa":
        own = source.mixers[: len(source.architecture.layers)]
        keys["attention.indexer.types"] = tuple(
            any(getattr(mixer, "index_dim", 0) > 0 for mixer in mixers) for mixers in own
        )
    return keys


def _rotation(source: Source, named: Attending) -> Keys:
    keys: Keys = {}
    config, ropes = source.config, source.architecture.ropes
    if ropes and source.name not in _NO_ROPE:
        keys["rope.dimension_count"] = ropes[0].dim
    if isinstance(named, LatentAttention):
        keys["rope.dimension_count"] = named.rope_dim
    rope = rope_settings(config)
    kind, factor = rope.text("rope_type", "type", default=""), rope.raw("factor")
    if kind in ("linear", "yarn") and factor is not None:
        keys["rope.scaling.type"] = kind
        keys["rope.scaling.factor"] = rope.number("factor")
    if kind in ("su", "longrope") and source.name not in ("phi3", "phimoe"):
        keys["rope.scaling.type"] = "longrope"
    original = rope.optional_integer("original_max_position_embeddings") or config.optional_integer(
        "original_max_position_embeddings"
    )
    if original and (kind == "yarn" or source.name in ("phi3", "phimoe")):
        keys["rope.scaling.original_context_length"] = original
    theta = rope.raw("rope_theta") or config.raw("rope_theta", "rotary_emb_base")
    if isinstance(theta, list) and theta:
        theta = theta[0]
    if isinstance(theta, int | float):
        keys["rope.freq_base"] = float(theta)
    return keys
