"""Bundled models that a machine runs, as asking about each one says."""

from __future__ import annotations

import json

import pytest

from willfit.asking import find_subject, machine_of
from willfit.checkpoints.catalogue import find
from willfit.engines.base import Question
from willfit.engines.table import ask
from willfit.planning.formats import ladder
from willfit.planning.what import tasks_of, usual_engine, what_runs
from willfit.surfaces.cli.app import main


def subject_of(model, format_name):
    return find_subject(model, format_name, offline=True)[0]


@pytest.mark.parametrize(
    ("gpu", "engine", "question"),
    [
        ("2xl40s", "vllm", Question(16_384, 8)),
        ("rtx3090", "llama.cpp", Question()),
        ("m3-max-64g", "mlx", Question()),
    ],
)
def test_each_is_the_finest_that_an_estimate_says_fits(gpu, engine, question):
    machine = machine_of(gpu)
    assert usual_engine(machine) == engine
    found = list(what_runs(machine, question, engine, subject_of, most=4))
    sizes = [one.parameters for one in found]
    assert len(found) == 4
    assert sizes == sorted(sizes, reverse=True)
    for one in found:
        assert one.estimate == ask(engine, one.subject, machine, question)
        assert one.estimate.verdict in ("fits", "tight")
        finer = []
        for name, _ in ladder(engine):
            subject = subject_of(one.subject.model, name)
            if subject.recipe.name == one.subject.recipe.name:
                break
            finer.append(ask(engine, subject, machine, question).verdict)
        assert "fits" not in finer, one.subject.model


@pytest.mark.parametrize(
    ("model", "tasks"),
    [
        ("Qwen/Qwen3-8B", {"chat"}),
        ("Qwen/Qwen2.5-Coder-7B", {"code"}),
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"chat", "vision"}),
        ("BAAI/bge-m3", {"embed"}),
        ("Qwen/Qwen3-Embedding-8B", {"embed"}),
        ("google/gemma-3-12b-pt", {"vision"}),
    ],
)
def test_what_a_model_is_good_for(model, tasks):
    assert tasks_of(find(model)) == tasks


def test_the_command_line_answers(capsys):
    assert main(["what", "--gpu", "a100-80g", "--most", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [one["engine"] for one in printed] == ["vllm"] * 3
    assert all(one["speed"]["tokens_per_s_per_user"]["value"] > 0 for one in printed)
    assert main(["what", "--gpu", "16MiB", "--most", "1"]) == 1
    assert "no bundled model fits" in capsys.readouterr().out
