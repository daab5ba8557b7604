"""Grouped-query decoders with DeepSeek's experts: DeepSeekMoE, GLM-4.5, dots.llm1, Solar Open, Hy3, K-EXAONE.

Source: transformers `models/glm4_moe`, `dots1`, `solar_open`, `hy_v3`, `exaone_moe`, and for `deepseek` the
checkpoint's own modeling file. Names of the multi-token-prediction modules are those of the checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import sparse_layers, windows_of
from willfit.architectures.blocks.mtp import deepseek_mtp_tensors, mtp_modules
from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model differs from GLM-4.5.

    Attributes
    ----------
    qk_norm
        RMS norm over each head's query and key where the config has no `use_qk_norm`.
    out_bias
        The output projection has a bias if queries, keys and values have.
    gate, bias, shared
        Names of the router, of its correction bias (empty without one), and of the shared expert.
    mtp
        How the multi-token-prediction module is stored: DeepSeek's way, with its own token table and head;
        `bare`, a layer with two input norms, a projection and a final norm; `apart`, the same as a module of
        its own with a dense layer.
    """

    qk_norm: bool = False
    out_bias: bool = False
    gate: str = "gate"
    bias: str = "gate.e_score_correction_bias"
    shared: str = "shared_experts"
    mtp: Literal["deepseek", "bare", "apart"] = "deepseek"


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "deepseek": Variant(out_bias=True, bias=""),
    "dots1": Variant(qk_norm=True, out_bias=True),
    "exaone_moe": Variant(qk_norm=True, mtp="apart"),
    "hy_v3": Variant(
        qk_norm=True,
        out_bias=True,
        gate="router.gate",
        bias="expert_bias",
        shared="shared_mlp",
        mtp="bare",
    ),
    "solar_open": Variant(bias=""),
}


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a grouped-query decoder with routed and shared experts.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    variant = VARIANTS.get(config.text("model_type", default="glm4_moe"), Variant())
    shape = shape_of(config, width_default=0)
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=False)
    qk_norm = config.boolean("use_qk_norm", default=variant.qk_norm)
    sparse = sparse_layers(config, shape.layers)
    windows = windows_of(config, shape.layers)

    def layer(block: str, key: tuple[bool, int], extra: tuple[Tensor, ...] = ()) -> Layer:
        routes, window = key
        attention = shape.attention(window=window)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(
                f"{block}.self_attn",
                hidden,
                attention,
                bias=bias,
                out_bias=bias and variant.out_bias,
                qk_norm=qk_norm,
            ),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += expert_tensors(
                f"{block}.mlp", hidden, experts, gate=variant.gate, bias=variant.bias, shared=variant.shared
            )
            return Layer(tensors + extra, (attention,), experts.feed_forward)
        tensors += gated_mlp(f"{block}.mlp", hidden, config.integer("intermediate_size"))
        return Layer(tensors + extra, (attention,), FeedForward(shape.width))

    def modules() -> dict[str, Any]:
        count = bounded_count(config, "num_nextn_predict_layers", default=0)
        if not count:
            return {}
        if variant.mtp == "apart":
            extra = (
                *rms_norm("mtp.pre_fc_norm_embedding", hidden),
                *rms_norm("mtp.pre_fc_norm_hidden", hidden),
                *linear("mtp.fc", 2 * hidden, hidden, "mtp"),
                *rms_norm("mtp.norm", hidden),
            )
            return mtp_modules((layer("mtp.layers.{layer}", (False, 0), extra),) * count)
        block = f"{prefix}.layers.{{layer}}"
        if variant.mtp == "bare":
            extra = (
                *rms_norm(f"{block}.enorm", hidden),
                *rms_norm(f"{block}.hnorm", hidden),
                *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
                *rms_norm(f"{block}.final_layernorm", hidden),
            )
        else:
            extra = deepseek_mtp_tensors(block, hidden, shape.vocab, copies=True)
        return mtp_modules((layer(block, (sparse[-1], 0), extra),) * count, first=shape.layers)

    return causal_decoder(
        config,
        family="glm4_moe",
        layers=repeated(
            lambda key: layer(f"{prefix}.layers.{{layer}}", key), zip(sparse, windows, strict=True)
        ),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        **modules(),
    )
