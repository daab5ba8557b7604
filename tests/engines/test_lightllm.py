"""LightLLM: bytes of slots and tables by hand, versions, refusals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
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
    assert "does not have olmo" in ask({**LLAMA, "model_type": "olmo"}).refusal
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


LATENT: dict[str, Any] = {
    "model_type": "deepseek_v2", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256, "moe_intermediate_size": 64,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "kv_lora_rank": 64, "q_lora_rank": None, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
HYBRID: dict[str, Any] = {
    "model_type": "qwen3_next", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "head_dim": 32,
    "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 64, "full_attention_interval": 4, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "slot"),
    [
        # Of each of 2 heads 64 elements in one byte and a scale of 2 B for keys and one for values: 2 x 68 x 3.
        ("triton_int8kv", 408),
        ("ppl_int8kv", 480),
        ("offline_calibration_fp8kv", 384),
    ],
)
def test_before_1_2_a_mode_quantizes_slots(mode, slot):
    found = ask(version="1.1.0", llm_kv_type=mode)
    assert terms(found)["kv_cache"] == (found.details["max_total_token_num"] + 1) * slot
    assert mode in ask(version="1.2.0", llm_kv_type=mode).refusal


def test_latents_are_quantized_with_two_bytes_of_scale_before_1_2():
    found = ask(LATENT, version="1.1.0", llm_kv_type="triton_fp8kv")
    # (64 + 16) one-byte elements and 2 B in each of 3 layers.
    assert terms(found)["kv_cache"] == (found.details["max_total_token_num"] + 1) * 82 * 3
    found = ask(LATENT, llm_kv_type="int8kv")
    assert terms(found)["kv_cache"] == (found.details["max_total_token_num"] + 1) * 80 * 2 * 3
    assert any("aside for latent" in note for note in found.notes)


@pytest.mark.parametrize(("kind", "slot"), [("None", 1296), ("fp8kv_dsa", 788)])
def test_sparse_attention_has_index_keys_beside_the_latent(kind, slot):
    """DeepSeek-V3.2: (512 + 64) x 2 B + 144, or 512 + 4 scales of 4 B + 64 x 2 B and 128 + 4 B."""
    entry = find("deepseek-ai/DeepSeek-V3.2-Exp")
    assert entry is not None
    sparse = subject_from_config("m", Config({**entry.config, "model_type": "deepseek_v32"}, "m"))
    machine = Machine((card(2000 * GIB),) * 8)
    found = estimate(sparse, machine, Settings(tp=8, max_total_token_num=999, llm_kv_type=kind))
    assert terms(found)["kv_cache"] == 1000 * slot * 61
    assert "sparse" in ask(LATENT, llm_kv_type="fp8kv_dsa").refusal


def test_projections_of_latents_are_there_twice():
    # 3 layers x 4 heads x (32 + 32) x 64 elements in 16 bits, beside the stored projection.
    whole = subject(LATENT)
    stored = sum(line.bytes for line in whole.lines)
    assert terms(ask(LATENT))["weights"] == stored + 3 * 4 * 64 * 64 * 2


def test_data_parallel_groups_repeat_attention_and_experts_unless_these_are_spread():
    whole = terms(ask(LATENT, tp=1))["weights"]
    assert terms(ask(LATENT, tp=2, dp=2))["weights"] == whole
    spread = terms(ask(LATENT, tp=2, dp=2, enable_ep_moe=True))["weights"]
    # 2 layers x 4 experts x 3 matrices of 128 x 64 in 16 bits, half of them on each card.
    assert whole - spread == 2 * 4 * 3 * 128 * 64 * 2 // 2
    # Keys and values are whole on each, too, and a batch of prompts is shared out.
    found = ask(tp=2, dp=2)
    assert terms(found)["kv_cache"] == (found.details["max_total_token_num"] + 1) * SLOT
    assert found.details["batch_max_tokens"] == 8_192
    assert ask(tp=2, dp=2, users=4, max_req_total_len=10_000).demands[0].needed_bytes == 20_000 * SLOT
    with pytest.raises(BadInput, match="3 groups"):
        ask(tp=2, dp=3)


def test_draft_models_have_layers_of_the_cache():
    one = ask(mtp_mode="eagle_with_att", mtp_step=3)
    assert terms(one)["kv_cache"] == (one.details["max_total_token_num"] + 1) * SLOT * 4 // 3
    three = ask(mtp_mode="vanilla_with_att", mtp_step=3)
    assert terms(three)["kv_cache"] == (three.details["max_total_token_num"] + 1) * SLOT * 2
    none = ask(mtp_mode="eagle_no_att", mtp_step=1)
    assert terms(none)["kv_cache"] == (none.details["max_total_token_num"] + 1) * SLOT
    # Every request is there with its drafts: 4, 8, ... 128, then every 64 to 1024.
    assert graph_sizes(Settings(mtp_step=3), 256)[:2] == (4, 8)
    assert graph_sizes(Settings(mtp_step=3), 256)[-1] == 1024


def test_before_1_1_every_size_has_a_graph():
    assert graph_sizes(Settings(version="1.0.1"), 64) == tuple(range(1, 65))


def test_counters_and_states_in_ram():
    found = ask(HYBRID, penalty_counter_mode="pin_mem_counter")
    ram = {term.name: term.bytes for term in found.host.terms}
    # 3 layers x ((2 x 2 x 16 + 4 x 16) channels x 3 inputs x 2 B + 4 heads x 16 x 16 x 4 B).
    state = 3 * (128 * 3 * 2 + 4 * 256 * 4)
    assert ram == {"request_tables": 257 * 512 * 4, "recurrent_state": 2 * 256 * state}
    assert terms(found)["request_tables"] == 257 * 16_384 * 4 + 257 * state
    assert not ask(HYBRID, version="1.1.0").host.terms
    assert ask(cpu_cache_bytes=GIB).host.peak_bytes == GIB


def test_a_node_that_sends_caches_holds_a_buffer():
    assert "transfer_buffer" not in terms(ask())
    # 16 pages of 1024 tokens; before 1.2 one of three layers for all slots.
    assert terms(ask(run_mode="prefill"))["transfer_buffer"] == 16 * 1024 * SLOT
    old = ask(version="1.1.0", run_mode="decode", max_total_token_num=3_000)
    assert terms(old)["transfer_buffer"] == 3_000 * SLOT // 3


def test_models_and_formats_by_version():
    qwen = {**LLAMA, "model_type": "qwen3"}
    assert "does not have qwen3" in ask(qwen, version="1.0.1").refusal
    assert ask(qwen, version="1.1.0").refusal == ""
    stored = subject_from_config("m", Config(LLAMA, "m"), "awq")
    for version, words in (("1.1.0", "does not load awq"), ("1.2.0", "")):
        refusal = estimate(stored, Machine((card(),)), Settings(version=version)).refusal
        assert words in refusal
        assert bool(refusal) == bool(words)


def test_awq_weights_by_hand():
    """Matrices of 2 x 64 x 128 + 2 x 128 x 128 + 3 x 256 x 128 weights in half a byte, groups of 128 with 2.5 B."""
    stored = subject_from_config("m", Config(LLAMA, "m"), "awq")
    found = estimate(stored, Machine((card(),)), Settings())
    weights = 2 * 64 * 128 + 2 * 128 * 128 + 3 * 256 * 128
    packed = 3 * (weights // 2 + weights // 128 * 5 // 2)
    rest = 2 * (2 * 512 * 128 + 128 + 3 * 256)
    assert terms(found)["weights"] == packed + rest


@given(st.integers(1, 4), st.sampled_from(["None", "int8kv", "int4kv", "fp8kv_spt"]))
def test_narrower_slots_never_hold_fewer_tokens(users, kind):
    plain, narrow = ask(users=users), ask(users=users, llm_kv_type=kind)
    assert narrow.details["max_total_token_num"] >= plain.details["max_total_token_num"]


def test_experts_in_mxfp4_are_unpacked():
    """gpt-oss-20b: 24 layers x 32 experts x (2880 x 5760 + 2880 x 2880) weights in 16 bits instead of 4.25."""
    entry = find("openai/gpt-oss-20b")
    assert entry is not None
    found = subject_from_config("m", Config(entry.config, "m"))
    weights = terms(estimate(found, Machine((card(80 * GIB),)), Settings()))["weights"]
    matrices = 24 * 32 * (2880 * 5760 + 2880 * 2880)
    assert weights == found.weight_bytes + matrices * 2 - matrices // 2 - matrices // 32
