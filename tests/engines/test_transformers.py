"""transformers generate(): worked examples, eras, properties, and transformers itself as an oracle."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.allocator.caching import CachingAllocator
from willfit.architectures.build import build
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.transformers import Settings, estimate
from willfit.engines.transformers.activations import stages
from willfit.engines.transformers.cache import kept
from willfit.engines.transformers.eras import era_for
from willfit.engines.transformers.passes import Pass
from willfit.engines.transformers.plan import plan
from willfit.engines.transformers.readings import readings
from willfit.engines.transformers.replay import replay
from willfit.errors import BadInput
from willfit.estimate import DeviceEstimate
from willfit.formats.recipe import plain_recipe
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.formats.weights import weight_lines
from willfit.formulas import read_formula
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
from willfit.rules.shared_model import shared_model
from willfit.validation.cases import read_cases
from willfit.validation.predictors.transformers import predict
from willfit.validation.scoring import score_cases

A100 = find_device("A100 SXM4 80GB")
H100 = find_device("H100 SXM5 80GB")
CASES = Path(__file__).parents[1] / "data" / "cases" / "transformers.jsonl"


def subject(name: str) -> Subject:
    entry = find(name)
    assert entry is not None
    config = Config(entry.config)
    architecture = build(config)
    recipe = recipe_for(config, architecture.dtype)
    return Subject(name, architecture, recipe, weight_lines(architecture, recipe))


QWEN3 = subject("Qwen/Qwen3-8B")
LLAMA2 = subject("meta-llama/Llama-2-7b-hf")


def run(model: Subject, device: Device = A100, count: int = 1, **asked: Any) -> list[DeviceEstimate]:
    return list(estimate(model, Machine((device,) * count), Settings(**asked)).devices)


def sizes(device: DeviceEstimate) -> dict[str, int]:
    return {term.name: term.bytes for term in device.terms if term.name != "context"}


def test_llama_2_prefill_with_eager_attention_in_4_35() -> None:
    (device,) = run(LLAMA2, version="4.35.2", dtype="fp16", phase="prefill", attn_impl="eager", input_len=256)
    # Every matrix is a multiple of 2 MiB, so no block is rounded. The logits are the worst moment: 51 MB,
    # against 256 x 32 heads x 256 x 8 B + 3 hidden states + queries + mask = 27 MB of attention.
    assert sizes(device) == {
        "weights": 6_738_415_616 * 2,
        "buffers": 32 * 2 * 4096 * 128 * 2,  # cos and sin of each layer
        "workspace": 2 * 4 * MIB + 8 * 16 * 1024,
        "kv_cache": 256 * 32 * 2 * 32 * 128 * 2,
        "activations": 256 * 4096 * 2,
        "logits": 256 * 32_000 * (2 + 4),
        "fragmentation": 0,
    }


def test_qwen3_generates_with_flash_attention_in_5() -> None:
    (device,) = run(QWEN3, H100, attn_impl="flash_attention_2", input_len=4096, output_len=512)
    assert sizes(device) == {
        "weights": 8_190_735_360 * 2,
        "workspace": 32 * MIB,
        "kv_cache": 4096 * 36 * 2 * 8 * 128 * 2,
        # Four hidden states, gate, up and product; ids, positions and mask; cos and sin.
        "activations": 4096 * ((4 * 4096 + 3 * 12_288) * 2 + 4 * 8 + 2 * 128 * 2),
        "fragmentation": 0,
    }


def test_long_answers_peak_in_the_last_step() -> None:
    (device,) = run(QWEN3, H100, attn_impl="flash_attention_2", input_len=16, output_len=8001)
    found = sizes(device)
    assert found["kv_cache"] == 8016 * 36 * 2 * 8 * 128 * 2
    # torch.cat holds one layer's old keys beside the new ones: 8016 x 8 x 128 x 2 B and some small change.
    assert 0 < found["activations"] - 8016 * 8 * 128 * 2 < MIB
    assert found["fragmentation"] == 72 * MIB // 4


def test_what_changed_with_the_version() -> None:
    def of(version: str, **asked: Any) -> dict[str, int]:
        fields = {
            "input_len": 2048,
            "output_len": 2,
            "attn_impl": "flash_attention_2",
            "dtype": "bf16",
            **asked,
        }
        return sizes(run(LLAMA2, version=version, **fields)[0])

    # The prompt's logits, with their fp32 copy, up to 4.44.
    assert of("4.44.2")["logits"] == 2048 * 32_000 * 6
    assert "logits" not in of("4.45.0")  # the MLP is the worst moment now
    # Rotary tables of Llama up to 4.40.
    assert of("4.40.2")["buffers"] == 32 * 2 * 4096 * 128 * 2
    assert "buffers" not in of("4.41.0")
    # Old and new cache together up to 4.41.
    long = {"input_len": 1, "output_len": 2000}
    per_token = 32 * 2 * 32 * 128 * 2
    assert of("4.41.2", **long)["kv_cache"] == (2000 + 1999) * per_token
    assert of("4.42.0", **long)["kv_cache"] == 2000 * per_token
    # fp32 unless told otherwise up to 4.57.
    assert of("4.57.1", dtype=None)["weights"] == 2 * of("5.0.0", dtype=None)["weights"]


def test_weight_blocks_are_rounded_until_the_allocator_is_warmed_up() -> None:
    # Qwen2.5-3B: 108 MLP matrices of 43 MiB take 44 MiB each, the embedding of 593.5 MiB 594; all others are
    # small enough to share segments.
    model = subject("Qwen/Qwen2.5-3B-Instruct")
    assert sizes(run(model, version="4.49.0", dtype="bf16")[0])["rounding"] == 108 * MIB + MIB // 2
    assert "rounding" not in sizes(run(model, version="4.50.0", dtype="bf16")[0])


def test_windows_hold_less_while_decoding_but_not_in_the_prefill() -> None:
    model = subject("google/gemma-3-1b-it")
    architecture, era, before = model.architecture, era_for("4.56.0"), era_for("4.55.0")
    full = sum(layer.mixers[0].window == 0 for layer in architecture.layers)
    sliding = len(architecture.layers) - full
    per_layer = 2 * architecture.layers[0].mixers[0].kv_heads * 256
    decoding = kept(architecture, era, 8192, 0, 1, windowed=True)
    assert decoding.elements == (full * 8192 + sliding * 512) * per_layer
    assert (
        kept(architecture, era, 8192, 0, 1, windowed=False).elements
        == len(architecture.layers) * 8192 * per_layer
    )
    assert kept(architecture, before, 8192, 0, 1, windowed=True).elements == 26 * 8192 * per_layer


def test_latent_attention_caches_all_heads_before_5_15() -> None:
    model = subject("deepseek-ai/DeepSeek-V3")
    latent = kept(model.architecture, era_for("5.15.0"), 100, 0, 1, False).elements
    expanded = kept(model.architecture, era_for("5.14.0"), 100, 0, 1, False).elements
    assert latent == 100 * 61 * (512 + 64)
    assert expanded == 100 * 61 * 128 * (128 + 64 + 128)


def test_fp8_is_expanded_on_a_card_without_fp8() -> None:
    model = subject("Qwen/Qwen3-4B-FP8")
    assert sizes(run(model, A100)[0])["weights"] == 4_022_468_096 * 2
    assert sizes(run(model, H100)[0])["weights"] < 4_022_468_096 * 2 * 0.7
    assert any("no kernels" in note for note in estimate(model, Machine((A100,)), Settings()).notes)


def test_layers_are_shared_out_over_devices() -> None:
    whole = sizes(run(QWEN3)[0])
    parts = [sizes(device) for device in run(QWEN3, count=4)]
    assert sum(part["weights"] for part in parts) == pytest.approx(whole["weights"], abs=8)
    assert sum(part.get("kv_cache", 0) for part in parts) == pytest.approx(whole["kv_cache"], rel=1e-6)
    assert max(part["weights"] for part in parts) < whole["weights"] // 2


def test_what_does_not_fit_stays_in_ram() -> None:
    card = find_device("rtx 3060 12GB")
    found = estimate(QWEN3, Machine((card,), 64 * GIB), Settings(offload=True))
    on_card = sizes(found.devices[0])
    assert on_card["weights"] < 12 * GIB
    assert any("layers stay in RAM" in note for note in found.notes)
    # Their parameters are views of mapped files, so the process holds none of them.
    assert "offloaded_weights" not in {term.name for term in found.host.terms}
    assert found.host.page_cache[0].bytes == 8_190_735_360 * 2
    copied = estimate(QWEN3, Machine((card,), 64 * GIB), Settings(offload=True, dtype="fp32"))
    in_ram = {term.name: term.bytes for term in copied.host.terms}["offloaded_weights"]
    assert sizes(copied.devices[0])["weights"] + in_ram == pytest.approx(8_190_735_360 * 4, abs=2)
    assert on_card["staging"] == pytest.approx(385_900_000, rel=0.02)  # one layer
    assert found.verdict == "fits"
    assert estimate(QWEN3, Machine((card,)), Settings()).verdict == "does_not_fit"


def test_a_model_without_device_map_is_built_in_ram() -> None:
    def in_ram(**asked: Any) -> int:
        found = estimate(QWEN3, Machine((A100,)), Settings(device_map=None, **asked))
        return sum(term.bytes for term in found.host.terms if term.name in ("weights", "file"))

    bf16 = 8_190_735_360 * 2
    assert in_ram(version="4.44.0", dtype="bf16") == bf16
    assert in_ram(version="4.44.0", dtype="bf16", low_cpu_mem_usage=True) == 0  # views of mapped files
    assert in_ram(version="4.44.0") == 2 * bf16  # fp32, so that nothing stays mapped
    assert (
        in_ram(version="4.35.2", dtype="bf16", mapped_files=False) == bf16 + 5 * 10**9
    )  # and a file beside it
    assert in_ram(version="5.0.0") == 0


def test_what_fits_neither_on_devices_nor_in_ram_stays_on_disk() -> None:
    card = find_device("rtx 3060 12GB")
    asked = Settings(offload=True, dtype="fp32")
    found = estimate(QWEN3, Machine((card,), 16 * GIB), asked)
    (note,) = [note for note in found.notes if "on disk" in note]
    in_ram = {term.name: term.bytes for term in found.host.terms}["offloaded_weights"]
    assert 0 < in_ram < 16 * GIB
    assert int(note.split()[0]) > 0


def test_threads_share_the_weights() -> None:
    def of(threads: int) -> dict[str, int]:
        return sizes(run(QWEN3, threads=threads, input_len=3000, output_len=500)[0])

    one, four = of(1), of(4)
    assert four["weights"] == one["weights"]
    assert four["workspace"] == 4 * one["workspace"]  # a cuBLAS handle for each
    for name in ("kv_cache", "activations"):
        assert four[name] == 4 * one[name]
    # The rule of thumb says the same, but for cuBLAS: A + (M - A) x n.
    peak = sum(one.values()) - one["workspace"]
    thumb = shared_model(one["weights"], peak, 4).value
    assert sum(four.values()) - four["workspace"] == thumb


def test_quantizing_while_loading_holds_the_matrix_before() -> None:
    bf16 = subject("Qwen/Qwen2.5-7B-Instruct")

    def quantized(name: str) -> Subject:
        recipe = recipe_named(name, "bf16", bf16.architecture)
        return replace(bf16, recipe=recipe, lines=weight_lines(bf16.architecture, recipe))

    largest = 18_944 * 3584
    (device,) = run(quantized("nf4"), phase="load")
    assert sizes(device)["activations"] == largest * 2
    # What was packed before is loaded as it is; ExLlama's order is made from three copies.
    assert sizes(run(quantized("awq"), phase="load")[0])["activations"] == 0
    exllama = run(quantized("awq"), phase="load", quantization_kernel="exllama")[0]
    assert sizes(exllama)["activations"] == largest * 10
    assert sizes(exllama)["workspace"] == largest * 2 + 18_944 * 2048 * 8 * 4


def test_half_of_the_unquantized_model_is_reserved_at_once() -> None:
    bf16 = subject("Qwen/Qwen2.5-7B-Instruct")
    recipe = recipe_named("nf4", "bf16", bf16.architecture)
    model = replace(bf16, recipe=recipe, lines=weight_lines(bf16.architecture, recipe))

    def reserved(version: str) -> int:
        return readings(model, Machine((A100,)), Settings(version=version, phase="load"))[0].reserved[0]

    assert reserved("4.51.3") == pytest.approx(7_615_616_512 * 2 / 2, rel=0.001)
    assert reserved("5.0.0") < 6 * GIB


@pytest.mark.parametrize(
    ("batch", "reserved", "after"),
    [(2, 29.2277, 29.2277), (4, 48.5312, 48.5312), (8, 78.6204, 72.495), (32, 78.6, 62.03)],
)
def test_the_growing_cache_of_4_35_leaves_segments_behind(batch: int, reserved: float, after: float) -> None:
    """Llama-2-13B on an A100 with 80 GB: 256 tokens and 512 new ones, as optimum-benchmark published them."""
    model = subject("meta-llama/Llama-2-13b-hf")
    asked = Settings(
        version="4.35.2", dtype="fp16", attn_impl="eager", batch=batch, input_len=256, output_len=512
    )
    (seen,) = readings(model, Machine((A100,)), asked)
    assert seen.reserved[0] / GIB == pytest.approx(reserved, rel=0.02)
    assert seen.after[0] / GIB == pytest.approx(after, rel=0.06)
    assert seen.full is (batch >= 8)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        (None, {"threads": 3, "input_len": 2000}),
        (None, {"version": "4.41.0", "threads": 2, "input_len": 20, "output_len": 900, "dtype": "bf16"}),
        (None, {"cache": "offloaded_static", "cache_len": 9000}),
        (None, {"attn_impl": "flex_attention", "input_len": 3000}),
        (None, {"offload": True, "dtype": "fp32", "mapped_files": False, "version": "4.35.2"}),
        (None, {"device_map": None, "version": "4.35.2", "mapped_files": False}),
        ("nf4", {"phase": "load", "version": "4.51.3"}),
        ("bnb-int8", {"input_len": 4000}),
        ("awq", {"input_len": 400, "quantization_kernel": "exllamav2"}),
        ("awq", {"input_len": 64, "fused_modules": True, "cache_len": 64, "version": "4.35.2"}),
    ],
)
def test_formulas_of_what_no_question_asks_for(name: str | None, asked: dict[str, Any]) -> None:
    model = QWEN3
    if name is not None:
        recipe = recipe_named(name, "bf16", model.architecture)
        model = replace(model, recipe=recipe, lines=weight_lines(model.architecture, recipe))
    if asked.get("threads") == 3:
        model = replace(model, draft=LLAMA2)
    found = estimate(model, Machine((find_device("rtx 4090"),), 24 * GIB), Settings(**asked))
    for place in (*found.devices, found.host):
        for term in place.terms:
            if term.bytes:
                formula = read_formula(term.formula)
                assert formula is not None, term
                assert formula.value == pytest.approx(term.bytes, abs=1.5), term


def test_counters_are_in_order() -> None:
    for asked in ({}, {"input_len": 20_000, "output_len": 4000}, {"batch": 8}, {"phase": "load"}):
        (seen,) = readings(QWEN3, Machine((A100,)), Settings(**asked))  # type: ignore[arg-type]
        assert seen.allocated[0] <= seen.reserved[0] < seen.process[0]
        assert seen.after[0] <= seen.reserved[0]
        for value, low, high in (seen.allocated, seen.reserved, seen.after, seen.process, seen.process_after):
            assert low <= value <= high


def test_caches_of_other_kinds() -> None:
    def cache(kind: str) -> int:
        asked: Any = {"cache": kind, "input_len": 1, "output_len": 2048, "attn_impl": "flash_attention_2"}
        return sizes(run(QWEN3, **asked)[0])["kv_cache"]

    per_token = 36 * 2 * 8 * 128 * 2
    assert cache("static") == 2049 * per_token
    assert cache("offloaded") == 2 * 2048 * per_token // 36
    # 4 bits and 32 bits a group of 64; 128 tokens as they are; two copies of one layer expanded.
    quantized = 2048 * per_token * (4 + 0.5) / 16 + 128 * per_token + 2 * 2048 * per_token / 36
    assert cache("quantized") == pytest.approx(quantized, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    version=st.sampled_from(["4.35.2", "4.44.0", "4.51.0", "4.56.0", "5.23.0"]),
    attention=st.sampled_from(["eager", "sdpa", "flash_attention_2"]),
    batch=st.integers(1, 16),
    prompt=st.integers(1, 5000),
    answer=st.integers(1, 3000),
    grown=st.sampled_from(["batch", "input_len", "output_len"]),
)
def test_more_is_never_less(
    version: str, attention: Any, batch: int, prompt: int, answer: int, grown: str
) -> None:
    asked = {"batch": batch, "input_len": prompt, "output_len": answer}
    more = {**asked, grown: asked[grown] * 2}
    small, large = (
        estimate(QWEN3, Machine((A100,)), Settings(version=version, attn_impl=attention, dtype="bf16", **one))
        for one in (asked, more)
    )
    for place in (small.devices[0], large.devices[0]):
        assert place.peak_bytes == sum(term.bytes for term in place.terms)
    assert large.devices[0].peak_bytes >= small.devices[0].peak_bytes
    detail = small.details["devices"][0]
    runtime = next(term.bytes for term in small.devices[0].terms if term.name == "context")
    assert detail["allocated"][0] + runtime == small.devices[0].peak_bytes
    value, low, high = detail["allocated"]
    assert low <= value <= high


def test_rules_serve_arrays() -> None:
    lengths = np.array([1, 100, 5000])
    architecture, era = QWEN3.architecture, era_for("5.23.0")
    together = kept(architecture, era, lengths, 0, 1, True).elements
    assert together.tolist() == [kept(architecture, era, int(n), 0, 1, True).elements for n in lengths]
    found = stages(architecture, era, Pass(1, lengths, lengths, "bf16", "eager"))
    for name, (size, _) in found.items():
        one = [stages(architecture, era, Pass(1, int(n), int(n), "bf16", "eager"))[name][0] for n in lengths]
        assert size.tolist() == one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("threads", 0),
        ("cache_len", 0),
        ("assistant_tokens", 0),
        ("input_len", 0),
        ("output_len", -1),
        ("prefill_chunk_size", 0),
    ],
)
def test_impossible_settings(field: str, value: int) -> None:
    with pytest.raises(BadInput, match=field):
        Settings(**{field: value})  # type: ignore[arg-type]


def test_an_assistant_takes_one_sequence() -> None:
    with pytest.raises(BadInput, match="one sequence"):
        run(replace(QWEN3, draft=LLAMA2), batch=2)


def test_a_dtype_that_nothing_computes_in() -> None:
    with pytest.raises(BadInput, match="int8"):
        run(QWEN3, dtype="int8")


def test_published_measurements() -> None:
    score = score_cases(read_cases(CASES), lambda case: predict)
    allocated = score.metrics()["transformers.peak_allocated_gib"]
    assert allocated["n"] >= 250
    assert allocated["median_ape"] < 0.5
    assert allocated["p90_ape"] < 8
    assert 0.8 < allocated["coverage90"] < 0.97
    reserved, shown = (
        score.metrics()[f"transformers.{name}"] for name in ("peak_reserved_gib", "nvidia_smi_gib")
    )
    assert reserved["median_ape"] < 1
    assert reserved["p90_ape"] < 8
    assert shown["median_ape"] < 4
    assert 0.8 < shown["coverage90"] < 0.97


def _measured(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parents[2] / "docs" / "measured" / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "row", [row for row in _measured("qwen25_rtx4090.csv") if row["engine"] == "transformers"]
)
def test_what_an_article_saw_on_one_card(row: dict[str, str]) -> None:
    """`nvidia-smi` after loading Qwen2.5 in six formats, from `docs/measured/`."""
    model = subject(row["model"])
    if row["format"] not in ("", "bf16"):
        recipe = recipe_named(row["format"], "bf16", model.architecture)
        model = replace(model, recipe=recipe, lines=weight_lines(model.architecture, recipe))
    asked = Settings(version="4.46.0", dtype="auto", phase="load")
    value, low, high = readings(model, Machine((find_device("rtx 4090"),)), asked)[0].process
    assert value / MIB == pytest.approx(float(row["static_mib"]), rel=0.035)
    assert low <= float(row["static_mib"]) * MIB <= high


def test_chatglm2_begins_at_its_weights() -> None:
    """The least-squares line through 30 prompt lengths begins at 11,936 MiB, from `docs/measured/`."""
    points = [
        (float(row["characters"]), float(row["max_memory_allocated_mib"]))
        for row in _measured("chatglm2_prompts.csv")
    ]
    slope, start = np.polyfit(*zip(*points, strict=True), 1)
    asked = {"version": "4.30.2", "dtype": "fp16", "attn_impl": "sdpa", "output_len": 1, "loading": False}
    model = subject("zai-org/chatglm2-6b")
    empty = sum(sizes(run(model, input_len=1, **asked)[0]).values()) / MIB
    assert empty == pytest.approx(start, rel=0.002)
    # 28 KiB of cache and 6 B for each of 65,024 logits a token would be 0.56 tokens a character.
    per_token = (28 * 1024 + 4096 * 2 + 65_024 * 6) / MIB
    assert 0.5 < slope / per_token < 0.7


TINY: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 384, "mlp_only_layers": [],
    "decoder_sparse_step": 1, "norm_topk_prob": True,
}  # fmt: skip


STATIC = {"cache_implementation": "static"}


@pytest.mark.parametrize(
    ("model_type", "fields", "attention", "prompt", "answer", "asked", "moment"),
    [
        ("llama", {}, "sdpa", 512, 3, {}, "prefill, mlp"),
        ("llama", {"vocab_size": 64}, "sdpa", 8, 300, {}, "decoding, last step"),
        ("llama", {}, "eager", 256, 2, {}, "prefill, attention"),
        ("llama", {"vocab_size": 20_000}, "sdpa", 256, 0, {}, "prefill, logits"),
        ("llama", {}, "sdpa", 512, 200, STATIC, "prefill, mlp"),
        ("qwen3", {"intermediate_size": 96}, "sdpa", 512, 2, {}, "prefill, attention"),
        ("qwen3", {}, "sdpa", 512, 2, {"prefill_chunk_size": 128}, "prefill, attention"),
        ("mistral", {"sliding_window": 128}, "sdpa", 512, 2, {}, "prefill, mlp"),
        ("phi3", {"pad_token_id": 0, "eos_token_id": 1}, "sdpa", 256, 2, {}, "prefill, mlp"),
        ("qwen3_moe", EXPERTS, "sdpa", 256, 2, {}, "prefill, experts"),
    ],
)
def test_transformers_holds_what_the_rules_say(
    model_type: str,
    fields: dict[str, Any],
    attention: Any,
    prompt: int,
    answer: int,
    asked: dict[str, Any],
    moment: str,
) -> None:
    config = {**TINY, **fields, "model_type": model_type}
    seen = Live(config, attention, prompt, answer, **asked)
    found = estimate(
        tiny(config),
        Machine((Device("any"),)),
        Settings(
            input_len=prompt,
            output_len=max(answer, 1),
            attn_impl=attention,
            phase="generate" if answer else "prefill",
            prefill_chunk_size=asked.get("prefill_chunk_size"),
            cache=asked.get("cache_implementation", "dynamic"),
        ),
    )
    assert found.details["devices"][0]["moment"] == moment
    assert passing(found.devices[0]) == pytest.approx(seen.peak, rel=0.02)


def test_an_assistant_proposes_tokens() -> None:
    """The assistant's cache beside the model's, and logits for all that it proposed."""
    config = {**TINY, "model_type": "llama", "vocab_size": 4096}
    small = {**config, "hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 1}
    seen = Live(config, "sdpa", 64, 40, assistant=small)
    asked = Settings(input_len=64, output_len=40, attn_impl="sdpa", assistant_tokens=8)
    found = estimate(replace(tiny(config), draft=tiny(small)), Machine((Device("any"),)), asked)
    assert sizes(found.devices[0])["draft"] == tiny(small).weight_bytes
    assert passing(found.devices[0]) == pytest.approx(seen.peak, rel=0.15)


def test_the_replay_reserves_what_the_real_call_does() -> None:
    """Every storage of a real call goes through the same allocator: what it keeps reserved is what the replay says."""
    fields = {"hidden_size": 512, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 1408}
    config = {**TINY, **fields, "model_type": "llama"}
    seen = Live(config, "sdpa", 384, 160, batch=32)
    asked = Settings(input_len=384, output_len=160, batch=32, attn_impl="sdpa")
    laid_out = plan(tiny(config), Machine((Device("any"),)), asked)
    found = replay(laid_out.run, 0, 2, True, True, None)
    assert seen.memory.peak_reserved > seen.peak * 1.3
    assert found.peak == pytest.approx(seen.memory.peak_reserved, rel=0.1)


def tiny(config: dict[str, Any]) -> Subject:
    """A model of a config in bf16."""
    architecture = build(Config({**config, "torch_dtype": "bfloat16"}))
    recipe = plain_recipe("bf16")
    return Subject("tiny", architecture, recipe, weight_lines(architecture, recipe))


def passing(device: DeviceEstimate) -> int:
    """Bytes of what comes and goes."""
    names = ("kv_cache", "activations", "logits", "draft_cache")
    return sum(term.bytes for term in device.terms if term.name in names)


class Live:
    """A real call on the CPU: most bytes of storages alive at once, weights aside, and what an allocator keeps."""

    def __init__(
        self,
        fields: dict[str, Any],
        attention: str,
        prompt: int,
        answer: int,
        batch: int = 1,
        assistant: dict[str, Any] | None = None,
        **asked: Any,
    ) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        from torch.multiprocessing.reductions import StorageWeakRef
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        def built(config: dict[str, Any]) -> Any:
            kind = transformers.CONFIG_MAPPING[config["model_type"]]
            made = kind(**{key: value for key, value in config.items() if key != "model_type"})
            return transformers.AutoModelForCausalLM.from_config(
                made, attn_implementation=attention, dtype=torch.bfloat16
            ).eval()

        models = [built(config) for config in (fields, assistant) if config]
        own = {
            tensor.untyped_storage()._cdata
            for model in models
            for tensor in (*model.parameters(), *model.buffers())
        }
        self.peak = 0
        self.memory = CachingAllocator()
        alive: dict[int, tuple[Any, int, Any]] = {}

        def forget() -> None:
            for key in [key for key, entry in alive.items() if entry[0].expired()]:
                self.memory.free(alive.pop(key)[2])

        def watch(result: Any) -> None:
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage._cdata not in own and storage._cdata not in alive and storage.nbytes():
                        block = self.memory.malloc(storage.nbytes())
                        alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes(), block

        class Watch(TorchDispatchMode):  # type: ignore[misc]
            def __torch_dispatch__(
                mode, function: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                forget()
                result = function(*args, **(kwargs or {}))
                forget()
                watch(result)
                self.peak = max(self.peak, sum(size for _, size, _ in alive.values()))
                return result

        tokens = torch.randint(2, fields["vocab_size"], (batch, prompt))
        if assistant:
            models[1].generation_config.num_assistant_tokens = 8
            models[1].generation_config.num_assistant_tokens_schedule = "constant"
            models[1].generation_config.assistant_confidence_threshold = 0.0
            asked = {"assistant_model": models[1]}
        with Watch(), torch.no_grad():
            if answer:
                models[0].generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=answer,
                    min_new_tokens=answer,
                    do_sample=False,
                    **asked,
                )
            else:
                models[0](tokens)
