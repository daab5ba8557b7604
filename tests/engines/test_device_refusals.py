"""What engines refuse because of the device, as their sources say: by version, quantization, dtype and card."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.asking import find_subject, machine_of
from willfit.engines import exllamav3, lmdeploy, mlx, sglang, tensorrt_llm, tgi, transformers
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.capability import capability, capability_named
from willfit.engines.needed_capability import lowest, since
from willfit.engines.sglang.devices import device_refusal as sglang_refusal
from willfit.engines.table import default_engine
from willfit.engines.transformers.devices import device_refusal as transformers_refusal
from willfit.engines.transformers.devices import runs_dequantized
from willfit.engines.vllm import Settings
from willfit.engines.vllm.devices.dtypes import model_dtype
from willfit.engines.vllm.devices.support import device_refusal, unfit
from willfit.engines.vllm.kinds import kind_of
from willfit.hardware.device import Device
from willfit.hardware.table import all_devices, find_device
from willfit.planning.what import usual_engine

QWEN, GEMMA, GPT_OSS, LATENT = (
    "Qwen/Qwen3-8B",
    "google/gemma-2-9b-it",
    "openai/gpt-oss-20b",
    "deepseek-ai/DeepSeek-V2-Lite",
)
FORMATS = (
    None,
    "fp8",
    "fp8-block",
    "mxfp8",
    "awq",
    "gptq",
    "nvfp4",
    "nf4",
    "int8",
    "w4a16",
    "torchao-int4",
    "fbgemm-fp8",
)
VERSIONS = (
    "0.4.2",
    "0.5.1",
    "0.6.3",
    "0.8.5",
    "0.9.0",
    "0.10.2",
    "0.13.0",
    "0.14.0",
    "0.19.1",
    "0.20.0",
    "0.24.0",
    "0.33.0",
)


@cache
def subject(model: str = QWEN, format_name: str | None = None) -> Subject:
    return find_subject(model, format_name, offline=True)[0]


def refused(
    device: str, version: str, format_name: str | None = None, model: str = QWEN, **asked: str
) -> str:
    """vLLM's refusal. The dtype is fp16 unless something else is asked for."""
    given_settings = Settings(version=version, **{"dtype": "half", **asked})
    return device_refusal(subject(model, format_name), given_settings, find_device(device))


@pytest.mark.parametrize(
    ("device", "last_refused", "first_taken"),
    [
        ("p100", "0.33.0", None),
        ("v100", "0.19.1", None),
        # `Fp8Config.get_min_capability`: 89 until 0.5.0, 80 until 0.13.0, then 75.
        ("t4", "0.13.0", "0.14.0"),
        ("rtx3090", "0.5.0", "0.5.1"),
        ("rtx4090", None, "0.4.2"),
        ("h100", None, "0.4.2"),
        # `rocm_supported_quantization` has it since 0.5.5.
        ("mi300x", "0.5.4", "0.5.5"),
        ("mi250x", "0.33.0", None),
    ],
)
def test_vllm_runs_fp8_on_more_cards_with_every_version(device, last_refused, first_taken):
    if last_refused:
        assert refused(device, last_refused, "fp8")
    if first_taken:
        assert not refused(device, first_taken, "fp8")
        assert not refused(device, "0.33.0", "fp8")


@pytest.mark.parametrize(
    ("device", "version", "format_name", "says"),
    [
        ("p100", "0.10.2", None, "7.0 (Volta)"),
        ("v100", "0.10.2", None, ""),
        ("v100", "0.20.0", None, "0.19.1 was the last for Volta"),
        ("v100", "0.10.2", "awq", "7.5 (Turing)"),
        ("v100", "0.10.2", "gptq", ""),
        ("v100", "0.10.2", "nf4", ""),
        ("v100", "0.10.2", "int8", "int8 of compressed-tensors"),
        ("t4", "0.10.2", "awq", ""),
        ("t4", "0.11.0", "w4a16", "8.0 (Ampere) and newer; vLLM 0.12 does"),
        ("t4", "0.12.0", "w4a16", ""),
        ("t4", "0.13.0", "fp8", "8.0 (Ampere) and newer; vLLM 0.14 does"),
        # Marlin has blocks since 0.9; Triton has no FP8 before Ada.
        ("rtx3090", "0.8.5", "fp8-block", "8.9 (Ada) and newer; vLLM 0.9 does"),
        ("rtx3090", "0.9.0", "fp8-block", ""),
        ("rtx4090", "0.8.5", "fp8-block", ""),
        ("h100", "0.8.5", "nvfp4", "10.0 (Blackwell) and newer; vLLM 0.9 does"),
        ("h100", "0.9.0", "nvfp4", ""),
        ("b200", "0.8.5", "nvfp4", ""),
        ("rtx5090", "0.8.5", "nvfp4", ""),
        ("t4", "0.13.0", "nvfp4", "vLLM 0.14 does"),
        ("t4", "0.33.0", "nvfp4", ""),
        ("mi300x", "0.21.0", "fp8", ""),
        ("mi300x", "0.11.0", "nf4", "0.17 and later do"),
        ("rx7900xtx", "0.11.0", "nf4", "0.12 and later do"),
        ("mi300x", "0.33.0", "hqq", "does not run hqq"),
        ("rx580-8g", "0.33.0", None, "not built for gfx803"),
    ],
)
def test_vllm_says_what_it_needs(device, version, format_name, says):
    found = refused(device, version, format_name)
    assert (says in found and bool(found)) if says else not found, found


def test_experts_have_kernels_of_their_own():
    experts = "Qwen/Qwen3-30B-A3B"
    assert "experts in fp8" in refused("a100-80g", "0.8.5", "fp8", experts)
    assert not refused("a100-80g", "0.9.0", "fp8", experts)
    assert not refused("a100-80g", "0.8.5", "fp8")
    assert "mxfp4" in refused("t4", "0.33.0", None, GPT_OSS)
    assert not refused("a100-80g", "0.33.0", None, GPT_OSS, dtype="auto")


@pytest.mark.parametrize(
    ("model", "format_name", "version", "dtype", "runs_in", "says"),
    [
        (QWEN, None, "0.8.5", "auto", "fp16", "--dtype half"),
        (QWEN, None, "0.8.5", "half", "fp16", ""),
        (QWEN, None, "0.9.0", "auto", "fp16", ""),
        (QWEN, None, "0.33.0", "bfloat16", "bf16", "--dtype half"),
        # Gemma 2 overflows in fp16: it falls back to fp32, which FP8's kernels do not have and bitsandbytes' have.
        (GEMMA, None, "0.33.0", "auto", "fp32", ""),
        (GEMMA, None, "0.33.0", "half", "fp16", "does not run gemma2 in fp16"),
        (GEMMA, "fp8", "0.33.0", "auto", "fp32", "16 bits only"),
        (GEMMA, "nf4", "0.20.0", "auto", "fp32", ""),
    ],
)
def test_turing_has_no_bfloat16(model, format_name, version, dtype, runs_in, says):
    asked = Settings(version=version, dtype=dtype)
    assert model_dtype(subject(model, format_name), asked, find_device("t4")) == runs_in
    found = refused("t4", version, format_name, model, dtype=dtype)
    assert (says in found and bool(found)) if says else not found, found


def test_plain_kernels_run_in_fp16():
    # Marlin runs AWQ and GPTQ in bfloat16, on NVIDIA's cards; `auto_awq.py` and `auto_gptq.py` on all.
    assert "fp16 only" in refused("mi300x", "0.17.1", "awq", dtype="auto")
    assert not refused("mi300x", "0.24.0", "awq", dtype="auto")
    assert not refused("h100", "0.17.1", "awq", dtype="auto")
    assert "fp16 only" in refused("mi300x", "0.17.1", "gptq", dtype="auto")
    assert "fp16 only" in refused("h100", "0.17.1", "gptq-int2", dtype="auto")
    assert not refused("h100", "0.22.0", "gptq-int2", dtype="auto")


@pytest.mark.parametrize(
    ("model", "device", "version", "is_refused"),
    [
        (QWEN, "t4", "0.33.0", True),
        (QWEN, "t4", "0.23.0", False),
        (QWEN, "rtx3090", "0.33.0", False),
        # Heads of 96, sinks, images that see each other: FlashInfer leaves them to Triton.
        ("microsoft/Phi-3-mini-4k-instruct", "rtx3090", "0.33.0", True),
        (GPT_OSS, "rtx3090", "0.33.0", True),
        ("google/gemma-3-27b-it", "rtx3090", "0.33.0", True),
        (GPT_OSS, "l40s", "0.33.0", False),
        (LATENT, "rtx3090", "0.33.0", True),
        (LATENT, "l40s", "0.33.0", False),
        (LATENT, "l40s", "0.17.1", True),
        (LATENT, "h100", "0.17.1", False),
        (QWEN, "mi300x", "0.33.0", False),
    ],
)
def test_an_8_bit_cache_needs_a_kernel(model, device, version, is_refused):
    found = refused(device, version, None, model, dtype="auto", kv_cache_dtype="fp8")
    assert ("fp8 cache" in found) == is_refused, found
    assert not refused(device, version, None, model, dtype="auto")


def card(number: int) -> Device:
    return Device("card", vendor="NVIDIA", compute_capability=f"{number // 10}.{number % 10}")


CARDS = tuple(map(card, (37, 52, 60, 61, 70, 75, 80, 86, 87, 89, 90, 100, 103, 120, 121)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from((QWEN, GEMMA, LATENT, "Qwen/Qwen3-30B-A3B")),
    st.sampled_from(FORMATS),
    st.sampled_from(VERSIONS),
    st.sampled_from(("auto", "half", "bfloat16")),
    st.sampled_from(("auto", "fp8")),
)
def test_a_newer_card_is_never_refused_what_an_older_one_runs(model, format_name, version, dtype, kv_dtype):
    stored = subject(model, format_name)
    asked = Settings(version=version, dtype=dtype, kv_cache_dtype=kv_dtype)
    found = [bool(device_refusal(stored, asked, one)) for one in CARDS]
    assert found == sorted(found, reverse=True)
    others = [
        [bool(sglang_refusal(stored, sglang.Settings(version="0.5.10"), one)) for one in CARDS],
        [bool(transformers_refusal(stored, Machine((one,)), "4.53.0")) for one in CARDS],
    ]
    assert all(one == sorted(one, reverse=True) for one in others)


@pytest.mark.parametrize("format_name", FORMATS)
def test_devices_of_a_kind_are_refused_alike(format_name):
    for version in VERSIONS:
        for kv_dtype in ("auto", "fp8"):
            asked = Settings(version=version, kv_cache_dtype=kv_dtype)
            for device in all_devices():
                for stored in (subject(QWEN, format_name), subject(GPT_OSS)):
                    said = device_refusal(stored, asked, device)
                    assert device_refusal(stored, asked, kind_of(device)) == said, device.name


def test_what_is_not_known_of_a_device_refuses_nothing():
    unknown = machine_of("24GiB").devices[0]
    for format_name in FORMATS:
        for version in VERSIONS:
            asked = Settings(version=version, dtype="half")
            assert not device_refusal(subject(QWEN, format_name), asked, unknown)


@pytest.mark.parametrize(
    ("engine", "version", "device", "format_name", "says"),
    [
        # `load_model` asks for 7.5 in every version that was read.
        (sglang, "0.5.23", "v100", None, "7.5 (Turing)"),
        (sglang, "0.5.23", "t4", None, ""),
        (sglang, "0.5.23", "t4", "fp8", "8.0 (Ampere)"),
        (sglang, "0.5.23", "t4", "awq", ""),
        (sglang, "0.5.19", "t4", "gptq", ""),
        (sglang, "0.5.20", "t4", "gptq", "8.0 (Ampere)"),
        (sglang, "0.5.12", "h100", "nvfp4", "10.0 (Blackwell) and newer; SGLang 0.5.13 does"),
        (sglang, "0.5.23", "h100", "nvfp4", ""),
        (sglang, "0.5.3", "a100-80g", "int8", "8.9 (Ada) and newer; SGLang 0.5.7 does"),
        (sglang, "0.5.23", "mi300x", "fp8", ""),
        (sglang, "0.5.23", "mi300x", "gptq", "does not run gptq"),
        (sglang, "0.5.23", "rx7900xtx", None, "not for gfx1100"),
        (lmdeploy, "0.14.0", "p100", None, "7.0 (Volta)"),
        (lmdeploy, "0.14.0", "v100", "awq", ""),
        (tensorrt_llm, "1.2.0", "t4", None, "8.0 (Ampere)"),
        (tensorrt_llm, "1.2.0", "a100-80g", "fp8", "8.9 (Ada)"),
        (tensorrt_llm, "1.2.0", "h100", "nvfp4", "10.0 (Blackwell)"),
        (tensorrt_llm, "1.2.0", "mi300x", None, "NVIDIA's cards only"),
        (tgi, "3.3.7", "t4", "fp8", "8.0 (Ampere)"),
        (tgi, "3.3.7", "l4", "fp8", ""),
        (exllamav3, "1.5.0", "t4", "exl3-4.0bpw", "8.0 (Ampere)"),
        (exllamav3, "1.5.2", "t4", "exl3-4.0bpw", ""),
        (exllamav3, "1.5.2", "rx7900xtx", "exl3-4.0bpw", "no kernels for AMD"),
        (exllamav3, "1.6.0", "rx7900xtx", "exl3-4.0bpw", ""),
        (mlx, "0.31.0", "v100", "mlx4", "7.5 (Turing)"),
        (transformers, "4.57.0", "rtx3090", "fp8", "8.9 (Ada) and newer; transformers 5.0 does"),
        (transformers, "5.0.0", "rtx3090", "fp8", ""),
        (transformers, "5.0.0", "rtx4090", "fbgemm-fp8", "9.0 (Hopper)"),
        (transformers, "5.0.0", "k80", None, "5.0"),
    ],
)
def test_other_engines_refuse_what_theirs_do(engine, version, device, format_name, says):
    found = engine.answer(
        subject(QWEN, format_name), machine_of(device), Question(4096, version=version)
    ).refusal
    assert (says in found and bool(found)) if says else not found, found


def test_transformers_expands_fp8_where_there_are_no_kernels():
    stored = subject(QWEN, "fp8")
    assert runs_dequantized(stored, find_device("v100"), "5.23.0")
    assert not runs_dequantized(stored, find_device("rtx4090"), "5.23.0")
    old, new = (
        next(
            term.bytes
            for term in transformers.answer(stored, machine_of(name), Question(4096)).devices[0].terms
            if term.name == "weights"
        )
        for name in ("v100", "rtx4090")
    )
    # 8,190,735,360 parameters in 16 bits, of which 6,945,767,424 are linears' in 8.
    assert old == 2 * 8_190_735_360
    assert old - new == pytest.approx(6_945_767_424, rel=0.001)
    assert runs_dequantized(subject(GPT_OSS), find_device("a100-80g"), "4.55.0")
    assert not runs_dequantized(subject(GPT_OSS), find_device("t4"), "4.56.0")


def test_cards_that_vllm_does_not_run_on_are_given_to_others():
    for name in ("p100", "v100", "k80", "rx580-8g"):
        assert default_engine(subject(), machine_of(name), is_gguf=False) == "transformers"
        assert usual_engine(machine_of(name)) == "llama.cpp"
        assert unfit(find_device(name), "0.33.0")
    assert default_engine(subject(), machine_of("t4"), is_gguf=False) == "vllm"
    assert usual_engine(machine_of("t4")) == "vllm"


def test_capabilities_are_read_as_engines_read_them():
    read = {device.name: capability(device) for device in all_devices()}
    assert read["T4"] == 75
    assert read["RTX PRO 6000 Blackwell Server"] == 120
    assert read["Instinct MI300X"] == 94
    assert read["Instinct MI250X (per GCD)"] == 90
    assert read["Radeon RX 7900 XTX"] == 110
    assert read["Apple M4"] is None
    assert capability_named(120) == "compute capability 12.0"


@given(st.integers(0, 40))
def test_the_last_step_counts(minor):
    steps = since(((0, 5), 89), ((0, 9), 80), ((0, 20), 0))
    expected = 0 if minor < 5 or minor >= 20 else 89 if minor < 9 else 80
    assert lowest(steps, (0, minor, 3)) == expected
