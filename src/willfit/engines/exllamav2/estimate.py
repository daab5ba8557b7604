"""ExLlamaV2 on cards as an estimate."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.engines.allocated_cache import capacity_on, demand_of, is_short
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.borrowed import library_terms, weights_between
from willfit.engines.exllamav2.eras import NEWEST
from willfit.engines.exllamav2.models import support
from willfit.engines.exllamav2.plan import Plan
from willfit.engines.exllamav2.scratch import rotary_bytes
from willfit.engines.exllamav2.settings import MODES, PAGE, Settings, resolve
from willfit.engines.exllamav2.sources import SOURCES
from willfit.engines.layer_split import filled, kept_terms, last_with_layers
from willfit.engines.ranks import undivided_heads
from willfit.engines.support import model_note, model_refusal, too_long
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, between, exact
from willfit.formats.ggml import Ggml
from willfit.quantities import dtype_name, round_up

NAME = "exllamav2"

#: Dtypes of a question's cache, and the modes that they are.
_MODES = {"int8": "Q8", "int4": "Q4", "int6": "Q6", "fp8": "FP8", "fp8_e4m3": "FP8", "fp8_e5m2": "FP8"}

#: A row of scores is there in 16 bits, and is copied to RAM in fp32.
_ROW_BYTES, _ROW_MOST = 2, 8


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
            raise BadInput(f"ExLlamaV2 has no {question.kv_dtype} cache", f"its modes are {', '.join(MODES)}")
        mode = "FP16"
    settings = Settings(
        version=question.version or NEWEST,
        max_seq_len=context,
        cache_size=question.users * round_up(context, PAGE),
        cache_mode=mode,
        draft=subject.draft is not None,
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What ExLlamaV2 would allocate on each card, and whether the cache holds the workload.

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
        If no device is given, or there is no such cache mode.
    """
    if not machine.devices:
        raise BadInput("ExLlamaV2 needs a card", "name one with --gpu 'rtx 4090'")
    for mode in (settings.cache_mode, settings.draft_cache_mode):
        if mode not in MODES:
            raise BadInput(f"unknown cache mode {mode!r}", f"known: {', '.join(MODES)}")
    plan = Plan(subject, machine.devices, settings, resolve(settings, subject.architecture))
    refusal = _refusal(plan)
    if refusal:
        places = [
            DeviceEstimate(one.name, at, one.usable_bytes, ()) for at, one in enumerate(machine.devices)
        ]
    else:
        places = _places(plan, users)
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
        notes=(*subject.notes, *subject.recipe.notes, *_notes(plan)),
        refusal=refusal,
        remedies=() if refusal else _remedies(plan, places, capacity, users),
        details={
            "max_seq_len": plan.resolved.length,
            "cache_size": plan.resolved.tokens,
            "cache_mode": settings.cache_mode,
            "chunk_size": plan.resolved.chunk,
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
    architecture, version = plan.architecture, plan.settings.version
    count = len(architecture.layers)
    if last == first and not (at == 0 and plan.ahead):
        return ()
    has_head = last > count
    weights = plan.weights(first, last) + (plan.head if has_head else 0)
    formula = f"{weights} B of tensors ({plan.subject.recipe.name})"
    if plan.ranks > 1:
        formula += f" on one of {plan.ranks} cards"
    elif len(plan.devices) > 1:
        formula += f" of {min(last, count) - first} layers" + (" and the head" if has_head else "")
    terms = [weights_between(plan.subject, weights, formula, SOURCES.cite("weights", version))]
    quantized = plan.settings.cache_mode != "FP16"
    cache = SOURCES.cite("quantized cache" if quantized else "cache", version)
    terms += kept_terms(plan.kept(first, last), {"kv_cache": cache})
    if plan.unpacked:
        formula = f"{plan.unpacked} B of a layer's keys and values in 16 bits"
        terms.append(exact("cache_scratch", plan.unpacked, formula, cache))
    terms += _shared(plan)
    layers = architecture.layers[first:last]
    if layers:
        chunk = plan.resolved.chunk
        works = [plan.work(layer) for layer in layers]
        each, most = max(one for one, _ in works), max(one for _, one in works)
        formula = f"{chunk} tokens x {each} B"
        reference = SOURCES.cite("forward", version)
        terms.append(between("activations", chunk * each, 0, 2 * chunk * most, formula, reference))
    if has_head:
        size = users * -(-architecture.vocab_size // plan.ranks)
        formula = f"{users} rows x {size // users} x {_ROW_BYTES} B"
        reference = SOURCES.cite("forward", version)
        terms.append(between("logits", size * _ROW_BYTES, 0, size * _ROW_MOST, formula, reference))
    if at == 0:
        terms += _ahead(plan)
    runtime, context = library_terms(plan.devices[at], plan.ranks)
    return (*(term for term in terms if term.high_bytes), runtime, context)


def _shared(plan: Plan) -> list[Term]:
    """What all layers of a card share: the scratch and rotary tables."""
    version = plan.settings.version
    parts, terms = plan.scratch, []
    reference = SOURCES.cite("scratch", version)
    if parts:
        size = max(found for found, _ in parts.values())
        formula = "the largest of " + ", ".join(f"{name}: {text}" for name, (_, text) in parts.items())
        terms.append(exact("scratch", size, formula, reference))
    rotary, text = rotary_bytes(plan.architecture, plan.resolved)
    return [*terms, exact("rotary_tables", rotary, text, reference)]


def _ahead(plan: Plan) -> list[Term]:
    """Encoders and the model that drafts, which the first card gets before the model."""
    version, (weights, cache) = plan.settings.version, plan.draft_bytes
    found = [
        ("encoders", plan.stored.towers if plan.settings.vision else 0, "encoders"),
        ("draft", weights, "tensors that draft"),
        ("draft_cache", cache, "keys and values of the model that drafts"),
    ]
    reference = SOURCES.cite("placing", version)
    return [exact(name, size, f"{size} B of {words}", reference) for name, size, words in found if size]


def _host_terms(plan: Plan) -> tuple[Term, ...]:
    table = plan.stored.embedding
    reference = SOURCES.cite("embedding", plan.settings.version)
    return (exact("embedding", table, f"{table} B of the token table", reference),)


def _refusal(plan: Plan) -> str:
    """Why it would not start, or not run the model."""
    architecture, settings, era = plan.architecture, plan.settings, plan.settings.era
    version, recipe = settings.version, plan.subject.recipe
    if any(device.is_cpu or device.vendor not in ("NVIDIA", "AMD", "") for device in plan.devices):
        return "ExLlamaV2 runs on NVIDIA's and AMD's cards; llama.cpp runs on others"
    found = support(architecture, version)
    if missing := model_refusal("ExLlamaV2", architecture, version, found):
        return missing
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    if not all(isinstance(mixer, Attention) for mixer in mixers):
        return "ExLlamaV2 runs layers of plain attention alone; ExLlamaV3 runs others"
    if isinstance(recipe.base, Ggml):
        return "ExLlamaV2 does not load GGUF files; llama.cpp does"
    if recipe.method not in ("", "exl2", "gptq"):
        loader = "ExLlamaV3 does" if recipe.method == "exl3" else "take one that was converted"
        return f"ExLlamaV2 does not load {recipe.method} checkpoints; {loader} (--format exl2-4.0bpw)"
    for mode in (settings.cache_mode, settings.draft_cache_mode):
        if mode not in era.modes:
            return f"ExLlamaV2 {version} has no {mode} cache; it has {', '.join(sorted(era.modes))}"
    if settings.tensor_parallel:
        if not era.tensor_parallel:
            return f"ExLlamaV2 {version} does not divide layers; 0.1.9 and later do (tensor_parallel)"
        if undivided := undivided_heads(architecture, plan.ranks, "none"):
            return undivided
    return too_long(architecture, plan.resolved.length)


def _notes(plan: Plan) -> list[str]:
    settings, architecture = plan.settings, plan.architecture
    notes = [
        *model_note("ExLlamaV2", architecture, settings.version, support(architecture, settings.version))
    ]
    if plan.flash_attention:
        notes.append(
            "counted with flash attention; without it, scores or repeated keys and values come on top"
        )
    notes.append("what the allocator keeps beside the scratch is not established")
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, Attention) and mixer.window for mixer in mixers):
        notes.append("layers with a window keep all tokens")
    if architecture.towers and not settings.vision:
        notes.append("encoders of images are not loaded (vision: true)")
    if settings.draft and plan.subject.draft is None:
        notes.append("the model that drafts is not known: it is not counted")
    return notes


def _demand(plan: Plan, users: int) -> Demand | None:
    """What sequences take of the cache."""
    each = sum(one.each for one in plan.kept(0, len(plan.architecture.layers)))
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
    wanted, tokens = users * round_up(plan.resolved.length, PAGE), capacity.kv_cache_tokens if capacity else 0
    if short and tokens >= wanted and not full:
        return (f"a larger cache (cache_size: {wanted})",)
    if full and 0 < tokens < plan.resolved.tokens:
        found.append(f"a cache of {tokens:,} tokens (cache_size: {tokens})")
    if plan.settings.cache_mode == "FP16" and "Q4" in plan.settings.era.modes:
        found.append("a quantized cache (cache_mode: Q4)")
    if full and plan.resolved.chunk > 2 * PAGE:
        found.append("shorter parts of prompts (chunk_size: 512)")
    if plan.subject.recipe.method == "":
        found.append("quantized weights (--format exl2-4.0bpw)")
    elif full:
        found.append("fewer bits (--format exl2-3.0bpw)")
    if full:
        found.append("another card beside it")
    return tuple(found)
