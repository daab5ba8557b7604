"""LMDeploy's two engines: bytes of blocks and pools by hand, versions, refusals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.lmdeploy import Settings, answer, estimate
from willfit.engines.lmdeploy.settings import backend_of, capture_sizes
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

#: 64 tokens x 2 heads x (32 + 32) elements x 2 B x 3 layers.
BLOCK = 49_152


def card(size: int = GIB, name: str = "card", **fields: Any) -> Device:
    return Device(name, vendor="NVIDIA", usable_bytes=size, compute_capability="8.9", **fields)


def subject(config: dict[str, Any], format_name: str | None = None) -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def ask(
    config: dict[str, Any] = LLAMA, device: Device | None = None, users: int = 1, **fields: Any
) -> Estimate:
    machine = Machine((device or card(),) * fields.get("tp", 1))
    return estimate(subject(config), machine, Settings(**fields), users)


def terms(found: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in found.devices[0].terms}


def free(found: Estimate, total: int = GIB) -> int:
    held = terms(found)
    return total - held["weights"] - held["context"] - held["runtime"] - held.get("recurrent_state", 0)


def test_turbomind_takes_its_share_of_what_weights_leave():
    found = ask()
    assert found.details["backend"] == "turbomind"
    assert terms(found)["weights"] == LLAMA_BYTES
    blocks = int(free(found) * 0.8) // BLOCK
    assert terms(found)["kv_cache"] == blocks * BLOCK
    assert found.details["num_gpu_blocks"] == blocks
    assert found.capacity is not None
    assert found.capacity.kv_cache_tokens == 64 * blocks
    assert "cuda_graphs" not in terms(found)


def test_pytorch_sets_memory_aside_for_scores_first():
    found = ask(backend="pytorch")
    # (8192 tokens of a prefill step + 2 x 128 slots) x 512 scores x 2 B
    aside = 8_650_752
    blocks = int((free(found) - aside) * 0.8) // BLOCK
    assert terms(found)["kv_cache"] == blocks * BLOCK
    assert found.capacity is not None
    assert found.capacity.kv_cache_tokens == 64 * (blocks - 1)  # one block is for padding
    # Powers of two up to 128 are 8 sizes.
    assert "3 layers x 8 captured sizes" in next(
        term.formula for term in found.devices[0].terms if term.name == "cuda_graphs"
    )
    assert "cuda_graphs" not in terms(ask(backend="pytorch", eager_mode=True))


def test_pytorch_set_seven_bytes_aside_before_0_9_2():
    found = ask(backend="pytorch", version="0.9.1")
    blocks = int((free(found) - 8192 * 512 * 7) * 0.8) // BLOCK
    assert found.details["num_gpu_blocks"] == blocks
    assert found.capacity is not None
    assert found.capacity.kv_cache_tokens == 64 * blocks


def test_prefill_is_halved_until_enough_blocks_fit():
    bare = free(ask(backend="pytorch"))
    taken = GIB - bare
    # (8192 + 256) x 1024 B leave 10 of 16 blocks; half as many tokens give 4 MiB back, 68 blocks more.
    total = taken + 8_650_752 + int(10.5 * BLOCK / 0.8)
    found = ask(backend="pytorch", device=card(total))
    assert found.details["max_prefill_token_num"] == 4096
    assert found.details["num_gpu_blocks"] == int((total - taken - (4096 + 256) * 1024) * 0.8) // BLOCK == 78
    # Where not even 3 blocks fit, it gives up instead of halving.
    found = ask(backend="pytorch", device=card(total - 11 * BLOCK))
    assert (found.details["max_prefill_token_num"], found.details["num_gpu_blocks"]) == (8192, 1)


@pytest.mark.parametrize(
    ("policy", "backend", "block"),
    [
        # Of each of 2 heads a key and a value of 32 elements, 16 B in 4 bits, and scale and zero point in 16 bits:
        # 64 tokens x 2 heads x 2 x (16 + 4) B x 3 layers; 8 bits: 32 + 4 B.
        (4, "turbomind", 15_360),
        (8, "turbomind", 27_648),
        (4, "pytorch", 15_360),
        (8, "pytorch", 27_648),
        (16, "pytorch", 24_576),
        # Keys 4 bits with two numbers, values 2 bits with one: 64 x 2 x (16 + 4 + 8 + 2) x 3.
        (42, "pytorch", 11_520),
    ],
)
def test_quantized_cache(policy, backend, block):
    found = ask(quant_policy=policy, backend=backend)
    assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * block


def test_pytorch_pads_arrays_to_256_bytes():
    # 16 tokens x 1 head x 2 scales x 2 B = 64 B, padded to 256; keys: 16 x 32 = 512 B. 3 x 2 x (512 + 256).
    narrow = {**LLAMA, "num_key_value_heads": 1}
    found = ask(narrow, quant_policy=8, backend="pytorch", cache_block_seq_len=16)
    assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * 4608
    found = ask(narrow, quant_policy=8, backend="turbomind", cache_block_seq_len=16)
    assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * 3456  # 3 x 2 x (512 + 64)


def test_key_value_heads_are_divided_and_then_repeated():
    assert terms(ask(tp=2))["kv_cache"] == ask(tp=2).details["num_gpu_blocks"] * BLOCK // 2
    assert terms(ask(tp=4))["kv_cache"] == ask(tp=4).details["num_gpu_blocks"] * BLOCK // 2
    assert "4 heads cannot be divided over 3" in ask(tp=3).refusal


def test_latent_attention_is_held_once_on_every_rank():
    latent = {
        "model_type": "glm4_moe_lite", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256, "moe_intermediate_size": 64,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "kv_lora_rank": 512, "q_lora_rank": 64, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32, "v_head_dim": 32,
        "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
    }  # fmt: skip
    for tp in (1, 2):
        found = ask(latent, tp=tp)
        # 64 tokens x 576 elements x 2 B x 3 layers
        assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * 221_184
    # Keys of 576 elements are too wide for larger blocks of the PyTorch engine.
    assert ask(latent, backend="pytorch").details["block_size"] == 32


def test_a_shared_embedding_is_there_twice_for_turbomind():
    tied = {**LLAMA, "tie_word_embeddings": True}
    assert terms(ask(tied))["weights"] == LLAMA_BYTES
    assert terms(ask(tied, backend="pytorch"))["weights"] == LLAMA_BYTES - 131_072


def test_turbomind_unpacks_zero_points():
    stored = subject(LLAMA, "awq")
    found = estimate(stored, Machine((card(),)), Settings())
    plain = estimate(stored, Machine((card(),)), Settings(backend="pytorch"))
    # A layer's matrices have (2 x 128 + 2 x 64) x 128 + 3 x 256 x 128 weights, in groups of 128 each with a zero
    # point: 4 bits as stored, 16 as held: 1.5 B more for each of 1152 groups and 3 layers.
    groups = ((2 * 128 + 2 * 64) * 128 + 3 * 256 * 128) // 128
    assert terms(found)["weights"] - terms(plain)["weights"] == 3 * groups * 3 // 2


@pytest.mark.parametrize(
    ("version", "name", "batch"),
    [
        ("0.5.0", "NVIDIA A100-SXM4-80GB", 128),
        ("0.6.0", "NVIDIA A100-SXM4-80GB", 256),
        ("0.10.0", "NVIDIA A100-SXM4-80GB", 384),
        ("0.9.0", "NVIDIA H100 80GB HBM3", 512),
        ("0.18.0", "NVIDIA H100 80GB HBM3", 1024),
        ("0.9.0", "NVIDIA H200", 128),
        ("0.18.0", "NVIDIA H200", 1024),
        ("0.18.0", "NVIDIA GeForce RTX 4090", 128),
    ],
)
def test_batch_by_card_and_version(version, name, batch):
    assert ask(device=card(name=name), version=version).details["max_batch_size"] == batch


def test_the_share_was_of_the_whole_card_and_could_be_a_number_of_blocks():
    # 0.2.1: half of the total, whatever is free; blocks of 128 tokens. 2**29 / 98304 = 5461.3
    assert ask(version="0.2.1").details["num_gpu_blocks"] == 5_461
    assert ask(version="0.3.0").details["block_size"] == 64
    assert ask(version="0.2.2").details["cache_max_entry_count"] == 0.8
    assert ask(version="0.12.0", cache_max_entry_count=100).details["num_gpu_blocks"] == 100
    assert "below 1" in ask(cache_max_entry_count=100).refusal
    assert "below 1" in ask(backend="pytorch", version="0.12.0", cache_max_entry_count=100).refusal
    assert ask(backend="pytorch", num_gpu_blocks=77).details["num_gpu_blocks"] == 77


@pytest.mark.parametrize(
    ("kind", "version", "backend"),
    [
        ("llama", "0.18.0", "turbomind"),
        ("mistral", "0.13.0", "turbomind"),
        ("mistral", "0.14.0", "pytorch"),
        ("qwen3", "0.7.0", "pytorch"),
        ("qwen3", "0.8.0", "turbomind"),
        ("qwen2_5_vl", "0.13.0", "turbomind"),
        ("qwen2_5_vl", "0.15.0", "pytorch"),
        ("qwen2_5_vl", "0.16.0", "turbomind"),
        ("gemma3", "0.18.0", "pytorch"),
    ],
)
def test_who_runs_a_model(kind, version, backend):
    from dataclasses import replace

    architecture = replace(subject(LLAMA).architecture, model_type=kind)
    assert backend_of(Settings(version=version), architecture) == backend
    assert backend_of(Settings(version=version, backend="turbomind"), architecture) == backend
    assert backend_of(Settings(version=version, backend="pytorch"), architecture) == "pytorch"


def test_states_of_the_batch_are_allocated_before_the_cache():
    hybrid = {
        "model_type": "qwen3_next", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "head_dim": 32,
        "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 64, "full_attention_interval": 4, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
    }  # fmt: skip
    found = ask(hybrid, max_batch_size=10)
    # 3 layers x ((2 x 2 x 16 + 4 x 16) channels x 3 inputs x 2 B + 4 heads x 16 x 16 x 2 B), 10 + 2 slots.
    assert terms(found)["recurrent_state"] == 12 * 3 * (128 * 3 * 2 + 4 * 256 * 2)
    # One layer of four keeps keys and values.
    assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * BLOCK // 3


def test_demand_is_in_whole_blocks():
    found = ask(users=3, session_len=100)
    assert found.demands[0].needed_bytes == 3 * 2 * BLOCK
    assert found.demands[0].pool_bytes > found.demands[0].needed_bytes
    found = ask(backend="pytorch", users=3, session_len=100)
    assert found.demands[0].needed_bytes == (3 * 2 + 1) * BLOCK


def test_a_question_is_answered_on_the_devices_that_heads_divide_over():
    machine = Machine((card(),) * 3)
    found = answer(subject(LLAMA), machine, Question(context=1024))
    assert len(found.devices) == 2
    assert any("2 of 3 devices" in note for note in found.notes)
    eight = answer(subject(LLAMA), machine, Question(context=1024, kv_dtype="fp8"))
    assert eight.details["backend"] == "pytorch"
    with pytest.raises(BadInput, match="no cache of fp32"):
        answer(subject(LLAMA), machine, Question(kv_dtype="fp32"))


def test_refusals():
    assert "NVIDIA" in estimate(subject(LLAMA), Machine((CPU,)), Settings()).refusal
    assert "16" in ask(quant_policy=16).refusal
    bert = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 512, "hidden_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
        "max_position_embeddings": 1024, "torch_dtype": "bfloat16",
    }  # fmt: skip
    assert "decoders" in ask(bert).refusal
    with pytest.raises(BadInput, match="2 ranks need 2 devices, 1 given"):
        estimate(subject(LLAMA), Machine((card(),)), Settings(tp=2))


def test_capture_sizes():
    assert capture_sizes(1) == (1,)
    assert capture_sizes(100) == (1, 2, 4, 8, 16, 32, 64, 100)
    assert capture_sizes(384) == (1, 2, 4, 8, 16, 32, 64, 128, 256, 384)
    assert capture_sizes(1024) == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024)


@pytest.mark.parametrize(
    ("version", "copies"), [("0.7.0", 6), ("0.9.0", 5), ("0.11.0", 5), ("0.12.0", 1), ("0.16.0", 1)]
)
def test_turbomind_keeps_the_tokens_of_the_whole_batch(version, copies):
    found = ask(version=version)
    # 128 sequences of up to 4096 tokens.
    assert terms(found)["request_tables"] == copies * 128 * 4096 * 4
    before = free(found) - (terms(found)["request_tables"] if version == "0.12.0" else 0)
    assert found.details["num_gpu_blocks"] == int(before * 0.8) // BLOCK
    # Sequences end where the cache does: 100 blocks of 64 tokens are less than 10,000.
    short = ask(version="0.9.0", cache_max_entry_count=100, session_len=10_000)
    assert terms(short)["request_tables"] == 5 * 128 * 6400 * 4
    assert "request_tables" not in terms(ask(version=version, backend="pytorch"))


@pytest.mark.parametrize(
    ("fields", "devices", "heads", "replicas"),
    [
        # Ranks that divide heads, groups that share the matrices only, tokens divided by two, experts spread out.
        ({"tp": 2}, 2, 1, 1),
        ({"tp": 2, "dp": 2}, 2, 2, 2),
        ({"tp": 2, "dp": 2}, 4, 1, 2),
        ({"tp": 2, "cp": 2}, 2, 2, 1),
        ({"tp": 2, "dp": 2, "backend": "pytorch"}, 2, 2, 2),
        ({"tp": 1, "dp": 2, "ep": 2, "backend": "pytorch"}, 2, 2, 2),
    ],
)
def test_layouts(fields, devices, heads, replicas):
    found = estimate(subject(LLAMA), Machine((card(),) * devices), Settings(**fields), users=4)
    assert len(found.devices) == devices
    assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * BLOCK * heads // 2
    length, capacity = found.demands[0].needed_bytes, found.capacity
    assert capacity is not None
    if fields.get("cp") == 2:
        assert capacity.kv_cache_tokens == 128 * found.details["num_gpu_blocks"]
        assert length == 4 * 32 * BLOCK
    else:
        assert ("in each of 2 groups" in found.demands[0].what) == (replicas == 2)


def test_layouts_that_do_not_go_together():
    with pytest.raises(BadInput, match="no --cp"):
        ask(tp=2, cp=2, backend="pytorch")
    with pytest.raises(BadInput, match="do not go together"):
        ask(tp=2, cp=4)
    with pytest.raises(BadInput, match="3 groups"):
        ask(tp=4, dp=3, backend="pytorch")


def test_experts_are_spread_and_attention_repeated():
    entry = find("Qwen/Qwen3-30B-A3B")
    assert entry is not None
    found = subject_from_config("m", Config(entry.config, "m"))
    machine = Machine((card(200 * GIB),) * 4)
    whole = terms(estimate(found, machine, Settings(backend="pytorch")))["weights"]
    spread = terms(estimate(found, machine, Settings(backend="pytorch", dp=4, ep=4)))["weights"]
    # 48 layers x 128 experts x 3 matrices of 2048 x 768 in 16 bits: three quarters of them are elsewhere.
    experts = 48 * 128 * 3 * 2048 * 768 * 2
    dense = whole - experts
    attention = sum(line.bytes for line in found.lines if line.tensor.part == "attention")
    assert attention + experts // 4 <= spread <= dense + experts // 4


def test_index_keys_and_workspace_of_sparse_attention():
    entry = find("deepseek-ai/DeepSeek-V3.2-Exp")
    assert entry is not None
    sparse = subject_from_config("m", Config(entry.config, "m"))
    machine = Machine((card(200 * GIB),) * 8)
    found = estimate(sparse, machine, Settings(tp=8, backend="pytorch"))
    # 64 tokens x ((512 + 64) x 2 B + 128 B + 4 B) x 61 layers
    assert terms(found)["kv_cache"] == found.details["num_gpu_blocks"] * 64 * 1284 * 61
    held = terms(found)
    left = 200 * GIB - held["weights"] - held["context"] - held["runtime"]
    aside = (8192 + 2 * 128) * 129_280 * 2
    assert found.details["num_gpu_blocks"] == int((left - aside - 512 * 2**20) * 0.8) // (64 * 1284 * 61)
    older = estimate(sparse, machine, Settings(tp=8, backend="pytorch", version="0.16.0"))
    assert older.details["num_gpu_blocks"] == int((left - aside) * 0.8) // (64 * 1284 * 61)


def test_a_draft_module_has_weights_and_blocks():
    plain = ask(backend="pytorch")
    draft = ask(backend="pytorch", num_draft_tokens=3)
    assert terms(plain)["kv_cache"] == plain.details["num_gpu_blocks"] * BLOCK
    assert terms(draft)["kv_cache"] == draft.details["num_gpu_blocks"] * BLOCK * 4 // 3
    assert any("drafts no tokens" in note for note in ask(num_draft_tokens=3).notes)


def test_graphs_of_the_sizes_that_are_asked_for():
    found = ask(backend="pytorch", cudagraph_capture_batch_sizes=(1, 8, 64, 256))
    graphs = next(term for term in found.devices[0].terms if term.name == "cuda_graphs")
    assert "3 layers x 3 captured sizes" in graphs.formula  # 256 is more than a batch of 128


sizes = st.integers(GIB, 200 * GIB)


@given(sizes, st.sampled_from(["turbomind", "pytorch"]), st.sampled_from([0, 4, 8]), st.floats(0.05, 0.95))
def test_the_pool_is_its_share_of_what_is_free(size, backend, policy, ratio):
    device = card(size)
    found = ask(device=device, backend=backend, quant_policy=policy, cache_max_entry_count=ratio)
    held = terms(found)
    assert held["kv_cache"] <= ratio * free(found, size) + 1
    low, high = found.devices[0].interval_bytes
    assert low <= found.devices[0].peak_bytes <= high
    more = ask(device=card(size + GIB), backend=backend, quant_policy=policy, cache_max_entry_count=ratio)
    assert more.details["num_gpu_blocks"] >= found.details["num_gpu_blocks"]


@given(st.integers(2 * GIB // 3, 2 * GIB), st.integers(1, 4), st.sampled_from(["turbomind", "pytorch"]))
def test_remedies_hold(size, users, backend):
    """A context that is offered as a remedy fits."""
    found = ask(device=card(size), backend=backend, users=users, session_len=4096)
    for remedy in found.remedies:
        if "--session-len" in remedy:
            length = int(remedy.rsplit(" ", 1)[1].rstrip(")"))
            demand = ask(device=card(size), backend=backend, users=users, session_len=length).demands[0]
            assert demand.needed_bytes <= demand.pool_bytes
