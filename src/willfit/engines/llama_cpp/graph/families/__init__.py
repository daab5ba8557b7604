"""Builders of graphs, one for each way in which llama.cpp builds a model (`src/models/*.cpp`)."""

from __future__ import annotations

from importlib import import_module

from willfit.engines.llama_cpp.graph.families.decoder import Decoder
from willfit.engines.llama_cpp.graph.families.styles import STYLES, style_of
from willfit.engines.llama_cpp.graph.network import MissingTensor, Network
from willfit.engines.llama_cpp.graph.pooling import pool
from willfit.errors import BadInput

#: Module of this folder -> the architectures that it builds. Adding one is a module with `build(net)` and a line here;
#: for one that `Decoder` can build, a line of `STYLES` is enough.
FAMILIES: dict[str, str] = {
    "beside": "arctic cohere2moe grok grovemoe qwen2moe smallthinker",
    "bitnet": "bitnet",
    "compressed": "deepseek4",
    "deci": "deci",
    "eagle": "eagle3",
    "encoders": "bert jina-bert-v2 jina-bert-v3 neo-bert nomic-bert nomic-bert-moe",
    "gated_delta": "qwen35 qwen35moe qwen3next",
    "gemma3n": "gemma3n",
    "gemma4": "gemma4",
    "glm5": "glm5-next",
    "granite": "granite granitemoe granite_swa minicpm",
    "heads": "llama4 mimo2 mistral3 openelm stablelm step35 talkie",
    "kimi": "bailingmoe3 kimi-k3 kimi-linear",
    "latent": "deepseek2 deepseek2-ocr minicpm3 mistral4 plm",
    "lfm2": "lfm2 lfm2moe",
    "loops": "hrm_text nanbeige",
    "minimax": "minimax-01",
    "minimax_m3": "minimax-m3",
    "pictures": "chameleon qwen3tts qwen3vl qwen3vlmoe",
    "qwen4": "qwen4exp",
    "rwkv": "arwkv7 rwkv6 rwkv6qwen2 rwkv7",
    "sparse": "deepseek32 dots3note glm-dsa hy_v4",
    "state_space": "falcon-h1 granitehybrid jamba mamba mamba2 nemotron_h nemotron_h_moe plamo2",
    "t5": "t5 t5encoder",
}

#: Architectures whose layers that draft are built.
DRAFTING = frozenset((
    "cohere2moe", "deepseek2", "deepseek32", "glm-dsa", "glm4moe", "hy_v3", "mimo2", "qwen35", "qwen35moe",
    "qwen3next", "step35",
))  # fmt: skip

_MODULES = {architecture: module for module, names in FAMILIES.items() for architecture in names.split()}


def is_known(architecture: str) -> bool:
    """Whether there is a builder for an architecture."""
    return architecture in _MODULES or architecture in STYLES


def build(net: Network) -> None:
    """Build a model's graph; that of an architecture without a builder is approximated.

    Raises
    ------
    BadInput
        If the file lacks tensors that its architecture has.
    """
    architecture = net.meta.architecture
    module = _MODULES.get(architecture, "approximate")
    try:
        if architecture in STYLES:
            Decoder(net, style_of(net)).build()
        else:
            import_module(f"willfit.engines.llama_cpp.graph.families.{module}").build(net)
    except MissingTensor as error:
        raise BadInput(
            f"the file lacks {error.args[0]}", f"llama.cpp cannot read this {architecture} file either"
        ) from error
    pool(net)
