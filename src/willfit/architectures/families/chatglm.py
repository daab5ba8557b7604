"""ChatGLM2, ChatGLM3 and GLM-4 in their own layout: fused projections and a separate output layer.

Source: `modeling_chatglm.py` as published with zai-org/chatglm3-6b and zai-org/glm-4-9b-chat.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, layer_count
from willfit.architectures.blocks.feed_forward import fused_gate_up_mlp
from willfit.architectures.blocks.rotary import ropes_of
from willfit.architectures.blocks.tensors import buffer, column, embedding, layer_norm, linear, rms_norm, row
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "transformer") -> Architecture:
    """The architecture of a ChatGLM config."""
    hidden = config.integer("hidden_size")
    layers = layer_count(config, "num_layers", "num_hidden_layers")
    heads = config.integer("num_attention_heads")
    head_dim = config.optional_integer("kv_channels") or hidden // heads
    grouped = config.boolean("multi_query_attention", default=False)
    kv_heads = config.integer("multi_query_group_num") if grouped else heads
    width = config.integer("ffn_hidden_size")
    vocab = config.integer("padded_vocab_size", "vocab_size")
    bias = config.boolean("add_bias_linear", default=False)
    qkv_bias = bias or config.boolean("add_qkv_bias", default=False)
    norm = rms_norm if config.boolean("rmsnorm", default=True) else layer_norm
    attention = Attention(heads, kv_heads, head_dim, head_dim)
    block = f"{prefix}.encoder.layers.{{layer}}"
    layer = Layer(
        (
            *norm(f"{block}.input_layernorm", hidden),
            *fused_qkv(f"{block}.self_attention.query_key_value", hidden, attention, bias=qkv_bias),
            *linear(
                f"{block}.self_attention.dense",
                heads * head_dim,
                hidden,
                "attention",
                bias=bias,
                split=row(heads),
            ),
            *norm(f"{block}.post_attention_layernorm", hidden),
            *fused_gate_up_mlp(
                f"{block}.mlp", hidden, width, bias=bias, names=("dense_h_to_4h", "dense_4h_to_h")
            ),
        ),
        (attention,),
        FeedForward(width),
    )
    # Half of a head is rotated; the file holds one frequency for each pair of its dimensions.
    rotated = head_dim // 2
    last = config.boolean("post_layer_norm", default=True)
    return causal_decoder(
        config,
        family="chatglm",
        layers=(layer,) * layers,
        hidden=hidden,
        vocab=vocab,
        embeddings=(
            *embedding(f"{prefix}.embedding.word_embeddings", vocab, hidden),
            *buffer(f"{prefix}.rotary_pos_emb.inv_freq", (rotated // 2,), "embedding"),
        ),
        head=(
            *(norm(f"{prefix}.encoder.final_layernorm", hidden) if last else ()),
            *linear(f"{prefix}.output_layer", hidden, vocab, "head", bias=bias, split=column(vocab)),
        ),
        tied=False,
        ropes=ropes_of(config, rotated),
    )
