"""How backends order operations and what they keep behind results, by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from willfit.asking import find_subject
from willfit.checkpoints.gguf import GgufTensor
from willfit.engines.base import Machine
from willfit.engines.llama_cpp import Settings, estimate
from willfit.engines.llama_cpp.backends import hexagon, opencl
from willfit.engines.llama_cpp.backends.cann import Cann, Step
from willfit.engines.llama_cpp.backends.hexagon import Hexagon
from willfit.engines.llama_cpp.backends.metal import Metal
from willfit.engines.llama_cpp.backends.opencl import OpenCl
from willfit.engines.llama_cpp.backends.processor import Processor
from willfit.engines.llama_cpp.backends.repacking import repacking
from willfit.engines.llama_cpp.backends.sycl import Sycl
from willfit.engines.llama_cpp.backends.table import backend_name, backends_of, host_buffers
from willfit.engines.llama_cpp.backends.vulkan import Vulkan, host_alignment
from willfit.engines.llama_cpp.backends.vulkan_order import Order
from willfit.engines.llama_cpp.eras import era_for
from willfit.engines.llama_cpp.graph.ops import Graph
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node
from willfit.ggml_types import GGML_TYPES
from willfit.hardware.device import Device
from willfit.hardware.processors import ProcessorKind
from willfit.hardware.table import find_device


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


@pytest.mark.parametrize(
    ("kind", "version", "types"),
    [
        ("avx2", "b4281", set()),
        ("avx2", "b4282", {"Q4_0"}),
        ("avx2", "b8000", {"Q4_0", "Q4_K", "IQ4_NL"}),
        ("avx2", "0.5.0", {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
        ("avx512", "b6000", {"Q4_0", "Q4_K"}),
        ("avx512", "0.5.0", {"Q2_K", "Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
        ("dotprod", "b4080", set()),
        ("dotprod", "b4100", {"Q4_0"}),
        ("dotprod", "b7100", {"Q4_0", "IQ4_NL"}),
        ("i8mm", "b7150", {"Q4_0", "IQ4_NL", "Q4_K"}),
        ("i8mm", "b7900", {"Q4_0", "IQ4_NL", "Q4_K", "Q8_0", "Q5_K", "Q6_K"}),
        ("dotprod", "b7900", {"Q4_0", "IQ4_NL", "Q4_K", "Q8_0"}),
        ("dotprod", "0.5.0", {"Q4_0", "IQ4_NL", "Q4_K", "Q8_0", "Q5_K", "Q6_K", "MXFP4", "Q1_0"}),
        ("plain", "0.5.0", set()),
    ],
)
def test_what_processors_repack(kind: ProcessorKind, version: str, types: set[str]) -> None:
    made = repacking(era_for(version), kind)
    found = {
        name for name in GGML_TYPES if made.buffer(GgufTensor("w", name, (256, 64), 0, 0), "mul_mat") != ""
    }
    assert found == types


def test_which_matrices_are_repacked() -> None:
    def buffer(
        kind: ProcessorKind, type: str, ne: tuple[int, ...], op: str = "mul_mat", v: str = "0.5.0"
    ) -> str:
        return repacking(era_for(v), kind).buffer(GgufTensor("w", type, ne, 0, 0), op)

    # ARM interleaves 4 rows of types with blocks of 32, 8 of K-quants; AVX2 8 of all
    assert buffer("i8mm", "Q4_0", (256, 12)) == "CPU_REPACK"
    assert buffer("avx2", "Q4_0", (256, 12)) == buffer("i8mm", "Q4_K", (256, 12)) == ""
    assert buffer("i8mm", "Q4_0", (256, 12), v="b5000") == "CPU_AARCH64"
    # tables are read as rows, experts are stacks
    assert buffer("i8mm", "Q4_0", (256, 16), "get_rows") == ""
    assert buffer("i8mm", "Q4_0", (256, 16, 4), "mul_mat_id") == "CPU_REPACK"
    assert buffer("i8mm", "Q4_0", (256, 16, 4)) == buffer("i8mm", "Q4_0", (256, 16), "mul_mat_id") == ""
    # AMX: 32 results at once; experts are left to the others; F16 stays as it is
    assert buffer("amx", "Q6_K", (256, 64)) == buffer("amx", "F16", (64, 64)) == "AMX"
    assert buffer("amx", "Q6_K", (256, 48)) == ""
    assert buffer("amx", "Q4_K", (256, 64, 4), "mul_mat_id") == "CPU_REPACK"
    assert buffer("amx", "Q8_0", (1024, 64), v="b7000") == "" != buffer("amx", "Q8_0", (2048, 64), v="b7000")
    own = Buffer("AMX", None, weights=True)
    sizes = {
        kind: Processor().bytes(Node("none", kind, (512, 32, 1, 1), buffer=own))
        for kind in ("F16", "Q8_0", "Q4_K")
    }
    # blocks of 32 in 34 B with a sum of 4 B; blocks of 256 in 144 B with 4 B
    assert sizes == {"F16": 512 * 32 * 2, "Q8_0": 32 * 16 * 38, "Q4_K": 32 * 2 * 148}


def test_plain_products_of_a_mac_are_accelerates() -> None:
    net = Graph()
    x, ids = net.input("F32", 64, 1, 32), net.input("I32", 2, 32)
    dense = net.mul_mat(net.new("F16", 64, 64), net.input("F32", 64, 32))
    narrow = net.mul_mat(net.new("F16", 64, 16), net.input("F32", 64, 32))
    experts = net.mul_mat_id(net.new("F16", 64, 64, 4), x, ids)
    assert [Metal(0).takes_over(node) for node in (dense, narrow, experts)] == [False, True, True]
    assert not Metal(0, offloads=False).takes_over(experts)


def test_what_ascends_compute() -> None:
    net = Graph()
    x, ids = net.input("F32", 64, 32), net.input("I32", 2, 32)
    narrow = net.input("F32", 64, 1, 32)

    def product(kind: str) -> Node:
        return net.mul_mat(net.new(kind, 64, 64), x)

    def chosen(kind: str) -> Node:
        return net.mul_mat_id(net.new(kind, 64, 64, 4), narrow, ids)

    kinds = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "MXFP4")
    new, old, small = Cann(0), Cann(0, Step.MORE), Cann(0, small=True)
    assert [kind for kind in kinds if new.supports(product(kind))] == ["F32", "F16", "BF16", "Q8_0", "Q4_0"]
    assert [kind for kind in kinds if old.supports(product(kind))] == ["F32", "F16", "Q8_0", "Q4_0"]
    assert [kind for kind in kinds if small.supports(product(kind))] == ["F32", "F16"]
    assert [kind for kind in kinds if new.supports(chosen(kind))] == ["F32", "F16", "Q8_0", "Q4_0"]
    assert not any(old.supports(chosen(kind)) for kind in kinds)
    q, k = net.new("F32", 128, 32, 8), net.new("F16", 128, 256, 8)
    mask, sinks = net.new("F16", 256, 32), net.new("F32", 8)
    plain, sunk = net.flash_attn(q, k, k, mask), net.flash_attn(q, k, k, mask, sinks)
    capped = net.flash_attn(q, k, k, mask, kind="capped")
    assert [device.supports(plain) for device in (new, old, small)] == [True, False, False]
    assert [new.supports(one) for one in (sunk, capped)] == [False, False]
    assert [new.supports(net.soft_max(q, mask, one)) for one in (None, sinks)] == [True, False]
    part = net.rope(net.new("F32", 128, 8, 32), net.input("I32", 32))
    part.kind = "part"
    assert [Cann(0, step).supports(part) for step in (Step.SECTIONS, Step.PARTS)] == [False, True]
    sections = net.rope(net.new("F32", 128, 8, 32), net.input("I32", 4 * 32))
    assert [Cann(0, step).supports(sections) for step in (Step.LENGTHS, Step.SECTIONS)] == [False, True]
    # products with weights on the host from 32 tokens on, by the second dimension alone
    few = net.mul_mat(net.new("F16", 64, 64), narrow)
    assert [new.takes_over(one) for one in (product("F16"), few)] == [True, False]


def test_what_tensors_take_on_an_ascend() -> None:
    def held(kind: str, ne: tuple[int, int, int, int], name: str = "", step: Step = Step.CLAMPED) -> int:
        return Cann(0, step).bytes(Node("none", kind, ne, name=name))

    # rows of quantized matrices end at a multiple of 512 elements
    assert held("Q8_0", (896, 10, 1, 1)) == 10 * 28 * 34 + 4 * 34
    assert held("Q8_0", (1024, 10, 1, 1)) == 10 * 32 * 34
    # plain matrices are in blocks of 16 x 16
    assert held("F16", (100, 20, 1, 1), "blk.0.attn_q.weight") == 2 * 112 * 32
    assert held("F16", (100, 20, 1, 1), "blk.0.ffn_gate_inp.weight") == 2 * 100 * 20
    assert held("F16", (100, 20, 1, 1), "blk.0.attn_q.weight", Step.ROWS) == 2 * 100 * 20
    assert Cann(0).alignment == 128


def test_ascends_are_run_by_cann() -> None:
    devices = (find_device("Ascend 910B4"), find_device("Ascend 310P (Atlas 300I Duo)"))
    assert backend_name(devices, None) == "cann"
    for version, pinned in (("0.5.0", "CANN_Host"), ("b3700", "CPU")):
        first, second, host = backends_of(devices, "cann", era_for(version))
        assert (first.place, second.place, host.place) == ("CANN0", "CANN1", pinned)
        assert second == Cann(1, Step(era_for(version).cann_step), small=True)
        assert host_buffers("cann", era_for(version)) == pinned.replace("CPU", "")


def test_what_adrenos_compute() -> None:
    net = Graph()
    x, ids, narrow = net.input("F32", 512, 512), net.input("I32", 2, 32), net.input("F32", 512, 1, 32)

    def products(step: opencl.Step, rows: int = 512) -> list[str]:
        kinds = ("F16", "Q4_0", "Q6_K", "Q8_0", "MXFP4", "Q4_K", "Q5_K", "Q5_0", "Q3_K")
        device = OpenCl(0, step)
        return [kind for kind in kinds if device.supports(net.mul_mat(net.new(kind, 512, rows), x))]

    def experts(step: opencl.Step, rows: int = 512) -> list[str]:
        kinds = ("F16", "Q4_0", "Q6_K", "Q8_0", "MXFP4", "Q4_K")
        device = OpenCl(0, step)
        return [k for k in kinds if device.supports(net.mul_mat_id(net.new(k, 512, rows, 4), narrow, ids))]

    assert products(opencl.Step.FIRST) == ["F16", "Q4_0", "Q6_K"]
    assert products(opencl.Step.Q8_0) == ["F16", "Q4_0", "Q6_K", "Q8_0", "MXFP4"]
    # With kernels for whole tiles, others are left to the processor from 512 tokens on
    assert products(opencl.Step.TILES) == ["F16", "Q4_0", "Q6_K", "Q8_0", "Q4_K", "Q5_K"]
    assert products(opencl.Step.TILES, 256) == ["F16", "Q4_0", "Q8_0"]
    assert experts(opencl.Step.FIRST) == []
    assert experts(opencl.Step.MXFP4) == ["Q4_0", "MXFP4"]
    assert experts(opencl.Step.TILES) == ["Q4_0", "Q6_K", "Q8_0", "MXFP4", "Q4_K"]
    assert experts(opencl.Step.TILES, 48) == ["Q4_0", "Q8_0", "MXFP4"]
    q, k, v = net.new("F32", 192, 32, 8), net.new("F16", 192, 256, 8), net.new("F16", 128, 256, 8)
    attention = net.flash_attn(q, k, v, None)
    steps = (opencl.Step.MXFP4, opencl.Step.ATTENTION)
    assert [OpenCl(0, step).supports(attention) for step in steps] == [False, True]
    assert not OpenCl(0).takes_over(net.mul_mat(net.new("F16", 512, 512), x))
    # four gaps of 128 B between the parts of quantized weights
    weights = Node("none", "Q4_0", (32, 10, 1, 1))
    assert [OpenCl(0, step).bytes(weights) for step in (opencl.Step.DELTA, opencl.Step.GAPS)] == [180, 692]


def test_what_hexagons_hold() -> None:
    net = Graph()
    x = net.input("F32", 512, 128)

    def products(step: hexagon.Step, rows: int = 512) -> list[str]:
        kinds = ("F32", "F16", "Q4_0", "Q8_0", "MXFP4", "IQ4_NL", "Q4_1", "Q6_K")
        device = Hexagon(0, step)
        return [kind for kind in kinds if device.supports(net.mul_mat(net.new(kind, 512, rows), x))]

    assert products(hexagon.Step.FIRST) == ["Q4_0", "Q8_0", "MXFP4"]
    # A head of more than 16384 rows stayed on the host until weights were kept in tiles
    assert products(hexagon.Step.FIRST, 32768) == []
    assert products(hexagon.Step.TILES, 32768) == ["F32", "F16", "Q4_0", "Q8_0", "MXFP4", "IQ4_NL", "Q4_1"]
    assert products(hexagon.Step.K_QUANTS)[-1] == "Q6_K"
    held = {
        (kind, step): Hexagon(0, step).bytes(Node("none", kind, (256, 40, 1, 1)))
        for kind in ("Q4_0", "Q6_K")
        for step in (hexagon.Step.FIRST, hexagon.Step.K_QUANTS)
    }
    assert held == {
        ("Q4_0", hexagon.Step.FIRST): 40 * 8 * 18,
        ("Q4_0", hexagon.Step.K_QUANTS): 64 * 8 * 18,
        ("Q6_K", hexagon.Step.FIRST): 40 * 210,
        ("Q6_K", hexagon.Step.K_QUANTS): 64 * 8 * 28,
    }
    # The processor read the unit's buffers where they were
    for version, sees in (("b8000", True), ("0.5.0", False)):
        *_, host = backends_of((Device("Hexagon"),), "hexagon", era_for(version))
        assert host.reads(Buffer("HTP0", 0, weights=True)) is sees


def test_hexagons_compute_buffers_are_said_to_be_unsure() -> None:
    """Published: OLMoE in two sessions, in the documentation of the first builds."""
    subject = find_subject("allenai/OLMoE-1B-7B-0924:Q4_0", offline=True)[0]
    asked = Settings(
        backend="hexagon", n_gpu_layers="all", n_ctx=8192, n_batch=128, n_parallel=1, flash_attn="on", mmap=False,
        cache_type_k="q8_0", cache_type_v="q8_0", version="b7410",
    )  # fmt: skip
    machine = Machine((Device("Hexagon"), Device("Hexagon")), processor="i8mm")
    found = estimate(subject, machine, asked)
    sizes = {key: round(size / 2**20, 2) for key, size in found.details["buffers"]["model"].items()}
    assert sizes == {"CPU": 143.86, "HTP0": 2025.28, "HTP1": 1575.23}
    assert {key: round(size / 2**20, 2) for key, size in found.details["buffers"]["compute"].items()} == {
        "HTP0": 15.0, "HTP1": 15.0, "CPU": 24.56,
    }  # fmt: skip
    compute = next(term for term in found.devices[0].terms if term.name == "compute")
    assert (compute.low_bytes, compute.high_bytes) == (compute.bytes // 2, 2 * compute.bytes)
    assert any(note.startswith("what Hexagon computes is not established") for note in found.notes)
