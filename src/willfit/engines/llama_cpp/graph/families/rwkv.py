"""RWKV-6 and RWKV-7, and Qwen's models with their attention (`rwkv6-base.cpp`, `rwkv7-base.cpp`, `rwkv6.cpp`, ...)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import kept, state_inputs, store, tokens_of_each
from willfit.engines.llama_cpp.graph.tensor import Node

#: What each token's mixed inputs are for, in the order of the fused weights.
_SIXTH = ("w", "k", "v", "r", "g")
_SEVENTH = ("r", "w", "k", "v", "a", "g")


class Rwkv(Decoder):
    """A layer mixes over time, then over channels; both see the token before."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.states = state_inputs(net)
        self.width = net.meta.integer("wkv.head_size")
        self.count = net.hidden // self.width

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        x = net.reshape(x, net.hidden, tokens_of_each(net), net.batch.sequences)
        before = self.before()
        two = before.ne[1] > 1
        first = self.token(before, 0) if two else before
        given = self.normed(x, "attn_norm")
        y = self.time_mix(given, self.shifted(first, given))
        if not two:
            self.keep(self.last(given))
            middle = self.flat(net.add(y, x))
            if net.is_last:
                middle = net.get_rows(middle, self.rows)
            return net.add(self.feed_forward(self.normed(middle, "ffn_norm")), middle)
        middle = net.add(y, x)
        second = self.normed(middle, "attn_norm_2")
        earlier = self.shifted(self.token(before, 1), second)
        self.keep(net.concat(self.last(given), self.last(second), 1))
        middle, second, earlier = (self.flat(one) for one in (middle, second, earlier))
        if net.is_last:
            middle, second, earlier = (net.get_rows(one, self.rows) for one in (middle, second, earlier))
        y = net.add(self.channel_mix(second, earlier), middle)
        every = net.meta.integer("rescale_every_n_layers", 0)
        return net.scale(y) if every and (net.layer + 1) % every == 0 else y

    # Tokens before

    def before(self) -> Node:
        """What the layer read of the last token before the batch: width x parts x sequences."""
        net = self.net
        cache = net.cache.r
        assert cache is not None
        found = kept(net, self.states, cache)
        return net.reshape(found, net.hidden, cache.ne[0] // net.hidden, net.batch.sequences)

    def token(self, x: Node, index: int) -> Node:
        """One token of each sequence."""
        return self.net.view(x, (x.ne[0], 1, x.ne[2]), x.nb[1:3], index * x.nb[1])

    def last(self, x: Node) -> Node:
        """The last token of each sequence."""
        return self.token(x, x.ne[1] - 1)

    def shifted(self, before: Node, x: Node) -> Node:
        """What was read of the token before each token."""
        net = self.net
        return net.concat(before, net.view(x, (x.ne[0], x.ne[1] - 1, x.ne[2]), x.nb[1:3]), 1)

    def keep(self, x: Node) -> None:
        """Keep what was read of the last token."""
        net = self.net
        cache = net.cache.r
        assert cache is not None
        count = cache.ne[0] * net.batch.sequences
        net.expand(net.cpy(net.view(x, (count,)), net.view(cache, (count,))))

    def flat(self, x: Node) -> Node:
        """All sequences' tokens."""
        return self.net.reshape(x, x.ne[0], self.net.batch.tokens)

    # Mixers

    def time_mix(self, x: Node, earlier: Node) -> Node:
        """Attention's place."""
        raise NotImplementedError

    def channel_mix(self, x: Node, earlier: Node) -> Node:
        """The MLP's place."""
        raise NotImplementedError

    def through(self, stem: str, x: Node) -> Node:
        """A linear layer."""
        return self.net.linear(self.net.needed(f"{stem}.weight"), x)

    def heads(self, x: Node) -> Node:
        """Width x heads x tokens."""
        return self.net.reshape(x, self.width, self.count, self.net.batch.tokens)

    def mixed(self, x: Node, difference: Node, name: str) -> Node:
        """What channels read of a token and the one before."""
        net = self.net
        return net.add(net.mul(difference, net.needed(f"channel_mix_lerp_{name}.weight")), x)

    def outputs(self, y: Node) -> Node:
        """What an operation on states gives; its new states are kept."""
        net = self.net
        size = net.hidden * net.batch.tokens
        out = net.view(y, (size,))
        store(net, net.view(y, (net.hidden * self.width * net.batch.sequences,), (), size * y.nb[0]))
        return out

    def normed_heads(self, x: Node) -> Node:
        """Each head normed, with weights for all of them if the model has them."""
        net = self.net
        weight = net.weight("time_mix_ln.weight")
        bias = net.bias("time_mix_ln")
        if weight is None or bias is None:
            return net.reshape(x, net.hidden, net.batch.tokens)
        x = net.reshape(net.norm(self.heads(x)), net.hidden, net.batch.tokens)
        return net.add(net.mul(x, weight), bias)


class Sixth(Rwkv):
    """RWKV-6, and QRWKV, which has gated linear attention in its place."""

    def time_mix(self, x: Node, earlier: Node) -> Node:
        """See `Rwkv.time_mix`."""
        net = self.net
        bonus = net.weight("time_mix_first.weight")
        inputs = self.read(x, earlier)
        r, k, v = (self.projected(name, inputs[name[0]]) for name in ("receptance", "key", "value"))
        gate = net.unary(
            "silu" if bonus is not None else "sigmoid", self.through("time_mix_gate", inputs["g"])
        )
        kv_heads = net.meta.integer("attention.head_count_kv", 0)
        if kv_heads not in (0, self.count):
            k, v = self.repeated(k, kv_heads), self.repeated(v, kv_heads)
        k, v, r = self.heads(k), self.heads(v), self.heads(r)
        w = net.unary("tanh", net.mul_mat(net.needed("time_mix_decay_w1.weight"), inputs["w"]))
        w = net.add(
            net.mul_mat(net.needed("time_mix_decay_w2.weight"), w), net.needed("time_mix_decay.weight")
        )
        w = self.heads(net.unary("exp", net.unary("neg", net.unary("exp", w))))
        if bonus is None:
            k = net.sub(k, net.mul(k, w))
        assert net.cache.s is not None
        state = kept(net, self.states, net.cache.s)
        if bonus is None:
            y = self.outputs(net.linear_state("gated_linear_attn", k, state, [k, v, r, w, state]))
            y = net.reshape(y, net.hidden, net.batch.tokens)
        else:
            y = self.outputs(net.linear_state("rwkv_wkv6", k, state, [k, v, r, bonus, w, state]))
            y = self.normed_heads(y)
        y = self.through("time_mix_output", net.mul(y, gate))
        return net.reshape(y, *x.ne[:3])

    def read(self, x: Node, earlier: Node) -> dict[str, Node]:
        """What each projection reads of a token and the one before."""
        net = self.net
        width, tokens = net.hidden, net.batch.tokens
        difference = self.flat(net.sub(earlier, x))
        x = self.flat(x)
        y = net.add(net.mul(difference, net.needed("time_mix_lerp_x.weight")), x)
        down, up = net.needed("time_mix_w1.weight"), net.needed("time_mix_w2.weight")
        count = len(_SIXTH)
        y = net.reshape(net.unary("tanh", net.mul_mat(down, y)), down.ne[1] // count, 1, count, tokens)
        y = net.cont(net.permute(y, 0, 1, 3, 2))
        y = net.mul_mat(net.reshape(up, up.ne[0], up.ne[1], 1, count), y)
        fused = net.weight("time_mix_lerp_fused.weight")
        if fused is not None:
            difference, x = net.reshape(difference, width, 1, tokens), net.reshape(x, width, 1, tokens)
            y = net.add(net.mul(net.add(y, fused), difference), x)
        parts = {
            name: net.view(y, (width, tokens), y.nb[1:2], index * width * tokens * y.nb[0])
            for index, name in enumerate(_SIXTH)
        }
        if fused is not None:
            return parts
        return {
            name: net.add(net.mul(net.add(part, net.needed(f"time_mix_lerp_{name}.weight")), difference), x)
            for name, part in parts.items()
        }

    def projected(self, name: str, x: Node) -> Node:
        """Receptance, keys or values."""
        y = self.through(f"time_mix_{name}", x)
        bias = self.net.bias(f"time_mix_{name}")
        return self.net.add(y, bias) if bias is not None else y

    def repeated(self, x: Node, count: int) -> Node:
        """Keys or values of groups of heads for each of them."""
        net, tokens = self.net, self.net.batch.tokens
        x = net.reshape(x, self.width, 1, count, tokens)
        return net.repeat(x, self.width, self.count // count, count, tokens)

    def channel_mix(self, x: Node, earlier: Node) -> Node:
        """See `Rwkv.channel_mix`."""
        net = self.net
        difference = net.sub(earlier, x)
        k, r = self.mixed(x, difference, "k"), self.mixed(x, difference, "r")
        r = net.unary("sigmoid", self.through("channel_mix_receptance", r))
        k = net.sqr(net.unary("relu", self.through("channel_mix_key", k)))
        return net.mul(r, self.through("channel_mix_value", k))


class Seventh(Rwkv):
    """RWKV-7, and ARWKV."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.first_values: Node | None = None

    def time_mix(self, x: Node, earlier: Node) -> Node:
        """See `Rwkv.time_mix`."""
        net = self.net
        gates = net.weight("time_mix_g1.weight") is not None and net.weight("time_mix_g2.weight") is not None
        inputs = self.read(x, earlier, gates)
        r = self.through("time_mix_receptance", inputs["r"])
        w = self.through("time_mix_w2", net.unary("tanh", self.through("time_mix_w1", inputs["w"])))
        w = net.unary("sigmoid", net.add(w, net.needed("time_mix_w0.weight")))
        w = net.unary("exp", net.scale(w))
        k, v = self.through("time_mix_key", inputs["k"]), self.values(inputs["v"])
        gate = None
        if gates:
            gate = net.unary("sigmoid", self.through("time_mix_g1", inputs["g"]))
            gate = self.through("time_mix_g2", gate)
        a = self.learned("a", inputs["a"])
        removed = net.l2_norm(self.heads(net.mul(k, net.needed("time_mix_k_k.weight"))))
        scaled = net.mul(k, net.needed("time_mix_k_a.weight"))
        k = net.add(k, net.sub(net.mul(a, scaled), scaled))
        r, w, k, v, a = (self.heads(one) for one in (r, w, k, v, a))
        assert net.cache.s is not None
        state = kept(net, self.states, net.cache.s)
        sources = [r, w, k, v, net.unary("neg", removed), net.mul(removed, a), state]
        y = self.normed_heads(self.outputs(net.linear_state("rwkv_wkv7", k, state, sources)))
        bonus = net.reshape(net.needed("time_mix_r_k.weight"), self.width, self.count)
        bonus = net.sum_rows(net.mul(net.mul(k, r), bonus))
        y = net.add(y, net.reshape(net.mul(v, bonus), net.hidden, net.batch.tokens))
        if gate is not None:
            y = net.mul(y, gate)
        return net.reshape(self.through("time_mix_output", y), *x.ne[:3])

    def read(self, x: Node, earlier: Node, gates: bool) -> dict[str, Node]:
        """What each projection reads of a token and the one before."""
        net = self.net
        names = _SEVENTH if gates else _SEVENTH[:-1]
        difference = net.repeat(net.sub(earlier, x), *x.ne[:3], len(names))
        y = net.add(net.mul(difference, net.needed("time_mix_lerp_fused.weight")), x)
        shape = (net.hidden, net.batch.tokens)
        step = shape[0] * shape[1] * y.nb[0]
        return {name: net.view(y, shape, y.nb[1:2], index * step) for index, name in enumerate(names)}

    def learned(self, name: str, x: Node) -> Node:
        """A rate for each channel."""
        net = self.net
        y = self.through(f"time_mix_{name}2", self.through(f"time_mix_{name}1", x))
        return net.unary("sigmoid", net.add(y, net.needed(f"time_mix_{name}0.weight")))

    def values(self, x: Node) -> Node:
        """Values with part of those of the first layer."""
        net = self.net
        v = self.through("time_mix_value", x)
        if self.first_values is None:
            self.first_values = v
            return v
        return net.add(v, net.mul(net.sub(self.first_values, v), self.learned("v", x)))

    def channel_mix(self, x: Node, earlier: Node) -> Node:
        """See `Rwkv.channel_mix`."""
        net = self.net
        k = self.mixed(x, net.sub(earlier, x), "k")
        k = net.sqr(net.unary("relu", self.through("channel_mix_key", k)))
        return self.through("channel_mix_value", k)


def build(net: Network) -> None:
    """The graph of one of these models."""
    builders: dict[str, tuple[type[Rwkv], Style]] = {
        "rwkv6": (Sixth, Style(norm="norm")),
        "rwkv6qwen2": (Sixth, Style()),
        "rwkv7": (Seventh, Style(norm="norm")),
        "arwkv7": (Seventh, Style()),
    }
    kind, style = builders[net.meta.architecture]
    kind(net, style).build()
