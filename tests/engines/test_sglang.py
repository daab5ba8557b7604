"""SGLang's pools, defaults and published start-up logs; the arithmetic by hand beside each figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.sglang import Settings, answer, estimate
from willfit.engines.sglang.defaults import capture_sizes, resolve
from willfit.engines.sglang.eras import era_for
from willfit.engines.sglang.sizing import Sizing, size_up
from willfit.engines.sglang.weights import pipeline_stages, stage_bytes
from willfit.engines.subject import subject_from_config
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case, read_cases
from willfit.validation.predictors.sglang import predict

H100 = find_device("H100 SXM5 80GB")
B200 = find_device("B200 SXM 180GB")
CASES = read_cases(Path(__file__).parents[1] / "data" / "cases" / "sglang.jsonl")


def subject(name: str, **changes: object) -> Subject:
    """A bundled model."""
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config({**entry.config, **changes}, name))


LLAMA = subject("meta-llama/Llama-3.1-8B-Instruct")
GPT_OSS = subject("openai/gpt-oss-20b")
NEXT = subject("Qwen/Qwen3-Next-80B-A3B-Instruct")
GLM = subject("zai-org/GLM-4.7-FP8")


def sized(model: Subject, device: Device = H100, free_gib: float = 78.0, **settings: object) -> Sizing:
    """The start-up of a model with so much memory free."""
    chosen = Settings(**settings)  # type: ignore[arg-type]
    return size_up(model, Machine((device,) * chosen.ranks), chosen, int(free_gib * GIB))


def test_a_dense_model_has_one_pool_of_what_the_weights_leave() -> None:
    sizing = sized(LLAMA, mem_fraction_static=0.88)
    # 32 layers x 8 heads x (128 + 128) x 2 B
    assert sizing.cells.full == 32 * 8 * 256 * 2 == 131_072
    # 8,030,261,248 parameters and 131,072 positions x 128 x 4 B of the rotary table
    weights = sizing.loaded[0].bytes
    assert 0 <= weights - (8_030_261_248 * 2 + 131_072 * 128 * 4) < GIB // 4
    assert sizing.pools.tokens == (int(0.88 * 78 * GIB) - weights) // 131_072
    # More ranks than heads: each holds one of the 8, so 16 ranks save nothing over 8.
    assert sized(LLAMA, tp_size=8).cells.full == sized(LLAMA, tp_size=16).cells.full == 131_072 // 8


def test_a_latent_is_whole_on_every_rank() -> None:
    model = subject("deepseek-ai/DeepSeek-V3")
    # 61 layers x (512 + 64) elements
    assert sized(model, tp_size=8).cells.full == 61 * 576 * 2 == 70_272
    assert sized(model, tp_size=16, kv_cache_dtype="fp8_e4m3").cells.full == 61 * 576


def test_a_sparse_latent_has_index_keys_and_is_8_bits_wide_on_blackwell() -> None:
    model = subject("deepseek-ai/DeepSeek-V3.2")
    # bf16: 1152 B, index key 128 B and one fp32 scale; fp8: 512 + 4 x 4 + 2 x 64 B
    assert sized(model, tp_size=8).cells.full == 61 * (1152 + 132)
    assert sized(model, B200, 178.0, tp_size=8).cells.full == 61 * (656 + 132)
    assert sized(model, tp_size=8).pools.tokens % 64 == 0


def test_window_layers_have_a_pool_of_their_own() -> None:
    sizing = sized(GPT_OSS, mem_fraction_static=0.8)
    # 12 layers of each kind x 8 heads x 128 x 2 B
    assert (sizing.cells.full, sizing.cells.window, sizing.cells.reach) == (24_576, 24_576, 128)
    tokens = int(sizing.available / (24_576 + 0.8 * 24_576))
    assert (sizing.pools.tokens, sizing.pools.window_tokens) == (tokens, int(tokens * 0.8))
    one = sized(GPT_OSS, mem_fraction_static=0.8, disable_hybrid_swa_memory=True)
    assert (one.cells.full, one.pools.window_tokens) == (49_152, 0)
    # Known requests, no cached prefixes: (128 window + 128 not yet let go + 1 + 1) x 16 + 2 chunks of 8192 + 1
    fixed = sized(GPT_OSS, max_running_requests=16, disable_radix_cache=True)
    assert fixed.pools.window_tokens == 258 * 16 + 2 * 8192 + 1


def test_states_take_their_share_before_tokens() -> None:
    sizing = sized(NEXT, tp_size=4, mem_fraction_static=0.8)
    # 36 layers: 3 inputs of (2 x 16 + 32) x 128 channels in bf16, 32 x 128 x 128 in fp32, over 4 ranks
    slot = 36 * (3 * 64 * 128 * 2 + 32 * 128 * 128 * 4) // 4
    assert sizing.cells.state == slot
    pools = sizing.pools
    assert pools.states == int(int(sizing.available * 0.9 / 1.9) / slot - 1)
    # 12 layers, 2 heads on 4 ranks: one each
    assert sizing.cells.full == 12 * 512 * 2
    assert pools.tokens == (sizing.available - (pools.states + 1) * slot) // (12 * 512 * 2)
    assert pools.requests == min(pools.states // 5, 4096)


@pytest.mark.parametrize(
    ("gpu", "version", "ranks", "fraction", "chunk", "batch"),
    [
        # 512 + 1.5 x 8192 + 2 x 256 + 1/8 x 1024 + 58 prefill graphs x 8 = 13,904 of 81,559 MiB
        ("H100 SXM5 80GB", "0.5.23", 1, 0.830, 8192, 256),
        # without prefill graphs: 13,440
        ("H100 SXM5 80GB", "0.5.6", 1, 0.835, 8192, 256),
        # 4 ranks: 512 + 12,288 + 2 x 512 + 512 = 14,336
        ("H100 SXM5 80GB", "0.5.6", 4, 0.824, 8192, 512),
        # (9.5 + 1/2) GiB
        ("H100 SXM5 80GB", "0.5.2", 1, 0.874, 8192, 160),
        ("H100 SXM5 80GB", "0.4.6", 1, 0.88, 8192, 160),
        ("H100 SXM5 80GB", "0.4.6", 8, 0.81, 8192, 160),
        # (2.8 + 1/10) GiB of 24,564 MiB
        ("GeForce RTX 4090", "0.5.2", 1, 0.879, 2048, 8),
        # 512 + 1.5 x 2048 + 2 x 24 + 128 = 3,760
        ("GeForce RTX 4090", "0.5.6", 1, 0.847, 2048, 24),
        # 512 + 1.5 x 4096 + 2 x 48 + 128 + 50 x 8 = 7,280
        ("GeForce RTX 4090", "0.5.23", 1, 0.704, 4096, 48),
    ],
)
def test_defaults_follow_card_and_version(
    gpu: str, version: str, ranks: int, fraction: float, chunk: int, batch: int
) -> None:
    settings = Settings(version=version, tp_size=ranks)
    resolved = resolve(settings, LLAMA.architecture, find_device(gpu), era_for(version))
    assert resolved.mem_fraction_static == pytest.approx(fraction, abs=1e-9)
    assert (resolved.chunk, resolved.capture_sizes[-1]) == (chunk, batch)


def test_captured_sizes() -> None:
    # 1, 2, 4, 8, 12 and 16 to 256 by 8
    assert len(capture_sizes(256, Settings(), era_for("0.5.23"))) == 5 + 31
    assert capture_sizes(5, Settings(), era_for("0.5.23")) == (1, 2, 4, 5)


def test_the_request_table_has_a_row_for_each_request() -> None:
    sizing = sized(GLM, find_device("RTX PRO 6000 Blackwell Workstation"), 94.13, tp_size=8, version="0.5.7")
    # 512 requests for each time that the pool holds 202,752 tokens
    requests = int(sizing.pools.tokens / 202_752 * 512)
    table = next(term for term in sizing.after if term.name == "request_table")
    assert sizing.pools.requests == requests
    assert table.bytes == (requests + 1) * (202_752 + 4) * 4


def test_pipeline_stages_share_out_all_layers() -> None:
    assert pipeline_stages(10, 4) == (2, 2, 3, 3)
    one = stage_bytes(GLM, Settings(tp_size=4), "bf16")
    two = stage_bytes(GLM, Settings(tp_size=4, pp_size=2), "bf16")
    assert sum(two) == pytest.approx(one[0], rel=1e-6)
    assert two[0] < two[1]  # the first three layers are dense


def test_gemmas_token_table_is_whole_on_every_rank() -> None:
    gemma = subject("google/gemma-3-1b-it")
    one, two = (stage_bytes(gemma, Settings(tp_size=ranks), "bf16")[0] for ranks in (1, 2))
    table = 262144 * 1152 * 2
    # Held twice as well: four norms a layer, norms of query and key, the last one; the only KV head's projections.
    norms = (26 * (4 * 1152 + 2 * 256) + 1152) * 2
    assert 2 * two - one == table + norms + 26 * 2 * 256 * 1152 * 2


def test_a_published_log_is_reproduced() -> None:
    """Logs whose checkpoint is published: tokens of the pool, and weights, within 2.5 %."""
    known = [
        case
        for case in CASES
        if case.measured.get("avail_after_weights_gib") and not _quantized_by_others(case)
    ]
    checked = 0
    for case in known:
        drafts = (case.settings.get("speculative") or {}).get("method")
        if case.fields.get("catalogue") is None or drafts == "dflash":  # a draft of its own is not counted
            continue
        found = predict(case)
        for key in ("kv_cache_tokens", "weights_gib"):
            if key in case.measured:
                # Weights are logged as what the device lost, a little more than tensors.
                least = 0.1 if key == "weights_gib" else 0.0
                assert found[key].value == pytest.approx(case.measured[key], 0.025, least), (case.id, key)
                checked += 1
    assert checked >= 15


def _quantized_by_others(case: Case) -> bool:
    return bool(case.fields.get("checkpoint_format")) and case.fields["model"] != case.fields["catalogue"]


def test_what_cannot_be_divided_is_refused() -> None:
    machine = Machine((H100,) * 6)
    assert "heads cannot be divided" in estimate(LLAMA, machine, Settings(tp_size=6)).refusal
    with pytest.raises(BadInput, match="8 ranks need 8 devices"):
        estimate(LLAMA, machine, Settings(tp_size=8))
    with pytest.raises(BadInput, match="no kv_cache_dtype 'int3'"):
        estimate(LLAMA, machine, Settings(kv_cache_dtype="int3"))
    # The answer finds a layout that divides: 2 ranks in 3 stages.
    assert not answer(LLAMA, machine, Question(context=4096)).refusal


def test_what_is_left_too_small_or_too_large_has_a_remedy() -> None:
    machine = Machine((find_device("GeForce RTX 4090"),))
    settings = Settings(context_length=32768)
    short = estimate(LLAMA, machine, settings)
    assert short.verdict == "does_not_fit"
    raised = next(one for one in short.remedies if "--mem-fraction-static" in one)
    share = float(raised.rsplit(" ", 1)[1].rstrip(")"))
    assert 0.704 < share < 1
    better = estimate(LLAMA, machine, replace(settings, mem_fraction_static=share))
    assert better.capacity is not None
    assert short.capacity is not None
    assert better.capacity.kv_cache_tokens >= 32768 > short.capacity.kv_cache_tokens
    # No share helps where the weights alone are larger than the card.
    hopeless = estimate(LLAMA, Machine((replace(machine.devices[0], usable_bytes=14 * GIB),)), settings)
    assert not any("--mem-fraction-static" in one for one in hopeless.remedies)
    greedy = estimate(LLAMA, Machine((H100,)), Settings(mem_fraction_static=0.99))
    assert greedy.verdict != "fits"
    assert any("smaller static share" in one for one in greedy.remedies)


def test_older_versions_do_not_count_the_draft() -> None:
    model = subject("deepseek-ai/DeepSeek-V3")
    drafting = {"tp_size": 8, "speculative_algorithm": "NEXTN", "mtp": True, "mem_fraction_static": 0.85}
    new, old = (sized(model, B200, 178.0, version=version, **drafting) for version in ("0.5.15", "0.5.12"))
    assert (new.cells.full, old.cells.full) == (62 * 576 * 2, 61 * 576 * 2)
    assert [term.name for term in new.loaded] == ["weights", "draft_weights"]
    assert {"draft_weights", "draft_kv_cache"} <= {term.name for term in old.after}
    assert new.pools.requests == 48


@given(st.integers(1, 40), st.integers(256, 131_072), st.floats(0.3, 0.95))
def test_more_is_never_easier(users: int, length: int, share: float) -> None:
    machine = Machine((H100,))
    settings = Settings(context_length=length, mem_fraction_static=share)
    one, more = estimate(LLAMA, machine, settings, users), estimate(LLAMA, machine, settings, users + 1)
    assert more.demands[0].needed_bytes >= one.demands[0].needed_bytes
    assert one.capacity is not None
    bigger = estimate(LLAMA, machine, replace(settings, mem_fraction_static=share + 0.01), users).capacity
    assert bigger is not None
    assert bigger.kv_cache_tokens >= one.capacity.kv_cache_tokens
    device = one.devices[0]
    assert device.interval_bytes[0] <= device.peak_bytes <= device.interval_bytes[1]
    for term in device.terms:
        assert 0 <= term.low_bytes <= term.bytes <= term.high_bytes
