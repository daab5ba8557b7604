"""Models that run the same layers several times, each time with a cache of its own (`nanbeige.cpp`, `hrm-text.cpp`)."""

from __future__ import annotations

from collections.abc import Hashable

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node


class Nanbeige(Decoder):
    """All layers again and again, with the last norm between."""

    def trait(self) -> Hashable:
        """See `Decoder.trait`."""
        return self.net.block + 1 == len(self.net.layers)

    def behind(self, x: Node) -> Node:
        """See `Decoder.behind`."""
        net = self.net
        skips = net.meta.boolean("skip_loop_final_norm", False)
        if skips or net.is_last or net.block + 1 < len(net.layers):
            return x
        return net.normed(x, net.weights["output_norm.weight"])


class Hrm(Decoder):
    """A stack of layers that is run several times for each time that another is run."""

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        size = net.meta.integer("hrm.layers_per_stack")
        cycles = net.meta.integer("hrm.l_cycles")
        high, low = self.start(), net.weights["hrm.z_l_init"]
        first = 0
        for _ in range(net.meta.integer("hrm.h_cycles")):
            for _ in range(cycles):
                low = self._stack(net.add(high, low), first, size)
                first += size
            high = self._stack(net.add(high, low), first, size)
            first += size
        net.layer = -1
        result = net.get_rows(high, self.rows)
        net.finish(result, self.logits(result))

    def _stack(self, x: Node, first: int, size: int) -> Node:
        for index in range(first, first + size):
            self.net.layer = index
            x = self.layer(x)
        return self.net.rms_norm(x)

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`: no layer is the last one."""
        net = self.net
        middle = net.add(self.attention(net.rms_norm(x)), x)
        return net.add(self.feed_forward(net.rms_norm(middle)), middle)


def build(net: Network) -> None:
    """The graph of one of these models."""
    if net.meta.architecture == "nanbeige":
        Nanbeige(net, Style(factors=True)).build()
    else:
        Hrm(net, Style(bare=True, gate="sigmoid")).build()
