"""A row says what the command line says of the same question, alone or in columns."""

from __future__ import annotations

import io
import json
import random
import sys

import pyarrow.parquet as pq
import pytest

from willfit.asking import answer_about, machine_of, train_about
from willfit.checkpoints.catalogue import catalogue_ids
from willfit.engines.base import Question
from willfit.errors import BadInput
from willfit.hardware.table import all_devices
from willfit.planning.binding import places
from willfit.surfaces.cli.training_options import training_settings
from willfit.sweeping.chunks import chunks_of
from willfit.sweeping.grid import grid_of
from willfit.sweeping.options import parsed
from willfit.sweeping.tables import parquet_of

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip


def rows(written):
    """All rows of a grid, as Parquet gives them."""
    found = []
    for chunk in chunks_of(grid_of(written)):
        found += pq.read_table(io.BytesIO(parquet_of(chunk.text))).to_pylist()
    return found


def assert_says(row, estimate):
    """Compare a row with an estimate, through the JSON that is published."""
    published = json.loads(json.dumps(estimate.as_json()))
    device = max(published["devices"], key=lambda one: one["peak_bytes"] - one["usable_bytes"])
    for name in ("usable_bytes", "peak_bytes", "low_bytes", "high_bytes"):
        assert row[name] == device[name], name
    for name in ("engine", "engine_version", "verdict", "probability"):
        assert row[name] == published[name], name
    assert row["host_bytes"] == published["host"]["peak_bytes"]
    assert row["refusal"] == published.get("refusal")
    assert row["spare_bytes"] == min(place.room_bytes - place.needed_bytes for place in places(estimate))
    pools = [(demand.pool_bytes, demand.needed_bytes) for demand in estimate.demands]
    assert (row["pool_bytes"], row["needed_bytes"]) == (pools[0] if pools else (None, None))
    assert row["error"] is None


@pytest.mark.parametrize("engine", [None, "vllm", "llama.cpp", "sglang"])
def test_rows_are_what_the_question_alone_is_answered(engine):
    draw = random.Random(11)
    in_columns = engine in (None, "vllm")
    models = draw.sample(catalogue_ids(), 12 if in_columns else 1)
    devices = [one.name for one in draw.sample(all_devices(), 12 if in_columns else 3)]
    gpus = [f"{count}x{name}" for name in devices for count in (1, 2, 8)] + ["rtx3090,rtx4090", "40GiB"]
    written = {
        "vary": {"model": models, "format": [None, "fp8", "awq"], "users": [1, 16], "gpu": gpus},
        "fixed": {"context": "8k", "engine": engine, "offline": True},
    }
    found = rows(written)
    assert len(found) == len(models) * 3 * 2 * len(gpus)
    seen = set()
    for row in draw.sample(found, 250 if in_columns else 20):
        question = Question(8192, row["users"])
        try:
            answer = answer_about(
                row["model"], machine_of(row["gpu"]), question, engine, row["format"], offline=True
            )
        except BadInput as error:
            said = str(error)
        else:
            said = None
            assert_says(row, answer.estimate)
        assert row["error"] == said
        if said:
            assert (row["engine"], row["verdict"], row["peak_bytes"]) == (engine, None, None)
        seen.add(row["verdict"])
    assert {"fits", "does_not_fit"} <= seen or not in_columns


def test_a_host_whose_ram_is_known_and_speeds_are_as_alone():
    found = rows(
        {
            "vary": {"gpu": ["rtx4090", "l40s", "2xh100"], "users": [1, 8]},
            "fixed": {"model": "Qwen/Qwen3-8B", "context": 8192, "host-ram": "64GiB", "engine": "vllm"},
            "speed": True,
        }
    )
    for row in found:
        machine = machine_of(row["gpu"], "64GiB")
        answer = answer_about("Qwen/Qwen3-8B", machine, Question(8192, row["users"]), "vllm").estimate
        assert_says(row, answer)
        rate = answer.details["speed"]["tokens_per_s"]
        for name, key in (("", "value"), ("_low", "low"), ("_high", "high")):
            assert row[f"tokens_per_s{name}"] == pytest.approx(rate[key], rel=1e-3)


def test_training_rows_are_what_willfit_train_answers():
    options = {"model": "Qwen/Qwen3-8B", "seq_len": 2048, "offline": True}
    written = {
        "run": "train",
        "vary": {
            "method": ["full", "lora", "qlora", "lorra"], "checkpointing": [None, True, "every-2"],
            "gpu": ["rtx4090", "8xh100"],
        },
        "fixed": {"model": "Qwen/Qwen3-8B", "seq-len": "2k", "offline": True},
        "speed": True,
    }  # fmt: skip
    found = rows(written)
    assert len(found) == 24
    errors = [row for row in found if row["error"]]
    assert {row["method"] for row in errors} == {"lorra"}
    assert len(errors) == 6
    for row in found:
        if row["error"] is None:
            point = {**options, "method": row["method"], "checkpointing": row["checkpointing"]}
            settings = training_settings(parsed("train", point))
            answer = train_about("Qwen/Qwen3-8B", machine_of(row["gpu"]), settings, offline=True).estimate
            assert_says(row, answer)
            assert row["allocated_bytes"] == answer.details["training"]["allocated"]["bytes"]
            assert row["tokens_per_s"] == pytest.approx(
                answer.details["speed"]["tokens_per_s"]["value"], rel=1e-3
            )


@pytest.mark.skipif(sys.platform != "linux", reason="fake CUDA is for Linux")
def test_traces_are_those_of_willfit_trace(tmp_path, monkeypatch):
    from willfit.allocator.settings import AllocatorSettings
    from willfit.tracing import asking

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    written = {
        "run": "trace",
        "vary": {"seq-len": [64, 128], "gpu": [None, "a100-80g"], "method": ["full", "lorra"]},
        "fixed": {"model": str(tmp_path), "offline": True},
    }
    found = rows(written)
    assert [(row["seq_len"], row["method"], row["device"]) for row in found] == [
        (seq_len, method, device)
        for seq_len in (64, 128)
        for method in ("full", "lorra")
        for device in (None, "A100 SXM4 80GB")
    ]
    assert all((row["error"] is None) == (row["method"] == "full") for row in found)
    row = found[1]
    settings = training_settings(
        parsed("trace", {"model": "", "seq_len": 64, "method": "full"}), "transformers"
    )
    alone = asking.answered(
        asking.training(str(tmp_path), machine_of("a100-80g"), settings, AllocatorSettings(), offline=True)
    )
    assert_says(row, alone.estimate)
    assert row["allocated_bytes"] == alone.estimate.details["trace"]["allocated_bytes"]
    assert found[0]["verdict"] == "unknown"
    assert found[0]["usable_bytes"] is None


def test_a_mistake_of_ours_costs_one_point(monkeypatch):
    import willfit.sweeping.questions.serving as serving

    asked = serving.ask_usual

    def ask(engine, subject, machine, *rest):
        if len(machine.devices) == 2:
            raise KeyError("layers")
        return asked(engine, subject, machine, *rest)

    monkeypatch.setattr(serving, "ask_usual", ask)
    fixed = {"model": "Qwen/Qwen3-8B", "engine": "sglang"}
    found = rows({"vary": {"gpu": {"devices": ["h100"], "counts": [1, 2, 4]}}, "fixed": fixed})
    assert [row["error"] for row in found] == [None, "internal error: KeyError: 'layers'", None]


def test_other_code_is_not_asked():
    chunk = chunks_of(grid_of({"fixed": {"model": "Qwen/Qwen3-8B", "gpu": "rtx4090"}}))[0]
    with pytest.raises(BadInput, match=r"a worker has willfit .*, and the sweep willfit 0\.0\.1"):
        parquet_of(chunk.text.replace(chunk.made_by, "willfit 0.0.1"))
