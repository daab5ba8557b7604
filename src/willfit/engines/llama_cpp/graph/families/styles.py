"""In which style each plain decoder is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from willfit.engines.llama_cpp.graph.families.decoder import (
    Experts,
    Style,
    in_windows,
    never,
    not_each_fourth,
)
from willfit.engines.llama_cpp.graph.network import Network

#: Layers of the Baichuan model with rotary positions.
_BAICHUAN_7B = 32
#: Soft capping of Muse's logits where a file says nothing.
_SOFTCAP = 30.0

_OUTPUT_BIAS = frozenset(("attn_output.bias",))
_MLP_BIASES = frozenset(("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"))
_HEAD_BIAS = frozenset(("output.bias",))
_PLAIN = Style()
_FACTORS = Style(factors=True)
_NORMED = Style(norm="norm", activation="gelu")
_UNCACHED = Style(cached=False)
_ENCODER = Style(cached=False, head=False)
#: Experts as the file says, in one way or another if it says nothing.
_STATED = Experts(stated=True, normalised=None, scaled=None)
_SIGMOID = Experts(gating="sigmoid", stated=True, normalised=None, scaled=None)
_PARALLEL = Style(parallel="norm")
_GEMMA = Style(start="scaled", scales_queries=True, activation="gelu")
_GEMMA_POST = replace(_GEMMA, post_attention="post_attention_norm", post_ffn="post_ffw_norm")
_POST = Style(post_attention="post_attention_norm", post_ffn="post_ffw_norm")


def _baichuan(net: Network) -> Style:
    return _PLAIN if len(net.layers) == _BAICHUAN_7B else Style(ropes=never)


def _exaone4(net: Network) -> Style:
    return replace(_POST, factors=True, ropes=in_windows) if net.has_windows else replace(_POST, factors=True)


def _gptneox(net: Network) -> Style:
    parallel = net.meta.boolean("use_parallel_residual", True)
    return replace(_NORMED, parallel="own") if parallel else _NORMED


def _modern_bert(net: Network) -> Style:
    gated = net.meta.values.get("modern-bert.hidden_activation", "geglu")
    return replace(_ENCODER, norm="norm", fused={"silu": "swiglu"}.get(str(gated), "geglu"))


def _muse(net: Network) -> Style:
    return Style(
        start="normed",
        ropes=in_windows,
        gate="sigmoid",
        post_attention="post_attention_norm",
        early_norm=True,
        post_ffn="post_ffw_norm",
        logit_scale="always",
        softcap="always" if net.value("final_logit_softcapping", _SOFTCAP) else "",
    )


#: A style, or what finds it.
STYLES: dict[str, Style | Callable[[Network], Style]] = {
    **dict.fromkeys(
        (
            "qwen", "qwen2", "qwen3", "qwen3moe", "mellum", "internlm2", "xverse", "paddleocr", "pangu-embedded",
        ),
        _PLAIN,
    ),
    **dict.fromkeys(("ernie4_5", "ernie4_5-moe"), Style(ignored=_OUTPUT_BIAS)),
    "qwen2vl": Style(ignored=_HEAD_BIAS),
    **dict.fromkeys(("llama", "exaone"), _FACTORS),
    **dict.fromkeys(("codeshell", "starcoder2", "pockettts"), _NORMED),
    **dict.fromkeys(("bloom", "gpt2", "starcoder"), replace(_NORMED, ropes=never)),
    "dream": replace(_UNCACHED, ignored=_HEAD_BIAS),
    "llada": replace(_UNCACHED, ignored=_OUTPUT_BIAS | _MLP_BIASES),
    "rnd1": _UNCACHED,
    **dict.fromkeys(("hunyuan-dense", "hunyuan_vl", "hunyuan-moe"), Style(factors=True, norms_after_ropes=True)),
    **dict.fromkeys(("phi3", "phimoe"), Style(factors=True, scales_queries=True, fused="swiglu", mlp_second=True)),
    "afmoe": Style(
        start="scaled",
        ropes=not_each_fourth,
        gate="sigmoid",
        post_attention="post_attention_norm",
        early_norm=True,
        post_ffn="post_ffw_norm",
        pins_post=True,
        experts=_SIGMOID,
    ),
    "apertus": Style(
        factors=True, activation="xielu", ignored=frozenset(("attn_q_norm.bias", "attn_k_norm.bias"))
    ),
    "arcee": Style(factors=True, activation="relu_sqr"),
    "baichuan": _baichuan,
    "bailingmoe": Style(factors=True, experts=Experts(normalised=None, scaled=None)),
    "bailingmoe2": Style(experts=_STATED),
    "chatglm": Style(fused="swiglu"),
    "cogvlm": Style(crop="never"),
    "cohere2": Style(norm="norm", factors=True, ropes=in_windows, parallel="norm", logit_scale="stated"),
    "command-r": Style(norm="norm", parallel="norm", logit_scale="stated"),
    "dbrx": Style(norm="norm", ffn_norm="attn_output_norm"),
    "deepseek": Style(factors=True, experts=Experts(normalised=False, scaled=None)),
    "dots1": Style(experts=_STATED),
    "eurobert": _ENCODER,
    "exaone-moe": Style(factors=True, ropes=in_windows, experts=_STATED),
    "exaone4": _exaone4,
    "falcon": replace(_NORMED, parallel="norm", order="mlp+attention+x"),
    "gemma": _GEMMA,
    "gemma-embedding": replace(_GEMMA_POST, cached=False, head=False),
    "gemma2": replace(_GEMMA_POST, softcap="always"),
    "gemma3": replace(_GEMMA_POST, softcap="stated"),
    "glm4": replace(_POST, fused="swiglu", pins_post=True),
    "glm4moe": Style(ffn_norm="post_attention_norm", experts=_SIGMOID),
    "gpt-oss": Style(
        ffn_norm="post_attention_norm",
        crop="before norm",
        experts=Experts(gating="softmax_weight", normalised=False, activation="swiglu_oai"),
    ),
    "gptneox": _gptneox,
    "hy_v3": Style(factors=True, crop="after norm", experts=_SIGMOID),
    "jais": Style(norm="norm", ropes=never),
    "jais2": Style(norm="norm", activation="relu_sqr"),
    "laguna": Style(gate="softplus", experts=_SIGMOID),
    "llada-moe": Style(cached=False, experts=Experts(normalised=False)),
    "llama-embed": Style(factors=True, cached=False, head=False),
    "maincoder": Style(norms_after_ropes=True),
    "maple": Style(ropes=in_windows),
    "minimax-m2": Style(wide_norms="split", experts=Experts(stated=True)),
    "modern-bert": _modern_bert,
    "mpt": replace(_NORMED, ropes=never, wide_norms="merged"),
    "muse-glimmer": _muse,
    "nemotron": Style(norm="norm", activation="relu_sqr"),
    "olmo": Style(norm="norm", bare=True),
    "olmo2": replace(_POST, wide_norms="split"),
    "olmoe": Style(wide_norms="split", experts=Experts(normalised=False)),
    "orion": Style(norm="norm"),
    "phi2": replace(_NORMED, scales_queries=True, parallel="norm", order="attention+mlp+x"),
    "plamo": replace(_PARALLEL, order="mlp+attention+x"),
    "plamo3": replace(_POST, fused="swiglu", pins_post=True),
    "refact": Style(ropes=never, ignored=_OUTPUT_BIAS | _MLP_BIASES),
    "seed_oss": Style(ffn_norm="post_attention_norm"),
    "smollm3": Style(ropes=not_each_fourth),
    "spark2_5": Style(gate="sigmoid", activation="gelu"),
}  # fmt: skip


def style_of(net: Network) -> Style:
    """The style of a model; Llama's, if it has none."""
    found = STYLES.get(net.meta.architecture, _FACTORS)
    return found if isinstance(found, Style) else found(net)
