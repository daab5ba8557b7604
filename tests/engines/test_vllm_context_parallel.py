"""Context, data and expert parallelism in vLLM: what a rank holds, and what the log reports of it."""

from __future__ import annotations

from typing import Any

import pytest
from vllm_subjects import LLAMA_8B, QWEN3_MOE, answered, names, sized, subject_of, term

from willfit.asking import find_subject
from willfit.engines.vllm.cache.plan import CachePlan

KIMI = "moonshotai/Kimi-K2-Instruct"


def kimi_plan(**settings: Any) -> CachePlan:
    subject, _ = find_subject(KIMI, offline=True)
    return sized(subject, tensor_parallel=8, kv_cache_dtype="auto", max_model_len=131072, **settings).plan


@pytest.mark.parametrize("version", ["0.19.0", "0.22.0"])
def test_eight_decode_context_ranks_report_eight_times_the_tokens(version: str) -> None:
    """A public log of Kimi-K2 has 715,072 tokens without and 5,721,088 with eight: blocks x 16 tokens x 8 ranks."""
    plain, spread = kimi_plan(version=version), kimi_plan(version=version, decode_context_parallel=8)
    blocks = 715072 // 16
    assert plain.reported_tokens(blocks) == pytest.approx(715072, abs=16)
    assert spread.reported_tokens(blocks) == pytest.approx(5721088, rel=1e-4)
    # A sequence of 131,072 tokens takes 8192 blocks, of 16,384 on a rank 1024.
    assert (plain.blocks_per_request(131072), spread.blocks_per_request(131072)) == (8192, 1024)
    assert spread.concurrency(blocks) == 8 * plain.concurrency(blocks)


def test_repeated_heads_are_spread_instead() -> None:
    """8 key/value heads on 16 ranks are repeated once: two ranks can share a sequence."""
    subject = subject_of(LLAMA_8B)
    sizing = sized(
        subject, version="0.22.0", tensor_parallel=16, decode_context_parallel=2, max_model_len=8192
    )
    assert sizing.refusal == ""
    assert sizing.plan.blocks_per_request(8192) == 8192 // 2 // 16


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"version": "0.10.0", "tensor_parallel": 16, "decode_context_parallel": 2}, "0.10.2"),
        ({"version": "0.11.0", "tensor_parallel": 16, "decode_context_parallel": 2}, "latents only"),
        ({"version": "0.22.0", "tensor_parallel": 8, "decode_context_parallel": 2}, "8 key/value heads"),
        ({"version": "0.22.0", "tensor_parallel": 16, "decode_context_parallel": 3}, "cannot be divided"),
        ({"version": "0.22.0", "prefill_context_parallel": 2}, "0.26"),
        (
            {
                "version": "0.33.0",
                "tensor_parallel": 2,
                "prefill_context_parallel": 2,
                "decode_context_parallel": 3,
            },
            "4",
        ),
    ],
)
def test_what_cannot_be_spread(settings: dict[str, Any], words: str) -> None:
    assert words in sized(subject_of(LLAMA_8B), max_model_len=8192, **settings).refusal


def test_windows_cannot_be_spread() -> None:
    config = {**LLAMA_8B, "model_type": "mistral", "sliding_window": 4096, "num_key_value_heads": 1}
    assert (
        "sliding windows" in sized(subject_of(config), tensor_parallel=2, decode_context_parallel=2).refusal
    )


def test_prefill_context_ranks_are_devices_of_their_own() -> None:
    asked = {"version": "0.33.0", "tensor_parallel": 2, "prefill_context_parallel": 2, "max_model_len": 8192}
    estimate = answered(subject_of(LLAMA_8B), **asked)
    assert len(estimate.devices) == 4
    # They hold whole weights of a tensor-parallel rank.
    two = answered(subject_of(LLAMA_8B), version="0.33.0", tensor_parallel=2, max_model_len=8192)
    weights = [next(t for t in one.devices[0].terms if t.name == "weights").bytes for one in (estimate, two)]
    assert weights[0] == weights[1]


def test_replicas_share_experts_out_even_without_expert_parallelism() -> None:
    """Experts are cut over tensor-parallel times data-parallel ranks, everything else over the former."""
    subject = subject_of(QWEN3_MOE)
    asked = {"version": "0.16.0", "tensor_parallel": 2, "max_model_len": 8192}
    one, four = (sized(subject, data_parallel=count, **asked) for count in (1, 4))
    experts = 48 * 128 * 3 * 2048 * 768 * 2
    before, after = (term(sizing, "weights").bytes - sizing.after_loading_bytes for sizing in (one, four))
    assert before - after == experts // 2 - experts // 8


def test_copies_of_experts_and_the_buffer_to_exchange_them() -> None:
    """128 experts and 32 copies on 8 ranks: 20 each, of 3 x 2048 x 768 elements; the buffer is one layer's."""
    subject = subject_of(QWEN3_MOE)
    asked = {"version": "0.16.0", "data_parallel": 8, "expert_parallel": True, "max_model_len": 8192}
    plain = sized(subject, **asked)
    balanced = sized(subject, redundant_experts=32, **asked)
    expert = 3 * 2048 * 768 * 2
    before, after = (
        term(sizing, "weights").bytes - sizing.after_loading_bytes for sizing in (plain, balanced)
    )
    assert after - before == 48 * (20 - 16) * expert
    assert term(balanced, "expert_exchange").bytes == 20 * expert
    early = sized(subject, redundant_experts=32, **{**asked, "version": "0.11.0"})
    assert "expert_exchange" not in names(early.inside)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"redundant_experts": 0}, "--enable-expert-parallel"),
        ({"redundant_experts": 1, "expert_parallel": True, "data_parallel": 2}, "cannot be divided"),
        ({"redundant_experts": 0, "expert_parallel": True}, "more than one rank"),
        ({"redundant_experts": 0, "expert_parallel": True, "data_parallel": 2, "version": "0.9.1"}, "0.9.2"),
    ],
)
def test_experts_that_cannot_be_balanced(settings: dict[str, Any], words: str) -> None:
    assert words in sized(subject_of(QWEN3_MOE), max_model_len=8192, **settings).refusal


def test_deepep_buffers() -> None:
    """High throughput: 1 GiB, twice beyond a host. Low latency: for 256 tokens and 128 experts two sets of
    128 x 256 messages of 2 x 2048 + 4 x 16 B to send, 4112 B at most to receive (4160 either way), and flags.
    """
    subject = subject_of(QWEN3_MOE)
    asked = {"version": "0.11.0", "expert_parallel": True, "max_model_len": 8192}
    sizes = {
        (backend, ranks): term(sized(subject, all2all_backend=backend, data_parallel=ranks, **asked), "communication")
        for backend, ranks in (
            ("deepep_high_throughput", 8), ("deepep_high_throughput", 16), ("deepep_low_latency", 8), ("pplx", 8),
        )
    }  # fmt: skip
    assert sizes["deepep_high_throughput", 8].bytes == 2**30
    assert sizes["deepep_high_throughput", 16].bytes == 2**31
    exchanged = 2 * (2 * 128 * 256 * (2 * 2048 + 4 * 16) + 4 * 128)
    assert sizes["deepep_low_latency", 8].bytes == exchanged + 2**30
    unknown = sizes["pplx", 8]
    assert (unknown.low_bytes, unknown.high_bytes) == (0, exchanged + 2**30)
    plain = sized(subject, all2all_backend="allgather_reducescatter", data_parallel=8, **asked)
    assert "communication" not in names(plain.inside)


def test_batches_are_small_where_replicas_exchange_batches() -> None:
    asked = {
        "expert_parallel": True,
        "data_parallel": 8,
        "all2all_backend": "deepep_low_latency",
        "max_model_len": 8192,
    }
    sizing = sized(subject_of(QWEN3_MOE), version="0.22.0", **asked)
    assert (sizing.resolved.max_num_batched_tokens, sizing.resolved.max_num_seqs) == (256, 256)
    assert sized(subject_of(QWEN3_MOE), version="0.16.0", **asked).resolved.max_num_batched_tokens == 8192


def test_users_are_spread_over_replicas() -> None:
    """Each replica has a cache of its own, and four users are two for each of two."""
    estimate = answered(subject_of(LLAMA_8B), version="0.22.0", data_parallel=2, users=4, max_model_len=8192)
    assert len(estimate.devices) == 2
    assert estimate.demands[0].what == "2 sequences of 8,192 tokens"
    assert any("2 replicas of 1 device" in note for note in estimate.notes)
