"""Graphs of all architectures against llama.cpp's own plans, folded and whole, with every tensor in its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest

from willfit.asking import find_subject
from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.engines.base import Machine, Subject
from willfit.engines.llama_cpp import plan
from willfit.engines.llama_cpp.eras import EARLY_ONCE, era_for
from willfit.engines.llama_cpp.graph import families, scheduler
from willfit.engines.llama_cpp.graph.allocator import Allocation, Blocks
from willfit.engines.llama_cpp.graph.families.styles import STYLES
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node
from willfit.engines.llama_cpp.loading.weights import Loader
from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.llama_cpp.sizing import Sizing, size_up
from willfit.engines.subject import subject_of
from willfit.ggml_types import GGML_TYPES
from willfit.hardware.table import find_device

DATA = Path(__file__).parents[2] / "data"
MIB = 2**20
#: The release whose library planned the small files, and that which planned the rows.
SMALL, ROWS = "b11258", "0.5.0"
GPU = replace(find_device("RTX 4090"), compute_capability="8.6")

Plans = dict[str, dict[str, Any]]


def load(entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str, tuple[int, ...]]]]:
    """Metadata and tensors of a recorded file; those of several layers are one row, `blk.{0,1}.attn_q.weight`."""
    tensors = []
    for name, kind, *ne in entry["tensors"]:
        layers = re.search(r"\{([\d,]+)\}", name)
        for index in layers[1].split(",") if layers else [""]:
            tensors.append((name.replace(layers[0], index) if layers else name, kind, tuple(ne)))
    metadata = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry["metadata"].items()
    }
    return metadata, tensors


def header_of(metadata: Mapping[str, Any], tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> GgufHeader:
    made, offset = [], 0
    for name, kind, ne in tensors:
        size = prod(ne) // GGML_TYPES[kind].block * GGML_TYPES[kind].bytes
        made.append(GgufTensor(name, kind, ne, size, offset))
        offset += -(-size // 32) * 32
    return GgufHeader(3, False, dict(metadata), tuple(made), (None,))


def subject(header: GgufHeader) -> Subject:
    return subject_of(Checkpoint("small", "gguf file", gguf=header))


@cache
def entries() -> dict[str, dict[str, Any]]:
    lines = (DATA / "gguf" / "architectures.jsonl").read_text().splitlines()
    return {entry["id"]: entry for entry in map(json.loads, lines)}


NAMES = list(entries())
#: Files with what their architecture must have, and no more.
LEAN = [name for name in NAMES if " " not in name]

#: Ways of running a file, as the oracle's `architectures.SETTINGS` has them; how many GPUs there are.
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {
    "processor": ({"flash_attn": "auto", "n_parallel": 4, "kv_unified": True}, 0),
    "flash": ({"flash_attn": "on"}, 1),
    "scores": ({"flash_attn": "off", "n_parallel": 4}, 1),
    "partial": ({"flash_attn": "on", "cache_type_k": "q8_0", "cache_type_v": "q8_0", "n_gpu_layers": 3}, 1),
    "vectors": ({"flash_attn": "on", "embeddings": True, "n_parallel": 2}, 1),
    "two": ({"flash_attn": "off", "n_outputs_max": 1}, 2),
}
SIZES = {"n_ctx": 2048, "n_batch": 512, "n_ubatch": 256}


def sized(asked: Subject, name: str, **changed: Any) -> Sizing:
    given, count = SETTINGS[name]
    made = {"kv_unified": False, "n_parallel": 1, "n_gpu_layers": "all", **SIZES, **given, **changed}
    settings = Settings(
        program="api",
        version=SMALL,
        backend="cuda" if count else "cpu",
        fit=False,
        mmap=False,
        no_alloc=True,
        **made,
    )
    return size_up(asked, Machine((GPU,) * count), settings, [None] * count)


def filled(sizes: Mapping[str, int]) -> dict[str, int]:
    return {place: size for place, size in sizes.items() if size}


def planned(model: plan.Model, context: plan.Context) -> dict[str, Any]:
    kept = dict(context.keys_values)
    for place, size in context.states.items():
        kept[place] = kept.get(place, 0) + size
    return {
        "nodes": context.nodes,
        "splits": context.splits,
        "model": filled(model.bytes),
        "context": filled(kept),
        "compute": filled(context.compute),
    }


@pytest.mark.parametrize("name", NAMES)
def test_files_are_planned_as_llama_cpp_plans_them(name: str) -> None:
    entry = entries()[name]
    asked = subject(header_of(*load(entry)))
    plans: Plans = entry["plans"]
    assert plans
    for setting, expected in plans.items():
        if setting != "drafts":
            found = sized(asked, setting)
            assert planned(found.model, found.context) == expected, setting


@pytest.mark.parametrize("name", [name for name in NAMES if "drafts" in entries()[name]["plans"]])
def test_layers_that_draft_are_planned_as_llama_cpp_plans_them(name: str) -> None:
    entry = entries()[name]
    found = sized(subject(header_of(*load(entry))), "flash")
    model = plan.load(found.model.header, found.model.architecture, loader_of(found))
    asked = found.resolved.context(found.settings, True, False)
    context = plan.context(model, replace(asked, outputs=1, drafts=True), found.resolved.era)
    assert planned(model, context) == entry["plans"]["drafts"]


def test_a_head_that_drafts_is_planned_as_llama_cpp_plans_it() -> None:
    """EAGLE-3 with a part of the vocabulary and without a table, beside the small Llama: as the library planned it."""
    sizes = {
        "embedding_length": 512,
        "block_count": 1,
        "feed_forward_length": 768,
        "context_length": 4096,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "rope.dimension_count": 64,
    }
    metadata = {"general.architecture": "eagle3", **{f"eagle3.{key}": value for key, value in sizes.items()}}
    layer = {
        "attn_norm": (512,), "attn_norm_2": (512,), "attn_q": (1024, 512), "attn_k": (1024, 128),
        "attn_v": (1024, 128), "attn_output": (512, 512), "ffn_norm": (512,), "ffn_gate": (512, 768),
        "ffn_down": (768, 512), "ffn_up": (512, 768),
    }  # fmt: skip
    outside = {"fc.weight": (1536, 512), "output_norm.weight": (512,), "output.weight": (512, 256)}
    named = {**outside, **{f"blk.0.{name}.weight": ne for name, ne in layer.items()}}
    tensors = [(name, "F16" if len(ne) > 1 else "F32", ne) for name, ne in named.items()]
    model = sized(subject(header_of(*load(entries()["llama"]))), "flash")
    head = subject(header_of(metadata, [*tensors, ("d2t", "I64", (256,))]))
    found = size_up(
        head, Machine((GPU,)), replace(model.settings, n_outputs_max=1), [None], model.model.named
    )
    assert planned(found.model, found.context) == {
        "nodes": 43,
        "splits": 2,
        "model": {"CPU": 2048, "CUDA0": 6299648},
        "context": {"CUDA0": 1048576},
        "compute": {"CUDA0": 4725760, "CUDA_Host": 2103296},
    }


def loader_of(found: Sizing) -> Loader:
    """A loader that skips nothing, for the same devices."""
    return Loader(found.model.places, found.model.backends, "CUDA_Host", False, ())


#: Architectures that have a builder, but neither a small file nor a recorded row: the pinned library refuses their
#: files (`plm`), builds them in an older form, or no small file was found. The live oracle has larger ones.
UNPLANNED = frozenset((
    "deepseek4", "dots3note", "falcon-h1", "glm-dsa", "glm5-next", "granitehybrid", "hrm_text",
    "hy_v4", "kimi-k3", "minimax-m3", "nemotron_h", "nemotron_h_moe", "plm", "qwen4exp", "rwkv7",
))  # fmt: skip


def test_all_builders_are_planned() -> None:
    built = {name for names in families.FAMILIES.values() for name in names.split()} | set(STYLES)
    small = {entry["metadata"]["general.architecture"] for entry in entries().values()}
    models = {(row["catalogue"], row["gguf_type"]) for row in rows(1) if row["gguf_type"] == "Q4_K_M"}
    recorded = {
        find_subject(f"{model}:{kind}", offline=True)[0].architecture.model_type for model, kind in models
    }
    assert built - small - recorded - {"eagle3"} == UNPLANNED


#: Builds between which tokens without results came to be dropped later, architecture by architecture.
DROPPING = (8_700, 9_300, 9_520, 9_560, 10_200, 10_420)


@pytest.mark.parametrize("name", [name for name in LEAN if name in EARLY_ONCE])
@pytest.mark.parametrize("build", DROPPING)
def test_all_builds_drop_tokens_without_results(
    name: str, build: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one result the head multiplies one row, wherever the others are dropped."""
    rows = []

    def watched(net: Network) -> None:
        build_graph(net)
        rows.extend(
            node.ne[1] for node in net.nodes if node.op == "mul_mat" and node.src[0].name == "output.weight"
        )

    build_graph = families.build
    monkeypatch.setattr(families, "build", watched)
    found = sized(subject(header_of(*load(entries()[name]))), "processor", n_outputs_max=1)
    rows.clear()
    asked = found.resolved.context(found.settings, True, False)
    plan.context(found.model, replace(asked, outputs=1), era_for(f"b{build}", "llama.cpp"))
    assert rows == [1]


# Recorded rows


def rows(stride: int) -> list[dict[str, Any]]:
    """Every so many of the recorded rows of the planner.

    Left out are GPU rows of bge-small, which were made with another header, and rows of models with layers that draft
    of which not all layers are on one device: the rows' files have no such layers.
    """
    lines = (DATA / "cases" / "llamacpp_oracle.jsonl").read_text().splitlines()
    found = [row for row in map(json.loads, lines) if row["oracle"] != "quantize-dry-run"]
    drafting = ("orc-qwen3.5", "orc-qwen3.6", "orc-qwen3-next", "orc-glm-4.5")
    return [
        row
        for row in found
        if not (row["id"].startswith("orc-bge") and row["n_gpus"])
        and not (
            row["id"].startswith(drafting)
            and (row["settings"].get("n_gpu_layers", "all") != "all" or (row["n_gpus"] or 0) > 1)
        )
    ][::stride]


_ASKED = (
    "n_ctx", "n_batch", "n_ubatch", "n_parallel", "kv_unified", "swa_full", "cache_type_k", "cache_type_v",
    "n_outputs_max", "n_gpu_layers", "cpu_moe", "n_cpu_moe", "embeddings",
)  # fmt: skip


@pytest.mark.parametrize("row", rows(stride=7), ids=lambda row: row["id"])
def test_recorded_rows(row: dict[str, Any]) -> None:
    given = row["settings"]
    count = row["n_gpus"] or 0
    settings = Settings(
        program="api",
        version=ROWS,
        backend="cuda" if count else "cpu",
        fit=False,
        mmap=False,
        no_alloc=True,
        fusion=False,  # the rows' GPUs fuse nothing
        flash_attn={True: "on", False: "off", "auto": "auto"}[given.get("flash_attn", "auto")],
        kv_offload=given.get("offload_kqv", True),
        repack=given.get("use_extra_bufts", True),
        **{name: given[name] for name in _ASKED if name in given},
    )
    asked = find_subject(f"{row['catalogue']}:{row['gguf_type']}", offline=True)[0]
    found = size_up(asked, Machine((GPU,) * count), settings, [None] * count)
    made = planned(found.model, found.context)
    for part, measured in (("compute", "compute_buffer_mib"), ("context", "context_buffer_mib")):
        in_mib = {place: round(size / MIB, 4) for place, size in made[part].items()}
        assert in_mib == {place: size for place, size in row["measured"].get(measured, {}).items() if size}


# Folding


def deepened(
    metadata: dict[str, Any], tensors: list[tuple[str, str, tuple[int, ...]]], count: int = 29
) -> tuple[dict[str, Any], list[tuple[str, str, tuple[int, ...]]]]:
    """The same file with more layers, which go on in its pattern."""
    architecture = metadata["general.architecture"]
    own = metadata[f"{architecture}.block_count"]
    outside, layers = [], {}
    for name, kind, ne in tensors:
        found = re.match(r"((?:enc\.|dec\.)?blk\.)(\d+)(\..*)", name)
        if found:
            layers.setdefault(int(found[2]), []).append((found[1], found[3], kind, ne))
        else:
            outside.append((name, kind, ne))
    last = max(layers) + 1
    metadata = dict(metadata)
    listed = {key: value for key, value in metadata.items() if isinstance(value, tuple) and len(value) == own}
    period = next(
        (
            period
            for period in range(1, last)
            if all(layers[i] == layers[i + period] for i in range(1, last - period))
            and all(value[i] == value[i + period] for value in listed.values() for i in range(own - period))
        ),
        1,
    )
    made = list(outside)
    for index in range(count):
        source = index if index < last else last - period + (index - last) % period
        made += [(f"{start}{index}{leaf}", kind, ne) for start, leaf, kind, ne in layers[source]]
    for key, value in listed.items():
        metadata[key] = tuple(
            value[i] if i < own else value[own - period + (i - own) % period] for i in range(count)
        )
    for key in ("block_count", "decoder_block_count"):
        if f"{architecture}.{key}" in metadata:
            metadata[f"{architecture}.{key}"] = count
    return metadata, made


def repeating() -> Iterator[tuple[str, str]]:
    """Files whose layers can go on, each with one of the settings."""
    ways = ("flash", "scores", "partial", "two")
    for index, name in enumerate(LEAN):
        entry = entries()[name]
        architecture = entry["metadata"]["general.architecture"]
        short = entry["metadata"][f"{architecture}.block_count"] < 20
        # DeciLM's and Gemma 4's layers are all different, others count layers in their own ways.
        if short and architecture not in ("deci", "gemma4") and "nextn" not in str(entry["metadata"]):
            yield name, ways[index % len(ways)]


@pytest.mark.parametrize(("name", "setting"), list(repeating()))
def test_folded_graphs_take_what_whole_ones_take(name: str, setting: str) -> None:
    found = sized(subject(header_of(*deepened(*load(entries()[name])))), setting)
    asked = found.resolved.context(found.settings, found.context.flash_attn, found.pipelined)
    whole = plan.context(replace(found.model, alike=()), asked, found.resolved.era)
    assert planned(found.model, found.context) == planned(found.model, whole)


def test_large_models_are_folded() -> None:
    for name in ("meta-llama/Llama-3.1-70B", "Qwen/Qwen3-235B-A22B", "openai/gpt-oss-120b"):
        found = sized(find_subject(f"{name}:Q8_0", offline=True)[0], "flash")
        asked = found.resolved.context(found.settings, True, False)
        buffers = plan.cache_buffers(found.model, True)
        net = plan._network(found.model, asked, found.resolved.era, buffers, 256, 256, 1)
        families.build(net)
        assert len(net.nodes) < found.context.nodes / 2


# Properties


@pytest.mark.parametrize("name", LEAN[::5])
def test_more_tokens_take_more(name: str) -> None:
    asked = subject(header_of(*load(entries()[name])))
    for setting in ("flash", "scores"):
        for more in ({"n_ubatch": 512}, {"n_ctx": 4096}):
            less = sum(sized(asked, setting).context.compute.values())
            assert sum(sized(asked, setting, **more).context.compute.values()) >= less


class Watched(Allocation):
    """An allocation whose tensors are held against each other: no two that are alive at once share memory."""

    def place(self, nodes: Sequence[Node], leafs: Sequence[Node]) -> None:
        super().place(nodes, leafs)
        alive: dict[int, list[Any]] = {}
        for leaf in leafs:
            alive.setdefault(id(leaf), [leaf, -1, -1])
        for index, node in enumerate(nodes):
            alive.setdefault(id(node), [node, index, index])
            for source in (*node.src, node):
                whole = source.view if source.view is not None else source
                alive.setdefault(id(whole), [whole, -1 if whole.is_input else index, index])[2] = index
        spans: dict[tuple[int, int], list[tuple[int, int, int, int, Node]]] = {}
        for tensor, first, last in alive.values():
            if tensor.view is None and tensor.buffer is None and tensor.buffer_id >= 0:
                chunk, start = tensor.block
                end = start + self._size_of(tensor.buffer_id, tensor)
                until = len(nodes) if tensor.is_output else last
                place = id(self._buffers[tensor.buffer_id]), chunk
                spans.setdefault(place, []).append((first, until, start, end, tensor))
        self.checked = sum(map(len, spans.values()))
        for here in spans.values():
            here.sort(key=lambda span: span[:2])
            for index, (_, until, start, end, tensor) in enumerate(here):
                for later, _, begin, stop, other in here[index + 1 :]:
                    if later > until:
                        break
                    in_place = later == until and begin == start and tensor in other.src
                    apart = stop <= start or end <= begin
                    assert apart or in_place or end == start or stop == begin, (tensor, other)
        Watched.total += self.checked

    total = 0


@pytest.mark.parametrize("name", LEAN[::3])
def test_tensors_that_live_at_once_do_not_share_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "Allocation", Watched)
    Watched.total = 0
    asked = subject(header_of(*load(entries()[name])))
    for setting in ("processor", "flash", "scores", "partial", "two"):
        if setting in entries()[name]["plans"]:
            sized(asked, setting)
    assert Watched.total > 100


# By hand


def test_blocks_by_hand() -> None:
    blocks = Blocks(128)
    assert blocks.take(100) == (0, 0)
    assert blocks.take(300) == (0, 128)
    assert blocks.take(128) == (0, 512)
    assert blocks.bytes == 640
    blocks.give_back(0, 128, 300)
    assert blocks.take(200) == (0, 128)  # 256 of the 384 that are free
    assert blocks.take(129) == (0, 640)  # 128 are left there
    assert blocks.take(1) == (0, 384)
    assert blocks.bytes == 896
    blocks.give_back(0, 640, 129)
    blocks.give_back(0, 512, 128)
    assert blocks.take(384) == (0, 512)  # neighbours are one block, up to the end
    assert blocks.bytes == 896


def test_blocks_of_a_backend_with_small_allocations_by_hand() -> None:
    blocks = Blocks(128, largest=1024)
    assert blocks.take(768) == (0, 0)
    assert blocks.take(512) == (1, 0)
    assert blocks.take(256) == (0, 768)
    assert blocks.take(4096) == (2, 0)  # nothing is split: it has a chunk of its own
    assert blocks.bytes == 1024 + 512 + 4096


def tensor(
    op: str, *src: Node, ne: tuple[int, int, int, int] = (256, 1, 1, 1), is_input: bool = False
) -> Node:
    node = Node(op, "F32", ne, list(src))
    node.backend = 0
    node.is_input = is_input
    return node


def test_an_allocation_by_hand() -> None:
    blocks = Blocks(128)
    bytes_of = lambda _, node: node.bytes  # noqa: E731
    given = tensor("none", is_input=True)
    normed = tensor("rms_norm", given)  # the input is read again, so this takes memory of its own
    wide = tensor("mul_mat", normed, ne=(1024, 1, 1, 1))
    product = tensor("mul_mat", normed)
    summed = tensor("add", product, given)  # in place of the product
    narrow = tensor("mul_mat", wide)  # in the block that the norm's result leaves
    last = tensor("mul", narrow, summed)
    Allocation([blocks], bytes_of).place([normed, wide, product, summed, narrow, last], [given])
    where = [node.block[1] for node in (given, normed, wide, product, summed, narrow, last)]
    assert where == [0, 1024, 2048, 6144, 6144, 0, 0]
    assert blocks.bytes == 7168
