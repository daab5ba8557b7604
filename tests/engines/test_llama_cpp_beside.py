"""llama.cpp: divided rows, drafting layers, encoders of pictures, and what ik_llama.cpp does otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from willfit.asking import find_subject
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.conversion.predict import predict
from willfit.engines.base import Machine, Subject
from willfit.engines.gguf_files import subject_of_file
from willfit.engines.llama_cpp import Drafting, Settings, estimate
from willfit.engines.llama_cpp.backends.cuda import Cuda
from willfit.engines.llama_cpp.graph.pictures import Encoder
from willfit.engines.llama_cpp.ik_eras import IK_ERAS
from willfit.engines.llama_cpp.loading.projectors import encoder_of
from willfit.engines.llama_cpp.loading.rows import row_split
from willfit.errors import BadInput
from willfit.estimate import Estimate, Term
from willfit.formulas import read_formula
from willfit.hardware.table import find_device

MIB, GIB = 2**20, 2**30
#: Qwen3.5's encoder, and the picture that programs run it on at start.
ENCODER = Encoder(27, 1152, 4304, 16, 16, 2, 1472, 2048)


@cache
def subject(model: str, file_type: str = "Q4_K_M") -> Subject:
    return find_subject(f"{model}:{file_type}", offline=True)[0]


def devices(*names: str) -> Machine:
    return Machine(tuple(find_device(name) for name in names), 512 * GIB)


def asked(model: str, machine: Machine, file_type: str = "Q4_K_M", **given: object) -> Estimate:
    made = {"program": "api", "n_ctx": 8192, "n_parallel": 1, "n_gpu_layers": "all", **given}
    return estimate(subject(model, file_type), machine, Settings(**made))  # type: ignore[arg-type]


def mib(sizes: dict[str, int]) -> dict[str, float]:
    return {place: round(size / MIB, 2) for place, size in sizes.items() if size}


def test_rows_by_hand() -> None:
    matrix = GgufTensor("blk.0.ffn_up.weight", "Q8_0", (1000 // 32 * 32, 1000), 0, 0)
    split = row_split((1.0, 2.0), (Cuda(0), Cuda(1)), None)
    # A third of 1000 rows is 333, of which a multiple of 128 stays: 256; rows of 992 are padded by 32 elements.
    assert split.rows(1000) == (256, 744)
    assert split.bytes(matrix) == (256 * 31 * 34 + 34, 744 * 31 * 34 + 34)
    assert split.divides(matrix, "mul_mat", 0)
    assert not split.divides(matrix, "mul_mat_id", 0)
    assert not split.divides(GgufTensor("blk.0.x", "F32", (64, 100), 0, 0), "mul_mat", 0)
    old = row_split((1.0, 1.0), (Cuda(0, arch=61), Cuda(1, arch=61)), None)
    assert old.rows(1000) == (448, 552)


def test_divided_rows_are_all_there_and_the_cache_is_where_layers_are() -> None:
    two = devices("RTX 3090", "RTX 3090")
    rows = asked("Qwen/Qwen3-4B", two, version="b6000", split_mode="row", tensor_split=(3.0, 1.0))
    whole = asked("Qwen/Qwen3-4B", two, version="b6000", tensor_split=(3.0, 1.0))
    model = rows.details["buffers"]["model"]
    split = {place: size for place, size in model.items() if place.endswith("_Split")}
    assert set(split) == {"CUDA0_Split", "CUDA1_Split"}
    terms = [term.bytes for device in rows.devices for term in device.terms if term.name == "divided_weights"]
    assert len(terms) == 2
    assert sum(split.values()) == pytest.approx(sum(terms), abs=len(split) * 300 * 128)
    assert terms[0] == pytest.approx(3 * terms[1], rel=0.02)
    assert rows.details["buffers"]["kv"] == whole.details["buffers"]["kv"]
    before = asked("Qwen/Qwen3-4B", two, version="b3000", split_mode="row")
    assert set(before.details["buffers"]["kv"]) == {"CUDA0"}
    with pytest.raises(BadInput, match="does not divide rows"):
        asked("Qwen/Qwen3-4B", two, split_mode="row")


def test_a_log_with_divided_rows() -> None:
    """Published: Command A Q4_K_L on four RTX 3090, ik_llama.cpp of July 2025."""
    found = asked(
        "CohereLabs/c4ai-command-a-03-2025", devices(*["RTX 3090"] * 4), "Q4_K_L", program="server",
        fork="ik_llama.cpp", version="b3774", split_mode="row", n_ctx=32768, n_ubatch=2048, flash_attn="on",
        cache_type_k="q8_0", cache_type_v="q8_0",
    ).details["buffers"]  # fmt: skip
    assert mib(found["model"]) == {"CUDA_Split": 64738.5, "CPU_Mapped": 3187.5, "CUDA0": 3.05}
    assert mib(found["kv"]) == {"CUDA0": 4352.03}
    assert mib(found["compute"]) == {"CUDA0": 2096.0, "CUDA_Host": 608.02}
    assert mib(found["output"]) == {"CUDA_Host": 1.95}


def test_logs_of_latent_attention_in_ik_llama_cpp() -> None:
    """Published: DeepSeek-V3 with its experts in RAM, keys and values made for some heads at a time (June 2025)."""
    found = asked(
        "deepseek-ai/DeepSeek-V3-0324", devices("RTX 4090"), program="server", fork="ik_llama.cpp", version="b3745",
        n_ctx=32768, flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0", mla=3, max_attention_mib=512,
        fused_moe=True, override_tensor=(("exps", "CPU"),),
    )  # fmt: skip
    buffers = found.details["buffers"]
    assert mib(buffers["compute"]) == {"CUDA0": 3425.0, "CUDA_Host": 176.01}
    assert mib(buffers["kv"]) == {"CUDA0": 1166.65}
    assert any("up to a quarter" in note for note in found.notes)
    compute = next(term for term in found.devices[0].terms if term.name == "compute")
    assert compute.low_bytes < compute.bytes < compute.high_bytes


@pytest.mark.parametrize("mla", [0, 1, 2, 3])
@pytest.mark.parametrize("era", IK_ERAS, ids=lambda era: f"b{era.since[0]}")
def test_every_era_of_ik_llama_cpp_answers_and_explains(era: object, mla: int) -> None:
    version = f"b{era.since[0]}"  # type: ignore[attr-defined]
    given = {"fork": "ik_llama.cpp", "version": version, "mla": mla, "n_ubatch": 128, "n_ctx": 1024}
    for flash in ("on", "off"):
        found = asked("deepseek-ai/DeepSeek-V2-Lite", devices("RTX 4090"), flash_attn=flash, **given)
        for term in (*found.devices[0].terms, *found.host.terms):
            formula = read_formula(term.formula)
            assert formula is not None, term
            assert formula.value == pytest.approx(term.bytes, abs=1), term
        kv = found.details["buffers"]["kv"]["CUDA0"]
        heads = 27 * 16 * (192 + 128) * 2 * 1024
        latents = 27 * 576 * 2 * 1024 + (27 * 512 * 2 * 1024 if mla == 1 and flash == "off" else 0)
        latent = mla and era.latent_cache  # type: ignore[attr-defined]
        assert kv == (latents if latent else heads)


def test_a_log_of_a_drafting_layer() -> None:
    """Published: Qwen3.8-27B on Vulkan, 512 tokens at once, 8192 tokens that four slots share (September 2026)."""
    entry = find("Qwen/Qwen3.8-27B")
    assert entry is not None
    made = predict(Config(entry.config, entry.id), "Q4_K_M", drafts=True)
    found = estimate(
        subject_of_file("Qwen3.8-27B", made.header), devices("RTX 3090"),
        Settings(version="b9849", backend="vulkan", n_ctx=8192, n_gpu_layers="all", drafting=Drafting("mtp", n_max=2)),
    )  # fmt: skip
    draft = found.details["draft"]
    assert mib(draft["kv"]) == {"Vulkan0": 32.0}
    assert mib(draft["compute"]) == {"Vulkan0": 130.02, "Vulkan_Host": 28.02}
    term = next(term for term in found.devices[0].terms if term.name == "draft")
    assert (
        term.low_bytes
        == term.bytes
        == term.high_bytes
        == draft["kv"]["Vulkan0"] + draft["compute"]["Vulkan0"]
    )


def test_logs_of_an_encoder_of_pictures() -> None:
    """Published: Qwen3.5-35B-A3B with its projector (April 2026), and Qwen3.5-2B's on a processor."""
    given = {"version": "b8672", "mmproj_bytes": 902_800_000, "mmproj_encoder": ENCODER}
    found = asked("Qwen/Qwen3-4B", devices("RTX 4090"), **given)
    assert mib(found.details["projector"]) == {"CUDA0": 248.1, "CPU": 24.93}
    term = next(term for term in found.devices[0].terms if term.name == "projector_compute")
    assert term.low_bytes == term.bytes == term.high_bytes
    small = Encoder(24, 1024, 4096, 16, 16, 2, 1472, 2048)
    found = asked("Qwen/Qwen3-4B", Machine((), 64 * GIB), **{**given, "mmproj_encoder": small})
    assert mib(found.details["projector"]) == {"CPU": 223.3}
    # Before attention was flash, scores of all patches were in memory.
    before = asked("Qwen/Qwen3-4B", devices("RTX 4090"), **{**given, "version": "b6500"})
    assert before.details["projector"]["CUDA0"] > 16 * ENCODER.patches**2 * 4


def test_what_an_encoder_computes_grows_with_pictures() -> None:
    def term(**given: object) -> Term:
        made = {"version": "b9550", "mmproj_bytes": 902_800_000, **given}
        found = asked("Qwen/Qwen3-4B", devices("RTX 4090"), **made)
        return next(term for term in found.devices[0].terms if term.name == "projector_compute")

    grows = replace(ENCODER, largest=2048)
    same, first = term(mmproj_encoder=ENCODER), term(mmproj_encoder=grows)
    largest = term(mmproj_encoder=replace(ENCODER, side=2048))
    assert (first.low_bytes, first.bytes, first.high_bytes) == (same.bytes, same.bytes, largest.bytes)
    assert largest.bytes > 1.9 * first.bytes
    # 1,024 tokens of 2 x 2 patches of 16 pixels: a side of 1,024, less than the picture at start has.
    assert term(mmproj_encoder=grows, image_tokens=1024).high_bytes == same.bytes
    waits = term(mmproj_encoder=grows, mmproj_waits=True)
    assert (waits.low_bytes, waits.bytes, waits.high_bytes) == (0, first.bytes, largest.bytes)
    # Scores of 92 x 92 patches for each of 16 heads, in 32 bits.
    scores = term(mmproj_encoder=ENCODER, mmproj_flash=False)
    assert scores.bytes > 16 * (92 * 92) ** 2 * 4 > same.bytes
    assert term(mmproj_encoder=ENCODER, version="b6500", mmproj_flash=True).bytes < scores.bytes / 4


@pytest.mark.parametrize(
    ("kind", "more", "side", "largest"),
    [
        ("qwen3vl_merger", {}, 1472, 2048),
        ("pixtral", {}, 256, 512),
        ("phi4", {"clip.vision.image_max_pixels": 1_000_000}, 256, 992),
        ("gemma3", {}, 896, 0),
    ],
)
def test_headers_say_how_large_pictures_are(kind: str, more: dict[str, int], side: int, largest: int) -> None:
    fields = {
        "block_count": 27, "embedding_length": 1152, "feed_forward_length": 4304, "attention.head_count": 16,
        "patch_size": 16, "image_size": 896,
    }  # fmt: skip
    metadata = {f"clip.vision.{name}": value for name, value in fields.items()} | more
    header = GgufHeader(3, False, {"clip.projector_type": kind, **metadata}, (), (None,))
    found = encoder_of(header)
    assert found is not None
    assert (found.side, found.largest) == (side, largest)
