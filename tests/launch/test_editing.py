"""Edits change the words that must change and no others, and are read back as what was meant."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from willfit.errors import BadInput
from willfit.launch.editing.changes import DropFlag, SetFlag, SetParameter, SetVariable, SetWord
from willfit.launch.editing.edit import edited
from willfit.launch.editing.files import standing_in
from willfit.launch.editing.place import place_of
from willfit.launch.table import parse_command

PUBLISHED = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "commands.jsonl").read_text(encoding="utf-8").splitlines()
]

#: By launcher: a flag, a value, the field that it sets, and as what it is read there.
SET = {
    "vllm": (("--max-model-len", "4112", "max_model_len", 4112), ("--kv-cache-dtype", "fp8", "kv_cache_dtype", "fp8")),
    "sglang": (("--context-length", "4112", "context_length", 4112), ("--tp-size", "2", "tp_size", 2)),
    "trtllm": (("--max_batch_size", "13", "max_batch_size", 13),),
    "tgi": (("--max-batch-prefill-tokens", "4112", "max_batch_prefill_tokens", 4112),),
    "lmdeploy": (("--session-len", "4112", "session_len", 4112),),
    "lightllm": (("--max_req_total_len", "4112", "max_req_total_len", 4112),),
    "llamacpp": (
        ("-c", "4352", "n_ctx", 4352), ("-ngl", "7", "n_gpu_layers", 7), ("-ctk", "q8_0", "cache_type_k", "q8_0"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda one: one["command"][:60])
def test_a_flag_of_a_published_command_is_set_and_nothing_else(published):
    words = shlex.split(published["command"])
    launcher = place_of(words).launcher
    for flag, value, field, read in SET.get(launcher, ()):
        before, made = parse_command(words), edited(words, [SetFlag(flag, value)]).words
        after = parse_command(made)
        assert getattr(after.settings, field) == read, made
        others = {one.name for one in fields(before.settings)} - {field}
        if published["engine"] == "llama.cpp" and flag == "-c":
            # Some programs make their batches as large as the context.
            others -= {"n_batch", "n_ubatch", "n_parallel"}
        changed = {one for one in others if getattr(before.settings, one) != getattr(after.settings, one)}
        assert (changed, after.model, after.format_name) == (set(), before.model, before.format_name)
        assert len(words) <= len(made) <= len(words) + 2


@pytest.mark.parametrize(
    ("command", "changes", "expected"),
    [
        # Aliases, joined values, underscores and abbreviations are kept as they are spelled.
        (
            "vllm serve Q/x --max_model_len=32k -tp 2",
            [SetFlag("--max-model-len", "8192"), SetFlag("--tensor-parallel-size", "4"), SetFlag("--enforce-eager")],
            "vllm serve Q/x --max_model_len=8192 -tp 4 --enforce-eager",
        ),
        (
            "vllm serve Q/x --max-model-le 5 -O3 --no-enable-prefix-caching",
            [SetFlag("--max-model-len", "7"), SetFlag("--enable-prefix-caching")],
            "vllm serve Q/x --max-model-le 7 -O3 --enable-prefix-caching",
        ),
        # The last one counts, and it alone is changed.
        ("llama-server -m x -c 1 -c 2", [SetFlag("-c", "3")], "llama-server -m x -c 1 -c 3"),
        # A value that looks like a flag is none.
        ("llama-cli -m x -p -c -ngl 9", [SetFlag("-c", "3")], "llama-cli -m x -p -c -ngl 9 -c 3"),
        ("llama-server -m x --swa-full -c 2", [DropFlag("--swa-full")], "llama-server -m x -c 2"),
        # Of a container, the engine's flags stand behind the image, and variables in front of it.
        (
            "docker run -c 4 -e A=1 vllm/vllm-openai:v0.11.0 --model Q/x -tp=2",
            [SetFlag("--tensor-parallel-size", "4"), SetFlag("--max-model-len", "9"), SetVariable("X", "2")],
            "docker run -c 4 -e A=1 -e X=2 vllm/vllm-openai:v0.11.0 --model Q/x -tp=4 --max-model-len 9",
        ),
        # In a script nothing else moves: quotes, lines that go on, what is written to files.
        (
            "bash -c 'cd /x && exec vllm serve \"Q/x y\" --max-model-len 32768 \\\n  -tp 2 > log 2>&1; date'",
            [SetFlag("--max-model-len", "8192"), SetFlag("--kv-cache-dtype", "fp8")],
            "bash -c 'cd /x && exec vllm serve \"Q/x y\" --max-model-len 8192 \\\n  -tp 2 --kv-cache-dtype fp8 "
            "> log 2>&1; date'",
        ),
        # A variable that sets the flag is changed where it stands.
        (
            "LLAMA_ARG_CTX_SIZE=32768 llama-server -m x.gguf",
            [SetFlag("-c", "8192")],
            "LLAMA_ARG_CTX_SIZE=8192 llama-server -m x.gguf",
        ),
        (
            "docker run -e MAX_TOTAL_TOKENS=4 ghcr.io/huggingface/text-generation-inference:3.3.5 --model-id x",
            [SetFlag("--max-total-tokens", "9")],
            "docker run -e MAX_TOTAL_TOKENS=9 ghcr.io/huggingface/text-generation-inference:3.3.5 --model-id x",
        ),
        (
            "OLLAMA_NUM_PARALLEL=4 ollama run qwen3:8b",
            [SetVariable("OLLAMA_NUM_PARALLEL", "1"), SetVariable("OLLAMA_CONTEXT_LENGTH", "9")],
            "OLLAMA_CONTEXT_LENGTH=9 OLLAMA_NUM_PARALLEL=1 ollama run qwen3:8b",
        ),
        # Flags of the launcher are not those of the script.
        (
            "accelerate launch --gradient_accumulation_steps 2 train.py --model_name_or_path x "
            "--per_device_train_batch_size 8",
            [SetFlag("--per_device_train_batch_size", "1"), SetFlag("--gradient_accumulation_steps", "8")],
            "accelerate launch --gradient_accumulation_steps 2 train.py --model_name_or_path x "
            "--per_device_train_batch_size 1 --gradient_accumulation_steps 8",
        ),
        (
            "tune run full_finetune_single_device --config llama3_1/8B_full_single_device batch_size=8",
            [SetWord("batch_size", "1"), SetWord("gradient_accumulation_steps", "8")],
            "tune run full_finetune_single_device --config llama3_1/8B_full_single_device batch_size=1 "
            "gradient_accumulation_steps=8",
        ),
    ],
)  # fmt: skip
def test_words_are_replaced_in_place_or_put_behind(command, changes, expected):
    assert edited(shlex.split(command), changes).words == tuple(shlex.split(expected))


@pytest.mark.parametrize(
    ("name", "text", "command", "change", "expected"),
    [
        (
            "v.yaml", "model: Q/x   # ours\nmax-model-len: 40960  # long\n", "vllm serve Q/x --config v.yaml",
            SetFlag("--max-model-len", "8192"), "model: Q/x   # ours\nmax-model-len: 8192  # long\n",
        ),
        (
            "t.yaml", "max_seq_len: 9\nkv_cache_config:\n  free_gpu_memory_fraction: 0.8 # most\n",
            "trtllm-serve Q/x --config t.yaml", SetFlag("--free_gpu_memory_fraction", "0.95"),
            "max_seq_len: 9\nkv_cache_config:\n  free_gpu_memory_fraction: 0.95 # most\n",
        ),
        (
            "a.json", '{"per_device_train_batch_size": 8,\r\n "bf16": true}', "python run_clm.py a.json",
            SetFlag("--per_device_train_batch_size", "1"), '{"per_device_train_batch_size": 1,\r\n "bf16": true}',
        ),
        (
            "a.json", '{"bf16": true}', "python run_clm.py a.json",
            SetFlag("--gradient_accumulation_steps", "8"), '{"bf16": true,\n  "gradient_accumulation_steps": 8}',
        ),
        (
            "Modelfile", "FROM llama3.2\nparameter  num_ctx  8192\n# PARAMETER num_ctx 1\n", "ollama create x",
            SetParameter("num_ctx", "4096"), "FROM llama3.2\nparameter  num_ctx  4096\n# PARAMETER num_ctx 1\n",
        ),
        (
            "Modelfile", "FROM llama3.2", "ollama create x", SetParameter("num_ctx", "4096"),
            "FROM llama3.2\nPARAMETER num_ctx 4096\n",
        ),
    ],
)  # fmt: skip
def test_a_key_of_a_file_is_changed_in_its_text_alone(
    tmp_path, monkeypatch, name, text, command, change, expected
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    made = edited(shlex.split(command), [change])
    assert (made.words, made.text) == (tuple(shlex.split(command)), expected)
    assert path.read_bytes().decode() == text  # nothing is written
    with standing_in(made.words, made.file, made.text) as words:
        copies = [word for word in words if Path(word).is_absolute()]
        assert [Path(word).read_bytes().decode() for word in copies] == [expected]
    assert not any(Path(word).exists() for word in copies)


def test_an_edited_file_is_read_with_what_stands_beside_it(tmp_path, monkeypatch):
    """`FROM ./base` of a Modelfile is a file beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    (tmp_path / "Modelfile").write_text("FROM ./base.gguf\nPARAMETER num_ctx 8192\n")
    made = edited(["ollama", "create", "x", "-f", "Modelfile"], [SetParameter("num_ctx", "4096")])
    with standing_in(made.words, made.file, made.text) as words:
        launch = parse_command(words)
        assert Path(launch.model).read_bytes() == b"GGUF"
    assert launch.settings.num_ctx == 4096


@pytest.mark.parametrize(
    ("command", "change", "message"),
    [
        ("vllm serve Q/x", SetFlag("--no-such-flag", "1"), "no flag"),
        ("mlx_lm.server --model x", SetFlag("--max-tokens", "1"), "are read, but not edited"),
        ("ollama run x", SetParameter("num_ctx", "1"), "no Modelfile"),
        ("date", SetFlag("-c", "1"), "no program that is known"),
        ("bash -c 'echo \"vllm'", SetFlag("-c", "1"), "no program that is known"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_one_line(command, change, message):
    with pytest.raises(BadInput, match=message):
        edited(shlex.split(command), [change])
