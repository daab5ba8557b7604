"""What Ollama does with one architecture and not with others, from a version on.

Read in `fs/ggml/ggml.go` (before 0.5.12 `llm/ggml.go`): `GraphSize`, `OllamaEngineRequired`, `FlashAttention`,
`SupportsFlashAttention`, `SupportsKVCacheType`; and in `server/sched.go`.
"""

from __future__ import annotations

from willfit.engines.versions import Version, parse_version

#: Versions in which something begins, ends, begins again.
Turns = tuple[Version, ...]


def _since(names: str, *turns: Version) -> dict[str, Turns]:
    return dict.fromkeys(names.split(), turns)


#: Run in Ollama's own engine by default, until 0.30.
OWN_ENGINE: dict[str, Turns] = {
    **_since("gemma3", (0, 6)),
    **_since("mistral3", (0, 6, 5)),
    **_since("llama4", (0, 6, 7)),
    **_since("mllama qwen25vl", (0, 7)),
    **_since("gemma3n", (0, 9, 3)),
    **_since("gptoss", (0, 11)),
    **_since("gpt-oss", (0, 11, 5)),
    **_since("qwen3", (0, 12), (0, 12, 5), (0, 12, 6)),
    **_since("qwen3moe", (0, 12, 2)),
    **_since("qwen3vl qwen3vlmoe", (0, 12, 7)),
    **_since("deepseekocr deepseek2", (0, 13)),
    **_since("nomic-bert", (0, 13, 1)),
    **_since("olmo3", (0, 13, 4)),
    **_since("bert", (0, 13, 5)),
    **_since("glm4moelite lfm2", (0, 14, 3)),
    **_since("qwen3next glmocr", (0, 15, 5)),
    **_since("nemotron_h nemotron_h_moe qwen35 qwen35moe lfm2moe", (0, 17, 1)),
    **_since("gemma4", (0, 20)),
    **_since("laguna nemotron_h_omni", (0, 22)),
}

#: From here on Ollama runs whatever the llama.cpp does that it starts, and translates files of its own for it.
ANY_ARCHITECTURE: Version = (0, 30)

#: Those that this lost.
GONE = ("mllama", "solar")

#: Known to the llama.cpp that a version links, until 0.30 (`llama/llama.cpp/src/llama-arch.cpp`).
LLAMA_CPP: dict[str, Turns] = {
    **_since(
        "baichuan bert bloom codeshell command-r dbrx falcon gemma gpt2 gptj gptneox grok internlm2 llama mamba "
        "minicpm mpt nomic-bert olmo orion phi2 phi3 plamo qwen qwen2 qwen2moe refact stablelm starcoder starcoder2 "
        "xverse",
        (0,),
    ),
    **_since("persimmon", (0,), (0, 1, 39)),
    **_since("jina-bert-v2", (0, 1, 39)),
    **_since("arctic deepseek2", (0, 1, 40)),
    **_since("gemma2", (0, 1, 47)),
    **_since("bitnet chatglm jais openelm t5", (0, 2)),
    **_since("exaone nemotron rwkv6 t5encoder", (0, 3, 10)),
    **_since("solar", (0, 3, 11)),
    **_since("granite granitemoe chameleon minicpm3 olmoe", (0, 3, 14)),
    **_since("mllama", (0, 4), (0, 7)),
    **_since("olmo2", (0, 5, 2)),
    **_since("qwen2vl", (0, 5, 3)),
    **_since("cohere2 deci deepseek wavtokenizer-dec", (0, 5, 5)),
    **_since("phimoe rwkv6qwen2", (0, 5, 13)),
    **_since("gemma3", (0, 6, 2)),
    **_since("mistral3", (0, 6, 5), (0, 7), (0, 13, 3)),
    **_since("arwkv7 bailingmoe glm4 llama4 plm qwen3 qwen3moe rwkv7", (0, 6, 6)),
    **_since("nomic-bert-moe", (0, 6, 8)),
    **_since(
        "arcee dots1 dream ernie4_5 ernie4_5-moe exaone4 falcon-h1 gemma3n glm4moe gpt-oss granitehybrid hunyuan-dense "
        "hunyuan-moe jamba lfm2 llada mamba2 neo-bert plamo2 smallthinker smollm3",
        (0, 11, 5),
    ),
    **_since("gemma-embedding grovemoe jina-bert-v3 llada-moe nemotron_h seed_oss", (0, 12, 4)),
    **_since("apertus lfm2moe", (0, 12, 6)),
    **_since("bailingmoe2", (0, 12, 11)),
    **_since("afmoe cogvlm minimax-m2 pangu-embedded qwen3next qwen3vl qwen3vlmoe rnd1", (0, 13, 2)),
    **_since("nemotron_h_moe", (0, 13, 4)),
}

#: Run there with OLLAMA_NEW_ENGINE.
ON_REQUEST: dict[str, Turns] = {
    **_since("llama mllama", (0, 5, 13)),
    **_since("gemma2", (0, 6)),
    **_since("qwen2 qwen3 qwen3moe", (0, 9, 3)),
}

#: Have flash attention unless it is turned off.
FLASH_ATTENTION: dict[str, Turns] = {
    **_since("gptoss gpt-oss", (0, 11, 8)),
    **_since("qwen3 qwen3moe", (0, 12, 4)),
    **_since("gemma3", (0, 12, 6)),
    **_since("qwen3vl qwen3vlmoe", (0, 12, 8)),
    **_since("mistral3", (0, 13, 2)),
    **_since("olmo3", (0, 13, 4)),
    **_since("bert", (0, 13, 5)),
    **_since("glm4moelite lfm2", (0, 14, 3)),
    **_since("glmocr qwen3next", (0, 15, 5)),
    **_since("lfm2moe nemotron_h nemotron_h_moe qwen35 qwen35moe", (0, 17, 1)),
    **_since("gemma4", (0, 20, 4)),
    **_since("nemotron_h_omni", (0, 22)),
}

#: Never have it, until 0.30.
NO_FLASH_ATTENTION: dict[str, Turns] = {
    **_since("gptoss", (0, 11, 2), (0, 11, 5)),
    **_since("gemma2", (0, 11, 11)),
    **_since("grok", (0, 19)),
}

#: Have a cache that is never quantized.
PLAIN_CACHE: dict[str, Turns] = _since("gptoss gpt-oss", (0, 11, 5), (0, 12, 4))

#: Answer one at a time, whatever is asked.
SINGLE: dict[str, Turns] = {
    **_since("mllama", (0, 4, 1)),
    **_since("qwen3vl qwen3vlmoe", (0, 12, 7)),
    **_since("qwen3next lfm2 lfm2moe", (0, 15, 5)),
    **_since("qwen35 qwen35moe nemotron_h nemotron_h_moe", (0, 17, 1)),
    **_since("nemotron_h_omni", (0, 22)),
}

#: By which rule the compute graph of an architecture is estimated (`fs/ggml/ggml.go: GraphSize`), from a version on;
#: the rules are in `graph.py`. Others are estimated by the cache.
GRAPH_RULES: dict[str, tuple[tuple[Version, str], ...]] = {
    "llama": (((0, 0), "llama"), ((0, 3, 10), "llama with logits")),
    "llama4": (((0, 6, 7), "llama with logits"),),
    "mllama": (((0, 4), "mllama"),),
    "gemma": (((0, 0), "gemma logits"), ((0, 1, 48), "gemma")),
    "gemma2": (((0, 1, 48), "gemma"),),
    "gemma3": (((0, 6), "gemma"),),
    "gemma3n": (((0, 9, 3), "gemma3n"),),
    "command-r": (((0, 0), "command-r"),),
    "qwen2": (((0, 0), "qwen2"),),
    "phi2": (((0, 0), "phi2 logits"), ((0, 1, 35), "phi2")),
    "stablelm": (((0, 1, 33), "stablelm"),),
    "deepseek2": (((0, 1, 45), "deepseek2"),),
    "chatglm": (((0, 2, 2), "chatglm"),),
    "gptoss": (
        ((0, 11), "gptoss doubled"),
        ((0, 11, 3), "gptoss"),
        ((0, 11, 5), "gptoss halved"),
        ((0, 11, 8), "gptoss flash"),
    ),
    "gpt-oss": (((0, 11, 5), "gptoss halved"), ((0, 11, 8), "gptoss flash")),
}

#: How the cache of an architecture is estimated where its layers are not all alike, from a version on.
CACHE_RULES: dict[str, tuple[tuple[Version, str], ...]] = {
    "mllama": (((0, 4), "mllama shared"), ((0, 6, 3), "mllama")),
    "gemma3": (((0, 6, 3), "gemma3"),),
    "gptoss": (((0, 11), "gptoss"),),
    "gpt-oss": (((0, 11, 5), "gptoss"),),
}


def rule_of(table: dict[str, tuple[tuple[Version, str], ...]], architecture: str, version: str) -> str:
    """The rule of an architecture in a version; empty if it has none."""
    numbers = parse_version(version)
    rules = [rule for since, rule in table.get(architecture, ()) if since <= numbers]
    return rules[-1] if rules else ""


def holds(table: dict[str, Turns], architecture: str, version: str) -> bool:
    """Whether a version does with an architecture what a table is about."""
    numbers = parse_version(version)
    return sum(turn <= numbers for turn in table.get(architecture, ())) % 2 == 1


def who_knows(architecture: str, version: str) -> str:
    """Another version that knows an architecture; empty if this one does."""
    numbers = parse_version(version)
    if numbers >= ANY_ARCHITECTURE:
        return "0.24" if architecture in GONE else ""
    if any(holds(table, architecture, version) for table in (OWN_ENGINE, LLAMA_CPP)):
        return ""
    turns = [turn for table in (OWN_ENGINE, LLAMA_CPP) for turn in table.get(architecture, ())[::2]]
    later = [turn for turn in turns if turn > numbers]
    return ".".join(map(str, min(later, default=ANY_ARCHITECTURE)))
