"""What the name of a repository says where it cannot be read."""

import pytest

from willfit.asking import answer_about, find_subject, machine_of
from willfit.checkpoints.locate import locate
from willfit.checkpoints.stored_names import stored_as
from willfit.engines.base import Question
from willfit.errors import BadInput


@pytest.mark.parametrize(
    ("repository", "model", "format_name"),
    [
        ("mlx-community/Qwen3-14B-4bit", "Qwen/Qwen3-14B", "mlx4"),
        ("mlx-community/Llama-3.3-70B-Instruct-4bit-DWQ", "meta-llama/Llama-3.3-70B-Instruct", "mlx4"),
        ("lmstudio-community/Qwen3-8B-MLX-8bit", "Qwen/Qwen3-8B", "mlx8"),
        ("mlx-community/Qwen3-8B-bf16", "Qwen/Qwen3-8B", "bf16"),
        ("mlx-community/DeepSeek-V3-0324-4bit", "deepseek-ai/DeepSeek-V3-0324", "mlx4"),
        ("a/Qwen3-14B-AWQ", "Qwen/Qwen3-14B", "awq"),
        ("a/Qwen2.5-72B-Instruct-GPTQ-Int8", "Qwen/Qwen2.5-72B-Instruct", "gptq-int8"),
        ("a/Qwen2.5-72B-Instruct-GPTQ", "Qwen/Qwen2.5-72B-Instruct", "gptq-int4"),
        ("unsloth/Qwen3-14B-unsloth-bnb-4bit", "Qwen/Qwen3-14B", "nf4-double"),
        ("a/Qwen3-14B-exl2-5.0bpw", "Qwen/Qwen3-14B", "exl2-5.0bpw"),
        ("a/Llama-3.3-70B-Instruct-FP8-dynamic", "meta-llama/Llama-3.3-70B-Instruct", "fp8"),
        ("NousResearch/Qwen3-14B", "Qwen/Qwen3-14B", ""),
        ("unsloth/Qwen3-14B-GGUF", None, None),
        ("unsloth/Somebodys-Finetune", None, None),
        ("a/Qwen3-14B", None, None),
        ("a/Somebodys-Finetune-4bit", None, None),
        ("a/Qwen3-14B-Storyteller-4bit", None, None),
    ],
)
def test_names(repository, model, format_name):
    found = stored_as(repository)
    assert (found.entry.id, found.format_name) == (model, format_name) if model else found is None
    if format_name:
        # Each is a format that can be sized.
        assert find_subject(model, format_name, offline=True)[0].weight_bytes


def test_branches_name_the_bits_of_exllama_formats():
    assert stored_as("turboderp/Qwen3-14B-exl3", "4.0bpw").format_name == "exl3-4.0bpw"
    assert stored_as("turboderp/Qwen3-14B-exl3") is None


def test_a_repository_that_cannot_be_read_is_taken_for_what_its_name_says():
    machine = machine_of("m3-max-64g")
    named = answer_about("mlx-community/Qwen3-14B-4bit", machine, Question(4096), offline=True)
    stated = answer_about("Qwen/Qwen3-14B", machine, Question(4096), format_name="mlx4", offline=True)
    assert named.estimate.devices == stated.estimate.devices
    assert "could not be read: taken for Qwen/Qwen3-14B, stored as mlx4" in named.estimate.notes[0]
    # What the user says goes first, and a bundled repository is read.
    other = find_subject("mlx-community/Qwen3-14B-4bit", "bf16", offline=True)[0]
    assert other.weight_bytes > 25e9
    assert locate("Qwen/Qwen3-14B-AWQ", offline=True).source == "catalogue"
    assert not locate("Qwen/Qwen3-14B-AWQ", offline=True).notes
    with pytest.raises(BadInput, match="neither bundled"):
        locate("a/Somebodys-Finetune-4bit", offline=True)


def test_formats_of_one_engine_are_asked_of_that_engine():
    for gpu, name, engine in (
        ("rtx4090", "exl3-4.0bpw", "exllamav3"),
        ("rtx4090", "exl2-4.0bpw", "exllamav2"),
        ("m3-max-64g", "mlx4", "mlx"),
        ("rtx4090", "q4f16_1", "mlc-llm"),
        ("rtx4090", "awq", "vllm"),
    ):
        answer = answer_about(
            "Qwen/Qwen3-14B", machine_of(gpu), Question(4096), format_name=name, offline=True
        )
        assert answer.estimate.engine == engine
    # Nobody else reads them, so that nobody else answers where the engine does not run.
    apple = answer_about(
        "Qwen/Qwen3-14B", machine_of("m3-max-64g"), Question(), format_name="exl3-4.0bpw", offline=True
    )
    assert apple.estimate.engine == "exllamav3"
    assert apple.estimate.refusal
