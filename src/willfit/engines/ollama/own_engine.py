"""Ollama's own engine: what its weights and caches take, and how it places them (0.6 to 0.24).

Weights (`ml/backend/ggml/ggml.go: New`) and caches (`kvcache/causal.go`, `kvcache/recurrent.go`) are made by its own
rules. Its graphs are built in Go, model by model; here llama.cpp's graph of the same model stands for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.architectures.mixers import Attention, CrossAttention, LatentAttention, Recurrent
from willfit.architectures.model import Architecture
from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.llama_cpp.backends.repacking import Repacking
from willfit.engines.llama_cpp.cache.layers import CacheSettings
from willfit.engines.llama_cpp.eras import era_for as llama_cpp_era
from willfit.engines.llama_cpp.graph.families import is_known
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.graph.tensor import Buffer
from willfit.engines.llama_cpp.loading.layers import LayerPlaces
from willfit.engines.llama_cpp.loading.weights import Loader, Placed
from willfit.engines.llama_cpp.plan import ContextSettings, context, load
from willfit.engines.ollama.eras import Era
from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.graph import vision_graph
from willfit.engines.ollama.narrow import WIDE
from willfit.engines.ollama.placement import Room, lay_out
from willfit.engines.ollama.settings import Resolved, Settings
from willfit.ggml_types import GGML_TYPES

#: Parts of tensor names that say where a tensor goes: to the host, to the output's device, to every layer.
_INPUTS = frozenset({"position_embd", "token_embd", "token_norm_embd", "token_types"})
_OUTPUTS = frozenset({
    "cls", "output", "output_norm", "altup_proj", "altup_unembd_proj", "per_layer_token_embd", "per_layer_model_proj",
    "per_layer_proj_norm",
})  # fmt: skip
_REPEATED = frozenset({"rope_freqs", "rope_factors_long", "rope_factors_short"})
_ENCODERS = ("v.", "mm.", "s.")
_TABLE = "token_embd.weight"
#: Stored in BF16, held in F32.
_WIDENED = "_exps.bias"

#: Tokens that sliding layers keep whatever their window, by architecture.
_MEMORY = {"gptoss": 4096, "gpt-oss": 4096, "gemma4": 4096}

#: Cells are a multiple of this with flash attention.
_FLASH_PADDING = 256


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a model takes, layer by layer, the output as the last.

    Attributes
    ----------
    inputs
        Weights that stay on the host.
    weights, host_weights
        Weights of each layer on a device, and on the host.
    cache, states
        Keys and values, and recurrent states, of each layer.
    cache_formulas, state_formula
        How they come about.
    """

    inputs: int
    weights: tuple[int, ...]
    host_weights: tuple[int, ...]
    cache: tuple[int, ...]
    states: tuple[int, ...]
    cache_formulas: tuple[str, ...]
    state_formula: str

    @property
    def layers(self) -> tuple[int, ...]:
        """All of each layer on a device."""
        return tuple(sum(one) for one in zip(self.weights, self.cache, self.states, strict=True))


@dataclass(frozen=True, slots=True)
class Graphs:
    """Compute graphs.

    Attributes
    ----------
    devices, host
        Bytes on each device, and on the host.
    formulas, host_formula
        How they come about.
    whole
        All layers are on devices.
    rows_only
        Nothing is computed on the host but rows of embeddings.
    known
        How llama.cpp builds the model is known.
    """

    devices: tuple[int, ...]
    host: int
    formulas: tuple[str, ...]
    host_formula: str
    whole: bool = False
    rows_only: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """Where layers are.

    Attributes
    ----------
    layers
        Indices of the layers of each device; the output comes after the last.
    graphs
        What that computes in.
    """

    layers: tuple[tuple[int, ...], ...]
    graphs: Graphs

    @property
    def count(self) -> int:
        """Layers on devices."""
        return sum(len(one) for one in self.layers)


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """A model in Ollama's own engine.

    Attributes
    ----------
    header, architecture, facts
        The model.
    backends
        Devices by index, then the processor.
    resolved, parallel
        Settled settings, and how many sequences there are.
    """

    header: GgufHeader
    architecture: Architecture
    facts: Facts
    backends: tuple[Backend, ...]
    resolved: Resolved
    parallel: int

    @property
    def flash(self) -> bool:
        """Flash attention is on."""
        return self.resolved.flash == "on"

    @property
    def era(self) -> Era:
        """How the version behaves."""
        return self.resolved.era

    def sizes(self) -> Sizes:
        """What the model takes, layer by layer."""
        count = len(self.facts.layers)
        device, host = self.backends[0], self.backends[-1]
        inputs, on_device, on_host = 0, [0] * (count + 1), [0] * (count + 1)
        has_output = any(tensor.name.startswith("output.") for tensor in self.header.tensors)
        for tensor in self.header.tensors:
            widened = tensor.type == "BF16" and tensor.name.endswith(_WIDENED)
            held = replace(tensor, type="F32") if widened else tensor
            placed = Placed(tensor.name, held, Buffer("CPU", None, weights=True)).node()
            size = _padded(device.bytes(placed), device.alignment)
            plain = _padded(host.bytes(placed), host.alignment)
            found = _layers_of(tensor.name, count)
            if not found:
                inputs += plain
                if tensor.name == _TABLE and not has_output:
                    found = (count,)
            for layer in found:
                on_device[layer] += size
                on_host[layer] += plain
        if self.facts.inline is not None and not any(
            t.name.startswith(_ENCODERS) for t in self.header.tensors
        ):
            moving = self.facts.inline.total - self.facts.inline.looked_up
            inputs += self.facts.inline.looked_up
            on_device[count] += moving
            on_host[count] += moving
        caches = [self._cache(layer) for layer in range(count)]
        states = [self._states(layer) for layer in range(count)]
        kept = 1 + (self.era.checkpoints if self.resolved.runner == "ollama-engine" else 0)
        each = f"{self.parallel} sequences x {kept}"
        return Sizes(
            inputs,
            tuple(on_device),
            tuple(on_host),
            (*[size for size, _ in caches], 0),
            (*[numbers * 4 * self.parallel * kept for numbers in states], 0),
            tuple(formula for _, formula in caches),
            f"{each} x {{}} numbers of state x 4 B",
        )

    def state_numbers(self, layers: Sequence[int]) -> int:
        """Elements of the recurrent states of some layers for one sequence."""
        return sum(self._states(layer) for layer in layers if layer < len(self.architecture.layers))

    def _cache(self, layer: int) -> tuple[int, str]:
        """Bytes of a layer's keys and values, and how they come about."""
        if layer >= len(self.architecture.layers):
            return 0, ""
        kind = GGML_TYPES[self.resolved.cache_type.upper()]
        for mixer in self.architecture.layers[layer].mixers:
            if isinstance(mixer, CrossAttention):
                numbers = mixer.cached_elements(0)
                return 4 * numbers, f"{numbers} numbers of an image's keys and values x 4 B"
            if isinstance(mixer, Attention) and mixer.keeps_cache and not mixer.shares_cache:
                keys, values = mixer.kv_heads * mixer.head_dim, mixer.kv_heads * mixer.value_dim
                cells = self._cells(self._kept(mixer))
            elif isinstance(mixer, LatentAttention):
                # The latent is stored as keys and, without the rotated part, as values.
                keys, values = mixer.latent_per_token, mixer.kv_rank
                if min(self.facts.kv_heads, default=1) > 1:
                    keys = mixer.heads * (mixer.nope_dim + mixer.rope_dim)
                    values = mixer.heads * mixer.value_dim
                cells = self._cells(0)
            else:
                continue
            row = (keys + values) // kind.block * kind.bytes
            return cells * row, f"{cells} cells x {row} B"
        return 0, ""

    def _kept(self, mixer: Attention) -> int:
        """Tokens of each sequence that a sliding layer keeps; 0 for all."""
        if not mixer.window or not self.era.windows:
            return 0
        spare = self.era.spare_token and self.parallel > 1
        kept = max(mixer.window + spare, _MEMORY.get(self.facts.architecture, 0))
        return 0 if kept >= self.resolved.context else kept

    def _cells(self, kept: int) -> int:
        batch = min(self.resolved.batch, self.resolved.context)
        cells = self.parallel * (kept or self.resolved.context) + (batch if kept else 0)
        return _padded(cells, _FLASH_PADDING if self.flash else self.era.padding)

    def _states(self, layer: int) -> int:
        if layer >= len(self.architecture.layers):
            return 0
        return sum(
            mixer.recurrent + mixer.conv_channels * max(0, mixer.conv_kernel - 1)
            for mixer in self.architecture.layers[layer].mixers
            if isinstance(mixer, Recurrent)
        )

    def graphs(self, layers: Sequence[Sequence[int]]) -> Graphs:
        """What the compute graphs take with these layers on devices."""
        count = len(self.facts.layers)
        places = {layer: device for device, one in enumerate(layers) for layer in one}
        where = LayerPlaces(tuple(places.get(layer) for layer in range(count)), places.get(count))
        text = replace(
            self.header, tensors=tuple(t for t in self.header.tensors if not t.name.startswith(_ENCODERS))
        )
        loader = Loader(where, self.backends, "", mapped=False, repack=Repacking())
        era = replace(
            llama_cpp_era(self.era.llama_cpp),
            half_masks=self.era.half_masks,
            gates_at_once=self.era.gates_at_once,
        )
        batch = min(self.resolved.batch, self.resolved.context)
        cache = CacheSettings(
            _padded(self.resolved.context * self.parallel, _FLASH_PADDING),
            self.parallel,
            unified=True,
            ubatch=batch,
            type_k=self.resolved.cache_type.upper(),
            type_v=self.resolved.cache_type.upper(),
            flash_attn=self.flash,
        )
        model = load(text, self._kept_architecture(), loader)
        made = context(model, ContextSettings(cache, self.parallel), era)
        rows = f"{batch} tokens x {self.facts.embedding} x 4 B of embeddings"
        drawn, drawing = 0, ""
        if self.facts.inline is not None and not (self.flash and self.era.encoder_flash):
            drawn, drawing = vision_graph(self.facts)
        sizes, formulas = [], []
        for device, one in enumerate(layers):
            size = made.compute.get(self.backends[device].place, 0) if one else 0
            formula = f"{size} B of llama.cpp's graph with {self.parallel} rows of logits"
            if count in one and drawn > size:
                size, formula = drawn, drawing
            sizes.append(size)
            formulas.append(formula)
        host = made.compute.get(self.backends[-1].place, 0)
        whole = len(places) > count
        rows_only = whole and not self._attends_on_host()
        return Graphs(
            tuple(sizes),
            batch * self.facts.embedding * 4 if rows_only else host,
            tuple(formulas),
            rows if rows_only else f"{host} B of llama.cpp's graph with {self.parallel} rows of logits",
            whole,
            rows_only,
            is_known(str(self.header.metadata.get("general.architecture"))),
        )

    def _attends_on_host(self) -> bool:
        """Whether devices have no flash attention for some heads."""
        return (
            self.flash
            and not self.era.wide_flash
            and any(
                isinstance(mixer, Attention) and mixer.head_dim == WIDE
                for layer in self.architecture.layers
                for mixer in layer.mixers
            )
        )

    def _kept_architecture(self) -> Architecture:
        """The architecture with windows as wide as what is kept."""
        changed = []
        for layer in self.architecture.layers:
            mixers = tuple(
                replace(mixer, window=self._kept(mixer), chunk=0) if isinstance(mixer, Attention) else mixer
                for mixer in layer.mixers
            )
            changed.append(replace(layer, mixers=mixers))
        return replace(self.architecture, layers=tuple(changed))

    def layout(self, rooms: Sequence[Room], settings: Settings, sizes: Sizes) -> Layout:
        """Where layers go: laid out, measured and laid out anew until that changes nothing (`ollamaServer.Load`)."""
        layers = self._laid_out(
            rooms, settings, (0,) * len(sizes.layers), Graphs((0,) * len(rooms), 0, (), "")
        )
        now = Layout(layers, self.graphs(layers))
        tried = {layers}
        while True:
            layers = self._laid_out(rooms, settings, sizes.layers, now.graphs)
            found = Layout(layers, now.graphs)
            if layers in tried or found.count > now.count:
                return self._between(rooms, settings, sizes, now, found.count)
            tried.add(layers)
            now = Layout(layers, self.graphs(layers))

    def _between(
        self, rooms: Sequence[Room], settings: Settings, sizes: Sizes, now: Layout, most: int
    ) -> Layout:
        """Numbers of layers between two layouts that lead to each other, the larger first."""
        if self.resolved.requested >= 0:
            return now
        for count in range(most - 1, now.count, -1):
            layers = self._laid_out(rooms, settings, sizes.layers, now.graphs, count)
            tried = Layout(layers, self.graphs(layers))
            again = self._laid_out(rooms, settings, sizes.layers, tried.graphs)
            if tried.count <= sum(len(one) for one in again):
                return tried
        return now

    def _laid_out(
        self,
        rooms: Sequence[Room],
        settings: Settings,
        layers: Sequence[int],
        graphs: Graphs,
        requested: int | None = None,
    ) -> tuple[tuple[int, ...], ...]:
        reserved = [
            room.minimum + self.resolved.overhead + graph
            for room, graph in zip(rooms, graphs.devices, strict=True)
        ]
        used = max((place for place, graph in enumerate(graphs.devices) if graph), default=0)
        wanted = self.resolved.requested if requested is None else requested
        return lay_out(layers, rooms, reserved, wanted, settings.sched_spread, first_used=used)


def by_counts(counts: Sequence[int], total: int) -> tuple[tuple[int, ...], ...]:
    """The layers of each device where only their numbers are given: the last ones, in order (0.6 to 0.11.10)."""
    placed = sum(counts)
    start = max(0, total - 1 - placed)
    found, at = [], start
    for count in counts:
        found.append(tuple(range(at, at + count)))
        at += count
    return tuple(found)


def _layers_of(name: str, count: int) -> tuple[int, ...]:
    """The layers that hold a tensor, the output being one more; none for what stays on the host."""
    parts = frozenset(name.split("."))
    if parts & _INPUTS:
        return ()
    if parts & _OUTPUTS or name.startswith(_ENCODERS):
        return (count,)
    if parts & _REPEATED:
        return tuple(range(count))
    number = next((part for part in name.split(".") if part.isdigit()), None)
    return (int(number),) if number is not None and int(number) < count else ()


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step
