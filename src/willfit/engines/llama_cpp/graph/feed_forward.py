"""Feed-forward parts of layers: dense and experts (`llama-graph.cpp: build_ffn, build_moe_ffn`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import EXACT, Node

#: Activations that are gated by a second projection in one operation, by the name of the plain one.
_GATED = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu", "swiglu_oai": "swiglu_oai"}
_SEVERAL_OPERATIONS = frozenset(("silu", "gelu", "relu"))
#: `llama_expert_gating_func_type`.
_GATINGS = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}
#: So many experts are added up by ordinary additions in ik_llama.cpp.
_FEW_EXPERTS = 2
#: Limits of activations below this are none.
_LEAST_LIMIT = 1e-6

#: Architectures whose graphs apply the scales of weights in feed-forward layers; others leave them out.
_SCALED = frozenset((
    "llama", "llama-embed", "qwen3", "nanbeige", "mistral3", "cohere2", "cohere2moe", "hy_v3", "bitnet", "gemma4",
    "talkie",
))  # fmt: skip
_SCALED_EXPERTS = frozenset((
    "llama", "llama-embed", "qwen3moe", "mistral3", "mellum", "hy_v3", "cohere2moe", "gemma4",
))  # fmt: skip
#: Architectures whose experts' last product must not round its rows.
_EXACT = frozenset(("mistral4",))
#: Architectures that limit gated activations in one operation.
_LIMITS_AT_ONCE = frozenset(("deepseek4", "glm5-next"))
_LIMITS_EXPERTS_AT_ONCE = _LIMITS_AT_ONCE | {"maple", "hy_v4"}


def dense(
    net: Network,
    x: Node,
    activation: str = "silu",
    suffix: str = "",
    parallel: bool = True,
    fused: str = "",
    down: bool = True,
) -> Node:
    """The MLP of the current layer.

    Parameters
    ----------
    activation
        `silu`, `gelu`, `relu`, `relu_sqr`.
    suffix
        `_shexp` for the shared experts.
    parallel
        The gate reads what the up projection reads, not its result.
    fused
        `swiglu` or `geglu` where gate and up are one matrix.
    down
        Whether the last projection follows.
    """
    up_name, gate_name = f"ffn_up{suffix}", f"ffn_gate{suffix}"
    if net.era.fuses_dense and parallel and activation in _SEVERAL_OPERATIONS:
        both = [net.weight(f"{name}.weight") for name in (up_name, gate_name)]
        if both[0] is not None and both[1] is not None and net.bias(up_name) is None:
            y = net.up_gate(activation, both[0], both[1], x)
            return _linear(net, f"ffn_down{suffix}", y) if down else y
    up = _linear(net, up_name, x) if net.weight(f"{up_name}.weight") is not None else x
    gate = net.weight(f"{gate_name}.weight")
    y = up if gate is None else _linear(net, gate_name, x if parallel else up)
    gated = gate is not None and parallel
    if fused:
        y = net.glu(fused, y) if net.era.gates_at_once else _halves(net, y, fused)
    elif gated and activation == "silu" and net.value("swiglu_clamp_shexp") > _LEAST_LIMIT:
        y = _limited(net, y, up, net.meta.architecture in _LIMITS_AT_ONCE)
    elif gated and activation in _GATED and net.era.gates_at_once:
        y = net.glu(_GATED[activation], y, up)
    elif gated and activation in _SEVERAL_OPERATIONS and net.era.fuses_gates:
        y = net.gated(activation, y, up)
    else:
        y = activated(net, y, activation)
        divisors = net.weight("ffn.act.scales")
        if divisors is not None and activation == "gelu":
            y = net.div(y, divisors)
        if gated:
            y = net.mul(y, up)
    if net.era.gates_early:
        net.expand(y)
    return _linear(net, f"ffn_down{suffix}", y) if down else y


def _linear(net: Network, stem: str, x: Node) -> Node:
    """A linear layer with its bias, and then its scale."""
    y = net.linear(net.needed(f"{stem}.weight"), x)
    bias = net.bias(stem)
    if bias is not None:
        y = net.add(y, bias)
    scale = net.weight(f"{stem}.scale") if net.meta.architecture in _SCALED else None
    return net.mul(y, scale) if scale is not None else y


def _limited(net: Network, gate: Node, up: Node, at_once: bool) -> Node:
    """A gated activation with limits to both sides, in one operation or in several."""
    if at_once:
        return net.glu("swiglu_clamp", gate, up)
    up = net.clamp(up)
    return net.mul(net.clamp(net.unary("silu", gate)), up)


def gating(net: Network, default: str) -> str:
    """How the file says that scores of experts become probabilities."""
    return _GATINGS.get(net.meta.integer("expert_gating_func", 0), default)


def normalises(net: Network) -> bool:
    """Whether the file says that the weights of the chosen experts sum to one."""
    return net.meta.boolean("expert_weights_norm", False)


def _halves(net: Network, x: Node, fused: str) -> Node:
    """A gated activation of two halves as older builds compute it: each half is copied."""
    width = x.ne[0] // 2
    gate = net.cont(net.view(x, (width, x.ne[1]), (x.nb[1],)))
    up = net.cont(net.view(x, (width, x.ne[1]), (x.nb[1],), width * x.nb[0]))
    plain = next(name for name, gated in _GATED.items() if gated == fused)
    return net.mul(net.unary(plain, gate), up)


def activated(net: Network, x: Node, activation: str) -> Node:
    """An activation without a gate; `relu_sqr` is the square of `relu`."""
    return net.sqr(net.unary("relu", x)) if activation == "relu_sqr" else net.unary(activation, x)


def situ(net: Network, gate: Node, up: Node) -> Node:
    """Kimi-K3's gated activation: soft limits to both sides."""
    y = net.mul(net.capped(gate), net.unary("sigmoid", gate))
    return net.mul(y, net.capped(up) if net.value("activation.situ_linear_beta") > 0 else up)


def experts(
    net: Network,
    x: Node,
    gating: str = "softmax",
    normalised: bool = True,
    activation: str = "silu",
    scores: Node | None = None,
    stem: str = "exps",
    scaled: bool | None = None,
    used: int | None = None,
    count: int | None = None,
    selected: Node | None = None,
) -> Node:
    """The routed experts of the current layer.

    Parameters
    ----------
    gating
        How scores become probabilities: `softmax`, `sigmoid`, `softmax_weight` (over the chosen ones), `sqrt_softplus`.
    normalised
        Whether the weights of the chosen experts are made to sum to one.
    scores
        The router's scores, if they come from elsewhere.
    stem
        Ending of the experts' tensor names.
    scaled
        Whether the weights are multiplied by a constant; None for what the file says.
    used, count
        How many experts a token has, of how many; None for what the file says.
    selected
        Which experts a token has, if that is known without its scores.
    """
    hidden, tokens = x.ne[0], x.ne[1]
    meta = net.meta
    early = meta.architecture == "llama4"  # tokens are weighted before the experts
    if scores is None:
        scores = net.linear(net.needed("ffn_gate_inp.weight"), x)
    bias = net.weight("ffn_gate_inp.bias")
    if bias is not None:
        scores = net.add(scores, bias)
    total = scores.ne[0]
    count = count if count is not None else total
    used = used if used is not None else meta.integer("expert_used_count", layer=net.layer)
    probs = {
        "softmax": lambda: net.soft_max(scores),
        "sigmoid": lambda: net.unary("sigmoid", scores),
        "softmax_weight": lambda: scores,
        "sqrt_softplus": lambda: net.sqrt(net.unary("softplus", scores)),
    }[gating]()
    chosen_by = probs
    correction = net.weight("exp_probs_b.bias") or net.weight("exp_probs_b")
    if correction is not None and selected is None:
        chosen_by = net.add(probs, correction)
    if early:
        chosen_by = scores
    if meta.architecture == "grovemoe":
        chosen_by = net.unary("sigmoid", scores)
    groups = meta.integer("expert_group_count", 0)
    if groups > 1 and net.era.groups_experts:
        chosen_by = _in_best_groups(net, chosen_by, count, groups, tokens)
    if selected is None:
        selected = net.argsort_top_k(chosen_by, used)
    if count != total:
        selected = net.cast(net.scale(net.cast(selected, "F32")), "I32")
    probs = net.reshape(probs, 1, total, tokens)
    weights = net.get_rows(probs, selected)
    if net.era.weights_early:
        net.expand(weights)
    if gating == "softmax_weight":
        weights = net.soft_max(net.reshape(weights, used, tokens))
        weights = net.reshape(weights, 1, used, tokens)
    if normalised:
        flat = net.reshape(weights, used, tokens)
        summed = net.sum_rows(flat)
        if net.era.clamps_expert_sum:
            summed = net.clamp(summed)
        weights = net.reshape(net.div(flat, summed), 1, used, tokens)
    if net.value("expert_weights_scale") not in (0.0, 1.0) if scaled is None else scaled:
        weights = net.scale(weights)
    if net.era.loops_experts and not early:
        return _one_by_one(net, x, selected, weights, activation, stem)
    if net.era.weights_first:
        net.expand(weights)
    y = net.reshape(x, hidden, 1, tokens)
    if early:
        y = net.mul(net.repeat(y, hidden, used, tokens, 1), weights)
    y = _inner(net, y, selected, activation, stem)
    y = _through(net, f"ffn_down_{stem}", y, selected)
    if net.era.sums_experts == "weighted" and not early:
        return net.multi_add(y, weights)
    if not early:
        y = net.mul(y, weights)
    if net.era.sums_experts and used > _FEW_EXPERTS:
        return net.multi_add(y)
    if net.era.orders_experts:
        net.expand(y)
    return _summed(net, y, used)


def _one_by_one(net: Network, x: Node, selected: Node, weights: Node, activation: str, stem: str) -> Node:
    """The chosen experts' sum, computed one expert of each token after the other."""
    gate, up, down = (net.needed(f"ffn_{name}_{stem}.weight") for name in ("gate", "up", "down"))
    used, tokens = selected.ne[0], x.ne[1]
    flat = net.reshape(weights, used, tokens)
    total: Node | None = None
    for index in range(used):
        y = net.mul_mat_one(up, x, selected)
        y = net.mul(y, net.unary(activation, net.mul_mat_one(gate, x, selected)))
        y = net.mul_mat_one(down, y, selected)
        y = net.mul(y, net.view(flat, (1, tokens), flat.nb[1:2], index * flat.nb[0]))
        total = y if total is None else net.add(total, y)
    assert total is not None
    return total


def _in_best_groups(net: Network, scores: Node, count: int, groups: int, tokens: int) -> Node:
    """Scores with those outside of the best groups of experts masked."""
    used = net.meta.integer("expert_group_used_count", 1)
    grouped = net.reshape(scores, count // groups, groups, tokens)
    best = net.argsort_top_k(grouped, 2)
    each = net.get_rows(net.reshape(grouped, 1, *grouped.ne[:3]), best)
    total = net.sum_rows(net.reshape(each, each.ne[1], each.ne[2], each.ne[3]))
    total = net.reshape(total, total.ne[1], total.ne[2])
    chosen = net.argsort_top_k(total, used)
    kept = net.get_rows(grouped, chosen)
    masked = net.set_rows(net.fill(grouped), kept, chosen)
    return net.reshape(masked, count, tokens)


def _through(net: Network, stem: str, x: Node, selected: Node) -> Node:
    """The linear layers of the chosen experts, with scales and biases if they have them."""
    exact = net.meta.architecture in _EXACT and stem.startswith("ffn_down")
    y = net.mul_mat_id(net.needed(f"{stem}.weight"), x, selected, EXACT if exact else "")
    scaled = net.meta.architecture in _SCALED_EXPERTS
    scale = net.weight(f"{stem.replace('_gate_up', '_up')}.scale") if scaled else None
    if scale is not None:
        count, tokens = scale.ne[0], x.ne[2]
        rows = net.repeat(net.reshape(scale, 1, count, 1), 1, count, tokens, 1)
        y = net.mul(y, net.get_rows(rows, selected))
    bias = net.weight(f"{stem}.bias")
    return net.add_id(y, bias, selected) if bias is not None else y


def _inner(net: Network, x: Node, selected: Node, activation: str, stem: str) -> Node:
    if net.weight(f"ffn_gate_up_{stem}.weight") is not None:
        both = _through(net, f"ffn_gate_up_{stem}", x, selected)
        width = both.ne[0] // 2
        shape = (width, both.ne[1], both.ne[2])
        gate = net.view(both, shape, both.nb[1:3])
        up = net.view(both, shape, both.nb[1:3], width * both.nb[0])
        return net.glu(_GATED[activation], gate, up)
    up_weight, gate_weight = (net.weight(f"ffn_{name}_{stem}.weight") for name in ("up", "gate"))
    fused = net.batch.fused_experts and activation in _GATED
    if fused and up_weight is not None and gate_weight is not None and up_weight.type == gate_weight.type:
        return net.up_gate_id(activation, up_weight, gate_weight, x, selected)
    up = _through(net, f"ffn_up_{stem}", x, selected)
    if net.weight(f"ffn_gate_{stem}.weight") is None:
        return activated(net, up, activation)
    gate = _through(net, f"ffn_gate_{stem}", x, selected)
    if net.era.products_apart:
        net.expand(up)
        net.expand(gate)
    if activation == "situ":
        return situ(net, gate, up)
    if activation == "silu" and net.value("swiglu_clamp_exp") > _LEAST_LIMIT:
        return _limited(net, gate, up, net.meta.architecture in _LIMITS_EXPERTS_AT_ONCE)
    if net.era.fuses_gates and activation in _SEVERAL_OPERATIONS:
        return net.gated(activation, gate, up)
    if not net.era.gates_at_once and activation in _SEVERAL_OPERATIONS:
        return net.mul(net.unary(activation, gate), up)
    return net.glu(_GATED[activation], gate, up)


def _summed(net: Network, y: Node, used: int) -> Node:
    """The sum over the chosen experts."""
    parts = [net.view(y, (y.ne[0], y.ne[2]), (y.nb[2],), index * y.nb[1]) for index in range(used)]
    ordered = net.era.orders_experts
    for part in parts if ordered else ():
        net.expand(part)
    total = parts[0]
    for part in parts[1:]:
        total = net.add(total, part)
        if ordered and not net.era.gates_early:
            net.expand(total)
    return net.cont(total) if used == 1 else total
