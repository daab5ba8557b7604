"""Two answers side by side: differences by hand, and no reason where nothing that enters a term differs."""

import shlex
from dataclasses import fields, replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.asking import Answer, answer_about, answer_command, machine_of
from willfit.comparing import compare, fullest, signed
from willfit.engines.base import Question
from willfit.engines.vllm.changes import WORDS, changes
from willfit.engines.vllm.eras import ERAS, Era, era_for
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term

QWEN = "Qwen/Qwen3-8B"

#: Qwen3-8B keeps keys and values of 8 heads of 128 in 36 layers: 147,456 B a token in bf16.
TOKEN_BYTES = 36 * 2 * 8 * 128 * 2


def asked(model=QWEN, gpu="rtx4090", engine="minimum", form=None, **question):
    return answer_about(model, machine_of(gpu), Question(**question), engine, form, offline=True)


def launched(command, gpu="rtx4090", version=None):
    return answer_command(shlex.split(command), machine_of(gpu), version=version, offline=True)


def changed(comparison):
    """The terms of the devices that differ: difference and reasons."""
    return {
        term.name: (term.difference_bytes, term.reasons)
        for term in comparison.device.terms
        if term.difference_bytes or term.reasons
    }


def test_another_context():
    comparison = compare(asked(context=8192), asked(context=32768))
    # 32,768 - 8,192 = 24,576 tokens more.
    assert changed(comparison) == {"kv_cache": (24576 * TOKEN_BYTES, ("context 8,192 → 32,768",))}
    assert comparison.device.difference_bytes == 3_623_878_656
    assert [fact.what for fact in comparison.facts] == ["context"]


def test_more_users_change_the_cache_and_the_logits():
    comparison = compare(asked(context=4096), asked(context=4096, users=3))
    assert changed(comparison) == {
        "kv_cache": (2 * 4096 * TOKEN_BYTES, ("users 1 → 3",)),
        # A row of 151,936 scores in fp32 for each.
        "logits": (2 * 151936 * 4, ("1 → 3 rows",)),
    }


def test_another_format():
    comparison = compare(asked(), asked(form="fp8"))
    # Seven projections of each of the 36 layers take one byte less a weight: queries and output 4096 x 4096,
    # keys and values 1024 x 4096, three of the MLP 12288 x 4096. Each of the seven gets a scale of 4 B.
    weights = 36 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 12288 * 4096)
    reason = "format bf16 (2.00 B a parameter) → fp8 per tensor (1.15 B a parameter)"
    assert changed(comparison) == {"weights": (-weights + 36 * 7 * 4, (reason,))}


def test_another_model():
    comparison = compare(asked(context=8192), asked("Qwen/Qwen3-4B", context=8192))
    found = changed(comparison)
    # 8,190,735,360 and 4,022,468,096 parameters of 2 B; the cache is the same: 36 layers of 8 heads of 128.
    assert found["weights"] == (2 * (4_022_468_096 - 8_190_735_360), ("parameters 8.19 B → 4.02 B",))
    assert "kv_cache" not in found
    assert {fact.what: (fact.a, fact.b) for fact in comparison.facts} == {
        "model": (QWEN, "Qwen/Qwen3-4B"),
        "parameters": ("8.19 B", "4.02 B"),
    }


def test_another_version_of_vllm():
    command = f"vllm serve {QWEN} --max-model-len 8192 --enforce-eager"
    comparison = compare(launched(command, version="0.19.1"), launched(command, version="0.22.0"))
    usable = comparison.device.a.usable_bytes
    budget = ceil(usable * 0.92) - ceil(usable * 0.90)
    difference, reasons = changed(comparison).pop("kv_cache")
    assert abs(difference - budget) < 16 * TOKEN_BYTES  # the pool is whole blocks of 16 tokens
    assert reasons == (f"budget {signed(budget)} (0.90 → 0.92 of the device)",)
    assert comparison.changes == (
        "since 0.20 the budget is 0.92 of a device by default",
        "since 0.20 an estimate of the CUDA graphs is taken off the budget before the cache is sized",
        "since 0.20.1 the reported tokens are concurrency times context",
        "since 0.22 CUDA graphs are captured for the largest batch, too",
    )
    # One cache group: tokens are blocks times 16 under either rule, so the rule is no reason.
    tokens = next(figure for figure in comparison.figures if figure.name == "kv_cache_tokens")
    assert tokens.difference * TOKEN_BYTES == difference
    assert not any("reported" in reason for reason in tokens.reasons)


def test_a_version_whose_defaults_are_overridden_is_no_reason():
    command = f"vllm serve {QWEN} --max-model-len 8192 --enforce-eager --gpu-memory-utilization 0.9"
    comparison = compare(launched(command, version="0.19.1"), launched(command, version="0.22.0"))
    assert changed(comparison) == {}
    assert len(comparison.changes) == 4


def test_graphs_are_taken_off_the_cache_since_0_20():
    command = f"vllm serve {QWEN} --max-model-len 8192 --gpu-memory-utilization 0.9"
    comparison = compare(launched(command, version="0.19.1"), launched(command, version="0.22.0"))
    difference, reasons = changed(comparison)["kv_cache"]
    graphs = next(term for term in comparison.device.terms if term.name == "cuda_graphs").b_bytes
    assert abs(difference + graphs) < 16 * TOKEN_BYTES
    assert reasons[0].startswith("CUDA graphs leave ")
    assert reasons[1] == comparison.changes[1]


def test_the_cache_of_vllm_is_the_same_whatever_is_asked_of_it():
    one = launched(f"vllm serve {QWEN} --max-model-len 8192")
    other = launched(f"vllm serve {QWEN} --max-model-len 16384 --kv-cache-dtype fp8")
    comparison = compare(one, other)
    needed, tokens, _, sequences = comparison.figures
    # Twice the tokens of half the bytes; the block that is never handed out is 16 tokens.
    assert (needed.a, needed.b) == (8208 * TOKEN_BYTES, 16400 * TOKEN_BYTES // 2)
    assert needed.reasons[0] == "context 8,192 → 16,384"
    assert {"cache a token 144.0 KiB → 72.0 KiB", "cache dtype bf16 → fp8_e4m3"} <= set(tokens.reasons)
    assert sequences.a == pytest.approx(sequences.b, rel=1e-3)


def test_between_engines_a_budget_and_a_need_differ_and_the_rest_is_left_unexplained():
    comparison = compare(asked(engine="vllm"), asked(engine="transformers"))
    found = changed(comparison)
    assert found["kv_cache"][1] == ("A fills what its budget leaves; B holds what its sequences need",)
    assert found["activations"][1] == ()
    assert all(next(term for term in comparison.device.terms if term.name == "activations").formulas)
    assert comparison.changes == ()


def test_a_cache_whose_size_was_asked_for():
    asked_for = launched(f"vllm serve {QWEN} --kv-cache-memory-bytes 4G --max-model-len 8192")
    found = changed(compare(launched(f"vllm serve {QWEN} --max-model-len 8192"), asked_for))
    assert found["kv_cache"][1] == ("A fills what its budget leaves; B's size was asked for",)


def test_state_layers_keep_a_block_more_since_0_29():
    hybrid, machine = "Qwen/Qwen3-Next-80B-A3B-Instruct", "4xh100"
    old, new = (asked(hybrid, machine, "vllm", version=version) for version in ("0.28.0", "0.29.0"))
    comparison = compare(old, new)
    needed, _, _, sequences = comparison.figures
    # What changed for captured graphs and for DeepSeek-V4 is no reason here.
    assert needed.reasons == (comparison.changes[2], *comparison.changes[:2])
    assert len(comparison.changes) == 5
    assert needed.difference > 0 > sequences.difference
    assert len(sequences.reasons) == 1
    assert sequences.reasons[0].startswith("cache needed ")


def test_one_answer_beside_itself_differs_in_nothing():
    one = asked(engine="vllm")
    comparison = compare(one, one)
    assert (comparison.facts, comparison.changes, changed(comparison)) == ((), (), {})
    assert not any(figure.difference or figure.reasons for figure in comparison.figures)


def test_the_fullest_device_is_that_with_the_largest_share():
    small = DeviceEstimate("small", 0, 100, (Term("weights", 90, 90, 90),))
    large = DeviceEstimate("large", 1, 1000, (Term("weights", 800, 800, 800),))
    host = DeviceEstimate("host", 0, None, ())
    assert fullest(Estimate("m", "e", "1", "serve", (large, small, small), host)) is small
    assert fullest(Estimate("m", "e", "1", "serve", (), host)) is host


def test_every_value_that_an_era_ever_had_has_words():
    for field in fields(Era):
        if field.name != "since":
            assert {getattr(era, field.name) for era in ERAS} <= set(WORDS[field.name]), field.name
    assert set(WORDS) == {field.name for field in fields(Era)} - {"since"}


def test_changes_are_said_of_the_newer_version():
    old, new = era_for("0.8.5"), era_for("0.9.0")
    assert changes(old, new) == changes(new, old)
    assert [change.words for change in changes(old, new)] == [
        "since 0.9 the driver context does not count against the budget",
        "since 0.9 the reported tokens are divided by the number of cache groups",
    ]
    # Asked for by a setting, so no version is named.
    asked_for = era_for("0.9.0", "v0")
    words = {change.field: change.words for change in changes(era_for("0.9.0"), asked_for)}
    assert words["generation"] in WORDS["generation"].values()


SUBJECT = asked().subject
FORMULAS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"\A[0-9]{1,4} allowed - [0-9]{1,3} \(weights\)\Z"),
    st.from_regex(r"\A[0-9]{1,3} (tokens|rows) x [0-9]{1,3} B = [0-9]{1,3}\Z"),
)
TERMS = st.lists(
    st.builds(
        lambda name, size, formula: Term(name, size, size, size, formula),
        st.sampled_from(("weights", "kv_cache", "activations", "cuda_graphs", "new_term")),
        st.integers(0, 10**12),
        FORMULAS,
    ),
    max_size=6,
)


@st.composite
def answers(draw):
    place = DeviceEstimate("d", 0, draw(st.one_of(st.none(), st.integers(1, 10**12))), tuple(draw(TERMS)))
    host = DeviceEstimate("host", 0, None, tuple(draw(TERMS)))
    demand = (Demand("d", 1, 2, 2, 2),) if draw(st.booleans()) else ()
    capacity = Capacity(draw(st.integers(0, 9)), 5, 0.5) if draw(st.booleans()) else None
    return Answer(SUBJECT, Estimate("m", "e", "1", "serve", (place,), host, capacity, demand))


@given(answers(), answers())
def test_differences_of_terms_add_up_to_that_of_the_peaks(a, b):
    comparison = compare(a, b)
    for place in (comparison.device, comparison.host):
        assert sum(term.difference_bytes for term in place.terms) == place.difference_bytes
        assert place.difference_bytes == place.b.peak_bytes - place.a.peak_bytes
        assert all(term.difference_bytes for term in place.terms if term.reasons)
    back = {term.name: term.difference_bytes for term in compare(b, a).device.terms}
    assert back == {term.name: -term.difference_bytes for term in comparison.device.terms}


@given(answers())
def test_results_in_a_formula_are_no_reason(answer):
    place = replace(
        answer.estimate.devices[0],
        terms=(Term("new_term", 12, 12, 12, "3 rows x 4 B = 12"),),
    )
    other = replace(place, terms=(Term("new_term", 20, 20, 20, "5 rows x 4 B = 20"),))
    sides = [Answer(SUBJECT, replace(answer.estimate, devices=(one,))) for one in (place, other)]
    assert changed(compare(*sides)) == {"new_term": (8, ("3 → 5 rows",))}
