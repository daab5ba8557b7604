"""LightLLM: bytes of slots and tables by hand, versions, refusals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.lightllm import Settings, answer, estimate, graph_sizes
from willfit.engines.subject import subject_from_config
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.device import CPU, Device
from willfit.quantities import GIB

LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "head_dim": 32,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
#: 2 x 512 x 128 (embedding, head) + 128 (norm) + 3 layers x (128x128 + 2 x 64x128 + 128x128 + 3 x 256x128 + 256).
LLAMA_BYTES = 2 * (131_072 + 128 + 3 * 147_712)

#: 2 heads x (32 + 32) elements x 2 B x 3 layers.
SLOT = 768


def card(size: int = 2 * GIB) -> Device:
    return Device("card", vendor="NVIDIA", usable_bytes=size, compute_capability="8.9")


def subject(config: dict[str, Any]) -> Subject:
    return subject_from_config("m", Config(config, "m"))


def ask(config: dict[str, Any] = LLAMA, size: int = 2 * GIB, users: int = 1, **fields: Any) -> Estimate:
    machine = Machine((card(size),) * fields.get("tp", 1))
    return estimate(subject(config), machine, Settings(**fields), users)


def terms(found: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in found.devices[0].terms}


def test_slots_take_what_is_free_above_the_share_that_is_left():
    found = ask()
    held = terms(found)
    assert held["weights"] == LLAMA_BYTES
    # 256 + 1 requests x 16384 tokens of a batch x 4 B + 257 x 512 counters x 4 B
    assert held["request_tables"] == 17_369_088 == 257 * (16_384 + 512) * 4
    taken = held["weights"] + held["context"] + held["runtime"] + held["request_tables"]
    slots = (2 * GIB - taken - int(2 * GIB * (1 - 0.8))) // SLOT
    assert found.details["max_total_token_num"] == slots
    assert held["kv_cache"] == (slots + 1) * SLOT  # one for padding
    # 131072 positions beyond the model's 4096, sines and cosines of 32 dimensions in 16 bits
    assert held["buffers"] == (4096 + 131_072) * 32 * 2


def test_before_1_2_tables_come_out_of_what_is_left_free():
    found = ask(version="1.1.0")
    held = terms(found)
    assert found.details["mem_fraction"] == 0.9
    # 1000 + 1 requests x 16384 tokens x 4 B, and counters
    assert held["request_tables"] == 1001 * (16_384 + 512) * 4
    taken = held["weights"] + held["context"] + held["runtime"]
    assert found.details["max_total_token_num"] == (2 * GIB - taken - int(2 * GIB * (1 - 0.9))) // SLOT
    assert terms(ask(version="1.0.1"))["request_tables"] == 1001 * 16_384 * 4


@pytest.mark.parametrize(("version", "tokens"), [("1.0.0", 16_384), ("1.1.0", 8_448), ("1.2.0", 16_384)])
def test_batches_of_prompts_by_version(version, tokens):
    assert ask(version=version).details["batch_max_tokens"] == tokens


def test_older_batches_are_no_longer_than_a_request():
    assert ask(version="1.1.0", max_req_total_len=2048).details["batch_max_tokens"] == 2048
    assert ask(max_req_total_len=2048).details["batch_max_tokens"] == 16_384
    assert ask(max_req_total_len=2048, disable_chunked_prefill=True).details["batch_max_tokens"] == 2048


@pytest.mark.parametrize(
    ("kind", "slot"),
    [
        # Of 384 elements: one byte each and 2 B for every 8, half a byte and the same, one byte.
        ("int8kv", 480),
        ("int4kv", 288),
        ("fp8kv_spt", 384),
        ("fp8kv_sph", 384),
    ],
)
def test_quantized_slots(kind, slot):
    found = ask(llm_kv_type=kind)
    assert terms(found)["kv_cache"] == (found.details["max_total_token_num"] + 1) * slot


def test_heads_are_divided_and_for_qwen_repeated():
    assert terms(ask(tp=2))["kv_cache"] == (ask(tp=2).details["max_total_token_num"] + 1) * SLOT // 2
    assert "2 key/value heads cannot be divided over 4" in ask(tp=4).refusal
    qwen = {**LLAMA, "model_type": "qwen3"}
    assert ask(qwen, tp=4).refusal == ""
    assert (
        terms(ask(qwen, tp=4))["kv_cache"] == (ask(qwen, tp=4).details["max_total_token_num"] + 1) * SLOT // 2
    )


def test_a_latent_is_held_whole_on_every_rank():
    latent = {
        "model_type": "deepseek_v2", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256, "moe_intermediate_size": 64,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "kv_lora_rank": 64, "q_lora_rank": None, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
        "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
    }  # fmt: skip
    for tp in (1, 2):
        found = ask(latent, tp=tp)
        assert terms(found)["kv_cache"] == (found.details["max_total_token_num"] + 1) * (64 + 16) * 2 * 3


def test_so_many_slots_as_asked_for():
    found = ask(max_total_token_num=50_000)
    assert terms(found)["kv_cache"] == 50_001 * SLOT
    assert found.capacity is not None
    assert found.capacity.kv_cache_tokens == 50_000
    assert ask(max_total_token_num=10**7).verdict == "does_not_fit"


def test_the_longest_request_and_a_batch_of_prompts_must_fit():
    # 1.2 asserts more slots than --batch_max_tokens, also where requests are shorter.
    assert ask(max_total_token_num=16_384, max_req_total_len=100).verdict == "does_not_fit"
    assert ask(max_total_token_num=16_385, max_req_total_len=100).verdict == "fits"
    assert ask(max_total_token_num=5_000, batch_max_tokens=100).verdict == "fits"
    assert ask(max_total_token_num=4_000, batch_max_tokens=100).verdict == "does_not_fit"
    found = ask(users=3, max_req_total_len=10_000)
    assert found.demands[0].needed_bytes == 30_000 * SLOT


def test_personal_mode():
    found = ask(personal=True)
    assert found.details["running_max_req_size"] == 6
    assert found.details["batch_max_tokens"] == 2048
    graphs = next(term for term in found.devices[0].terms if term.name == "cuda_graphs")
    assert "3 layers x 6 captured sizes" in graphs.formula
    assert "cuda_graphs" not in terms(ask(disable_cudagraph=True))


def test_graph_sizes():
    # 1 to 32, then 48, 64, ... 240, and 256.
    assert graph_sizes(Settings(), 256) == (*range(1, 33), *range(48, 256, 16), 256)
    assert graph_sizes(Settings(), 16) == tuple(range(1, 17))
    assert graph_sizes(Settings(), 40) == (*range(1, 33), 40)


def test_refusals():
    assert "NVIDIA" in estimate(subject(LLAMA), Machine((CPU,)), Settings()).refusal
    assert "does not run 'olmo' models; vLLM does" in ask({**LLAMA, "model_type": "olmo"}).refusal
    with pytest.raises(BadInput, match="2 ranks need 2 devices, 1 given"):
        estimate(subject(LLAMA), Machine((card(),)), Settings(tp=2))


def test_a_question_is_answered_on_the_devices_that_heads_divide_over():
    machine = Machine((card(),) * 4)
    found = answer(subject(LLAMA), machine, Question(context=1024, kv_dtype="int8"))
    assert len(found.devices) == 2
    assert found.details["max_req_total_len"] == 1024
    assert any("2 of 4 devices" in note for note in found.notes)
    with pytest.raises(BadInput, match="no cache of fp32"):
        answer(subject(LLAMA), machine, Question(kv_dtype="fp32"))


@given(st.integers(GIB, 200 * GIB), st.floats(0.3, 0.95))
def test_slots_grow_with_the_card_and_leave_the_rest_free(size, fraction):
    found = ask(size=size, mem_fraction=fraction)
    held = terms(found)
    before = sum(held[name] for name in ("weights", "context", "runtime", "request_tables"))
    assert before + found.details["max_total_token_num"] * SLOT <= max(before, fraction * size + 1)
    more = ask(size=size + GIB, mem_fraction=fraction)
    assert more.details["max_total_token_num"] >= found.details["max_total_token_num"]


@given(st.integers(1, 60_000), st.integers(1, 5))
def test_remedies_hold(slots, users):
    """Shorter requests that are offered as a remedy fit."""
    found = ask(users=users, max_total_token_num=slots, batch_max_tokens=1)
    for remedy in found.remedies:
        if "--max_req_total_len" in remedy:
            length = int(remedy.rsplit(" ", 1)[1].rstrip(")"))
            shorter = ask(
                users=users, max_total_token_num=slots, batch_max_tokens=1, max_req_total_len=length
            )
            assert shorter.demands[0].verdict == "fits" or slots <= 1
