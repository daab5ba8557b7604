"""Files with encoders against what llama.cpp's converter writes in F16, fed with tensors of the published shapes."""

import pytest

from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.conversion.projector import projector
from willfit.errors import BadInput

#: Bytes of all tensors.
WRITTEN = {
    "deepseek-ai/DeepSeek-OCR": 825_217_024,
    "dots-studio/dots.ocr": 2_524_471_296,
    "google/gemma-3-12b-it": 854_175_168,
    "google/gemma-4-26B-A4B": 1_193_035_968,
    "HuggingFaceTB/SmolVLM-Instruct": 872_275_392,
    "LGAI-EXAONE/EXAONE-4.5-33B": 2_574_200_832,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 1_746_748_416,
    "meta-models/Muse-Glimmer-30B": 3_847_321_600,
    "MiniMaxAI/MiniMax-M3": 1_732_253_696,
    "mistralai/Magistral-Small-2509": 878_018_560,
    "mistralai/Voxtral-Mini-3B-2507": 1_329_102_848,
    "moonshotai/Kimi-K2.5": 952_552_384,
    "moonshotai/Kimi-VL-A3B-Instruct": 905_345_984,
    "OpenGVLab/InternVL2-8B": 678_039_552,
    "Qwen/Qwen2-Audio-7B-Instruct": 1_289_273_344,
    "Qwen/Qwen2-VL-7B": 1_352_605_696,
    "Qwen/Qwen2.5-Omni-3B": 2_622_418_944,
    "Qwen/Qwen2.5-VL-3B-Instruct": 1_338_396_672,
    "Qwen/Qwen3-VL-2B-Instruct": 819_376_128,
    "Qwen/Qwen3.8-Flash-Next": 903_984_064,
    "zai-org/GLM-4.5V": 1_719_314_432,
    "zai-org/GLM-5.3-Flash": 1_128_026_112,
}


def stored(name: str, file_type: str = "F16") -> int:
    entry = find(name)
    assert entry is not None
    header = projector(Config(entry.config, name), file_type)
    assert header is not None
    return sum(tensor.bytes for tensor in header.tensors)


@pytest.mark.parametrize("name", WRITTEN)
def test_bytes_of_the_converter(name: str) -> None:
    assert stored(name) == WRITTEN[name]


def test_a_projector_in_a_log() -> None:
    assert round(stored("Qwen/Qwen3.6-27B", "BF16") / 2**20, 2) == 887.99  # ix-56781022437


def test_llava_without_its_last_layer() -> None:
    width, inner, hidden = 1024, 4096, 4096
    layer = 2 * (4 * width**2 + 2 * width * inner) + 4 * (9 * width + inner)
    ends = 4 * 3 * width + 2 * width * (3 * 14**2 + 577)
    adapter = 2 * (width * hidden + hidden**2) + 4 * 2 * hidden
    assert stored("llava-hf/llava-1.5-7b-hf") == 23 * layer + ends + adapter


def test_other_types() -> None:
    sizes = [stored("google/gemma-3-4b-it", kind) for kind in ("Q8_0", "F16", "BF16", "F32")]
    assert sizes == sorted(sizes)
    assert sizes[3] < 2 * sizes[1]  # positions are in F32 anyway
    with pytest.raises(BadInput, match="not made in Q4_K_M"):
        stored("google/gemma-3-4b-it", "Q4_K_M")


def test_what_has_none() -> None:
    for name in ("Qwen/Qwen3-4B", "meta-llama/Llama-3.2-11B-Vision-Instruct"):
        entry = find(name)
        assert entry is not None
        assert projector(Config(entry.config)) is None


def test_every_bundled_model_is_answered() -> None:
    found = 0
    for name in catalogue_ids():
        entry = find(name)
        assert entry is not None
        header = projector(Config(entry.config, name))
        if header is not None:
            found += 1
            names = [tensor.name for tensor in header.tensors]
            assert len(names) == len(set(names)), name
    assert found > 150
