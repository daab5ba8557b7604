"""Where a tokenizer is found: beside a model, in the cache, on the hub, and what is said where there is none."""

import json

import pytest
from checkpoint_files import gguf, key, text
from hub_site import asked, publish
from huggingface_hub import constants

from willfit.checkpoints import hub as hub_module
from willfit.checkpoints.locate import locate
from willfit.checkpoints.source import NotFound, Unreachable
from willfit.checkpoints.tokenizer import tokenizer_files
from willfit.errors import BadInput

CONFIG = json.dumps({"model_type": "llama", "hidden_size": 64}).encode()
FILES = {
    "tokenizer.json": b'{"model": {}}',
    "tokenizer_config.json": json.dumps(
        {
            "bos_token": "<s>",
            "eos_token": {"content": "</s>"},
            "pad_token": None,
            "add_bos_token": True,
            "chat_template": [
                {"name": "default", "template": "usual"},
                {"name": "tool_use", "template": "tools"},
            ],
        }
    ).encode(),
}


def test_of_a_repository_and_then_of_its_cache(hub, monkeypatch):
    publish(hub, "org/model", {"config.json": CONFIG, **FILES})
    found = tokenizer_files(locate("org/model"))
    assert (found.tokenizer, found.template, found.tools_template) == ('{"model": {}}', "usual", "tools")
    assert found.special == {"bos_token": "<s>", "eos_token": "</s>"}
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert tokenizer_files(locate("org/model", offline=True), offline=True) == found
    assert not hub.asked


def test_of_a_bundled_model(hub):
    publish(hub, "Qwen/Qwen3-8B", {"config.json": CONFIG, **FILES, "chat_template.jinja": b"newer"})
    bundled = locate("Qwen/Qwen3-8B")
    assert bundled.source == "catalogue"
    with pytest.raises(Unreachable, match=r"bundled without its tokenizer.*network is off.*--tokenizer"):
        tokenizer_files(bundled, offline=True)
    assert not hub.asked
    found = tokenizer_files(bundled)
    assert (found.template, found.tools_template) == ("newer", "newer")
    assert "config.json" not in asked(hub)
    assert tokenizer_files(bundled, offline=True) == found


def test_what_a_hub_may_do(hub, monkeypatch):
    publish(hub, "org/none", {"config.json": CONFIG, "tokenizer.model": b"x"})
    with pytest.raises(NotFound, match=r"org/none has no tokenizer\.json.*--tokenizer"):
        tokenizer_files(locate("org/none"))
    publish(hub, "org/large", {"config.json": CONFIG, "tokenizer.json": b"x" * 2000})
    monkeypatch.setitem(hub_module._LIMITS, "tokenizer.json", 1000)
    hub.asked.clear()
    with pytest.raises(BadInput, match="larger than"):
        tokenizer_files(locate("org/large"))
    assert "tokenizer.json" not in asked(hub)


def test_of_a_directory_and_of_a_file(tmp_path):
    (tmp_path / "config.json").write_bytes(CONFIG)
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    model = locate(str(tmp_path))
    assert tokenizer_files(model).template == "usual"
    assert tokenizer_files(model, str(tmp_path / "tokenizer.json")).template == "usual"
    (tmp_path / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not UTF-8"):
        tokenizer_files(model)
    with pytest.raises(NotFound, match="does not exist"):
        tokenizer_files(model, str(tmp_path / "other"))


def test_of_a_gguf_file_without_a_vocabulary(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf([key("general.architecture", 8, text("llama"))], []))
    with pytest.raises(BadInput, match="holds no vocabulary"):
        tokenizer_files(locate(str(path)))
    path.write_bytes(
        gguf([key("tokenizer.ggml.model", 8, text("gpt2")), key("tokenizer.ggml.pre", 8, text("qwen2"))], [])
    )
    with pytest.raises(BadInput, match=r"tokenizer\.ggml\.tokens is missing"):
        tokenizer_files(locate(str(path)))
