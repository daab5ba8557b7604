import json
import os
import shutil

import pytest
import torch
from checkpoint_files import gguf, info, key, safetensors, tensor
from safetensors.torch import save_file

from willfit.checkpoints.locate import locate
from willfit.checkpoints.safetensors import StoredTensor
from willfit.errors import BadInput

CONFIG = {"model_type": "llama", "hidden_size": 64}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def sharded(folder, total=None):
    """Two files: a.weight 4 x 2 fp32 = 32 B in the first, b.weight 3 bf16 = 6 B in the second."""
    save_file({"a.weight": torch.zeros(4, 2)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b.weight": torch.zeros(3, dtype=torch.bfloat16)}, folder / "model-00002-of-00002.safetensors")
    index = {
        "weight_map": {f"{n}.weight": f"model-0000{i}-of-00002.safetensors" for i, n in ((1, "a"), (2, "b"))}
    }
    index["metadata"] = {"total_size": total or 38}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


TENSORS = (StoredTensor("a.weight", "fp32", (4, 2), 32), StoredTensor("b.weight", "bf16", (3,), 6))


def test_a_directory_with_an_index(model):
    sharded(model)
    found = locate(str(model))
    assert (found.model, found.source) == (str(model), "local directory")
    assert found.config.fields == CONFIG
    assert found.tensors == TENSORS
    assert found.stored_bytes == 38
    assert found.notes == ()


def test_every_file_of_a_checkpoint_leads_to_it(model):
    sharded(model)
    for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors"):
        found = locate(str(model / name))
        assert found.source == "local file"
        assert found.config.fields == CONFIG
        assert found.tensors == TENSORS
    found = locate(str(model / "config.json"))
    assert (found.config.fields, found.tensors, found.stored_bytes) == (CONFIG, None, None)


def test_numbered_files_without_an_index(model):
    sharded(model)
    (model / "model.safetensors.index.json").unlink()
    shutil.copy(model / "model-00001-of-00002.safetensors", model / "consolidated-00001-of-00001.safetensors")
    assert locate(str(model)).tensors == TENSORS


@pytest.mark.parametrize("name", ["model.safetensors", "consolidated.safetensors", "other.safetensors"])
def test_a_single_file(model, name):
    save_file({"a.weight": torch.zeros(4, 2)}, model / name)
    save_file({"lora_A": torch.zeros(1)}, model / "adapter_model.safetensors")
    assert locate(str(model)).tensors == TENSORS[:1]
    (model / "config.json").unlink()
    found = locate(str(model))
    assert (found.config, found.stored_bytes) == (None, 32)


def test_missing_files_leave_the_config_and_what_the_index_announces(model):
    sharded(model, total=38.0)
    (model / "model-00002-of-00002.safetensors").unlink()
    found = locate(str(model))
    assert (found.tensors, found.stored_bytes) == (None, 38)
    assert "model-00002-of-00002.safetensors does not exist" in found.notes[0]
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (model / "model-00002-of-00002.safetensors").write_bytes(pointer)
    assert "Git LFS pointer" in locate(str(model)).notes[0]
    (model / "model.safetensors.index.json").unlink()
    (model / "model-00002-of-00002.safetensors").unlink()
    found = locate(str(model))
    assert (found.tensors, found.stored_bytes) == (None, None)
    assert "model-00002-of-00002.safetensors is missing" in found.notes[0]


def test_an_index_alone_is_no_model(model):
    sharded(model)
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (model / name).unlink()
    for path in (model, model / "model.safetensors.index.json"):
        with pytest.raises(
            BadInput, match=r"no config.json, and .*model-00001-of-00002.safetensors does not exist"
        ):
            locate(str(path))


def test_two_files_with_the_same_tensor(model):
    for number in (1, 2):
        save_file({"a.weight": torch.zeros(4, 2)}, model / f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(BadInput, match="same name"):
        locate(str(model))


def test_a_broken_file_is_not_passed_over(model):
    sharded(model)
    (model / "model-00002-of-00002.safetensors").write_bytes(b"<html>")
    with pytest.raises(BadInput, match="HTML page"):
        locate(str(model))


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {}}, "no `weight_map`"),
        ({"weight_map": [1]}, "no `weight_map`"),
        ({"weight_map": {"a.weight": "../../secret.safetensors"}}, "no safetensors file beside it"),
        ({"weight_map": {"a.weight": "/etc/passwd"}}, "no safetensors file beside it"),
        ({"weight_map": {"a.weight": ["x"]}}, "no safetensors file beside it"),
        ({"weight_map": {"a.weight": None}}, "no safetensors file beside it"),
        ({"weight_map": {"z": "model-00001-of-00002.safetensors"}}, "lacks the tensor 'z'"),
        ({"weight_map": {str(i): f"{i}.safetensors" for i in range(5000)}}, "more than 4096 files"),
    ],
)
def test_a_broken_index_is_named(model, index, says):
    sharded(model)
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match=says):
        locate(str(model))


def test_an_odd_total_is_not_believed(model):
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "gone.safetensors"}, "metadata": {"total_size": -5}})
    )
    assert locate(str(model)).stored_bytes is None


def test_quantization_files_become_sections(model):
    (model / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    (model / "quantize_config.json").write_text('{"bits": 4}')
    for path in (model, model / "config.json"):
        config = locate(str(path)).config
        assert config.section("hf_quant_config").section("quantization").text("quant_algo") == "NVFP4"
        assert config.section("quantize_config").integer("bits") == 4
        assert config.integer("hidden_size") == 64


def test_gguf_files(model):
    data = gguf([], [info("t", (32,), 0, 0)], 128)
    (model / "a-Q4_K_M.gguf").write_bytes(data)
    (model / "mmproj-a-f16.gguf").write_bytes(data)
    assert locate(str(model)).source == "gguf file"  # its config.json describes it unquantized
    assert locate(str(model)).gguf.tensors[0].name == "t"
    (model / "config.json").unlink()
    assert locate(str(model / "a-Q4_K_M.gguf")).stored_bytes == 128
    (model / "a-Q8_0.gguf").write_bytes(data)
    with pytest.raises(BadInput, match=r"holds 2 GGUF models: Q4_K_M, Q8_0.*give one of the files"):
        locate(str(model))
    (model / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a.weight": torch.zeros(4, 2)}, model / "model.safetensors")
    assert locate(str(model)).tensors == TENSORS[:1]


def test_an_adapter_names_its_base(model):
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-8B", "r": 8}')
    save_file({"lora_A": torch.zeros(1)}, model / "adapter_model.safetensors")
    assert locate(str(model)).config.fields == CONFIG  # a merged model
    (model / "config.json").unlink()
    with pytest.raises(BadInput, match="LoRA adapter for Qwen/Qwen3-8B"):
        locate(str(model))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("config.json", b"", "is empty"),
        ("config.json", b"<html>", "HTML page"),
        ("config.json", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("config.json", b"[1]", "not a JSON object"),
        ("config.json", b'{"a": 1', "not JSON"),
        ("config.json", b'{"a":' + b"[" * 10_000_000, "nests too deeply"),
        ("config.json", b" " * 17 * 2**20, "larger than 16 MiB"),
        ("hf_quant_config.json", b"[", "not JSON"),
        ("model.gguf", b"<!DOCTYPE html>", "HTML page"),
        ("model.gguf", b"", "is empty"),
        ("model.safetensors", b"\0" * 8, "no model file"),
        ("pytorch_model.bin", b"PK\x03\x04", "never opened"),
        ("model.bin", safetensors({"a": tensor("U8", [1], 0, 1)}, 1), "a safetensors file"),
        ("README.md", b"# Model", "no model file"),
    ],
)
def test_broken_files_are_named(model, name, data, says):
    (model / name).write_bytes(data)
    with pytest.raises(BadInput, match=says) as caught:
        locate(str(model / ("config.json" if name == "hf_quant_config.json" else name)))
    assert name in caught.value.message


def test_what_is_no_model_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    os.mkfifo("pipe")
    os.symlink("nowhere", "dangling")
    for text, says in [
        ("empty", "no config.json, no safetensors and no GGUF file"),
        ("./empty/", "no config.json"),
        ("pipe", "is not a file"),
        ("dangling", "is not a file"),
        ("./nope", "does not exist"),
        ("nope.gguf", "does not exist"),
        ("a/b/c", "does not exist"),
        ("..\\x", "does not exist"),
        ("/" + "x" * 4000, "does not exist"),
        ("", "no model was given"),
        ("a\0b", "no model name"),
        ("a b", "neither a path that exists nor a model id"),
        ("https://", "address"),
        ("http://[", "address"),
        ("https://a.b/readme.txt", "no file that can be read"),
    ]:
        with pytest.raises(BadInput, match=says) as caught:
            locate(text)
        assert len(str(caught.value)) < 400


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(model):
    (model / "config.json").chmod(0)
    with pytest.raises(BadInput, match="Permission denied"):
        locate(str(model))


def test_bundled_models_need_no_network(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", None)
    found = locate("qwen3-8b", offline=True)
    assert (found.model, found.source) == ("Qwen/Qwen3-8B", "catalogue")
    assert found.config.integer("num_hidden_layers") == 36
    assert found.facts["params_total"] == 8190735360


def test_reading_loads_nothing_heavy(model):
    import subprocess
    import sys

    sharded(model)
    code = (
        "import sys; from willfit.checkpoints.locate import locate; "
        f"locate('Qwen/Qwen3-8B'); locate({str(model)!r}); "
        "heavy = {'numpy', 'torch', 'huggingface_hub', 'httpx2', 'urllib.request', 'ssl'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_missing_part_of_a_split_file_is_not_guessed(tmp_path):
    """Its name would say the model, but the file would not load."""
    name = "Qwen3-14B-Q4_K_M-0000{}-of-00002.gguf"
    head = [
        key("split.no", 2, b"\0\0"),
        key("split.count", 2, b"\2\0"),
        key("split.tensors.count", 5, b"\2\0\0\0"),
    ]
    (tmp_path / name.format(1)).write_bytes(gguf(head, [info("t", (32,), 0, 0)], 128))
    with pytest.raises(BadInput, match=r"00002-of-00002\.gguf does not exist"):
        locate(str(tmp_path / name.format(1)))
    assert "by its name" in locate(str(tmp_path / "gone" / name.format(1))).notes[0]
