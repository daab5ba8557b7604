"""`willfit compare A B` as a user types it."""

import json
import re
from itertools import product

import jsonschema
import pytest
from program import in_terminal, willfit

from willfit.asking import answer_about, machine_of
from willfit.comparing import compare
from willfit.engines.base import Question
from willfit.surfaces.cli.commands.schema import comparison_schema

MODEL = "Qwen/Qwen3-8B"
SCHEMA = comparison_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("a", "b", "options", "status"),
    [
        (MODEL, f"{MODEL} --format fp8", ("--gpu", "rtx4090", "--context", "32k"), 0),
        (f"{MODEL} --format fp8", f"{MODEL} -u 4", ("--gpu", "rtx4090", "--context", "32k"), 1),
        (MODEL, f"{MODEL} --gpu 12GiB", ("--gpu", "h100"), 1),
        (f"{MODEL} --gpu 12GiB", MODEL, ("--gpu", "h100"), 0),
        (f"vllm serve {MODEL} --max-model-len 8192", f"{MODEL} -c 8k", ("--gpu", "l40s"), 0),
        (MODEL, f"vllm serve {MODEL} -tp 3", ("--gpu", "4xl4"), 1),
    ],
)
def test_exit_status_says_whether_b_fits(a, b, options, status):
    done = willfit("compare", a, b, *options)
    assert (done.returncode, done.stderr) == (status, "")
    verdicts = [line for line in done.stdout.splitlines() if line.startswith((" A ", " B "))]
    assert len(verdicts) == 2
    assert ("does not fit" in verdicts[1] or "would not start" in verdicts[1]) == (status == 1)


WRONG = {
    "an unknown device": (MODEL, f"{MODEL} --gpu rtx9999", "side B: unknown device"),
    "a misspelt option": (f"{MODEL} --contxt 4k", MODEL, "side A: there is no option --contxt"),
    "an open quotation": (MODEL, f"'{MODEL}", "side B: no closing quotation"),
    "nothing": ("", MODEL, "side A: no model"),
    "an option without a model": (MODEL, " --context 4k", "side B: no model"),
    "two models on a side": (MODEL, f"{MODEL} {MODEL}", "side B: 'Qwen/Qwen3-8B' is one word too many"),
    "an option of the comparison": (MODEL, f"{MODEL} --json", "side B: --json stands outside"),
    "half a launch command": ("vllm serve", MODEL, "side A: vllm serve: no model is named"),
    "a model that is not there": (MODEL, "no-such/model", "side B: no-such/model"),
    "an unknown engine": (f"{MODEL} -e vlm", MODEL, "side A: unknown engine"),
}


@pytest.mark.parametrize(("a", "b", "part"), WRONG.values(), ids=WRONG)
def test_wrong_input_ends_in_one_line_that_says_which_side(a, b, part):
    done = willfit("compare", a, b, "--gpu", "l4", "--offline")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert part in done.stderr


def test_what_is_wrong_outside_of_both():
    assert "required: B" in willfit("compare", MODEL).stderr
    assert "one word too many" in willfit("compare", MODEL, MODEL, MODEL, "--gpu", "l4").stderr
    clash = willfit("compare", MODEL, f"vllm serve {MODEL}", "--gpu", "l4", "--context", "4k")
    assert "side B: --context does not go with a launch command" in clash.stderr


def test_options_inside_a_side_win_over_those_outside():
    done = willfit("compare", MODEL, f"{MODEL} --context 4k", "--context", "8k", "--gpu", "l40s", "--json")
    assert json.loads(done.stdout)["differs"] == [{"what": "context", "a": "8,192", "b": "4,096"}]


def test_json_holds_both_estimates_as_they_are_alone_and_their_difference():
    options = ("--gpu", "l40s", "--json")
    found = json.loads(willfit("compare", MODEL, f"{MODEL} -f fp8", *options).stdout)
    VALIDATOR.validate(found)
    assert found["a"] == json.loads(willfit(MODEL, *options).stdout)
    assert found["b"] == json.loads(willfit(MODEL, "-f", "fp8", *options).stdout)
    device = found["device"]
    assert set(device) == {"a", "b", "difference_bytes", "terms"}
    assert device["difference_bytes"] == device["b"]["peak_bytes"] - device["a"]["peak_bytes"]
    assert device["difference_bytes"] == sum(term["difference_bytes"] for term in device["terms"])
    weights = next(term for term in device["terms"] if term["name"] == "weights")
    alone = next(term for term in found["b"]["devices"][0]["terms"] if term["name"] == "weights")
    assert (weights["b_bytes"], weights["b_formula"]) == (alone["bytes"], alone["formula"])
    assert weights["b_reference"] == alone["reference"]
    assert sum(reason["difference"] for reason in weights["reasons"]) == weights["difference_bytes"]
    assert [figure["name"] for figure in found["figures"]] == [
        *("cache_needed_bytes", "kv_cache_tokens", "max_context", "max_concurrency")
    ]
    for figure in found["figures"]:
        assert figure["difference"] == pytest.approx(figure["b"] - figure["a"], abs=1e-3)


def test_the_schema_is_what_the_program_prints_and_holds_that_of_an_estimate():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(willfit("schema", "comparison").stdout) == SCHEMA
    alone = json.loads(willfit("schema").stdout)
    assert SCHEMA["$defs"]["estimate"]["required"] == alone["required"]
    assert {key: SCHEMA["$defs"][key] for key in alone["$defs"]} == alone["$defs"]


def test_comparisons_of_any_engines_validate():
    questions = [
        (MODEL, "rtx4090", "vllm", Question(4096)),
        (MODEL, "2xl40s", "sglang", Question(8192, 4)),
        ("google-bert/bert-large-uncased", "cpu", "transformers", Question(512)),
        ("state-spaces/mamba-130m-hf", "12GiB", "minimum", Question(4096)),
        ("Qwen/Qwen3-8B-AWQ", "mi300x", "vllm", Question(4096, 2, "fp8")),
    ]
    answers = [
        answer_about(model, machine_of(gpu, "64GiB"), question, engine, offline=True)
        for model, gpu, engine, question in questions
    ]
    for a, b in product(answers, answers):
        VALIDATOR.validate(json.loads(json.dumps(compare(a, b).as_json(), allow_nan=False)))


def test_the_schema_refuses_what_a_comparison_is_not():
    good = json.loads(willfit("compare", MODEL, f"{MODEL} -f fp8", "--gpu", "l40s", "--json").stdout)
    for path, wrong in (
        (("summary",), []),
        (("device", "terms", 0, "reasons"), ["words alone"]),
        (("figures", 0, "name"), "room"),
        (("a", "verdict"), "maybe"),
    ):
        changed = json.loads(json.dumps(good))
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = wrong
        assert not VALIDATOR.is_valid(changed), path


@pytest.mark.parametrize("width", ["80", "100", "140"])
@pytest.mark.parametrize("more", [(), ("--explain",)])
def test_the_table_keeps_within_the_terminal(width, more):
    sides = (f"{MODEL} --engine-version 0.19.1", "google/gemma-3-12b-it --engine transformers")
    printed = in_terminal("compare", *sides, "--gpu", "h100", *more, COLUMNS=width)
    assert ESCAPE.search(printed)
    lines = [ESCAPE.sub("", line).rstrip() for line in printed.replace("\r", "").splitlines()]
    assert max(map(len, lines)) <= int(width)
    text = " ".join(" ".join(lines).split())
    assert "A fills what its budget leaves" in text
    assert ("vllm/v1/worker/gpu_worker.py: determine_available_memory" in text) == bool(more)
    total = next(line for line in lines if line.startswith("    total"))
    assert len(re.findall(r"GiB", total)) == 3
    assert not any("…" in line for line in lines)


def test_a_pipe_gets_no_colours_and_no_spaces_at_the_ends_of_sentences():
    printed = willfit("compare", MODEL, f"{MODEL} -u 4", "--gpu", "h100").stdout
    assert not ESCAPE.search(printed)
    sentences = [line for line in printed.splitlines() if re.match(r"  [→·]|      [+−]", line)]
    assert len(sentences) > 4
    assert [line for line in sentences if line.endswith(" ")] == []


@pytest.mark.parametrize(("encoding", "sign"), [("gbk", "-"), ("ascii", "-"), ("utf-8", "−")])
def test_a_minus_is_never_lost(encoding, sign):
    done = willfit(
        "compare", MODEL, f"{MODEL} -f fp8", "--gpu", "h100", PYTHONIOENCODING=encoding, PYTHONUTF8="0"
    )
    weights = next(line for line in done.stdout.splitlines() if re.match(r"  \S+ weights ", line))
    assert re.search(rf"{sign}6\.\d+ GiB", weights), weights
