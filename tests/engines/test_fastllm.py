"""fastLLM: matrices by hand, layers and experts where they go, both kinds of caches, refusals and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines import fastllm
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.fastllm.plan import Plan
from willfit.engines.fastllm.weights import matrix_bytes
from willfit.engines.subject import subject_from_config
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.device import CPU, Device
from willfit.quantities import GIB, MIB

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1024, "hidden_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024,
    "head_dim": 64, "max_position_embeddings": 16384, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
QWEN = {**LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
MOE = {
    **LLAMA, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 256,
}  # fmt: skip

#: Matrices of a layer: q and o 512 x 512, k and v 128 x 512, three of 1024 x 512; two norms of 512.
LINEARS = 2 * 512 * 512 + 2 * 128 * 512 + 3 * 1024 * 512
EXPERTS = 8 * 3 * 256 * 512


def card(size: int = 8 * GIB) -> Device:
    return Device("card", vendor="NVIDIA", usable_bytes=size, compute_capability="8.9")


def subject(config: dict[str, Any] = LLAMA, format_name: str | None = None) -> Subject:
    return subject_from_config("m", Config(config, "m"), format_name)


def bundled(name: str) -> Subject:
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config, name))


def ask(what: Subject, *cards: Device, users: int = 1, ram: int = 64 * GIB, **fields: Any) -> Estimate:
    given = fastllm.Settings(**{"context": 4096, **fields})
    return fastllm.estimate(what, Machine(cards or (card(),), ram), given, users)


def terms(found: Estimate, at: int = 0) -> dict[str, int]:
    assert not found.refusal, found.refusal
    return {term.name: term.bytes for term in found.devices[at].terms}


def host(found: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in found.host.terms}


# Weights


@pytest.mark.parametrize(
    ("dtype", "on_card", "size"),
    [
        ("auto", True, 256 * 512 * 2),
        ("float32", True, 256 * 512 * 4),
        ("fp8", True, 256 * 512 + 4 * 2 * 4),
        ("int8", True, 256 * 512 + 256 * 5),
        ("int8", False, 256 * 512 + 256 * 8),
        ("int4", True, 256 * 256 + 256 * 8),
        ("int4g", True, 256 * 256 + 256 * 4 * 2 + 256 * 4 // 2),
        ("int4g32", True, 256 * 256 + 256 * 16 * 2 + 256 * 16 // 2),
        ("int4g128", False, 256 * 256 + 256 * 4 * 8),
        ("ggml_q4_k", True, 256 * 512 // 256 * 144),
    ],
)
def test_matrices(dtype, on_card, size):
    assert matrix_bytes(dtype, (256, 512), on_card) == size


def test_layers_on_a_card():
    found = ask(subject())
    norms = 4 * 2 * 512 * 4 + 512 * 4
    assert terms(found)["weights"] == (4 * LINEARS + 1024 * 512) * 2 + norms
    assert host(found) == {"embedding": 1024 * 512 * 2}
    assert terms(ask(subject(), cuda_embedding=True))["weights"] == terms(found)["weights"] + 1024 * 512 * 2
    eight = ask(subject(), dtype="int8")
    rows = 2 * 512 + 2 * 128 + 2 * 1024 + 512
    assert terms(eight)["weights"] == 4 * (LINEARS + 5 * rows) + 1024 * 512 + 5 * 1024 + norms


def test_checkpoints_in_fp8_stay_so():
    found = ask(
        subject({**LLAMA, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    )
    blocks = 2 * 4 * 4 + 2 * 1 * 4 + 3 * 8 * 4
    assert terms(found)["weights"] == 4 * (LINEARS + 4 * blocks) + 1024 * 512 * 2 + 4 * 2 * 512 * 4 + 512 * 4


# Caches that grow


def test_a_cache_grows_by_128_tokens():
    found = ask(subject(), context=1000, users=3)
    assert terms(found)["kv_cache"] == 3 * 1024 * 4 * 2 * 128 * 2
    eight = ask(subject(), context=1000, users=3, kv_cache_dtype="fp8_e4m3")
    assert terms(eight)["kv_cache"] == terms(found)["kv_cache"] // 2
    limited = ask(subject(), context=1000, users=3, kv_cache_limit=2 * MIB)
    (demand,) = limited.demands
    assert (demand.needed_bytes, demand.pool_bytes) == (terms(found)["kv_cache"], 2 * MIB)
    assert demand.verdict == "does_not_fit"


def test_the_longest_sequence_fits_and_a_longer_one_does_not():
    what, small = subject({**LLAMA, "max_position_embeddings": 2**20}), card(2 * GIB)
    tokens = ask(what, small, chunked_prefill_size=256).capacity.max_context
    assert ask(what, small, context=tokens, chunked_prefill_size=256).devices[0].peak_bytes <= 2 * GIB
    assert ask(what, small, context=tokens + 128, chunked_prefill_size=256).devices[0].peak_bytes > 2 * GIB


# Caches in pages


def test_pages_take_what_is_left():
    found = ask(subject(QWEN), max_batch=4)
    taken = sum(terms(found)[name] for name in ("weights", "activations", "runtime", "context"))
    aside = 128 * MIB + 2 * 4 * 1024 * 6
    left = int(0.9 * 8 * GIB) - taken - aside
    each, layer = 4 * 2 * 128 * 2, 2 * 128 * 2
    pages = left // (128 * (each + layer))
    assert terms(found)["kv_cache"] == pages * 128 * each
    assert terms(found)["logits"] == 4 * 1024 * 6
    assert found.capacity.kv_cache_tokens == pages * 128
    (demand,) = found.demands
    assert demand.needed_bytes == 4096 * each
    # Before 0.1.7 nothing was set aside.
    old = ask(subject(QWEN), max_batch=4, version="0.1.6.0")
    assert terms(old)["kv_cache"] == (left + aside) // (128 * each) * 128 * each
    grows = ask(subject(QWEN), version="0.1.5.1")
    assert terms(grows)["kv_cache"] == 4096 * each


def test_pages_as_asked_for():
    found = ask(subject(QWEN), tokens=10_000, page_size=64)
    assert terms(found)["kv_cache"] == 157 * 64 * 4 * 2 * 128 * 2
    assert found.capacity.kv_cache_tokens == 157 * 64


# Places


def test_experts_go_to_ram_by_themselves():
    found = ask(subject(MOE), tokens=4096)
    assert host(found)["experts"] == 4 * EXPERTS * 2
    assert host(found)["workspace"] == 4096 * 2 * (2 * 512 + 3 * 256) * 4
    on_cards = ask(subject(MOE), tokens=4096, device=(("cuda", 1),))
    assert terms(on_cards)["weights"] - terms(found)["weights"] == 4 * EXPERTS * 2
    assert host(on_cards) == {"embedding": 1024 * 512 * 2}
    packed = ask(subject(MOE), tokens=4096, moe_dtype="int4")
    assert host(packed)["experts"] == 4 * 8 * (3 * 256 * 512 // 2 + (2 * 256 + 512) * 8)


def test_maps_of_devices():
    def placed(device=(), moe=(), cards=2, **fields):
        given = fastllm.Settings(device=device, moe_device=moe, **fields)
        plan = Plan(subject({**MOE, "num_hidden_layers": 20}), Machine((card(),) * cards), given)
        return plan.layers, plan.experts

    layers, experts = placed((("cuda", 1),), (("cuda", 1), ("numa", 19)))
    assert layers == ((0,),) * 20
    assert experts == ((0,),) + ((),) * 19
    layers, experts = placed((("cuda:0", 1), ("cuda:1", 3)))
    assert layers == ((0,),) * 5 + ((1,),) * 15 == experts
    layers, experts = placed((("multicuda:0,1", 1),), (("cuda", 2), ("disk", 1), ("numa", 1)))
    assert layers == ((0, 1),) * 20
    assert experts == ((0,),) * 10 + ((-1,),) * 5 + ((),) * 5
    _, experts = placed((("cuda", 1),), (("numa", 1),), moe_device_layers=4)
    assert experts == ((0,),) * 16 + ((),) * 4
    assert placed((("cpu", 1),)) == (((),) * 20, ((),) * 20)


def test_matrices_are_divided():
    one, two = ask(subject()), ask(subject(), card(), card(), tp=2)
    assert terms(two, 0)["kv_cache"] == terms(one)["kv_cache"] // 2
    norms = 4 * 2 * 512 * 4 + 512 * 4
    assert terms(two, 1)["weights"] - norms == (terms(one)["weights"] - norms) // 2
    assert "2 heads" not in two.refusal
    assert "cannot be divided" in ask(subject(), *[card()] * 3, tp=3).refusal


def test_experts_on_disk_are_not_in_ram():
    found = ask(subject(MOE), device=(("cuda", 1),), moe_device=(("disk", 1),))
    assert "experts" not in host(found)
    assert [term.bytes for term in found.host.page_cache] == [4 * EXPERTS * 2]


def test_a_processor_alone():
    found = fastllm.estimate(subject(MOE), Machine((CPU,), 32 * GIB), fastllm.Settings(context=4096))
    held = {term.name: term.bytes for term in found.devices[0].terms}
    assert held["experts"] == 4 * EXPERTS * 2
    assert held["kv_cache"] == 4096 * 4 * 2 * 128 * 2
    assert not found.host.terms


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": (("cuda:3", 1),)}, "needs 4 cards"),
        ({"device": (("tpu", 1),)}, "no device 'tpu'"),
        ({"device": (("multicuda:0,cpu", 1),)}, "is not worked out"),
        ({"dtype": "int3"}, "no dtype int3"),
    ],
)
def test_settings_that_are_wrong(fields, message):
    with pytest.raises(BadInput, match=message):
        ask(subject(), **fields)


@pytest.mark.parametrize(
    ("what", "fields", "words"),
    [
        (subject(MOE), {"version": "0.1.2.0"}, None),
        (bundled("zai-org/GLM-4.5-Air"), {"version": "0.1.3.0"}, "0.1.4.5 and later do"),
        (subject(LLAMA, "exl2-4.0"), {}, "does not load exl2"),
    ],
)
def test_models(what, fields, words):
    found = ask(what, **fields)
    assert (words in found.refusal) if words else not found.refusal


def test_an_answer_puts_experts_where_fastllm_does():
    what = bundled("Qwen/Qwen3-30B-A3B")
    alone = fastllm.answer(what, Machine((card(24 * GIB),), 128 * GIB), Question(8192))
    assert host(alone)["experts"] == 48 * 128 * 3 * 768 * 2048 * 2
    both = fastllm.answer(what, Machine((card(48 * GIB),) * 2, 128 * GIB), Question(8192))
    assert "experts" not in host(both)
    with pytest.raises(BadInput, match="int8"):
        fastllm.answer(what, Machine((card(),)), Question(8192, kv_dtype="int8"))


# Properties


@given(
    context=st.integers(1, 8192),
    more=st.integers(0, 8192),
    users=st.integers(1, 4),
    config=st.sampled_from([LLAMA, QWEN, MOE]),
    version=st.sampled_from(["0.1.5.1", "0.1.6.0", "1.9.0"]),
)
@settings(max_examples=40, deadline=None)
def test_more_takes_no_less(context, more, users, config, version):
    few, many = (
        ask(subject(config), context=tokens, users=users, version=version)
        for tokens in (context, context + more)
    )
    assert few.devices[0].peak_bytes <= many.devices[0].peak_bytes + (
        128 * MIB if few.details["tokens"] else 0
    )
    assert [one.needed_bytes for one in few.demands] <= [one.needed_bytes for one in many.demands]
    crowd = ask(subject(config), context=context, users=users + 1, version=version)
    assert few.devices[0].peak_bytes <= crowd.devices[0].peak_bytes
    assert few.host.peak_bytes <= many.host.peak_bytes
