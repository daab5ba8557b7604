"""`willfit compare A B` as a user types it."""

import json
import re

import pytest
from program import in_terminal, willfit

MODEL = "Qwen/Qwen3-8B"
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
    assert set(found) == {"a", "b", "differs", "engine_changes", "device", "host", "figures"}
    assert found["a"] == json.loads(willfit(MODEL, *options).stdout)
    assert found["b"] == json.loads(willfit(MODEL, "-f", "fp8", *options).stdout)
    device = found["device"]
    assert set(device) == {"a", "b", "difference_bytes", "terms"}
    assert device["difference_bytes"] == device["b"]["peak_bytes"] - device["a"]["peak_bytes"]
    assert device["difference_bytes"] == sum(term["difference_bytes"] for term in device["terms"])
    assert set(device["terms"][0]) == {
        *("name", "a_bytes", "b_bytes", "difference_bytes", "reasons", "a_formula", "b_formula")
    }
    weights = next(term for term in device["terms"] if term["name"] == "weights")
    alone = next(term for term in found["b"]["devices"][0]["terms"] if term["name"] == "weights")
    assert (weights["b_bytes"], weights["b_formula"]) == (alone["bytes"], alone["formula"])
    assert [figure["name"] for figure in found["figures"]] == [
        *("cache_needed_bytes", "kv_cache_tokens", "max_context", "max_concurrency")
    ]
    for figure in found["figures"]:
        assert figure["difference"] == pytest.approx(figure["b"] - figure["a"], abs=1e-3)


@pytest.mark.parametrize("width", ["80", "130"])
def test_the_table_keeps_within_the_terminal(width):
    sides = (f"{MODEL} --engine-version 0.19.1", "google/gemma-3-12b-it --engine transformers")
    printed = in_terminal("compare", *sides, "--gpu", "h100", COLUMNS=width)
    assert ESCAPE.search(printed)
    lines = [ESCAPE.sub("", line).rstrip() for line in printed.replace("\r", "").splitlines()]
    assert max(map(len, lines)) <= int(width)
    # Both formulas stand where nothing explains a difference.
    text = " ".join(" ".join(lines).split())
    assert "A: the sampler, largest of " in text
    assert "B: prefill" in text
    total = next(line for line in lines if line.startswith("    total"))
    assert len(re.findall(r"GiB", total)) == 3
