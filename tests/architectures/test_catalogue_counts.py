"""Every bundled model, counted from its config alone, against published and independent counts."""

from __future__ import annotations

import pytest

from willfit.architectures.build import build
from willfit.architectures.held import held_bytes
from willfit.checkpoints.catalogue import CatalogueEntry, catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.quantities import GIB


def _entry(model: str) -> CatalogueEntry:
    entry = find(model)
    assert entry is not None
    return entry


def _status(model: str) -> str:
    return str(_entry(model).facts.get("count_status"))


IDS = catalogue_ids()
EXACT = [model for model in IDS if _status(model) == "exact"]
BY_FORMULA = [model for model in IDS if _status(model) == "formula exact"]


def test_the_catalogue_is_whole() -> None:
    assert len(IDS) == 1307
    assert len(EXACT) == 685


@pytest.mark.parametrize("model", EXACT)
def test_parameters_equal_the_independent_count(model: str) -> None:
    entry = _entry(model)
    architecture = build(Config(entry.config, model))
    assert architecture.parameters == entry.facts["meta_params"]
    assert not any("unknown" in note for note in architecture.notes)


@pytest.mark.parametrize("model", BY_FORMULA)
def test_stored_totals_without_another_counter_are_met(model: str) -> None:
    """Models that transformers does not know: InternVL, dots.ocr, DeepSeek-OCR, MiniCPM-V, ..."""
    entry = _entry(model)
    architecture = build(Config(entry.config, model))
    stored = architecture.parameters + architecture.mtp_parameters + architecture.stored_buffers
    # Kimi-VL's files hold 1728 numbers more: rotary frequencies, 64 for each of 27 layers.
    assert entry.facts["params_total"] - stored in (0, 1728)


@pytest.mark.parametrize("model", IDS)
def test_every_model_builds_and_is_consistent(model: str) -> None:
    architecture = build(Config(_entry(model).config, model))
    assert sum(architecture.parameters_by_part.values()) == architecture.parameters
    assert 0 < architecture.active_parameters <= architecture.parameters
    listed = sum(tensor.elements for _, tensor in architecture.tensors() if tensor.kind != "buffer")
    assert listed == architecture.parameters + architecture.mtp_parameters
    # ERNIE 4.5 VL has text and image experts in one numbered list, so `{expert}` may stand for two ranges.
    names = [name for name, _ in architecture.tensors() if "{expert}" not in name]
    assert len(names) == len(set(names))
    assert "{layer}" not in "".join(names) or architecture.towers
    held = [held_bytes(architecture, tokens) for tokens in (1, 512, 4096, 32768, 131072)]
    assert held == sorted(held)


#: What a published checkpoint holds beyond the loaded model, decomposed to the digit: multi-token-prediction
#: modules, router corrections, rotary buffers, unused keys and values, layer scalars.
DECOMPOSED = [
    "deepseek-ai/DeepSeek-R1",
    "deepseek-ai/DeepSeek-V3.2",
    "deepseek-ai/DeepSeek-V4-Flash",
    "zai-org/GLM-4.5",
    "zai-org/GLM-4.5-Air",
    "zai-org/GLM-4.7",
    "zai-org/GLM-4.7-Flash",
    "zai-org/GLM-5",
    "zai-org/GLM-5.2",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3.5-397B-A17B",
    "Qwen/Qwen3.8-Flash-Next",
    "MiniMaxAI/MiniMax-M2",
    "MiniMaxAI/MiniMax-M3",
    "moonshotai/Kimi-K2.5",
    "moonshotai/Kimi-Linear-48B-A3B-Instruct",
    "LGAI-EXAONE/K-EXAONE-236B-A23B",
    "XiaomiMiMo/MiMo-7B-Base",
    "google/gemma-3n-E4B-it",
    "google/gemma-4-E2B-it",
    "google/gemma-4-31B-it",
    "EleutherAI/gpt-neo-1.3B",
    "zai-org/glm-4-9b-chat",
    "skt/A.X-K1",
    "zai-org/GLM-5.3-Flash",
    "tencent/Hy3",
    "baidu/ERNIE-4.5-21B-A3B-PT",
    "stepfun-ai/Step-3.7-Flash",
    "poolside/Laguna-S-2.1",
    "poolside/Laguna-M.1",
    "poolside/Laguna-XS-2.1",
    "poolside/Laguna-S-2.1-DFlash",
    "zai-org/GLM-OCR",
]


@pytest.mark.parametrize("model", DECOMPOSED)
def test_published_totals_are_explained_to_the_digit(model: str) -> None:
    entry = _entry(model)
    architecture = build(Config(entry.config, model))
    stored = architecture.parameters + architecture.mtp_parameters + architecture.stored_buffers
    assert stored == entry.facts["params_total"]


def test_what_paddleocr_stores_and_no_engine_loads() -> None:
    entry = _entry("PaddlePaddle/PaddleOCR-VL")
    wide, inner = 1152, 4304
    attention = 4 * (wide * wide + wide)
    pooling = (
        wide + attention + 2 * wide + (2 * wide * inner + inner + wide)
    )  # a probe, SigLIP's layer, a norm
    unloaded = entry.facts["params_total"] - build(Config(entry.config, "x")).parameters
    assert unloaded == pooling + 32768 * wide  # and the table of packed positions


#: GiB that one sequence of 32,768 tokens must hold in bf16: windows hold their window, recurrent states are fp32,
#: convolutions bf16. By hand, for instance Llama-3.1-8B: 32 layers x 2 x 8 heads x 128 x 2 B x 32768 = 4 GiB;
#: DeepSeek-V3: 61 x (512 + 64) x 2 B x 32768 = 2.145 GiB.
HELD_GIB = {
    "meta-llama/Llama-3.1-8B": 4.000,
    "Qwen/Qwen3-32B": 8.000,
    "deepseek-ai/DeepSeek-V3": 2.145,
    "moonshotai/Kimi-K2-Instruct": 2.145,
    "openai/gpt-oss-20b": 0.753,
    "google/gemma-4-26B-A4B": 0.820,
    "Qwen/Qwen3.5-27B": 2.143,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 0.233,
}


@pytest.mark.parametrize(("model", "gib"), HELD_GIB.items())
def test_what_a_sequence_must_hold(model: str, gib: float) -> None:
    architecture = build(Config(_entry(model).config, model))
    assert round(held_bytes(architecture, 32768) / GIB, 3) == gib


def test_a_rule_serves_an_array_as_well_as_an_integer() -> None:
    np = pytest.importorskip("numpy")
    lengths = np.array([1, 100, 1024, 5000, 32768, 200000])
    for model in HELD_GIB:
        architecture = build(Config(_entry(model).config, model))
        expected = [held_bytes(architecture, int(length)) for length in lengths]
        assert held_bytes(architecture, lengths).tolist() == expected
