"""What changed in LightLLM, and when.

Read at the release tags 1.0.1, 1.1.0 and 1.2.0: `server/api_cli.py` and `server/api_start.py` (defaults),
`common/basemodel/basemodel.py` (order of start-up, checks), `common/basemodel/cuda_graph.py`, `common/req_manager.py`,
`common/quantization/__init__.py`, `models/` (which there are).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.versions import Version, changed, era_of, parse_version, succession

NEWEST = "1.2.0"


@dataclass(frozen=True, slots=True)
class Era:
    """How LightLLM behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    mem_fraction, running_max_req_size, graph_max_batch_size
        Defaults of these flags.
    max_req_total_len
        Its default; None for the model's own limit.
    batch_max_tokens
        Its default where prompts are cut into chunks, for all data-parallel groups together.
    chunked
        Prompts are cut into chunks unless told not to.
    split_graphs
        Graphs of larger batches are captured in steps; otherwise every size has one.
    tables_before
        Request tables are allocated before free memory is read, otherwise after; and a batch of prompts must be
        smaller than the cache.
    counters
        Request tables count the tokens that each request has used, over the vocabulary.
    encoders_by_default
        Image and audio encoders run unless told not to, on every card; otherwise only if asked for, on the first.
    draft_layers
        The cache has layers for a draft model that has attention.
    paged_transfer
        What is sent to another node goes through pages of all layers; otherwise through one layer of all slots.
    methods
        Quantized checkpoints that it loads.
    """

    since: Version
    mem_fraction: float = 0.9
    running_max_req_size: int = 1000
    graph_max_batch_size: int = 16
    max_req_total_len: int | None = 16384
    batch_max_tokens: int = 16384
    chunked: bool = False
    split_graphs: bool = False
    tables_before: bool = False
    counters: bool = False
    encoders_by_default: bool = False
    draft_layers: bool = False
    paged_transfer: bool = False
    methods: frozenset[str] = frozenset({"fp8"})


ERAS = succession(
    Era((0, 0)),
    changed(
        (1, 1),
        graph_max_batch_size=256,
        batch_max_tokens=8448,
        chunked=True,
        split_graphs=True,
        counters=True,
        draft_layers=True,
    ),
    changed(
        (1, 2),
        mem_fraction=0.8,
        running_max_req_size=256,
        max_req_total_len=None,
        batch_max_tokens=16384,
        tables_before=True,
        encoders_by_default=True,
        paged_transfer=True,
        methods=frozenset({"awq", "fp8", "mxfp4"}),
    ),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)


_ALWAYS: Version = (0, 0)
_NEVER: Version = (10**6,)

#: Models that LightLLM runs (`models/registry.py`): first version, and first version that no longer does.
_MODELS: dict[tuple[Version, Version], tuple[str, ...]] = {
    (_ALWAYS, _NEVER): (
        "bloom", "deepseek_v2", "deepseek_v3", "gemma", "gpt_bigcode", "internlm", "internlm2", "internvl_chat",
        "llama", "llava", "minicpm", "mistral", "mixtral", "phi3", "qwen", "qwen2", "qwen2_vl", "stablelm",
        "starcoder2",
    ),
    (_ALWAYS, (1, 2)): ("chatglm", "cohere"),
    ((1, 1), _NEVER): ("gemma3", "gemma3_text", "qwen2_5_vl", "qwen3", "qwen3_moe"),
    ((1, 2), _NEVER): (
        "deepseek_v32", "gemma4", "glm4_moe_lite", "gpt_oss", "qwen3_5", "qwen3_5_moe", "qwen3_next",
        "qwen3_omni_moe", "qwen3_vl", "qwen3_vl_moe",
    ),
}  # fmt: skip


def has_model(model_type: str, version: str) -> bool:
    """Whether LightLLM of that version runs models of a type."""
    numbers = parse_version(version)
    return any(since <= numbers < until and model_type in kinds for (since, until), kinds in _MODELS.items())
