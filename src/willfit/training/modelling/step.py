"""How one forward and backward pass runs on a rank: shapes, dtypes, kernels."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.low_bits import LowBits


@dataclass(frozen=True, slots=True)
class Step:
    """One micro-batch on one rank.

    Attributes
    ----------
    batch, length
        Sequences, and tokens of each that this rank computes.
    keys
        Tokens of each that its queries attend to (all of them, where context-parallel ranks share a sequence).
    prefix_tokens
        Of `keys`, those that a trained prefix puts in front of every layer's keys and values.
    prompt_tokens
        Of a trained prompt that the layer's attention looks at apart from its keys.
    compute
        Dtype of products.
    autocast
        Products cast their operands; what is delicate runs in float32.
    attention
        `eager`, `sdpa`, `flash_attention_2`, ... as in `TrainingSettings`.
    kernels
        Fused kernels that replace composite operations: `rms_norm`, `rope`, `swiglu`, `gelu`, `softmax` (that of eager
        attention, with scale and mask), `cross_entropy`, `lora`.
    masked
        An explicit mask reaches attention.
    mask_heads
        Heads that have masks of their own; 0 if one serves all.
    source_masked
        What cross attention looks at is masked, for it is padded.
    source
        Tokens of each sequence that cross attention looks at; 0 for as many as its own.
    repeats_keys
        Keys and values are repeated for all query heads before SDPA.
    tensor_ranks, sequence_parallel
        Tensor-parallel ranks, and whether norms and residuals are divided along the sequence among them.
    regathers, norm
        See `Habits`.
    compute_capability
        Of the device, which decides what SDPA can choose.
    expert_ranks, expert_tensor_ranks
        Ranks among which experts are spread, and ranks that divide one.
    grouped_experts
        Experts run as grouped products over sorted tokens; else in a loop.
    attends_back
        A token sees itself and those before it; else all.
    training
        Dropout is on.
    compiled
        Layers and loss run under `torch.compile`, which keeps results of products and makes the rest anew.
    whole_leaves
        Parameters are leaves of the graph, not shards that are gathered: autocast keeps its copies of leaves.
    wide_angles
        Cosine and sine stay float32 under autocast.
    keeps_quantized_input, computes_as_given, expands_twice
        See `Habits`.
    images, image_tokens
        Items of each sequence that a tower sees, and tokens that one becomes; 0 for the tower's own number.
    low_bits
        Products of layers are quantized.
    torch
        Version of torch that decides what SDPA can choose, as numbers; empty for the newest.
    """

    batch: int
    length: int
    keys: int
    compute: str
    autocast: bool = False
    attention: str = "sdpa"
    kernels: frozenset[str] = frozenset()
    masked: bool = False
    prefix_tokens: int = 0
    prompt_tokens: int = 0
    mask_heads: int = 0
    source_masked: bool = False
    source: int = 0
    repeats_keys: bool = False
    tensor_ranks: int = 1
    sequence_parallel: bool = False
    regathers: bool = False
    norm: str = ""
    compute_capability: str = "8.0"
    expert_ranks: int = 1
    expert_tensor_ranks: int = 1
    grouped_experts: bool = True
    attends_back: bool = True
    training: bool = True
    compiled: bool = False
    whole_leaves: bool = True
    wide_angles: bool = True
    keeps_quantized_input: bool = False
    computes_as_given: bool = False
    expands_twice: bool = False
    low_bits: LowBits | None = None
    images: int = 1
    image_tokens: int = 0
    torch: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that this rank computes."""
        return self.batch * self.length

    @property
    def stream_tokens(self) -> int:
        """Tokens of the residual stream that it holds."""
        return self.tokens // self.tensor_ranks if self.sequence_parallel else self.tokens

    @property
    def width(self) -> int:
        """Bytes of an element in a product."""
        return DTYPE_BYTES[self.compute]

    @property
    def flash(self) -> bool:
        """Whether attention never holds scores, by a flash kernel."""
        return self.attention.startswith("flash") or self.attention == "te"
