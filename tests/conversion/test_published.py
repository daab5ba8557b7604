"""Sizes of files as they were published or logged."""

from pathlib import Path

import pytest

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.conversion.predict import predict
from willfit.file_types import known_quantization
from willfit.validation.cases import Case, read_cases
from willfit.validation.predictors.gguf_files import file_of, file_sizes
from willfit.validation.predictors.llama_cpp import subject_of

DATA = Path(__file__).parents[1] / "data/cases"

CASES = {case.id: case for name in ("llamacpp", "ollama") for case in read_cases(DATA / f"{name}.jsonl")}

#: Logs that name every buffer, and how often the token table lies in them: on the host and, as the head, on the device.
BUFFERS = {
    "ik-344-80": 1,  # GLM-Z1-32B IQ4_XS
    "ik-380-111": 1,  # Qwen3-30B-A3B Q5_K_M
    "ik-389-121": 1,  # Qwen3-235B-A22B Q4_K_M
    "ik-562-185": 1,  # Llama-3.1-8B Q4_0
    "ix-13108719099": 1,  # Llama-3.1-8B Q4_K_M
    "ix-18013903129": 1,  # OpenLLaMA-7B F16
    "ix-21437509663": 1,  # Llama-2-7B Q4_K_M
    "ix-25385286640": 1,  # bge-small F16
    "ix-25385286640-p": 1,  # Pythia-2.8B Q4_0
    "ix-43309465874": 1,  # Gemma-3-1B Q4_K_M
    "ix-51848093566": 2,  # Qwen3.5-2B Q8_0
    "ix-57400958112": 1,  # Qwen3-4B Q4_K_M
    "ix-71453436919": 2,  # the same model
    "lc-7217": 1,  # Yi-34B IQ4_XS
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_in_logs(name: str) -> None:
    case = CASES[name]
    header = file_of(case, case.fields["gguf_type"]).header
    stored = sum(tensor.bytes for tensor in header.tensors)
    table = next(tensor.bytes for tensor in header.tensors if tensor.name == "token_embd.weight")
    buffers = case.measured["model_buffer_mib"]
    # printed with two decimals each
    assert (stored + (BUFFERS[name] - 1) * table) / 2**20 == pytest.approx(
        sum(buffers.values()), abs=0.005 * len(buffers) + 0.02
    )


#: Logs of files in llama.cpp's own types.
SIZED = [
    case
    for case in CASES.values()
    if "bpw" in case.measured
    and "gguf_mix" not in case.unknown_settings
    and known_quantization(case.fields["gguf_type"])
]


@pytest.mark.parametrize("case", SIZED, ids=lambda case: case.id)
def test_sizes_in_logs(case: Case) -> None:
    found = file_sizes(case, subject_of(case))
    # Files of DeepSeek's models were made by converters that cut the up-projection of keys and values otherwise.
    slack = 0.001 if _is_latent(case) else 0.0003
    for key, one in found.items():
        assert one.value == pytest.approx(case.measured[key], rel=slack, abs=0.005), key


def _is_latent(case: Case) -> bool:
    header = file_of(case, case.fields["gguf_type"]).header
    return any("kv_lora_rank" in key for key in header.metadata)


def test_there_are_many_logs() -> None:
    assert len(SIZED) >= 18


def test_a_whole_file_with_its_vocabulary() -> None:
    # Qwen3-4B Q4_K_M on a disk: 2.3258 GiB, of which 2.3202 are tensors
    entry = find("Qwen/Qwen3-4B")
    assert entry is not None
    low, likely, high = predict(Config(entry.config), "Q4_K_M").file_bytes
    assert low < 2.3258 * 2**30 < high
    assert likely == pytest.approx(2.3258 * 2**30, rel=0.001)
