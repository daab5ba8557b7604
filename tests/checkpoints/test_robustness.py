"""Whatever lies in a directory, reading it ends in a checkpoint or in `BadInput`."""

import contextlib
import json
import struct

import pytest
from checkpoint_files import gguf, info, key, safetensors, tensor, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.locate import locate
from willfit.errors import BadInput

SPLIT = key("split.count", 2, struct.pack("<H", 2))
FILES = {
    "config.json": b'{"model_type": "llama", "hidden_size": 64, "quantization_config": {"bits": 4}}',
    "hf_quant_config.json": b'{"quantization": {"quant_algo": "FP8"}}',
    "adapter_config.json": b'{"base_model_name_or_path": "a/b"}',
    "model.safetensors.index.json": json.dumps(
        {"metadata": {"total_size": 36}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    ).encode(),
    "model-00001-of-00002.safetensors": safetensors({"a": tensor("F32", [3, 3], 0, 36)}, 36),
    "model-00002-of-00002.safetensors": safetensors({"b": tensor("F32", [1], 0, 4)}, 4),
    "model.safetensors": safetensors({"a": tensor("BF16", [4], 0, 8)}, 8),
    "m-Q4_0-00001-of-00002.gguf": gguf([SPLIT], [info("a", (32,), 2, 0)], 18),
    "m-Q4_0-00002-of-00002.gguf": gguf([SPLIT], [info("b", (32,), 2, 0)], 18),
    "m-Q8_0.gguf": gguf([key("general.architecture", 8, text("llama"))], [info("a", (32,), 8, 0)], 34),
}  # fmt: skip


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """The data, or a part of it, or with some bytes replaced, doubled or taken out."""
    kind = draw(st.sampled_from(["whole", "cut", "bytes", "insert", "remove", "junk"]))
    if kind == "whole":
        return data
    if kind == "junk":
        return draw(st.binary(max_size=60))
    at = draw(st.integers(0, len(data) - 1))
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return (
            data[:at]
            + draw(st.sampled_from([b"\0", b"\xff" * 8, b"{", b'"', b"[[", b"NaN", data[:40]]))
            + data[at:]
        )
    if kind == "remove":
        return data[:at] + data[at + draw(st.integers(1, 8)) :]
    changed = bytearray(data)
    for place in draw(st.lists(st.integers(0, min(len(data) - 1, 200)), min_size=1, max_size=4)):
        changed[place] = draw(st.integers(0, 255))
    return bytes(changed)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_directory_of_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("model")
    chosen = data.draw(st.lists(st.sampled_from(list(FILES)), unique=True, min_size=1))
    for name in chosen:
        (folder / name).write_bytes(data.draw(damaged(FILES[name])))
    for target in (folder, folder / chosen[0]):
        try:
            found = locate(str(target))
        except BadInput:
            continue
        assert isinstance(found, Checkpoint)
        assert found.config is not None or found.tensors is not None or found.gguf is not None
        if found.tensors is not None:
            assert found.stored_bytes == sum(t.bytes for t in found.tensors)


@settings(max_examples=300)
@given(st.text(max_size=60) | st.from_regex(r"[\w./:@~-]{1,40}"))
def test_any_name_without_a_network(name):
    with contextlib.suppress(BadInput):
        assert isinstance(locate(name, offline=True), Checkpoint)


@pytest.mark.parametrize("name", list(FILES))
def test_truncated_anywhere(tmp_path, name):
    for length in range(len(FILES[name])):
        (tmp_path / name).write_bytes(FILES[name][:length])
        with pytest.raises(BadInput):
            locate(str(tmp_path))
