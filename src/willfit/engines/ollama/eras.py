"""What changed in Ollama, and when.

Read at the release tags 0.1.33 to 0.32.15: `llm/memory.go` (estimates of versions up to 0.12.10), `llm/ggml.go`, from
0.5.12 on `fs/ggml/ggml.go` (sizes by architecture), `llm/server.go` and `llm/llama_server.go` (layouts, what is
started), `server/sched.go` (sequences at once), `server/routes.go` and `envconfig/config.go` (defaults),
`ml/backend/ggml/ggml.go` and `kvcache/` (the engine of its own), `llama/llama.go` and `LLAMA_CPP_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, parse_version, succession
from willfit.quantities import GIB

NEWEST = "0.32.15"

#: How Ollama decides which layers go to devices. `pooled`: what is free on all devices is one number. `each`: device by
#: device, layers in turn. `layout`: from the last layer on, as evenly as they fit. `fit`: llama-server decides.
Placing = Literal["pooled", "each", "layout", "fit"]


@dataclass(frozen=True, slots=True)
class Era:
    """How Ollama behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    llama_cpp
        The build of llama.cpp that is linked, or from 0.30 on started.
    placing
        How its llama.cpp models are placed; see `Placing`.
    measured
        The engine of its own says what it needs before anything is placed; before, that is estimated as for llama.cpp.
    own_engine
        Architectures that run in the engine of its own.
    own_engine_on_request
        More of them, with OLLAMA_NEW_ENGINE.
    flash_attention
        Architectures that have flash attention unless it is turned off.
    no_flash_attention
        Architectures that never have it.
    auto_flash
        llama.cpp decides about flash attention where nobody did.
    cache_types
        A quantized cache can be asked for, and estimates know of it.
    plain_cache
        Architectures whose cache is never quantized.
    context
        Tokens of a sequence by default; 0: by the devices' memory.
    caps_context
        More context than the model was trained for is cut back.
    parallel
        Sequences at once by default: so many if they fit, else one.
    single
        Architectures that answer one at a time, whatever is asked.
    single_projector
        So do all models with a projector file.
    ubatch
        A micro-batch has the batch's tokens; before, llama.cpp's 512.
    packs_devices
        A model that does not fit on one device goes to the fewest that hold it; before, to all.
    gpu_overhead
        OLLAMA_GPU_OVERHEAD keeps memory of each device free.
    buffer_layer
        What is added on each device as a reserve: nothing, the `first` layer, or the `largest` group of tensors.
    weights_logged
        What `memory.weights.total` counts: `weights`; layers with their cache (`cached`), or without (`layers`), both
        without the output layer.
    from_last
        Layers are placed from the last to the first, and what stays on the host counts as it is; before, each of those
        counts like the last one.
    inline_vision
        Where an image encoder in the model's own file is counted: nowhere, on the `first` device, or with the `output`.
    cpu_reserve
        Without devices, estimates count a layer in reserve and the graph as well.
    key_lengths
        Estimates know that heads may be wider than the embedding divided by their number.
    head_lists
        Numbers of heads that differ from layer to layer are read.
    recurrent_states
        Estimates know layers without attention heads.
    projector_room
        Bytes that a device must have free so that the projector goes to one: so many in all where `projector_target`
        is `none`, else beside the projector.
    projector_target
        Whether llama-server is told to leave that much free: `none`, `no`, `yes`.
    """

    since: Version
    llama_cpp: str = "b2770"
    placing: Placing = "pooled"
    measured: bool = False
    own_engine: frozenset[str] = frozenset()
    own_engine_on_request: frozenset[str] = frozenset()
    flash_attention: frozenset[str] = frozenset()
    no_flash_attention: frozenset[str] = frozenset()
    auto_flash: bool = False
    cache_types: bool = False
    plain_cache: frozenset[str] = frozenset()
    context: int = 2048
    caps_context: bool = True
    parallel: int = 1
    single: frozenset[str] = frozenset()
    single_projector: bool = False
    ubatch: bool = False
    packs_devices: bool = False
    gpu_overhead: bool = False
    buffer_layer: Literal["none", "first", "largest"] = "none"
    weights_logged: Literal["weights", "cached", "layers"] = "weights"
    from_last: bool = False
    inline_vision: Literal["", "first", "output"] = ""
    cpu_reserve: bool = True
    key_lengths: bool = False
    head_lists: bool = False
    recurrent_states: bool = False
    projector_room: int = 10 * GIB
    projector_target: Literal["none", "no", "yes"] = "none"


def _more(before: frozenset[str], *names: str) -> frozenset[str]:
    return before | frozenset(names)


#: Architectures of Ollama's own engine by default, as they were added (`fs/ggml/ggml.go: OllamaEngineRequired`).
_OWN_0_6_0 = frozenset({"gemma3"})
_OWN_0_6_5 = _more(_OWN_0_6_0, "mistral3")
_OWN_0_6_7 = _more(_OWN_0_6_5, "llama4")
_OWN_0_7_0 = _more(_OWN_0_6_7, "mllama", "qwen25vl")
_OWN_0_9_3 = _more(_OWN_0_7_0, "gemma3n")
_OWN_0_11_0 = _more(_OWN_0_9_3, "gptoss")
_OWN_0_11_5 = _more(_OWN_0_11_0, "gpt-oss")
_OWN_0_12_2 = _more(_OWN_0_11_5, "qwen3", "qwen3moe")
_OWN_0_12_7 = _more(_OWN_0_12_2, "qwen3vl", "qwen3vlmoe")
_OWN_0_13_0 = _more(_OWN_0_12_7, "deepseekocr", "deepseek2")
_OWN_0_13_1 = _more(_OWN_0_13_0, "nomic-bert")
_OWN_0_13_4 = _more(_OWN_0_13_1, "olmo3")
_OWN_0_13_5 = _more(_OWN_0_13_4, "bert")
_OWN_0_14_3 = _more(_OWN_0_13_5, "glm4moelite", "lfm2")
_OWN_0_15_5 = _more(_OWN_0_14_3, "qwen3next", "glmocr")
_OWN_0_17_1 = _more(_OWN_0_15_5, "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe", "lfm2moe")
_OWN_0_20_0 = _more(_OWN_0_17_1, "gemma4")
_OWN_0_22_0 = _more(_OWN_0_20_0, "laguna", "nemotron_h_omni")

#: Those with flash attention unless it is turned off (`fs/ggml/ggml.go: FlashAttention`).
_FLASH_0_11_8 = frozenset({"gptoss", "gpt-oss"})
_FLASH_0_12_4 = _more(_FLASH_0_11_8, "qwen3", "qwen3moe")
_FLASH_0_12_6 = _more(_FLASH_0_12_4, "gemma3")
_FLASH_0_12_8 = _more(_FLASH_0_12_6, "qwen3vl", "qwen3vlmoe")
_FLASH_0_13_2 = _more(_FLASH_0_12_8, "mistral3")
_FLASH_0_13_4 = _more(_FLASH_0_13_2, "olmo3")
_FLASH_0_13_5 = _more(_FLASH_0_13_4, "bert")
_FLASH_0_14_3 = _more(_FLASH_0_13_5, "glm4moelite", "lfm2")
_FLASH_0_15_5 = _more(_FLASH_0_14_3, "glmocr", "qwen3next")
_FLASH_0_17_1 = _more(_FLASH_0_15_5, "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe")
_FLASH_0_20_4 = _more(_FLASH_0_17_1, "gemma4")
_FLASH_0_22_0 = _more(_FLASH_0_20_4, "nemotron_h_omni")

_SINGLE_0_12_7 = frozenset({"mllama", "qwen3vl", "qwen3vlmoe"})
_SINGLE_0_15_5 = _more(_SINGLE_0_12_7, "qwen3next", "lfm2", "lfm2moe")
_SINGLE_0_17_1 = _more(_SINGLE_0_15_5, "qwen35", "qwen35moe", "nemotron_h", "nemotron_h_moe")
_SINGLE_0_22_0 = _more(_SINGLE_0_17_1, "nemotron_h_omni")

_ON_REQUEST_0_9_3 = frozenset({"llama", "gemma2", "qwen2", "qwen3", "qwen3moe"})

ERAS = succession(
    Era((0, 0)),
    changed((0, 1, 34), buffer_layer="first"),
    changed((0, 1, 35), caps_context=False),
    changed((0, 1, 39), llama_cpp="b2986"),
    changed((0, 1, 40), llama_cpp="b3051"),
    changed((0, 1, 45), llama_cpp="b3171", placing="each", weights_logged="cached", key_lengths=True),
    changed((0, 2), llama_cpp="b3337", parallel=4, single_projector=True),
    changed((0, 2, 8), llama_cpp="b3440"),
    changed((0, 3, 1), llama_cpp="b3485"),
    changed((0, 3, 4), llama_cpp="b3535"),
    changed((0, 3, 10), llama_cpp="b3661", gpu_overhead=True),
    changed((0, 3, 14), llama_cpp="b3862"),
    changed((0, 4, 1), single_projector=False, single=frozenset({"mllama"})),
    changed((0, 5), cache_types=True),
    changed((0, 5, 2), llama_cpp="b4260"),
    changed((0, 5, 3), llama_cpp="b4327"),
    changed((0, 5, 8), llama_cpp="b4419"),
    changed((0, 5, 13), llama_cpp="b4779", own_engine_on_request=frozenset({"llama", "mllama"})),
    changed(
        (0, 6),
        own_engine=_OWN_0_6_0,
        own_engine_on_request=frozenset({"llama", "mllama", "gemma2"}),
        inline_vision="first",
    ),
    changed((0, 6, 1), weights_logged="layers"),
    changed((0, 6, 3), weights_logged="weights"),
    changed((0, 6, 5), own_engine=_OWN_0_6_5),
    changed((0, 6, 6), llama_cpp="b5125"),
    changed((0, 6, 7), llama_cpp="b5162", own_engine=_OWN_0_6_7, context=4096, parallel=2),
    changed((0, 6, 8), llama_cpp="b5237"),
    changed(
        (0, 7),
        llama_cpp="b5359",
        own_engine=_OWN_0_7_0,
        own_engine_on_request=frozenset({"llama", "gemma2"}),
        buffer_layer="largest",
        from_last=True,
    ),
    changed((0, 7, 1), buffer_layer="first", inline_vision="output"),
    changed(
        (0, 9, 3),
        own_engine=_OWN_0_9_3,
        own_engine_on_request=_ON_REQUEST_0_9_3,
        head_lists=True,
        caps_context=True,
    ),
    changed((0, 10), parallel=1),
    changed((0, 11), own_engine=_OWN_0_11_0),
    changed((0, 11, 2), no_flash_attention=frozenset({"gptoss"})),
    changed(
        (0, 11, 5),
        llama_cpp="b6121",
        own_engine=_OWN_0_11_5,
        no_flash_attention=frozenset(),
        plain_cache=frozenset({"gptoss", "gpt-oss"}),
        packs_devices=True,
    ),
    changed((0, 11, 8), flash_attention=_FLASH_0_11_8),
    changed((0, 11, 11), measured=True, recurrent_states=True, no_flash_attention=frozenset({"gemma2"})),
    changed((0, 12), own_engine=_more(_OWN_0_11_5, "qwen3")),
    changed((0, 12, 2), own_engine=_OWN_0_12_2),
    changed((0, 12, 4), llama_cpp="b6646", flash_attention=_FLASH_0_12_4, plain_cache=frozenset()),
    changed((0, 12, 5), own_engine=_OWN_0_12_2 - {"qwen3"}),
    changed((0, 12, 6), llama_cpp="b6752", own_engine=_OWN_0_12_2, flash_attention=_FLASH_0_12_6),
    changed((0, 12, 7), own_engine=_OWN_0_12_7, single=_SINGLE_0_12_7, cpu_reserve=False),
    changed((0, 12, 8), flash_attention=_FLASH_0_12_8),
    changed((0, 12, 11), llama_cpp="b6840", placing="layout"),
    changed((0, 13), own_engine=_OWN_0_13_0),
    changed((0, 13, 1), own_engine=_OWN_0_13_1),
    changed((0, 13, 2), llama_cpp="b7209", flash_attention=_FLASH_0_13_2),
    changed((0, 13, 3), llama_cpp="b7345", ubatch=True),
    changed(
        (0, 13, 4),
        own_engine=_OWN_0_13_4,
        flash_attention=_FLASH_0_13_4,
        auto_flash=True,
    ),
    changed((0, 13, 5), llama_cpp="b7437", own_engine=_OWN_0_13_5, flash_attention=_FLASH_0_13_5),
    changed((0, 14, 3), own_engine=_OWN_0_14_3, flash_attention=_FLASH_0_14_3),
    changed(
        (0, 15, 5), own_engine=_OWN_0_15_5, flash_attention=_FLASH_0_15_5, context=0, single=_SINGLE_0_15_5
    ),
    changed((0, 17, 1), own_engine=_OWN_0_17_1, flash_attention=_FLASH_0_17_1, single=_SINGLE_0_17_1),
    changed((0, 19), no_flash_attention=frozenset({"gemma2", "grok"})),
    changed((0, 20), own_engine=_OWN_0_20_0),
    changed((0, 20, 4), flash_attention=_FLASH_0_20_4),
    changed((0, 22), own_engine=_OWN_0_22_0, flash_attention=_FLASH_0_22_0, single=_SINGLE_0_22_0),
    changed(
        (0, 30),
        llama_cpp="b9452",
        placing="fit",
        own_engine=frozenset(),
        own_engine_on_request=frozenset(),
        no_flash_attention=frozenset(),
    ),
    changed((0, 30, 1), llama_cpp="b9479"),
    changed((0, 30, 4), llama_cpp="b9493"),
    changed((0, 30, 5), llama_cpp="b9509"),
    changed((0, 30, 9), llama_cpp="b9626"),
    changed((0, 30, 10), llama_cpp="b9672"),
    changed((0, 30, 11), llama_cpp="b9781", projector_room=GIB, projector_target="no"),
    changed((0, 31), llama_cpp="b9840"),
    changed((0, 31, 2), llama_cpp="b9888", projector_target="yes"),
    changed((0, 32, 2), llama_cpp="b10069"),
    changed((0, 32, 3), llama_cpp="b10091"),
    changed((0, 32, 6), llama_cpp="b10242"),
    changed((0, 32, 8), llama_cpp="b10353"),
    changed((0, 32, 10), llama_cpp="b10380"),
    changed((0, 32, 14), llama_cpp="b10434"),
    changed((0, 32, 15), llama_cpp="b10488"),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)


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
