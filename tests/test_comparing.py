"""Two answers side by side: differences by hand, and no reason where nothing that enters a term differs."""

import shlex
from dataclasses import replace
from itertools import product
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.asking import Answer, answer_about, answer_command, machine_of
from willfit.comparing import compare, fullest
from willfit.engines.base import Question
from willfit.engines.changes import changes_of
from willfit.engines.vllm.eras import era_for
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term

QWEN = "Qwen/Qwen3-8B"

#: Qwen3-8B keeps keys and values of 8 heads of 128 in 36 layers: 147,456 B a token in bf16.
TOKEN_BYTES = 36 * 2 * 8 * 128 * 2


def asked(model=QWEN, gpu="rtx4090", engine="minimum", form=None, **question):
    return answer_about(model, machine_of(gpu), Question(**question), engine, form, offline=True)


def launched(command, gpu="rtx4090", version=None):
    return answer_command(shlex.split(command), machine_of(gpu), version=version, offline=True)


def changed(comparison):
    """The terms of the devices that differ: difference, and the reasons with what each makes of it."""
    return {
        term.name: (term.difference_bytes, {reason.words: reason.difference for reason in term.reasons})
        for term in comparison.device.terms
        if term.difference_bytes or term.reasons
    }


def figure(comparison, name):
    return next(figure for figure in comparison.figures if figure.name == name)


def words(item):
    return [reason.words for reason in item.reasons]


def test_another_context():
    comparison = compare(asked(context=8192), asked(context=32768))
    # 32,768 - 8,192 = 24,576 tokens more.
    more = 24576 * TOKEN_BYTES
    assert changed(comparison) == {"kv_cache": (more, {"context 8,192 → 32,768": more})}
    assert comparison.device.difference_bytes == 3_623_878_656
    assert [fact.what for fact in comparison.facts] == ["context"]


def test_more_users_change_the_cache_and_the_logits():
    comparison = compare(asked(context=4096), asked(context=4096, users=3))
    cache, logits = 2 * 4096 * TOKEN_BYTES, 2 * 151936 * 4
    assert changed(comparison) == {
        "kv_cache": (cache, {"users 1 → 3": cache}),
        # A row of 151,936 scores in fp32 for each.
        "logits": (logits, {"1 → 3 rows, times 151,936 x 4 B": logits}),
    }


def test_one_cause_after_the_other():
    """Four users of 4,096 tokens in bf16, then eight of 8,192 in 8 bits: twice, twice, and half of all."""
    comparison = compare(asked(context=4096, users=4), asked(context=8192, users=8, kv_dtype="fp8"))
    one = 4 * 4096 * TOKEN_BYTES
    assert changed(comparison)["kv_cache"] == (
        one,
        {
            "context 4,096 → 8,192": one,
            "users 4 → 8": 2 * one,
            "cache in bf16 → fp8_e4m3, 2 → 1 B an element": -2 * one,
        },
    )


def test_another_format():
    comparison = compare(asked(), asked(form="fp8"))
    # Seven projections of each of the 36 layers take one byte less a weight: queries and output 4096 x 4096,
    # keys and values 1024 x 4096, three of the MLP 12288 x 4096. Each of the seven gets a scale of 4 B.
    weights = 36 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 12288 * 4096)
    assert weights == 6_945_767_424
    reason = "2.00 → 1.15 B a parameter (A: bf16; B: fp8 per tensor for 6.95 B, bf16 for 1.24 B)"
    less = -weights + 36 * 7 * 4
    assert changed(comparison) == {"weights": (less, {reason: less})}


def test_another_model():
    comparison = compare(asked(context=8192), asked("Qwen/Qwen3-4B", context=8192))
    found = changed(comparison)
    # 8,190,735,360 and 4,022,468,096 parameters of 2 B; the cache is the same: 36 layers of 8 heads of 128.
    less = 2 * (4_022_468_096 - 8_190_735_360)
    assert found["weights"] == (less, {"8.19 B → 4.02 B parameters": less})
    assert "kv_cache" not in found
    assert {fact.what: (fact.a, fact.b) for fact in comparison.facts} == {
        "model": (QWEN, "Qwen/Qwen3-4B"),
        "parameters": ("8.19 B", "4.02 B"),
    }


def test_window_layers_keep_their_window():
    comparison = compare(asked("google/gemma-3-12b-it", context=8192), asked("Qwen/Qwen3-14B", context=8192))
    _, reasons = changed(comparison)["kv_cache"]
    # 8 of 48 layers keep 8,192 tokens, 40 keep 1,024, of 8 heads of 256; then 40 layers keep all of 8 heads of 128.
    gemma = (8 * 8192 + 40 * 1024) * 8 * 512 * 2
    assert reasons == {
        "A: 40 layers keep 1,024 tokens of 8 KV heads x 256, 8 layers keep all tokens of 8 KV heads x 256; "
        "B: 40 layers keep all tokens of 8 KV heads x 128": 40 * 8192 * 8 * 256 * 2 - gemma
    }


def test_another_version_of_vllm():
    command = f"vllm serve {QWEN} --max-model-len 8192 --enforce-eager"
    comparison = compare(launched(command, version="0.19.1"), launched(command, version="0.20.2"))
    usable = comparison.device.a.usable_bytes
    budget = ceil(usable * 0.92) - ceil(usable * 0.90)
    difference, reasons = changed(comparison).pop("kv_cache")
    assert abs(difference - budget) < 16 * TOKEN_BYTES  # the pool is whole blocks of 16 tokens
    first, *rest = reasons.items()
    assert first[0] == (
        "gpu_memory_utilization 0.9 → 0.92, times 23.52 GiB usable; "
        "since 0.20 the budget is 0.92 of a device by default"
    )
    assert abs(first[1] - budget) < 4
    assert [name for name, _ in rest] == ["rounding to whole blocks"]
    assert comparison.changes == (
        "since 0.20 the budget is 0.92 of a device by default",
        "since 0.20 an estimate of the CUDA graphs is taken off the budget before the cache is sized",
        "since 0.20.1 the reported tokens are concurrency times context",
    )
    # One cache group: tokens are blocks times 16 under either rule, so the rule is no reason.
    tokens = figure(comparison, "kv_cache_tokens")
    assert tokens.difference * TOKEN_BYTES == difference
    assert not any("reported" in reason for reason in words(tokens))
    assert f"B has room for {tokens.difference:,} tokens more" in " ".join(comparison.summary)


def test_a_version_whose_defaults_are_overridden_is_no_reason():
    command = f"vllm serve {QWEN} --max-model-len 8192 --enforce-eager --gpu-memory-utilization 0.9"
    comparison = compare(launched(command, version="0.19.1"), launched(command, version="0.20.2"))
    assert changed(comparison) == {}
    assert len(comparison.changes) == 3
    other = launched(command.replace("0.9", "0.95"), version="0.20.2")
    _, reasons = changed(compare(launched(command, version="0.19.1"), other))["kv_cache"]
    assert next(iter(reasons)) == "gpu_memory_utilization 0.9 → 0.95, times 23.52 GiB usable"


def test_the_sampler_sorts_the_vocabulary_until_0_17():
    command = f"vllm serve {QWEN} --max-model-len 8192"
    comparison = compare(
        launched(command, "h100", version="0.16.0"), launched(command, "h100", version="0.17.0")
    )
    # Sorted values, indices and buffers of 12 + 12 + 8 B a logit, against probabilities and random numbers of 4 + 4.
    less = 1024 * 151936 * (14 - 38)
    assert changed(comparison)["activations"] == (
        less,
        {
            "38 B → 14 B, times 1,024 rows x 151,936 logits; since 0.17 the profile run's sampler leaves no sorted "
            "copies": less
        },
    )


def test_graphs_are_taken_off_the_cache_since_0_20():
    command = f"vllm serve {QWEN} --max-model-len 8192 --gpu-memory-utilization 0.9"
    comparison = compare(launched(command, version="0.19.1"), launched(command, version="0.20.2"))
    difference, reasons = changed(comparison)["kv_cache"]
    graphs = next(term for term in comparison.device.terms if term.name == "cuda_graphs").b_bytes
    assert abs(difference + graphs) < 16 * TOKEN_BYTES
    first = next(iter(reasons))
    assert first.startswith(f"only B leaves room for {graphs / 2**20:.1f} MiB CUDA graphs")
    assert first.endswith(comparison.changes[1])
    assert reasons[first] == -graphs


def test_heads_are_repeated_where_ranks_outnumber_them():
    one, other = (
        launched(f"vllm serve {QWEN} --max-model-len 8192 -tp {ranks}", "16xh100") for ranks in (1, 16)
    )
    needed = figure(compare(one, other), "cache_needed_bytes")
    # 8 heads over 16 ranks: each holds one whole head, an eighth.
    assert needed.reasons[0].difference == -8192 * TOKEN_BYTES * 7 // 8
    assert words(needed)[0] == "divided over 1 → 16 ranks; 8 KV heads over 16 ranks: each is held 2 times"


def test_the_cache_of_vllm_is_the_same_whatever_is_asked_of_it():
    one = launched(f"vllm serve {QWEN} --max-model-len 8192")
    other = launched(f"vllm serve {QWEN} --max-model-len 16384 --kv-cache-dtype fp8")
    comparison = compare(one, other)
    needed, tokens, _, sequences = comparison.figures
    # Twice the tokens of half the bytes; the block that is never handed out is 16 tokens.
    assert (needed.a, needed.b) == (8208 * TOKEN_BYTES, 16400 * TOKEN_BYTES // 2)
    assert [(reason.words, reason.difference) for reason in needed.reasons] == [
        ("context 8,192 → 16,384", 8192 * TOKEN_BYTES),
        ("cache in bf16 → fp8_e4m3, 2 → 1 B an element", -8192 * TOKEN_BYTES),
        ("blocks, groups, padding and dtypes of states: 2.2 MiB → 1.1 MiB", -8 * TOKEN_BYTES),
    ]
    assert words(tokens) == ["a token takes 144.0 KiB → 72.0 KiB of it"]
    assert sequences.a == pytest.approx(sequences.b, rel=1e-3)


def test_between_engines_budgets_and_what_they_leave_room_for_are_compared():
    comparison = compare(asked(engine="vllm"), asked(engine="sglang"))
    _, reasons = changed(comparison)["kv_cache"]
    first = next(iter(reasons))
    assert first.startswith(
        "A: 0.92 gpu_memory_utilization x 23.52 GiB usable; B: 0.704 mem_fraction_static x "
    )
    graphs = next(term for term in comparison.device.terms if term.name == "cuda_graphs").a_bytes
    assert f"only A leaves room for {graphs / 2**20:.1f} MiB CUDA graphs" in reasons
    comparison = compare(asked(engine="vllm"), asked(engine="transformers"))
    (reason,) = changed(comparison)["kv_cache"][1]
    assert reason.startswith("A fills what its budget leaves, ")
    assert reason.endswith("; B holds what 1 x 8,192 tokens need, 1.12 GiB")
    assert comparison.changes == ()


def test_a_cache_whose_size_was_asked_for():
    asked_for = launched(f"vllm serve {QWEN} --kv-cache-memory-bytes 4G --max-model-len 8192")
    found = changed(compare(launched(f"vllm serve {QWEN} --max-model-len 8192"), asked_for))
    (reason,) = found["kv_cache"][1]
    assert reason.startswith("A fills what its budget leaves, ")
    assert reason.endswith("; B's size was asked for, 4.00 GiB")


def test_state_layers_keep_a_block_more_since_0_29():
    hybrid, machine = "Qwen/Qwen3-Next-80B-A3B-Instruct", "4xh100"
    old, new = (asked(hybrid, machine, "vllm", version=version) for version in ("0.28.0", "0.29.0"))
    comparison = compare(old, new)
    needed, _, _, sequences = comparison.figures
    (reason,) = words(needed)
    entering = [change for change in comparison.changes if "state" in change or "block" in change]
    assert len(entering) == 3
    assert all(change in reason for change in entering)
    assert needed.difference > 0 > sequences.difference
    assert words(sequences)[0].startswith("a sequence of 8,192 tokens takes ")


def test_changes_that_concern_other_models_are_left_out():
    old, new = (asked(engine="vllm", version=version) for version in ("0.25.0", "0.29.0"))
    # Window layers and states have changed as well; Qwen3-8B has neither.
    assert compare(old, new).changes == (
        "since 0.29 buffers beside the model count against the budget",
        "since 0.29 the V2 runner takes an estimate of its graphs off the budget",
        "since 0.29 the block that is never handed out does not count as room",
        "since 0.29 CUDA graphs are captured for batches of speculative decoding, too",
    )


def test_a_term_that_one_side_has():
    found = changed(compare(asked(engine="vllm", gpu="h100"), asked(engine="sglang", gpu="h100")))
    size = 4097 * 8196 * 4
    assert found["request_table"] == (
        size,
        {"only B: (4,096 requests + 1) x 8,196 tokens and headroom x 4 B": size},
    )
    offloaded = compare(
        launched(f"vllm serve {QWEN} --cpu-offload-gb 4 --max-model-len 8192"),
        launched(f"vllm serve {QWEN} --max-model-len 8192"),
    )
    (host,) = offloaded.host.terms
    assert changed(offloaded)["weights"][1] == {"only A: −4.00 GiB kept in host RAM": host.a_bytes}
    assert words(host) == ["only A: 1 ranks x 4.00 GiB, pinned"]


def test_what_would_not_start_is_said_so():
    one, other = (launched(f"vllm serve {QWEN} -tp {ranks}", "4xl40s") for ranks in (3, 2))
    assert compare(one, other).summary[0] == "A would not start, B fits"


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


def test_changes_are_said_of_the_newer_version():
    old, new = era_for("0.8.5"), era_for("0.9.1")
    assert changes_of(old, new) == changes_of(new, old)
    assert [change.words for change in changes_of(old, new)] == [
        "since 0.9 FlashInfer samples if it is installed",
        "since 0.9.1 the driver context does not count against the budget",
        "since 0.9.1 the reported tokens are divided by the number of cache groups",
        "since 0.9.1 window layers have cache groups of their own",
    ]
    # Asked for by a setting, so no version is named.
    asked_for = era_for("0.9.0", "v0")
    found = {change.field: change.words for change in changes_of(era_for("0.9.0"), asked_for)}
    assert found["generation"] in ("the V0 engine runs", "the V1 engine runs")


ALL = [
    ("vllm", "0.6.3"), ("vllm", "0.11.0"), ("vllm", None), ("sglang", "0.4.10"), ("sglang", None),
    ("tensorrt-llm", None), ("tgi", "2.4.0"), ("tgi", None), ("lmdeploy", "0.6.0"), ("lmdeploy", None),
    ("lightllm", None), ("transformers", "4.40.0"), ("transformers", None), ("minimum", None),
]  # fmt: skip


@pytest.mark.parametrize("model", [QWEN, "google/gemma-3-12b-it", "deepseek-ai/DeepSeek-V2-Lite"])
def test_between_any_engines_and_versions_reasons_with_numbers_add_up(model):
    answers = []
    for engine, version in ALL:
        try:
            answers.append(asked(model, "4xh100", engine, version=version))
        except BadInput:
            continue  # the engine has no rule for this model
    assert len(answers) > 8
    answers.append(asked("Qwen/Qwen3-8B-AWQ", "2xl40s", "vllm", context=4096, users=3))
    for a, b in product(answers, answers):
        comparison = compare(a, b)
        for place in (comparison.device, comparison.host):
            for term in place.terms:
                assert sum(reason.difference for reason in term.reasons) == term.difference_bytes
                for reason in term.reasons:
                    assert any(letter.isdigit() for letter in reason.words) or reason.words.startswith(
                        ("rounding", "what ")
                    ), reason
        for found in comparison.figures:
            if found.difference:
                assert sum(reason.difference for reason in found.reasons) == pytest.approx(found.difference)


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
        for term in place.terms:
            assert sum(reason.difference for reason in term.reasons) == term.difference_bytes
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
    assert changed(compare(*sides)) == {"new_term": (8, {"3 → 5 rows, times 4 B": 8})}


def test_ram_and_mapped_files_of_a_processor_alone():
    """On a processor mapped weights are no part of the peak, so that they are compared beside it."""

    def on_processor(file_type):
        return answer_about(f"{QWEN}:{file_type}", machine_of("cpu", "64G"), Question(8192), offline=True)

    comparison = compare(on_processor("Q4_K_M"), on_processor("Q8_0"))
    assert any(" of RAM: " in line for line in comparison.summary)
    files = [sum(term.bytes for term in side.host.page_cache) for side in (comparison.a, comparison.b)]
    assert files[1] > files[0]
    assert any(line.startswith("B maps ") and " more of files" in line for line in comparison.summary)
    room = figure(comparison, "kv_cache_tokens")
    assert "0 B" not in words(room)[0]
