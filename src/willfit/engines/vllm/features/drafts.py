"""What speculative decoding loads and keeps beside the target model.

A draft's weights are loaded with the target's (`v1/spec_decode/llm_base_proposer.py: load_model`, before 0.20
`eagle.py`), its attention layers join the target's in the cache, and the proposer keeps a hidden state for each
token of a batch. EAGLE heads use the target's token table and head where these are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from willfit.architectures.drafts import HEAD_METHODS
from willfit.architectures.mixers import Attention
from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.versions import Version, era_of
from willfit.engines.vllm.cache.specs import CacheSpec, cache_specs
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.loading.buffers import buffer_bytes, rope_bytes
from willfit.engines.vllm.loading.pieces import on_rank
from willfit.engines.vllm.loading.weights import parameter_bytes
from willfit.engines.vllm.options import Draft
from willfit.engines.vllm.profiling.runner import uses_v2_runner
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between, exact
from willfit.formats.weights import WeightLine
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, dtype_name

#: Methods that load no model and keep no cache of their own.
WITHOUT_MODEL = frozenset({"ngram", "ngram_gpu", "suffix", "custom_class", "extract_hidden_states"})

#: Methods whose models keep no cache.
_WITHOUT_CACHE = frozenset({"medusa", "mlp_speculator"})

#: Methods that feed hidden states of the target to the draft, and hold them for a whole batch.
_ON_HIDDEN_STATES = (*HEAD_METHODS, "mtp", "dspark")

#: What an unknown draft may take, as a share of the target's weights: a head about one layer, a model up to half.
_MOST_OF_TARGET = 0.5


@dataclass(frozen=True, slots=True)
class DraftEra:
    """How drafts are loaded from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    v1_methods
        Methods that the V1 engine runs by itself. With others, versions that still have V0 fall back to it.
    v0
        V0 still drafts.
    compares
        A head's table and vocabulary projection are the target's if their numbers are; before, if their shapes are.
    embeds
        The proposer also holds an input embedding for each token.
    """

    since: Version
    v1_methods: frozenset[str] = frozenset()
    v0: bool = False
    compares: bool = False
    embeds: bool = False


_FIRST_V1 = frozenset({"eagle", "eagle3", "medusa", "mtp", "ngram"})
_LATER_V1 = _FIRST_V1 | WITHOUT_MODEL | {"dflash", "draft_model", "dspark"}

ERAS = (
    DraftEra((0, 0), v0=True),
    DraftEra((0, 9), v0=True, v1_methods=_FIRST_V1),
    DraftEra((0, 10), v1_methods=_FIRST_V1, embeds=True),
    DraftEra((0, 11, 1), v1_methods=_FIRST_V1 | {"suffix"}, embeds=True),
    DraftEra((0, 12), v1_methods=_LATER_V1 - {"draft_model"}, embeds=True, compares=True),
    DraftEra((0, 15), v1_methods=_LATER_V1, embeds=True, compares=True),
    DraftEra((0, 33), v1_methods=_LATER_V1 - {"medusa"}, embeds=True, compares=True),
)


def draft_era(version: str) -> DraftEra:
    """How a version loads drafts."""
    return era_of(version, ERAS)


def falls_back(subject: Subject, settings: Settings) -> bool:
    """Whether a version that has both engines drafts with V0 (`engine/arg_utils.py: _is_v1_supported_oracle`)."""
    draft = settings.draft
    if draft is None or settings.generation is not None:
        return False
    era = draft_era(settings.version)
    return era.v0 and method_of(draft, subject) not in era.v1_methods


def method_of(draft: Draft, subject: Subject) -> str:
    """The method; some heads are told by their own config (`config/speculative.py`)."""
    head = subject.draft
    if head is not None and head.architecture.family == "token_heads":
        return head.architecture.model_type
    return draft.method


def is_unknown(subject: Subject, settings: Settings) -> bool:
    """Whether something drafts whose config is not known."""
    draft = settings.draft
    if draft is None or draft.method in WITHOUT_MODEL or settings.mtp:
        return False
    return subject.draft is None


def draft_term(
    subject: Subject, settings: Settings, resolved: Resolved, dtype: str, device: Device, target_bytes: int
) -> Term | None:
    """Weights of the draft on one rank; None if the target drafts by itself or nothing is loaded.

    Parameters
    ----------
    target_bytes
        The target's weights on that rank, against which an unknown draft is bounded.
    """
    draft = settings.draft
    if draft is None or draft.method in WITHOUT_MODEL or settings.mtp:
        return None
    reference = source("drafts", settings.version, resolved.era)
    if subject.draft is None:
        guess = _head_bytes(subject, settings, dtype) if draft.method in HEAD_METHODS else 0
        formula = (
            f"{guess} B: {draft.model or draft.method} is not known, at most half of the target's weights"
        )
        return between("draft", guess, 0, max(guess, int(_MOST_OF_TARGET * target_bytes)), formula, reference)
    own = _own_lines(subject, settings, draft)
    loaded = replace(subject.draft, lines=tuple(own))
    placed = _placed(settings, draft)
    stored = parameter_bytes(loaded, placed, dtype, on_rank(loaded, placed, dtype, device))
    buffers = _buffer_bytes(subject, loaded, placed, dtype)
    shared = subject.draft.weight_bytes - sum(line.bytes for line in own)
    formula = f"{stored} B of {subject.draft.model} + {buffers} B of tables and scales"
    if shared:
        formula += f" (token table and head, {shared} B, are the target's)"
    spread = constant("vllm.weights_ratio")
    size = stored + buffers
    more = shared if _may_keep_own(subject, settings, draft) else 0
    return between("draft", size, int(size * spread.low), int(size * spread.high) + more, formula, reference)


#: Drafts whose windows bound what they look at, not what they keep: they write the target's tokens to the slots of
#: their positions (`models/laguna_dflash.py`).
_KEPT_WHOLE = frozenset({"laguna_dflash"})


def draft_specs(
    subject: Subject,
    settings: Settings,
    resolved: Resolved,
    kv_dtype: str,
    dtype: str,
    device: Device,
    specs: Iterable[CacheSpec],
) -> list[CacheSpec]:
    """Cache layers of the draft; those of an unknown head are taken to be one of the target's.

    Parameters
    ----------
    specs
        The target's, whose block size all layers of a pool share.
    """
    draft, specs = settings.draft, list(specs)
    if draft is None or settings.mtp or method_of(draft, subject) in (*WITHOUT_MODEL, *_WITHOUT_CACHE):
        return []
    attention = [spec for spec in specs if spec.is_attention]
    if subject.draft is None:
        full = [spec for spec in attention if spec.kind in ("full", "mla")]
        return full[-1:] if draft.method in HEAD_METHODS else []
    placed = replace(
        _placed(settings, draft),
        block_size=attention[0].block_size if attention else settings.block_size,
        pipeline_parallel=1,
    )
    if draft.kv_cache_dtype not in (None, "auto"):
        kv_dtype = dtype_name(str(draft.kv_cache_dtype))
    own = cache_specs(subject.draft.architecture, placed, resolved, kv_dtype, dtype, device)
    whole = subject.draft.architecture.family in _KEPT_WHOLE
    return [spec.kept_whole() if whole else spec for spec in own]


def buffer_term(subject: Subject, settings: Settings, resolved: Resolved, dtype: str) -> Term | None:
    """What the proposer holds for each token of a batch, and for each sequence; None without one.

    V1's holds a hidden state and an input embedding for each token (`v1/spec_decode/llm_base_proposer.py`), V2's a
    hidden state where the draft takes the target's, and embeddings beside images (`v1/worker/gpu/spec_decode/`).
    """
    draft = settings.draft
    if (
        draft is None
        or resolved.era.generation == "v0"
        or draft.method not in (*_ON_HIDDEN_STATES, "draft_model")
    ):
        return None
    architecture = (subject.draft or subject).architecture
    size = DTYPE_BYTES[dtype]
    v2_runner = uses_v2_runner(subject, settings)
    if v2_runner:
        on_states = draft.method in _ON_HIDDEN_STATES
        tensors = on_states * (2 if subject.architecture.towers and not settings.language_model_only else 1)
    else:
        tensors = 1 + draft_era(settings.version).embeds
    tokens, width = resolved.max_num_batched_tokens, architecture.hidden_size
    taken = tensors * tokens * width * size
    formula = f"{tensors} x {tokens} tokens x {width} x {size} B"
    if v2_runner and draft.probabilistic:
        # In fp32 until the runner keeps them as the head makes them.
        each = size if resolved.era.whole_account else DTYPE_BYTES["fp32"]
        rows, vocabulary = (
            resolved.max_num_seqs * settings.speculative_tokens,
            subject.architecture.vocab_size,
        )
        taken += rows * vocabulary * each
        formula += f" + {rows} drafted tokens x {vocabulary} logits x {each} B"
    if not taken:
        return None
    return exact("draft_buffers", taken, formula, source("drafts", settings.version, resolved.era))


def draft_refusal(subject: Subject, settings: Settings, generation: str) -> str:
    """Why the draft cannot be run by this version; empty if it can."""
    draft = settings.draft
    if draft is None:
        return ""
    method = method_of(draft, subject)
    if generation == "v1" and method not in draft_era(settings.version).v1_methods:
        return f"this version of vLLM does not draft by {method}; take another draft or version"
    target, other = subject.architecture.vocab_size, subject.draft
    if method == "draft_model" and other is not None and other.architecture.vocab_size != target:
        return (
            f"draft and target have vocabularies of {other.architecture.vocab_size} and {target} tokens, "
            "which vLLM refuses; take a draft of the same family"
        )
    return ""


def _placed(settings: Settings, draft: Draft) -> Settings:
    """The settings under which the draft is loaded: in one pipeline stage, not offloaded."""
    return replace(
        settings,
        mtp=False,
        draft=None,
        pipeline_parallel=1,
        tensor_parallel=draft.tensor_parallel or settings.tensor_parallel,
    )


def _own_lines(subject: Subject, settings: Settings, draft: Draft) -> list[WeightLine]:
    """Lines of the draft that it loads for itself."""
    head = subject.draft
    assert head is not None
    if draft.method not in HEAD_METHODS:
        return list(head.lines)
    target = subject.architecture
    same_width = head.architecture.hidden_size == target.hidden_size
    shares_table = settings.pipeline_parallel == 1 and same_width
    own = []
    for line in head.lines:
        tensor = line.tensor
        if tensor.part == "embedding" and shares_table:
            continue
        projects = tensor.part == "head" and tensor.kind == "linear"
        if projects and not draft_era(settings.version).compares and tensor.shape[0] == target.vocab_size:
            continue
        own.append(line)
    return own


def _may_keep_own(subject: Subject, settings: Settings, draft: Draft) -> bool:
    """Whether a shared table may turn out to be kept: it is stored, and its numbers are not known."""
    head = subject.draft
    stored = head is not None and head.from_headers
    return stored and draft.method in HEAD_METHODS and draft_era(settings.version).compares


def _buffer_bytes(subject: Subject, draft: Subject, settings: Settings, dtype: str) -> int:
    """Tables and scales of the draft, and the map of its tokens to the target's; equal rotary tables are shared."""
    target, own = subject.architecture, draft.architecture
    if not own.layers:
        return 0
    size = buffer_bytes(draft, settings, dtype)
    if own.ropes == target.ropes and own.max_positions == target.max_positions:
        size -= rope_bytes(own, dtype, era_for(settings.version, settings.generation).interleaved_table)
    drafted = next((t.shape[0] for t in own.head if t.kind == "linear"), own.vocab_size)
    return size + (8 * drafted if own.family == "draft_heads" and drafted != target.vocab_size else 0)


def _head_bytes(subject: Subject, settings: Settings, dtype: str) -> int:
    """About what a head of one of the target's layers takes: that layer without experts, and a projection."""
    architecture = subject.architecture
    hidden, ranks = architecture.hidden_size, settings.tensor_parallel
    elements = 2 * hidden**2
    for layer, _ in architecture.blocks:
        if any(isinstance(mixer, Attention) for mixer in layer.mixers):
            elements += sum(t.on_rank(ranks) for t in layer.tensors if t.part in ("attention", "mlp"))
            break
    return elements * DTYPE_BYTES[dtype]
