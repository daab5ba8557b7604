"""What names of GGUF files say, as they are published."""

import pytest

from willfit.checkpoints import locate as locating
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.gguf_names import asked_quantization, guess, original
from willfit.checkpoints.source import NotFound

NAMES = {
    "Qwen3-14B-Q4_K_M.gguf": "Qwen/Qwen3-14B:Q4_K_M",
    "qwen3-14b-q4_k_m.gguf": "Qwen/Qwen3-14B:Q4_K_M",
    "models/llama-2-7b.Q4_K_M.gguf": "meta-llama/Llama-2-7b-hf:Q4_K_M",
    "llama-2-7b-chat.Q5_K_S.gguf": "meta-llama/Llama-2-7b-chat-hf:Q5_K_S",
    "mixtral-8x7b-instruct-v0.1.Q4_K_M.gguf": "mistralai/Mixtral-8x7B-Instruct-v0.1:Q4_K_M",
    "codellama-34b-instruct.Q4_K_M.gguf": "codellama/CodeLlama-34b-Instruct-hf:Q4_K_M",
    "mistral-7b-instruct-v0.2.Q4_K_M.gguf": "mistralai/Mistral-7B-Instruct-v0.2:Q4_K_M",
    "openhermes-2.5-mistral-7b.Q5_K_M.gguf": "teknium/OpenHermes-2.5-Mistral-7B:Q5_K_M",
    "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf": "TinyLlama/TinyLlama-1.1B-Chat-v1.0:Q4_K_M",
    "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf": "meta-llama/Meta-Llama-3.1-8B-Instruct:Q4_K_M",
    "Meta-Llama-3-8B-Instruct-Q4_K_M.gguf": "meta-llama/Meta-Llama-3-8B-Instruct:Q4_K_M",
    "Meta-Llama-3-70B-Instruct-IQ2_XS.gguf": "meta-llama/Meta-Llama-3-70B-Instruct:IQ2_XS",
    "Llama-3.3-70B-Instruct-Q4_K_M.gguf": "meta-llama/Llama-3.3-70B-Instruct:Q4_K_M",
    "Llama-3.2-3B-Instruct-Q4_K_M.gguf": "meta-llama/Llama-3.2-3B-Instruct:Q4_K_M",
    "google_gemma-3-27b-it-IQ4_XS.gguf": "google/gemma-3-27b-it:IQ4_XS",
    "gemma-3-27b-it-Q4_K_M.gguf": "google/gemma-3-27b-it:Q4_K_M",
    "gemma-3-27b-it-q4_0.gguf": "google/gemma-3-27b-it:Q4_0",
    "gemma-3-27b-it-qat-q4_0.gguf": "google/gemma-3-27b-it:Q4_0",
    "gemma-3-12b-it-qat-Q4_0.gguf": "google/gemma-3-12b-it:Q4_0",
    "gemma-2-9b-it-Q4_K_L.gguf": "google/gemma-2-9b-it:Q4_K_L",
    "DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf": "deepseek-ai/DeepSeek-R1:UD-IQ1_S",
    "DeepSeek-R1-0528-UD-Q2_K_XL-00001-of-00006.gguf": "deepseek-ai/DeepSeek-R1-0528:UD-Q2_K_XL",
    "DeepSeek-V3-0324-UD-IQ2_XXS-00001-of-00005.gguf": "deepseek-ai/DeepSeek-V3-0324:UD-IQ2_XXS",
    "DeepSeek-R1-Distill-Qwen-32B-Q4_K_M.gguf": "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B:Q4_K_M",
    "DeepSeek-R1-0528-Qwen3-8B-Q4_K_M.gguf": "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B:Q4_K_M",
    "DeepSeek-R1-Distill-Llama-70B.i1-Q4_K_M.gguf": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B:Q4_K_M",
    "Qwen2.5-Coder-32B-Instruct-Q4_K_M.gguf": "Qwen/Qwen2.5-Coder-32B-Instruct:Q4_K_M",
    "qwen2.5-coder-7b-instruct-q4_k_m-00001-of-00002.gguf": "Qwen/Qwen2.5-Coder-7B-Instruct:Q4_K_M",
    "qwen2.5-14b-instruct-q4_k_m-00001-of-00003.gguf": "Qwen/Qwen2.5-14B-Instruct:Q4_K_M",
    "Qwen3-30B-A3B-UD-Q4_K_XL.gguf": "Qwen/Qwen3-30B-A3B:UD-Q4_K_XL",
    "Qwen_Qwen3-30B-A3B-Q4_K_M.gguf": "Qwen/Qwen3-30B-A3B:Q4_K_M",
    "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf": "Qwen/Qwen3-30B-A3B-Instruct-2507:UD-Q4_K_XL",
    "Qwen3-Coder-30B-A3B-Instruct-UD-Q4_K_XL.gguf": "Qwen/Qwen3-Coder-30B-A3B-Instruct:UD-Q4_K_XL",
    "Qwen3-235B-A22B-UD-Q2_K_XL-00001-of-00002.gguf": "Qwen/Qwen3-235B-A22B:UD-Q2_K_XL",
    "Qwen3-30B-A3B-128K-UD-Q4_K_XL.gguf": "Qwen/Qwen3-30B-A3B:UD-Q4_K_XL",
    "Qwen3.5-35B-A3B-UD-Q4_K_XL.gguf": "Qwen/Qwen3.5-35B-A3B:UD-Q4_K_XL",
    "Qwen3.6-27B-Q4_K_M.gguf": "Qwen/Qwen3.6-27B:Q4_K_M",
    "QwQ-32B-Q4_K_M.gguf": "Qwen/QwQ-32B:Q4_K_M",
    "gpt-oss-20b-mxfp4.gguf": "openai/gpt-oss-20b:MXFP4",
    "gpt-oss-120b-mxfp4-00001-of-00003.gguf": "openai/gpt-oss-120b:MXFP4",
    "openai_gpt-oss-20b-MXFP4.gguf": "openai/gpt-oss-20b:MXFP4",
    "gpt-oss-20b-F16.gguf": "openai/gpt-oss-20b:F16",
    "/root/.cache/llama.cpp/ggml-org_gpt-oss-20b-GGUF_gpt-oss-20b-mxfp4.gguf": "openai/gpt-oss-20b:MXFP4",
    "/root/.cache/llama.cpp/unsloth_Qwen3-30B-A3B-GGUF_Qwen3-30B-A3B-UD-Q4_K_XL.gguf": "Qwen/Qwen3-30B-A3B:UD-Q4_K_XL",
    "Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M.gguf": "mistralai/Mistral-Small-3.2-24B-Instruct-2506:Q4_K_M",
    "mistralai_Devstral-Small-2507-Q4_K_M.gguf": "mistralai/Devstral-Small-2507:Q4_K_M",
    "Mistral-Nemo-Instruct-2407-Q4_K_M.gguf": "mistralai/Mistral-Nemo-Instruct-2407:Q4_K_M",
    "Mistral-Large-Instruct-2407-IQ2_M.gguf": "mistralai/Mistral-Large-Instruct-2407:IQ2_M",
    "GLM-4.5-Air-UD-Q4_K_XL-00001-of-00002.gguf": "zai-org/GLM-4.5-Air:UD-Q4_K_XL",
    "GLM-4.6-UD-IQ2_M-00001-of-00003.gguf": "zai-org/GLM-4.6:UD-IQ2_M",
    "Kimi-K2-Instruct-UD-TQ1_0-00001-of-00005.gguf": "moonshotai/Kimi-K2-Instruct:UD-TQ1_0",
    "phi-2.Q4_K_M.gguf": "microsoft/phi-2:Q4_K_M",
    "Phi-3-mini-4k-instruct-Q4_K_M.gguf": "microsoft/Phi-3-mini-4k-instruct:Q4_K_M",
    "phi-4-Q4_K_M.gguf": "microsoft/phi-4:Q4_K_M",
    "c4ai-command-r-v01-Q4_K_M.gguf": "CohereLabs/c4ai-command-r-v01:Q4_K_M",
    "Yi-34B-Chat.Q4_K_M.gguf": "01-ai/Yi-34B-Chat:Q4_K_M",
    "yi-34b-chat.Q4_K_M.gguf": "01-ai/Yi-34B-Chat:Q4_K_M",
    "falcon-7b.Q4_0.gguf": "tiiuae/falcon-7b:Q4_0",
    "deepseek-coder-6.7b-instruct.Q4_K_M.gguf": "deepseek-ai/deepseek-coder-6.7b-instruct:Q4_K_M",
    "starcoder2-15b-Q4_K_M.gguf": "bigcode/starcoder2-15b:Q4_K_M",
    "MiniMax-M2-UD-Q3_K_XL-00001-of-00003.gguf": "MiniMaxAI/MiniMax-M2:UD-Q3_K_XL",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16:UD-Q4_K_XL",
    "Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16:UD-Q4_K_XL",
    "C:\\models\\Qwen3-8B-Q8_0.gguf": "Qwen/Qwen3-8B:Q8_0",
    "Qwen3-14B-GGUF/model-Q4_K_M.gguf": "Qwen/Qwen3-14B:Q4_K_M",
    "Qwen2.5-VL-7B-Instruct-Q4_K_M.gguf": "Qwen/Qwen2.5-VL-7B-Instruct:Q4_K_M",
    "Qwen3-VL-30B-A3B-Instruct-UD-Q4_K_XL.gguf": "Qwen/Qwen3-VL-30B-A3B-Instruct:UD-Q4_K_XL",
    "Qwen3-Embedding-0.6B-Q8_0.gguf": "Qwen/Qwen3-Embedding-0.6B:Q8_0",
    "bge-m3-Q8_0.gguf": "BAAI/bge-m3:Q8_0",
    "embeddinggemma-300M-qat-Q4_0.gguf": "google/embeddinggemma-300m:Q4_0",
    "SmolLM2-1.7B-Instruct-Q4_K_M.gguf": "HuggingFaceTB/SmolLM2-1.7B-Instruct:Q4_K_M",
    "Qwen3-4B-abliterated-Q4_K_M.gguf": "Qwen/Qwen3-4B:Q4_K_M",
    "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf": "NousResearch/Hermes-3-Llama-3.1-8B:Q4_K_M",
    "OLMo-2-1124-13B-Instruct-Q4_K_M.gguf": "allenai/OLMo-2-1124-13B-Instruct:Q4_K_M",
    "gemma-3n-E4B-it-Q4_K_M.gguf": "google/gemma-3n-E4B-it:Q4_K_M",
    "gemma-4-31B-it-UD-Q4_K_XL.gguf": "google/gemma-4-31B-it:UD-Q4_K_XL",
    "Qwen3-Next-80B-A3B-Instruct-Q4_K_M.gguf": "Qwen/Qwen3-Next-80B-A3B-Instruct:Q4_K_M",
    "llama-7b.Q4_0.gguf": "huggyllama/llama-7b:Q4_0",
    "DeepSeek-Coder-V2-Lite-Instruct-Q4_K_M.gguf": "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct:Q4_K_M",
    "Codestral-22B-v0.1-Q5_K_M.gguf": "mistralai/Codestral-22B-v0.1:Q5_K_M",
    "Falcon3-7B-Instruct-Q4_K_M.gguf": "tiiuae/Falcon3-7B-Instruct:Q4_K_M",
    "granite-3.3-8b-instruct-Q4_K_M.gguf": "ibm-granite/granite-3.3-8b-instruct:Q4_K_M",
    "Llama-3_3-Nemotron-Super-49B-v1-Q4_K_M.gguf": "nvidia/Llama-3.3-Nemotron-Super-49B-v1:Q4_K_M",
    "Hunyuan-A13B-Instruct-Q4_K_M.gguf": "tencent/Hunyuan-A13B-Instruct:Q4_K_M",
    "Qwen3-4B-Instruct-2507-F16.gguf": "Qwen/Qwen3-4B-Instruct-2507:F16",
    "GLM-4-32B-0414-Q4_K_M.gguf": "zai-org/GLM-4-32B-0414:Q4_K_M",
    "Kimi-K2-Instruct-0905-UD-Q2_K_XL-00001-of-00008.gguf": "moonshotai/Kimi-K2-Instruct-0905:UD-Q2_K_XL",
    "Qwen2.5-7B-Instruct.IQ4_NL.gguf": "Qwen/Qwen2.5-7B-Instruct:IQ4_NL",
    "models--unsloth--Qwen3-30B-A3B-GGUF/snapshots/d5b1d57b/Qwen3-30B-A3B-Q4_K_M.gguf": "Qwen/Qwen3-30B-A3B:Q4_K_M",
}


@pytest.mark.parametrize(("name", "reference"), NAMES.items())
def test_a_published_name(name, reference):
    meant = guess(name)
    assert meant is not None
    assert meant.reference == reference
    assert find(meant.model) is not None


@pytest.mark.parametrize(
    "name",
    [
        "ggml-model-q4_0.gguf",
        "models/7B/ggml-model-q4_0.gguf",
        "model.gguf",
        "Qwen3-14B.gguf",  # how it is quantized is not said
        "Phi-3-mini-4k-instruct-q4.gguf",
        "Qwen3-14B-Q9_K_M.safetensors",
        "Qwen3-14B-Claude-Distill-Q4_K_M.gguf",  # a model of its own
        "nous-hermes-2-mixtral-8x7b-dpo.Q4_K_M.gguf",
        "mmproj-F16.gguf",
        "-Q4_K_M.gguf",
        ".gguf",
        "",
    ],
)
def test_names_that_do_not_say_one_model(name):
    assert guess(name) is None


def test_a_file_that_is_not_here_is_taken_for_what_its_name_says(monkeypatch):
    asked = []

    def found(reference, offline=False):
        asked.append((reference, offline))
        return locating.Checkpoint("Qwen/Qwen3-14B", "catalogue", find("Qwen/Qwen3-14B").config)

    original = locating.locate
    monkeypatch.setattr(locating, "locate", found)
    checkpoint = original("models/qwen3-14b-q4_k_m.gguf", offline=True)
    assert asked == [("Qwen/Qwen3-14B:Q4_K_M", True)]
    assert checkpoint.notes == (
        "models/qwen3-14b-q4_k_m.gguf is not here; by its name it is Qwen/Qwen3-14B in Q4_K_M",
    )


def test_a_file_that_is_here_is_read(tmp_path):
    file = tmp_path / "qwen3-14b-q4_k_m.gguf"
    file.write_bytes(b"no model")
    with pytest.raises(locating.BadInput, match="no model file"):
        locating.locate(str(file))
    with pytest.raises(NotFound, match="does not exist"):
        locating.locate(str(tmp_path / "my-own-model-q4_k_m.gguf"))


@pytest.mark.parametrize(
    ("repository", "model"),
    [
        ("Qwen/Qwen3-14B-GGUF", "Qwen/Qwen3-14B"),
        ("bartowski/Qwen_Qwen3-14B-GGUF", "Qwen/Qwen3-14B"),
        ("mradermacher/Qwen3-14B-i1-GGUF", "Qwen/Qwen3-14B"),
        ("lmstudio-community/Mistral-7B-Instruct-v0.3-GGUF", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("someone/My-Own-Model-GGUF", None),
        ("Qwen/Qwen3-14B", None),
    ],
)
def test_what_a_repository_was_made_from(repository, model):
    entry = original(repository)
    assert (entry.id if entry else None) == model


@pytest.mark.parametrize(
    ("tag", "model", "quantization"),
    [
        ("Q5_K_M", "Qwen/Qwen3-14B", "Q5_K_M"),
        ("latest", "Qwen/Qwen3-14B", "Q4_K_M"),
        ("latest", "openai/gpt-oss-20b", "MXFP4_MOE"),
        ("Qwen_Qwen3-14B-IQ4_XS.gguf", "Qwen/Qwen3-14B", "IQ4_XS"),
        ("UD-Q2_K_XL/DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf", "deepseek-ai/DeepSeek-R1", "UD-Q2_K_XL"),
        ("Qwen3-14B.gguf", "Qwen/Qwen3-14B", None),
        ("main", "Qwen/Qwen3-14B", None),
    ],
)
def test_what_a_tag_asks_for(tag, model, quantization):
    assert asked_quantization(tag, find(model)) == quantization


def test_a_repository_that_cannot_be_read_is_its_original_in_the_usual_file():
    checkpoint = locating.locate("unsloth/Qwen3-14B-GGUF:latest", offline=True)
    assert (checkpoint.model, checkpoint.file_type) == ("Qwen/Qwen3-14B", "Q4_K_M")
    assert checkpoint.notes == (
        "unsloth/Qwen3-14B-GGUF could not be read: taken for Qwen/Qwen3-14B, made into Q4_K_M",
    )
    with pytest.raises(locating.BadInput, match="Qwen/Qwen3-14B has no GGUF files"):
        locating.locate("Qwen/Qwen3-14B:latest", offline=True)
