"""Bytes of what vLLM loads on the fullest rank: tensors of its pipeline stage, and what no checkpoint has.

`distributed/utils.py`, `models/*.py` (0.33).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Layer, Tensor
from willfit.engines.base import Subject
from willfit.engines.vllm.loading.pieces import OnRank, takes_earlier_features
from willfit.engines.vllm.loading.stages import divided, pipeline_stages
from willfit.engines.vllm.settings import Settings
from willfit.formats.gptq import Gptq
from willfit.formats.weights import WeightLine
from willfit.quantities import DTYPE_BYTES, ceil_div

#: Models that build the token table, the final norm and the head on every pipeline stage, and those that do so with
#: a part of these only (`models/*.py`: what is not built under `get_pp_group().is_first_rank` or `.is_last_rank`).
_EVERY_END = frozenset(
    {
        "bloom", "dbrx", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma4",
        "gpt2", "gptj", "gpt_oss", "granitemoe", "granitemoehybrid", "hy_v3", "jamba", "mamba", "mamba2", "minicpm",
        "mixtral", "muse_glimmer", "nemotron_h", "olmo_hybrid", "olmoe", "opt", "orion", "phimoe", "qwen2_moe",
        "qwen3_moe", "qwen3_vl_moe", "stablelm",
    }
)  # fmt: skip
_SOME_ENDS: dict[str, tuple[str, ...]] = {
    "deepseek_v4": ("hc_head_fn", "hc_head_base", "hc_head_scale"),
    "qwen3_next": ("embedding", "lm_head.weight"),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "lfm2", "lfm2_moe"), ("embedding",)),
}

_BUILT_OF = {"stablelm": "post_attention_layernorm.weight"}

#: Scales of a quantized cache that each attention layer holds as parameters, by method: (in the model's dtype,
#: in fp32, whether latent attention has them) (`layers/quantization/kv_cache.py`, `modelopt.py`,
#: `compressed_tensors/compressed_tensors.py: CompressedTensorsKVCacheMethod`).
_CACHE_SCALES = {
    "fp8": (4, 0, False),
    "modelopt": (4, 0, True),
    "modelopt_fp4": (4, 0, True),
    "compressed-tensors": (3, 3, False),
    "compressed_tensors": (3, 3, False),
}


def parameter_bytes(subject: Subject, settings: Settings, dtype: str, lines: Sequence[OnRank]) -> int:
    """Bytes of the parameters of the fullest rank.

    Under pipeline parallelism each stage has its share of the layers, the first the embedding, the last the head.
    """
    return max(_stage_bytes(subject, settings, dtype, lines))


def _stage_bytes(subject: Subject, settings: Settings, dtype: str, lines: Sequence[OnRank]) -> list[int]:
    """Bytes of the parameters on a rank of each stage; encoders are on the first, drafts on the last."""
    architecture = subject.architecture
    each: dict[int, int] = {}
    earlier = takes_earlier_features(architecture)
    total = drafts = 0
    for one in lines:
        size, tensor = one.bytes, one.line.tensor
        each[id(tensor)] = size // one.line.times
        if tensor.part == "vision" and tensor.copies > 1 and earlier:
            size -= size // tensor.copies
        total += size
        drafts += size if tensor.part == "mtp" else 0
    extra = {id(layer): _added_bytes(layer, subject, settings, dtype) for layer, _ in architecture.blocks}
    added = sum(extra[id(layer)] * times for layer, times in architecture.blocks)
    stages = settings.pipeline_parallel
    if stages == 1:
        return [total + added]

    def of(tensors: Iterable[Tensor]) -> int:
        return sum(each.get(id(tensor), 0) for tensor in tensors)

    layers = {id(layer): of(layer.tensors) + extra[id(layer)] for layer, _ in architecture.blocks}
    sizes = [
        sum(layers[id(layer)] for layer in part)
        for part in divided(architecture.layers, pipeline_stages(len(architecture.layers), stages))
    ]
    embedding, head = of(architecture.embeddings), of(architecture.head)
    sizes[0] += total - sum(of(layer.tensors) * times for layer, times in architecture.blocks) - head - drafts
    sizes[-1] += head + drafts + (embedding if architecture.tied else 0)
    every = architecture.model_type in _EVERY_END
    some = _SOME_ENDS.get(architecture.model_type, ())
    more = head if every else of(t for t in architecture.head if t.name.endswith(some))
    table = embedding if every or "embedding" in some else 0
    for stage in range(stages):
        if stage < stages - 1:
            sizes[stage] += more
        if stage and not (architecture.tied and stage == stages - 1):
            sizes[stage] += table
    return sizes


def _added_bytes(layer: Layer, subject: Subject, settings: Settings, dtype: str) -> int:
    """Parameters of a layer on one rank that the checkpoint need not have: cache scales, values copied from keys."""
    plain, single, latent = _CACHE_SCALES.get(subject.recipe.method, (0, 0, False))
    size = plain * DTYPE_BYTES[dtype] + single * 4
    kinds = (Attention, LatentAttention) if latent else (Attention,)
    total = size * sum(isinstance(mixer, kinds) for mixer in layer.mixers)
    norm = _BUILT_OF.get(subject.architecture.model_type)
    if norm and not any(tensor.name.endswith(norm) for tensor in layer.tensors):
        total += 2 * subject.architecture.hidden_size * DTYPE_BYTES[dtype]  # a weight and a bias
    total += sum(
        line.on_rank(settings.tensor_parallel) // line.times for line in _keys_that_are_values(layer, subject)
    )
    if layer.feed_forward and any(
        isinstance(line.format, Gptq) and line.tensor.part == "experts" for line in subject.lines
    ):
        total += _expert_bias_bytes(layer, subject, settings, dtype)
    return total


def _expert_bias_bytes(layer: Layer, subject: Subject, settings: Settings, dtype: str) -> int:
    """GPTQ experts are given biases (`layers/quantization/auto_gptq.py: AutoGPTQMoEMethod`)."""
    sharing, whole = settings.expert_ranks, 1
    if settings.expert_parallel:
        sharing, whole = 1, settings.expert_ranks
    if layer.feed_forward is None:
        return 0
    width = 2 * layer.feed_forward.expert_width // sharing + subject.architecture.hidden_size
    return ceil_div(layer.feed_forward.experts, whole) * width * DTYPE_BYTES[dtype]


def _keys_that_are_values(layer: Layer, subject: Subject) -> list[WeightLine]:
    """Key projections that vLLM loads a second time in the place of values (`models/gemma4.py`)."""
    if not any(isinstance(mixer, Attention) and mixer.value_is_key for mixer in layer.mixers):
        return []
    doubled = {id(tensor) for tensor in layer.tensors if tensor.name.endswith("k_proj.weight")}
    return [line for line in subject.lines if id(line.tensor) in doubled]


def latent_copy_bytes(subject: Subject, settings: Settings) -> int:
    """MLA keeps the latent's up-projection a second time in 16 bits if the checkpoint has it quantized."""
    total = 0
    for layer, times in subject.architecture.blocks:
        for mixer in layer.mixers:
            if not isinstance(mixer, LatentAttention):
                continue
            quantized = any(
                line.tensor.name.endswith("kv_b_proj.weight") and line.format != subject.recipe.base
                for line in subject.lines
            )
            if quantized:
                heads = ceil_div(mixer.heads, settings.tensor_parallel)
                total += times * heads * (mixer.nope_dim + mixer.value_dim) * mixer.kv_rank * 2
    return total
