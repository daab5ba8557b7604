"""`--split-mode tensor`: each device has its part of every tensor, and all parts together are the model."""

from __future__ import annotations

from functools import cache

import pytest

from willfit.asking import ask_command, find_subject, machine_of
from willfit.engines.base import Machine, Subject
from willfit.engines.llama_cpp import Settings, estimate
from willfit.engines.llama_cpp.loading.slices import slices_of
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.ggml_types import GGML_TYPES
from willfit.hardware.table import find_device

CARD = find_device("RTX 3090")

#: Dense, experts, windows, sinks, gated queries with two layouts of states, short convolutions, a fused MLP.
MODELS = (
    "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen/Qwen3-30B-A3B",
    "google/gemma-3-12b-it",
    "openai/gpt-oss-20b",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3.5-9B",
    "LiquidAI/LFM2-1.2B",
    "microsoft/Phi-3-mini-4k-instruct",
    "zai-org/GLM-4.5-Air",
    "Qwen/Qwen2.5-7B-Instruct",
)


@cache
def subject(model: str, file_type: str = "Q4_K_M") -> Subject:
    return find_subject(f"{model}:{file_type}", offline=True)[0]


def asked(model: str, devices: int, **given: object) -> Estimate:
    made = {"n_ctx": 8192, "n_parallel": 1, "n_gpu_layers": "all", "split_mode": "tensor", **given}
    return estimate(subject(model), Machine((CARD,) * devices), Settings(**made))  # type: ignore[arg-type]


def test_heads_of_a_cache_by_hand() -> None:
    """8 heads on 3 devices are 2, 3 and 3; which of them has 2 turns from layer to layer: 27, 27 and 26 of 80."""
    held = asked(MODELS[0], 3).details["buffers"]["kv"]
    head = 128 * 2 * 2 * 8192
    assert held == {
        "CUDA0": (27 * 2 + 53 * 3) * head,
        "CUDA1": (27 * 2 + 53 * 3) * head,
        "CUDA2": (26 * 2 + 54 * 3) * head,
    }
    # 3 : 1 are whole heads, too.
    shares = asked(MODELS[0], 2, tensor_split=(3, 1)).details["buffers"]["kv"]
    assert shares == {"CUDA0": 80 * 6 * head, "CUDA1": 80 * 2 * head}


def test_states_by_hand() -> None:
    """Qwen3.5-9B: 24 layers with 16 heads of keys and 32 of values, each 128 wide, and 3 inputs of a convolution."""
    held = asked("Qwen/Qwen3.5-9B", 2).details["buffers"]["rs"]
    half = 24 * 4 * (16 * 128 * 128 + 3 * (8 + 8 + 16) * 128)
    assert held == {"CUDA0": half, "CUDA1": half}


@pytest.mark.parametrize("shares", [(), (1, 2, 1), (0, 1, 0)], ids=["even", "uneven", "one"])
@pytest.mark.parametrize("model", MODELS)
def test_parts_make_up_the_whole(model: str, shares: tuple[float, ...]) -> None:
    stored = subject(model)
    assert stored.gguf is not None
    slices = slices_of(stored.gguf, stored.architecture, 3, shares)
    divided = total = 0
    for tensor in stored.gguf.tensors:
        a, b, c, d = [*tensor.ne, 1, 1, 1, 1][:4]
        parts = slices.shapes(tensor.name, tensor.type, (a, b, c, d))
        total += tensor.bytes
        if parts == ((a, b, c, d),) * 3:
            continue
        divided += tensor.bytes
        axis = next(index for index in range(4) if any(part[index] != (a, b, c, d)[index] for part in parts))
        assert sum(part[axis] for part in parts) == (a, b, c, d)[axis], tensor.name
        assert all(part[0] % GGML_TYPES[tensor.type].block == 0 for part in parts), tensor.name
        if shares == (0, 1, 0):
            # The last one gets what is left of a step.
            assert parts[1][axis] > 0.9 * (a, b, c, d)[axis]
    assert divided > 0.7 * total


@pytest.mark.parametrize("model", MODELS)
def test_caches_are_divided_or_everywhere(model: str) -> None:
    one, four = asked(model, 1, split_mode="layer"), asked(model, 4)
    for kind in ("kv", "rs"):
        held = [four.details["buffers"][kind].get(f"CUDA{index}", 0) for index in range(4)]
        whole = one.details["buffers"][kind].get("CUDA0", 0)
        assert sum(held) in (whole, 4 * whole)
    assert sum(four.details["buffers"]["compute"][f"CUDA{index}"] for index in range(4)) % 4 == 0


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(BadInput, match="does not divide the tensors of deepseek2"):
        asked("deepseek-ai/DeepSeek-V2-Lite", 2)
    with pytest.raises(BadInput, match="needs flash attention"):
        asked(MODELS[0], 2, flash_attn="off")
    with pytest.raises(BadInput, match="this build does not have it yet"):
        asked(MODELS[0], 2, version="b8000")


def test_commands_are_answered() -> None:
    words = ["llama-server", "-m", "Qwen3-32B-Q4_K_M.gguf", "-sm", "tensor", "-c", "8192"]
    found = ask_command(words, machine_of("2x3090"), offline=True)
    assert found.verdict == "fits"
    assert any("divided among 2 devices, evenly" in note for note in found.notes)
    # Cards of different sizes get the same, so that the small one decides; nothing is adjusted to memory.
    mixed = ask_command(words[:-2], machine_of("rtx4090+rtx3060"), offline=True)
    assert mixed.devices[1].verdict == "does_not_fit"
    assert mixed.details["n_ctx"] == 40960
    drafted = ask_command([*words, "-md", "Qwen3-0.6B-Q8_0.gguf"], machine_of("2x3090"), offline=True)
    drafts = [sum(term.bytes for term in one.terms if term.name == "draft") for one in drafted.devices]
    assert drafts[0] == pytest.approx(drafts[1], rel=0.01)
    # Experts that stay in RAM are computed there: a device that stands for others takes over nothing.
    apart = ["llama-server", "-m", "Qwen3-30B-A3B-Q4_K_M.gguf", "-c", "8192", "--cpu-moe"]
    tensor = ask_command([*apart, "-sm", "tensor"], machine_of("2x3090"), offline=True)
    layer = ask_command([*apart, "-sm", "layer"], machine_of("2x3090"), offline=True)
    assert tensor.details["buffers"]["compute"]["CUDA0"] < 0.7 * layer.details["buffers"]["compute"]["CUDA0"]
