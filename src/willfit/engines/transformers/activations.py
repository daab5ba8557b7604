"""What a forward pass holds beside weights and cache: the largest of its stages, one layer at a time.

Counted on the source: which tensors are referenced at once in `models/llama/modeling_llama.py` (residual,
norm, rotary embedding, attention, MLP), `integrations/sdpa_attention.py`, `integrations/moe.py`,
`masking_utils.py`. In each stage the cache already holds the layer's keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers import Attention, CrossAttention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.engines.transformers.eras import Era
from willfit.quantities import DTYPE_BYTES

#: Hidden states alive in a layer: the model's `inputs_embeds`, the layer's input, its normed copy; after
#: attention also the new residual.
_BEFORE, _AFTER = 3, 4

#: Bytes per attention score of the eager softmax: scores, its fp32 result and the cast back. bf16 scores are
#: converted to fp32 first, fp16 ones inside the kernel (torch `aten/src/ATen/native/SoftMax.cpp`).
_SCORE_BYTES = {"bf16": 10, "fp16": 8, "fp32": 8, "fp64": 20}


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass.

    Attributes
    ----------
    batch
        Sequences.
    queries
        New tokens of each; an integer or an array.
    length
        Tokens of each that are attended to, new ones included.
    dtype
        Compute dtype.
    attention
        `eager`, `sdpa` or `flash_attention_2`.
    ranks
        Tensor-parallel ranks.
    expanded
        Bytes of a quantized matrix that a kernel expands for a product with this many rows.
    """

    batch: Any
    queries: Any
    length: Any
    dtype: str
    attention: str
    ranks: int = 1
    expanded: int = 0

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def tokens(self) -> Any:
        """New tokens of all sequences."""
        return self.batch * self.queries


def larger(a: Any, b: Any) -> Any:
    """The larger of two numbers, or of two arrays element by element."""
    return (a + b + abs(a - b)) // 2


def stages(architecture: Architecture, era: Era, step: Pass) -> dict[str, tuple[Any, str]]:
    """Bytes of the largest attention, MLP and expert stage over all layers, each with its formula."""
    found: dict[str, tuple[Any, str]] = {}

    def note(name: str, size: Any, formula: str) -> None:
        if name not in found:
            found[name] = size, formula
        else:
            before = found[name][0]
            most = larger(before, size)
            found[name] = most, (formula if _is(most, size) else found[name][1])

    for layer, _ in (*architecture.encoder_blocks, *architecture.blocks):
        for mixer in layer.mixers:
            note("attention", *_mixer(architecture, era, step, mixer))
        if layer.feed_forward and layer.feed_forward.width:
            note("mlp", *_mlp(architecture, step, layer, layer.feed_forward))
        if layer.feed_forward and layer.feed_forward.experts:
            note("experts", *_experts(architecture, era, step, layer.feed_forward))
    return found


def _is(most: Any, size: Any) -> bool:
    same = most == size
    return bool(same.all()) if hasattr(same, "all") else bool(same)


def _mixer(architecture: Architecture, era: Era, step: Pass, mixer: Mixer) -> tuple[Any, str]:
    """Attention of one layer, beyond its keys and values in the cache."""
    hidden = step.tokens * architecture.hidden_size * step.width
    base = _BEFORE * hidden
    prefix = f"{_BEFORE} x {architecture.hidden_size} hidden"
    rotary = sum(2 * step.tokens * rope.dim * step.width for rope in architecture.ropes[:1])
    if isinstance(mixer, Recurrent):
        projected = step.tokens * (mixer.projected_width + mixer.output_width) // step.ranks * step.width
        states = step.batch * mixer.recurrent * 4
        return base + 2 * projected + states, f"({prefix} + 2 x {mixer.projected_width} projected) x tokens"
    if isinstance(mixer, CrossAttention | Attention):
        value_dim = mixer.value_dim if isinstance(mixer, Attention) else mixer.head_dim
        heads, groups = mixer.heads // step.ranks or 1, mixer.heads // mixer.kv_heads
        return _softmax_attention(
            era, step, base + rotary, prefix, heads, groups, mixer.head_dim, value_dim, 0
        )
    if isinstance(mixer, LatentAttention):
        heads = mixer.heads // step.ranks or 1
        expanded = 0
        if era.latent_cache:
            expanded = step.batch * step.length * heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
        return _softmax_attention(
            era,
            step,
            base + rotary,
            prefix,
            heads,
            1,
            mixer.nope_dim + mixer.rope_dim,
            mixer.value_dim,
            expanded * step.width,
        )
    return base, prefix


def _softmax_attention(
    era: Era,
    step: Pass,
    base: Any,
    prefix: str,
    heads: int,
    groups: int,
    head_dim: int,
    value_dim: int,
    expanded: Any,
) -> tuple[Any, str]:
    query = step.tokens * heads * head_dim * step.width
    output = step.tokens * heads * value_dim * step.width
    # Rotating the queries holds them, two products and the sum of these.
    rotate = base + 4 * query
    repeated: Any = 0
    if groups > 1 and (step.attention == "eager" or (step.attention == "sdpa" and not era.native_gqa)):
        repeated = step.batch * step.length * heads * (head_dim + value_dim) * step.width
    scores: Any = 0
    text = f"{prefix} + {heads} x ({head_dim} + {value_dim}) query and output"
    if step.attention == "eager":
        positions = step.batch * step.queries * step.length
        scores = positions * heads * _SCORE_BYTES[step.dtype] + positions * step.width
        text += f" + {heads} heads x {_SCORE_BYTES[step.dtype]} B a score and a mask"
    if groups > 1 and not _is_zero(repeated):
        text += f" + keys and values repeated {groups} times"
    attend = base + query + output + repeated + scores + expanded
    return larger(rotate, attend), text


def _is_zero(value: Any) -> bool:
    return bool(value == 0) if not hasattr(value, "all") else bool((value == 0).all())


def _mlp(architecture: Architecture, step: Pass, layer: Layer, ffn: FeedForward) -> tuple[Any, str]:
    """The dense MLP: gated, the activation, the up projection and their product; fused, both halves stay."""
    width = ffn.width // step.ranks
    fused = any(
        tensor.part == "mlp" and tensor.kind == "linear" and tensor.shape[0] == 2 * ffn.width
        for tensor in layer.tensors
    )
    times = (4 if fused else 3) if ffn.gated else 2
    size = step.tokens * (_AFTER * architecture.hidden_size + times * width) * step.width
    text = f"tokens x ({_AFTER} x {architecture.hidden_size} hidden + {times} x {width} MLP) x {step.width} B"
    if step.expanded:
        # The expanded matrix is gone before the gate is multiplied.
        size = larger(size, size - step.tokens * width * step.width + step.expanded)
        text += f", or one MLP less and {step.expanded} B of an expanded matrix"
    return size, text


def _experts(architecture: Architecture, era: Era, step: Pass, ffn: FeedForward) -> tuple[Any, str]:
    """The routed experts; where they run one after the other, one sees its even share of the tokens."""
    hidden, inner = architecture.hidden_size, ffn.expert_width // step.ranks
    rows = step.tokens * ffn.top_k
    one_hot = rows * ffn.experts * 8
    base = (_AFTER + 1) * step.tokens * hidden * step.width
    if era.grouped_experts:
        wide = hidden + 4 * inner
        size = _AFTER * step.tokens * hidden * step.width + rows * larger(wide, 3 * hidden) * step.width
        return (
            size,
            f"tokens x ({_AFTER} x {hidden} + {ffn.top_k} x {max(wide, 3 * hidden)}) x {step.width} B",
        )
    share = rows // ffn.experts + 1
    size = base + one_hot + share * (2 * hidden + 3 * inner) * step.width
    return (
        size,
        f"tokens x {_AFTER + 1} x {hidden} hidden + int64 mask of {ffn.top_k} x {ffn.experts} experts",
    )
