"""Headers of models that no catalogue has, as llama.cpp's loaders demand them: written by hand, small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from willfit.checkpoints.gguf import GgufHeader

from .gguf_file import make_header

Tensors = list[tuple[str, str, tuple[int, ...]]]
_HIDDEN, _QUERIES, _INNER, _EXPERTS, _WIDTH, _LAYERS, _VOCABULARY = 1024, 512, 4096, 32, 512, 12, 32000


def _header(
    architecture: str,
    metadata: dict[str, Any],
    layer: Callable[[int], Tensors],
    outside: Sequence[tuple[str, str, tuple[int, ...]]] = (),
) -> GgufHeader:
    """A model of latent attention whose layers but the first have experts."""
    tensors: Tensors = [
        ("token_embd.weight", "F16", (_VOCABULARY, _HIDDEN)),
        ("output_norm.weight", "F32", (_HIDDEN,)),
        ("output.weight", "F16", (_VOCABULARY, _HIDDEN)),
        *outside,
    ]
    for index in range(_LAYERS):
        found = [(name, "F32", (_HIDDEN,)) for name in ("attn_norm.weight", "ffn_norm.weight")]
        found += layer(index)
        inner = _WIDTH if index else _INNER
        for suffix in ("_shexp",) if index else ("",):
            found += [(f"ffn_{name}{suffix}.weight", "F16", (inner, _HIDDEN)) for name in ("gate", "up")]
            found.append((f"ffn_down{suffix}.weight", "F16", (_HIDDEN, inner)))
        if index:
            found.append(("ffn_gate_inp.weight", "F32", (_EXPERTS, _HIDDEN)))
            found.append(("exp_probs_b.bias", "F32", (_EXPERTS,)))
            found += [
                (f"ffn_{name}_exps.weight", "F16", (_EXPERTS, inner, _HIDDEN)) for name in ("gate", "up")
            ]
            found.append(("ffn_down_exps.weight", "F16", (_EXPERTS, _HIDDEN, inner)))
        tensors += [(f"blk.{index}.{name}", kind, shape) for name, kind, shape in found]
    shared = {
        "block_count": _LAYERS, "context_length": 131072, "embedding_length": _HIDDEN, "feed_forward_length": _INNER,
        "vocab_size": _VOCABULARY, "attention.layer_norm_rms_epsilon": 1e-6, "expert_count": _EXPERTS,
        "expert_used_count": 4, "expert_feed_forward_length": _WIDTH, "expert_shared_count": 1,
        "leading_dense_block_count": 1, "expert_gating_func": 2, "expert_weights_norm": True,
        "expert_weights_scale": 2.5, "attention.q_lora_rank": _QUERIES, "attention.head_count_kv": 1,
        "attention.kv_lora_rank": 512, "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192, "attention.value_length_mla": 128, "rope.dimension_count": 64,
        "attention.indexer.head_count": 32, "attention.indexer.key_length": 128, "attention.indexer.top_k": 2048,
    }  # fmt: skip
    named = {f"{architecture}.{key}": value for key, value in (shared | metadata).items()}
    return make_header({"general.architecture": architecture, "general.file_type": 1, **named}, tensors)


def _latents(heads: int, rank: int, plain: int, value: int, gates: int) -> Tensors:
    return [
        ("attn_q_a_norm.weight", "F32", (_QUERIES,)),
        ("attn_kv_a_norm.weight", "F32", (rank,)),
        ("attn_q_a.weight", "F16", (_QUERIES, _HIDDEN)),
        ("attn_q_b.weight", "F16", (heads * (plain + 64), _QUERIES)),
        ("attn_kv_a_mqa.weight", "F16", (rank + 64, _HIDDEN)),
        ("attn_k_b.weight", "F16", (heads, rank, plain)),
        ("attn_v_b.weight", "F16", (heads, value, rank)),
        ("attn_output.weight", "F16", (_HIDDEN, heads * value)),
        ("attn_gate.weight", "F16", (gates, _HIDDEN)),
    ]


def _indexer() -> Tensors:
    return [
        ("indexer.k_norm.weight", "F32", (128,)),
        ("indexer.k_norm.bias", "F32", (128,)),
        ("indexer.proj.weight", "F16", (32, _HIDDEN)),
        ("indexer.attn_k.weight", "F16", (128, _HIDDEN)),
        ("indexer.attn_q_b.weight", "F16", (32 * 128, _QUERIES)),
    ]


def dots3() -> GgufHeader:
    """Windows in three of four layers, with latents of other widths."""
    slides = tuple((index + 1) % 4 != 0 for index in range(_LAYERS))

    def layer(index: int) -> Tensors:
        rest: Tensors = [("attn_k_norm.weight", "F32", (64,))]
        if slides[index]:
            return rest + _latents(24, 256, 192, 192, 24)
        return rest + _latents(32, 512, 128, 128, 32) + _indexer()

    return _header(
        "dots3note",
        {
            "attention.head_count": tuple(24 if one else 32 for one in slides),
            "attention.kv_lora_rank_swa": 256, "attention.key_length_swa": 320, "attention.value_length_swa": 256,
            "attention.key_length_mla_swa": 256, "attention.value_length_mla_swa": 192,
            "attention.sliding_window": 512, "attention.sliding_window_pattern": slides,
            "rope.freq_base_swa": 10000.0, "attention.indexer.types": tuple(not one for one in slides),
        },
        layer,
    )  # fmt: skip


def hy4() -> GgufHeader:
    """Parallel streams; every third layer has an indexer of its own."""
    full = tuple(index % 3 == 0 for index in range(_LAYERS))

    def layer(index: int) -> Tensors:
        found = [("attn_sinks.weight", "F32", (24,)), *_latents(24, 512, 128, 128, 24 * 128)]
        for name in ("attn", "ffn"):
            found.append((f"hc_{name}_fn.weight", "F32", (8, 4 * _HIDDEN)))
            found += [(f"hc_{name}_base.weight", "F32", (8,)), (f"hc_{name}_scale.weight", "F32", (2,))]
        return found + (_indexer() if full[index] else [])

    streams = {"count": 4, "epsilon": 1e-6, "magnitude": 2.0}
    return _header(
        "hy_v4",
        {
            "attention.head_count": 24,
            "swiglu_clamp_exp": 10.0,
            "attention.indexer.types": full,
            **{f"hyper_connection.{key}": value for key, value in streams.items()},
        },
        layer,
        [
            ("output_hc_fn.weight", "F32", (4, 4 * _HIDDEN)),
            ("output_hc_base.weight", "F32", (4,)),
            ("output_hc_scale.weight", "F32", (1,)),
        ],
    )


#: By architecture.
WRITTEN: dict[str, Callable[[], GgufHeader]] = {"dots3note": dots3, "hy_v4": hy4}
