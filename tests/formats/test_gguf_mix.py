"""File types of llama.cpp against the sizes that llama.cpp's own quantizer computes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.recipes.gguf_mix import BASES
from willfit.formats.recognise import recipe_named
from willfit.formats.weights import weight_bytes, weight_lines

MODELS = json.loads((Path(__file__).parents[1] / "data/formats/gguf_file_types.json").read_text())["models"]


def text_model(name: str) -> Architecture:
    """The model as a GGUF file holds it: projectors are files of their own."""
    entry = find(name)
    assert entry is not None
    return replace(build(Config(entry.config)), towers=())


@pytest.mark.parametrize("name", MODELS)
def test_sizes_of_every_file_type(name: str) -> None:
    architecture = text_model(name)
    # Rotary factors and norms of the oracle's header that the published model lacks (or the reverse), in F32.
    surplus = 4 * (MODELS[name]["elements"] - architecture.parameters)
    assert abs(surplus) < 400_000
    ours = {
        kind: weight_bytes(architecture, recipe_named(f"gguf-{kind}", "bf16", architecture), mtp=False)
        + surplus
        for kind in MODELS[name]["tensor_bytes"]
    }
    assert ours == MODELS[name]["tensor_bytes"]
    assert len(ours) == 32


def test_a_row_that_does_not_divide_falls_back() -> None:
    # Qwen2.5-72B: 29568 inputs are no multiple of 256, so down_proj is Q5_0 or, with more bits, Q8_0
    entry = find("Qwen/Qwen2.5-72B-Instruct")
    assert entry is not None
    architecture = build(Config({**entry.config, "intermediate_size": 29568}))
    lines = weight_lines(architecture, recipe_named("q4_k_m", "bf16", architecture))
    down = {line.format.name: line.times for line in lines if "down_proj" in line.tensor.name}
    # of 80 layers the first and last 10 and every third of the 60 between have more bits
    assert down == {"Q8_0": 40, "Q5_0": 40}


def test_names_with_and_without_medium() -> None:
    architecture = text_model("Qwen/Qwen3-4B")
    assert recipe_named("Q4_K", "bf16", architecture).name == "gguf Q4_K_M"
    assert recipe_named("gguf-f16", "bf16", architecture).name == "gguf F16"
    assert recipe_named("f16", "bf16", architecture).name == "fp16"


def test_a_file_type_needs_a_model() -> None:
    with pytest.raises(BadInput, match="needs a model"):
        recipe_named("q4_k_m", "bf16")
    with pytest.raises(BadInput) as caught:
        recipe_named("q4_k_x", "bf16")
    assert "q4_k" in caught.value.hint
    assert "Q4_K_M" in BASES
