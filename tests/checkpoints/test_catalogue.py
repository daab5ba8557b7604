import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from willfit.checkpoints import catalogue
from willfit.checkpoints.catalogue import catalogue_ids, find, similar_ids
from willfit.checkpoints.locate import locate
from willfit.errors import BadInput

LINES = [json.loads(line) for line in catalogue._FILE.read_bytes().splitlines()]
ROOT = Path(__file__).parents[2]


def test_every_model_is_found_by_its_id_in_any_case():
    for line in LINES:
        for name in (line["id"], line["id"].upper(), line["id"].lower()):
            entry = find(name)
            assert entry is not None
            assert (entry.id, entry.config, entry.facts) == (line["id"], line["config"], line["catalog"])


def test_the_file_is_sorted_without_duplicates():
    keys = [line["key"] for line in LINES]
    assert keys == sorted(set(keys)) == [line["id"].lower() for line in LINES]
    assert catalogue_ids() == [line["id"] for line in LINES]
    assert len(LINES) > 600


def test_a_name_without_its_organisation():
    assert find("qwen3-8B").id == "Qwen/Qwen3-8B"
    assert find("llama-3.1-8b").id == "meta-llama/Llama-3.1-8B"
    assert find("gpt2").config["n_embd"] == 768
    assert find("wen3-8b") is None
    assert find("Qwen/") is None
    assert find('Qwen3-8B","id"') is None


def test_an_ambiguous_name_lists_its_models(monkeypatch):
    lines = b"".join(
        b'{"key":"%b/m","id":"%b/M","config":{},"catalog":{}}\n' % (org, org) for org in (b"a", b"b")
    )
    monkeypatch.setattr(catalogue, "_data", lambda: lines)
    with pytest.raises(BadInput, match="a/M, b/M"):
        find("m")
    assert find("b/m").id == "b/M"


def test_of_copies_under_one_name_the_original_is_meant():
    assert find("unsloth/Qwen3-8B").facts["mirror_of"] == "Qwen/Qwen3-8B"
    assert find("qwen3-8b").id == "Qwen/Qwen3-8B"
    assert (
        find("meta-llama-3.1-8b-instruct").id == "meta-llama/Llama-3.1-8B-Instruct"
    )  # copies alone have this name
    assert find("meta-llama-3.1-8b").id == "meta-llama/Meta-Llama-3.1-8B"


def test_an_organisation_under_its_former_name():
    assert find("THUDM/chatglm3-6b").id == "zai-org/chatglm3-6b"
    assert find("CohereForAI/c4ai-command-r-v01").id == "CohereLabs/c4ai-command-r-v01"
    assert not {line["key"].split("/")[0].encode() for line in LINES} & set(catalogue._MOVED)


#: Models of training cases of which no config could be found: OpenBuddy's vocabulary is its own, of unknown size.
NOT_FOUND = {"OpenBuddy/openbuddy-zephyr-7b-v14.1"}


def test_which_models_of_training_cases_are_found_without_a_network():
    lines = (ROOT / "tests" / "data" / "cases" / "training.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) > 500
    missing = set()
    for name in {case[key] for case in cases for key in ("model", "catalogue") if case.get(key)}:
        try:
            assert locate(name, offline=True).source == "catalogue"
        except BadInput:
            missing.add(name)
    assert missing == NOT_FOUND


def test_ids_can_be_narrowed_and_misspelt():
    assert all("deepseek-v3" in name.lower() for name in catalogue_ids("DeepSeek-V3"))
    assert len(catalogue_ids("DeepSeek-V3")) > 3
    assert similar_ids("meta-lama/Llama-3.1-8B")[0] == "meta-llama/Llama-3.1-8B"
    assert similar_ids("mixtral-8x7b-v1")[0] == "mistralai/Mixtral-8x7B-v0.1"
    assert similar_ids("zzzzzzzz") == []


def test_a_look_up_takes_milliseconds():
    names = random.Random(0).sample([line["id"] for line in LINES if len(str(line)) < 50_000], 50)
    find(names[0])
    start = time.perf_counter()
    for name in names:
        find(name)
    assert (time.perf_counter() - start) / 50 < 0.01  # 0.2 ms where this was written


def test_the_script_writes_what_is_looked_up(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("B/x", "a/Y"):
        fields = {
            "_catalog": {"hf_id": name, "params_total": 5, "note": "dropped"},
            "limit": [0.0, float("inf")],
        }
        (tmp_path / "in" / f"{name.replace('/', '--')}.json").write_text(json.dumps(fields))
    added = {
        "id": "c/Z",
        "like": "a/Y",
        "config": {"width": 3, "limit": None},
        "catalog": {"source": "a page"},
    }
    (tmp_path / "more.jsonl").write_text(json.dumps(added) + "\n")
    command = [
        sys.executable,
        ROOT / "scripts" / "build_catalogue.py",
        tmp_path / "in",
        tmp_path / "out.jsonl",
        "--additions",
        tmp_path / "more.jsonl",
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out.jsonl").read_text() == (
        '{"key":"a/y","id":"a/Y","config":{"limit":[0.0,Infinity]},"catalog":{"params_total":5}}\n'
        '{"key":"b/x","id":"B/x","config":{"limit":[0.0,Infinity]},"catalog":{"params_total":5}}\n'
        '{"key":"c/z","id":"c/Z","config":{"width":3},"catalog":{"source":"a page"}}\n'
    )
