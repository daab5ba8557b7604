"""LightLLM: a slot for every token, as many as fit beside what it leaves free, by version.

Read in the sources of 1.0, 1.1 and 1.2: `server/api_cli.py`, `server/api_start.py` (defaults),
`common/basemodel/basemodel.py` (order of start-up), `common/kv_cache_mem_manager/` (slots; `common/mem_manager.py`
before 1.2), `common/req_manager.py` (request tables).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture
from willfit.calibration import constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import DEFAULT_CONTEXT, Machine, Question, Subject
from willfit.engines.ranks import (
    line_bytes,
    most_ranks,
    runtime_dtype,
    state_bytes_on_rank,
    undivided_heads,
)
from willfit.engines.support import Support, model_refusal, vectors_note
from willfit.engines.versions import Version, era_of
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, between, combined
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name

NAME = "lightllm"
NEWEST = "1.2.0"


@dataclass(frozen=True, slots=True)
class Era:
    """How LightLLM behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    mem_fraction, running_max_req_size, graph_max_batch_size
        Defaults of these flags.
    max_req_total_len
        Its default; None for the model's own limit.
    batch_max_tokens
        Its default, where chunks are on.
    tables_before
        Request tables are allocated before free memory is read, otherwise after.
    counters
        Request tables count the tokens that each request has used, over the vocabulary.
    """

    since: Version
    mem_fraction: float = 0.9
    running_max_req_size: int = 1000
    graph_max_batch_size: int = 16
    max_req_total_len: int | None = 16384
    batch_max_tokens: int = 16384
    tables_before: bool = False
    counters: bool = False


def _table() -> tuple[Era, ...]:
    eras = [Era((0, 0))]

    def changed(since: Version, **fields: object) -> None:
        eras.append(replace(eras[-1], since=since, **fields))  # type: ignore[arg-type]

    changed((1, 1), graph_max_batch_size=256, batch_max_tokens=8448, counters=True)
    changed(
        (1, 2),
        mem_fraction=0.8,
        running_max_req_size=256,
        max_req_total_len=None,
        batch_max_tokens=16384,
        tables_before=True,
    )
    return tuple(eras)


ERAS = _table()

#: Length of a request where the config names no limit (`utils/config_utils.py: auto_set_max_req_total_len`).
_FALLBACK_LENGTH = 16384

#: `--performance_mode personal` (`server/api_start.py`).
_PERSONAL = {"running_max_req_size": 6, "batch_max_tokens": 2048, "graph_max_batch_size": 6}

#: `--llm_kv_type`: bits of an element, and of what each element has of a scale in the model's dtype (groups of 8).
KV_TYPES: dict[str, tuple[int, int]] = {
    "int8kv": (8, 2),
    "int4kv": (4, 2),
    "fp8kv_sph": (8, 0),
    "fp8kv_spt": (8, 0),
    "fp8kv_dsa": (8, 0),
}

#: `--llm_kv_type` for the dtype of a cache.
_KV_TYPE_OF = {"int8": "int8kv", "int4": "int4kv", "fp8": "fp8kv_spt", "fp8_e4m3": "fp8kv_spt"}

#: Models that 1.2 registers (`models/registry.py`).
_MODELS = frozenset({
    "bloom", "deepseek_v2", "deepseek_v3", "deepseek_v32", "gemma", "gemma3", "gemma4", "glm4_moe_lite",
    "gpt_bigcode", "gpt_oss", "internlm", "internlm2", "internvl_chat", "llama", "llava", "minicpm", "mistral",
    "mixtral", "phi3", "qwen", "qwen2", "qwen2_5_vl", "qwen2_vl", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe",
    "qwen3_next", "qwen3_omni_moe", "qwen3_vl", "qwen3_vl_moe", "stablelm", "starcoder2",
})  # fmt: skip

#: What it lacks of those that the source of July 2025 has.
_DROPPED = frozenset({"chatglm", "cohere"})

#: Rotary tables reach this many positions beyond the model's limit (`models/llama/model.py`).
_SPARE_POSITIONS = 128 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `lightllm.server.api_server` under their own names; None leaves the choice to LightLLM.

    Attributes
    ----------
    llm_kv_type
        `None`, or a key of `KV_TYPES`.
    personal
        `--performance_mode personal`.
    """

    version: str = NEWEST
    tp: int = 1
    data_type: str | None = None
    mem_fraction: float | None = None
    max_total_token_num: int | None = None
    max_req_total_len: int | None = None
    batch_max_tokens: int | None = None
    running_max_req_size: int | None = None
    llm_kv_type: str = "None"
    disable_cudagraph: bool = False
    graph_max_batch_size: int | None = None
    graph_split_batch_size: int = 32
    graph_grow_step_size: int = 16
    disable_vision: bool = False
    disable_chunked_prefill: bool = False
    linear_att_ssm_data_type: str = "float32"
    personal: bool = False


@dataclass(frozen=True, slots=True)
class _Resolved:
    """What LightLLM decides before it loads anything."""

    era: Era
    mem_fraction: float
    length: int
    batch_max_tokens: int
    requests: int
    graph_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Sizing:
    """What LightLLM allocates on the card with the least memory.

    Attributes
    ----------
    before, after
        Terms that exist when free memory is read, and those that come after the slots.
    slot_bytes
        Bytes of a token.
    left_free_bytes
        What it leaves for everything else.
    pool_bytes, pool_interval
        Bytes for slots; negative if nothing is left.
    """

    resolved: _Resolved
    before: tuple[Term, ...]
    after: tuple[Term, ...]
    slot_bytes: int
    free_bytes: int
    left_free_bytes: int
    pool_bytes: int
    pool_interval: tuple[int, int]

    @property
    def slots(self) -> int:
        """Tokens that the pool holds."""
        return max(0, self.pool_bytes) // self.slot_bytes if self.slot_bytes else 0


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """LightLLM on as many of the devices as the model's heads divide over.

    Raises
    ------
    BadInput
        If LightLLM has no cache of the dtype that is asked for.
    """
    architecture, kv_dtype = subject.architecture, question.kv_dtype
    kv_type = _KV_TYPE_OF.get(kv_dtype, "None")
    if kv_type == "None" and kv_dtype != "auto" and dtype_name(kv_dtype) not in ("bf16", "fp16"):
        raise BadInput(f"LightLLM has no cache of {kv_dtype}", "it has int4, int8, fp8 and 16 bits")
    settings = Settings(
        version=question.version or NEWEST,
        tp=most_ranks(architecture, len(machine.devices), _repeats(architecture)),
        max_req_total_len=question.context_for(architecture),
        llm_kv_type=kv_type,
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What LightLLM would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least `tp` devices.
    settings
        Under LightLLM's own names.
    users
        Requests of `max_req_total_len` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks.
    """
    given = len(machine.devices)
    if given < settings.tp:
        raise BadInput(
            f"{settings.tp} ranks need {settings.tp} devices, {given} given", f"write --gpu {settings.tp}x..."
        )
    sizing = _size_up(subject, machine, settings)
    cache = (_cache_term(sizing, settings),) if sizing.slot_bytes else ()
    terms = (*sizing.before, *cache, *sizing.after)
    demand = _demand(sizing, settings, users)
    refusal = _refusal(subject, machine, settings, sizing)
    length = sizing.resolved.length
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, _interval(terms, sizing, settings))
            for index, device in enumerate(machine.devices[: settings.tp])
        ),
        host=DeviceEstimate("host", 0, machine.host_bytes, ()),
        capacity=Capacity(
            sizing.slots,
            min(sizing.slots, subject.architecture.max_positions or sizing.slots),
            sizing.slots / length,
        ),
        demands=(demand,) if cache else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(subject, machine, settings, sizing, users)),
        refusal=refusal,
        remedies=() if refusal or demand.verdict == "fits" else _remedies(subject, sizing, settings, users),
        details={
            "max_req_total_len": length,
            "batch_max_tokens": sizing.resolved.batch_max_tokens,
            "running_max_req_size": sizing.resolved.requests,
            "mem_fraction": sizing.resolved.mem_fraction,
            "max_total_token_num": sizing.slots,
        },
    )


def _resolve(settings: Settings, architecture: Architecture) -> _Resolved:
    era = era_of(settings.version, ERAS)
    personal = _PERSONAL if settings.personal else {}
    length = (
        settings.max_req_total_len or era.max_req_total_len or architecture.max_positions or _FALLBACK_LENGTH
    )
    chunk = era.batch_max_tokens if era.tables_before else min(length, era.batch_max_tokens)
    tokens = settings.batch_max_tokens or (length if settings.disable_chunked_prefill else chunk)
    requests = settings.running_max_req_size or era.running_max_req_size
    largest = (
        personal.get("graph_max_batch_size") or settings.graph_max_batch_size or era.graph_max_batch_size
    )
    return _Resolved(
        era=era,
        mem_fraction=era.mem_fraction if settings.mem_fraction is None else settings.mem_fraction,
        length=length,
        batch_max_tokens=personal.get("batch_max_tokens", tokens),
        requests=personal.get("running_max_req_size", requests),
        graph_sizes=() if settings.disable_cudagraph else graph_sizes(settings, largest),
    )


def graph_sizes(settings: Settings, largest: int) -> tuple[int, ...]:
    """Batch sizes that CUDA graphs are captured for (`common/basemodel/cuda_graph.py: gen_cuda_graph_batch_sizes`)."""
    split, step = settings.graph_split_batch_size, settings.graph_grow_step_size
    sizes = {*range(1, split + 1), *range(split + step, largest, step)}
    return (*sorted(size for size in sizes if size < largest), largest)


def _size_up(subject: Subject, machine: Machine, settings: Settings) -> _Sizing:
    device = min(machine.devices[: settings.tp], key=lambda one: one.usable_bytes or 0)
    architecture = subject.architecture
    resolved = _resolve(settings, architecture)
    dtype = runtime_dtype(subject, settings.data_type, device)
    slot = _slot_bytes(architecture, settings, dtype)
    tables = _request_tables(architecture, settings, resolved, dtype)
    before = [*_weights(subject, settings, dtype), *_libraries(subject, settings)]
    after = _after(architecture, settings, resolved, dtype)
    (before if resolved.era.tables_before else after).append(tables)

    total = device.usable_bytes or 0
    left = int(total * (1 - resolved.mem_fraction))
    spread = constant("device.visible_ratio")
    visible = between("visible", 0, -int(total * (spread.high - 1)), -int(total * (spread.low - 1)))
    taken, taken_low, taken_high = combined([*before, visible])
    pools = [total - size - left for size in (taken, taken_high, taken_low)]
    if settings.max_total_token_num is not None:
        pools = [settings.max_total_token_num * slot] * 3
    return _Sizing(
        resolved, tuple(before), tuple(after), slot, total - taken, left, pools[0], (pools[1], pools[2])
    )


def _slot_bytes(architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Bytes of a token in all layers of a rank; windows do not make it smaller (`mem_manager.py: get_cell_size`)."""
    bits, scale_bits = KV_TYPES.get(settings.llm_kv_type, (8 * DTYPE_BYTES[dtype], 0))
    total = 0
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                elements = ceil_div(mixer.kv_heads, settings.tp) * (mixer.head_dim + mixer.value_dim)
                total += times * elements * (bits + scale_bits) // 8
            elif isinstance(mixer, LatentAttention):
                # Latents are quantized for sparse attention only.
                total += times * mixer.cached_elements(1) * DTYPE_BYTES[dtype]
    return total


def _request_tables(architecture: Architecture, settings: Settings, resolved: _Resolved, dtype: str) -> Term:
    """Where the tokens of each request are, how often it used each token, and its states."""
    rows, width = resolved.requests + 1, max(resolved.length, resolved.batch_max_tokens)
    size, formula = rows * width * 4, f"{rows} requests x {width} tokens x 4 B"
    if resolved.era.counters:
        size += rows * architecture.vocab_size * 4
        formula += f" + {rows} x {architecture.vocab_size} counters x 4 B"
    state = state_bytes_on_rank(
        architecture, dtype, dtype_name(settings.linear_att_ssm_data_type), settings.tp
    )
    if state:
        size += rows * state
        formula += f" + {rows} x {state} B of states"
    # Counters can be kept on the host, and states are also kept for prefixes.
    low = size - (rows * architecture.vocab_size * 4 if resolved.era.counters else 0)
    reference = "lightllm/common/req_manager.py"
    return between("request_tables", size, low, size + rows * state, formula, reference)


def _weights(subject: Subject, settings: Settings, dtype: str) -> list[Term]:
    """The language model's share of a rank, and image and audio encoders, which run whole on every card."""
    parts = ("vision", "audio")
    lines = [line for line in subject.lines if line.tensor.part != "mtp"]
    own = sum(line_bytes(line, settings.tp, dtype) for line in lines if line.tensor.part not in parts)
    others = sum(line_bytes(line, 1, dtype) for line in lines if line.tensor.part in parts)
    size = own + (0 if settings.disable_vision else others)
    spread = constant("vllm.weights_ratio")
    less, more = subject.weight_sureness
    formula = f"{own} B of tensors ({subject.recipe.name})"
    formula += f" on one of {settings.tp} ranks" if settings.tp > 1 else ""
    formula += f" + {others} B of encoders" if size > own else ""
    reference = f"lightllm/common/basemodel/layer_weights; interval as measured for vLLM: {spread.reference}"
    low, high = int(size * spread.low * less), int(size * spread.high * more)
    return [between("weights", size, low, high, formula, reference)]


def _libraries(subject: Subject, settings: Settings) -> list[Term]:
    """What drivers and libraries hold when free memory is read; encoders run in a process of their own."""
    context = constant("cuda.context")
    processes = 2 if subject.architecture.towers and not settings.disable_vision else 1
    spread = constant("vllm.non_torch.one_rank" if settings.tp == 1 else "vllm.non_torch.many_ranks")
    return [
        between(
            "context",
            int(processes * context.value),
            int(processes * context.low),
            int(processes * context.high),
            f"CUDA context of {processes} process(es)",
            context.reference,
        ),
        between(
            "runtime",
            int(spread.value),
            int(spread.low),
            int(spread.high),
            f"library workspaces of {settings.tp} rank(s)",
            f"as measured for vLLM: {spread.reference}",
        ),
    ]


def _after(architecture: Architecture, settings: Settings, resolved: _Resolved, dtype: str) -> list[Term]:
    """What comes after the slots. No measurement of LightLLM stands behind it, so the intervals are vLLM's."""
    size, terms = DTYPE_BYTES[dtype], []
    tokens, elements = resolved.batch_max_tokens, widest_layer_elements(architecture, settings.tp)
    model = tokens * elements * size
    rows = max(resolved.graph_sizes, default=1)
    scores = rows * architecture.logits_per_row * (size + 4)
    spread = constant("vllm.activation_ratio.v1")
    formula = (
        f"the larger of {tokens} tokens x {elements} elements x {size} B = {model} and "
        f"{rows} rows x {architecture.logits_per_row} logits x {size + 4} B = {scores}"
    )
    peak = max(model, scores)
    reference = (
        "lightllm/common/basemodel/basemodel.py: _check_max_len_infer; interval as measured for vLLM: "
        f"{spread.reference}"
    )
    terms.append(
        between("activations", peak, int(peak * spread.low), int(peak * spread.high), formula, reference)
    )
    if architecture.ropes:
        width = sum(rope.dim for rope in architecture.ropes)
        positions = architecture.max_positions + _SPARE_POSITIONS
        formula = f"{positions} positions x {width} x {size} B"
        least = architecture.max_positions * width * size
        whole = positions * width * size
        terms.append(
            between("buffers", whole, least, whole, formula, "lightllm/models/llama/model.py: rotary tables")
        )
    if resolved.graph_sizes:
        graphs, layers = constant("vllm.graphs_taken"), len(architecture.layers)
        count = layers * len(resolved.graph_sizes)
        formula = f"{layers} layers x {len(resolved.graph_sizes)} captured sizes x {graphs.value:.0f} B"
        terms.append(
            between(
                "cuda_graphs",
                int(count * graphs.value),
                int(count * graphs.low),
                int(count * graphs.high),
                formula,
                f"as measured for vLLM: {graphs.reference}",
            )
        )
    return terms


def _cache_term(sizing: _Sizing, settings: Settings) -> Term:
    # One slot more is for padding; it is not handed out.
    size = (sizing.slots + 1) * sizing.slot_bytes
    low, high = sizing.pool_interval
    slots = f"({sizing.slots} + 1) tokens x {sizing.slot_bytes} B"
    if settings.max_total_token_num is not None:
        formula = f"{slots} (as asked for)"
    else:
        formula = f"{sizing.free_bytes} free - {sizing.left_free_bytes} left free: {slots}"
    reference = "lightllm/common/kv_cache_mem_manager/mem_manager.py: profile_size"
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _interval(terms: tuple[Term, ...], sizing: _Sizing, settings: Settings) -> tuple[int, int] | None:
    """The slots take what the terms before them leave, so only what comes after is uncertain."""
    if settings.max_total_token_num is not None or sizing.pool_bytes <= 0:
        return None
    after, low, high = combined(sizing.after)
    peak = sum(term.bytes for term in terms)
    return peak - (after - low), peak + (high - after)


def _demand(sizing: _Sizing, settings: Settings, users: int) -> Demand:
    """Slots of the requests; also for as long a request as is allowed, and more than a batch of prompts."""
    length = sizing.resolved.length
    words = f"{users:,} request{'s' if users > 1 else ''} of {length:,} tokens"
    tokens = users * length
    if sizing.resolved.era.tables_before and tokens <= sizing.resolved.batch_max_tokens:
        tokens = sizing.resolved.batch_max_tokens + 1
        words += f", and more than the {tokens - 1:,} of --batch_max_tokens"
    return Demand(words, tokens * sizing.slot_bytes, sizing.pool_bytes, *sizing.pool_interval)


def _repeats(architecture: Architecture) -> bool:
    """Whether the model's code repeats key/value heads (`models/qwen2/model.py` and what is built on it)."""
    return architecture.model_type.startswith("qwen")


def _refusal(subject: Subject, machine: Machine, settings: Settings, sizing: _Sizing) -> str:
    """Why LightLLM would not start, whatever the memory; empty if it would."""
    architecture = subject.architecture
    if any(device.is_cpu or device.vendor not in ("NVIDIA", "") for device in machine.devices):
        return "of the devices known here, LightLLM runs on NVIDIA's only"
    if architecture.model_type not in _MODELS | (_DROPPED if sizing.resolved.era.since < (1, 2) else set()):
        return model_refusal("LightLLM", architecture, settings.version, Support(False))
    if not sizing.slot_bytes:
        return "LightLLM sizes a cache of keys and values, and this model has none"
    return undivided_heads(architecture, settings.tp, _repeats(architecture))


def _notes(subject: Subject, machine: Machine, settings: Settings, sizing: _Sizing, users: int) -> list[str]:
    notes = [
        *vectors_note(subject, "LightLLM"),
        "slots and tables are from LightLLM's source; activations, graphs and workspaces were measured for vLLM only",
    ]
    if users > sizing.resolved.requests:
        notes.append(
            f"{sizing.resolved.requests} requests run at once (--running_max_req_size); the others wait"
        )
    if len(machine.devices) > settings.tp:
        notes.append(f"{settings.tp} of {len(machine.devices)} devices are used (--tp {settings.tp})")
    mixers = [mixer for layer, _ in subject.architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, Attention) and mixer.window for mixer in mixers):
        notes.append("window layers take as many slots as the others")
    if any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in mixers):
        notes.append("how index keys are packed is not established")
    return notes


def _remedies(subject: Subject, sizing: _Sizing, settings: Settings, users: int) -> tuple[str, ...]:
    """What would make it fit."""
    remedies, length = [], sizing.resolved.length
    fitting = min(sizing.slots // users, length)
    if (
        sizing.resolved.era.tables_before
        and sizing.resolved.batch_max_tokens >= sizing.slots > DEFAULT_CONTEXT
    ):
        remedies.append(f"shorter batches of prompts (--batch_max_tokens {DEFAULT_CONTEXT})")
    if 0 < fitting < length:
        remedies.append(f"requests of {fitting:,} tokens (--max_req_total_len {fitting})")
    if 1 <= sizing.slots // length < users:
        remedies.append(f"{sizing.slots // length} at once with {length:,} tokens")
    if settings.llm_kv_type == "None" and sizing.pool_bytes > 0:
        remedies.append("an 8-bit cache (--llm_kv_type int8kv)")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format fp8 halves them, awq quarters them")
    remedies.append(f"{2 * settings.tp} devices (--tp {2 * settings.tp})")
    return tuple(remedies)
