"""The graph that the library reserved memory for: every node, where it would run, and where its result would lie.

Reads the private structs of the scheduler and the graph allocator (`ggml/src/ggml-backend.cpp`, `ggml-alloc.c`, release
0.5.0) behind a context that has just been made.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from typing import Any

from .ggml import (
    FLAG_COMPUTE,
    FLAG_INPUT,
    FLAG_OUTPUT,
    MAX_SOURCES,
    Buffer,
    Ggml,
    Graph,
    HashSet,
    Tensor,
)

_MAX_BACKENDS, _MAX_COPIES = 16, 4


class _Split(c.Structure):
    _fields_ = (
        ("backend_id", c.c_int32),
        ("i_start", c.c_int32),
        ("i_end", c.c_int32),
        ("inputs", c.POINTER(c.c_void_p)),
        ("n_inputs", c.c_int32),
        ("inputs_capacity", c.c_int32),
        ("graph", Graph),
    )


class _Scheduler(c.Structure):
    _fields_ = (
        ("is_reset", c.c_bool),
        ("is_alloc", c.c_bool),
        ("n_backends", c.c_int32),
        ("backends", c.c_void_p * _MAX_BACKENDS),
        ("bufts", c.c_void_p * _MAX_BACKENDS),
        ("galloc", c.c_void_p),
        ("hash_set", HashSet),
        ("tensor_backend_ids", c.POINTER(c.c_int32)),
        ("tensor_copies", c.c_void_p),
        ("node_backend_ids", c.POINTER(c.c_int32)),
        ("leaf_backend_ids", c.POINTER(c.c_int32)),
        ("prev_node_backend_ids", c.c_void_p),
        ("prev_leaf_backend_ids", c.c_void_p),
        ("graph", Graph),
        ("splits", c.POINTER(_Split)),
        ("n_splits", c.c_int32),
        ("splits_capacity", c.c_int32),
        ("n_copies", c.c_int32),
    )


class _Address(c.Structure):
    """`buffer_address`."""

    _fields_ = (("chunk", c.c_int32), ("offset", c.c_size_t))


class _Place(c.Structure):
    """`tensor_alloc`."""

    _fields_ = (("buffer_id", c.c_int32), ("address", _Address), ("size", c.c_size_t))

    def json(self, names: list[str]) -> dict[str, Any] | None:
        if self.size == 0 or self.buffer_id < 0:
            return None
        address = self.address
        return {
            "buffer": names[self.buffer_id],
            "chunk": address.chunk,
            "offset": address.offset,
            "size": self.size,
        }


class _NodePlaces(c.Structure):
    _fields_ = (("node", _Place), ("sources", _Place * MAX_SOURCES))


class _Allocator(c.Structure):
    _fields_ = (
        ("bufts", c.c_void_p),
        ("buffers", c.c_void_p),
        ("buf_tallocs", c.c_void_p),
        ("n_buffers", c.c_int32),
        ("hash_set", HashSet),
        ("hash_values", c.c_void_p),
        ("node_allocs", c.POINTER(_NodePlaces)),
        ("n_nodes", c.c_int32),
        ("leaf_allocs", c.POINTER(_Place)),
        ("n_leafs", c.c_int32),
    )


def read_graph(ggml: Ggml, scheduler: int) -> dict[str, Any]:
    """The scheduler's graph as plain values.

    Returns
    -------
    dict
        `backends`: names of backends and of their buffer types. `splits`: backend, first and last node of the model's
        graph, and the tensors copied in. `leafs` and `nodes`, in the allocator's order: `id`, `name`, `op`,
        `type`, `ne`, `nb`, `flags`, `src` (ids), `view_src`, `view_offs`, `backend`, `place` (buffer, chunk, offset,
        size; None for views and for what is allocated elsewhere), `buffer` (of weights and caches), `params`. Copies
        between backends and the views that keep their originals alive are nodes too; `inserted` says so.
    """
    found = _Scheduler.from_address(scheduler)
    if not 1 <= found.n_backends <= _MAX_BACKENDS or not 1 <= found.n_copies <= _MAX_COPIES:
        raise OSError("the scheduler's struct is not that of the pinned release")
    allocator = _Allocator.from_address(found.galloc)
    backends = [ggml.base.ggml_backend_name(found.backends[i]).decode() for i in range(found.n_backends)]
    bufts = [ggml.base.ggml_backend_buft_name(found.bufts[i]).decode() for i in range(found.n_backends)]
    graph = found.graph
    if (allocator.n_nodes, allocator.n_leafs) != (graph.n_nodes, graph.n_leafs):
        raise OSError("the scheduler split another graph after it planned one")
    reader = _Reader(ggml)
    leafs = [Tensor.from_address(graph.leafs[i]) for i in range(graph.n_leafs)]
    nodes = [graph.node(i) for i in range(graph.n_nodes)]
    for prefix, tensors in (("l", leafs), ("n", nodes)):
        for index, tensor in enumerate(tensors):
            reader.ids.setdefault(tensor.address, f"{prefix}{index}")
    splits = [found.splits[i] for i in range(found.n_splits)]
    inserted = {node.address for node in nodes} - set(_of_model(splits))
    listed_leafs = [
        {
            **reader.json(leaf),
            "backend": backends[found.leaf_backend_ids[i]],
            "place": allocator.leaf_allocs[i].json(bufts),
        }
        for i, leaf in enumerate(leafs)
    ]
    listed_nodes = []
    for i, node in enumerate(nodes):
        listed = {
            **reader.json(node),
            "backend": backends[found.node_backend_ids[i]],
            "place": allocator.node_allocs[i].node.json(bufts),
        }
        if node.address in inserted:
            listed["inserted"] = True
        listed_nodes.append(listed)
    return {
        "backends": backends,
        "buffer_types": bufts,
        "copies": found.n_copies,
        "splits": [
            {
                "backend": backends[split.backend_id],
                "start": split.i_start,
                "end": split.i_end,
                "inputs": [Tensor.from_address(split.inputs[j]).name.decode() for j in range(split.n_inputs)],
            }
            for split in splits
        ],
        "outside": list(reader.outside.values()),
        "leafs": listed_leafs,
        "nodes": listed_nodes,
    }


def _of_model(splits: list[_Split]) -> Iterator[int]:
    for split in splits:
        yield from (split.graph.nodes[i] for i in range(split.graph.n_nodes))


class _Reader:
    """Gives tensors names that are unique in a graph."""

    _FLAGS = ((FLAG_INPUT, "input"), (FLAG_OUTPUT, "output"), (FLAG_COMPUTE, "compute"))

    def __init__(self, ggml: Ggml) -> None:
        self.ggml = ggml
        self.ids: dict[int, str] = {}
        self.outside: dict[str, dict[str, Any]] = {}

    def id(self, address: int) -> str:
        """Its id; a tensor that is in no list of the graph is put into `outside`."""
        if address not in self.ids:
            self.ids[address] = name = f"o{len(self.outside)}"
            self.outside[name] = {}
            self.outside[name] = self.json(Tensor.from_address(address))
        return self.ids[address]

    def json(self, tensor: Tensor) -> dict[str, Any]:
        """One tensor."""
        found: dict[str, Any] = {
            "id": self.ids[tensor.address],
            "name": tensor.name.decode(errors="replace"),
            "op": self.op(tensor),
            "type": self.ggml.type_names[tensor.type],
            "ne": list(tensor.ne),
            "nb": list(tensor.nb),
            "flags": [word for bit, word in self._FLAGS if tensor.flags & bit],
            "src": [self.id(address) if address else None for address in _trimmed(list(tensor.src))],
        }
        params = list(tensor.op_params)
        while params and params[-1] == 0:
            params.pop()
        if params:
            found["params"] = params
        if tensor.view_src:
            found |= {"view_src": self.id(tensor.view_src), "view_offs": tensor.view_offs}
        if tensor.buffer:
            buft = Buffer.from_address(tensor.buffer).buft
            found["buffer"] = self.ggml.base.ggml_backend_buft_name(buft).decode()
        return found

    def op(self, tensor: Tensor) -> str:
        """`MUL_MAT`; `UNARY SILU`, `GLU SWIGLU`."""
        name = self.ggml.op_names[tensor.op]
        if name == "UNARY":
            return f"{name} {self.ggml.unary_names[self.ggml.base.ggml_get_unary_op(tensor.address)]}"
        if name == "GLU":
            return f"{name} {self.ggml.glu_names[self.ggml.base.ggml_get_glu_op(tensor.address)]}"
        return name


def _trimmed(sources: list[int | None]) -> list[int | None]:
    while sources and not sources[-1]:
        sources.pop()
    return sources


def graph_text(graph: dict[str, Any]) -> Iterator[str]:
    """The graph as lines to read."""
    for index, split in enumerate(graph["splits"]):
        copied = ", ".join(split["inputs"])
        yield f"split {index}: {split['backend']} nodes {split['start']}..{split['end']} <- {copied}"
    for part in ("outside", "leafs", "nodes"):
        for tensor in graph[part]:
            yield f"{part[:-1] if part != 'outside' else part} {_line(tensor)}"


def _line(tensor: dict[str, Any]) -> str:
    words = [
        f"{tensor['id']:>6}",
        f"{tensor['op']:<18}",
        f"{tensor['type']:<5}",
        "x".join(map(str, tensor["ne"])),
        tensor["name"],
    ]
    if tensor["src"]:
        words.append("(" + " ".join(source or "-" for source in tensor["src"]) + ")")
    if "view_src" in tensor:
        words.append(f"view {tensor['view_src']}+{tensor['view_offs']}")
    if tensor["flags"]:
        words.append("/".join(tensor["flags"]))
    words.append(f"@{tensor.get('backend', '')}")
    if place := tensor.get("place"):
        words.append(f"{place['buffer']}[{place['chunk']}]+{place['offset']} {place['size']}")
    elif "buffer" in tensor:
        words.append(f"in {tensor['buffer']}")
    if tensor.get("inserted"):
        words.append("inserted")
    return " ".join(words)
