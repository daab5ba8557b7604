"""By `model_type`: which norms and activation a model's code uses, and which config fields its dropout reads.

Source: transformers 5.23, `models/*/modeling_*.py` (classes of norms, `forward` of the decoder layer, of the MLP and of
the router; defaults of the configuration class); for types marked remote, the modeling file that is published with
the checkpoint. Types that are not listed are Llama's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from willfit.architectures.style import Field, Routing, Style
from willfit.architectures.traits import Router

LLAMA = Style()
_ACT = ("activation_function",)
_GELU = Style(activation="gelu", norm="layer_norm")
_GPT2 = Style(
    activation="gelu_new", acts=_ACT, norm="layer_norm", attention_dropout=Field("attn_pdrop", 0.1),
    hidden_dropout=Field("resid_pdrop", 0.1), embedding_dropout=Field("embd_pdrop", 0.1),
)  # fmt: skip
_GPTJ = replace(
    _GPT2, block="parallel_shared_norm", attention_dropout=Field("attn_pdrop"),
    hidden_dropout=Field("resid_pdrop"), embedding_dropout=Field("embd_pdrop"),
)  # fmt: skip
_BERT = replace(
    _GELU, block="post", attention_dropout=Field("attention_probs_dropout_prob", 0.1),
    hidden_dropout=Field("hidden_dropout_prob", 0.1), embedding_dropout=Field("hidden_dropout_prob", 0.1),
)  # fmt: skip
_BART = replace(
    _GELU, acts=_ACT, block="post", hidden_dropout=Field("dropout", 0.1), embedding_dropout=Field("dropout", 0.1),
    activation_dropout=Field("activation_dropout"), embeds=Field("sqrt:scale_embedding"),
)  # fmt: skip
_T5 = Style(
    activation="relu", acts=("dense_act_fn",), norm="rms_mixed", attention_dropout=Field("dropout_rate", 0.1),
    hidden_dropout=Field("dropout_rate", 0.1), activation_dropout=Field("dropout_rate", 0.1),
    embedding_dropout=Field("dropout_rate", 0.1), position_bias="relative",
)  # fmt: skip
_PARALLEL_LAYER_NORM = replace(_GELU, acts=("activation", "hidden_act"), block="parallel_shared_norm")
# Without ALiBi the code drops nothing of attention.
_FALCON = replace(_PARALLEL_LAYER_NORM, attention_dropout=Field(), hidden_dropout=Field("hidden_dropout"))
_GEMMA = Style(
    activation="gelu_pytorch_tanh", norm="rms_offset",
    embeds=Field("sqrt"),
)  # fmt: skip
_GEMMA2 = replace(
    _GEMMA, acts=("hidden_activation",), block="sandwich",
    attention_softcap=Field("attn_logit_softcapping", 50.0),
    final_softcap=Field("final_logit_softcapping", 30.0),
)  # fmt: skip
_GEMMA3 = replace(
    _GEMMA2, qk_norm="head", attention_softcap=Field("attn_logit_softcapping"),
    final_softcap=Field("final_logit_softcapping"),
)  # fmt: skip
_GEMMA4 = replace(
    _GEMMA3, norm="rms_float32", attention_softcap=Field(),
    routing=Routing(Router(normalised=True)),
)  # fmt: skip
_OLMO2 = Style(norm="rms_float32", block="post_branch", qk_norm="whole")
_HEADS = Style(qk_norm="head")
_SANDWICH = Style(block="sandwich")
_COHERE = Style(
    norm="layer_norm_composed", block="parallel_shared_norm", qk_norm="head", qk_norm_field="use_qk_norm",
    logits=Field("logit_scale", 0.0625),
)  # fmt: skip
_GRANITE = Style(
    embeds=Field("embedding_multiplier", 1.0), residual=Field("residual_multiplier", 1.0),
    logits=Field("logits_scaling", 1.0), divides=True,
    routing=Routing(Router(before_top_k=False)),
)  # fmt: skip
_MINICPM = Style(norm="rms_mixed", embeds=Field("scale_emb", 1.0), residual=Field("depth", 1.0))
_ALWAYS_NORMED = Routing(Router(normalised=True))
_SIGMOID = Router("sigmoid", normalised=True, float32=True, corrected=True)
_SIGMOID16 = replace(_SIGMOID, float32=False)
_DEEPSEEK3 = Style(routing=Routing(_SIGMOID, normalises="norm_topk_prob"))
_MIXTRAL = Style(routing=Routing(Router(normalised=True), jitters="router_jitter_noise"))
_QWEN3_MOE = replace(_HEADS, routing=Routing(Router(), normalises="norm_topk_prob"))
_QWEN_NEXT = Style(
    norm="rms_offset", qk_norm="head", attention_gate="sigmoid",
    routing=Routing(Router(normalised=True), normalises="norm_topk_prob"),
)  # fmt: skip
_ERNIE = Style(
    attention_dropout=Field(),
    routing=Routing(Router(normalised=True, float32=True, corrected=True)),
)  # fmt: skip
_MINIMAX = replace(_MIXTRAL, block="normed_residual")
_MAMBA = Style(block="single", attention_dropout=Field())
_GROK = Style(
    activation="gelu", acts=("hidden_act",), norm="rms_mixed", block="sandwich",
    attention_softcap=Field("attn_logit_softcapping", 30.0), final_softcap=Field("final_logit_softcapping"),
    embeds=Field("embedding_multiplier_scale", 78.38367176906169),
    logits=Field("output_multiplier_scale", 0.5773502691896257), routing=Routing(Router(normalised=True)),
)  # fmt: skip
_STEP = Style(
    norm="rms_offset", qk_norm="head", attention_gate="sigmoid", routing=Routing(_SIGMOID16),
)  # fmt: skip

_GROUPS: tuple[tuple[str, Style], ...] = (
    # dense decoders of transformers
    ("qwen3 hunyuan_v1_dense", _HEADS),
    ("apertus", replace(_HEADS, activation="xielu")),
    ("arcee bitnet", Style(activation="relu2")),
    ("ernie4_5", replace(_ERNIE, routing=LLAMA.routing)),
    ("helium", Style(norm="rms_float32")),
    ("seed_oss", Style(
        attention_dropout=Field("attention_dropout", 0.1), hidden_dropout=Field("residual_dropout", 0.1),
    )),
    ("phi3", Style(hidden_dropout=Field("resid_pdrop"))),
    ("granite granitemoe granitemoehybrid", _GRANITE),
    ("gemma", _GEMMA),
    ("gemma2", _GEMMA2),
    ("vaultgemma", replace(_GEMMA2, block="sequential")),
    ("gemma3_text", _GEMMA3),
    ("gemma3n_text", replace(_GEMMA4, block="altup", final_softcap=Field("final_logit_softcapping", 30.0))),
    ("gemma4_text gemma4_unified_text", _GEMMA4),
    ("muse_glimmer muse_glimmer_text", Style(
        acts=("hidden_activation",), norm="rms_offset", block="sandwich", qk_norm="head", qk_norm_kind="rms_plain",
        final_softcap=Field("final_logit_softcapping", 20.0), logits=Field("output_multiplier", 1.0),
        attention_gate="sigmoid",
    )),
    ("glm4", _SANDWICH),
    ("olmo", Style(norm="layer_norm_plain", qkv_clip=Field("clip_qkv"))),
    ("olmo2 olmo3 flex_olmo olmo_hybrid", _OLMO2),
    ("exaone4", Style(block="post_branch", qk_norm="head")),
    ("cohere cohere2", _COHERE),
    ("mllama", Style(attention_dropout=Field("dropout"))),
    ("nemotron", Style(activation="relu2", norm="layer_norm_offset")),
    ("jais2", Style(activation="relu2", norm="layer_norm")),
    ("starcoder2", replace(
        _GELU, activation="gelu_pytorch_tanh", hidden_dropout=Field("residual_dropout"),
        embedding_dropout=Field("embedding_dropout"),
    )),
    ("gpt2", _GPT2),
    ("gpt_bigcode", replace(_GPT2, activation="gelu_pytorch_tanh")),
    ("gptj", _GPTJ),
    ("codegen", _GPTJ),
    ("gpt_neo", replace(
        _GPT2, attention_dropout=Field("attention_dropout"), hidden_dropout=Field("resid_dropout"),
        embedding_dropout=Field("embed_dropout"),
    )),
    ("gpt_neox", replace(
        _GELU, block="parallel", hidden_dropout=Field("hidden_dropout"), embedding_dropout=Field("hidden_dropout"),
    )),
    ("phi", replace(
        _PARALLEL_LAYER_NORM, activation="gelu_new", acts=("hidden_act",), qk_norm="head", qk_norm_field="qk_layernorm",
        hidden_dropout=Field("resid_pdrop"), embedding_dropout=Field("embd_pdrop"),
    )),
    ("falcon RefinedWeb RefinedWebModel", _FALCON),
    ("stablelm stablelm_epoch", Style(
        norm="layer_norm", qk_norm="each", qk_norm_field="qk_layernorm", hidden_dropout=Field("hidden_dropout"),
    )),
    ("persimmon fuyu", Style(
        activation="relu2", norm="layer_norm", qk_norm="head", qk_norm_field="qk_layernorm",
        hidden_dropout=Field("hidden_dropout"),
    )),
    ("bloom", replace(
        _GELU, activation="gelu_bloom", acts=(), hidden_dropout=Field("hidden_dropout"), position_bias="alibi",
    )),
    ("mpt", replace(
        _GELU, acts=(), attention_dropout=Field("attn_config.attn_pdrop"),
        hidden_dropout=Field("attn_config.attn_pdrop"), position_bias="alibi",
    )),
    ("opt", replace(
        _GELU, activation="relu", acts=_ACT, hidden_dropout=Field("dropout", 0.1),
    )),
    # remote
    ("baichuan internlm", Style(norm="rms_mixed", attention_dropout=Field())),
    ("chatglm", Style(acts=(), norm="rms_mixed_float32", hidden_dropout=Field("hidden_dropout"))),
    ("qwen", Style(acts=(), attention_dropout=Field("attn_dropout_prob"), embedding_dropout=Field("emb_dropout_prob"))),
    ("exaone", Style(acts=_ACT, embedding_dropout=Field("embed_dropout"))),
    ("orion", Style(norm="layer_norm")),
    ("internlm2 iquestcoder solar xverse", LLAMA),
    ("minicpm", _MINICPM),
    ("minicpm3", replace(_MINICPM, norm="rms", embeds=Field("scale_emb", 12.0))),
    ("bailing_moe", Style(qk_norm="head", qk_norm_field="use_qk_norm", routing=Routing(
        Router(normalised=True), normalises="norm_topk_prob", corrects="moe_router_enable_expert_bias"))),
    ("bailing_moe_v2", Style(qk_norm="head", qk_norm_field="use_qk_norm", routing=Routing(
        replace(_SIGMOID, corrected=False), normalises="norm_topk_prob", corrects="moe_router_enable_expert_bias"))),
    ("deepseek", Style(routing=Routing(Router(float32=True), normalises="norm_topk_prob"))),
    ("arctic", _MIXTRAL),
    ("grok-1 git", _GROK),
    ("minimax_m1 minimax_text_01", _MINIMAX),
    # mixtures of experts
    ("mixtral", _MIXTRAL),
    ("phimoe", Style(
        norm="layer_norm", routing=Routing(Router("sparsemixer"), jitters="input_jitter_noise"),
    )),
    ("dbrx", Style(
        acts=("ffn_config.ffn_act_fn.name",), norm="layer_norm", attention_dropout=Field("attn_config.attn_pdrop"),
        hidden_dropout=Field("resid_pdrop"), qkv_clip=Field("attn_config.clip_qkv"),
        routing=Routing(Router(normalised=True), jitters="ffn_config.moe_jitter_eps"),
    )),
    ("qwen3_moe", _QWEN3_MOE),
    ("qwen3_vl_moe_text",
     replace(_HEADS, routing=_ALWAYS_NORMED)),
    ("olmoe", Style(qk_norm="whole", qkv_clip=Field("clip_qkv"))),
    ("hunyuan_v1_moe", replace(_HEADS, routing=_ALWAYS_NORMED)),
    ("gpt_oss", Style(
        activation="swiglu_clamped", acts=(), norm="rms_float32", routing=Routing(Router(before_top_k=False)),
    )),
    ("llama4_text", Style(
        qk_norm="head", qk_norm_field="use_qk_norm", qk_norm_kind="rms_plain",
        routing=Routing(Router("sigmoid", before_top_k=False)),
    )),
    ("minimax_m2", Style(qk_norm="whole", routing=Routing(_SIGMOID16, jitters="router_jitter_noise"))),
    ("minimax_m3_vl_text", Style(
        activation="swiglu_clamped", acts=(), norm="rms_offset", qk_norm="head", routing=Routing(_SIGMOID16),
    )),
    ("ernie4_5_moe ernie4_5_vl_moe_text", _ERNIE),
    ("deepseek_v2", Style(routing=Routing(Router(float32=True)))),
    ("deepseek_v3 deepseek_v32 kimi_k2 glm4_moe_lite glm_moe_dsa axk1 youtu mimo_v2_flash mimo_v2", _DEEPSEEK3),
    ("dots1", Style(
        qk_norm="head", routing=Routing(replace(_SIGMOID, normalised=False), normalises="norm_topk_prob"),
    )),
    ("exaone_moe", replace(_DEEPSEEK3, qk_norm="head")),
    ("glm4_moe glm4v_moe_text solar_open", replace(_DEEPSEEK3, qk_norm="head", qk_norm_field="use_qk_norm")),
    ("hy_v3", replace(_HEADS, routing=Routing(_SIGMOID))),
    ("mistral4", Style(routing=Routing(Router(normalised=True), normalises="norm_topk_prob"))),
    ("longcat_flash longcat_flash_ngram longcat", Style(
        block="shortcut", routing=Routing(Router(float32=True, corrected=True)),
    )),
    ("laguna", Style(qk_norm="head", attention_gate="softplus", routing=Routing(_SIGMOID16))),
    ("step3p5 step3p7", _STEP),
    ("afmoe", Style(
        norm="rms_float32", block="sandwich", qk_norm="head", attention_gate="sigmoid",
        embeds=Field("sqrt:mup_enabled"), routing=Routing(_SIGMOID16),
    )),
    ("deepseek_v4 deepseek_ref deepseek_v41 deepseek_v41_text", Style(
        norm="rms_float32", block="hyper",
        routing=Routing(Router("sqrtsoftplus", normalised=True, corrected=True)),
    )),
    # state-space, linear-attention and hybrid models
    ("mamba mamba2 falcon_mamba", _MAMBA),
    ("nemotron_h", Style(
        activation="relu2", acts=("mlp_hidden_act",), norm="rms_float32", block="single", routing=_DEEPSEEK3.routing,
    )),
    ("falcon_h1", Style(
        embeds=Field("embedding_multiplier", 1.0), logits=Field("lm_head_multiplier", 1.0),
    )),
    ("jamba", Style(routing=Routing(Router()))),
    ("lfm2", Style(acts=(), qk_norm="head", attention_dropout=Field())),
    ("lfm2_moe", Style(
        acts=(), qk_norm="head", attention_dropout=Field(),
        routing=Routing(_SIGMOID16, normalises="norm_topk_prob", corrects="use_expert_bias"),
    )),
    ("zamba zamba2", Style(activation="gelu", block="single")),
    ("minimax", _MINIMAX),
    ("kimi_linear kimi_k3 bailing_hybrid", _DEEPSEEK3),
    ("glm5_next_text", replace(_DEEPSEEK3, block="hyper")),
    ("qwen3_next qwen3_5_text qwen3_5_moe_text", _QWEN_NEXT),
    ("qwen4_exp_text", replace(_QWEN_NEXT, block="hyper")),
    ("recurrent_gemma", replace(_GEMMA, acts=("hidden_activation",), final_softcap=Field("logits_soft_cap", 30.0))),
    ("rwkv rwkv5", Style(activation="relu2", acts=(), norm="layer_norm", attention_dropout=Field())),
    # encoders and encoder-decoders
    ("bert roberta xlm-roberta camembert", _BERT),
    ("deberta-v2", replace(_BERT, position_bias="relative")),
    ("distilbert", replace(
        _BERT, acts=("activation",), attention_dropout=Field("attention_dropout", 0.1),
        hidden_dropout=Field("dropout", 0.1), embedding_dropout=Field("dropout", 0.1),
    )),
    ("modernbert", replace(
        _GELU, acts=("hidden_activation",), activation_dropout=Field("mlp_dropout"),
        hidden_dropout=Field("attention_dropout"), embedding_dropout=Field("embedding_dropout"),
    )),
    ("t5 mt5 umt5", _T5),
    ("bart", _BART),
    ("mbart", replace(_BART, block="sequential")),
    ("whisper", replace(
        _BART, block="sequential", hidden_dropout=Field("dropout"), embedding_dropout=Field("dropout"),
    )),
)  # fmt: skip


def _by_type() -> Iterator[tuple[str, Style]]:
    for names, style in _GROUPS:
        for name in names.split():
            yield name, style


#: By `model_type`; what is not here is Llama's.
STYLES: dict[str, Style] = dict(_by_type())
