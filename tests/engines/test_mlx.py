"""MLX: bytes by hand, what mlx-lm's own caches hold, refusals and properties."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.mlx import Settings, answer, estimate
from willfit.engines.mlx.moments import Run, bytes_of, limits_of
from willfit.engines.mlx.tape import Limits, Tape
from willfit.engines.subject import subject_from_config
from willfit.engines.table import default_engine
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.formulas import read_formula
from willfit.hardware.device import CPU, Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB

MAC = find_device("m4 max 64g")
RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "mlx" / "caches.jsonl").read_text().splitlines()
]

LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "head_dim": 64,
    "max_position_embeddings": 32768, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip


def subject(config: dict[str, Any], format_name: str | None = None) -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def bundled(name: str, format_name: str | None = None) -> Subject:
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config, name), format_name)


def ask(what: Subject, device: Device = MAC, users: int = 1, **fields: Any) -> Estimate:
    return estimate(what, Machine((device,)), Settings(**fields), users)


def terms(found: Estimate) -> dict[str, int]:
    assert not found.refusal
    return {term.name: term.bytes for term in found.devices[0].terms}


@pytest.mark.parametrize("line", RECORDED, ids=lambda one: f"{one['config']['model_type']} {one['prompt']}")
def test_caches_are_those_that_mlx_lm_itself_holds(line):
    what = subject(line["config"])
    asked = {key: line[key] for key in ("kv_bits", "quantized_kv_start", "max_kv_size") if key in line}
    chosen = Settings(
        version=line["version"], prompt_tokens=line["prompt"], max_tokens=line["generated"], **asked
    )
    found = estimate(what, Machine((MAC,)), chosen)
    if "error" in line:
        assert found.refusal
        return
    run = Run(what.architecture, chosen, {}, limits_of(MAC, chosen.era), 1)
    # The newest token is computed, but not fed back any more.
    growth = run.growth(run.last - 1, 1)
    assert bytes_of(run.kept(growth, run.quantized(run.last - 1))) == line["cache_bytes"]


@pytest.mark.parametrize("line", RECORDED[::5], ids=lambda one: one["config"]["model_type"])
def test_weights_are_the_parameters_that_mlx_lm_holds(line):
    what = subject(line["config"])
    held = line["parameter_bytes"]
    if line["config"]["model_type"] == "gemma3_text":
        held -= 256 * 128 * 2  # a head that is dropped when a checkpoint without one is loaded
    assert what.weight_bytes == pytest.approx(held, rel=0.004)


def test_weights_in_four_bits_by_hand():
    # Groups of 64 numbers in 4 bits with a scale and a bias of 2 B: 36 B. Norms stay, each in 256 B.
    matrices = 2 * 512 * 128 + 4 * (2 * 256 * 128 + 2 * 128 * 128 + 3 * 256 * 128)
    stored = matrices // 64 * 36 + 9 * 128 * 2
    found = ask(subject(LLAMA, "mlx4"), prompt_tokens=10)
    weights = next(term for term in found.devices[0].terms if term.name == "weights")
    assert weights.formula.startswith(f"{stored} B of tensors")
    # Of each layer's arrays only the packed gate, up and down projections, 16384 B, are a whole page.
    assert weights.bytes >= stored


def test_gpt_oss_as_a_log_has_it():
    """mlx-lm on a Mac mini of 16 GB: "a model that requires 11516 MB" (mlx-lm issue 644), MB being 2^20."""
    entry = find("openai/gpt-oss-20b")
    assert entry is not None
    config = {key: value for key, value in entry.config.items() if key != "quantization_config"}
    experts = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    config["quantization"] = {"group_size": 64, "bits": 8, "mode": "affine"} | {
        f"model.layers.{layer}.mlp.experts.{name}": experts
        for layer in range(24)
        for name in ("gate_up_proj", "down_proj")
    }
    found = ask(subject(config), find_device("m4 16g"), prompt_tokens=100, version="0.28.4")
    assert terms(found)["weights"] / 2**20 == pytest.approx(11516, rel=0.001)


def test_a_cache_grows_by_256_tokens_and_is_copied():
    # 4 layers x 2 heads x (64 + 64) x 2 B = 2048 B a token.
    held = terms(ask(subject(LLAMA), prompt_tokens=257, max_tokens=1))
    assert held["kv_cache"] == 256 * 2048
    held = terms(ask(subject(LLAMA), prompt_tokens=300, max_tokens=100))
    assert held["kv_cache"] == 512 * 2048
    found = ask(subject(LLAMA), prompt_tokens=20, max_tokens=20_000)
    assert found.details["moment"] == "decoding"
    # All four layers' outgrown keys and values are alive beside the new ones, and the blocks that were added.
    formula = found.devices[0].terms[-1].formula
    assert "19968 rows x 8 caches outgrown x 128 x 2 B" in formula
    assert "256 rows x 8 cache blocks x 128 x 2 B" in formula


def test_windows_hold_what_a_part_of_the_prompt_needs():
    gemma = bundled("google/gemma-3-1b-it", "mlx4")
    found = ask(gemma, prompt_tokens=8192)
    kv = next(term for term in found.devices[0].terms if term.name == "kv_cache")
    # 22 of 26 layers have a window of 512: with the last 2047 new tokens they hold 511 + 2047.
    assert "22 layers x 2558 tokens x 512 x 2 B" in kv.formula
    assert "4 layers x 8192 tokens x 512 x 2 B" in kv.formula


def test_quantized_caches_by_hand():
    found = ask(subject(LLAMA), prompt_tokens=20_000, kv_bits=4)
    kv = next(term for term in found.devices[0].terms if term.name == "kv_cache")
    # 4 bits and 2 x 2 B for each 64: 0.5625 B; the last whole part of the prompt takes most beside.
    assert kv.bytes == 4 * 9 * 2048 * 256 * 9 // 16
    assert "scores" in found.devices[0].terms[-1].formula
    # Below the length from which on they are quantized they are not.
    assert terms(ask(subject(LLAMA), prompt_tokens=2_000, kv_bits=4))["kv_cache"] == 2_048 * 2048


def test_parts_of_a_prompt_by_version():
    """Each makes less of its logits: all of the whole prompt, of the last part, of the last token."""
    sizes = [
        terms(ask(subject(LLAMA), prompt_tokens=2000, version=version))["activations"]
        for version in ("0.16.1", "0.21.5", "0.32.2")
    ]
    formulas = [
        ask(subject(LLAMA), prompt_tokens=2000, version=version).devices[0].terms[-1].formula
        for version in ("0.16.1", "0.21.5", "0.26.4", "0.32.2")
    ]
    assert "2000 rows x " in formulas[0]
    assert "logits" in formulas[2]
    assert sizes[0] > sizes[1]
    assert "2000 rows" not in formulas[3]


def test_heads_without_a_kernel_make_scores():
    wide = {**LLAMA, "head_dim": 256}
    formula = ask(subject(wide), prompt_tokens=4096).devices[0].terms[-1].formula
    # 4 heads x 2047 tokens, 4095 keys.
    assert re.search(r"8188 rows x \d scores x 4095 x 2 B", formula)
    assert (
        "scores"
        not in ask(subject({**LLAMA, "head_dim": 128}), prompt_tokens=4096).devices[0].terms[-1].formula
    )


def test_latents_by_version():
    deepseek = bundled("deepseek-ai/DeepSeek-V3", "mlx4")
    big = find_device("m3 ultra 512g")
    new, old = (ask(deepseek, big, prompt_tokens=4096, version=v) for v in ("0.31.0", "0.30.4"))
    # 61 layers x 576 numbers, or 128 heads x (192 + 128).
    assert terms(new)["kv_cache"] == 61 * 4096 * 576 * 2
    assert terms(old)["kv_cache"] == 61 * 4096 * 128 * 320 * 2


def test_what_convolutions_keep_stays_to_the_end():
    """The rows that a convolution keeps are a view: the inputs of all 36 layers are alive behind a prompt."""
    found = ask(
        bundled("Qwen/Qwen3-Next-80B-A3B-Instruct", "mlx4"), find_device("m3 ultra 512g"), prompt_tokens=2049
    )
    formula = found.devices[0].terms[-1].formula
    counts = [int(count) for count in re.findall(r"(\d+) convolution inputs", formula)]
    assert sum(counts) >= 36


def test_a_server_keeps_prompts_and_computes_several():
    served = ask(subject(LLAMA), users=4, program="server", prompt_tokens=1000, max_tokens=24)
    single = ask(subject(LLAMA), program="server", prompt_tokens=1000, max_tokens=24)
    assert terms(served)["kv_cache"] == 4 * terms(single)["kv_cache"]
    kept = next(term for term in served.devices[0].terms if term.name == "prompt_cache")
    assert (kept.low_bytes, kept.bytes, kept.high_bytes) == (0, 4 * 1024 * 2048, 10 * 1024 * 2048)
    limited = ask(
        subject(LLAMA), users=4, program="server", prompt_tokens=1000, prompt_cache_bytes=3 * 1024 * 2048
    )
    kept = next(term for term in limited.devices[0].terms if term.name == "prompt_cache")
    assert kept.high_bytes == 3 * 1024 * 2048
    assert any("one after the other" in note for note in ask(subject(LLAMA), users=4, prompt_tokens=99).notes)


def test_a_draft_has_weights_and_a_cache_of_its_own():
    small = subject({**LLAMA, "num_hidden_layers": 1})
    found = terms(ask(replace(subject(LLAMA), draft=small), prompt_tokens=1000, draft=True))
    assert found["draft_cache"] == 1024 * 512
    assert found["draft"] >= small.weight_bytes


def test_encoders_are_left_out_unless_mlx_vlm_loads_them():
    vision = bundled("Qwen/Qwen2.5-VL-7B-Instruct")
    left = sum(line.bytes for line in vision.lines if line.tensor.part == "vision")
    without, beside = (
        terms(ask(vision, prompt_tokens=100, program=program))["weights"] for program in ("server", "vlm")
    )
    assert beside - without == pytest.approx(left, rel=0.01)


@pytest.mark.parametrize(
    ("what", "fields", "says"),
    [
        (bundled("Qwen/Qwen3-8B-FP8"), {}, "does not load fp8 checkpoints"),
        (bundled("google-t5/t5-base"), {}, "does not run"),
        (bundled("Qwen/Qwen3-8B-AWQ"), {"version": "0.28.4"}, "does not load awq"),
        (bundled("google/gemma-3-12b-it"), {"kv_bits": 8, "prompt_tokens": 9000}, "window"),
        (subject({**LLAMA, "head_dim": 80}), {"kv_bits": 8, "prompt_tokens": 9000}, "heads of 80"),
        (bundled("Qwen/Qwen3-Next-80B-A3B-Instruct"), {"draft": True}, "recurrent states cannot"),
        (bundled("Qwen/Qwen3-8B"), {"version": "0.21.5"}, "0.24.1 and later do"),
    ],
)
def test_refusals(what, fields, says):
    assert says in ask(what, **{"prompt_tokens": 100, **fields}).refusal


def test_devices():
    assert "no backend for AMD" in ask(subject(LLAMA), find_device("mi300x"), prompt_tokens=9).refusal
    assert (
        "with CUDA since"
        in ask(subject(LLAMA), find_device("h100"), prompt_tokens=9, version="0.27.1").refusal
    )
    assert "context" in terms(ask(subject(LLAMA), find_device("h100"), prompt_tokens=9))
    assert "context" not in terms(ask(subject(LLAMA), prompt_tokens=9))
    with pytest.raises(BadInput, match="no 7-bit cache"):
        Settings(kv_bits=7)


@pytest.mark.parametrize(
    ("name", "device", "engine"),
    [
        ("Qwen/Qwen3-8B", MAC, "mlx"),
        ("google-t5/t5-base", MAC, "transformers"),
        ("Qwen/Qwen3-8B", find_device("h100"), "vllm"),
        ("Qwen/Qwen3-8B", CPU, "transformers"),
    ],
)
def test_who_answers_if_nobody_is_named(name, device, engine):
    assert default_engine(bundled(name), Machine((device,)), is_gguf=False) == engine


def test_a_question_and_its_cache():
    found = answer(bundled("Qwen/Qwen3-8B", "mlx4"), Machine((MAC,)), Question(context=8192, kv_dtype="int8"))
    assert "1.0625 B" in next(term.formula for term in found.devices[0].terms if term.name == "kv_cache")
    with pytest.raises(BadInput, match="no fp8 cache"):
        answer(bundled("Qwen/Qwen3-8B"), Machine((MAC,)), Question(kv_dtype="fp8"))


def test_a_context_that_is_offered_as_a_remedy_fits():
    small = find_device("m4 16g")
    found = ask(bundled("Qwen/Qwen3-8B", "mlx8"), small, prompt_tokens=40_000)
    offered = int(found.remedies[0].split()[3].replace(",", ""))
    assert found.devices[0].peak_bytes > (small.usable_bytes or 0)
    shorter = ask(bundled("Qwen/Qwen3-8B", "mlx8"), small, prompt_tokens=offered - 1)
    assert shorter.devices[0].peak_bytes <= (small.usable_bytes or 0)


def test_a_tape_frees_what_is_read_once_its_buffer_is_done():
    tape = Tape(Limits(1, None))
    one = tape.make("a", 1, 100, 1)
    tape.run(one)
    two = tape.make("b", 1, 10, 1)
    tape.run(one, two)  # the first command buffer is full
    three = tape.make("c", 1, 1000, 1)
    tape.run(two, three)
    tape.run(three)
    assert {alive.label for alive in tape.peak(0)} == {"b", "c"}
    assert {alive.label for alive in tape.peak(1)} == {"a", "b", "c"}
    tape.hold(one)
    assert {alive.label for alive in tape.peak(0)} == {"a", "b", "c"}


@given(st.integers(10, 30_000), st.integers(1, 5), st.sampled_from(["server", "generate"]))
@settings(max_examples=30, deadline=None)
def test_more_tokens_and_users_never_take_less_cache(tokens, users, program):
    def cache(prompt: int, many: int) -> int:
        found = ask(subject(LLAMA), users=many, prompt_tokens=prompt, program=program)
        return terms(found)["kv_cache"]

    assert cache(tokens, users) <= cache(tokens + 256, users)
    assert cache(tokens, users) <= cache(tokens, users + 1)


@given(st.integers(10, 6_000), st.integers(128, 4096))
@settings(max_examples=20, deadline=None)
def test_every_formula_gives_its_bytes(tokens, step):
    mamba = next(line["config"] for line in RECORDED if line["config"]["model_type"] == "granitemoehybrid")
    latent = next(line["config"] for line in RECORDED if line["config"]["model_type"] == "deepseek_v2")
    for config, version in (
        *((LLAMA, version) for version in ("0.10.0", "0.17.1", "0.21.5", "0.22.5", "0.32.2")),
        *(({**LLAMA, "head_dim": 256}, "0.32.2"), (mamba, "0.32.2"), (latent, "0.32.2")),
    ):
        what = subject(config, "mlx4")
        found = ask(what, prompt_tokens=tokens, prefill_step_size=step, max_tokens=7, version=version)
        for term in found.devices[0].terms:
            formula = read_formula(term.formula)
            assert formula is not None
            assert formula.value == pytest.approx(term.bytes, abs=1.5)


def test_a_smaller_machine_is_told_by_its_working_set():
    assert find_device("m4 16g").usable_bytes == int(11.84 * GIB)
    assert ask(bundled("Qwen/Qwen3-8B"), find_device("m4 16g"), prompt_tokens=100).verdict == "does_not_fit"
    assert ask(bundled("Qwen/Qwen3-8B", "mlx4"), find_device("m4 16g"), prompt_tokens=100).verdict == "fits"
