"""BitNet: the table of embeddings is the head, where it is (`bitnet.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node


class BitNet(Decoder):
    """A decoder without a head of its own."""

    def logits(self, x: Node) -> Node:
        """See `Decoder.logits`."""
        return self.net.linear(self.net.weights["token_embd.weight"], x)


def build(net: Network) -> None:
    """The graph of a BitNet model."""
    BitNet(net, Style()).build()
