"""What a forward pass holds beside weights and cache: the largest of its stages, one layer at a time.

Counted on the source: which tensors are referenced at once in `models/llama/modeling_llama.py` (residual, norm, rotary
embedding, attention, MLP), `integrations/sdpa_attention.py`, `masking_utils.py`. In each stage the cache already holds
the layer's keys and values.
"""

from __future__ import annotations

from typing import Any

from willfit.architectures.mixers import Attention, CrossAttention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.engines.transformers.eras import Era
from willfit.engines.transformers.experts import experts
from willfit.engines.transformers.masks import biases, is_biased, is_masked, mask_bytes
from willfit.engines.transformers.passes import Pass

#: Hidden states alive in a layer: the model's `inputs_embeds`, the layer's input, its normed copy; after
#: attention also the new residual.
_BEFORE, _AFTER = 3, 4

#: int64 token ids, their copy in generate(), positions and 2-D mask.
_IDS = 4 * 8

#: Bytes of a pair of positions while its distance is put into a bucket.
_POSITION_BYTES = 6 * 8 + 1

#: Tensors as wide as the MLP that an activation of several steps has at once, its input included
#: (`activations.py: NewGELUActivation, FastGELUActivation, ...`, `models/bloom/modeling_bloom.py: bloom_gelu_forward`).
#: Those of one step have two.
_IN_STEPS = {
    "gelu_new": 4,
    "gelu_accurate": 4,
    "gelu_python": 4,
    "gelu_fast": 5,
    "gelu_bloom": 5,
    "quick_gelu": 3,
    "relu2": 3,
    "mish": 3,
}

#: Names of norms over each head's query.
_QUERY_NORMS = ("q_norm.weight", "query_layernorm.weight", "q_layernorm.weight")

#: Bytes per attention score of the eager softmax: scores, its fp32 result and the cast back. bf16 scores are
#: converted to fp32 first, fp16 ones inside the kernel (torch `aten/src/ATen/native/SoftMax.cpp`).
SCORE_BYTES = {"bf16": 10, "fp16": 8, "fp32": 8, "fp64": 20}

#: Model types that put sinks beside the scores and take the softmax of all in the compute dtype: masked scores, those
#: with sinks, and those less their maximum (`models/gpt_oss/modeling_gpt_oss.py: eager_attention_forward`).
_SINKS = frozenset(("gpt_oss", "mimo_v2_flash"))


def larger(a: Any, b: Any) -> Any:
    """The larger of two numbers, or of two arrays element by element."""
    return (a + b + abs(a - b)) // 2


def stages(
    architecture: Architecture, era: Era, step: Pass, encoder: bool = False
) -> dict[str, tuple[Any, str]]:
    """Bytes of the largest attention, MLP and expert stage over all layers, each with its formula.

    Parameters
    ----------
    encoder
        Of an encoder-decoder's encoder.
    """
    found: dict[str, tuple[Any, str]] = {}
    lasting = always(architecture, era, step)

    def note(name: str, size: Any, formula: str) -> None:
        size, formula = size + lasting, f"{formula} + {lasting} B of ids, angles and masks"
        if name not in found:
            found[name] = size, formula
        else:
            before = found[name][0]
            most = larger(before, size)
            found[name] = most, (formula if _is(most, size) else found[name][1])

    if is_biased(architecture):
        found["positions"] = _positions(architecture, step)
    for layer, _ in architecture.encoder_blocks if encoder else architecture.blocks:
        for mixer in layer.mixers:
            note("attention", *_mixer(architecture, era, step, layer, mixer))
        if layer.feed_forward and layer.feed_forward.width:
            note("mlp", *_mlp(architecture, step, layer, layer.feed_forward))
        if layer.feed_forward and layer.feed_forward.experts:
            note("experts", *experts(architecture, era, step, layer.feed_forward))
    return found


def _is(most: Any, size: Any) -> bool:
    same = most == size
    return bool(same.all()) if hasattr(same, "all") else bool(same)


def always(architecture: Architecture, era: Era, step: Pass) -> Any:
    """What lives through all layers: token ids, positions, 2-D mask, cos and sin, and the attention masks."""
    rotary = sum(2 * rope.dim * step.width for rope in architecture.ropes)
    return step.tokens * (_IDS + rotary) + mask_bytes(architecture, era, step)


def _positions(architecture: Architecture, step: Pass) -> tuple[Any, str]:
    """Relative positions on their way to their buckets, in the first layer, whose queries, keys and values are there.

    Six int64 for each pair and one truth value, for all sequences (`models/t5/modeling_t5.py: T5Attention.
    _relative_position_bucket`); there are no biases and masks yet.
    """
    pairs = step.queries * step.length
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    width = max(mixer.projected_width // step.ranks for mixer in mixers)
    held = (2 * architecture.hidden_size + width) * step.width + _IDS
    return pairs * _POSITION_BYTES + step.tokens * held, (
        f"{pairs} pairs of positions x {_POSITION_BYTES} B + {step.tokens} tokens x ((2 x {architecture.hidden_size} "
        f"hidden + {width} projected) x {step.width} B + {_IDS} B of ids)"
    )


def _mixer(architecture: Architecture, era: Era, step: Pass, layer: Layer, mixer: Mixer) -> tuple[Any, str]:
    """Attention of one layer, beyond its keys and values in the cache."""
    base = _BEFORE * step.tokens * architecture.hidden_size * step.width
    text = f"{step.tokens} tokens x {_BEFORE} x {architecture.hidden_size} hidden x {step.width} B"
    if isinstance(mixer, Recurrent):
        projected = mixer.projected_width + mixer.output_width
        passing = 2 * step.tokens * projected // step.ranks * step.width
        state = step.batch * mixer.recurrent * 4
        text += f" + {passing} B of projections, 2 of {projected} elements + {state} B of fp32 state"
        return base + passing + state, text
    if isinstance(mixer, LatentAttention):
        size, formula = _latent(era, step, mixer)
        return base + size, f"{text} + {formula}"
    if isinstance(mixer, CrossAttention | Attention):
        heads = mixer.heads // step.ranks or 1
        head_dim = mixer.head_dim
        value_dim = mixer.value_dim if isinstance(mixer, Attention) else head_dim
        expanded = heads * (head_dim + value_dim) if is_repeated(architecture, era, step, mixer) else 0
    else:
        return base, text
    query = step.tokens * heads * head_dim * step.width
    output = step.tokens * heads * value_dim * step.width
    # Rotating the queries holds them, two products and their sum; norming them two fp32 copies, before there
    # are keys and values.
    if step.attention == "sdpa" and is_unequal(architecture, mixer):
        most = _plain_product(era, step, heads, mixer)
        return base + most, f"{text} + {most} B of scores of {heads} heads by SDPA's plain code, and queries"
    normed = any(tensor.name.endswith(_QUERY_NORMS) for tensor in layer.tensors)
    prepare = 4 * query
    if normed:
        unmade = step.tokens * mixer.elements_per_token // step.ranks * step.width
        prepare = larger(prepare, query * (1 + 8 // step.width) - unmade)
    scores: Any = 0
    if step.attention == "eager":
        scores = step.batch * step.queries * step.length * heads * score_bytes(architecture, step)
    converted: Any = 0
    if era.windows and step.attention == "sdpa" and is_masked(architecture, era, step):
        converted = (
            step.queries * step.length * step.width
        )  # SDPA makes a boolean mask one of the query's dtype
    if is_biased(architecture) and era.biased_sdpa and step.attention == "sdpa":
        converted += biases(architecture, step)
    attend = query + larger(output, scores) + converted + step.batch * step.length * expanded * step.width
    if isinstance(mixer, Attention) and not mixer.keeps_cache:
        # Keys and values that no cache holds.
        held = step.tokens * mixer.elements_per_token // step.ranks * step.width
        base, text = base + held, f"{text} + {held} B of keys and values"
        prepare = prepare if architecture.ropes else query
    # Rotating and norming come before attention, so the larger of both counts.
    most = larger(prepare, attend)
    parts = ["queries", f"outputs of {heads} heads of {head_dim}"]
    parts += ["their scores"] if step.attention == "eager" else []
    parts += ["repeated keys and values"] if expanded else []
    return base + most, f"{text} + {most} B of {', '.join(parts)}"


def score_bytes(architecture: Architecture, step: Pass) -> int:
    """Bytes of an attention score where they are eager."""
    return 3 * step.width if architecture.model_type in _SINKS else SCORE_BYTES[step.dtype]


def is_unequal(architecture: Architecture, mixer: Attention | CrossAttention) -> bool:
    """Whether SDPA is handed one key for all query heads without being told: no kernel takes that.

    `models/falcon/modeling_falcon.py: FalconAttention`, torch `sdp_utils.h: check_batch_size_and_num_heads_dense`.
    """
    return architecture.family == "falcon" and mixer.kv_heads == 1 < mixer.heads


def _plain_product(era: Era, step: Pass, heads: int, mixer: Attention | CrossAttention) -> Any:
    """SDPA's `math` (torch `aten/src/ATen/native/transformers/attention.cpp: _scaled_dot_product_attention_math`).

    Queries and the fused product that they are part of; queries and keys scaled, and in fp32 those before scaling as
    well; scores, to which the mask was added in place, and their softmax; the mask in the query's dtype.
    """
    query, key = step.tokens * heads * mixer.head_dim, step.batch * step.length * mixer.head_dim
    wide = 4 if era.wide_math else step.width
    copies = 2 if wide > step.width else 1
    scores = step.batch * step.queries * step.length
    return (
        (2 * query + 2 * step.tokens * mixer.head_dim) * step.width
        + copies * (query + key) * wide
        + 2 * scores * heads * wide
        + scores * step.width
    )


def _latent(era: Era, step: Pass, mixer: LatentAttention) -> tuple[Any, str]:
    """Latent attention: queries before and after rotation, latent and expanded latent, keys, output twice."""
    heads = mixer.heads // step.ranks or 1
    head_dim = mixer.nope_dim + mixer.rope_dim
    per_token = heads * (2 * head_dim + mixer.rope_dim + 2 * mixer.value_dim) + mixer.latent_per_token
    per_key = heads * (mixer.nope_dim + mixer.value_dim)
    per_key += heads * head_dim if era.latent_cache else 0
    text = f"{step.tokens} tokens x {per_token} of queries, latents and outputs x {step.width} B"
    text += f" + {step.batch * step.length} keys x {per_key} expanded x {step.width} B"
    scores: Any = 0
    if step.attention == "eager":
        scores = step.batch * step.queries * step.length * heads * SCORE_BYTES[step.dtype]
        text += f" + {scores} B of scores of {heads} heads"
    size = (step.tokens * per_token + step.batch * step.length * per_key) * step.width
    return size + scores, text


def is_repeated(architecture: Architecture, era: Era, step: Pass, mixer: Attention | CrossAttention) -> bool:
    """Whether keys and values are repeated for all query heads."""
    if mixer.heads == mixer.kv_heads or step.attention in ("flash_attention_2", "flex_attention"):
        return False
    return step.attention == "eager" or not era.native_gqa or is_masked(architecture, era, step)


def _mlp(architecture: Architecture, step: Pass, layer: Layer, ffn: FeedForward) -> tuple[Any, str]:
    """The dense MLP: gated, the activation, the up projection and their product; fused, both halves stay."""
    width = ffn.width // step.ranks
    activation = _IN_STEPS.get(architecture.traits.activation, 2)
    times = max(activation, 4 if is_fused(layer) else 3) if ffn.gated else activation
    kept = _AFTER
    if architecture.family == "gpt2":
        # Embedded positions, and the attention's output beside the sum that it is part of.
        kept += 2
    if architecture.family == "falcon" and architecture.traits.block == "parallel":
        kept += 1  # of two norms of the same input
    size = step.tokens * (kept * architecture.hidden_size + times * width) * step.width
    hidden = f"{kept} x {architecture.hidden_size} hidden"
    text = f"{step.tokens} tokens x ({hidden} + {times} x {width} MLP) x {step.width} B"
    if step.expanded:
        # The expanded matrix is gone before the gate is multiplied.
        most = larger(size, size - step.tokens * width * step.width + step.expanded)
        text += f" + {most - size} B of an expanded matrix beyond one MLP"
        size = most
    if step.unsummed:
        # While the second of two matrices is multiplied, the first one's result and its own are there.
        held = (kept * architecture.hidden_size + min(times, 2) * width) * step.width + step.unsummed * width
        most = larger(size, step.tokens * held)
        text += f" + {most - size} B of a product's parts beyond one MLP"
        size = most
    return size, text


def is_fused(layer: Layer) -> bool:
    """Whether gate and up projection of a layer's dense MLP are one matrix."""
    ffn = layer.feed_forward
    return ffn is not None and any(
        tensor.part == "mlp" and tensor.kind == "linear" and tensor.shape[0] == 2 * ffn.width
        for tensor in layer.tensors
    )
