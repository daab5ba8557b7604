"""MLC-LLM on cards as an estimate."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.borrowed import library_terms
from willfit.engines.context import context_term
from willfit.engines.mlc_llm.account import METAL_TOKENS, PAGE, Account
from willfit.engines.mlc_llm.eras import NEWEST
from willfit.engines.mlc_llm.models import support
from willfit.engines.mlc_llm.planning import usual
from willfit.engines.mlc_llm.settings import Mode, Settings
from willfit.engines.mlc_llm.sources import SOURCES
from willfit.engines.ranks import most_ranks, undivided_heads
from willfit.engines.support import model_note, model_refusal, too_long
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, between, exact
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name

NAME = "mlc-llm"

#: Formats that MLC-LLM runs beside its own: their methods.
_METHODS = ("", "mlc", "awq", "fp8")

#: Sequences and tokens that a user would ask `local` for.
_FEW, _SHORT = 4, 8192

#: Sizes of trees of drafted tokens that tables have room for.
_TREE = 256

#: Bytes of an index.
_INDEX = 4

#: FlashInfer's kernels need this generation of NVIDIA's cards.
_FLASHINFER_SINCE = 8

#: Copies of a row of scores while an answer is sampled.
_COPIES = 3

#: By how much single allocations may be more than what is asked for.
_ROUNDED = 1.01


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The mode that a user would take: `local` for little, `interactive` for one sequence, `server` for more.

    Raises
    ------
    BadInput
        If the cache is asked for in a dtype that the model does not compute in.
    """
    asked, dtype = question.kv_dtype, subject.recipe.base.name
    if asked != "auto" and dtype_name(asked) not in (dtype, "fp16", "bf16"):
        raise BadInput(
            f"MLC-LLM has no {asked} cache", "its cache is in the dtype that the model computes in"
        )
    context = question.context_for(subject.architecture)
    mode: Mode = "server"
    if question.users <= _FEW and question.users * context <= _SHORT:
        mode = "local"
    elif question.users == 1:
        mode = "interactive"
    settings = Settings(
        version=question.version or NEWEST,
        mode=mode,
        context_window_size=context,
        tensor_parallel_shards=most_ranks(subject.architecture, len(machine.devices), "none"),
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What MLC-LLM would allocate on each card.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least as many cards as matrices are divided over.
    settings
        Under MLC-LLM's own names.
    users
        Sequences of `context_window_size` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer cards than ranks.
    """
    ranks = settings.tensor_parallel_shards
    if len(machine.devices) < ranks:
        raise BadInput(
            f"tensor_parallel_shards is {ranks}, {len(machine.devices)} devices given", "write --gpu 2x..."
        )
    account = Account(subject, machine, settings)
    refusal = _refusal(account)
    terms = () if refusal else _terms(account)
    devices = tuple(
        DeviceEstimate(device.name, index, device.usable_bytes, terms if index < ranks else ())
        for index, device in enumerate(machine.devices)
    )
    length = _length(account)
    demand = None if refusal else _demand(account, users, length)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=devices,
        host=DeviceEstimate("host", 0, machine.host_bytes, () if refusal else _host(account)),
        capacity=None if refusal else _capacity(account, length),
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(account, users)),
        refusal=refusal,
        remedies=() if refusal else _remedies(account, devices, demand, users),
        details={
            "mode": settings.mode,
            "context": length,
            "max_num_sequence": account.sequences,
            "max_total_seq_length": account.tokens[0],
            "prefill_chunk_size": account.chunk,
            "users": users,
            "era": settings.era,
        },
    )


def _length(account: Account) -> int:
    """Tokens of the longest sequence."""
    default = Question().context_for(account.subject.architecture)
    return account.settings.context_window_size or min(default, account.limit or default)


def _pages(account: Account, tokens: int) -> int:
    """Pages of a cache for so many tokens: one more, and two for each sequence where a window moves."""
    return ceil_div(tokens, PAGE) + 1 + (2 * account.sequences if account.rolling else 0)


def _terms(account: Account) -> tuple[Term, ...]:
    """What is on each card."""
    settings, subject, device = account.settings, account.subject, account.machine.devices[0]
    version = settings.version
    size, (low, high) = account.weights, account.weights_interval
    formula = f"{size} B of parameters ({subject.recipe.name})"
    formula += f" on one of {account.ranks} cards" if account.ranks > 1 else ""
    terms = [between("weights", size, low, int(high * _ROUNDED), formula, SOURCES.cite("weights", version))]
    if account.mixers:
        terms += [_cache(account), _attention(account), *_workspaces(account)]
    terms += _states(account)
    terms += [_embeddings(account), _planned(account), _logits(account)]
    if device.vendor in ("NVIDIA", ""):
        return (*terms, *library_terms(device, account.ranks))
    return (*terms, context_term(device))


def _cache(account: Account) -> Term:
    settings = account.settings
    likely, low, high = (_pages(account, tokens) if tokens else 0 for tokens in account.tokens)
    each = account.page_bytes
    pages = f"{likely} pages x {each} B"
    why = f"{account.tokens[0]} tokens ({settings.mode})"
    if settings.max_total_seq_length:
        why = f"{account.tokens[0]} tokens (as asked for)"
    elif account.metal and account.tokens[0] == METAL_TOKENS:
        why = f"{METAL_TOKENS} tokens (the most on Metal)"
    elif account.card_bytes is not None and account.tokens[0] == account.fitting(account.temporary[0]):
        why = (
            f"({settings.gpu_memory_utilization:g} (gpu_memory_utilization) x {account.card_bytes} B usable - "
            f"{account.weights} (weights) - {account.temporary[0]} (the plan, twice) - {account.attention} "
            f"(attention, as counted) - {account.workspaces:.15g} (workspaces, as counted)) "
            f"x {each} / {PAGE * account.token:.15g}"
        )
    reference = f"{SOURCES.cite('account', settings.version)}; {SOURCES.cite('pages', settings.version)}"
    return between("kv_cache", likely * each, low * each, high * each, f"{why} = {pages}", reference)


def _attention(account: Account) -> Term:
    """Queries, keys, values and outputs of a part of a prompt, with two sums of exponents."""
    heads, kv_heads, width, value = account.shape
    chunk = account.chunk
    elements = heads * value if account.latent else (2 * heads + 2 * kv_heads) * width
    size = chunk * (elements * account.width + 2 * heads * DTYPE_BYTES["fp32"])
    formula = f"{chunk} tokens x ({elements} x {account.width} + {2 * heads} x {DTYPE_BYTES['fp32']}) B"
    return exact("attention_buffers", size, formula, SOURCES.cite("pages", account.settings.version))


def _workspaces(account: Account) -> list[Term]:
    """FlashInfer's workspaces, and tables of pages; neither on other cards than NVIDIA's."""
    settings, device, era = account.settings, account.machine.devices[0], account.settings.era
    if device.vendor not in ("NVIDIA", ""):
        return []
    found, reference = [], SOURCES.cite("pages", settings.version)
    major = device.compute_capability.split(".")[0]
    able = not major.isdigit() or int(major) >= _FLASHINFER_SINCE
    if settings.flashinfer and able and account.width == DTYPE_BYTES["fp16"]:
        size = era.attention_workspace
        # A build without FlashInfer, or a width of heads that it lacks, has none.
        found.append(between("workspace", size, 0, size, f"{size} B for FlashInfer's kernels", reference))
    entries = era.depth * (6 * account.sequences + 2 + _pages(account, account.tokens[0]))
    entries += 2 * account.chunk + _TREE * _TREE * account.sequences
    size = max(era.tables, entries * _INDEX)
    text = f"{size} B" if era.tables > entries * _INDEX else f"{entries} entries x {_INDEX} B"
    found.append(
        between("page_tables", size, min(size, entries * _INDEX), size, f"{text} of tables", reference)
    )
    return found


def _states(account: Account) -> list[Term]:
    """States of sequences that run, and of those that are kept for their prefixes."""
    architecture, ranks = account.subject.architecture, account.ranks
    total = 0
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            for state in mixer.fixed_states:
                stored = account.dtype if state.name == "conv" else "fp32"
                share = ceil_div(state.units, ranks)
                total += times * state.elements * share // state.units * DTYPE_BYTES[stored]
    if not total:
        return []
    running = account.sequences
    kept = running if account.settings.prefix_cache_mode == "radix" else 0
    slots = running + kept
    formula = f"{slots} sequences x {total} B"
    reference = SOURCES.cite("state", account.settings.version)
    return [
        between("recurrent_state", slots * total, running * total, 2 * running * total, formula, reference)
    ]


def _embeddings(account: Account) -> Term:
    """Embeddings and hidden states of a part of a prompt."""
    chunk, hidden = account.compiled_chunk, account.subject.architecture.hidden_size
    formula = f"2 x {chunk} tokens x {hidden} x {account.width} B"
    return exact(
        "embeddings", 2 * chunk * hidden * account.width, formula,
        SOURCES.cite("embeddings", account.settings.version),
    )  # fmt: skip


def _planned(account: Account) -> Term:
    """Storages of parts of prompts, and of one token of each sequence, which are kept apart."""
    likely, low, high = account.plan
    rows = account.compiled_chunk + account.compiled_batch
    size = rows * likely * account.width
    formula = f"({account.compiled_chunk} tokens + {account.compiled_batch} sequences) x {likely} x {account.width} B"
    # Hidden states of last tokens, and what a function returns, are not part of the plan.
    last = account.compiled_batch * account.subject.architecture.hidden_size * account.width
    return between(
        "planned_buffers",
        size,
        rows * low * account.width - last,
        rows * high * account.width + last,
        formula,
        SOURCES.cite("plan", account.settings.version),
    )


def _logits(account: Account) -> Term:
    """Tables of words and scores for each sequence, and scores while an answer is sampled."""
    sequences, vocabulary = account.sequences, account.subject.architecture.vocab_size
    tables = sequences * 20 + sequences * (4 * vocabulary * _INDEX + ceil_div(vocabulary, 8))
    scores = sequences * vocabulary * DTYPE_BYTES["fp32"]
    formula = (
        f"{sequences} x (20 + 4 x {vocabulary} x {_INDEX} + {ceil_div(vocabulary, 8)}) + "
        f"{sequences} x {vocabulary} x {DTYPE_BYTES['fp32']} B"
    )
    reference = SOURCES.cite("logits", account.settings.version)
    return between("logits", tables + scores, tables, tables + _COPIES * scores, formula, reference)


def _host(account: Account) -> tuple[Term, ...]:
    """Copies of the tables of words that are filled in RAM."""
    if account.metal:
        return ()
    sequences, vocabulary = account.sequences, account.subject.architecture.vocab_size
    size = sequences * 4 * vocabulary * _INDEX
    formula = f"{sequences} x 4 x {vocabulary} x {_INDEX} B"
    return (exact("logits", size, formula, SOURCES.cite("logits", account.settings.version)),)


def _needed(account: Account, length: int) -> int:
    """Pages of a sequence."""
    if account.rolling:
        window = max((one.window for one in account.mixers if isinstance(one, Attention)), default=0)
        length = min(length, window + account.chunk)
    return ceil_div(length, PAGE)


def _demand(account: Account, users: int, length: int) -> Demand | None:
    if not account.mixers:
        return None
    what = f"{users} sequence{'s' if users > 1 else ''} of {length:,} tokens"
    need = users * _needed(account, length) * account.page_bytes
    has, low, high = (
        (_pages(account, tokens) if tokens else 0) * account.page_bytes for tokens in account.tokens
    )
    return Demand(what, need, has, min(low, has), max(high, has))


def _capacity(account: Account, length: int) -> Capacity | None:
    if not account.mixers or account.card_bytes is None:
        return None
    tokens = account.tokens[0]
    pages = _pages(account, tokens) if tokens else 0
    limit = account.limit or account.subject.architecture.max_positions or tokens
    longest = limit if account.rolling and tokens else min(tokens, limit)
    return Capacity(tokens, longest, min(account.sequences, pages / _needed(account, length)))


def _refusal(account: Account) -> str:
    """Why it would not start, whatever the memory."""
    subject, settings, architecture = account.subject, account.settings, account.subject.architecture
    if any(device.is_cpu for device in account.machine.devices) or not account.machine.devices:
        return "MLC-LLM runs on cards of NVIDIA, AMD, Apple and Intel"
    if subject.gguf is not None:
        return "MLC-LLM does not load GGUF files; llama.cpp does"
    found = support(architecture, settings.version)
    if missing := model_refusal("MLC-LLM", architecture, settings.version, found):
        return missing
    if subject.recipe.method not in _METHODS:
        return (
            f"MLC-LLM does not load {subject.recipe.method} checkpoints; name one of its own formats: q4f16_1"
        )
    if undivided := undivided_heads(architecture, account.ranks, "none"):
        return undivided
    ranks, width = account.ranks, architecture.hidden_size
    if "g40" in subject.recipe.name and width * ranks // 40 % ranks:
        return f"rows of {width} in groups of 40 cannot be divided over {ranks} cards; name q4f16_1"
    return too_long(architecture, settings.context_window_size or 0)


def _notes(account: Account, users: int) -> list[str]:
    settings, subject, architecture = account.settings, account.subject, account.subject.architecture
    notes = [
        *model_note("MLC-LLM", architecture, settings.version, support(architecture, settings.version)),
        "models that others converted have a configuration of their own (prefill_chunk_size, context_window_size, "
        "max_batch_size); what MLC-LLM makes of a model's config is taken",
        "workspaces of the vendor's libraries are not established; what PyTorch engines show stands for them",
    ]
    if not usual(account.subject.architecture) or account.ranks > 1:
        notes.append("how the compiler plans the buffers of this model is not established by any log")
    if account.tokens[0] <= 0:
        notes.append(
            "MLC-LLM refuses to start: as it counts, weights and buffers leave nothing of gpu_memory_utilization"
        )
    if users > account.sequences:
        notes.append(f"{account.sequences} sequences run at once (max_num_sequence); the others wait")
    if account.metal and account.tokens[0] == METAL_TOKENS:
        notes.append(f"on Metal the cache has at most {METAL_TOKENS} tokens")
    if architecture.towers:
        notes.append("buffers of encoders of images are not counted")
    if subject.recipe.method in ("awq", "fp8"):
        notes.append("checkpoints in this format are loaded for some models only")
    if len(account.machine.devices) > account.ranks:
        used = account.ranks
        notes.append(
            f"{used} of {len(account.machine.devices)} devices are used (tensor_parallel_shards={used})"
        )
    return notes


def _remedies(
    account: Account, devices: tuple[DeviceEstimate, ...], demand: Demand | None, users: int
) -> tuple[str, ...]:
    settings, subject = account.settings, account.subject
    full = any(device.verdict in ("does_not_fit", "tight") for device in devices)
    short = demand is not None and demand.verdict != "fits"
    found = []
    if short and settings.mode != "server" and account.tokens[0] > 0:
        found.append("as much cache as there is room for (--mode server)")
    capped = account.metal and settings.mode == "server"
    if short and settings.gpu_memory_utilization < 0.9 and not full and not capped:
        found.append('a larger share of the card (--overrides "gpu_memory_utilization=0.9")')
    if (full or short) and account.compiled_chunk > 1024:
        found.append('shorter parts of prompts (--overrides "prefill_chunk_size=1024")')
    if full and settings.mode == "server":
        found.append("a smaller cache (--mode local)")
    if (full or short) and subject.recipe.method == "":
        found.append("weights in 4 bits: --format q4f16_1")
    if (full or short) and subject.recipe.method == "mlc" and "int3" not in subject.recipe.name:
        found.append("weights in 3 bits: --format q3f16_1")
    if (full or short) and users > 1 and demand is not None and demand.needed_bytes:
        fitting = int(users * demand.pool_bytes // demand.needed_bytes)
        if 0 < fitting < users:
            found.append(f"{fitting} user{'s' if fitting > 1 else ''} at {_length(account):,} tokens")
    if (full or short) and not account.metal:
        found.append(
            f'{2 * account.ranks} devices (--overrides "tensor_parallel_shards={2 * account.ranks}")'
        )
    return tuple(found)
