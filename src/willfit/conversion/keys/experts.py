"""Metadata of MLPs and of mixtures of experts."""

from __future__ import annotations

from willfit.conversion.keys.source import Keys, Source, first_positive, scalar_or_list

#: The width of an expert is `feed_forward_length`, for there is no other MLP.
_ONE_WIDTH = frozenset(
    {
        "arctic", "dbrx", "granite", "granitehybrid", "granitemoe", "jamba", "llama", "minimax-01", "olmoe", "phimoe",
    }
)  # fmt: skip
#: Told how many shared experts there are.
_SHARED_COUNT = frozenset(
    {
        "afmoe", "bailingmoe", "bailingmoe2", "bailingmoe3", "deepseek", "deepseek2", "deepseek2-ocr", "deepseek32",
        "deepseek4", "dots1", "ernie4_5-moe", "exaone-moe", "glm-dsa", "glm4moe", "glm5-next", "hunyuan-moe", "kimi-k3",
        "kimi-linear", "minimax-m3", "mistral4", "nemotron_h_moe",
    }
)  # fmt: skip
#: Told how wide the shared experts are together.
_SHARED_WIDTH = frozenset(
    {
        "bailingmoe2", "bailingmoe3", "ernie4_5-moe", "exaone-moe", "granite", "granitehybrid", "granitemoe",
        "hunyuan-moe", "hy_v3", "laguna", "nemotron_h_moe", "qwen2moe", "qwen35moe", "qwen3next", "qwen4exp", "step35",
    }
)  # fmt: skip
#: Told how many of the first layers have an MLP instead.
_LEADING_DENSE = frozenset(
    {
        "afmoe", "bailingmoe", "bailingmoe2", "bailingmoe3", "deepseek", "deepseek2", "deepseek2-ocr", "deepseek32",
        "dots1", "ernie4_5-moe", "exaone-moe", "glm-dsa", "glm4moe", "glm5-next", "kimi-k3", "kimi-linear", "laguna",
        "lfm2moe", "minimax-m3", "mistral4", "step35",
    }
)  # fmt: skip
#: Widths of MLPs for each layer, 0 where it has none.
_WIDTH_BY_LAYER = frozenset({"deci", "nemotron_h", "nemotron_h_moe"})

#: What scores become weights by (`llama_expert_gating_func_type`).
_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
#: Always by sigmoid, whatever the config says.
_SIGMOID = frozenset(
    {
        "bailingmoe2", "bailingmoe3", "dots1", "exaone-moe", "glm4moe", "hy_v3", "kimi-k3", "kimi-linear", "laguna",
        "lfm2moe", "mimo2", "minimax-m2", "minimax-m3",
    }
)  # fmt: skip


def mlp_keys(source: Source) -> Keys:
    """Widths of MLPs and experts, how many experts there are and a token uses."""
    keys: Keys = {}
    dense = source.widths("ffn_down.weight")
    routed = source.widths("ffn_down_exps.weight")
    config = source.config
    stated = config.raw(
        "prefix_dense_intermediate_size",
        "dense_intermediate_size",
        "intermediate_size",
        "n_inner",
        "hidden_dim",
    )
    if source.name in _WIDTH_BY_LAYER:
        keys["feed_forward_length"] = tuple(one or other for one, other in zip(dense, routed, strict=True))
    elif source.name == "llama4":
        keys["feed_forward_length"] = source.config.integer(
            "intermediate_size_mlp", default=first_positive(dense)
        )
    elif source.name == "qwen":  # counts gate and up together
        keys["feed_forward_length"] = 2 * first_positive(dense)
    elif source.name in _ONE_WIDTH and any(routed):
        keys["feed_forward_length"] = first_positive(routed)
    elif any(dense):
        own = dense if source.name == "gemma4" else [width for width in dense if width]
        keys["feed_forward_length"] = scalar_or_list(own)
    elif isinstance(stated, int):
        keys["feed_forward_length"] = 0 if source.name in ("mamba", "mamba2") else stated
    else:
        keys["feed_forward_length"] = first_positive(routed)
    feed = [layer.feed_forward for layer in source.architecture.layers if layer.feed_forward]
    experts = max((one.experts for one in feed), default=0)
    if not experts:
        return keys | _without_experts(source, first_positive(dense))
    keys["expert_count"] = experts
    keys["expert_used_count"] = scalar_or_list([one.top_k for one in feed if one.experts])
    return keys | _expert_keys(source, experts, routed)


def _without_experts(source: Source, width: int) -> Keys:
    """What architectures with experts say of a model that has none."""
    if source.name == "granitehybrid":
        return {"expert_shared_feed_forward_length": width}
    if source.name == "deepseek2":
        return {
            "expert_feed_forward_length": width,
            "expert_shared_count": 0,
            "leading_dense_block_count": len(source.written.layers),
        }
    return {}


def _expert_keys(source: Source, experts: int, routed: tuple[int, ...]) -> Keys:
    name, config = source.name, source.config
    keys: Keys = {}
    width, shared = first_positive(routed), first_positive(source.widths("ffn_down_shexp.weight"))
    if name not in _ONE_WIDTH:
        keys["expert_feed_forward_length"] = width
    if name in _SHARED_COUNT:
        stated = config.raw(
            "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"
        )
        count = stated if isinstance(stated, int) else shared // width if width else 0
        keys["expert_shared_count"] = count
    if name in _SHARED_WIDTH:
        keys["expert_shared_feed_forward_length"] = shared
    if name in _LEADING_DENSE:
        keys["leading_dense_block_count"] = next((index for index, one in enumerate(routed) if one), 0)
    if name in ("llama4", "ernie4_5-moe"):
        places = [index for index, one in enumerate(routed) if one]
        step = places[1] - places[0] if len(places) > 1 else 1
        keys["interleave_moe_layer_step"] = step
    groups = config.optional_integer("n_group")
    if groups and groups < experts:
        keys["expert_group_count"] = groups
        if used := config.optional_integer("topk_group"):
            keys["expert_group_used_count"] = used
    scoring = config.raw("score_function", "scoring_func", "score_func", "moe_router_activation_func")
    if name in _SIGMOID:
        scoring = "sigmoid"
    if isinstance(scoring, str) and scoring in _GATING:
        keys["expert_gating_func"] = _GATING[scoring]
    scale = config.raw(
        "routed_scaling_factor", "route_scale", "moe_routed_scaling_factor", "moe_router_scaling_factor"
    )
    if isinstance(scale, int | float):
        keys["expert_weights_scale"] = float(scale)
    normed = config.raw("norm_topk_prob", "route_norm")
    if isinstance(normed, bool):
        keys["expert_weights_norm"] = normed
    return keys
