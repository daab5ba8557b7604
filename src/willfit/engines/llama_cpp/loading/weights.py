"""Which buffer each tensor is in, and what the buffers take (`llama-model-loader.cpp`, `llama-model.cpp`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from willfit.architectures.gguf.metadata import Metadata
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.engines.llama_cpp.backends.repacking import Repacking
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node, Shape
from willfit.engines.llama_cpp.loading.layers import LayerPlaces
from willfit.engines.llama_cpp.loading.roles import Role, role_of
from willfit.engines.llama_cpp.loading.rows import RowSplit
from willfit.errors import BadInput

#: Name of a tensor of a layer: the stack, the layer, what it is.
LAYER = re.compile(r"^(enc\.|dec\.|)blk\.(\d+)\.(.+)$")

#: Where a model ties its head: one tensor that is read as rows and multiplied with.
_TABLE, _HEAD = "token_embd.weight", "output.weight"

#: Architectures that make the head before the table, and so find none to share.
_HEAD_FIRST = frozenset(("gemma3n", "gemma4"))

#: Tables whose rows are read from the file as they are needed, of these architectures, where they take more than so
#: many bytes (`llama_model_loader::lazy_read`).
_TABLES = frozenset(("per_layer_token_embd.weight",))
_LAZY_ARCHITECTURES = frozenset(("gemma4", "qwen4exp"))
_LAZY_BYTES = 4 * 2**30

#: Tensors that layers on several devices each get a copy of.
SHARED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor in a buffer.

    Attributes
    ----------
    name
        As the graph calls it; a tied head is `output.weight`.
    tensor
        What the file holds.
    buffer
        Where it is.
    shared
        It is one with another tensor in that buffer.
    lazy
        It is read from the file as it is needed.
    """

    name: str
    tensor: GgufTensor
    buffer: Buffer
    shared: bool = False
    lazy: bool = False

    @property
    def ne(self) -> Shape:
        """Its dimensions, four of them."""
        a, b, c, d = [*self.tensor.ne, 1, 1, 1, 1][:4]
        return a, b, c, d

    def node(self) -> Node:
        """It as a leaf of a graph."""
        return Node("none", self.tensor.type, self.ne, name=self.name, buffer=self.buffer)


class Weights(Mapping[str, Node]):
    """Placed tensors as leafs of one graph, by name; those that several devices have also by name and backend.

    Parameters
    ----------
    placed
        By name; see `by_name`.
    """

    def __init__(self, placed: Mapping[str, Placed]) -> None:
        self._placed = placed
        self._nodes: dict[str, Node] = {}

    def __getitem__(self, name: str) -> Node:
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = self._placed[name].node()
        return node

    def get(self, name: str, default: Any = None) -> Any:
        """See `Mapping.get`."""
        return self[name] if name in self._placed else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._placed)

    def __len__(self) -> int:
        return len(self._placed)


def by_name(placed: Sequence[Placed], host: int) -> dict[str, Placed]:
    """Placed tensors by name, and copies on devices by name and backend: `rope_freqs.weight@1`.

    Parameters
    ----------
    host
        Number of the host's backend.
    """
    found: dict[str, Placed] = {}
    for one in placed:
        if one.tensor.name in SHARED:
            found[f"{one.name}@{host if one.buffer.device is None else one.buffer.device}"] = one
        found.setdefault(one.name, one)
    return found


def alike(placed: Sequence[Placed], count: int) -> tuple[int, ...]:
    """A number for each layer, the same for layers with equal tensors in the same buffers."""
    layers: list[list[tuple[str, str, tuple[int, ...], Buffer]]] = [[] for _ in range(count)]
    for one in placed:
        found = LAYER.match(one.name)
        if found and int(found[2]) < count:
            layers[int(found[2])].append((found[1] + found[3], one.tensor.type, one.tensor.ne, one.buffer))
    numbers: dict[tuple[tuple[str, str, tuple[int, ...], Buffer], ...], int] = {}
    return tuple(
        numbers.setdefault(tuple(sorted(layer, key=itemgetter(0))), len(numbers)) for layer in layers
    )


@dataclass(frozen=True, slots=True)
class Loader:
    """How tensors find their buffers.

    Attributes
    ----------
    places
        Where the layers are.
    backends
        Devices by index, then the processor.
    host_buffers
        Name of the first device's pinned host buffers, used where the file is not mapped; empty if it has none.
    mapped
        The file is mapped.
    repack
        What the processor repacks.
    overrides
        Patterns of tensor names, each with the name of a buffer.
    split
        How rows of matrices are divided among devices; None where matrices stay whole.
    lazy
        Buffer of tables that are read as they are needed; empty if all are read at first.
    per_layer_last
        See `role_of`.
    blind, maps_overrides, doubles_biases
        Of ik_llama.cpp: nobody asks whether a device can compute with what it is given; what is sent to the host by
        name is mapped as well; biases of experts are also where their weights are.
    """

    places: LayerPlaces
    backends: tuple[Backend, ...]
    host_buffers: str
    mapped: bool
    repack: Repacking
    overrides: tuple[tuple[str, str], ...] = ()
    split: RowSplit | None = None
    lazy: str = ""
    per_layer_last: bool = False
    blind: bool = False
    maps_overrides: bool = False
    doubles_biases: bool = False
    _patterns: tuple[tuple[re.Pattern[str], str], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        try:
            found = tuple((re.compile(pattern), place) for pattern, place in self.overrides)
        except re.error as error:
            raise BadInput(f"--override-tensor: {error}") from error
        object.__setattr__(self, "_patterns", found)

    def place(self, header: GgufHeader, tied: bool, skipped: frozenset[str] = frozenset()) -> list[Placed]:
        """All tensors of a file in their buffers.

        Parameters
        ----------
        tied
            The head is the table of embeddings.
        skipped
            Names of tensors that are not loaded.
        """
        found = []
        meta = Metadata(header.metadata)
        for listed in header.tensors:
            if listed.name in skipped:
                continue
            tensor = _reshaped(listed, meta)
            role = role_of(tensor.name, meta.architecture, self.per_layer_last)
            if role.op == "none":
                continue
            if tensor.name in SHARED:
                found += self._copies(tensor, meta)
                continue
            if (
                self.lazy
                and tensor.name in _TABLES
                and meta.architecture in _LAZY_ARCHITECTURES
                and tensor.bytes > _LAZY_BYTES
            ):
                found.append(Placed(tensor.name, tensor, Buffer(self.lazy, None, weights=True), lazy=True))
                continue
            buffer = self._buffer(tensor, meta, role)
            found.append(Placed(tensor.name, tensor, buffer))
            if tensor.name == _TABLE and tied:
                head = self._buffer(tensor, meta, Role("output", -1, "mul_mat"))
                shared = head == buffer and meta.architecture not in _HEAD_FIRST
                found.append(Placed(_HEAD, tensor, head, shared))
        return [*found, *(_doubles(found) if self.doubles_biases else ())]

    def _copies(self, tensor: GgufTensor, meta: Metadata) -> list[Placed]:
        """A copy for each place that layers are in."""
        seen: dict[str, Placed] = {}
        for layer in range(len(self.places.layers)):
            buffer = self._buffer(tensor, meta, Role("layer", layer, "rope"))
            seen.setdefault(buffer.place, Placed(tensor.name, tensor, buffer))
        return list(seen.values())

    def _buffer(self, tensor: GgufTensor, meta: Metadata, role: Role) -> Buffer:
        for pattern, place in self._patterns:
            if pattern.search(tensor.name):
                return self._named(tensor, meta, role, place)
        device = None
        if role.stage == "layer":
            device = self.places.layers[role.layer] if role.layer < len(self.places.layers) else None
        elif role.stage == "output":
            device = self.places.output
        if device is not None:
            backend = self.backends[device]
            if self.split is not None and self.split.divides(tensor, role.op, device):
                return Buffer(self.split.place(device), device, weights=True)
            mapped = self.mapped and backend.maps_files
            buffer = Buffer(backend.place, device, weights=True, mapped=mapped)
            if self.blind or backend.supports(_test(tensor, meta, role.op, buffer)):
                return buffer
        return self._host(tensor, meta, role)

    def _named(self, tensor: GgufTensor, meta: Metadata, role: Role, place: str) -> Buffer:
        """The buffer that an override names."""
        if place == "CPU":
            if not self.blind:
                return self._host(tensor, meta, role)
            return (
                replace(self._plain(), apart=True)
                if self.maps_overrides
                else Buffer("CPU", None, weights=True)
            )
        for device, backend in enumerate(self.backends[:-1]):
            if backend.place == place:
                return Buffer(place, device, weights=True)
        if place == self.host_buffers:
            return Buffer(place, None, weights=True)
        known = ", ".join(["CPU", *(backend.place for backend in self.backends[:-1])])
        raise BadInput(f"--override-tensor: unknown buffer type {place!r}", f"known: {known}")

    def _host(self, tensor: GgufTensor, meta: Metadata, role: Role) -> Buffer:
        """Pinned buffers of the first device, else what the processor repacks, else plain memory."""
        if self.host_buffers:
            pinned = Buffer(self.host_buffers, None, weights=True)
            if self.blind or self.backends[0].supports(_test(tensor, meta, role.op, pinned)):
                return Buffer("CPU_Mapped", None, weights=True) if self.mapped else pinned
        own = self.repack.buffer(tensor, role.op)
        return Buffer(own, None, weights=True) if own else self._plain()

    def _plain(self) -> Buffer:
        """Memory that any processor reads."""
        return Buffer("CPU_Mapped" if self.mapped else "CPU", None, weights=True)


def _doubles(placed: Sequence[Placed]) -> Iterator[Placed]:
    """Biases of experts once more, in the buffers of weights that lie apart from them."""
    buffers = {one.name: one.buffer for one in placed}
    for one in placed:
        stem, found, _ = one.name.partition("_exps.bias")
        weights = buffers.get(f"{stem}_exps.weight") if found else None
        if weights is not None and weights != one.buffer:
            yield replace(one, name=f"{one.name}@weights", buffer=weights)


def _reshaped(tensor: GgufTensor, meta: Metadata) -> GgufTensor:
    """A tensor as the graph reads it: DeepSeek-V4's first output projection is one of each group of heads."""
    if meta.architecture != "deepseek4" or not tensor.name.endswith(".attn_output_a.weight"):
        return tensor
    groups = meta.integer("attention.output_group_count")
    return replace(tensor, ne=(tensor.ne[0], tensor.ne[1] // groups, groups))


def _test(tensor: GgufTensor, meta: Metadata, op: str, buffer: Buffer) -> Node:
    """The operation by which llama.cpp asks whether a backend can use a tensor."""
    a, b, c, d = [*tensor.ne, 1, 1, 1, 1][:4]
    weight = Node("none", tensor.type, (a, b, c, d), buffer=buffer)
    if op == "get_rows":
        return Node(op, "F32", (a, 512, 1, 1), [weight, Node("none", "I32", (512, 1, 1, 1))])
    if op == "mul_mat":
        return Node(op, "F32", (b, 512, c, d), [weight, Node("none", "F32", (a, 512, c, d))])
    if op == "mul_mat_id":
        rows = Node("none", "F32", (a, 1, 512, 1))
        return Node(op, "F32", (b, 1, 512, 1), [weight, rows, Node("none", "I32", (1, 512, 1, 1))])
    if op == "add_id":
        used = meta.integer("expert_used_count", 0) or 1
        x = Node("none", "F32", (a, used, 512, 1))
        return Node(op, "F32", x.ne, [x, weight, Node("none", "I32", (used, 512, 1, 1))])
    if op in ("add", "mul"):
        return Node(op, "F32", (a, b, c, d), [Node("none", "F32", (a, b, c, d)), weight])
    if op == "ssm_conv":
        x = Node("none", "F32", (a - 1 + 512, b, 3, 1))
        return Node(op, "F32", (b, 512, 3, 1), [x, weight])
    if op == "ssm_scan":
        size = meta.integer("ssm.state_size") if a == 1 else a
        state = Node("none", "F32", (size, meta.integer("ssm.inner_size") // b, b, 3))
        projected = Node("none", "F32", (size, meta.integer("ssm.group_count", 0) or 1, 512, 3))
        return Node(op, "F32", (1, 1, 1, 1), [state, state, state, weight, projected, projected])
    return Node("none", tensor.type, (a, b, c, d), buffer=buffer)


def buffer_bytes(
    placed: Sequence[Placed],
    backends: Sequence[Backend],
    split: RowSplit | None = None,
    whole_ranges: bool = True,
) -> dict[str, int]:
    """Bytes of each buffer of weights.

    A mapped file counts from its first tensor in that buffer to the end of the last, whatever lies between; without
    `whole_ranges` its tensors count.
    """
    sizes: dict[str, int] = {}
    ranges: dict[tuple[str, int, bool, bool], tuple[int, int]] = {}
    processor = backends[-1]
    for one in placed:
        place = one.buffer.place
        if whole_ranges and (place == "CPU_Mapped" or one.buffer.mapped):
            key = place, one.tensor.file, one.lazy, one.buffer.apart
            start, end = ranges.get(key, (one.tensor.offset, 0))
            last = one.tensor.offset + one.tensor.bytes
            ranges[key] = min(start, one.tensor.offset), max(end, last)
            continue
        if one.shared:
            continue
        backend = processor if one.buffer.device is None else backends[one.buffer.device]
        divided = (
            split is not None and one.buffer.device is not None and place == split.place(one.buffer.device)
        )
        size = sum(split.bytes(one.tensor)) if split is not None and divided else backend.bytes(one.node())
        sizes[place] = sizes.get(place, 0) + -(-size // backend.alignment) * backend.alignment
    for (place, *_), (start, end) in ranges.items():
        sizes[place] = sizes.get(place, 0) + end - start
    return sizes
