"""`willfit trace` as a user runs it: what it prints, what it writes, and what it says of input that cannot be used."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jsonschema
import program
import pytest

import willfit.surfaces

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fake CUDA is for Linux")

SCHEMA = json.loads((Path(willfit.surfaces.__file__).parent / "estimate.schema.json").read_text("utf-8"))
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8000,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return str(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


def trace(cache, *words):
    return program.willfit("trace", *words, **cache)


def answered(cache, *words):
    done = trace(cache, *words, "--json")
    assert not done.stderr
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    return done.returncode, answer


def bytes_of(answer, name):
    return next(term["bytes"] for term in answer["devices"][0]["terms"] if term["name"] == name)


def test_terms_are_those_of_the_model(model, cache):
    status, answer = answered(cache, model, "--batch", "2", "--seq-len", "128", "--gpu", "24GiB")
    assert (status, answer["verdict"]) == (0, "fits")
    h, f, v, layers = 512, 1024, 8000, 4
    parameters = 2 * v * h + h + layers * (2 * h + h * h * 2 + 2 * h * 128 + 3 * h * f)
    # In bf16, as the config says; two moments for each; counters of steps in float32, one for each tensor.
    assert bytes_of(answer, "weights") == 2 * parameters
    states = answer["trace"]["optimizer_states"]
    assert states["exp_avg"] == states["exp_avg_sq"] == 2 * parameters
    # Attention masks, labels and tokens in int64.
    assert bytes_of(answer, "inputs") == 3 * 2 * 128 * 8
    total = sum(term["bytes"] for term in answer["devices"][0]["terms"])
    assert total == answer["devices"][0]["peak_bytes"]
    seen = answer["trace"]
    assert seen["requested_bytes"] <= seen["allocated_bytes"] <= seen["smallest_bytes"]
    assert seen["smallest_bytes"] <= seen["unlimited_reserved_bytes"]


def test_checkpointing_lora_and_attention_are_what_is_run(model, cache):
    words = (model, "--batch", "4", "--seq-len", "1k", "--gpu", "24GiB")
    peaks = {}
    for name, more in {
        "full": (),
        "checkpointed": ("--checkpointing",),
        "lora": ("--lora", "r=8,targets=q_proj,v_proj"),
        "eager": ("--attn", "eager"),
    }.items():
        _, answer = answered(cache, *words, *more)
        peaks[name] = answer["trace"]["allocated_bytes"]
    assert peaks["checkpointed"] < peaks["full"] < peaks["eager"]
    assert peaks["lora"] < peaks["full"]


def test_pictures_and_snapshot_are_written(model, cache, tmp_path):
    files = {name: tmp_path / f"out.{name}" for name in ("pickle", "html", "svg")}
    done = trace(
        cache, model, "--seq-len", "128", "--snapshot", str(files["pickle"]), "--html", str(files["html"]),
        "--timeline", str(files["svg"]),
    )  # fmt: skip
    assert done.returncode == 0
    snapshot = pickle.loads(files["pickle"].read_bytes())
    assert {"segments", "device_traces"} <= snapshot.keys()
    assert "<svg" in files["svg"].read_text()
    assert "plotly" in files["html"].read_text().lower()


def test_what_does_not_fit_says_so_in_pytorchs_words(model, cache):
    status, answer = answered(cache, model, "--batch", "8", "--seq-len", "4k", "--gpu", "4GiB")
    assert (status, answer["verdict"]) == (1, "does_not_fit")
    assert answer["trace"]["out_of_memory"].startswith("CUDA out of memory. Tried to allocate")


def test_a_trace_that_was_made_before_needs_no_child(model, cache):
    words = (model, "--seq-len", "128", "--gpu", "24GiB")
    first = answered(cache, *words)
    assert (Path(cache["XDG_CACHE_HOME"]) / "willfit" / "traces").exists()
    # Nothing that answers from the cache imports torch.
    probe = (
        "import sys, willfit.surfaces.cli as cli\n"
        "try: cli.run()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, "trace", *words, "--json"],
        capture_output=True,
        env={**os.environ, **cache},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == first[1]


def test_allocator_settings_count(model, cache):
    words = (model, "--batch", "2", "--seq-len", "512", "--gpu", "24GiB")
    _, plain = answered(cache, *words)
    _, grown = answered(cache, *words, "--alloc-conf", "expandable_segments:True")
    _, said = answered({**cache, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}, *words)
    assert grown["trace"]["unlimited_reserved_bytes"] != plain["trace"]["unlimited_reserved_bytes"]
    assert said == grown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no model was given"),
        (("Qwen/Qwen3-8B", "--seq-len", "1k", "--alloc-conf", "no_such:1"), "no_such"),
        (("Qwen/Qwen3-8B", "--seq-len", "1k", "--html", "/no/such/folder/x.html"), "/no/such/folder"),
        (("Qwen/Qwen3-8B", "--seq-len", "1k", "--zero", "3"), "DeepSpeed is not traced"),
        (("Qwen/Qwen3-8B", "--seq-len", "1k", "--compile"), "torch.compile"),
        (("Qwen/Qwen3-8B", "--seq-len", "1k", "--objective", "dpo"), "dpo is not traced"),
        (("Qwen/Qwen3-8B", "--seq-len", "1k", "--engine", "megatron"), "megatron's own model code"),
        (("Qwen/Qwen3-8B", "--", "python", "train.py"), "stands before --"),
        (("google/gemma-2-2b", "--seq-len", "1k", "--attn", "sdpa"), "runs gemma2 with no sdpa"),
    ],
)
def test_what_cannot_be_traced_is_one_line(words, said, cache):
    done = trace(cache, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert done.stderr.startswith("willfit: ")
