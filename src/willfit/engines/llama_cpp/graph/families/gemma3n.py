"""Gemma 3n: several streams of which a layer predicts and corrects each (`gemma3n.cpp`)."""

from __future__ import annotations

from collections.abc import Hashable

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.attention import attend
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.families.per_layer import per_layer_inputs, slice_of
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: Streams, width of a layer's own embeddings, layers at the start with sparse MLPs: the same in all models.
_STREAMS = 4
_OWN_WIDTH = 256
_SPARSE_LAYERS = 10


class Gemma3n(Decoder):
    """A decoder of the Gemma 3n kind."""

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        x = self.start()
        for _ in net.walk(self.trait):
            x = self.layer(x)
        x = net.get_rows(self._merged(x), self.rows)
        result = self.normed(x, "output_norm")
        net.finish(result, self.logits(result))

    def trait(self) -> Hashable:
        """See `Decoder.trait`."""
        mixer = self.net.attention()
        return self.net.layer < _SPARSE_LAYERS, isinstance(mixer, Attention) and mixer.shares_cache

    def start(self) -> Node:
        """See `Decoder.start`: the first stream is the embeddings, others are made from them."""
        net = self.net
        x = super().start()
        self.each = per_layer_inputs(net, x, _OWN_WIDTH)
        copies = net.repeat(x, net.hidden, net.batch.tokens, _STREAMS - 1, 1)
        return net.concat(x, self._as_long(net.mul_mat(net.weights["altup_proj.weight"], copies), x), 2)

    def _as_long(self, x: Node, like: Node) -> Node:
        """Vectors with the length of others."""
        net = self.net
        return net.div(net.mul(x, self._length(like)), self._length(x))

    def _length(self, x: Node) -> Node:
        return self.net.sqrt(self.net.sum_rows(self.net.sqr(x)))

    def _merged(self, x: Node) -> Node:
        """The mean of all streams."""
        net = self.net
        others = net.mul_mat(net.weights["altup_unembd_proj.weight"], self._rest(x))
        others = self._as_long(others, slice_of(net, x, 0))
        y = slice_of(net, x, 0)
        for index in range(_STREAMS - 1):
            y = net.add(y, slice_of(net, others, index))
        return net.scale(y)

    def _rest(self, x: Node) -> Node:
        """All streams but the first."""
        size = x.ne[0] * x.ne[1] * x.nb[0]
        return self.net.view(x, (x.ne[0], x.ne[1], _STREAMS - 1), (x.nb[1], size), size)

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        guess = self._predicted(x)
        active = slice_of(net, guess, 0)
        given = self.normed(active, "attn_norm")
        low = net.linear(net.needed("laurel_r.weight"), net.linear(net.needed("laurel_l.weight"), given))
        low = net.add(self.normed(low, "laurel_post_norm"), given)
        y = net.add(self.normed(self.attention(given), "post_attention_norm"), active)
        middle = net.scale(net.add(y, low))
        y = self.normed(self.feed_forward(self.normed(middle, "ffn_norm")), "post_ffw_norm", pinned=False)
        right = self._corrected(guess, net.add(y, middle))
        first = net.mul(slice_of(net, right, 0), net.needed("altup_correct_scale.weight"))
        first = net.unary("gelu", net.linear(net.needed("inp_gate.weight"), first))
        first = net.mul(first, slice_of(net, self.each, net.layer))
        first = self.normed(net.linear(net.needed("proj.weight"), first), "post_norm")
        return net.concat(slice_of(net, right, 0), net.add(self._rest(right), first), 2)

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net = self.net
        mixer = net.attention()
        assert isinstance(mixer, Attention)
        if not mixer.shares_cache:
            q, k, v = self.projections(x)
            q, k = net.rope(q, self.positions), net.rope(k, self.positions)
            return attend(net, self.inputs.of(net), q, k, net.rms_norm(v))
        fused = net.weight("attn_qkv.weight")
        if fused is None:
            q = net.projected("attn_q", x)
        else:
            y = net.linear(fused, x)
            q = net.cont(net.view(y, (mixer.head_dim * mixer.heads, x.ne[1]), y.nb[1:2]))
        q = self.normed_head(net.reshape(q, mixer.head_dim, mixer.heads, x.ne[1]), "q")
        return attend(net, self.inputs.of(net), net.rope(q, self.positions), None, None)

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`: the first layers keep the largest of what opens the gates."""
        net = self.net
        up = net.linear(net.needed("ffn_up.weight"), x)
        gate = net.linear(net.needed("ffn_gate.weight"), x)
        if net.layer < _SPARSE_LAYERS:
            mean = net.mean(gate)
            spread = net.sqrt(net.scale(net.sum_rows(net.sqr(net.sub(gate, mean)))))
            gate = net.unary("relu", net.sub(gate, net.add(mean, net.scale(spread))))
        return net.linear(net.needed("ffn_down.weight"), net.mul(up, net.unary("gelu", gate)))

    def _modalities(self, x: Node) -> Node:
        net = self.net
        y = net.scale(self.normed(x, "altup_router_norm"))
        return net.unary("tanh", net.mul_mat(net.needed("altup_router.weight"), y))

    def _predicted(self, x: Node) -> Node:
        """What the layer expects of each stream."""
        net = self.net
        factors = net.linear(net.needed("altup_predict_coef.weight"), self._modalities(slice_of(net, x, 0)))
        factors = net.reshape(factors, _STREAMS, _STREAMS, net.batch.tokens)
        y = net.mul_mat(net.cont(net.permute(x, 1, 2, 0, 3)), factors)
        return net.add(net.cont(net.permute(y, 0, 2, 1, 3)), x)

    def _corrected(self, guess: Node, found: Node) -> Node:
        """The streams after what the layer has found in one of them."""
        net = self.net
        factors = self._modalities(found)
        news = net.sub(found, slice_of(net, guess, 0))
        factors = net.scale(net.linear(net.needed("altup_correct_coef.weight"), factors))
        factors = net.cont(net.transpose(factors), 1, net.batch.tokens, _STREAMS)
        news = net.repeat(news, net.hidden, net.batch.tokens, _STREAMS, 1)
        return net.add(net.mul(news, factors), guess)


def build(net: Network) -> None:
    """The graph of a Gemma 3n model."""
    Gemma3n(net, Style(start="scaled", softcap="always")).build()
