"""LM Studio: which llama.cpp it has inside, what it sets for it, and what its users' logs say."""

from itertools import pairwise
from pathlib import Path

import pytest

from willfit.asking import answer_about, machine_of
from willfit.engines import llama_cpp, lmstudio
from willfit.engines.base import Question
from willfit.engines.lmstudio.eras import ERAS, RELEASES, era_for, release_of
from willfit.engines.lmstudio.settings import Settings
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.validation.cases import read_cases
from willfit.validation.run import predictor_for

MIB = 2**20
CASES = [
    case
    for name in ("llamacpp.jsonl", "llamacpp_more.jsonl")
    for case in read_cases(Path(__file__).parents[1] / "data" / "cases" / name)
    if case.engine == "lmstudio"
]
#: What the runtime did that no llama.cpp did: its first gpt-oss was its own.
MISSED = {("lms-20705324730", "compute_buffer_mib", "Metal")}


def subject_of(model, **given):
    return answer_about(model, machine_of("rtx4090"), Question(), "lmstudio", offline=True, **given).subject


def figures(case):
    for key, made in predictor_for(case)(case).items():
        for place, one in made.items() if isinstance(made, dict) else [("", made)]:
            measured = case.measured[key]
            yield key, place, one, measured[place] if place else measured


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fields["id"])
def test_logs_are_predicted_to_the_digit(case):
    found = list(figures(case))
    assert found
    for key, place, one, measured in found:
        if (case.fields["id"], key, place) not in MISSED:
            assert one.low - 0.03 <= measured <= one.high + 0.03, (key, place)
            assert one.value == pytest.approx(measured, rel=0.005, abs=1), (key, place)


def test_there_are_logs_of_several_devices_and_eras():
    assert len(CASES) >= 7
    assert {case.settings["backend"] for case in CASES} >= {"cuda", "metal", "vulkan", "cpu"}
    assert len({era_for(release_of(case.fields["engine_version"])).since for case in CASES}) >= 3


def test_releases_go_on_in_all_columns():
    for earlier, later in pairwise(RELEASES):
        for column in ("program", "runtime", "mlx"):
            numbers = [parse_version(getattr(one, column)) for one in (earlier, later)]
            assert numbers == sorted(numbers), (earlier, later)
        assert earlier.build < later.build
        assert parse_version(earlier.runtime) < parse_version(later.runtime)


def test_each_era_is_that_of_a_release():
    reached = {era_for(release) for release in RELEASES}
    assert reached == set(ERAS)


@pytest.mark.parametrize(
    ("version", "program", "build"),
    [
        ("0.3.32", "0.3.32", 7063),
        ("0.3.31", "0.3.31", 6880),
        ("0.3.18", "0.3.18", 5740),  # not known: what the one before it has
        ("0.4.9", "0.4.9", 8650),  # of two runtimes the later
        ("1.26.0", "0.3.15", 5092),
        ("2.28.2", "0.4.21", 10252),
        ("llama.cpp-win-x86_64-nvidia-cuda12-avx2-2.33.0", "0.4.21", 10760),
        ("llama.cpp-mac-arm64-apple-metal-advsimd@2.40.0", "0.4.21", 11002),
        ("9.9", "0.4.25", 11180),
    ],
)
def test_a_version_is_of_the_program_or_of_a_runtime(version, program, build):
    found = release_of(version)
    assert (found.program, found.build) == (program, build)


def test_versions_before_all_that_is_known():
    with pytest.raises(BadInput, match="older than what is known"):
        release_of("0.2.31")
    with pytest.raises(BadInput):
        release_of("newest")


def test_a_newer_version_is_taken_for_the_newest_known():
    question = Question(version="0.9.1")
    made = answer_about("Qwen/Qwen3-8B", machine_of("rtx4090"), question, "lmstudio", offline=True).estimate
    assert made.engine_version == "0.9.1"
    assert any("0.9.1 is not known; it is taken to behave as 0.4.25 does" in note for note in made.notes)


def told(model, gpu, version, **given):
    subject = subject_of(model)
    return lmstudio.estimate(subject, machine_of(gpu), Settings(version=version, **given))


def test_windows_are_whole_sequences_until_a_runtime_of_april_2026():
    # Gemma 3 4B: 34 layers, 5 of them whole; 4 heads of 256 in keys and values, 2 bytes each.
    row = 2 * 4 * 256 * 2
    before = told("google/gemma-3-4b-it", "rtx4090", "2.10.1", context_length=16384)
    after = told("google/gemma-3-4b-it", "rtx4090", "2.11.0", context_length=16384)
    whole = sum(before.details["buffers"]["kv"].values())
    assert whole == 34 * 16384 * row
    # Windows of 1024 for each of four predictions that share a cache, and a batch of 512.
    assert sum(after.details["buffers"]["kv"].values()) == (5 * 16384 + 29 * (4 * 1024 + 512)) * row


@pytest.mark.parametrize(
    ("version", "gpu", "flash"),
    [
        ("0.3.27", "rtx4090", False),
        ("0.3.31", "rtx4090", True),
        ("0.3.31", "rx7900xtx", False),
        ("0.3.31", "m4 max 64g", False),
        ("0.3.32", "m4 max 64g", True),
        ("0.4.25", "rx7900xtx", True),
    ],
)
def test_flash_attention_became_usual_device_by_device(version, gpu, flash):
    assert told("Qwen/Qwen3-8B", gpu, version).details["flash_attn"] is flash


def test_predictions_at_once_share_the_context():
    one = told("Qwen/Qwen3-8B", "rtx4090", "0.3.32", context_length=8192)
    four = told("Qwen/Qwen3-8B", "rtx4090", "0.4.4", context_length=8192)
    assert (one.details["sequences"], four.details["sequences"]) == (1, 4)
    for made in (one, four):
        assert sum(made.details["buffers"]["kv"].values()) == 36 * 8192 * 2 * 8 * 128 * 2
    asked = answer_about(
        "Qwen/Qwen3-8B", machine_of("rtx4090"), Question(4096, 6), "lmstudio", offline=True
    ).estimate
    assert (asked.details["n_ctx"], asked.details["sequences"]) == (6 * 4096, 6)


def test_a_share_of_the_layers():
    def layers(**given):
        return told("Qwen/Qwen3-8B", "rtx4090", "0.4.25", **given).details["n_gpu_layers"]

    assert [layers(gpu_ratio=ratio) for ratio in (0, 0.5, 1)] == [0, 18, 37]
    assert layers() == 37


def test_what_does_not_fit_is_left_in_ram_unless_all_was_asked_for():
    fitted = told("Qwen/Qwen3-32B", "rtx4070", "0.4.25")
    assert fitted.verdict != "does_not_fit"
    assert 0 < fitted.details["n_gpu_layers"] < 65
    assert told("Qwen/Qwen3-32B", "rtx4070", "0.4.25", gpu_ratio=1).verdict == "does_not_fit"


def test_it_is_llama_cpp_with_these_settings():
    made = told("Qwen/Qwen3-8B", "2xrtx4090", "0.4.16", context_length=20000, gpu_ratio=1)
    same = llama_cpp.estimate(
        subject_of("Qwen/Qwen3-8B"),
        machine_of("2xrtx4090"),
        llama_cpp.Settings(
            version="b9550",
            n_ctx=20000,
            n_parallel=4,
            kv_unified=True,
            n_gpu_layers="all",
            tensor_split=(1.0, 1.0),
        ),
    )
    assert made.devices == same.devices
    assert made.host.terms == same.host.terms
    assert (made.engine, made.engine_version) == ("lmstudio", "0.4.16")


def test_models_for_mlx_run_on_macs():
    def asked(gpu, version=None, kv_dtype="auto"):
        question = Question(8192, version=version, kv_dtype=kv_dtype)
        return answer_about(
            "Qwen/Qwen3-8B", machine_of(gpu), question, "lmstudio", "mlx4", offline=True
        ).estimate

    made = asked("m4 max 64g")
    assert not made.refusal
    assert made.details["sequences"] == 1
    assert made.details["prefill_step_size"] == 2048
    assert asked("m4 max 64g", "0.3.32").details["prefill_step_size"] == 512
    assert "on Macs alone" in asked("rtx4090").refusal
    with pytest.raises(BadInput, match="has no q5_1 cache"):
        asked("m4 max 64g", kv_dtype="q5_1")
