"""What a layer computes beside its products: norms, activation, dropout, where norms stand.

Tensors and mixers say what a layer multiplies; training also keeps what lies between the products, and that
depends on these names. A forward pass under `no_grad` needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Router:
    """How tokens choose their experts.

    Attributes
    ----------
    score
        What makes scores of logits: `softmax`, `sigmoid`, `sqrtsoftplus`, or `sparsemixer` (Phi-3.5-MoE: one softmax
        with a mask for each chosen expert).
    before_top_k
        Scores are taken of all experts, and the best are chosen; False: of the chosen logits alone.
    normalised
        The chosen weights are divided by their sum.
    float32
        The product itself is computed in float32 (input and weight are cast).
    corrected
        Choice is by scores plus a stored correction.
    groups
        Groups of experts, of which the best are chosen first; 1 without.
    jitter
        Noise on the input while training: a copy of it and its factors are kept.
    """

    score: str = "softmax"
    before_top_k: bool = True
    normalised: bool = False
    float32: bool = False
    corrected: bool = False
    groups: int = 1
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Traits:
    """What training depends on beside tensors, of the language model.

    Attributes
    ----------
    activation
        As transformers' `ACT2FN` names it, or `gelu_bloom` (Bloom's own gradient), `swiglu_clamped` (gpt-oss,
        MiniMax-M3: clamp, sigmoid, one added to the second factor).
    norm
        One of

        `rms`               input cast to float32, normalised, cast back, times weight (Llama)
        `rms_float32`       times weight before it is cast back (OLMo 2, gpt-oss, Gemma 3n and 4)
        `rms_offset`        the same with one added to the weight (Gemma)
        `rms_mixed`         float32 square of the input alone; input times float32 root, cast, times weight (T5)
        `rms_mixed_float32` the same, times weight before it is cast (ChatGLM)
        `layer_norm`        PyTorch's own
        `layer_norm_offset` PyTorch's own with one added to the weight (Nemotron)
        `layer_norm_plain`  PyTorch's own in float32 without a weight (OLMo)
        `layer_norm_composed` step by step in float32 (Cohere)
    block
        How a layer is put together, x being its input:

        `sequential`    x + attention(norm(x)), then the same with the MLP
        `parallel`      x + attention(norm(x)) + mlp(other norm(x))
        `parallel_shared_norm` the same with one norm for both
        `post`          norm(x + attention(x)), then the same with the MLP
        `post_branch`   x + norm(attention(x)), then the same with the MLP
        `sandwich`      x + norm(attention(norm(x))), then the same with the MLP
        `normed_residual` x = norm(x); a*x + b*attention(x), then the same with the MLP (MiniMax)
        `single`        x + mixer(norm(x)): one branch a layer (Mamba, Nemotron-H)
        `shortcut`      two sequential halves, the experts beside the second (LongCat)
        `altup`         several predictions of the stream, mixed around a sandwich (Gemma 3n)
        `hyper`         several streams, mixed by weights that each token computes (DeepSeek-V4)

        Layers with linear attention in OLMo-Hybrid are `sequential`.
    qk_norm, qk_norm_kind
        Norms of queries and keys: `none`, `head` (over each head's width, one weight for all), `whole` (over all
        heads at once), `each` (a module for each head, StableLM); and which, as `norm` names them, or `rms_plain`
        (without a weight); `none` without. Llama 3.2 Vision has them in its cross attention alone: see its tensors.
    attention_dropout, hidden_dropout, activation_dropout, embedding_dropout
        Of attention's probabilities, of what a branch adds to the stream, of the MLP's inner values, and of
        embeddings; 0.0 without.
    attention_softcap, final_softcap
        `c * tanh(s / c)` of attention's scores and of logits; 0.0 without.
    embedding_multiplier, residual_multiplier, logits_multiplier
        Factors of embeddings, of what a branch adds to the stream, and of logits; None where the code has no such
        product (one with 1.0 makes a tensor like any other).
    qkv_clip
        Queries, keys and values are clamped to this; 0.0 without.
    position_bias
        What is added to attention's scores: `none`, `alibi`, or `relative` (T5, DeBERTa).
    attention_gate
        What multiplies attention's output before its projection: `none`, `sigmoid`, or `softplus` (in float32).
    normed_head
        The head's weight is normalised at each pass (Baichuan 2).
    router
        How experts are chosen; None in a dense model.
    """

    activation: str = "silu"
    norm: str = "rms"
    block: str = "sequential"
    qk_norm: str = "none"
    qk_norm_kind: str = "none"
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    activation_dropout: float = 0.0
    embedding_dropout: float = 0.0
    attention_softcap: float = 0.0
    final_softcap: float = 0.0
    embedding_multiplier: float | None = None
    residual_multiplier: float | None = None
    logits_multiplier: float | None = None
    qkv_clip: float = 0.0
    position_bias: str = "none"
    attention_gate: str = "none"
    normed_head: bool = False
    router: Router | None = None


#: What an architecture has before its config was read for them.
UNREAD = Traits()
