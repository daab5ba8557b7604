"""Traces of `generate`: what is left out changes no peak, caches by hand, and the closed forms beside them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from willfit.allocator.replay import replay
from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.transformers import Settings, estimate
from willfit.errors import BadInput
from willfit.formats.recognise import recipe_for
from willfit.formats.weights import weight_lines
from willfit.hardware.table import find_device
from willfit.tracing.child import traced
from willfit.tracing.question import Generate, Question
from willfit.tracing.trace import Trace

BATCH, PROMPT, NEW, WINDOW = 2, 40, 12, 44
#: Of a call whose peak is in decoding.
GROWN = 120
WIDE = {
    "hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 331, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 72, "norm_topk_prob": True}
GEMMA = {**WIDE, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **WIDE},
    "qwen2": {"model_type": "qwen2", **WIDE, "head_dim": 24},
    "mistral": {"model_type": "mistral", **WIDE, "sliding_window": WINDOW},
    "gemma2": {"model_type": "gemma2", **GEMMA},
    "gemma3": {
        "model_type": "gemma3_text", **GEMMA,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "gpt2": {
        "model_type": "gpt2", "n_embd": 96, "n_layer": 3, "n_head": 4, "n_positions": 512, "vocab_size": 331,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "mixtral": {"model_type": "mixtral", **WIDE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"model_type": "qwen3_moe", **WIDE, **EXPERTS},
    "deepseek_v3": {
        "model_type": "deepseek_v3", **WIDE, "num_key_value_heads": 4, "head_dim": 8, "moe_intermediate_size": 72,
        "n_routed_experts": 8,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
        "kv_lora_rank": 40, "q_lora_rank": 56, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 24,
    },
    "mamba2": {
        "model_type": "mamba2", "hidden_size": 96, "num_hidden_layers": 3, "num_heads": 6, "head_dim": 32,
        "state_size": 24, "expand": 2, "n_groups": 1, "conv_kernel": 4, "chunk_size": 16, "vocab_size": 331,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    },
    "qwen3_next": {
        "model_type": "qwen3_next", **WIDE, **EXPERTS, "num_hidden_layers": 4,
        "shared_expert_intermediate_size": 80,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 24,
        "linear_conv_kernel_dim": 4,
    },
    "falcon": {
        "model_type": "falcon", "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 8,
        "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False,
        "new_decoder_architecture": False,
        "vocab_size": 331, "bos_token_id": 1, "eos_token_id": 2,
    },
    "gpt_oss": {
        "model_type": "gpt_oss", **WIDE, "intermediate_size": 64, "num_hidden_layers": 4, "num_local_experts": 4,
        "num_experts_per_tok": 2, "sliding_window": WINDOW,
    },
    "t5": {
        "model_type": "t5", "d_model": 96, "d_ff": 200, "d_kv": 16, "num_layers": 3, "num_heads": 4, "vocab_size": 331,
    },
}  # fmt: skip
#: A cache that stays as it is, and sampling, which sorts the logits.
OTHERS = {
    "llama static": ("llama", {"cache_implementation": "static"}),
    "mistral static": ("mistral", {"cache_implementation": "static"}),
    "llama sampled": ("llama", {"do_sample": True, "top_k": 20, "top_p": 0.9, "temperature": 0.7}),
}


def asked(name: str, **fields: Any) -> Generate:
    model, generation = OTHERS.get(name, (name, {}))
    numbers = {"batch": BATCH, "prompt_len": PROMPT, "new_tokens": NEW, **fields}
    return Generate(MODELS[model], generation=generation, **numbers)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    """Each model twice: as it is asked, and with every step."""
    folder = tmp_path_factory.mktemp("traces")
    names = [*MODELS, *OTHERS]
    questions = [
        (f"{name}{' all' if full else ''}", asked(name), full) for name in names for full in (False, True)
    ]
    # What decoding takes beside a prompt of two tokens is the peak.
    questions += [("grown", asked("llama", new_tokens=GROWN, prompt_len=2, batch=64), False)]
    questions += [("grown all", asked("llama", new_tokens=GROWN, prompt_len=2, batch=64), True)]
    program = Path(__file__).with_name("many_generations.py")
    subprocess.run(
        [sys.executable, str(program), str(folder)], input=pickle.dumps(questions), check=True, timeout=600
    )
    return {name: Trace.from_bytes(Path(folder, name).read_bytes()) for name, _, _ in questions}


def kept(trace: Trace, event: int, category: str = "kv_cache") -> int:
    storages = (trace.storages[index] for index in trace.alive_at(event))
    return sum(storage.nbytes for storage in storages if storage.category == category)


def after(trace: Trace, mark: str, step: int) -> int:
    """The last event before a mark."""
    (found,) = (found for found in trace.marks if found.name == mark and found.step == step)
    return found.event - 1


def by_phase(trace: Trace) -> dict[tuple[str, int], int]:
    """The most that is alive in each step."""
    ends = [phase.event for phase in trace.phases[1:]] + [len(trace.events)]
    return {
        (phase.phase, phase.step): max(trace.totals[phase.event : end])
        for phase, end in zip(trace.phases, ends, strict=True)
        if phase.event < end
    }


@pytest.mark.parametrize("name", [*MODELS, *OTHERS, "grown"])
def test_steps_that_are_left_out_change_no_peak(traces: dict[str, Trace], name: str) -> None:
    some, every = traces[name], traces[f"{name} all"]
    assert len(every.events) > len(some.events)
    assert max(some.totals) == max(every.totals)
    peaks, all_peaks = by_phase(some), by_phase(every)
    steps = GROWN if name == "grown" else NEW
    for step in (("prefill", 1), ("decode", 2), ("decode", 3), ("decode", steps - 1), ("decode", steps)):
        assert step not in peaks or peaks[step] == all_peaks[step], step
    assert ("decode", steps) in peaks
    # In between, no step needs more than the steps that are run.
    assert max(all_peaks.values()) == max(peaks.values())
    assert some.notes[0].startswith(f"of {steps - 1} steps")
    assert some.notes[1:] == every.notes
    own_code = [note for note in every.notes if "flash-linear-attention" in note]
    assert bool(own_code) == (name in ("mamba2", "qwen3_next"))


def reserved(trace: Trace) -> int:
    return replay(trace.sizes, trace.events).peak_reserved


def test_an_allocator_keeps_of_a_growing_cache_what_it_keeps_of_every_step(traces: dict[str, Trace]) -> None:
    some, every = (traces[name] for name in ("grown", "grown all"))
    assert by_phase(every)["decode", GROWN] == max(every.totals)  # decoding is the peak
    assert reserved(some) == pytest.approx(reserved(every), rel=0.02)


def test_keys_and_values_by_hand(traces: dict[str, Trace]) -> None:
    per_token = BATCH * 2 * 2 * 16 * 2  # keys and values of 2 heads of 16 in bf16
    full = 3 * per_token
    for name, prefill, last in (
        ("llama", full * PROMPT, full * (PROMPT + NEW - 1)),
        ("qwen2", full * PROMPT * 24 // 16, full * (PROMPT + NEW - 1) * 24 // 16),
        # A full window is kept with the token that was last put to it.
        ("mistral", full * PROMPT, full * WINDOW),
        ("gemma3", full * PROMPT, per_token * (2 * WINDOW + PROMPT + NEW - 1)),
        ("llama static", full * (PROMPT + NEW - 1), full * (PROMPT + NEW - 1)),
        ("mistral static", full * WINDOW, full * WINDOW),
        # The latent of 40 and the rotated key of 8, for all heads.
        ("deepseek_v3", 3 * BATCH * 48 * 2 * PROMPT, 3 * BATCH * 48 * 2 * (PROMPT + NEW - 1)),
        # For each sequence 3 layers' inputs of a convolution (192 + 2 x 24 channels, 4 steps; bf16) and states
        # (6 heads x 32 x 24), which the plain code computes in float32.
        ("mamba2", 3 * BATCH * ((192 + 48) * 4 * 2 + 6 * 32 * 24 * 4), None),
    ):
        trace = traces[name]
        assert kept(trace, after(trace, "end", 1)) == prefill, name
        found = kept(trace, after(trace, "end", NEW))
        assert found == (prefill if last is None else last), name


def test_one_sequence_in_flash_attention_is_not_taken_for_several_packed_ones() -> None:
    trace = traced(Question(asked("llama", batch=1, attention="flash_attention_2")))
    assert trace.kernels == {"flash_attn": 3 * 5}  # 3 layers, the prefill, and the steps that are run


def test_logits_of_the_last_position_alone(traces: dict[str, Trace]) -> None:
    for name, width in (("llama", 2), ("qwen3_moe", 2), ("mamba2", 4)):  # mamba2's are float32 at once
        trace = traces[name]
        assert kept(trace, after(trace, "output", 1), "logits") == BATCH * 331 * width
        logits = {
            (storage.op, storage.dtype)
            for storage in trace.storages
            if storage.category == "logits" and storage.place.step == 1
        }
        assert ("_to_copy", "float32") in logits  # what `generate` chooses from
    sampled = traces["llama sampled"]
    assert "sort" in {storage.op for storage in sampled.storages}


def test_decoding_copies_the_chosen_experts(traces: dict[str, Trace]) -> None:
    """`batched_mm`: gate and up, and down, of 2 experts for each of 2 tokens, beside no loop over experts."""
    taken = [
        storage.nbytes
        for storage in traces["mixtral"].storages
        if storage.op == "index"
        and storage.place.step == NEW
        and storage.place.module.endswith("2.mlp.experts")
    ]
    assert {BATCH * 2 * 2 * 200 * 96 * 2, BATCH * 2 * 200 * 96 * 2} <= set(taken)


@pytest.mark.parametrize(
    "name", ["llama", "qwen2", "mistral", "gemma2", "gemma3", "gpt2", "mixtral", "falcon", "gpt_oss", "t5"]
)
def test_the_closed_form_is_close(name: str) -> None:
    """The largest moment of a call by `engines/transformers`, above the weights."""
    fields = {**MODELS[name], "dtype": "bfloat16"}
    trace = traced(Question(asked(name, prompt_len=200)))
    config = Config(fields)
    architecture = build(config)
    recipe = recipe_for(config, architecture.dtype)
    model = Subject(name, architecture, recipe, weight_lines(architecture, recipe))
    settings = Settings(batch=BATCH, input_len=200, output_len=NEW, loading=False)
    (device,) = estimate(model, Machine((find_device("A100 SXM4 80GB"),)), settings).devices
    closed = sum(term.bytes for term in device.terms if term.name in ("kv_cache", "activations", "logits"))
    beside = sum(kept(trace, trace.peak_event, word) for word in ("parameter", "buffer", "workspace"))
    assert max(trace.totals) - beside == pytest.approx(closed, rel=0.005)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quantization": "mxfp4"}, "mxfp4"),
        ({"ranks": 2}, "ranks"),
        ({"new_tokens": 0}, "at least 1"),
    ],
)
def test_what_is_not_traced_is_said(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        traced(Question(asked("llama", **fields)))


def test_a_model_that_generates_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="does not generate"):
        traced(Question(Generate({"model_type": "deberta", "hidden_size": 48, "num_hidden_layers": 1})))
