"""TGI's cache: what a share of the card leaves after a warm-up with full prompts."""

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
from willfit.engines.tgi import Settings, answer, estimate
from willfit.engines.tgi.sizing import size_up
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import read_cases
from willfit.validation.run import predictor_for

CASES = Path(__file__).parents[1] / "data" / "cases" / "other_serving_more.jsonl"
CARD = Device("a card of 24 GiB", compute_capability="8.6", reported_bytes=24 * GIB, usable_bytes=24 * GIB)


def subject_of(name):
    entry = find(name)
    return subject_from_config(name, Config(entry.config, name))


LLAMA = subject_of("meta-llama/Llama-3.1-8B")
TIED = subject_of("meta-llama/Llama-3.2-1B")
GEMMA2 = subject_of("google/gemma-2-9b")
DEEPSEEK = subject_of("deepseek-ai/DeepSeek-V2-Lite")


def sizing(settings, subject=LLAMA, device=CARD, devices=1):
    return size_up(subject, Machine((device,) * devices), settings)


def libraries(device):
    return sum(term.bytes for term in library_terms(device, 1))


def test_tokens_on_an_l4_by_hand():
    l4 = find_device("l4")
    found = sizing(Settings(), device=l4)
    # The launcher's rates: a layer takes 2 x (3 x 32 + 2 x 8) x 128 x 4096 + 6 x 4096 x 14336 = 469,762,048
    # operations a token, 32 layers 15,032,385,536; 121 x 10^12 / that = 8049 tokens.
    assert found.prefill_tokens == 8049
    # 8049 x (3 x 14336 + 3 x 4096) x 2 B
    weights, activations, workspace = 16_060_522_496, 890_155_008, 134_217_728
    assert [term.bytes for term in found.inside[:2]] == [weights, activations]
    pool = int(l4.usable_bytes * 0.9) - weights - activations - workspace - libraries(l4)
    assert found.pool_bytes == pool
    # 32 layers x 8 heads x 128 x 2 x 2 B = 131,072 B a token, one token in a block
    assert found.cache.blocks(pool) == (pool // 131_072,)
    assert found.max_total_tokens == pool // 131_072


@pytest.mark.parametrize(
    ("version", "margin"),
    [("3.3.7", 0.90), ("3.3.0", 0.90), ("3.2.3", 0.93), ("3.1.0", 0.93), ("3.0.2", 0.95)],
)
def test_the_margin_is_a_share_of_the_card_since_3_0(version, margin):
    found = sizing(Settings(version=version, max_batch_prefill_tokens=1024, max_total_tokens=1024))
    taken = sum(term.bytes for term in found.inside)
    assert found.pool_bytes == pytest.approx(24 * GIB * margin - taken, abs=2)


def test_before_3_0_it_was_a_share_of_what_is_free_and_all_logits_were_made():
    found = sizing(Settings(version="2.2.0"))
    # 4096 tokens by default, prompts of up to 4095 and 50 more; 2 B for logits and as much for their softmax.
    assert (found.max_total_tokens, found.prefill_tokens, found.cache.block) == (4096, 4145, 16)
    assert found.inside[1].bytes == 4145 * 128_256 * 4
    # Prompts of 4095 and 50 tokens that may grow to 4096: 2 x 256 blocks of 16 are there during the warm-up.
    warm = 2 * 256 * 16 * 131_072
    taken = sum(term.bytes for term in found.inside)
    assert found.pool_bytes == pytest.approx(warm + 0.95 * (24 * GIB - taken - warm), abs=2)


@pytest.mark.parametrize(("version", "share"), [("1.1.0", 1.0), ("1.4.1", 0.95)])
def test_before_2_0_lengths_were_fixed_and_no_graphs_captured(version, share):
    found = sizing(Settings(version=version))
    # 4 prompts of 1024 tokens with up to 1023 more: 128 blocks of 16 each are there during the warm-up.
    assert (found.max_total_tokens, found.prefill_tokens) == (2048, 4096)
    warm = 4 * 128 * 16 * 131_072
    taken = sum(term.bytes for term in found.inside)
    assert found.pool_bytes == pytest.approx(warm + share * (24 * GIB - taken - warm), abs=2)
    assert not found.outside


def test_a_checkpoint_can_ask_for_an_8_bit_cache():
    config = dict(find("meta-llama/Llama-3.1-8B").config)
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}}},
        "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True},
        "ignore": ["lm_head"],
    }  # fmt: skip
    stored = subject_from_config("m", Config(config, "m"))
    for version, token in (("3.3.7", 65_536), ("2.4.0", 131_072)):
        assert sizing(Settings(version=version), stored).cache.pools[0].token_bytes == token
    # Two matrices of the embedding's size in 16 bits, all others in one byte with a scale of 4 B each.
    table, norms = 128_256 * 4096, 65 * 4096
    linear = 8_030_261_248 - 2 * table - norms
    assert sizing(Settings(), stored).inside[0].bytes == pytest.approx(
        2 * (2 * table + norms) + linear, rel=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "subject", "device", "block"),
    [
        (Settings(), LLAMA, CARD, 1),
        (Settings(), LLAMA, replace(CARD, vendor="AMD"), 16),
        (Settings(attention="paged"), LLAMA, CARD, 16),
        (Settings(version="2.2.0"), LLAMA, CARD, 16),
        # Models that flashinfer has no kernels for: blocks of 256 tokens, or of 16 on cards before Ampere.
        (Settings(), subject_of("tiiuae/falcon-7b"), CARD, 256),
        (Settings(), subject_of("tiiuae/falcon-7b"), replace(CARD, compute_capability="7.5"), 16),
    ],
)
def test_the_size_of_a_block_follows_the_kernels(settings, subject, device, block):
    assert sizing(settings, subject, device).cache.block == block


@pytest.mark.parametrize(
    ("settings", "subject", "token_bytes"),
    [
        # 2 shards have 4 of 8 heads each.
        (Settings(num_shard=2), LLAMA, 65_536),
        (Settings(kv_cache_dtype="fp8_e4m3fn"), LLAMA, 65_536),
        # Window layers keep everything, too: 42 layers x 8 heads x 256 x 2 x 2 B.
        (Settings(), GEMMA2, 344_064),
        # Latent attention is kept as heads: 27 layers x 2 x 16 heads x (128 + 64) x 2 B.
        (Settings(), DEEPSEEK, 331_776),
        # A single head is repeated: 32 layers x 1 x 64 x 2 x 2 B.
        (Settings(num_shard=1), subject_of("tiiuae/falcon-7b"), 8192),
    ],
)
def test_bytes_of_a_token_on_a_shard(settings, subject, token_bytes):
    (pool,) = sizing(settings, subject, devices=settings.num_shard).cache.pools
    assert (pool.window, pool.token_bytes) == (0, token_bytes)


def test_a_tied_head_is_loaded_a_second_time():
    """1,235,814,400 parameters and the table of 128,256 x 2048 again, 2 B each."""
    assert sizing(Settings(), TIED).inside[0].bytes == 2 * (1_235_814_400 + 128_256 * 2048)


def test_what_the_launcher_takes_for_the_prompts():
    # An RTX 4090's name is not among those that the launcher knows, so 4096; 8 Mixtral experts of which 2 are used:
    # 2 x (3 x 32 + 2 x 8) x 128 x 4096 + 6 x 4096 x 14336 x 2 = 822,083,584, x 32; 2 x 312 x 10^12 / that = 23,720.
    assert sizing(Settings(), device=find_device("rtx4090")).prefill_tokens == 4096
    mixtral = subject_of("mistralai/Mixtral-8x7B-v0.1")
    found = sizing(Settings(num_shard=2), mixtral, find_device("a100-80g"), 2)
    assert found.prefill_tokens == 23_720
    # Where it believes that the weights alone are too large, it sets no bound.
    assert sizing(Settings(num_shard=2), mixtral, CARD, 2).prefill_tokens == 4096
    # 25,769,803,776 x 0.65 x 0.95 = 15,912,853,831; the model by the launcher's figures 14,449,770,496 B; of the
    # 1,463,083,335 left a token takes 131,072 in the cache and (14336 + 7168) x 6 = 129,024 in the MLP: 5625.
    known = replace(CARD, name="A10G")
    assert sizing(Settings(cuda_memory_fraction=0.65), device=known).prefill_tokens == 5625
    assert sizing(Settings(cuda_memory_fraction=1.0), device=known).prefill_tokens == 8315


@given(st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.sampled_from(["2.0.0", "2.4.0", "3.0.0", "3.3.7"]))
def test_a_larger_fraction_never_holds_fewer_tokens(one, other, version):
    settings = Settings(version=version, max_batch_prefill_tokens=2048, max_total_tokens=4096)
    few, many = (
        sizing(replace(settings, cuda_memory_fraction=fraction)) for fraction in sorted((one, other))
    )
    assert few.cache.tokens(few.pool_bytes) <= many.cache.tokens(many.pool_bytes)
    assert few.pool_interval[0] <= few.pool_bytes <= few.pool_interval[1]


@given(st.integers(256, 65_536), st.integers(256, 65_536))
def test_longer_prompts_never_leave_more(one, other):
    short, long = (
        sizing(Settings(max_batch_prefill_tokens=tokens, max_total_tokens=1024, max_input_tokens=255))
        for tokens in sorted((one, other))
    )
    if long.pool_bytes > 1024 * 131_072 * 400:
        assert long.pool_bytes <= short.pool_bytes


def test_graphs_come_after_the_cache():
    with_graphs = sizing(Settings())
    without = sizing(Settings(cuda_graphs=()))
    assert with_graphs.pool_bytes == without.pool_bytes
    assert (len(with_graphs.outside), len(without.outside)) == (1, 0)
    assert not sizing(Settings(quantize="bitsandbytes")).outside


def test_a_question_is_answered_or_refused():
    fits = answer(LLAMA, Machine((CARD,)), Question(context=8192))
    assert (fits.verdict, fits.details["max_total_tokens"]) == ("fits", 8192)
    users = answer(LLAMA, Machine((CARD,)), Question(context=32_768, users=4))
    assert users.verdict == "does_not_fit"
    assert any("--max-total-tokens" in remedy for remedy in users.remedies)
    # 8 key/value heads over 16 shards: TGI repeats only a single head.
    refused = estimate(LLAMA, Machine((CARD,) * 16), Settings(num_shard=16))
    assert (refused.verdict, "key/value heads" in refused.refusal) == ("does_not_fit", True)
    # Three devices: 32 heads divide over two of them at most.
    three = answer(LLAMA, Machine((CARD,) * 3), Question(context=1024))
    assert (len(three.devices), any("1 of the devices" in note for note in three.notes)) == (2, True)


def test_an_8_bit_cache_needs_kernels_for_it():
    falcon = subject_of("tiiuae/falcon-7b")
    assert "flashdecoding" in estimate(falcon, Machine((CARD,)), Settings(kv_cache_dtype="fp8_e5m2")).refusal
    with pytest.raises(BadInput, match="int8"):
        answer(LLAMA, Machine((CARD,)), Question(kv_dtype="int8"))


@pytest.mark.parametrize("case", [case for case in read_cases(CASES) if case.engine == "tgi" and case.scored])
def test_published_logs_lie_in_the_interval(case):
    found = predictor_for(case)(case)["kv_cache_tokens"]
    assert found.low <= case.measured["kv_cache_tokens"] <= found.high


def test_awq_weights_and_their_zero_points_by_hand():
    """6,979,321,856 weights in half a byte, with 2.5 B for every 128; tables and norms in 16 bits."""
    stored = subject_from_config("m", Config(find("meta-llama/Llama-3.1-8B").config, "m"), "awq")
    linear = 32 * (4096 * 4096 * 2 + 2 * 1024 * 4096 + 3 * 14_336 * 4096)
    assert linear == 6_979_321_856
    rest = 2 * (2 * 128_256 * 4096 + 65 * 4096)
    assert sizing(Settings(), stored).inside[0].bytes == linear // 2 + linear // 128 * 5 // 2 + rest


def test_nothing_but_fewer_bytes_of_weights_helps_where_they_are_larger_than_the_card() -> None:
    small = Machine((replace(CARD, usable_bytes=12 * GIB),))
    assert [one.split(" ")[0] for one in estimate(LLAMA, small, Settings()).remedies] == ["quantized", "2"]
