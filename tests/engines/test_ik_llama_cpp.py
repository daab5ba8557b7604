"""ik_llama.cpp: its own tensor types, weights that lie elsewhere, and what it makes when it loads a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from willfit.asking import ask_command, find_subject
from willfit.engines.base import Machine, Subject
from willfit.engines.llama_cpp import Settings, estimate
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.file_types import known_quantization
from willfit.ggml_types import GGML_TYPES
from willfit.hardware.table import find_device
from willfit.validation.cases import Case, read_cases
from willfit.validation.predictors.gguf_files import file_of
from willfit.validation.predictors.llama_cpp import predict
from willfit.validation.predictors.stated_types import as_stated

MIB, GIB = 2**20, 2**30
DATA = Path(__file__).parents[1] / "data" / "cases"
CASES = {
    case.id: case
    for name in ("llamacpp.jsonl", "llamacpp_more.jsonl")
    for case in read_cases(DATA / name)
    if case.engine == "ik_llama.cpp"
}
STATED = [key for key, case in CASES.items() if "types" in (case.fields.get("gguf_hparams") or {})]
#: Their types of that week had another scale for each row.
OLD_TRELLIS = ("ik-484-0", "ik-487-0")
#: Logs whose compute buffers come out to what they print: 16 devices with experts on others than their layers', experts
#: in RAM that devices compute with and others that were repacked for the processor, three builds of latent attention,
#: experts in MXFP4, heads one after the other.
EXACT = (
    "ik-245-1", "ik-258-2", "ik-258-9", "ik-286-1", "ik-409-0", "ik-492-0", "ik-522-0", "ik-629-2",
    "ik-657-1", "ik-823-0", "ik-895-0",
)  # fmt: skip


def subject(model: str, file_type: str) -> Subject:
    return find_subject(f"{model}:{file_type}", offline=True)[0]


def asked(model: str, file_type: str = "Q4_K_M", **given: object) -> Estimate:
    made = {"fork": "ik_llama.cpp", "program": "api", "n_ctx": 4096, "n_gpu_layers": "all", **given}
    machine = Machine((find_device("RTX 4090"),), 512 * GIB)
    return estimate(subject(model, file_type), machine, Settings(**made))  # type: ignore[arg-type]


def test_bytes_of_types_of_its_own_by_hand() -> None:
    # 7168 / 256 = 28 blocks of 136 B and a scale of 4 B for each of 2048 rows of 256 experts
    assert GGML_TYPES["IQ4_KS"].stored((7168, 2048, 256)) == (28 * 136 + 4) * 2048 * 256
    # 1536 / 32 = 48 blocks of 6 B and a scale of 2 B
    assert GGML_TYPES["IQ1_S_R4"].stored((1536, 10)) == (48 * 6 + 2) * 10
    assert GGML_TYPES["Q4_K_R4"].stored((512, 4)) == GGML_TYPES["Q4_K"].stored((512, 4)) == 2 * 144 * 4
    assert GGML_TYPES["IQ2_K_R4"].id == GGML_TYPES["IQ2_K"].id + 200


@pytest.mark.parametrize("key", STATED)
def test_stated_types_make_the_file_that_was_logged(key: str) -> None:
    case = CASES[key]
    mix = str(case.fields.get("gguf_type"))
    header = as_stated(
        file_of(case, mix if known_quantization(mix) else "F16").header, case.fields["gguf_hparams"]
    )
    assert header is not None
    size = sum(tensor.bytes for tensor in header.tensors) / GIB
    logged = case.measured.get("file_size_gib", size)
    assert abs(size - logged) < (0.03 if key in OLD_TRELLIS else 0.0006)


def test_types_that_contradict_the_log_are_found() -> None:
    case = CASES["ik-492-0"]
    facts = {**case.fields["gguf_hparams"], "types": [["", "q8_0"]]}
    with pytest.raises(ValueError, match="the log counts"):
        as_stated(file_of(case, "F16").header, facts)


@pytest.mark.parametrize("key", EXACT)
def test_published_compute_buffers(key: str) -> None:
    case: Case = CASES[key]
    found = predict(case)["compute_buffer_mib"]
    logged = case.measured["compute_buffer_mib"]
    assert {place: round(one.value, 2) for place, one in found.items()} == pytest.approx(logged, abs=0.011)


def test_weights_that_were_repacked_stay_with_the_processor() -> None:
    given = {"version": "b3800", "override_tensor": (("exps", "CPU"),), "flash_attn": "on", "n_ubatch": 512}
    plain = asked("Qwen/Qwen3-235B-A22B", **given)
    repacked = asked("Qwen/Qwen3-235B-A22B", run_time_repack=True, **given)
    # Experts' last matrices, in Q6_K in 46 of 94 layers, are copied to the device where it computes with them.
    copied = 128 * 4096 * 1536 // 256 * 210
    on_device = [one.details["buffers"]["compute"]["CUDA0"] for one in (plain, repacked)]
    assert on_device[0] > copied > on_device[1]
    # The file is read for that, not mapped: the table pinned, all experts in plain memory.
    assert "CPU_Mapped" in plain.details["buffers"]["model"]
    model = repacked.details["buffers"]["model"]
    assert "CPU_Mapped" not in model
    assert model["CUDA_Host"] == 151936 * 4096 // 256 * 144
    layer = 128 * 4096 * 1536 // 256
    assert model["CPU"] == layer * (94 * 2 * 144 + 48 * 144 + 46 * 210)


def test_experts_in_ram_are_computed_there_until_a_batch_is_worth_it() -> None:
    """From June 2025 on each of 128 experts must have 32 tokens, of which each has 8: at least 512 tokens."""
    given = {"override_tensor": (("exps", "CPU"),), "flash_attn": "on", "fused_moe": True}
    copied = 128 * 4096 * 1536 // 256 * 144

    def on_device(version: str, n_ubatch: int) -> int:
        made = asked("Qwen/Qwen3-235B-A22B", version=version, n_ubatch=n_ubatch, **given)
        return int(made.details["buffers"]["compute"]["CUDA0"])

    assert on_device("b3745", 512) > on_device("b3745", 511) + copied
    # Fused products had both their matrices there whatever the batch, and none before.
    assert on_device("b3744", 64) > 2 * copied > on_device("b3682", 64) > copied


def test_projections_of_latents_are_made_where_a_file_lacks_them() -> None:
    def prepared(mla: int) -> int:
        terms = asked("deepseek-ai/DeepSeek-V2-Lite", version="b3983", mla=mla).devices[0].terms
        return sum(term.bytes for term in terms if term.name == "prepared_weights")

    # Of 27 layers: 16 heads x (128 + 128) rows of 512 in Q8_0.
    assert prepared(3) == prepared(0) == 27 * 16 * 256 * 512 // 32 * 34
    assert prepared(1) == 0


def test_cpu_moe_leaves_biases_on_devices_in_later_builds() -> None:
    def model(version: str) -> dict[str, int]:
        return dict(
            asked("openai/gpt-oss-20b", "MXFP4", version=version, cpu_moe=True, mmap=False).details[
                "buffers"
            ]["model"]
        )

    biases = 24 * 32 * (2880 * 3) * 4
    before, since = model("b3908"), model("b3916")
    assert since["CUDA0"] - before["CUDA0"] == biases
    assert since["CPU"] == before["CPU"]


def test_llama_cpp_refuses_what_its_fork_alone_reads() -> None:
    dense = subject("Qwen/Qwen3-4B", "Q4_K_M")
    assert dense.gguf is not None
    first, *others = dense.gguf.tensors
    header = replace(dense.gguf, tensors=(replace(first, type="IQ4_KS"), *others))
    with pytest.raises(BadInput, match="IQ4_KS"):
        estimate(replace(dense, gguf=header), Machine((), 64 * GIB), Settings())
    with pytest.raises(BadInput, match="q6_0"):
        estimate(dense, Machine((), 64 * GIB), Settings(cache_type_k="q6_0"))
    asked("Qwen/Qwen3-4B", cache_type_k="q6_0", flash_attn="on")


def test_a_command_of_the_fork_is_answered() -> None:
    words = [
        "ik_llama.cpp/build/bin/llama-server",
        "-m",
        "Qwen/Qwen3-4B:Q8_0",
        "-c",
        "8192",
        "-fa",
        "-rtr",
        "-ngl",
        "99",
    ]
    found = ask_command(words, Machine((find_device("RTX 4090"),), 64 * GIB), offline=True)
    assert (found.engine, found.details["n_ctx"]) == ("ik_llama.cpp", 8192)
    newer = ask_command(words, Machine((find_device("RTX 4090"),), 64 * GIB), version="b99999", offline=True)
    assert any("b99999 is not known" in note for note in newer.notes)
