"""KTransformers: experts in RAM by hand, SGLang without them, its own programs, versions, refusals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines import ktransformers, sglang
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.experts import expert_bytes, expert_matrices, with_experts
from willfit.engines.ktransformers.host import METHODS
from willfit.engines.subject import subject_from_config
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.device import Device
from willfit.quantities import GIB, MIB

DENSE: dict[str, Any] = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 1024, "hidden_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024,
    "head_dim": 64, "max_position_embeddings": 16384, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
MOE = {
    **DENSE, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 256,
}  # fmt: skip


def card(size: int = 24 * GIB) -> Device:
    return Device("card", vendor="NVIDIA", usable_bytes=size, compute_capability="8.9")


def subject(config: dict[str, Any] = MOE, format_name: str | None = None) -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def bundled(name: str, format_name: str | None = None) -> Subject:
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config, name), format_name)


def serve(
    what: Subject, *cards: Device, users: int = 1, serving: dict[str, Any] | None = None, **fields: Any
) -> Estimate:
    own = sglang.Settings(version="0.5.9", **{"context_length": 4096, **(serving or {})})
    given = ktransformers.Settings(**{"sglang": own, **fields})
    return ktransformers.estimate(what, Machine(cards or (card(),), 64 * GIB), given, users)


def alone(what: Subject, *cards: Device, version: str = "0.3.2", **fields: Any) -> Estimate:
    given = ktransformers.Settings(version=version, **fields)
    return ktransformers.estimate(what, Machine(cards or (card(),), 64 * GIB), given)


def terms(found: Estimate, at: int = 0) -> dict[str, int]:
    assert not found.refusal, found.refusal
    return {term.name: term.bytes for term in found.devices[at].terms}


def host(found: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in found.host.terms}


# Experts apart from the model


def test_experts_are_taken_away_and_what_is_left_is_the_rest():
    whole = subject()
    assert [(one.rows, one.columns, one.experts, one.layers, one.by_rows) for one in expert_matrices(whole)] == [
        (256, 512, 8, 4, True), (256, 512, 8, 4, True), (512, 256, 8, 4, False),
    ]  # fmt: skip
    each = 4 * 3 * 256 * 512 * 2
    assert expert_bytes(whole) == 8 * each
    for kept in (0, 3, 8):
        left = with_experts(whole, kept)
        assert left.weight_bytes == whole.weight_bytes - (8 - kept) * each
        tensors = [
            one for layer in left.architecture.layers for one in layer.tensors if one.part == "experts"
        ]
        assert sum(one.elements for one in tensors) * 2 == kept * each


def test_fused_experts_are_divided_as_well():
    whole = bundled("openai/gpt-oss-20b")
    (one, *_) = expert_matrices(whole)
    assert (one.rows, one.columns, one.experts) == (5760, 2880, 32)
    assert expert_bytes(with_experts(whole, 8)) == expert_bytes(whole) // 4


# SGLang with kt-kernel

#: Bytes of an expert's three matrices, 256 x 512 twice and 512 x 256, that two groups of threads share.
PACKED = {
    "AMXINT4": 2 * 2 * (128 * 512 // 2 + 4 * 128) + 2 * (512 * 128 // 2 + 4 * 512),
    "AMXINT8": 2 * 2 * (128 * 512 + 4 * 128) + 2 * (512 * 128 + 4 * 512),
    "BF16": 3 * 256 * 512 * 2,
    "FP8": 3 * 2 * (128 * 512 + 64),
    "FP8_PERCHANNEL": 2 * 2 * (128 * 512 + 4 * 128) + 2 * (512 * 128 + 4 * 512),
    "RAWINT4": 3 * (256 * 512 // 2 + 4 * 256 * 512 // 32),
    "MXFP4": 3 * (256 * 512 // 2 + 4 * 256 * 512 // 32),
    "GPTQ_INT4": 3 * (256 * 512 // 2 + 4 * 256 * 512 // 128),
    "MXFP8": 3 * (256 * 512 + 4 * 256 * 512 // 32),
}


@pytest.mark.parametrize("method", PACKED)
def test_experts_in_ram(method):
    found = serve(subject(), kt_method=method)
    assert host(found)["experts"] == 4 * 8 * PACKED[method]
    rows, padded = 2 * 2048, 2 * 2048 + 32 * 8
    operand = 1 if "INT" in method else 2
    each = rows * 4 * (512 + 128) + padded * (operand * (512 + 128) + 4 * (512 + 2 * 128))
    assert host(found)["workspace"] == 2 * each
    assert host(found)["staging"] == 2 * 2048 * 512 * 4


def test_experts_in_gguf_files():
    found = serve(subject(), kt_method="LLAMAFILE", kt_weight_format="q8_0")
    assert host(found)["experts"] == 4 * 8 * 3 * 256 * 512 * 34 // 32


def test_cards_hold_the_rest_with_some_experts():
    what, chunk = bundled("Qwen/Qwen3-30B-A3B"), 65_536
    serving = {"chunked_prefill_size": chunk, "context_length": 4096}
    none, eight = (
        serve(what, kt_method="BF16", kt_num_gpu_experts=count, serving=serving) for count in (0, 8)
    )
    own = sglang.Settings(version="0.5.9", **serving)
    plain = sglang.estimate(with_experts(what, 0), Machine((card(),)), own)
    assert terms(none)["weights"] - terms(plain)["weights"] == pytest.approx(chunk * 2048 * 2, rel=0.1)
    experts = 8 * 48 * 3 * 768 * 2048 * 2
    assert terms(eight)["weights"] - terms(none)["weights"] == pytest.approx(experts, rel=0.02)
    assert terms(eight)["expert_exchange"] == 2 * 4096 * 2048 * 2
    assert host(eight)["experts"] == host(none)["experts"] == 48 * 128 * 3 * 768 * 2048 * 2
    share = serve(what, kt_method="BF16", kt_gpu_experts_ratio=0.0625, serving=serving)
    assert terms(share) == terms(eight)


def test_a_layers_experts_for_long_prompts():
    far = serve(subject(), kt_method="BF16", kt_gpu_prefill_token_threshold=5000)
    near = serve(subject(), kt_method="BF16", kt_gpu_prefill_token_threshold=400)
    old = serve(subject(), kt_method="BF16", kt_gpu_prefill_token_threshold=400, version="0.5.1")
    assert "prefill_experts" not in terms(far)
    assert terms(near)["prefill_experts"] == 8 * 3 * 256 * 512 * 2
    assert "prefill_experts" not in terms(old)
    two = serve(
        subject(),
        card(),
        card(),
        kt_method="BF16",
        kt_gpu_prefill_token_threshold=400,
        serving={"tp_size": 2},
    )
    assert terms(two)["prefill_experts"] == 4 * 3 * 256 * 512 * 2
    assert host(two)["experts"] == host(near)["experts"]


def test_a_pipelines_stages_have_their_own_layers():
    found = serve(subject(), card(), card(), kt_method="BF16", kt_num_gpu_experts=8, serving={"pp_size": 2})
    whole = serve(subject(), kt_method="BF16", kt_num_gpu_experts=8)
    assert terms(found)["weights"] < 0.7 * terms(whole)["weights"]


@pytest.mark.parametrize(
    ("what", "fields", "words"),
    [
        (subject(DENSE), {}, "routed experts"),
        (subject(MOE, "q4_k_m"), {}, "GGUF files hold the experts alone"),
        (subject(), {"version": "0.5.0", "kt_method": "BF16"}, "has no --kt-method BF16"),
        (subject(), {"version": "0.3.2", "backend_type": "sglang"}, "does not go with SGLang"),
    ],
)
def test_what_kt_kernel_does_not_do(what, fields, words):
    found = serve(what, **fields)
    assert words in found.refusal
    assert found.verdict == "does_not_fit"
    assert not found.host.terms


def test_a_method_that_there_is_not():
    with pytest.raises(BadInput, match="AMXINT4"):
        serve(subject(), kt_method="INT3")


def test_models_that_its_own_sglang_has_early():
    flash = bundled("deepseek-ai/DeepSeek-V4-Flash")
    asked = Question(8192)
    newest = ktransformers.answer(flash, Machine((card(96 * GIB),), 512 * GIB), asked)
    assert not newest.refusal
    assert (newest.details["sglang"], newest.details["kt_method"]) == ("0.5.12", "MXFP4")
    # 129 matrices of 256 experts, 2048 x 4096, in 4 bits with an fp32 scale for each 32.
    assert host(newest)["experts"] == 129 * 256 * (2048 * 4096 // 2 + 2048 * 4096 // 8)
    older = ktransformers.answer(flash, Machine((card(96 * GIB),)), Question(8192, version="0.6.1"))
    assert "DeepseekV4ForCausalLM" in older.refusal


def test_the_method_is_that_of_the_checkpoint():
    def method(name, version=None):
        found = ktransformers.answer(
            bundled(name), Machine((card(80 * GIB),)), Question(8192, version=version)
        )
        return found.details["kt_method"]

    assert method("Qwen/Qwen3-30B-A3B") == "BF16"
    assert method("Qwen/Qwen3-30B-A3B", "0.5.0") == "AMXINT4"
    assert method("deepseek-ai/DeepSeek-R1") == "FP8"
    assert method("moonshotai/Kimi-K2-Thinking") == "RAWINT4"


def test_ram_that_is_too_small_is_said():
    small = ktransformers.estimate(
        bundled("Qwen/Qwen3-30B-A3B"),
        Machine((card(),), 32 * GIB),
        ktransformers.Settings(
            kt_method="BF16", sglang=sglang.Settings(version="0.5.9", context_length=4096)
        ),
    )
    assert small.host.verdict == "does_not_fit" == small.verdict
    assert any("--kt-method AMXINT4" in one for one in small.remedies)


# Its own programs


def test_matrices_are_packed_and_experts_mapped():
    found = alone(subject(MOE, "q8_0"), cache_lens=8192, chunk_size=512)

    def marlin(rows, columns):
        return rows * columns // 2 + columns // 64 * rows * 2 + rows // 64 * 64

    layer = marlin(512, 512) * 2 + marlin(128, 512) * 2
    plain = 4 * (2 * 512 + 2 * 64 + 8 * 512) * 2 + 512 * 2
    assert terms(found)["weights"] == 4 * layer + marlin(1024, 512) + plain
    assert terms(found)["kv_cache"] == 8192 * 4 * 2 * 2 * 64 * 2
    assert terms(found)["activations"] >= 512 * 512 * 2
    assert host(found) == {"embedding": 1024 * 512 * 2}
    (mapped,) = found.host.page_cache
    assert mapped.bytes == 4 * 8 * 3 * 256 * 512 * 34 // 32
    copies = alone(subject(MOE, "q8_0"), cache_lens=8192, numa_copies=2)
    assert host(copies)["experts"] == 2 * mapped.bytes
    assert not copies.host.page_cache
    numbers = 4 * 8 * 3 * 256 * 512
    assert host(alone(subject(MOE, "q8_0"), experts="AMXInt8"))["experts"] == numbers
    assert host(alone(subject(MOE, "q8_0"), experts="AMXBF16"))["experts"] == 2 * numbers


def test_latent_attention_keeps_one_matrix_whole():
    lite = bundled("deepseek-ai/DeepSeek-V2-Lite-Chat", "q4_k_m")
    new, old = (alone(lite, version=version, cache_lens=1000) for version in ("0.2.2", "0.2.0"))
    assert terms(old)["kv_cache"] == 1000 * 27 * 576 * 2
    assert terms(new)["kv_cache"] == 1024 * 27 * 576 * 2
    assert terms(new)["workspace"] == 128 * MIB
    assert "workspace" not in terms(old)
    weights = next(term for term in new.devices[0].terms if term.name == "weights")
    # 27 x 4096 x 512 of the second matrix, 26 routers of 64 x 2048, and norms.
    plain = (27 * 4096 * 512 + 26 * 64 * 2048 + 27 * (2 * 2048 + 512) + 2048) * 2
    assert f"+ {plain} B of everything else" in weights.formula


def test_the_head_is_packed_since_0_2_2():
    lite = bundled("deepseek-ai/DeepSeek-V2-Lite-Chat", "q4_k_m")
    new, old = (alone(lite, version=version) for version in ("0.2.2", "0.2.1"))
    head = 102_400 * 2048
    marlin = head // 2 + 2048 // 64 * 102_400 * 2 + 102_400 // 64 * 64
    assert terms(old)["weights"] - terms(new)["weights"] == head * 2 - marlin
    weights = next(term for term in old.devices[0].terms if term.name == "weights")
    assert weights.high_bytes >= weights.bytes + 27 * 4096 * 512 * 2


def test_cards_have_as_many_layers():
    what = subject(MOE, "q8_0")
    found = alone(what, card(), card(), gpus=2, cache_lens=8192)
    whole = alone(what, cache_lens=8192)
    assert terms(found, 0)["kv_cache"] + terms(found, 1)["kv_cache"] == terms(whole)["kv_cache"]
    assert terms(found, 0)["weights"] + terms(found, 1)["weights"] == terms(whole)["weights"]
    with pytest.raises(BadInput, match="2 cards"):
        alone(what, gpus=2)


def test_several_users_take_graphs_and_a_second_process():
    one = alone(subject(MOE, "q8_0"), backend_type="ktransformers", cache_lens=8192)
    many = alone(subject(MOE, "q8_0"), backend_type="balance_serve", cache_lens=8000)
    assert terms(many)["context"] == 2 * terms(one)["context"]
    assert terms(many)["kv_cache"] == terms(one)["kv_cache"]
    assert terms(many)["cuda_graphs"] > 5 * terms(one)["cuda_graphs"]


@pytest.mark.parametrize(
    ("what", "fields", "words"),
    [
        (subject(MOE, "q8_0"), {"version": "0.2.1"}, "Qwen3MoeForCausalLM"),
        (subject(MOE, "q8_0"), {"backend_type": "balance_serve", "version": "0.2.1"}, "has no balance_serve"),
        (subject(MOE, "awq"), {}, "reads GGUF files"),
    ],
)
def test_what_its_own_programs_do_not_do(what, fields, words):
    assert words in alone(what, **fields).refusal


def test_the_largest_cache_fits_and_more_does_not():
    what = bundled("deepseek-ai/DeepSeek-V2-Lite-Chat", "q4_k_m")
    small = card(4 * GIB)
    found = alone(what, small, cache_lens=8192, chunk_size=256)
    tokens = found.capacity.kv_cache_tokens
    assert alone(what, small, cache_lens=tokens, chunk_size=256).devices[0].peak_bytes <= small.usable_bytes
    more = alone(what, small, cache_lens=tokens + 64, chunk_size=256)
    assert tokens == 163_840 or more.devices[0].peak_bytes > small.usable_bytes


# Properties

BIG = bundled("Qwen/Qwen3-30B-A3B")


@given(
    context=st.integers(256, 8192),
    more=st.integers(0, 8192),
    method=st.sampled_from([one for one in METHODS if one != "LLAMAFILE"]),
    kept=st.integers(0, 7),
    version=st.sampled_from(["0.3.2", "0.7.2"]),
)
@settings(max_examples=30, deadline=None)
def test_more_takes_no_less(context, more, method, kept, version):
    if version == "0.3.2":
        what = subject(MOE, "q4_k_m")
        less, greater = (alone(what, cache_lens=tokens) for tokens in (context, context + more))
        assert sum(terms(less).values()) <= sum(terms(greater).values())
        return
    few, many = (
        serve(BIG, kt_method=method, kt_num_gpu_experts=count, serving={"max_total_tokens": 8192})
        for count in (kept, kept + 1)
    )
    assert terms(few)["weights"] < terms(many)["weights"]
    short, long = (
        serve(subject(), kt_method=method, serving={"context_length": tokens})
        for tokens in (context, context + more)
    )
    assert short.host.peak_bytes <= long.host.peak_bytes
