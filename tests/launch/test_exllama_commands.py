"""Commands that start tabbyAPI and ExLlama's own scripts."""

import shlex

import pytest

from willfit.engines import exllamav2, exllamav3
from willfit.errors import BadInput
from willfit.launch.tabby import model_and_format
from willfit.launch.table import is_program, parse_command

CONFIG = """
network:
  port: 5000
model:
  model_dir: models
  model_name: Qwen3-8B-exl3_4.0bpw
  max_seq_len: -1
  cache_size: 65536
  cache_mode: 8,4
  chunk_size: 4096
  gpu_split: [20, 24.5]
  autosplit_reserve: [96, 512]
  tensor_parallel: false
  vision: true
  max_batch_size:
draft_model:
  draft_mode: mtp
  draft_cache_mode: Q4
  draft_num_tokens: 2
memory:
  sysmem_kv_cache: 1024
"""


def read(line, version=None):
    return parse_command(shlex.split(line), version)


def test_the_file_that_lies_beside_it_shows_whose_main_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="cannot read the command"):
        read("python main.py")
    (tmp_path / "config.yml").write_text(CONFIG)
    assert read("python main.py").engine == "exllamav3"
    with pytest.raises(BadInput, match="cannot read the command"):
        read("python main.py --train")
    assert is_program("tabbyapi")
    assert is_program("./tabbyAPI")


@pytest.mark.parametrize(
    "start", ["python main.py", "python3 start.py", "./start.sh", "tabbyAPI", "uv run main.py"]
)
def test_the_file_is_read(start, tmp_path, monkeypatch):
    path = tmp_path / "config.yml"
    path.write_text(CONFIG)
    launch = read(f"{start} --config {path}")
    assert (launch.engine, launch.model, launch.format_name) == ("exllamav3", "Qwen3-8B", "exl3-4.0bpw")
    assert launch.settings == exllamav3.Settings(
        cache_size=65_536, cache_mode="8,4", chunk_size=4096, gpu_split=(20.0, 24.5), autosplit_reserve=(96.0, 512.0),
        vision=True, draft_mode="mtp", draft_cache_mode="Q4", draft_num_tokens=2, sysmem_kv_cache=1024,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    plain = read(f"{start} --model-name Other-exl3 --cache-mode Q8")
    assert (plain.model, plain.settings.cache_mode, plain.settings.cache_size) == ("Other", "Q8", 65_536)
    assert "settings are taken from config.yml" in plain.notes


def test_flags_win_over_variables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = "TABBY_MODEL_MODEL_NAME=a/b TABBY_MODEL_CACHE_SIZE=8192 TABBY_MODEL_CACHE_MODE=Q4 python main.py"
    launch = read(f"{line} --cache-mode Q6 --gpu-split 10 12")
    assert launch.model == "a/b"
    assert launch.settings == exllamav3.Settings(cache_size=8192, cache_mode="Q6", gpu_split=(10.0, 12.0))
    docker = "docker run --gpus all -e TABBY_MODEL_MODEL_NAME=a/b ghcr.io/theroyallab/tabbyapi:latest"
    assert read(docker).model == "a/b"
    assert read(f"{docker} main.py --cache-size 4096").settings.cache_size == 4096


def test_the_older_backend():
    launch = read(
        "python main.py --model-name Llama-3-8B-4.65bpw-h6-exl2 --cache-mode 8,8 --draft-model-name small"
    )
    assert (launch.engine, launch.model, launch.format_name) == ("exllamav2", "Llama-3-8B", "exl2-4.65bpw")
    # It sets modes of the newer one aside.
    assert launch.settings == exllamav2.Settings(draft=True)
    assert launch.draft.model == "small"
    assert (
        read("python main.py --model-name x --backend exllamav2 --cache-mode Q6").settings.cache_mode == "Q6"
    )


def test_scripts_of_the_libraries():
    launch = read("python test_inference.py -m /models/x -l 4096 -gs 20,24 -cq4 -nfa -t 200 -s")
    assert (launch.engine, launch.model) == ("exllamav2", "/models/x")
    assert launch.settings == exllamav2.Settings(
        max_seq_len=4096, cache_size=4096, gpu_split=(20.0, 24.0), cache_mode="Q4", max_output_len=None,
        autosplit_reserve=(192, 64), flash_attention=False,
    )  # fmt: skip
    newer = read(
        "python examples/chat.py -m /m/y-exl3-3.5bpw -cs 65536 -cq 8,4 -mcl 12 -mtp -ccs 2.5 -mode raw"
    )
    assert (newer.model, newer.format_name) == ("/m/y", "exl3-3.5bpw")
    assert newer.settings == exllamav3.Settings(
        max_seq_len=65_536, cache_size=65_536, cache_mode="8,4", cpu_moe_offload_layers=12, draft_mode="mtp",
        sysmem_kv_cache=2560, autosplit_reserve=(),
    )  # fmt: skip
    assert read("python examples/chat.py -m /m/z-exl2 -l 8192 -mode llama").engine == "exllamav2"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Qwen3-8B-exl3_4.0bpw", ("Qwen3-8B", "exl3-4.0bpw")),
        ("turboderp/Qwen3.8-27B-exl3", ("turboderp/Qwen3.8-27B", None)),
        ("a_b-2.65bpw-h6-exl2", ("a_b", "exl2-2.65bpw")),
        ("x-exl3-3.5bpw-h8", ("x", "exl3-3.5bpw")),
        ("Mistral-7B-Instruct-v0.3", ("Mistral-7B-Instruct-v0.3", None)),
    ],
)
def test_names_that_say_how_weights_are_stored(name, found):
    assert model_and_format(name) == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python main.py --max-seq-len 4096", "no model is named"),
        ("python main.py --model-name x --vision maybe", "expected true or false"),
        ("python main.py --model-name x --gpu-split a", "expected a number"),
        ("python main.py --model-name x --backend vllm", "no backend vllm"),
        ("python main.py --model-name x --draft-mode eagle", "no draft_mode eagle"),
        ("python main.py --model-name x --cache-siz 3x", "cache_size is '3x'"),
        ("python main.py --model-name x y", "belongs to no flag"),
        ("python main.py --epochs 3", "cannot read the command"),
        ("python test_inference.py -m x -gs big", "expected a size"),
    ],
)
def test_what_is_wrong(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        read(line)


def test_a_file_without_sections(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text("model: 3")
    with pytest.raises(BadInput, match="does not hold names and values"):
        read(f"python main.py --config {path}")
    with pytest.raises(BadInput, match=r"gone\.yml is not here"):
        read(f"python main.py --config {tmp_path / 'gone.yml'}")
    path.write_text("model: {model_name: x, gpu_split: [big]}")
    with pytest.raises(BadInput, match=r"gpu_split is .* expected numbers"):
        read(f"python main.py --config {path}")
