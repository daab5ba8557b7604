"""What SGLang shows before the pools: segments, drafts, adapters, page sizes, shares by version; arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.sglang import Settings, estimate
from willfit.engines.sglang.backends import page_size
from willfit.engines.sglang.defaults import resolve
from willfit.engines.sglang.drafts import draft_of
from willfit.engines.sglang.eras import era_for
from willfit.engines.sglang.lora import lora_bytes
from willfit.engines.sglang.segments import fused_name, segment_bytes
from willfit.engines.sglang.sizing import size_up
from willfit.engines.sglang.weights import loading_slack, rank_lines, rope_tables, stage_bytes
from willfit.engines.subject import subject_from_config
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
from willfit.validation.cases import read_cases
from willfit.validation.predictors.sglang import predict
from willfit.validation.run import validate_files

MORE = Path(__file__).parents[1] / "data" / "cases" / "sglang_more.jsonl"
H100 = find_device("H100 SXM5 80GB")


def subject(name: str) -> Subject:
    """A bundled model."""
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config, name))


LLAMA = subject("meta-llama/Llama-3.1-8B-Instruct")
NEXT = subject("Qwen/Qwen3-Next-80B-A3B-Instruct")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(11 * MIB, 1)], 12 * MIB),  # 10 MiB and more: a segment, rounded up to 2 MiB
        ([(12 * MIB, 3)], 36 * MIB),
        ([(1000, 3)], 2 * MIB),  # up to 1 MiB: 2 MiB are shared
        ([(MIB, 3)], 4 * MIB),
        ([(8 * MIB, 5)], 60 * MIB),  # two of 8 MiB in each 20 MiB
        ([(8 * MIB, 2), (4 * MIB, 2)], 40 * MIB),  # 8 + 4 + 8, and 4 in a segment of its own
        ([(19 * MIB // 2, 2), (1000, 1)], 22 * MIB),
        ([], 0),
    ],
)
def test_tensors_open_segments(sizes: list[tuple[int, int]], expected: int) -> None:
    assert segment_bytes(sizes) == expected


@given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.integers(1, 12)), max_size=6))
def test_segments_hold_what_is_in_them(sizes: list[tuple[int, int]]) -> None:
    held = sum(size * count for size, count in sizes)
    assert (
        held <= segment_bytes(sizes) <= 8 * held + 24 * MIB * len(sizes) + sum(20 * MIB * n for _, n in sizes)
    )


def test_projections_are_fused() -> None:
    names = [f"model.layers.0.self_attn.{one}_proj.weight" for one in "qkv"]
    assert {fused_name(name) for name in names} == {"model.layers.0.self_attn.qkv"}
    assert fused_name("model.layers.0.mlp.up_proj.weight") == "model.layers.0.mlp.gate_up"
    assert fused_name("model.layers.0.mlp.down_proj.weight") == "model.layers.0.mlp.down_proj"


def test_a_small_model_loses_most_to_segments() -> None:
    # Qwen2.5-0.5B logs 0.98 GiB: 494,032,768 parameters, a table of 32,768 x 64 x 4 B, and the rest of segments.
    model, settings = subject("Qwen/Qwen2.5-0.5B-Instruct"), Settings(version="0.5.10")
    slack = loading_slack(model, rank_lines(model, settings, "bf16"), era_for("0.5.10"))
    assert rope_tables(model.architecture) == [32_768 * 64 * 4]
    assert 0.97 <= (494_032_768 * 2 + 32_768 * 64 * 4 + slack) / GIB <= 0.995
    # Llama's matrices are multiples of 2 MiB: only norms share segments.
    assert loading_slack(LLAMA, rank_lines(LLAMA, settings, "bf16"), era_for("0.5.10")) < 4 * MIB


def test_nvfp4_experts_leave_the_scales_of_the_second_projection() -> None:
    model, settings = subject("nvidia/Kimi-K2.5-NVFP4"), Settings(tp_size=8)
    lines = rank_lines(model, settings, "bf16")
    old, new = (loading_slack(model, lines, era_for(version)) for version in ("0.4.10", "0.5.9"))
    # 60 layers x 384 experts x 7168 rows x 2048 / 8 inputs / 16
    assert new - old == 60 * 384 * 7168 * (2048 // 8 // 16)


def test_experts_and_words_follow_the_layout() -> None:
    model = subject("deepseek-ai/DeepSeek-V3")
    whole = sum(stage_bytes(model, Settings(tp_size=8, ep_size=8), "bf16"))
    spare = sum(stage_bytes(model, Settings(tp_size=8, ep_size=8, ep_num_redundant_experts=16), "bf16"))
    # 58 layers x 2 experts more on a rank x 3 matrices of 7168 x 2048 in 8 bits, a scale of 4 B for each 128 x 128
    assert spare - whole == 58 * 2 * 3 * (7168 * 2048 + 56 * 16 * 4)
    spread = sum(stage_bytes(model, Settings(tp_size=8, attn_dp_size=8), "bf16"))
    one = sum(stage_bytes(model, Settings(tp_size=8), "bf16"))
    # Each replica has the whole table of 129,280 words and the whole attention.
    assert spread - one > 129_280 * 7168 * 2 * 7 // 8


def test_gemma_tables_are_as_wide_as_a_head() -> None:
    tables = rope_tables(subject("google/gemma-4-31B-it").architecture)
    assert sorted(tables) == [262_144 * 256 * 4, 262_144 * 512 * 4]


def test_adapters_take_from_the_pool() -> None:
    settings = Settings(enable_lora=True, max_lora_rank=256, max_loras_per_batch=2, mem_fraction_static=0.8)
    # A: 3 x 4096 + 4096 + 2 x 4096 + 14,336 wide, B: 4096 + 2 x 1024 + 4096 + 2 x 14,336 + 4096
    layer = 256 * (6 * 4096 + 14_336 + 4096 + 2048 + 4096 + 28_672 + 4096)
    assert lora_bytes(LLAMA.architecture, settings, "bf16") == 32 * layer * 2 * 2
    one = size_up(LLAMA, Machine((H100,)), settings, 78 * GIB)
    none = size_up(LLAMA, Machine((H100,)), Settings(mem_fraction_static=0.8), 78 * GIB)
    assert none.available - one.available == 32 * layer * 2 * 2
    unknown = estimate(LLAMA, Machine((H100,)), Settings(enable_lora=True))
    assert any("--max-lora-rank" in note for note in unknown.notes)


def test_a_draft_of_its_own_is_a_layer_and_a_projection() -> None:
    settings = Settings(speculative_algorithm="EAGLE3", speculative_draft_model_path="a/b")
    draft = draft_of(LLAMA, settings, "bf16")
    assert draft is not None
    # q, k, v from two states, o from one; an MLP; three states to one; a head of 32,000 words; the embedding is shared
    layer = 2 * 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14_336
    assert draft.kept == 2 * (layer + 3 * 4096 * 4096 + 32_000 * 4096)
    assert draft.loaded == draft.kept + 2 * 128_256 * 4096
    assert draft_of(LLAMA, Settings(speculative_algorithm="NGRAM"), "bf16") is None
    old, new = (
        size_up(
            LLAMA,
            Machine((H100,)),
            Settings(version=v, speculative_algorithm="EAGLE3", mem_fraction_static=0.8),
        )
        for v in ("0.5.12", "0.5.15")
    )
    assert (old.cells.full, new.cells.full) == (131_072, 131_072 * 33 // 32)


@pytest.mark.parametrize(
    ("name", "gpu", "settings", "version", "page"),
    [
        ("deepseek-ai/DeepSeek-V3", "h100", {"attention_backend": "flashmla"}, "0.5.2", 64),
        ("deepseek-ai/DeepSeek-V3", "h100", {"decode_attention_backend": "cutlass_mla"}, "0.5.2", 128),
        (
            "deepseek-ai/DeepSeek-V3",
            "b200",
            {"attention_backend": "trtllm_mla", "page_size": 32},
            "0.5.12",
            32,
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            "b200",
            {"attention_backend": "trtllm_mla", "page_size": 1},
            "0.5.12",
            64,
        ),
        ("meta-llama/Llama-3.1-8B-Instruct", "b200", {}, "0.5.12", 64),
        ("meta-llama/Llama-3.1-8B-Instruct", "b200", {}, "0.5.10", 1),
        ("meta-llama/Llama-3.1-8B-Instruct", "h100", {"attention_backend": "fa4"}, "0.5.12", 128),
        ("meta-llama/Llama-3.1-8B-Instruct", "Ascend 910B3", {}, "0.5.12", 128),
        ("deepseek-ai/DeepSeek-V3.2", "h100", {}, "0.5.12", 64),
        ("meta-llama/Llama-3.1-8B-Instruct", "h100", {}, "0.5.12", 1),
    ],
)
def test_kernels_decide_the_page(
    name: str, gpu: str, settings: dict[str, object], version: str, page: int
) -> None:
    chosen = Settings(version=version, **settings)  # type: ignore[arg-type]
    assert page_size(chosen, subject(name).architecture, find_device(gpu), era_for(version)) == page


@pytest.mark.parametrize(
    ("name", "version", "given", "fraction"),
    [
        # (9.5 + 1/2) GiB of 81,559 MiB: 0.874, then 0.95 x (1 - 0.1 x (24 x 1280^2 / (24 x 1024^2) - 1))
        ("Qwen/Qwen2.5-VL-7B-Instruct", "0.4.10", None, 0.874 * 0.95 * 0.94375),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "0.4.8", None, 0.874 * 0.9),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "0.4.4", None, 0.88 * 0.95),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "0.4.4", 0.8, 0.8 * 0.95),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "0.5.12", 0.8, 0.8),
    ],
)
def test_images_leave_less_to_the_pools(
    name: str, version: str, given: float | None, fraction: float
) -> None:
    settings = Settings(version=version, mem_fraction_static=given)
    resolved = resolve(settings, subject(name).architecture, H100, era_for(version))
    assert resolved.mem_fraction_static == pytest.approx(fraction, abs=1e-9)


def test_roles_reserve_what_they_need() -> None:
    # 512 + 1.5 x 2048 + 2 x 256 + 1/8 x 1024 = 4224 MiB, less than the 10 GiB that large cards keep
    decode = Settings(version="0.5.23", disaggregation_mode="decode", disable_prefill_cuda_graph=True)
    resolved = resolve(decode, LLAMA.architecture, H100, era_for("0.5.23"))
    assert resolved.mem_fraction_static == round((81_559 - 10_240) / 81_559, 3)


def test_state_slots_follow_the_strategy() -> None:
    machine = Machine((H100,) * 4)
    for version, strategy, slots in (
        ("0.5.10", "auto", 3), ("0.5.23", "auto", 5), ("0.5.23", "no_buffer", 3), ("0.5.23", "extra_buffer_lazy", 4),
    ):  # fmt: skip
        settings = Settings(version=version, tp_size=4, mamba_radix_cache_strategy=strategy)
        assert size_up(NEXT, machine, settings, 78 * GIB).pools.state_slots == slots


def test_one_request_more_had_a_row_before_0_4_10() -> None:
    machine = Machine((H100,))
    # An 80 GB log of 0.4.1 ends with max_running_requests=2049.
    assert size_up(LLAMA, machine, Settings(version="0.4.4"), int(78.81 * GIB)).pools.requests == 2049
    assert size_up(LLAMA, machine, Settings(version="0.4.10"), int(78.58 * GIB)).pools.requests == 2048


def test_what_the_weights_do_not_leave_is_said() -> None:
    machine = Machine((find_device("GeForce RTX 4090"),))
    found = estimate(LLAMA, machine, Settings(context_length=4096, mem_fraction_static=0.5))
    assert any("Not enough memory" in note for note in found.notes)
    assert found.details["min_mem_fraction_static"] == pytest.approx(15.0 / 22.9, abs=0.02)


def test_more_logs_are_reproduced() -> None:
    """Weights of unquantized models within 3.5 %, half of them within 0.5 %."""
    errors = []
    for case in read_cases(MORE):
        if "weights_gib" in case.measured and not case.fields.get("checkpoint_format"):
            errors.append(abs(predict(case)["weights_gib"].value / case.measured["weights_gib"] - 1))
    assert len(errors) > 25
    assert max(errors) < 0.035
    assert sorted(errors)[len(errors) // 2] < 0.005


def test_every_log_is_predicted() -> None:
    score = validate_files([MORE])
    assert score.n_predicted == score.n_cases >= 40
    tokens = score.metrics()["sglang.kv_cache_tokens"]
    assert tokens["median_ape"] < 3
