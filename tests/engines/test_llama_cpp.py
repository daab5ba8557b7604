"""llama.cpp: figures by hand and from logs, what must hold for all settings, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.asking import answer_command, find_subject, machine_of
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.llama_cpp import Settings, answer, estimate
from willfit.engines.llama_cpp.eras import ERAS
from willfit.engines.llama_cpp.settings import Drafting
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.formulas import read_formula
from willfit.hardware.processors import ProcessorKind
from willfit.hardware.table import find_device

MIB, GIB = 2**20, 2**30
CPU = Machine((), 64 * GIB)
ONE = Machine((find_device("RTX 4090"),), 64 * GIB)
TWO = Machine((find_device("RTX 4090"),) * 2, 64 * GIB)

DENSE, MIXTURE, WINDOWS, LATENT, HYBRID = (
    "Qwen/Qwen3-4B", "Qwen/Qwen3-30B-A3B", "google/gemma-3-12b-it", "deepseek-ai/DeepSeek-V2-Lite", "Qwen/Qwen3.5-9B",
)  # fmt: skip
KINDS = (DENSE, MIXTURE, WINDOWS, LATENT, HYBRID)


@cache
def subject(model: str, file_type: str = "Q4_K_M") -> Subject:
    return find_subject(f"{model}:{file_type}", offline=True)[0]


def asked(model: str, machine: Machine = ONE, **given: object) -> Estimate:
    made = {"program": "api", "n_ctx": 8192, "n_parallel": 1, "n_gpu_layers": "all", **given}
    return estimate(subject(model), machine, Settings(**made))  # type: ignore[arg-type]


def mib(sizes: dict[str, int]) -> dict[str, float]:
    return {place: round(size / MIB, 2) for place, size in sizes.items()}


def test_a_whole_log_of_a_dense_model() -> None:
    """Published: Qwen3-4B Q4_K_M, llama-server with four slots that share 8192 tokens, a build of October 2026."""
    found = asked(DENSE, program="server", n_parallel=None, version="b11549").details["buffers"]
    assert mib(found["model"]) == {"CPU_Mapped": 304.28, "CUDA0": 2375.91}
    assert mib(found["kv"]) == {"CUDA0": 1152.0}
    assert mib(found["compute"]) == {"CUDA0": 85.01, "CUDA_Host": 28.02}
    assert mib(found["output"]) == {"CUDA_Host": 2.32}


def test_caches_by_hand() -> None:
    llama = asked("meta-llama/Meta-Llama-3-8B").details["buffers"]["kv"]
    assert llama == {"CUDA0": 32 * 8 * 128 * 2 * 2 * 8192}
    quantized = asked("meta-llama/Meta-Llama-3-8B", cache_type_k="q8_0", cache_type_v="q4_0", flash_attn="on")
    # 32 elements in 34 and in 18 bytes
    assert quantized.details["buffers"]["kv"] == {"CUDA0": 32 * 8192 * 32 * (34 + 18)}
    # Gemma 3 12B: 8 full layers; 40 with windows of 1024 tokens, and 512 more that are computed at once
    windows = asked(WINDOWS, n_ctx=32768).details["buffers"]["kv"]
    assert windows == {"CUDA0": 8 * 256 * 2 * 2 * (8 * 32768 + 40 * 1536)}
    whole = asked(WINDOWS, n_ctx=32768, swa_full=True).details["buffers"]["kv"]
    assert whole == {"CUDA0": 8 * 256 * 2 * 2 * 48 * 32768}
    latent = asked(LATENT).details["buffers"]["kv"]
    assert latent == {"CUDA0": 27 * 576 * 2 * 8192}
    # Before latents were cached: 16 heads of 192 and 128
    heads = asked(LATENT, version="b5000").details["buffers"]["kv"]
    assert heads == {"CUDA0": 27 * 16 * (192 + 128) * 2 * 8192}
    # ik_llama.cpp's -mla 1 keeps latents twice
    fork = asked(LATENT, version="b5500", fork="ik_llama.cpp", mla=1, flash_attn="off").details["buffers"][
        "kv"
    ]
    assert fork == {"CUDA0": 27 * (576 + 512) * 2 * 8192}


def test_states_are_kept_for_each_sequence_and_draft() -> None:
    one = sum(asked(HYBRID).details["buffers"]["rs"].values())
    # 24 layers: 3 tokens of 8192 channels, 32 heads of 128 x 128, F32
    assert one == 24 * 4 * (3 * 8192 + 32 * 128 * 128)
    assert sum(asked(HYBRID, n_parallel=4).details["buffers"]["rs"].values()) == 4 * one
    drafted = asked(HYBRID, drafting=Drafting("mtp", n_max=3)).details["buffers"]["rs"]
    assert sum(drafted.values()) == 4 * one


def test_where_layers_go() -> None:
    partial = asked(DENSE, n_gpu_layers=10, mmap=False)
    buffers = partial.details["buffers"]
    # The output and the last 9 of 36 layers
    assert buffers["kv"]["CUDA0"] * 27 == buffers["kv"]["CPU"] * 9
    whole = sum(asked(DENSE, CPU, mmap=False, repack=False).details["buffers"]["model"].values())
    # A tied table is on both sides.
    table = next(tensor for tensor in subject(DENSE).gguf.tensors if tensor.name == "token_embd.weight")  # type: ignore[union-attr]
    assert sum(buffers["model"].values()) == whole + table.bytes
    experts = asked(MIXTURE, cpu_moe=True, mmap=False).details["buffers"]["model"]
    stacks = sum(t.bytes for t in subject(MIXTURE).gguf.tensors if "_exps." in t.name)  # type: ignore[union-attr]
    assert experts["CUDA_Host"] > stacks > 0.9 * experts["CUDA_Host"]
    split = asked(DENSE, TWO, tensor_split=(3, 1)).details["buffers"]["kv"]
    assert split["CUDA0"] / split["CUDA1"] == pytest.approx(3, rel=0.2)


def test_mapped_files_are_told_apart_from_memory() -> None:
    mapped, read = asked(DENSE, CPU), asked(DENSE, CPU, mmap=False)
    assert sum(term.bytes for term in mapped.host.page_cache) > 2 * GIB
    assert not read.host.page_cache
    private = {term.name: term.bytes for term in mapped.host.terms}
    assert private["repacked_weights"] > 1 * GIB
    old = asked(DENSE, CPU, version="b4200")
    assert "repacked_weights" not in {term.name for term in old.host.terms}


def test_apple_reads_weights_where_the_mapped_file_has_them() -> None:
    """Published: gpt-oss-20b on an M5, 11536.18 MiB, the table of embeddings (586.82) between its tensors in it."""
    model = subject("openai/gpt-oss-20b", "MXFP4")
    machine = Machine((find_device("M4 Max 64GB"),))
    found = estimate(model, machine, Settings(n_gpu_layers="all", n_ctx=8192, version="b7217"))
    assert mib(found.details["buffers"]["model"]) == {"CPU_Mapped": 586.82, "MTL0": 11536.18}


def test_a_macs_processor_repacks_as_arm_does() -> None:
    """Published: gpt-oss-20b on a Mac, experts of 12 layers on the host; Llama 3.2 1B on a phone."""
    model = subject("openai/gpt-oss-20b", "MXFP4")
    asked = Settings(n_gpu_layers="all", n_ctx=32768, n_cpu_moe=12, mmap=False, version="b8193")
    found = estimate(model, Machine((find_device("M4 Max 64GB"),)), asked).details["buffers"]
    assert mib(found["model"]) == {"CPU": 599.48, "CPU_REPACK": 4841.02, "MTL0": 6095.68}
    assert mib(found["compute"]) == {"CPU": 144.77, "MTL0": 398.38}
    phone = Machine((), processor="i8mm")
    small = estimate(
        subject("meta-llama/Llama-3.2-1B-Instruct"), phone, Settings(version="b8470", n_ctx=4096)
    )
    assert mib(small.details["buffers"]["model"])["CPU_REPACK"] == 762.55


@pytest.mark.parametrize(
    ("model", "mix", "kind", "expected"),
    [
        ("meta-llama/Meta-Llama-3-8B", "Q2_K", "plain", {"CPU": 3171295232}),
        ("meta-llama/Meta-Llama-3-8B", "Q2_K", "avx2", {"CPU": 3095797760, "CPU_REPACK": 75497472}),
        ("meta-llama/Meta-Llama-3-8B", "Q2_K", "avx512", {"CPU": 1642471424, "CPU_REPACK": 1528823808}),
        ("meta-llama/Meta-Llama-3-8B", "Q4_K_M", "amx", {"CPU": 296566784, "AMX": 4709654528}),
        ("meta-llama/Meta-Llama-3-8B", "Q8_0", "amx", {"CPU": 559235072, "AMX": 8911781888}),
        ("meta-llama/Meta-Llama-3-8B", "F16", "amx", {"CPU": 1051738112, "AMX": 15009316864}),
        (
            "Qwen/Qwen3-30B-A3B", "Q4_K_M", "amx",
            {"CPU": 4189822976, "AMX": 785111040, "CPU_REPACK": 13589544960},
        ),
    ],
)  # fmt: skip
def test_processors_keep_weights_as_the_library_says(
    model: str, mix: str, kind: ProcessorKind, expected: dict[str, int]
) -> None:
    """Bytes of llama.cpp v0.5.0's own planner with its variants `sse42`, `haswell`, `zen4` and `sapphirerapids`."""
    found = estimate(subject(model, mix), Machine((), processor=kind), Settings(n_ctx=4096, mmap=False))
    assert found.details["buffers"]["model"] == expected


def test_ascends_leave_what_they_cannot_multiply_in_ram() -> None:
    """Published: gpt-oss-20b on eight 910B4, whose experts, in MXFP4, and their biases stayed in RAM."""
    machine = Machine((find_device("Ascend 910B4"),) * 8)
    asked = Settings(n_gpu_layers=60, n_ctx=131072, flash_attn="on", n_parallel=1, version="b6115")
    found = estimate(subject("openai/gpt-oss-20b", "MXFP4"), machine, asked)
    model, compute = (mib(found.details["buffers"][key]) for key in ("model", "compute"))
    assert model["CPU_Mapped"] == 10949.33
    assert [model[f"CANN{index}"] for index in range(8)] == [109.2, *[81.9] * 6, 641.43]
    assert [compute[f"CANN{index}"] for index in range(8)] == [396.27, *[34.76] * 6, 398.38]
    assert compute["CANN_Host"] == 402.27
    assert any(note.startswith("CANN cannot multiply MXFP4") for note in found.notes)


def test_files_are_not_mapped_where_a_device_shares_memory() -> None:
    def host(gpu: str, **settings: object) -> set[str]:
        asked = Settings(n_gpu_layers="all", n_ctx=4096, **settings)  # type: ignore[arg-type]
        found = estimate(subject(DENSE), Machine((find_device(gpu),)), asked)
        return {name for name in found.details["buffers"]["model"] if not name.endswith("0")}

    assert host("gb10") == {"CUDA_Host"}
    assert host("gb10", mmap=True) == host("gb10", version="b10000") == host("rtx4090") == {"CPU_Mapped"}


def test_what_is_left_open_is_fitted_to_free_memory() -> None:
    """Not more than the card has, and not much less than could be there (`--fit`)."""
    found = asked("Qwen/Qwen3-32B", n_ctx=None, n_gpu_layers=None, program="server", n_parallel=None)
    assert found.devices[0].peak_bytes <= found.devices[0].usable_bytes  # type: ignore[operator]
    assert found.devices[0].peak_bytes > 0.8 * found.devices[0].usable_bytes  # type: ignore[operator]
    large = asked("Qwen/Qwen3-235B-A22B", n_ctx=None, n_gpu_layers=None, program="server", n_parallel=None)
    assert large.devices[0].peak_bytes <= large.devices[0].usable_bytes  # type: ignore[operator]
    assert large.details["buffers"]["model"]["CPU_Mapped"] > 100 * GIB


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("era", ERAS, ids=lambda era: f"b{era.since[0]}")
def test_every_era_answers_and_explains(model: str, era: object) -> None:
    found = asked(model, n_gpu_layers=20, version=f"b{max(1000, era.since[0])}")  # type: ignore[attr-defined]
    for place in (*found.devices, found.host):
        for term in (*place.terms, *place.page_cache):
            formula = read_formula(term.formula)
            assert formula is not None, term
            assert formula.value == pytest.approx(term.bytes, abs=1), term


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(KINDS),
    n_ctx=st.integers(256, 65536),
    n_parallel=st.integers(1, 8),
    unified=st.booleans(),
    n_ubatch=st.sampled_from((32, 128, 512, 1024)),
    layers=st.integers(0, 60),
    kinds=st.sampled_from(("f16", "q8_0", "q4_0")),
    devices=st.integers(0, 2),
)
def test_more_never_takes_less(
    model: str,
    n_ctx: int,
    n_parallel: int,
    unified: bool,
    n_ubatch: int,
    layers: int,
    kinds: str,
    devices: int,
) -> None:
    machine = (CPU, ONE, TWO)[devices]
    given_now = {
        "n_parallel": n_parallel, "kv_unified": unified, "n_ubatch": n_ubatch, "n_gpu_layers": layers,
        "cache_type_k": kinds, "cache_type_v": kinds, "flash_attn": "on", "mmap": False,
    }  # fmt: skip
    small = asked(model, machine, n_ctx=n_ctx + 256 * n_parallel, **given_now)
    large = asked(model, machine, n_ctx=2 * (n_ctx + 256 * n_parallel), **given_now)

    def caches(one: Estimate) -> int:
        return sum(one.details["buffers"]["kv"].values())

    assert caches(small) <= caches(large)
    assert sum(small.details["buffers"]["rs"].values()) == sum(large.details["buffers"]["rs"].values())
    for one in (small, large):
        for place in (*one.devices, one.host):
            assert sum(term.bytes for term in place.terms) == place.peak_bytes
        buffers = one.details["buffers"]
        named = [*buffers["model"].values(), *buffers["kv"].values(), *buffers["rs"].values()]
        named += [*buffers["compute"].values(), *buffers["output"].values()]
        terms = [term for place in (*one.devices, one.host) for term in place.terms]
        beside = sum(term.bytes for term in terms if term.name in ("context", "prompt_cache", "checkpoints"))
        assert sum(term.bytes for term in terms) - beside == sum(named)


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"flash_attn": "off", "cache_type_v": "q8_0"}, "flash"),
        ({"cache_type_k": "q9_9"}, "unknown type of cache"),
        ({"devices": (4,)}, "device 4"),
        ({"override_tensor": (("ffn", "CUDA7"),)}, "CUDA7"),
        ({"version": "yesterday"}, "yesterday"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given_settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as error:
        asked(DENSE, **given_settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_its_tensors_is_refused() -> None:
    whole = subject(DENSE)
    assert whole.gguf is not None
    tensors = tuple(tensor for tensor in whole.gguf.tensors if tensor.name != "blk.3.attn_output.weight")
    broken = replace(whole, gguf=replace(whole.gguf, tensors=tensors))
    with pytest.raises(BadInput, match=r"blk\.3\.attn_output\.weight"):
        estimate(broken, ONE, Settings(n_ctx=4096))


def test_unknown_graphs_are_answered_with_a_wide_interval() -> None:
    known = subject(DENSE)
    assert known.gguf is not None
    metadata = {key.replace("qwen3.", "novel."): value for key, value in known.gguf.metadata.items()}
    header = replace(known.gguf, metadata={**metadata, "general.architecture": "novel"})
    novel = replace(known, gguf=header, architecture=replace(known.architecture, model_type="novel"))
    found = estimate(novel, ONE, Settings(program="api", n_ctx=8192, n_parallel=1, n_gpu_layers="all"))
    compute = next(term for term in found.devices[0].terms if term.name == "compute")
    true = next(term for term in asked(DENSE).devices[0].terms if term.name == "compute")
    assert compute.low_bytes <= true.bytes <= compute.high_bytes
    assert any("novel" in note for note in found.notes)


def test_a_question_is_about_a_server_with_slots() -> None:
    found = answer(subject(DENSE), ONE, Question(8192, 4))
    assert found.details["n_ctx"] == 4 * 8192
    assert found.capacity is not None
    assert found.capacity.max_concurrency >= 4


def test_a_command_line_is_answered() -> None:
    words = [
        "llama-server",
        "-hf",
        "Qwen/Qwen3-14B-GGUF:Q4_K_M",
        "-c",
        "32768",
        "-ngl",
        "30",
        "--host",
        "0.0.0.0",
    ]
    found = answer_command(words, machine_of("rtx3090"), offline=True).estimate
    assert (found.engine, found.details["n_gpu_layers"]) == ("llama.cpp", 30)
    assert any("30 of 41 layers" in note for note in found.notes)
