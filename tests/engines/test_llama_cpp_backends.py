"""How backends order operations and what they keep behind results, by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from willfit.engines.llama_cpp.backends.metal import Metal
from willfit.engines.llama_cpp.backends.sycl import Sycl
from willfit.engines.llama_cpp.backends.vulkan import Vulkan, host_alignment
from willfit.engines.llama_cpp.backends.vulkan_order import Order
from willfit.engines.llama_cpp.graph.ops import Graph
from willfit.engines.llama_cpp.graph.tensor import Node


def two_chains() -> tuple[list[Node], dict[int, int]]:
    """Norm, weight and product of one input, then a product of another one."""
    net = Graph()
    x, other = net.input("F32", 64, 8), net.input("F32", 64, 8)
    normed = net.mul(net.rms_norm(x), net.new("F32", 64))
    net.expand(net.mul_mat(net.new("F32", 64, 32), normed))
    net.expand(net.mul_mat(net.new("F32", 64, 16), other))
    return net.nodes, Counter(id(source) for node in net.nodes for source in node.src)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        # as listed: norm, mul, the product that reads them, the independent product
        (Vulkan(0, order=Order.NONE), [0, 1, 2, 3]),
        # norm and mul are one shader; the independent product joins them, then what needs them follows
        (Vulkan(0, order=Order.GROUPED), [0, 1, 3, 2]),
        (Metal(0, reorders=False), [0, 1, 2, 3]),
        (Metal(0), [0, 1, 3, 2]),
    ],
)
def test_independent_operations_come_first(backend: Vulkan | Metal, expected: list[int]) -> None:
    nodes, uses = two_chains()
    found = backend.optimize(nodes, uses).nodes
    places = {id(node): index for index, node in enumerate(nodes)}
    assert [places[id(node)] for node in found] == expected


def test_a_choice_of_experts_keeps_what_it_reads() -> None:
    net = Graph()
    logits = net.mul_mat(net.new("F32", 64, 16), net.input("F32", 64, 8))
    gate = net.soft_max(logits)
    ids = net.argsort_top_k(gate, 4)
    net.expand(net.get_rows(net.reshape(gate, 1, 16, 8), ids))
    # llama.cpp's order: the probabilities' reshape comes before they are sorted
    ops = {node.op: node for node in net.nodes}
    nodes = [ops[op] for op in ("mul_mat", "soft_max", "reshape", "argsort", "view", "get_rows")]
    uses = Counter(id(source) for node in nodes for source in node.src)
    for backend in (Vulkan(0), Metal(0)):
        kept = backend.optimize(nodes, uses).kept
        assert [(tensor.op, until.op) for tensor, until in kept] == [("mul_mat", "get_rows")]
    assert not Vulkan(0, keeps_choices=False).optimize(nodes, uses).kept
    assert not Metal(0, fuses=False).optimize(nodes, uses).kept


def test_attention_on_arc_has_copies_behind_its_result() -> None:
    # 24 heads of 256, 512 queries, 4 heads of keys with 131072 cells in Q8_0: the result in F32 (12 MiB), queries and
    # outputs in F16 (6 MiB each), a factor, and F16 copies of keys and values (256 MiB each)
    net = Graph()
    q = net.input("F32", 256, 512, 24)
    k, v = net.new("Q8_0", 256, 131072, 4), net.new("Q8_0", 256, 131072, 4)
    node = net.flash_attn(q, k, v, net.input("F16", 131072, 512))
    assert Sycl(0).bytes(node) == (12 + 6 + 256 + 256) * 2**20 + 128 + 6 * 2**20
    assert Sycl(0, has_workspaces=False).bytes(node) == 12 * 2**20
    assert Sycl(0).supports(node)
    assert not Sycl(0, attends=False).supports(node)


def test_drivers_align_pinned_memory() -> None:
    # Qwen3-Coder-30B-A3B on a Strix Halo (lg-halo-coder-np1) logs 16.02 MiB where an RTX 3090 would have 16.01
    assert (host_alignment("NVIDIA"), host_alignment("AMD")) == (64, 4096)
