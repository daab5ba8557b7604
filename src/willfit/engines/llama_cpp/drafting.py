"""What a second context takes that drafts tokens: a smaller model, or the main model's own drafting modules."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.engines.base import Machine, Subject
from willfit.engines.llama_cpp.backends.table import backends_of
from willfit.engines.llama_cpp.graph import families
from willfit.engines.llama_cpp.loading.slices import slices_of
from willfit.engines.llama_cpp.parts import parts_of
from willfit.engines.llama_cpp.plan import cached_bytes, context
from willfit.engines.llama_cpp.settings import Drafting, Settings
from willfit.engines.llama_cpp.sizing import Sizing, size_up
from willfit.engines.llama_cpp.terms import cite
from willfit.estimate import Term, between, exact


@dataclass(frozen=True, slots=True)
class Draft:
    """Bytes of a drafting context by buffer.

    Attributes
    ----------
    weights, caches, compute
        Of each buffer, by its name.
    output
        Results on the host.
    sure
        Its graph is known; False where the compute buffer is taken from the main model.
    """

    weights: dict[str, int]
    caches: dict[str, int]
    compute: dict[str, int]
    output: int
    sure: bool


def draft_of(subject: Subject, machine: Machine, sizing: Sizing, free: list[int | None]) -> Draft | None:
    """What drafting takes; None if nothing drafts, or the drafting model is not known."""
    drafting = sizing.settings.drafting
    if drafting is None:
        return None
    if drafting.kind == "mtp":
        return _modules(subject, sizing, drafting)
    if subject.draft is None or subject.draft.gguf is None:
        return None
    asked = draft_settings(sizing, drafting)
    made = size_up(subject.draft, machine, asked, free, sizing.model.named)
    caches = dict(made.context.keys_values)
    for place, size in made.context.states.items():
        caches[place] = caches.get(place, 0) + size
    # The main context keeps the vectors that go into the layers that a head reads, of all tokens of a batch.
    layers = made.model.meta.values.get(f"{made.model.meta.architecture}.target_layers", ())
    read = len(layers) if isinstance(layers, tuple | list) else 0
    output = made.context.output + 4 * subject.architecture.hidden_size * sizing.resolved.n_batch * read
    known = families.is_known(subject.draft.architecture.model_type)
    weights, compute = made.model.bytes, dict(made.context.compute)
    for one in made.divided:
        weights[one.place], caches[one.place] = one.weights, one.keys_values + one.states
        compute[one.place] = compute[made.model.backends[0].place]
    return Draft(weights, caches, compute, output, known)


def draft_settings(sizing: Sizing, drafting: Drafting) -> Settings:
    """The settings of a drafting model's context: the main one's where it has none of its own."""
    resolved = sizing.resolved
    return replace(
        sizing.settings,
        n_ctx=drafting.n_ctx or resolved.n_ctx,
        n_parallel=resolved.sequences,
        kv_unified=resolved.unified,
        n_gpu_layers="all" if drafting.n_gpu_layers in (None, "auto") else drafting.n_gpu_layers,
        cache_type_k=drafting.cache_type_k,
        cache_type_v=drafting.cache_type_v,
        devices=drafting.devices if drafting.devices is not None else sizing.settings.devices,
        override_tensor=(),
        cpu_moe=False,
        n_cpu_moe=0,
        tensor_split=(),
        fit=False,
        n_outputs_max=resolved.sequences,
        drafting=None,
    )


def _modules(subject: Subject, sizing: Sizing, drafting: Drafting) -> Draft:
    """The context of drafting modules: their weights are the main model's, their keys and values their own."""
    resolved = sizing.resolved
    asked = resolved.context(sizing.settings, sizing.context.flash_attn, False)
    cache = replace(
        asked.cache,
        type_k=drafting.cache_type_k.upper(),
        type_v=drafting.cache_type_v.upper(),
        snapshots=0,
    )
    asked = replace(asked, cache=cache, outputs=cache.sequences, drafts=True)
    # The main context keeps the vectors of all tokens of a batch, this one those of its results.
    vectors = 4 * subject.architecture.hidden_size * (resolved.n_batch + cache.sequences)
    if subject.architecture.model_type in families.DRAFTING:
        made = context(sizing.model, asked, resolved.era)
        caches, compute = dict(made.keys_values), dict(made.compute)
        output, sure = made.output + vectors, True
    else:
        # A graph that is not known has one layer of the main model's kind, so its largest stage is about as large.
        caches, compute = cached_bytes(sizing.model, asked), dict(sizing.context.compute)
        output, sure = sizing.context.output + vectors, False
    if sizing.divided:
        slices = slices_of(
            sizing.model.header, sizing.model.architecture, len(sizing.devices), sizing.settings.tensor_split
        )
        backends = backends_of(sizing.devices, sizing.backend, resolved.era)
        whole = compute[sizing.model.backends[0].place]
        for one in parts_of(sizing.model, asked, slices, backends):
            caches[one.place], compute[one.place] = one.keys_values + one.states, whole
    return Draft({}, caches, compute, output, sure)


def draft_term(sizing: Sizing, draft: Draft, places: tuple[str, ...]) -> Term | None:
    """What drafting takes in some buffers of one device or of the host; None if nothing."""
    parts = []
    total = 0
    unsure = 0
    for name, sizes in (
        ("weights", draft.weights),
        ("caches", draft.caches),
        ("compute buffer", draft.compute),
    ):
        held = sum(sizes.get(place, 0) for place in places)
        if held:
            parts.append(f"{held} B of {name}")
            total += held
            unsure += held if name == "compute buffer" and not draft.sure else 0
    if "CPU" in places and draft.output:
        parts.append(f"{draft.output} B of results")
        total += draft.output
    if not total:
        return None
    text, reference = " + ".join(parts), cite(sizing, "drafting")
    if unsure:
        return between("draft", total, total - unsure, total + unsure // 2, text, reference)
    return exact("draft", total, text, reference)
