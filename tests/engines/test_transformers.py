"""transformers generate(): worked examples, eras, properties, and transformers itself as an oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.architectures.build import build
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.transformers import Settings, estimate
from willfit.engines.transformers.activations import Pass, stages
from willfit.engines.transformers.cache import kept
from willfit.engines.transformers.eras import era_for
from willfit.errors import BadInput
from willfit.estimate import DeviceEstimate
from willfit.formats.recipe import plain_recipe
from willfit.formats.recognise import recipe_for
from willfit.formats.weights import weight_lines
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
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
    in_ram = {term.name: term.bytes for term in found.host.terms}["offloaded_weights"]
    assert on_card["weights"] + in_ram == pytest.approx(8_190_735_360 * 2, abs=2)
    assert on_card["staging"] == pytest.approx(385_900_000, rel=0.02)  # one layer
    assert found.verdict == "fits"
    assert estimate(QWEN3, Machine((card,)), Settings()).verdict == "does_not_fit"


def test_a_model_without_device_map_is_built_in_ram() -> None:
    found = estimate(QWEN3, Machine((A100,)), Settings(device_map=None))
    assert found.host.peak_bytes == 8_190_735_360 * 2


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
    assert detail["reserved"][0] >= detail["allocated"][0]
    for value, low, high in (detail["allocated"], detail["reserved"], detail["process"]):
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
    ("field", "value"), [("batch", 0), ("input_len", 0), ("output_len", -1), ("prefill_chunk_size", 0)]
)
def test_impossible_settings(field: str, value: int) -> None:
    with pytest.raises(BadInput, match=field):
        Settings(**{field: value})  # type: ignore[arg-type]


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


TINY: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 384, "mlp_only_layers": [],
    "decoder_sparse_step": 1, "norm_topk_prob": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "fields", "attention", "prompt", "answer", "chunk", "moment"),
    [
        ("llama", {}, "sdpa", 512, 3, None, "prefill, mlp"),
        ("llama", {"vocab_size": 64}, "sdpa", 8, 300, None, "decoding, last step"),
        ("llama", {}, "eager", 256, 2, None, "prefill, attention"),
        ("llama", {"vocab_size": 20_000}, "sdpa", 256, 0, None, "prefill, logits"),
        ("qwen3", {"intermediate_size": 96}, "sdpa", 512, 2, None, "prefill, attention"),
        ("qwen3", {}, "sdpa", 512, 2, 128, "prefill, attention"),
        ("mistral", {"sliding_window": 128}, "sdpa", 512, 2, None, "prefill, mlp"),
        ("phi3", {"pad_token_id": 0, "eos_token_id": 1}, "sdpa", 256, 2, None, "prefill, mlp"),
        ("qwen3_moe", EXPERTS, "sdpa", 256, 2, None, "prefill, experts"),
    ],
)
def test_transformers_holds_what_the_rules_say(
    model_type: str,
    fields: dict[str, Any],
    attention: Any,
    prompt: int,
    answer: int,
    chunk: int | None,
    moment: str,
) -> None:
    config = {**TINY, **fields, "model_type": model_type}
    seen = _live_peak(config, attention, prompt, answer, chunk)
    architecture = build(Config({**config, "torch_dtype": "bfloat16"}))
    recipe = plain_recipe("bf16")
    model = Subject("tiny", architecture, recipe, weight_lines(architecture, recipe))
    found = estimate(
        model,
        Machine((Device("any"),)),
        Settings(
            input_len=prompt,
            output_len=max(answer, 1),
            attn_impl=attention,
            phase="generate" if answer else "prefill",
            prefill_chunk_size=chunk,
        ),
    )
    passing = sum(
        term.bytes for term in found.devices[0].terms if term.name in ("kv_cache", "activations", "logits")
    )
    assert found.details["devices"][0]["moment"] == moment
    assert passing == pytest.approx(seen, rel=0.02)


def _live_peak(fields: dict[str, Any], attention: str, prompt: int, answer: int, chunk: int | None) -> int:
    """Most bytes of storages alive at once, weights aside, while the real model runs on the CPU."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    kind = transformers.CONFIG_MAPPING[fields["model_type"]]
    config = kind(**{key: value for key, value in fields.items() if key != "model_type"})
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, dtype=torch.bfloat16
    ).eval()
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    alive: dict[int, tuple[Any, int]] = {}
    peak = 0

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal alive, peak
            result = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage._cdata not in own:
                        alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            alive = {key: entry for key, entry in alive.items() if not entry[0].expired()}
            peak = max(peak, sum(size for _, size in alive.values()))
            return result

    tokens = torch.randint(2, fields["vocab_size"], (1, prompt))
    with Watch(), torch.no_grad():
        if answer:
            model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=answer,
                min_new_tokens=answer,
                do_sample=False,
                **({"prefill_chunk_size": chunk} if chunk else {}),
            )
        else:
            model(tokens)
    return peak
