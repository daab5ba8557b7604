"""vLLM's slots for adapters: bytes by hand, and what public logs counted."""

from __future__ import annotations

import pytest
from vllm_subjects import LLAMA_3B, QWEN3_8B, QWEN3_MOE, names, sized, subject_of, term

from willfit.engines.vllm import Settings
from willfit.engines.vllm.features.lora import adapter_bytes, graph_sets
from willfit.engines.vllm.options import Lora
from willfit.quantities import GIB

#: Elements of both factors of one slot of rank 1 in one layer of Llama-3.2-3B: inputs and outputs of q, k, v, o,
#: gate, up and down, each with factors of its own.
_LAYER = (3 * 3072 + 3072 + 2 * 3072 + 8192) + (3072 + 1024 + 1024 + 3072 + 2 * 8192 + 3072)


def test_slots_of_llama_3_2_3b_as_a_public_log_has_them() -> None:
    """Logged: 6.016 GiB without adapters, 6.247 GiB with four slots of rank 16, and room for 256 added tokens.

    Embedding: (128256 + 256 rows + 3072) x 16; logits: (3072 + 128512 rows) x 16. In the model's dtype: 256
    embeddings of added tokens in each slot for both, and 4 x 256 rows by which the table grows; the head is tied.
    """
    plain = sized(subject_of(LLAMA_3B), version="0.9.2")
    found = term(sized(subject_of(LLAMA_3B), version="0.9.2", lora=Lora(max_loras=4)), "lora")
    linear = 28 * _LAYER * 16 * 4
    vocabulary = 4 * 16 * ((128256 + 256 + 3072) + (3072 + 128512))
    added = (4 * 2 * 256 + 4 * 256) * 3072
    indices = 8192 * (6 * 8 + 2 * 4) + 1024 * 24
    assert found.bytes == 2 * (linear + vocabulary + added) + indices
    assert (term(plain, "weights").bytes + found.bytes) / GIB == pytest.approx(6.247, abs=0.0015)
    assert found.low_bytes == found.bytes  # nothing of it is unsure


def test_slots_of_qwen3_8b_on_two_ranks() -> None:
    """Logged by 0.22 on two T4: 7.71 GiB, 7.64 of them weights.

    A layer on a rank: q, k, v 4096 in, 2048 + 512 + 512 out; o 2048 in, 4096 out; gate and up 4096 in, 6144 out;
    down 6144 in, 4096 out. The embedding and the logits are whole on every rank.
    """
    sizing = sized(
        subject_of(QWEN3_8B), "T4", version="0.22.0", tensor_parallel=2, dtype="float16", lora=Lora()
    )
    layer = (3 * 4096 + 3072) + (2048 + 4096) + (2 * 4096 + 2 * 6144) + (6144 + 4096)
    vocabulary = 2 * (151936 + 4096)
    indices = 2048 * (4 * 8 + 4 * 4) + 256 * 24 + 8 * 151936
    assert term(sizing, "lora").bytes == 2 * 16 * (36 * layer + vocabulary) + indices
    assert (term(sizing, "weights").bytes + term(sizing, "lora").bytes) / GIB == pytest.approx(
        7.71, abs=0.006
    )


def test_qwen3_has_no_slots_for_its_vocabulary_before_0_16() -> None:
    """Only the projections and, for added tokens, nothing."""
    found = term(sized(subject_of(QWEN3_8B), version="0.13.0", lora=Lora()), "lora")
    layer = (3 * 4096 + 6144) + (4096 + 4096) + (2 * 4096 + 2 * 12288) + (12288 + 4096)
    assert found.bytes == 2 * 16 * 36 * layer + 8192 * 48 + 1024 * 24


def test_fully_sharded_slots_divide_the_other_factor_too() -> None:
    """On two ranks the first factor of q, k, v, gate and up has 8 rows, the second of o and down half the outputs."""
    asked = {"version": "0.13.0", "tensor_parallel": 2}
    found = term(sized(subject_of(QWEN3_8B), lora=Lora(fully_sharded=True), **asked), "lora")
    inner = 8 * 5 * 4096 + 16 * (2048 + 6144)
    outer = 16 * (2048 + 512 + 512 + 2048 + 2 * 6144 + 2048)
    assert found.bytes == 2 * 36 * (inner + outer) + 8192 * 48 + 1024 * 24


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        # 128 experts on four ranks: gate and up 2048 in, 192 out; down 192 in, 2048 out.
        ("0.16.0", 128 * (3 * 2048 + 3 * 192)),
        ("0.11.0", 0),
    ],
)
def test_experts_have_slots_since_0_11_1(version: str, expected: int) -> None:
    subject = subject_of(QWEN3_MOE)
    with_experts = term(sized(subject, version=version, tensor_parallel=4, lora=Lora()), "lora")
    targets = Lora(target_modules=("qkv_proj", "o_proj", "gate", "embed_tokens", "lm_head"))
    without = term(sized(subject, version=version, tensor_parallel=4, lora=targets), "lora")
    assert with_experts.bytes - without.bytes == 2 * 48 * 16 * expected


def test_one_part_of_a_fused_module_stands_for_it() -> None:
    subject = subject_of(QWEN3_8B)
    whole = term(sized(subject, lora=Lora(target_modules=("qkv_proj",))), "lora")
    part = term(sized(subject, lora=Lora(target_modules=("q_proj",))), "lora")
    assert part.bytes == whole.bytes < term(sized(subject, lora=Lora()), "lora").bytes


def test_slots_grow_with_their_number_and_rank() -> None:
    subject = subject_of(QWEN3_8B)
    sizes = [
        term(sized(subject, lora=Lora(max_loras=count, max_lora_rank=rank)), "lora").bytes
        for count, rank in ((1, 8), (1, 16), (2, 16), (2, 64))
    ]
    assert sizes == sorted(set(sizes))


def test_v0_subtracts_no_slots_from_its_budget() -> None:
    """0.7.3 makes them after it has measured the weights, and before the profile run's first reading."""
    sizing = sized(subject_of(QWEN3_8B), version="0.7.3", max_model_len=4096, lora=Lora())
    assert "lora" in names(sizing.outside)
    assert "lora" in names(sized(subject_of(QWEN3_8B), version="0.8.5", lora=Lora()).inside)


def test_graphs_are_captured_with_and_without_adapters() -> None:
    assert graph_sets(Settings(version="0.13.0")) == 1
    assert graph_sets(Settings(version="0.10.2", lora=Lora())) == 1
    assert graph_sets(Settings(version="0.13.0", lora=Lora())) == 2
    # Without, and for 1, 2, 4 and 6 adapters (five, and none beside them).
    assert graph_sets(Settings(version="0.22.0", lora=Lora(max_loras=5, specialize_active=True))) == 5


def test_a_worker_keeps_whole_adapters_on_the_host() -> None:
    """An adapter is not divided before it is put into a slot."""
    subject = subject_of(QWEN3_8B)
    one = Settings(version="0.13.0", lora=Lora(max_loras=8))
    two = Settings(version="0.13.0", tensor_parallel=2, lora=Lora())
    layer = (3 * 4096 + 6144) + (4096 + 4096) + (2 * 4096 + 2 * 12288) + (12288 + 4096)
    assert adapter_bytes(subject, one, "bf16") == adapter_bytes(subject, two, "bf16") == 2 * 16 * 36 * layer


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora": Lora(max_loras=4, max_cpu_loras=2)}, "--max-cpu-loras"),
        ({"lora": Lora(max_lora_rank=1, fully_sharded=True), "tensor_parallel": 2}, "--fully-sharded-loras"),
        (
            {"lora": Lora(), "tensor_parallel": 2, "expert_parallel": True, "version": "0.16.0"},
            "expert parallelism",
        ),
    ],
)
def test_what_vllm_refuses(settings: dict[str, object], words: str) -> None:
    assert words in sized(subject_of(QWEN3_MOE), **settings).refusal
