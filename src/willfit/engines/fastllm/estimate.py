"""fastLLM on cards and in RAM as an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.borrowed import NOTE, activation_term, library_terms, weights_between
from willfit.engines.fastllm.eras import NEWEST, READ
from willfit.engines.fastllm.models import support
from willfit.engines.fastllm.plan import Plan
from willfit.engines.fastllm.settings import Settings
from willfit.engines.fastllm.sources import SOURCES
from willfit.engines.fastllm.weights import check
from willfit.engines.leftover import device_interval, free_beside
from willfit.engines.ranks import most_ranks, undivided_heads
from willfit.engines.solving import largest
from willfit.engines.support import model_note, model_refusal, others, too_long
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, between, exact
from willfit.quantities import ceil_div, dtype_name

NAME = "fastllm"

#: Models with buffers for the scores of as many requests as there may be (`GetAutoWarmupCudaRuntimeReserveBytes`), and
#: bytes of a score: in fp32 and in 16 bits.
_WITH_BUFFERS = ("qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text")
_SCORES, _SCORE = 4 + 2, 4

#: Tokens of cache for each request that runs at once, the share of a cache in pages that prompts may take, and the
#: share that states may take (`src/models/basellm.cpp`, `src/models/qwen3_5.cpp`).
_TOKENS_EACH, _PROMPTS, _STATES = 128, 0.8, 0.25

#: Share of what is free that a growing cache may take, and what it leaves if that is less.
_GROWING, _LEFT = 3 / 4, 2 << 30

#: A share of a card that a cache in pages leaves free is `total / 200`.
_SAFETY_SHARE = 200

#: Dtypes of a question's cache.
_KV = {"fp8": "fp8_e4m3", "fp8_e4m3": "fp8_e4m3"}

#: Tokens beyond which nothing is asked.
_LONGEST = 2**24


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """On one card experts are in RAM where fastLLM puts them there; several cards divide everything.

    Raises
    ------
    BadInput
        If the cache is asked for in a dtype that there is none in.
    """
    dtype, asked = _KV.get(question.kv_dtype, "auto"), question.kv_dtype
    if dtype == "auto" and asked != "auto" and dtype_name(asked) not in ("fp16", "bf16"):
        raise BadInput(f"fastLLM has no {asked} cache", "it has 16 bits and fp8_e4m3")
    cards = sum(not device.is_cpu for device in machine.devices)
    settings = Settings(
        version=question.version or NEWEST,
        context=question.context_for(subject.architecture),
        kv_cache_dtype=dtype,
        tp=most_ranks(subject.architecture, cards) if cards > 1 else 0,
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What fastLLM would allocate on each card and in RAM.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        Its cards, by their numbers.
    settings
        Under fastLLM's own names.
    users
        Sequences of `context` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there is no such device or dtype, or there are fewer cards than are named.
    """
    for name in (settings.dtype, settings.moe_dtype):
        check(name)
    plan = Plan(subject, machine, settings)
    refusal = _refusal(plan)
    places = _places(plan, users) if not refusal else _empty(plan)
    host, ram = _host(plan, users), bool(machine.devices) and not plan.cards
    if ram and not refusal:
        # The processor is the only device.
        places = [replace(places[0], terms=host.terms)] if places else []
        host = replace(host, terms=())
    pool = None if refusal else _pool(plan, users)
    demand = None if refusal else _demand(plan, pool, users)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(places),
        host=host if not refusal else replace(host, terms=(), page_cache=()),
        capacity=None if refusal else _capacity(plan, pool, users),
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(plan, users)),
        refusal=refusal,
        remedies=() if refusal else _remedies(plan, places, host, demand, users),
        details={
            "context": plan.length,
            "tokens": pool.tokens if pool else None,
            "page_size": settings.page() if plan.paged else None,
            "chunked_prefill_size": plan.chunk,
            "users": users,
            "era": settings.era,
        },
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """A cache in pages, as the card that has the fewest decides.

    Attributes
    ----------
    pages, page
        How many, and the tokens of each.
    batch
        Requests that buffers are made for.
    """

    pages: int
    page: int
    batch: int

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.pages * self.page


def _empty(plan: Plan) -> list[DeviceEstimate]:
    devices = plan.machine.devices
    return [DeviceEstimate(one.name, at, one.usable_bytes, ()) for at, one in enumerate(devices)]


def _places(plan: Plan, users: int) -> list[DeviceEstimate]:
    pool, found = _pool(plan, users), _empty(plan)
    for card in range(plan.used):
        before, after = _before(plan, card, users), _after(plan, card, pool, users)
        cache, interval = _cache(plan, card, pool, before, users), None
        terms = (*before, *cache, *after)
        if pool is not None and plan.settings.tokens is None:
            each, more = plan.token_bytes(card), _more(plan, card)
            interval = device_interval(terms, before, after, each / max(1, each + more))
        found[card] = replace(found[card], terms=tuple(terms), interval=interval)
    return found


def _before(plan: Plan, card: int, users: int) -> list[Term]:
    """What is on a card before a cache in pages is sized."""
    version = plan.settings.version
    others, experts = plan.weights(card)
    formula = f"{others} B of layers" + (f" + {experts} B of experts" if experts else "")
    terms = [weights_between(plan.subject, others + experts, formula, SOURCES.cite("weights", version))]
    elements = plan.widest(card)
    if elements:
        stages = {
            "a part of a prompt": (plan.chunk * elements * 2, f"{plan.chunk} tokens x {elements} x 2 B")
        }
        # Scores, or matrices that are unpacked to 16 bits, on top.
        maybe = plan.chunk * elements * 2
        terms.append(activation_term(stages, maybe, SOURCES.cite("forward", version)))
    runtime, context = library_terms(plan.machine.devices[card], max(1, len(plan.layers[0])))
    return [*terms, runtime, context]


def _after(plan: Plan, card: int, pool: Pool | None, users: int) -> list[Term]:
    """What comes beside the cache: states of sequences, and scores."""
    version, vocabulary = plan.settings.version, plan.subject.architecture.vocab_size
    terms = []
    state = plan.state_bytes(card)
    if state:
        formula = f"{users} sequences x {state} B"
        most = users if pool is None else max(users, pool.batch)
        terms.append(
            between(
                "recurrent_state", users * state, 0, most * state, formula, SOURCES.cite("cache", version)
            )
        )
    if plan.layers and card in plan.layers[-1]:
        buffered = pool is not None and plan.subject.architecture.model_type in _WITH_BUFFERS
        rows, each = (pool.batch, _SCORES) if buffered and pool is not None else (users, _SCORE)
        size = rows * vocabulary * each
        formula = f"{rows} rows x {vocabulary} x {each} B"
        terms.append(between("logits", size, 0, 2 * size, formula, SOURCES.cite("sampling", version)))
    return terms


def _cache(plan: Plan, card: int, pool: Pool | None, before: list[Term], users: int) -> list[Term]:
    each, version = plan.token_bytes(card), plan.settings.version
    if not each:
        return []
    if pool is None:
        tokens = users * plan.grown(plan.length)
        size, formula = tokens * each, f"{tokens} tokens x {each} B"
        # Keys and values of a layer are copied when they grow; of other kinds of attention they are averages.
        high = size + plan.widest_layer(card) * tokens if not plan.unusual else 3 * size
        low = size // 3 if plan.unusual else size
        return [between("kv_cache", size, low, high, formula, SOURCES.cite("cache", version))]
    size = pool.tokens * each
    pages = f"{pool.pages} pages x {pool.page} tokens x {each} B"
    reference = SOURCES.cite("pages", version)
    if plan.settings.tokens is not None:
        return [exact("kv_cache", size, f"{pages} (as asked for)", reference)]
    total = plan.machine.devices[card].usable_bytes or 0
    taken = [f"{term.bytes} ({term.name})" for term in before]
    aside = _aside(plan, card, pool.batch)
    taken += [f"{aside} (set aside)"] if aside else []
    more = _more(plan, card)
    share = f" x {each} / {each + more}" if more else ""
    formula = f"{plan.settings.gpu_mem_ratio:g} (gpu_mem_ratio) x {total} B usable - {' - '.join(taken)}"
    formula = f"({formula}){share} = {pages}" if share else f"{formula} = {pages}"
    own = free_beside(total, before)
    low = int((own.low - own.bytes) * each / (each + more))
    high = int((own.high - own.bytes) * each / (each + more))
    return [between("kv_cache", size, max(0, size + low), size + high, formula, reference)]


def _more(plan: Plan, card: int) -> int:
    """Bytes of a token that count beside those of the cache."""
    return plan.widest_layer(card) if plan.settings.era.one_layer_more else 0


def _aside(plan: Plan, card: int, batch: int) -> int:
    """Bytes that the sizing of a cache in pages leaves for other things."""
    era, architecture = plan.settings.era, plan.subject.architecture
    total = plan.machine.devices[card].usable_bytes or 0
    least, most = era.safety
    aside = min(most, max(least, total // _SAFETY_SHARE))
    if architecture.model_type in _WITH_BUFFERS and card in plan.layers[-1]:
        aside += era.sampling * batch * architecture.vocab_size * _SCORES
    return aside + batch * plan.state_bytes(card)


def _pool(plan: Plan, users: int) -> Pool | None:
    """The cache in pages; None for those that grow."""
    settings = plan.settings
    if not plan.paged:
        return None
    page = settings.page()
    if settings.tokens is not None:
        pages = ceil_div(settings.tokens, page)
        return Pool(pages, page, max(1, min(settings.requests(), pages * page // _TOKENS_EACH)))
    found = None
    for card in range(plan.used):
        each = plan.token_bytes(card)
        total = plan.machine.devices[card].usable_bytes
        if not each or total is None:
            continue
        taken = sum(term.bytes for term in _before(plan, card, users))
        available = int(settings.gpu_mem_ratio * total) - taken
        batch, pages, state = settings.requests(), 0, plan.state_bytes(card)
        if state and settings.max_batch is None:
            batch = max(1, min(batch, int(_STATES * available) // state))
        for _ in range(2):
            left = available - _aside(plan, card, batch)
            pages = max(0, left // (page * (each + _more(plan, card))))
            batch = max(1, min(batch, pages * page // _TOKENS_EACH))
        left = available - _aside(plan, card, batch)
        pages = max(0, left // (page * (each + _more(plan, card))))
        if found is None or pages < found.pages:
            found = Pool(pages, page, batch)
    return found or Pool(0, page, 1)


def _host(plan: Plan, users: int) -> DeviceEstimate:
    """What lies in RAM, and what is read from disk."""
    settings, version, terms, mapped = plan.settings, plan.settings.version, [], []
    layers, experts = plan.in_ram()
    if not settings.cuda_embedding or not plan.cards:
        text = f"{plan.table} B of the token table"
        terms.append(exact("embedding", plan.table, text, SOURCES.cite("embedding", version)))
    if layers:
        terms.append(
            weights_between(plan.subject, layers, f"{layers} B of layers", SOURCES.cite("weights", version))
        )
        each = plan.token_bytes(None)
        tokens = users * plan.grown(plan.length)
        size = tokens * each
        formula = f"{tokens} tokens x {each} B"
        # In fp32 where the processor computes in it.
        terms.append(between("kv_cache", size, size, 2 * size, formula, SOURCES.cite("cache", version)))
        state = users * plan.state_bytes(None)
        if state:
            formula = f"{users} sequences x {state // users} B"
            terms.append(
                between("recurrent_state", state, 0, 2 * state, formula, SOURCES.cite("cache", version))
            )
    if experts:
        # Copies for other kernels come and go while experts are registered.
        formula, reference = f"{experts} B of experts", SOURCES.cite("experts", version)
        terms.append(between("experts", experts, experts, int(1.15 * experts), formula, reference))
    rows, each = plan.rows()
    if rows:
        formula = f"{rows} rows x {each} B"
        terms.append(
            between("workspace", rows * each, 0, 2 * rows * each, formula, SOURCES.cite("moe", version))
        )
    disk = plan.on_disk()
    if disk:
        text = f"{disk} B of experts that are read when they are needed"
        mapped.append(exact("experts", disk, text, SOURCES.cite("disk", version)))
    return DeviceEstimate("host", 0, plan.machine.host_bytes, tuple(terms), page_cache=tuple(mapped))


def _demand(plan: Plan, pool: Pool | None, users: int) -> Demand | None:
    """What sequences take of a cache in pages, or of what caches may grow to."""
    length = plan.length
    what = f"{users} sequence{'s' if users > 1 else ''} of {length:,} tokens"
    each = max((plan.token_bytes(card) for card in range(plan.used)), default=0)
    if not each:
        return None
    if pool is not None:
        need = users * ceil_div(length, pool.page) * pool.page * each
        size = pool.tokens * each
        spread = [term for place in _places(plan, users) for term in place.terms if term.name == "kv_cache"]
        low = min((term.low_bytes for term in spread), default=size)
        high = max((term.high_bytes for term in spread), default=size)
        return Demand(what, need, size, min(low, size), max(high, size))
    limit = plan.settings.kv_cache_limit
    if limit is None:
        return None
    total = sum(plan.token_bytes(card) for card in range(plan.used))
    return Demand(what, users * plan.grown(length) * total, limit, limit, limit)


def _capacity(plan: Plan, pool: Pool | None, users: int) -> Capacity | None:
    """What a cache in pages holds, or what caches could grow to."""
    limit, length = plan.subject.architecture.max_positions, plan.length
    if any(device.usable_bytes is None for device in plan.machine.devices) or not plan.used:
        return None
    if pool is not None:
        return Capacity(pool.tokens, min(pool.tokens, limit or pool.tokens), pool.tokens / length)
    each = [plan.token_bytes(card) for card in range(plan.used)]
    places = _places(plan, users)[: plan.used]
    rest = []
    for place in places:
        own = next((term.bytes for term in place.terms if term.name == "kv_cache"), 0)
        rest.append(place.peak_bytes - own)
    usable = [place.usable_bytes or 0 for place in places]

    def excess(tokens: int) -> float:
        grown = plan.grown(tokens)
        return max(grown * one + left - most for one, left, most in zip(each, rest, usable, strict=True))

    tokens = largest(excess, _LONGEST)
    return Capacity(tokens, min(tokens, limit or tokens), tokens / length)


def _refusal(plan: Plan) -> str:
    """Why it would not start."""
    architecture, settings = plan.subject.architecture, plan.settings
    devices = plan.machine.devices
    if any(device.vendor not in ("NVIDIA", "AMD", "") and not device.is_cpu for device in devices):
        return "fastLLM runs on NVIDIA's and AMD's cards and on processors"
    found = support(architecture, settings.version)
    if missing := model_refusal("fastLLM", architecture, settings.version, found):
        return missing
    if architecture.encoder or architecture.encoder_only:
        return f"fastLLM's programs run decoders only, and the model has an encoder; {others(architecture)}"
    method = plan.subject.recipe.method
    if method in ("exl2", "exl3", "mlc", "mlx", "bitsandbytes"):
        return f"fastLLM does not load {method} checkpoints"
    for cards in {*plan.layers}:
        if len(cards) > 1 and (undivided := undivided_heads(architecture, len(cards))):
            return undivided
    return too_long(architecture, settings.context or 0)


def _notes(plan: Plan, users: int) -> list[str]:
    settings, architecture = plan.settings, plan.subject.architecture
    notes = [
        *model_note("fastLLM", architecture, settings.version, support(architecture, settings.version)),
        NOTE.format(engine="fastLLM"),
    ]
    if parse_version(settings.version) > READ:
        notes.append("fastLLM's kernels were read up to 0.1.8; later ones are taken to be alike")
    if any(not cards for cards in plan.experts) and any(plan.layers) and plan.in_ram()[1]:
        notes.append("experts are in RAM (--moe_device)")
    if plan.paged:
        notes.append(f"prompts may take {_PROMPTS:.0%} of the cache")
        if users > settings.requests():
            notes.append(f"{settings.requests()} requests run at once (--max_batch); the others wait")
    elif any(plan.layers):
        notes.append(
            "caches grow with their sequences, to three quarters of what is free at first (--kv_cache_limit)"
        )
    if plan.unusual:
        notes.append("how fastLLM lays out the cache of this kind of attention is not established")
    if architecture.towers:
        notes.append("encoders of images are not counted")
    if len(plan.machine.devices) > max(1, plan.used):
        notes.append(f"{plan.used} of {len(plan.machine.devices)} cards are used (--tp)")
    return notes


def _remedies(
    plan: Plan, places: list[DeviceEstimate], host: DeviceEstimate, demand: Demand | None, users: int
) -> tuple[str, ...]:
    full = any(place.verdict in ("does_not_fit", "tight") for place in places)
    short = demand is not None and demand.verdict != "fits"
    found, settings = [], plan.settings
    experts = any(
        tensor.part == "experts" for layer, _ in plan.subject.architecture.blocks for tensor in layer.tensors
    )
    if (full or short) and experts and any(plan.experts):
        found.append("experts in RAM (--device cuda --moe_device cpu)")
    if (full or short) and settings.kv_cache_dtype == "auto":
        found.append("an 8-bit cache (--kv_cache_dtype fp8_e4m3)")
    if full and not plan.paged and plan.chunk > 1024:
        found.append("shorter parts of prompts (--chunked_prefill_size 1024)")
    if host.verdict in ("does_not_fit", "tight") and experts:
        found.append("experts in 4 bits (--moe_dtype int4g)")
        found.append("experts on disk (--moe_device disk)")
    if (full or short) and plan.subject.recipe.method == "" and settings.dtype == "auto":
        found.append("quantized weights (--dtype int4g)")
    return tuple(found)
