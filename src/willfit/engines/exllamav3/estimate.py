"""ExLlamaV3 on cards as an estimate."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.allocated_cache import capacity_on, demand_of, is_short
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.borrowed import library_terms, weights_between
from willfit.engines.exllamav3.devices import device_refusal
from willfit.engines.exllamav3.eras import NEWEST
from willfit.engines.exllamav3.models import support
from willfit.engines.exllamav3.plan import Plan
from willfit.engines.exllamav3.settings import PAGE, Settings, has_windows, resolve
from willfit.engines.exllamav3.sources import SOURCES
from willfit.engines.layer_split import filled, kept_terms, last_with_layers
from willfit.engines.support import model_note, model_refusal, too_long
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, between, exact
from willfit.formats.ggml import Ggml
from willfit.quantities import MIB, dtype_name, round_up

NAME = "exllamav3"

#: Dtypes of a question's cache, and the modes that they are.
_MODES = {"int8": "Q8", "int4": "Q4", "int6": "Q6"}

#: A row of scores is there in 16 bits; samplers copy it to fp32, and may sort it.
_ROW_BYTES, _ROW_LEAST, _ROW_MOST = 6, 2, 24


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """A cache for all users at once, as `cache_size` says it to tabbyAPI.

    Raises
    ------
    BadInput
        If the cache is asked for in a dtype that there is none in.
    """
    context = question.context_for(subject.architecture)
    mode = _MODES.get(question.kv_dtype)
    if mode is None:
        if question.kv_dtype != "auto" and dtype_name(question.kv_dtype) not in ("fp16", "bf16"):
            raise BadInput(
                f"ExLlamaV3 has no {question.kv_dtype} cache",
                "it has fp16, int8, int6 and int4 (FP16, Q8, Q6, Q4)",
            )
        mode = "FP16"
    settings = Settings(
        version=question.version or NEWEST,
        max_seq_len=context,
        cache_size=question.users * round_up(context, PAGE),
        cache_mode=mode,
        draft_mode="model" if subject.draft is not None else "disabled",
        draft_cache_mode=mode,
    )
    places = resolve(settings, subject.architecture).sequences
    if question.users > places:
        settings = replace(settings, max_batch_size=question.users)
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What ExLlamaV3 would allocate on each card, and whether the cache holds the workload.

    Parameters
    ----------
    subject
        The model as stored, with the one that drafts for it.
    machine
        Its devices, in the order in which layers are put on them.
    settings
        Under tabbyAPI's names.
    users
        Requests of `max_seq_len` tokens that shall run at once.

    Raises
    ------
    BadInput
        If no device is given, or a setting makes no sense.
    """
    if not machine.devices:
        raise BadInput("ExLlamaV3 needs a card", "name one with --gpu 'rtx 4090'")
    plan = Plan(subject, machine.devices, settings, resolve(settings, subject.architecture))
    refusal = _refusal(plan)
    places = [] if refusal else _places(plan, users)
    if refusal:
        places = [
            DeviceEstimate(one.name, at, one.usable_bytes, ()) for at, one in enumerate(machine.devices)
        ]
    resolved = plan.resolved
    demand = None if refusal else _demand(plan, users)
    capacity = None if refusal else _capacity(plan, users)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(places),
        host=DeviceEstimate("host", 0, machine.host_bytes, () if refusal else _host_terms(plan)),
        capacity=capacity,
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(plan, users)),
        refusal=refusal,
        remedies=() if refusal else _remedies(plan, places, capacity, users),
        details={
            "max_seq_len": resolved.length,
            "cache_size": resolved.tokens,
            "cache_mode": settings.cache_mode,
            "chunk_size": resolved.chunk,
            "max_batch_size": resolved.sequences,
            "layers": [list(one) for one in plan.ranges] if not refusal else [],
            "users": users,
            "era": settings.era,
        },
    )


def _places(plan: Plan, users: int) -> list[DeviceEstimate]:
    places = [
        DeviceEstimate(device.name, at, device.usable_bytes, _terms(plan, at, users))
        for at, device in enumerate(plan.devices)
    ]
    if plan.ranks == 1 and plan.settings.gpu_split is None:
        places[: last_with_layers(plan.ranges)] = [
            filled(place) for place in places[: last_with_layers(plan.ranges)]
        ]
    return places


def _terms(plan: Plan, at: int, users: int) -> tuple[Term, ...]:
    """What a card holds."""
    first, last = plan.ranges[at]
    count, version = len(plan.architecture.layers), plan.settings.version
    if last == first and not (at == 0 and plan.ahead):
        return ()
    has_head = last > count
    weights = plan.weights(first, last) + (plan.stored.head if has_head else 0)
    formula = f"{weights} B of tensors ({plan.subject.recipe.name})"
    if plan.ranks > 1:
        formula += f" on one of {plan.ranks} cards"
    elif len(plan.devices) > 1:
        formula += f" of {min(last, count) - first} layers" + (" and the head" if has_head else "")
    terms = [weights_between(plan.subject, weights, formula, SOURCES.cite("weights", version))]
    references = {
        "kv_cache": SOURCES.cite("quantized cache" if plan.resolved.bits else "cache", version),
        "window_cache": SOURCES.cite("rings", version),
        "recurrent_state": SOURCES.cite("states", version),
    }
    terms += kept_terms(plan.kept(first, last), references)
    layers = plan.architecture.layers[first:last]
    if layers:
        terms += _working(plan, first, last)
    if has_head:
        rows = users * (plan.resolved.drafted + 1)
        wide = -(-plan.architecture.vocab_size // plan.ranks)
        terms.append(
            between(
                "logits",
                rows * wide * _ROW_BYTES,
                rows * wide * _ROW_LEAST,
                rows * wide * _ROW_MOST,
                f"{rows} rows x {wide} x {_ROW_BYTES} B",
                SOURCES.cite("logits", version),
            )
        )
    if at == 0:
        terms += _ahead(plan)
    runtime, context = library_terms(plan.devices[at], plan.ranks)
    return (*(term for term in terms if term.high_bytes), runtime, context)


def _working(plan: Plan, first: int, last: int) -> list[Term]:
    """What the hungriest layer takes while it runs, and what kernels of experts keep."""
    version, work = plan.settings.version, plan.work
    layer = max(plan.architecture.layers[first:last], key=work.peak)
    stages = work.stages(layer)
    size = work.peak(layer)
    # The caching allocator may have kept a block for each instant, where none fitted another.
    apart = sum(stage.bytes(work.tokens) for stage in stages.values())
    named = [f"{name}: {stage.formula(work.tokens)}" for name, stage in stages.items()]
    formula = f"the largest of {', '.join(named)}" if len(named) > 1 else named[0].partition(": ")[2]
    terms = [between("activations", size, size // 2, apart, formula, SOURCES.cite("forward", version))]
    buffers = max((work.buffers(one) for one in plan.architecture.layers[first:last]), key=lambda one: one[0])
    if buffers[0]:
        expected, least, most, text = buffers
        terms.append(between("expert_buffers", expected, least, most, text, SOURCES.cite("experts", version)))
    return terms


def _ahead(plan: Plan) -> list[Term]:
    """Encoders and drafts, which the first card gets before the model."""
    version, terms = plan.settings.version, []
    if plan.settings.vision and plan.stored.towers:
        formula = f"{plan.stored.towers} B of encoders"
        terms.append(exact("encoders", plan.stored.towers, formula, SOURCES.cite("placing", version)))
    if plan.draft_weights:
        formula = f"{plan.draft_weights} B of tensors that draft"
        terms.append(exact("draft", plan.draft_weights, formula, SOURCES.cite("placing", version)))
    references = dict.fromkeys(
        ("kv_cache", "window_cache", "recurrent_state"), SOURCES.cite("cache", version)
    )
    kept = kept_terms(plan.draft_kept, references)
    if kept:
        formula = " + ".join(term.formula for term in kept)
        terms.append(
            exact("draft_cache", sum(term.bytes for term in kept), formula, SOURCES.cite("cache", version))
        )
    return terms


def _host_terms(plan: Plan) -> tuple[Term, ...]:
    """The token table, experts that run on the processor, and what is kept of other sequences."""
    settings, version = plan.settings, plan.settings.version
    table = plan.stored.embedding
    terms = [exact("embedding", table, f"{table} B of the token table", SOURCES.cite("embedding", version))]
    moved = sum(plan.on_processor)
    if moved:
        formula = f"{moved} B of experts of {sum(map(bool, plan.on_processor))} layers"
        terms.append(exact("experts", moved, formula, SOURCES.cite("cpu experts", version)))
    if settings.sysmem_kv_cache and settings.era.cpu_pages:
        most = settings.sysmem_kv_cache * MIB
        formula = f"{settings.sysmem_kv_cache} x {MIB} B of pages at most"
        terms.append(between("saved_pages", most, 0, most, formula, SOURCES.cite("cpu pages", version)))
    kept = plan.kept(0, len(plan.architecture.layers))
    if any(one.term != "kv_cache" for one in kept) and settings.sysmem_recurrent_cache:
        most = settings.sysmem_recurrent_cache * MIB
        formula = f"0 at first, at most {settings.sysmem_recurrent_cache} MiB of states of former turns"
        terms.append(between("saved_states", 0, 0, most, formula, SOURCES.cite("checkpoints", version)))
    return tuple(terms)


def _refusal(plan: Plan) -> str:
    """Why it would not start, or not run the model."""
    architecture, settings = plan.architecture, plan.settings
    version, recipe = settings.version, plan.subject.recipe
    if any(device.is_cpu or device.vendor not in ("NVIDIA", "AMD", "") for device in plan.devices):
        return "ExLlamaV3 runs on NVIDIA's and AMD's cards; llama.cpp runs on others"
    for device in plan.devices:
        if refused := device_refusal(plan.subject, version, device):
            return refused
    found = support(architecture, version)
    if missing := model_refusal("ExLlamaV3", architecture, version, found):
        return missing
    if isinstance(recipe.base, Ggml):
        return "ExLlamaV3 does not load GGUF files; llama.cpp does"
    if recipe.method not in ("", "exl3"):
        loader = "ExLlamaV2 does" if recipe.method in ("exl2", "gptq") else "take one that was converted"
        return f"ExLlamaV3 does not load {recipe.method} checkpoints; {loader} (--format exl3-4.0bpw)"
    if settings.cpu_moe_offload_layers and not settings.era.cpu_experts:
        return f"ExLlamaV3 {version} runs no experts on the processor; 1.2.0 and later do"
    if settings.cpu_moe_offload_layers and settings.tensor_parallel:
        return "ExLlamaV3 runs experts on the processor only where layers are not divided (tensor_parallel)"
    return too_long(architecture, plan.resolved.length)


def _notes(plan: Plan, users: int) -> list[str]:
    settings, resolved, architecture = plan.settings, plan.resolved, plan.architecture
    notes = [
        *model_note("ExLlamaV3", architecture, settings.version, support(architecture, settings.version))
    ]
    notes.append(
        "what the allocator keeps between instants of a layer is not established: up to all of them at once"
    )
    if resolved.tokens != (settings.cache_size or resolved.tokens):
        notes.append(f"the cache has whole pages of {PAGE} tokens: {resolved.tokens:,}")
    if users > resolved.sequences:
        notes.append(f"{resolved.sequences} requests run at once (max_batch_size), the others wait")
    if has_windows(architecture) and not resolved.rings:
        notes.append("layers with a window keep all tokens")
    if architecture.towers and not settings.vision:
        notes.append("encoders of images are not loaded (vision: true)")
    if settings.draft_mode == "model" and plan.subject.draft is None:
        notes.append("the model that drafts is not known: it is not counted")
    if settings.draft_mode == "mtp" and not plan.stored.mtp:
        notes.append("the checkpoint has no modules that draft")
    if settings.cpu_moe_offload_layers:
        notes.append("experts run on the processor only if they are quantized with the mul1 codebook")
    return notes


def _demand(plan: Plan, users: int) -> Demand | None:
    """What sequences take of the cache."""
    kept = plan.kept(0, len(plan.architecture.layers))
    each = sum(one.layers * one.each for one in kept if one.term == "kv_cache")
    return demand_of(plan.resolved.tokens, each, plan.resolved.length, users, PAGE)


def _capacity(plan: Plan, users: int) -> Capacity | None:
    """The largest cache that the cards could have, and what it holds."""
    resolved = plan.resolved

    def held(tokens: int) -> list[DeviceEstimate]:
        settings = replace(plan.settings, cache_size=tokens, max_seq_len=min(resolved.length, tokens))
        return _places(
            Plan(plan.subject, plan.devices, settings, resolve(settings, plan.architecture)), users
        )

    return capacity_on(plan.devices, held, resolved.length, plan.architecture.max_positions, users, PAGE)


def _remedies(
    plan: Plan, places: list[DeviceEstimate], capacity: Capacity | None, users: int
) -> tuple[str, ...]:
    full, short = is_short(places, _demand(plan, users))
    if not (full or short):
        return ()
    found = []
    wanted = users * round_up(plan.resolved.length, PAGE)
    tokens = capacity.kv_cache_tokens if capacity else 0
    if short and tokens >= wanted and not full:
        return (f"a larger cache (cache_size: {wanted})",)
    if full and 0 < tokens < plan.resolved.tokens:
        found.append(f"a cache of {tokens:,} tokens (cache_size: {tokens})")
    if plan.resolved.bits is None and any(
        one.term == "kv_cache" for one in plan.kept(0, len(plan.architecture.layers))
    ):
        found.append("a quantized cache (cache_mode: Q4)")
    if full and plan.resolved.chunk > PAGE:
        found.append("shorter parts of prompts (chunk_size: 512)")
    if any(plan.stored.experts) and plan.settings.era.cpu_experts:
        found.append("experts on the processor (cpu_moe_offload_layers)")
    if plan.subject.recipe.method != "exl3":
        found.append("quantized weights (--format exl3-4.0bpw)")
    elif full:
        found.append("fewer bits (--format exl3-3.0bpw)")
    if full:
        found.append("another card beside it")
    return tuple(found)
