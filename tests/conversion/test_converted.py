"""Predicted headers against those that llama.cpp's own converter writes, tensor by tensor and key by key."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from willfit.architectures.build import build
from willfit.architectures.gguf import architecture_of
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.classes import architecture_name, language_config
from willfit.conversion.predict import predict
from willfit.conversion.tensors import file_tensors

HEADERS = Path(__file__).parents[1] / "data/gguf/headers.jsonl"
ENTRIES: dict[str, dict[str, Any]] = {
    entry["id"]: entry for entry in map(json.loads, HEADERS.read_text().splitlines())
}

#: Keys that decide nothing, or that the record has from transformers' defaults where the checkpoint says otherwise.
PASSED_OVER = {
    "gemma3n.activation_sparsity_scale",
    "grok.attention.temperature_length",
    "kimi-linear.attention.value_length",
    "nemotron.rope.dimension_count",
    "orion.tensor_data_layout",
    "falcon.tensor_data_layout",
    "qwen4exp.attention.compress_ratios",
    "qwen4exp.ple.eos_token_id",
    "qwen4exp.ple.image_token_id",
    "granitehybrid.rope.dimension_count",
    "general.file_type",
}


def config_of(name: str) -> Config:
    entry = find(name)
    assert entry is not None
    return Config(entry.config, name)


def header_of(name: str, file_type: str = "F16") -> GgufHeader:
    return predict(config_of(name), file_type, fresh=True).header


def recorded(entry: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Types and dimensions of the tensors that the converter wrote."""
    tensors = {name: (kind, tuple(shape[::-1])) for name, kind, *shape in entry["outside"]}
    for stack, patterns in entry["layers"]:
        for index, pattern in enumerate(patterns):
            for leaf, kind, *shape in entry["patterns"][pattern]:
                tensors[f"{stack}.{index}.{leaf}"] = (kind, tuple(shape[::-1]))
    return tensors


@pytest.mark.parametrize("name", ENTRIES)
def test_tensors_of_the_converter(name: str) -> None:
    found = {tensor.name: (tensor.type, tensor.ne) for tensor in header_of(name).tensors}
    assert found == recorded(ENTRIES[name])


@pytest.mark.parametrize("name", ENTRIES)
def test_keys_of_the_converter(name: str) -> None:
    found = header_of(name).metadata
    theirs = ENTRIES[name]["metadata"]
    if theirs["general.architecture"] == "nemotron_h_moe" and "num_experts_per_tok" not in config_of(name):
        pytest.skip("recorded from transformers' defaults, which give it experts")
    for key, value in theirs.items():
        if key not in PASSED_OVER:
            assert one_or_all(found.get(key, 0)) == one_or_all(value), key


def one_or_all(value: Any) -> Any:
    """A list of equal numbers is read as that number (`get_key_or_arr`)."""
    values = list(value) if isinstance(value, tuple | list) else [value]
    return values[0] if len(set(map(str, values))) == 1 else values


MODELS = [name for name in catalogue_ids() if architecture_name(config_of(name)) is not None]


def test_nearly_all_bundled_models_are_read() -> None:
    # llama.cpp has no converter for the others: CodeGen, DeBERTa, BART, the first InternLM, ...
    assert len(MODELS) >= 1200
    assert len(MODELS) >= 0.93 * len(catalogue_ids())
    assert len({architecture_name(config_of(name)) for name in MODELS}) >= 100


def test_every_tensor_has_a_name_and_a_place() -> None:
    seen = set()
    for name in MODELS:
        config = config_of(name)
        fields = json.dumps(config.fields, sort_keys=True)
        if fields in seen:
            continue
        seen.add(fields)
        architecture = build(config)
        made = file_tensors(language_config(config), architecture, architecture_name(config))
        assert not made.unnamed, name
        entries = [entry.name for entry in made.entries()]
        assert len(entries) == len(set(entries)), name
    assert len(seen) > 700


@pytest.mark.parametrize("name", [name for name in ENTRIES if name in MODELS][::4])
def test_what_is_written_is_read_again(name: str) -> None:
    """The reader of GGUF files finds the layers, the widths and the parameters that the header was made of."""
    model, header = build(config_of(name)), header_of(name, "Q4_K_M")
    read = architecture_of(header)
    assert (read.hidden_size, read.vocab_size) == (model.hidden_size, model.vocab_size)
    assert len(read.layers) == len(model.layers)
    assert sum(prod(tensor.ne) for tensor in header.tensors) == sum(one.elements for _, one in read.tensors())


def test_offsets_are_those_of_a_file() -> None:
    header = header_of("Qwen/Qwen3-14B", "Q4_K_M")
    end = header.tensors[0].offset
    assert end is not None
    for tensor in header.tensors:
        assert tensor.offset == end
        assert end % 32 == 0
        end += -(-tensor.bytes // 32) * 32
    assert header.file_bytes == (end,)
