"""Names of quantized files, and what is said of a model that is asked for under one."""

import pytest

from willfit.checkpoints.locate import locate
from willfit.engines.subject import subject_of
from willfit.errors import BadInput
from willfit.file_types import BASES, CONVERTED, NUMBERS, known_quantization, named_file_type, quantization
from willfit.formats.recognise import recipe_named
from willfit.ggml_types import GGML_TYPES


@pytest.mark.parametrize(
    ("text", "file_type"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("q4_k_m", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("gguf-q5_k", "Q5_K_M"),
        ("fp16", "F16"),
        ("MXFP4", "MXFP4_MOE"),
        ("i1-IQ3_XXS", "IQ3_XXS"),
    ],
)
def test_names_of_file_types(text: str, file_type: str) -> None:
    found = quantization(text)
    assert (found.file_type, found.between, found.note) == (file_type, None, "")


def test_names_of_others_mixes() -> None:
    large = quantization("Q4_K_L")
    assert (large.file_type, large.outer) == ("Q4_K_M", "Q8_0")
    dynamic = quantization("UD-Q4_K_XL")
    assert (dynamic.file_type, dynamic.between) == ("Q4_K_M", ("Q4_K_S", "Q5_K_S"))
    assert "its maker's own" in dynamic.note
    assert quantization("UD-IQ2_M").file_type == "IQ2_M"
    assert quantization("Q8_K_XL").between == ("Q6_K", "BF16")


@pytest.mark.parametrize("text", ["Q4_K_X", "Q9_0", "", "latest", "UD-", "Q4", "IQ4_KSS"])
def test_names_of_none(text: str) -> None:
    assert known_quantization(text) is None
    with pytest.raises(BadInput) as caught:
        quantization(text)
    assert "no file type" in caught.value.message
    assert "Q4_" in caught.value.hint


def test_tables_agree() -> None:
    assert set(NUMBERS) == set(BASES)
    assert len(set(NUMBERS.values())) == len(NUMBERS)
    assert set(BASES.values()) <= set(GGML_TYPES)
    assert set(CONVERTED) <= set(BASES)


def test_dtypes_are_no_file_types_of_llama_cpp() -> None:
    assert named_file_type("bf16") is None
    assert named_file_type("gguf-bf16") is not None
    assert recipe_named("f16", "bf16").name == "fp16"


def test_a_bundled_model_as_a_file() -> None:
    found = locate("Qwen/Qwen3-14B:Q4_K_M")
    assert (found.model, found.source, found.file_type) == ("Qwen/Qwen3-14B", "catalogue", "Q4_K_M")
    subject = subject_of(found)
    assert subject.gguf is not None
    assert subject.recipe.name == "gguf Q4_K_M"
    assert subject.gguf.metadata["qwen3.block_count"] == 40
    assert subject.weight_bytes == sum(tensor.bytes for tensor in subject.gguf.tensors)
    assert subject.bounds is None
    assert subject_of(locate("Qwen/Qwen3-14B"), "q4_k_m").weight_bytes == subject.weight_bytes


def test_a_mix_that_is_not_known_has_bounds() -> None:
    exact, wide = (subject_of(locate(f"Qwen/Qwen3-14B:{name}")) for name in ("Q4_K_M", "UD-Q4_K_XL"))
    assert exact.bounds is None
    assert wide.bounds is not None
    low, high = wide.bounds
    assert low < wide.weight_bytes < high
    assert wide.weight_bytes == exact.weight_bytes
    assert any("its maker's own" in note for note in wide.notes)


def test_contradictions_and_typing_mistakes() -> None:
    with pytest.raises(BadInput) as caught:
        locate("Qwen/Qwen3-14B:Q4_K_X")
    assert "Q4_K_S" in caught.value.hint
    with pytest.raises(BadInput, match="asked for as Q4_K_M and as fp8"):
        subject_of(locate("Qwen/Qwen3-14B:Q4_K_M"), "fp8")
    with pytest.raises(BadInput) as caught:
        recipe_named("q4_k_x", "bf16")
    assert "q4_k" in caught.value.hint


def test_a_repository_of_files_that_cannot_be_reached() -> None:
    for name in ("unsloth/Qwen3-14B-GGUF", "bartowski/Qwen_Qwen3-14B-GGUF", "Qwen/Qwen3-14B-GGUF"):
        found = locate(f"hf.co/{name}:Q4_K_M", offline=True)
        assert (found.model, found.file_type) == ("Qwen/Qwen3-14B", "Q4_K_M")
        assert f"{name} could not be read" in found.notes[0]
    with pytest.raises(BadInput):
        locate("someone/Something-else-GGUF:Q4_K_M", offline=True)


def test_a_model_that_llama_cpp_does_not_read() -> None:
    subject = subject_of(locate("allenai/FlexOlmo-7x7B-1T:Q4_K_M"))
    assert any("does not read" in note for note in subject.notes)
    whole = subject_of(locate("allenai/FlexOlmo-7x7B-1T"))
    assert subject.architecture.parameters == whole.architecture.parameters
    bits = 8 * subject.weight_bytes / whole.architecture.parameters
    assert 4.5 < bits < 5.5


def test_a_head_that_is_stored_twice() -> None:
    # Qwen3-0.6B ties its head, and its checkpoint has it all the same: 751,632,384 numbers
    tied = subject_of(locate("Qwen/Qwen3-0.6B:BF16"))
    assert tied.gguf is not None
    names = {tensor.name for tensor in tied.gguf.tensors}
    assert {"token_embd.weight", "output.weight"} <= names
    assert sum(line.tensor.elements * line.times for line in tied.lines) == 751_632_384
    # files of a checkpoint that was saved without it are smaller by the table: 151,936 tokens of 1,024
    assert tied.bounds == (tied.weight_bytes - 2 * 151_936 * 1024, tied.weight_bytes)
    once = subject_of(locate("Qwen/Qwen3-4B:BF16"))
    assert "output.weight" not in {tensor.name for tensor in once.gguf.tensors}
