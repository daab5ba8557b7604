"""The engine-neutral minimum: sums by hand, devices filled alike, capacities by trying every length."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.minimum import answer
from willfit.engines.subject import subject_from_config
from willfit.estimate import DeviceEstimate, Estimate
from willfit.hardware.device import CPU, Device
from willfit.quantities import MIB

LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "head_dim": 32,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
SLIDING = {
    **LLAMA, "model_type": "gemma2", "sliding_window": 100, "query_pre_attn_scalar": 32,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
MAMBA = {
    "model_type": "mamba", "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 2, "state_size": 16,
    "intermediate_size": 256, "time_step_rank": 8, "conv_kernel": 4, "torch_dtype": "bfloat16",
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": 512, "d_model": 128, "num_layers": 2, "num_heads": 4, "d_kv": 32,
    "d_ff": 256, "torch_dtype": "bfloat16",
}  # fmt: skip
WHISPER = {
    "model_type": "whisper", "vocab_size": 512, "d_model": 128, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256,
    "max_source_positions": 1500, "max_target_positions": 448, "num_mel_bins": 80, "torch_dtype": "bfloat16",
}  # fmt: skip
BERT = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 512, "hidden_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 1024,
    "torch_dtype": "bfloat16",
}  # fmt: skip
VISION = {
    **LLAMA, "model_type": "qwen2_vl", "vision_config": {
        "depth": 2, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 4, "patch_size": 14, "temporal_patch_size": 2,
        "in_channels": 3, "hidden_size": 128, "spatial_merge_size": 2,
    },
}  # fmt: skip


def subject(config: dict[str, Any], format_name: str | None = None) -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def on_ram(config: dict[str, Any], ram: int | None, **question: Any) -> Estimate:
    """The answer on a processor, which has no driver's context: the sums are those of the model alone."""
    return answer(subject(config), Machine((CPU,), ram), Question(**question))


def sizes(place: DeviceEstimate) -> dict[str, int]:
    return {term.name: term.bytes for term in place.terms}


def test_terms_by_hand() -> None:
    """2 sequences of 1000 tokens on a processor."""
    estimate = on_ram(LLAMA, None, context=1000, users=2)
    layer = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128 + 2 * 128
    assert sizes(estimate.devices[0]) == {
        "weights": 2 * (3 * layer + 2 * 512 * 128 + 128),
        "kv_cache": 2 * 1000 * 3 * 2 * (32 + 32) * 2,
        # 512 tokens of a prompt; the MLP's gate, up and product of 256, and three times the residual stream
        "activations": 512 * (3 * 256 + 3 * 128) * 2,
        "logits": 2 * 512 * 4,
    }
    assert estimate.verdict == "unknown"


def test_quantized_cache_and_fewer_tokens() -> None:
    estimate = on_ram(LLAMA, None, context=100, kv_dtype="fp8")
    found = sizes(estimate.devices[0])
    assert found["kv_cache"] == 100 * 3 * 2 * (32 + 32)
    assert found["activations"] == 100 * (3 * 256 + 3 * 128) * 2


def test_windows_end_the_cache() -> None:
    """Two of three layers keep their last 100 tokens."""
    found = sizes(on_ram(SLIDING, None, context=1000).devices[0])
    assert found["kv_cache"] == (1000 + 2 * 100) * 2 * (32 + 32) * 2


def test_states_do_not_grow() -> None:
    """3 remembered inputs of 256 channels in bf16 and 16 numbers of each in fp32, in both layers."""
    state = 2 * (3 * 256 * 2 + 256 * 16 * 4)
    for context in (10, 10_000):
        found = sizes(on_ram(MAMBA, None, context=context, users=3).devices[0])
        assert found["recurrent_state"] == 3 * state
        assert "kv_cache" not in found


def test_source_of_an_encoder_decoder() -> None:
    """T5's decoder attends to its own 300 tokens and to as many of the source, Whisper's to 1500 positions."""
    assert sizes(on_ram(T5, None, context=300).devices[0])["kv_cache"] == 2 * (300 + 300) * 4 * (32 + 32) * 2
    found = sizes(on_ram(WHISPER, None, context=300).devices[0])
    assert found["kv_cache"] == 2 * (300 + 1500) * 4 * (32 + 32) * 2
    # the encoder is widest: 1500 positions x (up and product of 256, and three times the stream), or q, k, v and output
    assert found["activations"] == 1500 * max(2 * 256 + 3 * 128, 4 * 128 + 3 * 128) * 2


def test_encoders_keep_nothing_and_see_all_at_once() -> None:
    estimate = on_ram(BERT, 10 * MIB, context=1000)
    found = sizes(estimate.devices[0])
    assert found.keys() == {"weights", "activations"}
    assert found["activations"] == 1000 * max(2 * 256 + 3 * 128, 4 * 128 + 3 * 128) * 2
    assert estimate.capacity is None


def test_processors_are_judged_by_ram_and_cards_by_their_memory() -> None:
    need = on_ram(LLAMA, None, context=1000).devices[0].interval_bytes[1]
    assert on_ram(LLAMA, need, context=1000).verdict == "fits"
    assert on_ram(LLAMA, need // 2, context=1000).verdict == "does_not_fit"
    card = Device("card", vendor="NVIDIA", usable_bytes=2 * need)
    estimate = answer(subject(LLAMA), Machine((card,), None), Question(context=1000))
    assert sizes(estimate.devices[0])["context"] > 0
    assert estimate.verdict == "does_not_fit"
    other = Device("card", vendor="Apple", usable_bytes=2 * need)
    estimate = answer(subject(LLAMA), Machine((other,), None), Question(context=1000))
    context = estimate.devices[0].terms[-1]
    assert (context.name, context.low_bytes, context.bytes) == ("context", 0, 0)
    assert context.high_bytes > 0


@given(st.lists(st.integers(1, 64), min_size=1, max_size=4), st.integers(1, 4000), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_devices_are_filled_alike(memory: list[int], context: int, users: int) -> None:
    """Nothing is lost between unequal devices, and they fit one by one if they do together."""
    devices = tuple(
        Device(f"card {i}", "NVIDIA", usable_bytes=size * 64 * MIB) for i, size in enumerate(memory)
    )
    estimate = answer(subject(LLAMA), Machine(devices), Question(context, users))
    alone = sizes(on_ram(LLAMA, None, context=context, users=users).devices[0])
    for name in ("weights", "kv_cache", "logits"):
        assert sum(sizes(place).get(name, 0) for place in estimate.devices) == alone[name]
    fixed = [
        sum(size for name, size in sizes(p).items() if name not in ("weights", "kv_cache"))
        for p in estimate.devices
    ]
    rooms = [(p.usable_bytes or 0) - size for p, size in zip(estimate.devices, fixed, strict=True)]
    if min(rooms) > 0:
        together = alone["weights"] + alone["kv_cache"] <= sum(rooms)
        each = all(p.peak_bytes <= (p.usable_bytes or 0) + 2 for p in estimate.devices)
        assert together == each


MODELS = {"dense": LLAMA, "sliding": SLIDING, "states": MAMBA, "translation": T5, "speech": WHISPER}


@pytest.mark.parametrize("name", MODELS)
@given(extra=st.integers(0, 6 * MIB), context=st.integers(1, 2000), users=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_capacity_is_what_fits(name: str, extra: int, context: int, users: int) -> None:
    """The longest sequence and the number of sequences fit, and one more does not."""
    config = MODELS[name]
    ram = subject(config).weight_bytes + extra

    def peak(tokens: int, sequences: int) -> int:
        return on_ram(config, None, context=tokens, users=sequences).devices[0].peak_bytes

    capacity = on_ram(config, ram, context=context, users=users).capacity
    assert capacity is not None
    limit = subject(config).architecture.max_positions or 2**20
    if capacity.max_context:
        assert peak(capacity.max_context, 1) <= ram
    if capacity.max_context < limit:
        assert peak(capacity.max_context + 1, 1) > ram
    whole = int(capacity.max_concurrency)
    if whole:
        assert peak(context, whole) <= ram
    assert peak(context, whole + 1) > ram
    assert capacity.kv_cache_tokens == max(int(capacity.max_concurrency * context), capacity.max_context)


def test_longest_context_is_found_by_trying_all() -> None:
    ram = on_ram(SLIDING, None, context=700).devices[0].peak_bytes
    fitting = [
        tokens for tokens in range(1, 1500)
        if on_ram(SLIDING, None, context=tokens).devices[0].peak_bytes <= ram
    ]  # fmt: skip
    capacity = on_ram(SLIDING, ram, context=50).capacity
    assert capacity is not None
    assert capacity.max_context == max(fitting) == len(fitting) == 700


@pytest.mark.parametrize("name", [*MODELS, "encoder"])
def test_formulas_hold_the_numbers(name: str) -> None:
    """The product of a formula's numbers is the term."""
    config = MODELS.get(name, BERT)
    for term in on_ram(config, None, context=600, users=3).devices[0].terms:
        numbers = [
            int(number) for number in re.findall(r"(\d+)(?= (?:B|x|tokens x|elements|rows))", term.formula)
        ]
        product = 1
        for number in numbers:
            product *= number
        assert product == term.bytes, term


def test_share_of_a_device_is_in_the_formula() -> None:
    cards = tuple(Device("card", "NVIDIA", usable_bytes=size * 2**30) for size in (24, 8))
    estimate = answer(subject(LLAMA), Machine(cards), Question(1000))
    for place in estimate.devices:
        for term in place.terms[:2]:
            own, whole = re.findall(r"x (\d+)/(\d+) \(share", term.formula)[0]
            total = 1
            for number in re.findall(r"(\d+)(?= (?:B|x \d+ B))", term.formula):
                total *= int(number)
            assert abs(term.bytes - total * int(own) / int(whole)) <= 1


def test_what_is_not_counted_is_said() -> None:
    assert any("vision encoder" in note for note in on_ram(VISION, None, context=10).notes)
    assert not any("encoder" in note for note in on_ram(LLAMA, None, context=10).notes)
    (note,) = (note for note in on_ram(LLAMA, None, context=5000).notes if "asked for" in note)
    assert note == "5000 tokens are asked for, the model was made for 4096"


def test_remedies() -> None:
    need = on_ram(LLAMA, None, context=4000, users=8).devices[0].peak_bytes
    short = on_ram(LLAMA, need - MIB, context=4000, users=8)
    assert short.remedies[0].startswith("quantized weights")
    assert short.remedies[1:] == (
        "a shorter context or fewer users",
        "1.0 MiB more memory, or another device beside it",
    )
    assert on_ram(LLAMA, 2 * need, context=4000, users=8).remedies == ()
