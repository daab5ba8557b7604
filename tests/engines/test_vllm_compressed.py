"""The caches of DeepSeek-V4 and MiniMax-M3 in vLLM, by hand from the engine's pages and groups."""

from __future__ import annotations

import pytest
from vllm_subjects import answered, sized

from willfit.asking import find_subject
from willfit.engines.base import Subject
from willfit.engines.vllm.cache.plan import CachePlan

#: Pages of packed tokens, multiples of 576 B: 64 tokens of 584 B (a window, or entries of four tokens), two entries
#: of 128 tokens, 64 index keys of 132 B.
_WINDOW = _FOUR = 65 * 576
_LONG = 3 * 576
_INDEX = 15 * 576
#: States in fp32: four tokens of 2 x 2 x 512 and of 2 x 2 x 128 elements, eight of 2 x 512.
_STATE_FOUR, _STATE_INDEX, _STATE_LONG = 57 * 576, 15 * 576, 57 * 576


def flash() -> Subject:
    subject, _ = find_subject("deepseek-ai/DeepSeek-V4-Flash", offline=True)
    return subject


def plan_of(subject: Subject, version: str) -> CachePlan:
    return sized(
        subject, "H200", version=version, tensor_parallel=8, expert_parallel=True, max_model_len=131072
    ).plan


def test_pages_and_groups_of_deepseek_v4_flash() -> None:
    """43 windows, of which 21 layers compress four tokens and 20 compress 128.

    Groups of 22 pad the counts 43, 21 and 20 up the least, so windows make two groups; a block holds the widest
    group, that of the entries. A sequence of 131,072 tokens takes 512 blocks of 256 tokens, and windows take the
    2 x 8192 tokens in flight and their own reach in blocks of 64, 4 and 8, and one more.
    """
    plan = plan_of(flash(), "0.33.0")
    entries = 21 * (_FOUR + _INDEX) + 20 * _LONG
    groups = {group.page_bytes: group for group in plan.groups}
    states = 21 * (_STATE_FOUR + _STATE_INDEX)
    assert set(groups) == {22 * _WINDOW, 21 * _WINDOW, entries, states, 20 * _STATE_LONG}
    assert plan.bytes_per_block == entries
    windows = -(-(127 + 16384) // 64) + 1
    expected = 512 + 2 * windows + -(-(7 + 16384) // 4) + 1 + -(-(127 + 16384) // 8) + 1
    assert plan.blocks_per_request(131072) == expected


def test_before_0_29_groups_share_a_layout_of_all_page_sizes() -> None:
    """22 layers of each of the three sizes of the entries' pages; one batch is in flight."""
    plan = plan_of(flash(), "0.22.0")
    assert plan.bytes_per_block == 22 * (_FOUR + _INDEX + _LONG)
    windows = -(-(127 + 8192) // 64) + 1
    expected = 512 + 2 * windows + -(-(7 + 8192) // 4) + 1 + -(-(127 + 8192) // 8) + 1
    assert plan.blocks_per_request(131072) == expected


@pytest.mark.parametrize(
    ("asked", "named"), [("auto", "fp8_ds_mla"), ("fp8", "fp8_ds_mla"), ("bfloat16", "bf16")]
)
def test_tokens_are_packed_unless_16_bits_are_asked_for(asked: str, named: str) -> None:
    sizing = sized(
        flash(), "H200", version="0.33.0", tensor_parallel=8, kv_cache_dtype=asked, max_model_len=131072
    )
    assert sizing.kv_dtype == named
    if named == "bf16":
        # 64 entries of 512 x 2 B, two entries, 64 index keys of 132 B in multiples of 512.
        assert sizing.plan.bytes_per_block == 21 * (65536 + 17 * 512) + 20 * 2048


def test_states_that_are_not_established_are_named() -> None:
    subject, _ = find_subject("deepseek-ai/DeepSeek-V4.1-Flash", offline=True)
    notes = answered(subject, "H200", version="0.33.0", tensor_parallel=8, max_model_len=131072).notes
    assert any("rings" in note for note in notes)
    assert not any("rings" in note for note in answered(flash(), "H200", tensor_parallel=8).notes)


def test_minimax_m3_keeps_an_index_key_beside_keys_and_values() -> None:
    """Blocks of 128 tokens; keys and values of a rank, and a 16-bit index key that every rank holds."""
    subject, _ = find_subject("MiniMaxAI/MiniMax-M3", offline=True)
    plan = sized(subject, "H200", version="0.33.0", tensor_parallel=4, max_model_len=8192).plan
    layers = subject.architecture.layers
    heads = layers[-1].mixers[0].kv_heads // 4
    indexed = [layer for layer in layers if layer.kind.endswith("+ indexer")]
    assert (heads, len(indexed)) == (1, 57)
    assert plan.bytes_per_block == 128 * 2 * (len(layers) * heads * 256 + len(indexed) * 128)


def test_one_index_key_serves_several_tokens() -> None:
    """Qwen3.8-Flash-Next: a 16-bit key of 128 elements for each group of tokens, beside keys and values."""
    subject, _ = find_subject("Qwen/Qwen3.8-Flash-Next", offline=True)
    sizing = sized(subject, "H200", version="0.33.0", max_model_len=8192)
    index = [spec for group in sizing.plan.groups for spec in group.specs if spec.kind == "indexer"]
    mixers = {m for layer in subject.architecture.layers for m in layer.mixers if getattr(m, "index_dim", 0)}
    (mixer,) = mixers
    assert index
    assert all(spec.bytes_per_token == 2 * mixer.index_dim // mixer.index_pool for spec in index)
