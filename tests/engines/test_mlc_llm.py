"""MLC-LLM: terms by hand, the compiler's plan and MLC's own account against its logs, refusals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines import mlc_llm
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.mlc_llm.account import Account
from willfit.engines.mlc_llm.planning import planned
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
MISTRAL = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 2048}
MOE = {
    **LLAMA, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 256,
}  # fmt: skip

#: Matrices of a layer: q and o 512 x 512, k and v 128 x 512, three of 1024 x 512; two norms of 512.
LINEARS = 2 * 512 * 512 + 2 * 128 * 512 + 3 * 1024 * 512

#: Bytes of 32 weights in 4 bits: four words and a scale.
GROUP = 18


def card(size: int = 8 * GIB, capability: str = "8.9", vendor: str = "NVIDIA") -> Device:
    return Device("card", vendor=vendor, usable_bytes=size, compute_capability=capability)


MAC = Device("mac", vendor="Apple", usable_bytes=12 * GIB, unified_memory=True)


def subject(config: dict[str, Any] = LLAMA, format_name: str | None = "q4f16_1") -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def bundled(name: str, format_name: str) -> Subject:
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config, name), format_name)


def ask(what: Subject, *cards: Device, users: int = 1, ram: int = 64 * GIB, **fields: Any) -> Estimate:
    given = mlc_llm.Settings(**{"context_window_size": 4096, **fields})
    return mlc_llm.estimate(what, Machine(cards or (card(),), ram), given, users)


def account(name: str, format_name: str, ranks: int = 1, size: int = 24 * GIB, **fields: Any) -> Account:
    chosen = mlc_llm.Settings(tensor_parallel_shards=ranks, **fields)
    return Account(bundled(name, format_name), Machine((card(size),) * ranks), chosen)


def terms(found: Estimate, at: int = 0) -> dict[str, int]:
    assert not found.refusal, found.refusal
    return {term.name: term.bytes for term in found.devices[at].terms}


# By hand


def test_terms_of_a_small_model():
    found = terms(ask(subject()))
    linears = 4 * LINEARS + 2 * 1024 * 512
    assert found["weights"] == linears // 32 * GROUP + 9 * 512 * 2
    # 4096 tokens in pages of 16, and one page more; keys and values of 2 heads of 64 in 4 layers.
    assert found["kv_cache"] == 257 * 4 * 2 * 2 * 16 * 64 * 2
    # Queries and outputs of 8 heads, keys and values of 2, and two sums for each head.
    assert found["attention_buffers"] == 4096 * (20 * 64 * 2 + 16 * 4)
    assert found["embeddings"] == 2 * 4096 * 512 * 2
    assert found["workspace"] == 3 * 8 * MIB + 768 * MIB
    assert found["page_tables"] == 128 * MIB
    # Three arrays of indices and one of numbers for each of 4 sequences and 1024 words, bits, penalties; and scores.
    assert found["logits"] == 4 * (20 + 4 * 1024 * 4 + 128) + 4 * 1024 * 4
    assert found["planned_buffers"] == (4096 + 128) * planned(subject().architecture, 1) * 2


def test_a_plan_by_hand():
    # Hidden states of 1024 are normed with the addition before. Storages: the norm's grows to what is projected for
    # attention (1024 + 2 x 512), and to the MLP's (2 x 4096) later; in the end there are two of that, one of a
    # product, and one of a hidden state.
    config = {
        **LLAMA, "hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
        "intermediate_size": 4096, "num_hidden_layers": 8,
    }  # fmt: skip
    assert planned(subject(config).architecture, 1) == 5 * 4096 + 1024


def test_caches_in_other_dtypes():
    half, single = terms(ask(subject())), terms(ask(subject(format_name="q4f32_1")))
    assert single["kv_cache"] == 2 * half["kv_cache"]
    assert single["planned_buffers"] == 2 * half["planned_buffers"]
    assert "workspace" not in single


def test_cards_divide_matrices_but_not_the_table_and_the_head():
    whole, part = terms(ask(subject())), terms(ask(subject(), card(), card(), tensor_parallel_shards=2), 1)
    assert part["kv_cache"] * 2 == whole["kv_cache"]
    ends = 2 * 1024 * 512 // 32 * GROUP
    norms = 9 * 512 * 2
    assert part["weights"] == ends + norms + (whole["weights"] - ends - norms) // 2


def test_metal_has_neither_workspace_nor_tables():
    found = terms(ask(subject(), MAC))
    assert not {"workspace", "page_tables", "runtime"} & set(found)
    assert terms(ask(subject(), card(capability="7.5"))).keys() & {"workspace"} == set()
    assert "workspace" not in terms(ask(subject(), opt="O0"))


def test_states_of_sequences_and_of_prefixes():
    entry = find("Qwen/Qwen3.5-4B")
    assert entry is not None
    what = subject_from_config("q", Config(entry.config, "q"), "q4f16_1")
    found = terms(ask(what, card(24 * GIB)))
    # 24 layers of 32 heads of 128 x 128 in fp32, and three rows of 2 x 16 x 128 + 32 x 128 in fp16; 4 + 4 sequences.
    assert found["recurrent_state"] == 8 * 24 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    assert (
        terms(ask(what, card(24 * GIB), prefix_cache_mode="disable"))["recurrent_state"] * 2
        == (found["recurrent_state"])
    )


# Logs


@pytest.mark.parametrize(
    ("name", "format_name", "ranks", "mib"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "q4f16_1", 1, 4308.133),
        ("meta-llama/Llama-2-7b-chat-hf", "q0f16", 1, 12852.508),
        ("meta-llama/Llama-2-7b-chat-hf", "q0f16", 4, 3588.508),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "q0f16", 4, 17851.479),
        ("Qwen/Qwen1.5-72B-Chat", "q3f16_1", 1, 31057.76),
        ("Qwen/Qwen1.5-4B-Chat", "q4f32_1", 1, 2356.26),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "q4f16_1", 1, 953.50),
    ],
)
def test_parameters_as_logged(name, format_name, ranks, mib):
    assert account(name, format_name, ranks).weights / MIB == pytest.approx(mib, abs=0.006)


@pytest.mark.parametrize(
    ("name", "fields", "mib"),
    [
        ("microsoft/Phi-3.5-vision-instruct", {"config_prefill_chunk_size": 8192}, 688.75),
        ("Qwen/Qwen3-1.7B", {"config_prefill_chunk_size": 2048}, 1331.50),
        (
            "meta-llama/Meta-Llama-3-8B-Instruct",
            {"version": "0.1", "config_prefill_chunk_size": 1024},
            156.00,
        ),
        ("meta-llama/Llama-3.1-70B-Instruct", {"version": "0.1", "config_prefill_chunk_size": 8192}, 2496.00),
    ],
)
def test_plans_as_logged(name, fields, mib):
    # A log has 1331.00 for Qwen3-1.7B, others have all digits.
    assert account(name, "q4f16_1", **fields).planned_bytes[0] / MIB == pytest.approx(mib, abs=0.7)


def test_an_account_as_logged():
    found = account(
        "meta-llama/Meta-Llama-3-8B-Instruct", "q4f16_1", version="0.1", config_prefill_chunk_size=1024,
        context_window_size=8192,
    )  # fmt: skip
    assert found.tokens[0] == 8192
    assert (found.tokens[0] * found.token + found.attention) / MIB == pytest.approx(1092.268, abs=0.001)
    assert (found.temporary[0] + found.workspaces) / MIB == pytest.approx(335.925, abs=0.001)


def test_the_server_takes_what_is_left():
    found = account("microsoft/Phi-3.5-vision-instruct", "q4f16_1", mode="server", size=25_307_300_000)
    interactive = account(
        "microsoft/Phi-3.5-vision-instruct", "q4f16_1", mode="interactive", size=25_307_300_000
    )
    # 42918 and 43087 tokens are logged; of the encoder's matrices, which are kept here, some are quantized.
    assert interactive.tokens[0] - found.tokens[0] == 43087 - 42918
    assert found.tokens[0] == pytest.approx(42918, rel=0.002)


# What is said


def test_modes_and_what_they_hold():
    local = ask(subject(), context_window_size=16384)
    assert local.details["max_total_seq_length"] == 8192
    assert local.demands[0].verdict == "does_not_fit"
    assert any("--mode server" in one for one in local.remedies)
    assert ask(subject(), context_window_size=16384, mode="interactive").demands[0].verdict == "fits"
    server = ask(subject(), mode="server", users=16)
    assert server.details["max_num_sequence"] == 128
    assert server.capacity is not None
    assert server.capacity.kv_cache_tokens == server.details["max_total_seq_length"] > 16 * 4096


def test_metal_has_at_most_32768_tokens():
    found = ask(subject(), MAC, mode="server", users=16)
    assert found.details["max_total_seq_length"] == 32768
    assert any("32768" in note for note in found.notes)


def test_an_account_that_leaves_nothing():
    found = ask(bundled("Qwen/Qwen2.5-7B-Instruct", "q0f16"), card(16 * GIB))
    assert found.details["max_total_seq_length"] == 0
    assert found.demands[0].verdict == "does_not_fit"
    assert terms(found)["kv_cache"] == 0
    assert any("refuses" in note for note in found.notes)


def test_a_window_that_moves():
    found = ask(subject(MISTRAL), context_window_size=None, mode="interactive")
    # Two pages more for its sequence.
    tokens = found.details["max_total_seq_length"]
    assert terms(found)["kv_cache"] == (-(-tokens // 16) + 3) * 4 * 2 * 2 * 16 * 64 * 2
    assert found.details["prefill_chunk_size"] == 2048


def test_versions_differ():
    old, new = ask(subject(), version="0.17.1"), ask(subject())
    assert old.details["era"].chunk == 2048
    assert terms(old)["workspace"] == 3 * 128 * MIB
    assert terms(old)["planned_buffers"] < terms(new)["planned_buffers"]


def test_refusals():
    assert "does not run" in ask(subject({**LLAMA, "model_type": "granite"})).refusal
    assert "exl3" in ask(subject(format_name="exl3-4.0bpw")).refusal
    assert "cards" in ask(subject(), CPU).refusal
    assert "heads" in ask(subject(), *[card()] * 4, tensor_parallel_shards=4).refusal
    assert (
        "groups of 40"
        in ask(subject(format_name="q3f16_1"), card(), card(), tensor_parallel_shards=2).refusal
    )
    with pytest.raises(BadInput, match="devices given"):
        ask(subject(), tensor_parallel_shards=2)


def test_experts():
    found = ask(subject(MOE))
    spread = next(term for term in found.devices[0].terms if term.name == "planned_buffers")
    assert spread.low_bytes < spread.bytes < spread.high_bytes
    assert any("not established by any log" in note for note in found.notes)


# Questions


def test_questions_choose_a_mode():
    machine = Machine((card(),), 64 * GIB)
    modes = [
        mlc_llm.answer(subject(), machine, Question(context=context, users=users)).details["mode"]
        for context, users in ((4096, 2), (16384, 1), (16384, 2), (1024, 8))
    ]
    assert modes == ["local", "interactive", "server", "server"]
    with pytest.raises(BadInput, match="no int8 cache"):
        mlc_llm.answer(subject(), machine, Question(kv_dtype="int8"))
    assert (
        mlc_llm.answer(subject(), machine, Question(kv_dtype="fp16", version="0.18.1")).engine_version
        == "0.18.1"
    )


@settings(deadline=None, max_examples=40)
@given(
    context=st.integers(64, 8000),
    more=st.integers(1, 4000),
    sequences=st.integers(1, 32),
    chunk=st.sampled_from((None, 512, 2048)),
    config=st.sampled_from((LLAMA, MISTRAL, MOE)),
)
def test_more_of_anything_takes_no_less(context, more, sequences, chunk, config):
    def used(**fields: Any) -> int:
        found = ask(subject(config), card(24 * GIB), prefill_chunk_size=chunk, **fields)
        return found.devices[0].peak_bytes

    usual = used(context_window_size=context, max_num_sequence=sequences)
    assert used(context_window_size=context + more, max_num_sequence=sequences) >= usual
    assert used(context_window_size=context, max_num_sequence=sequences + 1) >= usual


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 48), mode=st.sampled_from(("local", "interactive", "server")), apple=st.booleans())
def test_a_larger_card_holds_no_less(size, mode, apple):
    def held(gib: int) -> int:
        device = Device(
            "d", vendor="Apple" if apple else "NVIDIA", usable_bytes=gib * GIB, compute_capability="9.0"
        )
        return ask(subject(), device, mode=mode).details["max_total_seq_length"]

    assert held(size) <= held(size + 1)
