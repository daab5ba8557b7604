"""TensorRT-LLM's cache: its share of what is left, in whole blocks."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question
from willfit.engines.borrowed import library_terms
from willfit.engines.subject import subject_from_config
from willfit.engines.tensorrt_llm import Settings, answer, estimate
from willfit.engines.tensorrt_llm.sizing import size_up
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import GIB
from willfit.validation.cases import read_cases
from willfit.validation.run import predictor_for

DATA = Path(__file__).parents[1] / "data" / "cases"
CASES = [*read_cases(DATA / "other_serving.jsonl"), *read_cases(DATA / "other_serving_more.jsonl")]
CARD = Device("a card of 80 GiB", compute_capability="9.0", usable_bytes=80 * GIB)


def subject_of(name):
    entry = find(name)
    return subject_from_config(name, Config(entry.config, name))


LLAMA = subject_of("meta-llama/Llama-3.1-8B")
GEMMA = subject_of("google/gemma-3-27b-it")
DEEPSEEK = subject_of("deepseek-ai/DeepSeek-V3")


def sizing(settings, subject=LLAMA, devices=1):
    return size_up(subject, Machine((CARD,) * devices), settings)


def fixed():
    """What is outside the tensors and no rule gives."""
    return sum(term.bytes for term in library_terms(CARD, 1))


def test_the_cache_is_a_share_of_what_weights_and_a_full_batch_leave():
    found = sizing(Settings(max_num_tokens=8192, cuda_graph=False, free_gpu_memory_fraction=0.9))
    # 8,030,261,248 parameters x 2 B; 8192 tokens x (3 x 14336 in the MLP + 3 x 4096 around it) x 2 B
    weights, activations = 16_060_522_496, 905_969_664
    assert [term.bytes for term in found.terms[:2]] == [weights, activations]
    left = 85_899_345_920 - weights - activations - fixed()
    assert found.pool_bytes == int(left * 0.9)
    # 32 layers x 8 heads x 128 x (key and value) x 2 B = 131,072 B a token, 32 tokens in a block
    assert found.cache.tokens(found.pool_bytes) == int(left * 0.9) // 131_072 // 32 * 32


def test_tokens_by_hand():
    """A pool of 40 GiB is named, so nothing else matters: 40 GiB / 128 KiB = 327,680 tokens, 10,240 blocks."""
    found = sizing(Settings(max_gpu_total_bytes=40 * GIB))
    assert found.cache.blocks(found.pool_bytes) == (10_240,)
    assert found.cache.tokens(found.pool_bytes) == 327_680
    assert found.cache.concurrency(found.pool_bytes, 131_072) == 2.5
    assert found.limited


@pytest.mark.parametrize(
    ("settings", "subject", "devices", "token_bytes"),
    [
        # 2 ranks have 4 of 8 heads: 32 layers x 4 x 256 x 2 B; 16 ranks repeat one head each: 32 x 1 x 256 x 2 B.
        (Settings(tensor_parallel_size=2), LLAMA, 2, 65_536),
        (Settings(tensor_parallel_size=16), LLAMA, 16, 16_384),
        (Settings(tensor_parallel_size=2, enable_attention_dp=True), LLAMA, 2, 131_072),
        # Two stages have 16 layers each.
        (Settings(pipeline_parallel_size=2), LLAMA, 2, 65_536),
        (Settings(kv_cache_dtype="fp8"), LLAMA, 1, 65_536),
        # 65,536 elements: half a byte each, and one byte of scale for 16: 32,768 + 4,096.
        (Settings(kv_cache_dtype="nvfp4"), LLAMA, 1, 36_864),
        # 61 layers x (512 + 64) x 2 B on every rank.
        (Settings(tensor_parallel_size=8), DEEPSEEK, 8, 70_272),
    ],
)
def test_bytes_of_a_token_on_a_rank(settings, subject, devices, token_bytes):
    (pool,) = sizing(settings, subject, devices).cache.pools
    assert pool.token_bytes == token_bytes


def test_states_of_the_batch_come_out_of_the_budget():
    hybrid = subject_of("Qwen/Qwen3-Next-80B-A3B-Instruct")
    found = sizing(Settings(max_batch_size=64, tensor_parallel_size=4), hybrid, 4)
    # 36 layers x (4 value heads... of 32 over 4 ranks) 8 x 128 x 128 in fp32, and 3 inputs of
    # (2 x 16 x 128 + 32 x 128) / 4 channels in 16 bits.
    state = 36 * (8 * 128 * 128 * 4 + 3 * 2048 * 2)
    assert found.states_bytes == 64 * state
    taken = sum(term.bytes for term in found.terms)
    assert found.pool_bytes == int((80 * GIB - taken) * 0.9) - 64 * state
    # 12 layers x 1 of 2 heads x 256 x 2 x 2 B.
    assert [pool.token_bytes for pool in found.cache.pools] == [12 * 512 * 2]
    fewer = sizing(Settings(max_batch_size=1, tensor_parallel_size=4), hybrid, 4)
    assert fewer.pool_bytes > found.pool_bytes
    # Managers before held them before the budget was struck: a tenth of them at most.
    assert found.pool_interval[0] <= found.pool_bytes <= found.pool_interval[1]


def test_drafting_adds_layers_to_cache_and_weights():
    plain = sizing(Settings(tensor_parallel_size=8), DEEPSEEK, 8)
    draft = sizing(Settings(tensor_parallel_size=8, draft_layers=1, draft_tokens=1), DEEPSEEK, 8)
    assert draft.cache.pools[0].token_bytes == 62 * 576 * 2 == plain.cache.pools[0].token_bytes + 1152
    assert draft.terms[0].bytes > plain.terms[0].bytes
    noted = estimate(LLAMA, Machine((CARD,)), Settings(draft_layers=1, draft_tokens=3)).notes
    assert any("not in the checkpoint" in note for note in noted)


def test_attention_data_parallelism_shares_sequences_out():
    settings = Settings(tensor_parallel_size=2, enable_attention_dp=True, max_seq_len=4096)
    found = sizing(settings, devices=2)
    assert found.demand(4).needed_bytes == 2 * 4096 * 131_072
    # Attention is whole on each: 32 layers x 4096 x (2 x 4096 + 2 x 1024) in 16 bits, half of it more.
    half = sizing(Settings(tensor_parallel_size=2), devices=2).terms[0].bytes
    assert found.terms[0].bytes - half == 32 * 4096 * (2 * 4096 + 2 * 1024)


def test_a_built_engine_can_have_an_int8_cache():
    found = sizing(Settings(backend="tensorrt", kv_cache_dtype="int8"))
    assert found.cache.pools[0].token_bytes == 65_536


def test_each_window_gets_the_same_bytes():
    windows = (1024, 1024, 1024, 1024, 1024, 131_072)
    found = sizing(Settings(max_attention_window=windows, max_gpu_total_bytes=20 * GIB), GEMMA)
    # 62 layers, every sixth full: 10 full and 52 of 1024 tokens; 16 heads x 128 x 2 x 2 B = 8,192 B a layer.
    pools = [(pool.window, pool.token_bytes) for pool in found.cache.pools]
    assert pools == [(0, 81_920), (1024, 425_984)]
    # 10 GiB / 81,920 B = 131,072 tokens = 4096 blocks; 10 GiB / 425,984 B = 25,206 tokens = 787 blocks
    assert found.cache.blocks(found.pool_bytes) == (4096, 787)
    assert found.cache.tokens(found.pool_bytes) == 131_072
    # 4096 tokens take 4096 x 81,920 B = 320 MiB of the one and 1024 x 425,984 B = 416 MiB of the other.
    assert found.cache.bytes_for(4096) == 2 * 1024 * 425_984
    assert found.cache.bytes_for(131_072) == 20 * GIB


def test_experts_are_shared_out_or_divided():
    """Either way a rank has an eighth of them: 256 experts are 32 whole ones, or eighths of all."""
    divided = sizing(Settings(tensor_parallel_size=8), DEEPSEEK, 8).terms[0].bytes
    whole = sizing(Settings(tensor_parallel_size=8, moe_expert_parallel_size=8), DEEPSEEK, 8).terms[0].bytes
    assert whole == pytest.approx(divided, rel=1e-3)
    refused = estimate(
        DEEPSEEK, Machine((CARD,) * 8), Settings(tensor_parallel_size=8, moe_expert_parallel_size=3)
    )
    assert "3 groups" in refused.refusal


def test_graphs_are_captured_since_1_0_up_to_128_sequences():
    assert not sizing(Settings(version="0.21.0", backend="pytorch")).resolved.graph_sizes
    # 1 to 32, 64 and 128; with padding 1, 2, 4, and every 8 to 128; and none that a batch cannot reach.
    assert len(sizing(Settings()).resolved.graph_sizes) == 34
    assert len(sizing(Settings(cuda_graph_padding=True)).resolved.graph_sizes) == 19
    assert sizing(Settings(max_batch_size=3)).resolved.graph_sizes == (1, 2, 3)
    assert sizing(Settings(cuda_graph_max_batch_size=512)).resolved.graph_sizes[-3:] == (128, 256, 512)
    assert not sizing(Settings(cuda_graph=False)).resolved.graph_sizes


@given(
    st.floats(0.05, 0.99),
    st.floats(0.05, 0.99),
    st.sampled_from([1024, 8192, 65_536]),
    st.sampled_from([16, 32, 64]),
)
def test_a_larger_share_never_holds_fewer_tokens(one, other, tokens, block):
    few, many = (
        sizing(Settings(free_gpu_memory_fraction=share, max_num_tokens=tokens, tokens_per_block=block))
        for share in sorted((one, other))
    )
    assert few.cache.tokens(few.pool_bytes) <= many.cache.tokens(many.pool_bytes)
    assert few.pool_interval[0] <= few.pool_bytes <= few.pool_interval[1]


@given(st.integers(1, 131_072), st.integers(1, 64), st.booleans())
def test_what_is_said_to_be_longest_fits_and_more_does_not(pool_mib, users, windows):
    pattern = (1024,) * 5 + (131_072,) if windows else ()
    found = sizing(Settings(max_attention_window=pattern, max_gpu_total_bytes=pool_mib << 20), GEMMA)
    cache, pool = found.cache, pool_mib << 20
    longest = cache.longest(pool, 131_072, users)
    assert longest == 0 or cache.bytes_for(longest, users) <= pool
    assert longest == 131_072 or cache.bytes_for(longest + 1, users) > pool


def test_the_sum_is_surer_than_its_parts():
    """What the others take more, the cache takes nine tenths less of, so a tenth of the error is left."""
    found = answer(LLAMA, Machine((CARD,)), Question(context=8192))
    device = found.devices[0]
    low, high = device.interval_bytes
    widest = max(term.high_bytes - term.bytes for term in device.terms if term.name != "kv_cache")
    assert 0 < high - device.peak_bytes < widest
    assert low <= device.peak_bytes <= device.usable_bytes
    assert found.verdict == "fits"


def test_a_card_that_is_too_small_is_refused_with_remedies():
    small = replace(CARD, usable_bytes=16 * GIB)
    found = answer(LLAMA, Machine((small,)), Question(context=8192))
    assert found.verdict == "does_not_fit"
    assert any("--tp_size 2" in remedy for remedy in found.remedies)


def test_host_cache_is_counted_for_each_rank():
    found = estimate(LLAMA, Machine((CARD,) * 2), Settings(tensor_parallel_size=2, host_cache_size=10 * GIB))
    assert found.host.peak_bytes == 20 * GIB


def test_what_is_not_known_is_not_guessed():
    whisper = subject_of("openai/whisper-large-v3")
    with pytest.raises(BadInput, match="encoders"):
        estimate(whisper, Machine((CARD,)), Settings())
    with pytest.raises(BadInput, match="int8"):
        sizing(Settings(kv_cache_dtype="int8"))
    with pytest.raises(BadInput, match="2 ranks need 2 devices"):
        sizing(Settings(tensor_parallel_size=2))
    assert "heads" in estimate(LLAMA, Machine((CARD,) * 3), Settings(tensor_parallel_size=3)).refusal


@pytest.mark.parametrize("case", [case for case in CASES if case.engine == "tensorrt-llm" and case.scored])
def test_published_logs_lie_in_the_interval(case):
    found = predictor_for(case)(case)["kv_cache_tokens"]
    assert found.low <= case.measured["kv_cache_tokens"] <= found.high
    assert found.value == pytest.approx(case.measured["kv_cache_tokens"], rel=0.2)


def test_8_bit_weights_by_hand():
    """One byte for each of 6,979,321,856 weights and a scale of 4 B for each of 224 matrices; the rest in 16 bits."""
    stored = subject_from_config("m", Config(find("meta-llama/Llama-3.1-8B").config, "m"), "fp8")
    weights = sizing(Settings(), stored).terms[0].bytes
    rest = 2 * (2 * 128_256 * 4096 + 65 * 4096)
    assert weights == 6_979_321_856 + 224 * 4 + rest
