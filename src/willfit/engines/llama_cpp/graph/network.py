"""A model's graph under construction: what the architectures' builders share (`llama-graph.cpp`).

A builder is given a `Network`: the weights by their GGUF names, the caches, how many tokens and sequences a batch has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from willfit.architectures.blocks.decoder import MAX_LAYERS
from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Layer
from willfit.engines.llama_cpp.cache.loops import runs
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.graph import folding
from willfit.engines.llama_cpp.graph.ops import Graph
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node

#: Architectures with four positions for each token, and those with four where their files divide the rotation.
_MULTI_ROPE = frozenset((
    "qwen2vl", "paddleocr", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp", "qwen3tts",
))  # fmt: skip
_MAYBE_MULTI_ROPE = frozenset(("glm4", "glm4moe", "hunyuan_vl", "bailingmoe3", "dflash"))


class MissingTensor(Exception):
    """A file lacks a tensor that its architecture has."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a graph is built for.

    Attributes
    ----------
    tokens, sequences, outputs
        Tokens of the batch, the sequences that they belong to, rows of logits.
    cached
        Sequences that the caches hold.
    flash_attn
        Attention without scores in memory.
    kv_unified
        All sequences share one cache.
    embeddings, pooling
        Vectors are wanted, and how they are pooled: `none`, `mean`, `cls`, `last`, `rank`.
    causal
        Tokens see only what is before them.
    kv_on_host
        Caches stay on the host, with what reads them.
    fully_offloaded
        Devices hold all layers and the output.
    pins
        Operations stay where builders want them.
    context
        Tokens that a sequence can have.
    transposed
        Cached values are transposed.
    snapshots
        Recurrent states that are kept of each sequence: the newest, and earlier ones.
    mla, attention_mib, fused_experts
        ik_llama.cpp's `-mla`, `-amb` (0 without a limit) and `-fmoe`.
    drafts
        It is for a layer that predicts further tokens.
    """

    tokens: int
    sequences: int
    outputs: int
    cached: int
    flash_attn: bool
    kv_unified: bool = False
    embeddings: bool = False
    pooling: str = "none"
    causal: bool = True
    kv_on_host: bool = False
    fully_offloaded: bool = True
    pins: bool = True
    context: int = 0
    transposed: bool = False
    snapshots: int = 1
    mla: int = 0
    attention_mib: int = 0
    fused_experts: bool = False
    drafts: bool = False


@dataclass(frozen=True, slots=True)
class Compressor:
    """What makes one entry of several tokens keeps.

    Attributes
    ----------
    entries
        Width x cells x streams.
    sums, scores
        Projections of tokens whose entries are not complete, and their scores: width x rows x streams.
    cells
        Entries that a stream holds.
    ratio, overlaps
        Tokens of an entry; entries are made of the tokens of the entry before, too.
    rows
        Tokens that are kept for a stream.
    indexes
        Entries are keys of an indexer.
    rotation
        Order of the Hadamard matrix that entries are multiplied by; 0 without.
    """

    entries: Node
    sums: Node
    scores: Node
    cells: int
    ratio: int
    overlaps: bool
    rows: int
    indexes: bool
    rotation: int


@dataclass(slots=True)
class LayerCache:
    """What a layer keeps, as tensors that are allocated before the graph runs; None where it keeps no such thing.

    Attributes
    ----------
    k, v
        Keys and values: width x cells x streams.
    cells, windowed
        Tokens that a stream holds, and whether the layer sees a window of them.
    r, s
        Inputs of a short convolution, and the recurrent state: width x sequences.
    p
        Inputs of the convolution behind an n-gram memory: width x sequences.
    index, index_values
        Keys of an indexer, and values beside them that nothing reads.
    compressor, index_compressor
        Of compressed attention, and of its indexer.
    rotates_k, rotates_v
        Order of the Hadamard matrix that keys, values are multiplied by before they are quantized; 0 without.
    head
        Elements of a row of keys as they are allocated, values being one row; 0 where rows are those of tokens.
    """

    k: Node | None = None
    v: Node | None = None
    cells: int = 0
    windowed: bool = False
    r: Node | None = None
    s: Node | None = None
    p: Node | None = None
    index: Node | None = None
    index_values: Node | None = None
    compressor: Compressor | None = None
    index_compressor: Compressor | None = None
    rotates_k: int = 0
    rotates_v: int = 0
    head: int = 0

    def allocated(self, tensor: Node) -> Node:
        """A tensor in the shape in which it is allocated."""
        if not self.head or tensor not in (self.k, self.v):
            return tensor
        width = self.head if tensor is self.k else tensor.elements
        return Node("none", tensor.type, (width, tensor.elements // width, 1, 1), buffer=tensor.buffer)

    @property
    def key(self) -> Hashable:
        """Equal for caches that are used in the same way."""
        tensors = (*self.keys_values(), *self.states())
        shapes = tuple((one.type, one.ne, one.buffer) for one in tensors)
        present = tuple(one is not None for one in (self.k, self.v, self.r, self.s, self.index, self.p))
        return shapes, present, self.cells, self.windowed, self.rotates_k, self.rotates_v

    def keys(self) -> list[Node]:
        """Keys that attention reads."""
        return [self.k] if self.k is not None else []

    def keys_values(self) -> list[Node]:
        """All that grows with the context."""
        found = [self.k, self.v, self.index, self.index_values]
        found += [one.entries for one in (self.compressor, self.index_compressor) if one is not None]
        return [one for one in found if one is not None]

    def states(self) -> list[Node]:
        """What does not grow."""
        found = [self.r, self.s, self.p]
        for one in (self.compressor, self.index_compressor):
            if one is not None:
                found += [one.sums, one.scores]
        return [one for one in found if one is not None]


class Network(Graph):
    """The graph of one model and batch.

    Attributes
    ----------
    meta, layers
        Metadata of the GGUF header, and what each layer is; in graphs that draft also those that do.
    weights
        Tensors by their GGUF names, and those that several devices have by name and backend, `rope_freqs.weight@1`. The
        head of a model that ties it is `output.weight`.
    caches
        Of each layer.
    batch, era
        What it is built for, and how llama.cpp of that time builds.
    devices
        Backend of each layer, and of the output as the last one.
    host
        Backend of the host's processor.
    order
        Which layer is run, in order.
    drafting
        The layer that drafts.
    alike
        Of each layer of the file a number, the same where tensors are alike; empty to build all layers.
    kept
        How often patterns of layers are built, by the layer that they start at, where that is known.
    folds
        The layers that are built, in runs of those that repeat.
    stack
        What names of tensors in layers begin with: `enc.` or `dec.` in models of two stacks.
    ignored
        Tensors outside of the layers, and of each layer, that nothing reads.
    windows, has_windows
        Which layers see a window, and whether any does.
    token_ids
        Tokens that embeddings are read for; None before.
    own_head
        The head of a layer that drafts; None if it uses the model's.
    distances
        Positions of cells, for scores that fall with distance; None before they are needed.
    vectors, result, logits
        What goes into the first layer; what comes out of the last norm, and of the head. None before they are built.
    """

    def __init__(
        self,
        meta: Metadata,
        layers: tuple[Layer, ...],
        weights: Mapping[str, Node],
        caches: list[LayerCache],
        batch: Batch,
        era: Era,
        devices: list[int],
        host: int,
        alike: Sequence[int] = (),
        kept: Mapping[int, int] = MappingProxyType({}),
        drafting: int = 0,
    ) -> None:
        super().__init__()
        self.meta = meta
        self.layers = layers
        self.weights = weights
        self.caches = caches
        self.batch = batch
        self.era = era
        self.devices = devices
        self.host = host
        self.order = runs(layers)
        self.alike = alike
        self.kept = kept
        self.folds: list[folding.Run] = []
        self.stack = ""
        self.ignored: frozenset[str] = frozenset()
        self.hidden = meta.integer("embedding_length")
        self.windows = tuple(
            any(
                (isinstance(mixer, Attention) and (mixer.window or mixer.chunk))
                or (isinstance(mixer, LatentAttention) and mixer.window)
                for mixer in layer.mixers
            )
            for layer in layers
        )
        self.has_windows = any(self.windows)
        self._lists = [
            value
            for value in meta.values.values()
            if isinstance(value, tuple | list) and len(layers) <= len(value) <= MAX_LAYERS
        ]
        self.token_ids: Node | None = None
        self.drafting = drafting
        self.own_head: Node | None = None
        self.distances: Node | None = None
        self.vectors: Node | None = None
        self.result: Node | None = None
        self.logits: Node | None = None

    # Weights

    def outer(self, name: str) -> Node | None:
        """A tensor outside of the layers: `output_norm.weight`; None if the model lacks it.

        Of tensors that each device has a copy of, the current layer's.
        """
        if name in self.ignored:
            return None
        copy = self.weights.get(f"{name}@{self.devices[self.layer]}") if self.layer >= 0 else None
        return copy if copy is not None else self.weights.get(name)

    def weight(self, leaf: str) -> Node | None:
        """A tensor of the current layer: `attn_q.weight`."""
        return None if leaf in self.ignored else self.weights.get(f"{self.stack}blk.{self.block}.{leaf}")

    def bias(self, stem: str) -> Node | None:
        """A bias of the current layer: `attn_q`."""
        return self.weight(f"{stem}.bias")

    def needed(self, leaf: str) -> Node:
        """A tensor of the current layer without which the architecture cannot be."""
        found = self.weight(leaf)
        if found is None:
            raise MissingTensor(f"{self.stack}blk.{self.block}.{leaf}")
        return found

    def value(self, key: str, default: float = 0.0) -> float:
        """A number of the metadata under the architecture's own prefix."""
        found = self.meta.values.get(f"{self.meta.architecture}.{key}", default)
        if isinstance(found, tuple | list):
            found = found[self.layer] if 0 <= self.layer < len(found) else default
        return float(found)

    def attention(self) -> Attention | LatentAttention:
        """What the current layer attends with."""
        for mixer in self.layers[self.block].mixers:
            if isinstance(mixer, Attention | LatentAttention):
                return mixer
        raise LookupError(f"layer {self.layer} has no attention")

    @property
    def block(self) -> int:
        """Where the file has the current layer; another if a model runs its layers several times."""
        return self.order[self.layer] if self.layer >= 0 else -1

    @property
    def slides(self) -> bool:
        """Whether the current layer sees a window."""
        return self.windows[self.block]

    @property
    def is_last(self) -> bool:
        """Whether the current layer is the last one."""
        return self.batch.drafts or self.layer == len(self.order) - 1

    def mixer(self, kind: type[Mixer]) -> Mixer | None:
        """The current layer's mixer of a kind."""
        return next((one for one in self.layers[self.block].mixers if isinstance(one, kind)), None)

    @property
    def snapshots(self) -> int:
        """Recurrent states that are kept of each sequence."""
        return self.batch.snapshots

    @property
    def cache(self) -> LayerCache:
        """What the current layer keeps."""
        return self.caches[self.layer]

    def walk(self, trait: Callable[[], Hashable] | None = None) -> Iterator[int]:
        """The layers to build, in order; each is the current one while it is built.

        Layers that are as those before them are left out once these have shown what they need (`folding.py`).

        Parameters
        ----------
        trait
            What the current layer does that neither its tensors nor its cache tell; None to build all layers.
        """
        last = len(self.order) - 1
        if self.alike and trait is not None:
            self.folds = folding.runs([self._key(index, trait) for index in range(last)], self.kept)
        else:
            self.folds = [folding.Run(index, 1, 1, 1) for index in range(last)]
        for index in (*(layer for run in self.folds for layer in run.layers), last):
            self.layer = index
            yield index
        self.layer = -1

    def _key(self, index: int, trait: Callable[[], Hashable]) -> Hashable:
        self.layer = index
        block = self.order[index]
        listed = tuple(value[index] for value in self._lists if index < len(value))
        mixers = self.layers[block].mixers
        return self.alike[block], self.devices[index], self.caches[index].key, mixers, listed, trait()

    # Pieces

    def linear(self, weight: Node, x: Node, scale: Node | None = None) -> Node:
        """A linear layer."""
        y = self.mul_mat(weight, x)
        return self.mul(y, scale) if scale is not None else y

    def projected(self, stem: str, x: Node) -> Node:
        """The linear layer `stem` of the current layer, with its scale and bias if it has them."""
        y = self.linear(self.needed(f"{stem}.weight"), x, self.weight(f"{stem}.scale"))
        bias = self.bias(stem)
        return self.add(y, bias) if bias is not None else y

    def pinned(self, x: Node) -> Node:
        """Keep a norm, or a layer's last operation, on the device of its layer."""
        pins = self.era.pins_norms
        if pins == "whole" and not (self.batch.tokens < 32 or self.batch.fully_offloaded):
            return x
        if pins and self.batch.pins and self.layer >= 0:
            x.backend = self.devices[self.layer]
        return x

    def normed(
        self,
        x: Node,
        weight: Node | None,
        bias: Node | None = None,
        kind: str = "rms_norm",
        pinned: bool = True,
    ) -> Node:
        """A norm with its weights."""
        if self.era.fuses_norms and kind == "rms_norm" and weight is not None and bias is None:
            y = self.weighted_norm(x, weight)
            return self.pinned(y) if pinned else y
        y = {"rms_norm": self.rms_norm, "norm": self.norm}[kind](x)
        if pinned and (weight is not None or bias is not None):
            self.pinned(y)
        if weight is not None:
            y = self.mul(y, weight)
        return self.add(y, bias) if bias is not None else y

    def layer_norm(self, x: Node, stem: str, kind: str = "rms_norm", pinned: bool = True) -> Node:
        """The norm `stem` of the current layer."""
        return self.normed(x, self.weight(f"{stem}.weight"), self.bias(stem), kind, pinned)

    # Inputs

    def input(self, type: str, *ne: int, name: str = "") -> Node:
        """See `Graph.input`; in some builds inputs have a buffer of their own."""
        node = super().input(type, *ne, name=name)
        if self.era.inputs_apart:
            node.buffer = Buffer("inputs", None, weights=False)
        return node

    def embedded(self, scale: float = 0.0) -> Node:
        """Token embeddings, or vectors that come instead of them.

        Parameters
        ----------
        scale
            What they are multiplied by where the file does not say; 0 for nothing.
        """
        tokens = self.token_ids = self.input("I32", self.batch.tokens, name="tokens")
        table = self.outer("token_embd.weight")
        if table is None:
            raise MissingTensor("token_embd.weight")
        rows = self.get_rows(table, tokens)
        width = self.hidden * (1 + self.deepstack if self.era.selects_input else 1)
        if width != self.hidden:
            rows = self.pad(rows, width - self.hidden)
        if self.era.selects_input:
            vectors = self.input("F32", width, self.batch.tokens, name="vectors")
            self.expand(rows)
            self.expand(vectors)
            if self.era.mixes_inputs:
                self._mix_inputs(width)
        x = rows
        if width != self.hidden:
            x = self.view(rows, (self.hidden, self.batch.tokens), rows.nb[1:2])
        self.vectors = x
        if self.value("embedding_scale", scale):
            x = self.scale(x if x.is_contiguous else self.cont(x))
        if self.era.selects_input:
            self.expand(x)
        return x

    def _mix_inputs(self, width: int) -> None:
        """Vectors among rows of the table: computed only for such batches, but always allocated."""
        count = self.batch.tokens
        table = self.weights["token_embd.weight"]
        rows = self.get_rows(table, self.input("I32", count, name="mixed tokens"))
        if width != self.hidden:
            rows = self.pad(rows, width - self.hidden)
        slots = self.input("I64", count, name="mixed slots")
        vectors = self._like("dup", self.input("F32", width, count, name="mixed vectors"))
        self.expand(self.set_rows(vectors, rows, slots))

    @property
    def tokens(self) -> Node:
        """The tokens that embeddings are read for."""
        assert self.token_ids is not None
        return self.token_ids

    @property
    def deepstack(self) -> int:
        """How many layers are given vectors of pictures beside the first."""
        listed = self.meta.values.get(f"{self.meta.architecture}.deepstack_mapping")
        if isinstance(listed, tuple | list):
            return len({index for index in listed if index >= 0})
        return self.meta.integer("n_deepstack_layers", 0)

    def deep_vectors(self, index: int) -> Node:
        """Vectors of pictures that a layer adds: a part of what the first is given."""
        assert self.vectors is not None
        whole = self.vectors
        return self.view(whole, (self.hidden, self.batch.tokens), whole.nb[1:2], 4 * index * self.hidden)

    def positions(self) -> Node:
        """Positions of the tokens; four of each for models that see pictures."""
        return self.input("I32", self.batch.tokens * (4 if self._multi_rope() else 1), name="positions")

    def _multi_rope(self) -> bool:
        if self.meta.architecture in _MULTI_ROPE:
            return True
        sections = self.meta.values.get(f"{self.meta.architecture}.rope.dimension_sections") or (0, 0)
        return self.meta.architecture in _MAYBE_MULTI_ROPE and bool(sections[0] and sections[1])

    def rope_factors(self) -> Node | None:
        """Factors of rotary frequencies; None if the model has none."""
        found = self.outer("rope_freqs.weight")
        if found is not None:
            return found
        trained = self.meta.integer("context_length", 0)
        original = self.meta.integer("rope.scaling.original_context_length", trained)
        kind = "long" if self.batch.context > original else "short"
        return self.outer(f"rope_factors_{kind}.weight")

    def rope(self, a: Node, positions: Node, factors: Node | None = None) -> Node:
        """See `Graph.rope`: `kind` says what not all devices can, `yarn` and `part` of a head."""
        node = super().rope(a, positions, factors)
        meta = self.meta
        widths = [meta.integer(f"rope.dimension_count{which}", 0) for which in ("", "_swa")]
        if meta.values.get(f"{meta.architecture}.rope.scaling.type") == "yarn":
            node.kind = "yarn"
        elif any(widths) and a.ne[0] not in widths:
            node.kind = "part"
        return node

    def temperature(self) -> Node:
        """Factors of queries that depend on the positions."""
        return self.input("F32", 1, 1, self.batch.tokens, name="temperature")

    def output_rows(self) -> Node:
        """Which tokens' results are wanted."""
        return self.input("I32", self.batch.outputs, name="output rows")

    # Results

    def head(self, x: Node) -> Node:
        """Logits without what follows the head's own weights."""
        if self.own_head is not None:
            return self.linear(self.own_head, x)
        y = self.linear(self.weights["output.weight"], x, self.outer("output.scale"))
        bias = self.outer("output.bias")
        return self.add(y, bias) if bias is not None else y

    def capped(self, x: Node) -> Node:
        """Softly capped values."""
        return self.scale(self.unary("tanh", self.scale(x)))

    def finish(self, result: Node, logits: Node | None = None) -> None:
        """End with the last norm's result, and the logits if the model makes any."""
        self.layer = -1
        result.is_output = result.is_output or not self.batch.drafts
        self.result = result
        if logits is not None:
            logits.is_output = True
            self.logits = logits
        self.expand(logits if logits is not None else result)
