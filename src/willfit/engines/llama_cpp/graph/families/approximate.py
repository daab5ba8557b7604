"""Models whose graph nobody here has read: layers of the usual order, with whatever matrices their files have.

All of a layer's projections are alive at once, its attention is the usual one, and its experts are routed as usual. It
is an order of magnitude, and answers that use it say so.
"""

from __future__ import annotations

from math import prod

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.engines.llama_cpp.graph.attention import heads
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes


class Approximate(Decoder):
    """Any decoder."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = net.add(self.mixed(net.rms_norm(x)), x)
        if net.is_last:
            y = net.get_rows(y, self.rows)
        return net.add(self.fed(net.rms_norm(y)), y)

    def mixed(self, x: Node) -> Node:
        """All projections outside of the feed-forward part, attention, and the way back."""
        net = self.net
        y = self.projected(x, feeds=False)
        cache = net.cache
        if cache.k is not None:
            mixer = net.attention()
            inputs = self.inputs.of(net)
            shared = isinstance(mixer, LatentAttention)
            count = 1 if shared else mixer.kv_heads if isinstance(mixer, Attention) else 1
            width = cache.k.ne[0] // count
            q = self.sized(y, width * mixer.heads, x.ne[1])
            k = cache.k
            streams = 1 if net.batch.kv_unified else net.batch.sequences
            steps = (
                row_bytes(k.type, width),
                row_bytes(k.type, k.ne[0]),
                row_bytes(k.type, k.ne[0] * k.ne[1]),
            )
            keys = net.view(k, (width, count, cache.cells, streams), steps)
            q = net.reshape(q, width, mixer.heads, x.ne[1])
            y = heads(net, q, keys, keys, inputs.mask)
        return self.sized(y, x.ne[0], x.ne[1])

    def fed(self, x: Node) -> Node:
        """The feed-forward part."""
        net = self.net
        stacks = [weight for weight in self.matrices(feeds=True) if weight.ne[2] > 1]
        y = self.sized(self.projected(x, feeds=True), x.ne[0], x.ne[1])
        if not stacks:
            return y
        used = net.meta.integer("expert_used_count", 1)
        ids = net.view(net.argsort(net.linear(self.router(x), x)), (used, x.ne[1]))
        given = net.reshape(x, x.ne[0], 1, x.ne[1])
        wide = [net.mul_mat_id(one, given, ids) for one in stacks if one.ne[0] == x.ne[0]]
        if not wide:
            return y
        inner = wide[0] if len(wide) == 1 else net.mul(wide[0], wide[1])
        back = next((one for one in stacks if one.ne[1] == x.ne[0] and one.ne[0] == inner.ne[0]), None)
        if back is None:
            return y
        z = net.mul_mat_id(back, inner, ids)
        return net.add(y, net.sum_rows(z) if z.ne[1] == 1 else net.cont(net.view(z, x.ne[:2], z.nb[2:3])))

    def router(self, x: Node) -> Node:
        """The matrix that scores experts."""
        found = self.net.weight("ffn_gate_inp.weight")
        return found if found is not None else self.matrices(feeds=True)[0]

    def projected(self, x: Node, feeds: bool) -> Node:
        """What all matrices of a part give that read the residual stream, side by side."""
        net = self.net
        y = x
        for weight in self.matrices(feeds):
            if weight.ne[0] == x.ne[0] and weight.ne[2] == 1:
                y = net.concat(y, net.mul_mat(weight, x), 0)
        return y

    def matrices(self, feeds: bool) -> list[Node]:
        """The current layer's matrices of its feed-forward part, or of the rest."""
        net = self.net
        start = f"{net.stack}blk.{net.block}."
        return [
            weight
            for name, weight in net.weights.items()
            if name.startswith(start) and prod(weight.ne[1:]) > 1 and name.startswith(f"{start}ffn") is feeds
        ]

    def sized(self, x: Node, width: int, tokens: int) -> Node:
        """The first elements of each token; more of them if there are too few."""
        net = self.net
        if x.ne[0] < width:
            x = net.pad(x, width - x.ne[0])
        return net.cont(net.view(x, (width, tokens), x.nb[1:2]))


def build(net: Network) -> None:
    """Build the graph."""
    Approximate(net, Style()).build()
