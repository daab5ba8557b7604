"""Rows are what single estimates say: bytes, refusals, verdicts, and the finest format that fits."""

import json

import pytest

from willfit.asking import answer_about, find_subject, machine_of
from willfit.engines.base import Question
from willfit.engines.table import ENGINES, GGUF_ENGINES
from willfit.errors import BadInput
from willfit.formats.methods import METHODS
from willfit.planning import advice
from willfit.planning.advice import KINDS, advise, ranked
from willfit.surfaces.cli.app import main

QUESTION = Question(16384)
MODEL = "Qwen/Qwen3-8B"


def rows(model, gpu, question=QUESTION):
    machine = None if gpu is None else machine_of(gpu)
    return list(advise(lambda name: find_subject(model, name, offline=True)[0], machine, question))


@pytest.fixture(scope="module")
def found():
    return rows(MODEL, "rtx3060")


def answered(name, engine=None, gpu="rtx3060"):
    try:
        return answer_about(MODEL, machine_of(gpu), QUESTION, engine, name, offline=True)
    except BadInput:
        return None


def test_every_format_of_the_table_is_there(found):
    known = [variant.name for method in METHODS for variant in method.variants]
    assert [one.variant.name for one in found] == known


def test_bytes_and_verdicts_are_those_of_an_estimate(found):
    for one in found:
        answer = answered(one.variant.name)
        assert one.subject.weight_bytes == answer.subject.weight_bytes
        assert (one.estimate.verdict, one.estimate.engine) == (
            answer.estimate.verdict,
            answer.estimate.engine,
        )
        # All of its parameters at that many bits.
        assert one.bits_per_weight * 8_190_735_360 / 8 == pytest.approx(one.subject.weight_bytes)


def test_engines_are_those_that_do_not_refuse(found):
    for one in found:
        for engine in ENGINES:
            if engine == "minimum" or (one.variant.name is None and engine in GGUF_ENGINES):
                continue  # these would be given a file type of their own
            answer = answered(one.variant.name, engine)
            loads = answer is not None and not answer.estimate.refusal
            assert (engine in one.engines, engine in one.refusals) == (loads, not loads), (
                one.variant.name,
                engine,
            )


def test_what_is_well_known(found):
    loads = {one.variant.name: set(one.engines) for one in found}
    assert {"llama.cpp", "ollama", "lmstudio"} <= loads["q4_k_m"]
    assert "vllm" not in loads["exl3-4.0bpw"]
    assert loads["exl3-4.0bpw"] == {"exllamav3"}
    assert loads["q4f16_1"] == {"mlc-llm"}
    assert loads["mlx4"] == {"mlx"}
    assert "llama.cpp" not in loads["awq"]
    assert {"vllm", "sglang", "lmdeploy"} <= loads["awq"]


@pytest.mark.parametrize("gpu", ["rtx3060", "2GiB"])
def test_the_finest_that_fits(gpu):
    found = rows(MODEL, gpu)
    best = [one for one in ranked(found) if one.finest]
    for wanted in ("fits", "tight"):
        sizes = [
            answer.subject.weight_bytes
            for one in found
            if (answer := answered(one.variant.name, gpu=gpu)) and answer.estimate.verdict == wanted
        ]
        if sizes:
            assert [one.subject.weight_bytes for one in best] == [max(sizes)]
            return
    assert best == []


def test_from_the_largest_to_the_smallest(found):
    sizes = [one.subject.weight_bytes for one in ranked(found)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16_381_470_720  # bf16: two bytes for each of 8,190,735,360


def test_what_is_left_is_beside_the_peak(found):
    for one in found:
        if one.estimate.verdict == "fits" and not one.estimate.demands:
            place = one.estimate.devices[0]
            assert one.spare_bytes == min(
                place.usable_bytes - place.peak_bytes,
                one.estimate.host.usable_bytes - one.estimate.host.peak_bytes
                if one.estimate.host.usable_bytes is not None
                else place.usable_bytes,
            )


def test_a_checkpoint_that_was_trained_quantized():
    first = rows("openai/gpt-oss-20b", "h100")[0]
    assert (first.variant.name, first.method.made, first.method.trained) == (None, "in training", ())
    assert first.stored == "mxfp4"
    # 4.25 bits for experts, 16 for the rest: OpenAI's own count is 4.25 and 20.9 billion parameters.
    assert 4.25 < first.bits_per_weight < 6


def test_kinds_of_devices_without_one_that_is_named(monkeypatch):
    chosen = [method for method in METHODS if method.title in ("AWQ", "EXL3", "MLX")]
    monkeypatch.setattr(advice, "METHODS", tuple(chosen))
    for one in rows(MODEL, None):
        for kind, device in KINDS:
            try:
                first = find_subject(MODEL, one.method.variants[0].name, offline=True)[0]
                machine = machine_of(device, "1TiB")
                refused = advice.ask_usual(None, first, machine, QUESTION, False).refusal
            except BadInput:
                refused = "no"
            assert (kind in one.kinds) is (not refused), (one.method.title, kind)
        assert one.engines


def test_the_command_line(capsys, monkeypatch):
    chosen = [method for method in METHODS if method.title in ("not quantized", "AWQ", "GGUF, simple types")]
    monkeypatch.setattr(advice, "METHODS", tuple(chosen))
    assert main(["formats", MODEL, "--gpu", "rtx3060", "--context", "16k", "--offline", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["formats"][0]["weight_bytes"] == 16_381_470_720
    assert [one["format"] for one in printed["formats"] if one["finest"]] == ["q8_0"]
    assert main(["formats", MODEL, "--gpu", "2GiB", "--offline"]) == 1
    shown = capsys.readouterr().out
    assert "do not fit: --all" in shown
    with pytest.raises(BadInput, match="is a GGUF file"):
        main(["formats", f"{MODEL}:Q4_K_M", "--gpu", "rtx3060", "--offline"])
