"""ExLlamaV2 and ExLlamaV3: bytes by hand, splits over cards, versions, refusals and properties."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines import exllamav2, exllamav3
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.layer_split import Block, fill
from willfit.engines.subject import subject_from_config
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.device import CPU, Device
from willfit.quantities import GIB, MIB

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1024, "hidden_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024,
    "head_dim": 64, "max_position_embeddings": 16384, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
#: Weights of a layer: q and o 512 x 512, k and v 128 x 512, three of 1024 x 512.
LINEARS = 2 * 512 * 512 + 2 * 128 * 512 + 3 * 1024 * 512
MOE = {
    **LLAMA, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 256,
}  # fmt: skip


def card(size: int = 8 * GIB, **fields: Any) -> Device:
    return Device("card", **{"vendor": "NVIDIA", "usable_bytes": size, "compute_capability": "8.6", **fields})


def subject(config: dict[str, Any], format_name: str | None = None) -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def bundled(name: str, format_name: str | None = None) -> Subject:
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config, name), format_name)


def ask(engine: Any, what: Subject, *cards: Device, users: int = 1, **fields: Any) -> Estimate:
    return engine.estimate(what, Machine(cards or (card(),), 64 * GIB), engine.Settings(**fields), users)


def terms(found: Estimate, at: int = 0) -> dict[str, int]:
    assert not found.refusal
    return {term.name: term.bytes for term in found.devices[at].terms}


def host(found: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in found.host.terms}


# ExLlamaV3


def test_v3_weights_and_pages():
    found = terms(ask(exllamav3, subject(LLAMA, "exl3-4.0"), max_seq_len=1000))
    # 4 bits, a scale of 2 B for each input and output; norms in fp16; the head in 6 bits.
    scales = 2 * (2 * (512 + 512) + 2 * (512 + 128) + 3 * (512 + 1024))
    layer = LINEARS // 2 + scales + 2 * 2 * 512
    head = 1024 * 512 * 6 // 8 + 2 * (512 + 1024)
    assert found["weights"] == 4 * layer + head + 2 * 512
    # 1000 tokens are four pages of 256: keys and values of 2 heads x 64 in 16 bits.
    assert found["kv_cache"] == 4 * 1024 * 2 * 2 * 64 * 2
    assert host(ask(exllamav3, subject(LLAMA, "exl3-4.0"))) == {"embedding": 1024 * 512 * 2}


@pytest.mark.parametrize(
    ("mode", "token"),
    [
        # 128 keys are 4 groups of 32: a word of 4 B for each bit, and a scale of 2 B.
        ("Q4", 2 * 4 * (4 * 4 + 2)),
        ("Q8", 2 * 4 * (8 * 4 + 2)),
        ("8,4", 4 * (8 * 4 + 2) + 4 * (4 * 4 + 2)),
    ],
)
def test_v3_quantized_pages(mode, token):
    found = terms(ask(exllamav3, subject(LLAMA), cache_size=2048, cache_mode=mode))
    assert found["kv_cache"] == 4 * 2048 * token


def test_v3_a_prompt_unpacks_matrices_and_older_versions_the_cache():
    what = subject(LLAMA, "exl3-4.0")
    new = terms(ask(exllamav3, what, cache_size=8192, version="1.4.0"))["activations"]
    # Down: the stream (4 + 2 B), attention's output (4 B), gate and up, the result (4 B), and the matrix unpacked.
    assert new == 2048 * (6 * 512 + 4 * 512 + 2 * 2 * 1024 + 4 * 512) + 2 * 1024 * 512
    old = terms(ask(exllamav3, what, cache_size=8192, version="0.0.5"))["activations"]
    # No output is kept, but the rotated copy of the input.
    assert old == 2048 * (6 * 512 + 2 * 2 * 1024 + 4 * 512 + 2 * 1024) + 2 * 1024 * 512
    long = {"cache_size": 262_144, "max_seq_len": 8192, "cache_mode": "Q4"}
    whole = terms(ask(exllamav3, what, version="0.0.5", **long))["activations"]
    direct = terms(ask(exllamav3, what, version="1.2.0", **long))["activations"]
    window = terms(ask(exllamav3, what, version="1.6.5", **long))["activations"]
    assert whole > window > direct
    assert whole - window == (262_144 - 65_536) * 2 * 2 * 64 * 2


def test_v3_tied_heads_are_tensors_of_their_own():
    tied = subject({**LLAMA, "tie_word_embeddings": True}, "exl3-4.0")
    untied = subject(LLAMA, "exl3-4.0")
    assert terms(ask(exllamav3, tied))["weights"] == terms(ask(exllamav3, untied))["weights"]


def test_v3_layers_go_on_until_a_card_is_full():
    what = bundled("Qwen/Qwen2.5-32B-Instruct", "exl3-4.0")
    found = ask(exllamav3, what, card(12 * GIB), card(12 * GIB), max_seq_len=8192)
    (first, one), (two, last) = found.details["layers"]
    assert (first, last, one) == (0, 65, two)
    assert found.devices[0].peak_bytes <= 12 * GIB - 96 * MIB
    assert found.devices[0].verdict == "fits"
    whole = ask(exllamav3, what, card(48 * GIB), max_seq_len=8192)
    for name in ("weights", "kv_cache"):
        assert terms(found)[name] + terms(found, 1)[name] == terms(whole)[name]
    assert "logits" not in terms(found)
    split = ask(exllamav3, what, card(24 * GIB), card(24 * GIB), max_seq_len=8192, gpu_split=(8, 20))
    assert terms(split)["weights"] + terms(split)["kv_cache"] <= 8 * GIB
    third = ask(exllamav3, what, *(card(24 * GIB),) * 3, max_seq_len=8192)
    assert not third.devices[2].terms


def test_v3_tensor_parallel_divides_layers():
    what = bundled("Qwen/Qwen2.5-32B-Instruct", "exl3-4.0")
    one = ask(exllamav3, what, card(48 * GIB), max_seq_len=8192)
    two = ask(exllamav3, what, card(24 * GIB), card(24 * GIB), max_seq_len=8192, tensor_parallel=True)
    assert terms(two)["kv_cache"] * 2 == terms(one)["kv_cache"]
    assert terms(two)["weights"] == terms(two, 1)["weights"]
    assert 0.5 < terms(two)["weights"] / terms(one)["weights"] < 0.51


def test_v3_rings_and_states_have_a_place_for_each_sequence():
    gemma = bundled("google/gemma-4-26B-A4B-it", "exl3-4.0")
    big = card(80 * GIB)
    old = terms(ask(exllamav3, gemma, big, cache_size=65_536, version="0.0.29"))
    new = terms(ask(exllamav3, gemma, big, cache_size=65_536, version="0.0.30"))
    assert "window_cache" not in old
    # 25 layers with a window of 1024: 6 pages of 256 with 8 heads x 256, keys and values, for 4 sequences.
    assert new["window_cache"] == 25 * 4 * 1536 * 2 * 8 * 256 * 2
    assert old["kv_cache"] - new["kv_cache"] == 25 * 65_536 * 2 * 8 * 256 * 2
    full = terms(ask(exllamav3, gemma, big, cache_size=65_536, version="0.0.30", swa_full=True))
    assert full["kv_cache"] == old["kv_cache"]
    delta = bundled("Qwen/Qwen3-Next-80B-A3B-Instruct", "exl3-4.0")
    one = terms(ask(exllamav3, delta, card(96 * GIB), cache_size=8192, version="1.4.0", max_batch_size=1))
    # 36 layers: 8192 channels x 4 inputs in bf16, and 32 heads of 128 x 128 in fp32.
    assert one["recurrent_state"] == 36 * (8192 * 4 * 2 + 32 * 128 * 128 * 4)
    drafting = {"max_batch_size": 2, "draft_mode": "ngram", "draft_num_tokens": 3}
    many = terms(ask(exllamav3, delta, card(96 * GIB), cache_size=8192, version="1.4.0", **drafting))
    assert many["recurrent_state"] == 36 * 2 * (8192 * (4 + 3) * 2 + 4 * 32 * 128 * 128 * 4)
    new = terms(ask(exllamav3, delta, card(96 * GIB), cache_size=8192, **drafting))
    state = 2 * 32 * 128 * 128 * 2 + 4 * (8192 * 2 + 32 * (2 + 4))
    assert new["recurrent_state"] == 36 * 2 * (8192 * 7 * 2 + state)


def test_v3_experts_on_the_processor():
    what = subject(MOE, "exl3-4.0")
    here = ask(exllamav3, what, cache_size=4096)
    there = ask(exllamav3, what, cache_size=4096, cpu_moe_offload_layers=3)
    moved = terms(here)["weights"] - terms(there)["weights"]
    # 8 experts of three matrices of 512 x 256 in three layers, with their scales.
    assert moved == 3 * 8 * 3 * (512 * 256 // 2 + 2 * (512 + 256))
    assert host(there)["experts"] == moved
    assert "1.2.0 and later do" in ask(exllamav3, what, version="1.1.0", cpu_moe_offload_layers=1).refusal


def test_v3_a_draft_comes_first():
    what = bundled("Qwen/Qwen3.8-27B", "exl3-4.0")
    plain = ask(exllamav3, what, card(48 * GIB), cache_size=8192)
    mtp = ask(exllamav3, what, card(48 * GIB), cache_size=8192, draft_mode="mtp")
    # One layer of 4 heads x 256, keys and values in 16 bits.
    assert terms(mtp)["draft_cache"] == 8192 * 2 * 4 * 256 * 2
    assert terms(mtp)["draft"] == what.mtp_bytes
    assert terms(mtp)["weights"] == terms(plain)["weights"]


# ExLlamaV2


def test_v2_scratch_holds_the_largest_matrix():
    what = bundled("meta-llama/Meta-Llama-3-8B-Instruct", "exl2-5.0")
    found = ask(exllamav2, what, card(24 * GIB), max_seq_len=8192)
    head = 128_256 * 4096
    assert terms(found)["scratch"] == 2 * head + 128
    # Before 0.1.0 there is room for scores: of 16 positions as tabbyAPI asks, or of all of a part of a prompt.
    old = {"version": "0.0.20", "max_seq_len": 8192}
    assert terms(ask(exllamav2, what, card(24 * GIB), **old))["scratch"] == 2 * head + 128 + 16 * 128_256 * 4
    every = terms(ask(exllamav2, what, card(24 * GIB), **old, max_output_len=None))
    assert every["scratch"] == 2 * head + 128 + 2048 * 128_256 * 4
    assert terms(ask(exllamav2, what, card(24 * GIB), version="0.0.8", max_seq_len=8192)) == every | {
        "logits": terms(found)["logits"]
    }
    small = terms(ask(exllamav2, subject(LLAMA, "exl2-4.0"), max_seq_len=4096))
    # Here the MLP asks for most: state, and two of the widest, for each token; and its matrix.
    assert small["scratch"] == 2048 * (512 + 2 * 1024) * 2 + 2 * 512 * 1024 + 128
    assert "scratch" not in terms(ask(exllamav2, subject(LLAMA), max_seq_len=4096))


@pytest.mark.parametrize(
    ("mode", "token"),
    # 128 keys and 128 values: 16 bits, 8 bits, then with 4 B of scales for each 32.
    [("FP16", 512), ("FP8", 256), ("Q4", 128 + 16), ("Q6", 128 + 64 + 16), ("Q8", 256 + 16)],
)
def test_v2_cache_modes(mode, token):
    found = terms(ask(exllamav2, subject(LLAMA), cache_size=4096, cache_mode=mode))
    assert found["kv_cache"] == 4 * 4096 * token
    assert found.get("cache_scratch", 0) == (0 if mode == "FP16" else 4096 * 512)
    # Sines and cosines of 64 dimensions.
    assert found["rotary_tables"] == 2 * 4096 * 64 * 2


def test_v2_without_flash_attention():
    what = subject(LLAMA, "exl2-4.0")
    ampere = terms(ask(exllamav2, what, max_seq_len=4096, version="0.0.20"))["activations"]
    turing = card(compute_capability="7.5")
    scores = terms(ask(exllamav2, what, turing, max_seq_len=4096, version="0.0.20"))["activations"]
    # Scores of 8 heads twice, and keys and values of 2 heads repeated for all 8 over 4096 tokens.
    assert scores - ampere == 2 * 8 * 2048 * 2048 * 2 + 2 * 4096 * 8 * 64 * 2
    kernel = terms(ask(exllamav2, what, turing, max_seq_len=4096))["activations"]
    assert kernel - ampere == 2 * 4096 * 8 * 64 * 2


def test_v2_modes_by_version():
    what = subject(LLAMA, "exl2-4.0")
    assert "has no Q4 cache" in ask(exllamav2, what, version="0.0.14", cache_mode="Q4").refusal
    assert not ask(exllamav2, what, version="0.0.15", cache_mode="Q4").refusal
    assert "has no Q6 cache" in ask(exllamav2, what, version="0.1.4", cache_mode="Q6").refusal
    assert "0.1.9 and later do" in ask(exllamav2, what, version="0.1.8", tensor_parallel=True).refusal
    with pytest.raises(BadInput, match="unknown cache mode 'Q5'"):
        ask(exllamav2, what, cache_mode="Q5")


# Both


@pytest.mark.parametrize("engine", [exllamav2, exllamav3])
def test_refusals(engine):
    amd, apple = card(vendor="AMD"), Device("mac", vendor="Apple", usable_bytes=GIB)
    assert not ask(engine, subject(LLAMA), amd).refusal
    for device in (CPU, apple):
        assert "llama.cpp" in ask(engine, subject(LLAMA), device).refusal
    unknown = {**LLAMA, "architectures": ["FooForCausalLM"], "model_type": "foo"}
    assert "does not run FooForCausalLM" in ask(engine, subject(unknown)).refusal
    assert "does not load awq checkpoints" in ask(engine, subject(LLAMA, "awq")).refusal
    with pytest.raises(BadInput, match="needs a card"):
        engine.estimate(subject(LLAMA), Machine(()), engine.Settings())
    with pytest.raises(BadInput, match="cache"):
        engine.answer(subject(LLAMA), Machine((card(),)), Question(kv_dtype="fp32"))


def test_each_refers_to_the_other():
    assert "ExLlamaV2 does" in ask(exllamav3, subject(LLAMA, "exl2-4.0")).refusal
    assert "ExLlamaV3 does" in ask(exllamav2, subject(LLAMA, "exl3-4.0")).refusal


@pytest.mark.parametrize("engine", [exllamav2, exllamav3])
def test_the_largest_cache_fits_and_a_page_more_does_not(engine):
    kind = "exl2-4.0" if engine is exllamav2 else "exl3-4.0"
    what, device = bundled("Qwen/Qwen3-8B", kind), card(12 * GIB)
    found = ask(engine, what, device, max_seq_len=8192)
    tokens = found.capacity.kv_cache_tokens
    for count, fits in ((tokens, True), (tokens + 256, False)):
        place = ask(engine, what, device, max_seq_len=8192, cache_size=count).devices[0]
        assert (place.peak_bytes <= 12 * GIB) is fits
    small = ask(engine, what, card(7 * GIB), max_seq_len=40_960)
    assert any("cache_size" in one for one in small.remedies)
    assert any("quantized cache" in one for one in small.remedies)


def test_a_cache_that_is_too_small_for_the_users():
    found = ask(exllamav3, subject(LLAMA, "exl3-4.0"), users=4, max_seq_len=4096, cache_size=8192)
    (demand,) = found.demands
    assert (demand.needed_bytes, demand.verdict) == (2 * demand.pool_bytes, "does_not_fit")
    assert found.remedies == ("a larger cache (cache_size: 16384)",)
    answered = exllamav3.answer(subject(LLAMA, "exl3-4.0"), Machine((card(),)), Question(4096, 4))
    assert answered.demands[0].verdict == "fits"


@settings(max_examples=25, deadline=None)
@given(
    engine=st.sampled_from(["exllamav2", "exllamav3"]),
    context=st.integers(1, 16_384),
    more=st.integers(0, 8192),
    users=st.integers(1, 8),
    kv=st.sampled_from(["auto", "int8", "int4"]),
)
def test_more_context_and_more_users_take_no_less(engine, context, more, users, kv):
    module = import_module(f"willfit.engines.{engine}")
    what = subject(LLAMA, "exl2-4.0" if engine == "exllamav2" else "exl3-4.0")

    def peak(tokens: int, many: int) -> int:
        return module.answer(what, Machine((card(),)), Question(tokens, many, kv)).devices[0].peak_bytes

    least = peak(context, users)
    assert least <= peak(context + more, users)
    assert least <= peak(context, users + 1)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=12),
    limits=st.lists(st.integers(0, 120), min_size=1, max_size=4),
)
def test_blocks_are_held_once_and_in_order(sizes, limits):
    blocks = [Block(*size) for size in sizes]
    ranges = fill(blocks, limits)
    assert [at for first, last in ranges for at in range(first, last)] == list(range(len(blocks)))
    for (first, last), limit in list(zip(ranges, limits, strict=True))[:-1]:
        held = blocks[first:last]
        assert sum(one.held for one in held) + max((one.work for one in held), default=0) <= limit or not held
