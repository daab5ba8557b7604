"""What a layer that drafts is given (`graph_mtp` in `src/models/*.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node


def joined(net: Network, norm: str) -> Node:
    """Embeddings of tokens with the vectors that the model gave for those before, projected to one.

    Parameters
    ----------
    norm
        Kind of the norms of both.
    """
    count = net.batch.tokens
    table = net.weight("nextn.embed_tokens.weight")
    if table is None:
        table = net.weights["token_embd.weight"]
    given = net.input("F32", net.hidden, count, name="vectors before")
    rows = net.get_rows(table, net.input("I32", count, name="tokens"))
    given, rows = net.layer_norm(given, "nextn.hnorm", norm), net.layer_norm(rows, "nextn.enorm", norm)
    return net.projected("nextn.eh_proj", net.concat(rows, given, 0))
