"""Bytes and operations, counted by hand and by torch's own counter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed_models import DENSE, EXPERTS, LATENT, WINDOW, small

from willfit.speed.attention import Reach
from willfit.speed.counting import kind_of, work_of

_ATTENTION = 64 * 64 + 2 * 64 * 16 + 64 * 64  # queries, keys and values of two heads, output
_MLP = 3 * 64 * 160
_NORMS = 2 * 64


def test_a_dense_step_reads_every_layer_and_the_head_once_and_of_the_table_a_row():
    work = work_of(small(DENSE))
    layers = 3 * (_ATTENTION + _MLP + _NORMS)
    assert work.read_bytes(1) == 2 * (layers + 64 + 500 * 64 + 64)
    assert work.read_bytes(5) == work.read_bytes(1) + 4 * 2 * 64
    assert work.decode_products_flops(5) == 5 * 2 * (3 * (_ATTENTION + _MLP) + 500 * 64)


def test_a_tied_head_is_the_table():
    untied, tied = work_of(small(DENSE)), work_of(small(DENSE | {"tie_word_embeddings": True}))
    assert tied.decode_products_flops(1) == untied.decode_products_flops(1)
    assert tied.read_bytes(1) == untied.read_bytes(1)


def test_the_head_of_a_prompt_runs_on_its_last_position():
    work = work_of(small(DENSE))
    assert work.prefill_products_flops(10) == 2 * (10 * 3 * (_ATTENTION + _MLP) + 500 * 64)
    assert work.prefill_products_flops(20, sequences=2) == 2 * work.prefill_products_flops(10)


def test_grouped_queries_read_the_keys_of_their_heads_alone():
    work = work_of(small(DENSE))
    assert work.cache_read_bytes(100) == 3 * 100 * 2 * (8 + 8) * 2
    assert work.cache_read_bytes(100, copies=2, repeats=1) == work.cache_read_bytes(100) * (1 + 2 + 4)
    assert work.decode_attention_flops(100) == 3 * 2 * 8 * (8 + 8) * 100
    assert work.prefill_attention_flops(100) == 3 * 2 * 8 * (8 + 8) * (100 * 101 // 2)


def test_a_window_reads_and_multiplies_no_more_than_itself():
    work = work_of(small(WINDOW))
    assert work.cache_read_bytes(100) == work_of(small(DENSE)).cache_read_bytes(16)
    assert work.decode_attention_flops(100) == 3 * 2 * 8 * 16 * 16
    assert work.prefill_attention_flops(100) == 3 * 2 * 8 * 16 * (16 * 17 // 2 + 84 * 16)


def test_a_token_visits_its_experts_and_many_tokens_nearly_all():
    work = work_of(small(EXPERTS))
    (experts,) = work.experts
    assert experts.bytes == 3 * 8 * 3 * 64 * 24 * 2
    assert (experts.layers, experts.read(1)) == (3, pytest.approx(experts.bytes * 2 / 8))
    assert experts.read(2) == pytest.approx(experts.bytes * (1 - (6 / 8) ** 2))
    assert experts.read(1000) == pytest.approx(experts.bytes)
    dense = 3 * (_ATTENTION + 8 * 64) + 500 * 64
    assert work.decode_products_flops(1) == 2 * (dense + 3 * 2 * 3 * 64 * 24)


def test_latents_are_read_as_they_are_cached_and_decoded_in_their_own_width():
    work = work_of(small(LATENT))
    assert work.cache_read_bytes(100) == 2 * 100 * (16 + 4) * 2
    assert work.decode_attention_flops(100) == 2 * 2 * 4 * ((16 + 4) + 16) * 100
    assert work.prefill_attention_flops(100) == 2 * 2 * 4 * (8 + 4 + 8) * (100 * 101 // 2)


def test_ranks_divide_heads_and_channels_but_not_a_shared_latent():
    whole, half = work_of(small(DENSE)), work_of(small(DENSE), tensor=2)
    assert half.decode_products_flops(1) * 2 == whole.decode_products_flops(1)
    assert half.cache_read_bytes(64) * 2 == whole.cache_read_bytes(64)
    assert work_of(small(DENSE), tensor=4).cache_read_bytes(64) == half.cache_read_bytes(64)
    assert work_of(small(LATENT), tensor=2).cache_read_bytes(64) == work_of(small(LATENT)).cache_read_bytes(
        64
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (None, "plain"),
        ("fp8", "fp8"),
        ("gptq-int8", "int8"),
        ("awq", "awq"),
        ("gptq-int4", "int4"),
        ("nf4", "int4"),
    ],
)
def test_formats_are_told_apart_by_how_kernels_read_them(name, kind):
    subject = small(DENSE | {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 64}, name)
    line = next(line for line in subject.lines if "gate_proj" in line.tensor.name)
    assert kind_of(line.format, line.bytes, line.tensor.elements * line.times) == kind


@given(st.integers(1, 300), st.integers(0, 40), st.integers(0, 40))
def test_pairs_are_what_a_mask_has(tokens, window, chunk):
    reach = Reach(window, 0 if window else chunk)
    rows, columns = np.arange(tokens)[:, None], np.arange(tokens)[None]
    mask = columns <= rows
    if window:
        mask &= rows - columns < window
    elif chunk:
        mask &= rows // chunk == columns // chunk
    assert reach.pairs(tokens) == mask.sum()
    assert list(reach.pairs(np.array([tokens, 2 * tokens]))) == [reach.pairs(tokens), reach.pairs(2 * tokens)]


@pytest.mark.parametrize("config", [DENSE, EXPERTS, LATENT], ids=["dense", "experts", "latent"])
def test_operations_are_those_that_torch_counts(config):
    """The counter does not know that a mask leaves half of the pairs out, nor of experts that no token visits."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    settings = transformers.AutoConfig.for_model(**config)
    settings._attn_implementation = settings._experts_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.float32).eval()
    work, tokens = work_of(small(config)), 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        kept = model(torch.zeros(1, tokens, dtype=torch.long), logits_to_keep=1).past_key_values
    squares = work.prefill_attention_flops(tokens) * 2 * tokens // (tokens + 1)
    assert counter.get_total_flops() == pytest.approx(work.prefill_products_flops(tokens) + squares, rel=0.01)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.long), past_key_values=kept)
    if config is LATENT:
        return  # transformers makes keys and values of the latents first
    expected = work.decode_products_flops(1) + work.decode_attention_flops(tokens + 1)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
