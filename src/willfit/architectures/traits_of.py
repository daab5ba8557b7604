"""From a config to `Traits`: the style of its type, with what the config's own fields change."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from willfit.architectures.style import Field, Routing, Style
from willfit.architectures.styles import LLAMA, STYLES
from willfit.architectures.traits import Router, Traits
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: Where a larger model's config keeps its language model.
_TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "language_model_config", "thinker_config")

#: Baichuan 2 normalises its head, and is told from Baichuan by its vocabulary; its 13B models have ALiBi (as
#: families/baichuan.py).
_BAICHUAN2_VOCAB = 125696
_BAICHUAN_ROTARY_HIDDEN = 4096


def traits_of(config: Config, family: str, *, routed: bool) -> Traits:
    """What training depends on beside tensors, of the language model that a config describes.

    Parameters
    ----------
    config
        The whole config; a nested language model is found in it.
    family
        The family module that built it, for configs without a type.
    routed
        Whether the model has routed experts.

    Raises
    ------
    BadInput
        If a field that is read has another type than it should; the message names it.
    """
    text, model_type = _language_model(config)
    style = STYLES.get(model_type) or STYLES.get(family, LLAMA)
    qk_norm = style.qk_norm
    if style.qk_norm_field and not text.boolean(style.qk_norm_field, default=model_type in _QK_NORMED):
        qk_norm = "none"
    return Traits(
        activation=_activation(text, style),
        norm=style.norm,
        block=_block(text, model_type, style),
        qk_norm=qk_norm,
        qk_norm_kind="none" if qk_norm == "none" else style.qk_norm_kind or style.norm,
        attention_dropout=_number(text, style.attention_dropout),
        hidden_dropout=_number(text, style.hidden_dropout),
        activation_dropout=_number(text, style.activation_dropout),
        embedding_dropout=_number(text, style.embedding_dropout),
        attention_softcap=_number(text, style.attention_softcap),
        final_softcap=_number(text, style.final_softcap),
        embedding_multiplier=_embedding_multiplier(text, style),
        residual_multiplier=_residual_multiplier(text, style),
        logits_multiplier=_logits_multiplier(text, style),
        qkv_clip=_number(text, style.qkv_clip),
        position_bias=_position_bias(text, model_type, style),
        attention_gate=style.attention_gate,
        normed_head=model_type == "baichuan" and text.integer("vocab_size", default=0) == _BAICHUAN2_VOCAB,
        router=_router(text, style.routing) if routed else None,
    )


#: Types whose class has norms of queries and keys unless a config says otherwise.
_QK_NORMED = ("persimmon", "fuyu", "llama4_text")


def _language_model(config: Config) -> tuple[Config, str]:
    """The innermost text section and the type under which `STYLES` knows it."""
    text, known = config, config.text("model_type", default="")
    while (inner := text.section(*_TEXT_SECTIONS)) is not None:
        text = inner
        own = text.text("model_type", default="")
        # A section may name a type that is only the outer one's part (`exaone4_5_text`), or none at all.
        known = own if own in STYLES or known not in STYLES else known
    return text, known


def _activation(text: Config, style: Style) -> str:
    if style.acts == ("dense_act_fn",):  # T5 derives it from a name that says whether there is a gate as well
        name = text.text("feed_forward_proj", default="relu").removeprefix("gated-")
        return "gelu_new" if name == "gelu" else name
    for name in style.acts:
        *sections, last = name.split(".")
        place = _section(text, sections)
        if place is not None and last in place:
            return place.text(last)
    return style.activation


def _block(text: Config, model_type: str, style: Style) -> str:
    """Where norms stand, for the types whose configs choose."""
    if model_type == "gpt_neox" and not text.boolean("use_parallel_residual", default=True):
        return "sequential"
    if model_type.startswith("stablelm") and text.boolean("use_parallel_residual", default=False):
        return "parallel_shared_norm"
    if model_type == "opt" and not text.boolean("do_layer_norm_before", default=True):
        return "post"
    if model_type in ("bloom", "chatglm"):
        after = text.boolean("apply_residual_connection_post_layernorm", default=False)
        return "normed_residual" if after else style.block
    if model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        # RefinedWeb is the 40B's type before it was renamed; its config has no field for the new layout.
        if text.boolean("new_decoder_architecture", default=model_type == "RefinedWeb"):
            one = text.optional_integer("num_ln_in_parallel_attn") == 1
            return "parallel_shared_norm" if one else "parallel"
        return style.block if text.boolean("parallel_attn", default=True) else "sequential"
    return style.block


def _position_bias(text: Config, model_type: str, style: Style) -> str:
    if model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        return "alibi" if text.boolean("alibi", default=False) else "none"
    if model_type == "baichuan":
        rotary = text.integer("hidden_size", default=_BAICHUAN_ROTARY_HIDDEN) == _BAICHUAN_ROTARY_HIDDEN
        return "none" if rotary else "alibi"
    if model_type == "mpt":
        section = text.section("attn_config")
        return "alibi" if section is None or section.boolean("alibi", default=True) else "none"
    return style.position_bias


def _embedding_multiplier(text: Config, style: Style) -> float | None:
    if style.embeds.name.startswith("sqrt"):
        switch = style.embeds.name.partition(":")[2]
        if switch and not text.boolean(switch, default=False):
            return None
        return sqrt(text.integer("hidden_size", "d_model"))
    return _factor(text, style.embeds)


def _residual_multiplier(text: Config, style: Style) -> float | None:
    if style.residual.name == "depth":
        depth = sqrt(text.integer("num_hidden_layers"))
        return text.number("scale_depth", default=depth) / depth
    return _factor(text, style.residual)


def _logits_multiplier(text: Config, style: Style) -> float | None:
    factor = _factor(text, style.logits)
    if factor is None or not style.divides:
        return factor
    if factor == 0:
        raise BadInput(f"{text.where}: {style.logits.name!r} is 0, and logits are divided by it")
    return 1 / factor


def _factor(text: Config, where: Field) -> float | None:
    return _number(text, where) if where.name else None


def _router(text: Config, routing: Routing) -> Router:
    router = routing.router
    if "scoring_func" in text or "score_function" in text or "moe_router_activation_func" in text:
        score = text.text("scoring_func", "score_function", "moe_router_activation_func")
        router = replace(router, score=score)
    if routing.normalises:
        fields = (routing.normalises, "moe_renormalize")
        router = replace(router, normalised=text.boolean(*fields, default=router.normalised))
    if routing.corrects:
        router = replace(router, corrected=text.boolean(routing.corrects, default=router.corrected))
    groups = text.integer("n_group", "num_expert_group", default=1) or 1
    return replace(router, groups=groups, jitter=_number(text, Field(routing.jitters)))


def _number(text: Config, where: Field) -> float:
    """What a config's field says; a type without the field has its default, and `null` counts as absent."""
    if not where.name:
        return where.default
    *sections, last = where.name.split(".")
    place = _section(text, sections)
    if place is None or last not in place:
        # An explicit null switches off what is a cap, and no other field is ever null.
        return 0.0 if place is not None and last in place.fields else where.default
    return place.number(last)


def _section(text: Config, names: list[str]) -> Config | None:
    place: Config | None = text
    for name in names:
        place = place.section(name) if place is not None else None
    return place
