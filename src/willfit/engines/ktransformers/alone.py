"""KTransformers' own programs: everything but experts on cards, packed to 4 bits while it is loaded.

Rules for a model say where each of its modules goes (`optimize/optimize_rules/`): matrices become Marlin's, experts
stay in GGUF files that are mapped, the token table is in RAM. Rules for several cards give each as many layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Tensor
from willfit.engines.activations import widest_layer_elements
from willfit.engines.allocated_cache import capacity_of, demand_of
from willfit.engines.base import Machine, Subject
from willfit.engines.borrowed import NOTE, activation_term, graph_terms, library_terms, weights_between
from willfit.engines.experts import expert_bytes, expert_matrices, most_experts
from willfit.engines.ktransformers.models import support
from willfit.engines.ktransformers.settings import Settings
from willfit.engines.ktransformers.sources import SOURCES
from willfit.engines.support import model_note, model_refusal, others
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, exact
from willfit.formats.ggml import Ggml
from willfit.quantities import DTYPE_BYTES, MIB, ceil_div, format_bytes, round_up

#: Marlin's matrices: inputs and outputs are padded to these, so many inputs share a 16-bit scale, and each matrix has
#: a workspace of integers for each so many outputs (`operators/linear.py: KLinearMarlin`).
_INPUTS, _OUTPUTS, _GROUP, _WORKSPACE = 128, 64, 64, 16 * 4

#: Blocks of a checkpoint in FP8, with scales in fp32 (`operators/linear.py: KLinearFP8`).
_BLOCK, _SCALE = 128, 4

#: FlashInfer's workspace for latent attention, and since when there is one.
_FLASHINFER = 128 * MIB

#: Tokens of a part of a prompt: in a chat's window, and in the server.
_CHUNK_ALONE, _CHUNK_SERVED = 8192, 256

#: Tokens of a page where several users are served.
_SERVED_PAGE = 256

#: Bytes of a score: of the last token of a prompt in fp32, of all tokens of a batch in 16 bits.
_LAST, _EVERY = 4, 2

#: Tokens of batches of which graphs are made beside those of a part of a prompt
#: (`server/balance_serve/inference/model_runner.py: generate_cuda_graphs`), and between them beyond the largest.
_CAPTURED, _STEP = (1, 2, 3, 64, 256, 512), 1024


@dataclass(frozen=True)
class Alone:
    """A model as one of the own programs would put it on cards."""

    subject: Subject
    machine: Machine
    settings: Settings

    @property
    def served(self) -> bool:
        """Whether several users are served at once."""
        return self.settings.program == "balance_serve"

    @property
    def page(self) -> int:
        """Tokens of a page of the cache."""
        latent = any(isinstance(mixer, LatentAttention) for mixer in self._mixers)
        return _SERVED_PAGE if self.served else self.settings.era.page if latent else 1

    @property
    def tokens(self) -> int:
        """Tokens of the cache."""
        return round_up(self.settings.cache_lens or self.settings.era.cache_lens, self.page)

    @property
    def chunk(self) -> int:
        """Tokens of a prompt that are computed at once, at most the cache's."""
        chunk = self.settings.chunk_size or (_CHUNK_SERVED if self.served else _CHUNK_ALONE)
        return min(chunk, self.tokens)

    @property
    def captured(self) -> tuple[int, ...]:
        """Tokens of each batch of which a graph is made."""
        if not self.served:
            return (1,)
        chunk = self.settings.chunk_size or _CHUNK_SERVED
        return tuple(
            sorted({*_CAPTURED, self.settings.max_batch_size, chunk, *range(_STEP, chunk + 1, _STEP)})
        )

    @property
    def width(self) -> int:
        """Bytes of a number that is not packed."""
        return DTYPE_BYTES[self.subject.architecture.dtype]

    @cached_property
    def _mixers(self) -> list[object]:
        return [mixer for layer, _ in self.subject.architecture.blocks for mixer in layer.mixers]

    def layers(self, at: int) -> tuple[int, int]:
        """Which layers a card holds."""
        count, cards = len(self.subject.architecture.layers), self.settings.gpus
        return count * at // cards, count * (at + 1) // cards

    def weights(self, at: int) -> tuple[int, int]:
        """Bytes of packed matrices, and of everything else, on a card."""
        first, last = self.layers(at)
        tensors = [
            tensor for layer in self.subject.architecture.layers[first:last] for tensor in layer.tensors
        ]
        if at == self.settings.gpus - 1:
            tensors += list(self.subject.architecture.head)
            if self.subject.architecture.tied:
                shape = self.subject.architecture.vocab_size, self.subject.architecture.hidden_size
                tensors.append(Tensor("lm_head.weight", shape, "head"))
        packed = plain = 0
        for tensor in tensors:
            if tensor.part == "experts" or tensor.part in ("vision", "audio", "mtp"):
                continue
            if self._is_packed(tensor):
                packed += self._packed(tensor) * tensor.copies
            else:
                plain += tensor.elements * self.width
        return packed, plain

    def _is_packed(self, tensor: Tensor) -> bool:
        """Matrices of layers and the head; latent attention's second one for keys and values stays whole."""
        whole = _is_second(tensor) or (tensor.part == "head" and not self.settings.era.packed_head)
        return tensor.kind == "linear" and len(tensor.shape) == 2 and tensor.part != "router" and not whole

    def copies(self, at: int) -> int:
        """Bytes of the parts of latent attention's matrices that are copied before 0.2.2, and given back late."""
        first, last = self.layers(at)
        tensors = [one for layer in self.subject.architecture.layers[first:last] for one in layer.tensors]
        size = sum(one.elements for one in tensors if _is_second(one)) * self.width
        return 0 if self.settings.era.packed_head else size

    def _packed(self, tensor: Tensor) -> int:
        outputs, inputs = tensor.shape
        if self.settings.linear == "fp8" and tensor.part != "head":
            return outputs * inputs + _SCALE * ceil_div(outputs, _BLOCK) * ceil_div(inputs, _BLOCK)
        if inputs % _INPUTS or outputs % _INPUTS:
            inputs, outputs = round_up(inputs, _INPUTS), round_up(outputs, _OUTPUTS)
        return (
            inputs * outputs // 2 + inputs // _GROUP * outputs * self.width + outputs // _OUTPUTS * _WORKSPACE
        )

    def token_bytes(self, at: int) -> int:
        """Bytes of a token in the layers of a card."""
        first, last = self.layers(at)
        total = 0
        for layer in self.subject.architecture.layers[first:last]:
            for mixer in layer.mixers:
                if isinstance(mixer, LatentAttention):
                    total += mixer.latent_per_token * self.width
                elif isinstance(mixer, Attention):
                    total += mixer.kv_heads * (mixer.head_dim + mixer.value_dim) * self.width
        return total

    def terms(self, at: int) -> tuple[Term, ...]:
        """What a card holds."""
        settings, architecture, version = self.settings, self.subject.architecture, self.settings.version
        packed, plain = self.weights(at)
        how = "in 4 bits" if settings.linear == "marlin" else "in 8 bits"
        formula = f"{packed} B of matrices {how} + {plain} B of everything else"
        reference, copies = SOURCES.cite("weights", version), self.copies(at)
        terms = [weights_between(self.subject, packed + plain, formula, reference, copies)]
        each = self.token_bytes(at)
        rule = "cache" if self.served else "own cache"
        formula = f"{self.tokens} tokens x {each} B"
        terms.append(exact("kv_cache", self.tokens * each, formula, SOURCES.cite(rule, version)))
        if any(isinstance(mixer, LatentAttention) for mixer in self._mixers) and settings.era.page > 1:
            text = f"{_FLASHINFER} B of FlashInfer's workspace"
            terms.append(exact("workspace", _FLASHINFER, text, SOURCES.cite("workspace", version)))
        elements = widest_layer_elements(architecture, 1)
        tokens = max(self.captured) if self.served else self.chunk
        rows, each = (tokens, _EVERY) if self.served else (1, _LAST)
        stages = {
            "a part of a prompt": (
                tokens * elements * self.width,
                f"{tokens} tokens x {elements} x {self.width} B",
            ),
            "logits": (
                rows * architecture.vocab_size * each,
                f"{rows} rows x {architecture.vocab_size} x {each} B",
            ),
        }
        # Keys and values of latent attention are there unpacked, and scores without flash attention; each batch size
        # of which a graph is made may hold its own.
        maybe = stages["a part of a prompt"][0]
        if self.served:
            maybe = sum(self.captured) * (elements * self.width + each * architecture.vocab_size)
        terms.append(activation_term(stages, maybe, SOURCES.cite("forward", version)))
        terms += graph_terms(architecture, len(self.captured), SOURCES.cite("forward", version))
        # Where several users are served, a process of its own allocates the cache.
        runtime, context = library_terms(self.machine.devices[at], 1, 2 if self.served else 1)
        return (*terms, runtime, context)

    def host(self) -> DeviceEstimate:
        """What lies in RAM, and in files that are mapped."""
        settings, version, architecture = self.settings, self.settings.version, self.subject.architecture
        elements = architecture.vocab_size * architecture.hidden_size
        formula = f"{elements} elements of the token table x {self.width} B"
        reference = SOURCES.cite("embedding", version)
        terms, mapped = [exact("embedding", elements * self.width, formula, reference)], []
        stored = expert_bytes(self.subject)
        reference = SOURCES.cite("mapped experts", version)
        if settings.experts != "llamafile":
            each = 2 if settings.experts == "AMXBF16" else 1
            numbers = sum(
                one.rows * one.columns * one.experts * one.layers for one in expert_matrices(self.subject)
            )
            copies = max(1, settings.numa_copies)
            text = f"{copies} NUMA nodes x {numbers} elements x {each} B of experts ({settings.experts})"
            terms.append(exact("experts", copies * numbers * each, text, reference))
        elif settings.numa_copies:
            text = f"{settings.numa_copies} NUMA nodes x {stored} B of experts"
            terms.append(exact("experts", settings.numa_copies * stored, text, reference))
        else:
            mapped.append(exact("experts", stored, f"{stored} B of experts, mapped", reference))
        return DeviceEstimate("host", 0, self.machine.host_bytes, tuple(terms), page_cache=tuple(mapped))


def _is_second(tensor: Tensor) -> bool:
    """Whether a tensor is latent attention's second matrix for keys and values, or a part of it."""
    return tensor.name.endswith(
        ("kv_b_proj.weight", "attn_kv_b.weight", "attn_k_b.weight", "attn_v_b.weight")
    )


def estimate_alone(
    subject: Subject, machine: Machine, settings: Settings, users: int, context: int
) -> Estimate:
    """What one of the own programs would allocate.

    Parameters
    ----------
    context
        Tokens of each user's sequence; 0 for the whole cache.

    Raises
    ------
    BadInput
        If there are fewer cards than the rules name.
    """
    if len(machine.devices) < settings.gpus:
        given = len(machine.devices)
        raise BadInput(
            f"the rules put layers on {settings.gpus} cards, {given} given",
            f"write --gpu {settings.gpus}x...",
        )
    model = Alone(subject, machine, settings)
    refusal = _refusal(model)
    each = sum(model.token_bytes(at) for at in range(settings.gpus))
    length = min(context or model.tokens, model.tokens) if not model.served else context or model.tokens
    demand = demand_of(model.tokens, each, length, users, model.page) if not refusal else None
    places = tuple(
        DeviceEstimate(
            machine.devices[at].name, at, machine.devices[at].usable_bytes, () if refusal else model.terms(at)
        )
        for at in range(settings.gpus)
    )
    host = model.host()
    return Estimate(
        model=subject.model,
        engine="ktransformers",
        engine_version=settings.version,
        kind="serve",
        devices=places,
        host=host if not refusal else DeviceEstimate("host", 0, machine.host_bytes, ()),
        capacity=None if refusal else _capacity(model, places, length),
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(model, host, users)),
        refusal=refusal,
        remedies=() if refusal else _remedies(model, places, demand, users, length),
        details={
            "context": length,
            "cache_lens": model.tokens,
            "chunk_size": model.chunk,
            "program": settings.program,
            "users": users,
            "era": settings.era,
        },
    )


def _refusal(model: Alone) -> str:
    settings, architecture = model.settings, model.subject.architecture
    version, program = settings.version, settings.program
    if program not in settings.era.programs:
        return f"KTransformers {version} has no {program}; it has {', '.join(sorted(settings.era.programs))}"
    if missing := model_refusal("KTransformers", architecture, version, support(architecture, version)):
        return missing
    if not most_experts(model.subject):
        return f"KTransformers is for models with routed experts; {others(architecture)}"
    base = model.subject.recipe.base
    if not isinstance(base, Ggml) and model.subject.recipe.method and settings.linear != "fp8":
        return "KTransformers reads GGUF files (--format q4_k_m, --gguf_path)"
    return ""


def _notes(model: Alone, host: DeviceEstimate, users: int) -> list[str]:
    settings, architecture = model.settings, model.subject.architecture
    notes = [
        *model_note("KTransformers", architecture, settings.version, support(architecture, settings.version)),
        NOTE.format(engine="KTransformers"),
    ]
    mapped = sum(term.bytes for term in host.page_cache)
    if mapped:
        text = f"experts are read from files that are mapped ({format_bytes(mapped)})"
        if host.usable_bytes is not None and mapped + host.peak_bytes > host.usable_bytes:
            text += ", which is more than there is RAM: the disk decides how fast it runs"
        notes.append(text)
        notes.append("a program that was built for NUMA (USE_NUMA=1) holds a copy of them for each node")
    if users > 1 and not model.served:
        notes.append("one request runs at a time; the others wait")
    if model.served and users > settings.max_batch_size:
        notes.append(f"{settings.max_batch_size} requests run at once (--max_batch_size); the others wait")
    return notes


def _capacity(model: Alone, places: tuple[DeviceEstimate, ...], length: int) -> Capacity | None:
    """The largest cache that the cards could have."""
    if any(place.usable_bytes is None for place in places):
        return None
    limit = model.subject.architecture.max_positions
    each = [model.token_bytes(at) for at in range(len(places))]
    rest = [place.peak_bytes - model.tokens * one for place, one in zip(places, each, strict=True)]

    def excess(tokens: int) -> float:
        sizes = zip(places, each, rest, strict=True)
        return max(tokens * one + left - (place.usable_bytes or 0) for place, one, left in sizes)

    most = max(limit, length) * (16 if model.served else 1)
    found = capacity_of(excess, most, length, limit, model.page)
    if model.served:
        return found
    return Capacity(found.kv_cache_tokens, found.max_context, min(1.0, found.max_concurrency))


def _remedies(
    model: Alone, places: tuple[DeviceEstimate, ...], demand: Demand | None, users: int, length: int
) -> tuple[str, ...]:
    full = any(place.verdict in ("does_not_fit", "tight") for place in places)
    found = []
    if demand is not None and demand.verdict != "fits" and model.served:
        found.append(f"a larger cache (--cache_lens {users * round_up(length, model.page)})")
    if full:
        found.append("a smaller cache (--cache_lens)")
        if not model.served and model.chunk > _CHUNK_SERVED:
            found.append("shorter parts of prompts (--chunk_size 1024)")
        if model.settings.linear == "fp8":
            found.append("matrices in 4 bits (the rules without fp8-linear)")
        found.append("rules for several cards (--optimize_config_path ...-multi-gpu.yaml)")
    return tuple(found)
