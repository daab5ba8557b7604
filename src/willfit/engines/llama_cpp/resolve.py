"""What the programs make of their settings: a context's parameters (`common/common.cpp`, `llama-context.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.engines.llama_cpp.cache.layers import PADDING, CacheSettings, quantized
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.eras import NEWEST, era_for
from willfit.engines.llama_cpp.ik_eras import NEWEST_IK
from willfit.engines.llama_cpp.plan import ContextSettings
from willfit.engines.llama_cpp.settings import Settings
from willfit.errors import BadInput
from willfit.ggml_types import GGML_TYPES, IK_TYPES, INTERLEAVED_TYPES

#: Defaults of the programs (`common/common.h`).
BATCH, UBATCH = 2048, 512
#: The same where batches are not split.
_OLD_BATCH = 512
#: Slots of a server that is not told how many.
_AUTO_SLOTS = 4
#: Tokens that a draft proposes at once.
DRAFTED = 16
#: Cells are padded to this without flash attention in older builds.
_OLD_PADDING = 32
#: Context of a program that is not told one, in builds that do not take the model's.
_OLD_CONTEXT = 4096

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}


#: Architectures that flash attention cannot compute.
_WITHOUT_FLASH = frozenset(("grok",))


@dataclass(frozen=True, slots=True)
class Resolved:
    """A context's parameters.

    Attributes
    ----------
    version, era
        The build, and how it behaves.
    n_ctx
        Tokens of all sequences.
    sequences, unified
        How many sequences there are, and whether they share a cache.
    n_batch, n_ubatch
        Tokens of a logical and of a physical batch.
    outputs
        Rows of logits at most.
    flash_attn
        None: where the devices can.
    transposed
        Cached values are transposed: caches are made before it turns out what devices can.
    context_open, layers_open
        What `--fit` may choose: the context, and which layers are offloaded.
    snapshots
        Earlier recurrent states that are kept.
    embeddings, pooling
        Vectors are wanted.
    spare
        Sequences beside those of the slots.
    mla
        How ik_llama.cpp computes latent attention.
    flash_found
        Whether the devices can use flash attention, once that is known.
    results
        See `Era`.
    """

    version: str
    era: Era
    n_ctx: int
    sequences: int
    unified: bool
    n_batch: int
    n_ubatch: int
    outputs: int
    flash_attn: bool | None
    transposed: bool
    context_open: bool
    layers_open: bool
    snapshots: int = 0
    embeddings: bool = False
    pooling: str = "none"
    spare: int = 0
    mla: int = 0
    flash_found: bool | None = None
    results: Literal["causal", "either", "both"] = "both"

    @property
    def cells(self) -> int:
        """Tokens that one stream holds."""
        if self.unified or not self.era.streams:
            return self.n_ctx
        return self.n_ctx // self.sequences

    def _latent_values(self, settings: Settings, flash_attn: bool) -> bool:
        """Whether latents are cached as values, too."""
        if settings.fork == "ik_llama.cpp":
            return self.mla == 1 and not flash_attn
        return not self.era.latent_keys_only

    def context(self, settings: Settings, flash_attn: bool, pipelined: bool) -> ContextSettings:
        """What the context is made with."""
        cache = CacheSettings(
            self.cells,
            self.sequences + self.spare,
            self.unified or not self.era.streams,
            self.n_ubatch,
            cache_type(settings.cache_type_k),
            cache_type(settings.cache_type_v),
            flash_attn,
            self.transposed,
            self._latent_values(settings, flash_attn),
            settings.swa_full or not self.era.windows,
            self.era.rotates,
            self.era.rotates_windows,
            self.snapshots,
            self.era.caches_drafts,
            self.n_batch if self.era.windows == "batch" else self.n_ubatch,
            _step(self.era, self.flash_attn),
            not self.era.divides_hybrids,
            self.era.keys_by_head,
        )
        return ContextSettings(
            cache,
            self.outputs,
            settings.kv_offload,
            # A device that stands for others does not take over products with weights on the host.
            settings.op_offload and settings.split_mode != "tensor",
            self.embeddings,
            self.pooling,
            self.era.keeps_pins and not settings.no_alloc,
            settings.pipeline_copies or self.era.pipeline_copies if pipelined else 1,
            self.mla,
            self.era.attention_mib if settings.max_attention_mib is None else settings.max_attention_mib,
            settings.fork == "ik_llama.cpp"
            and (self.era.fuses_experts if settings.fused_moe is None else settings.fused_moe),
            results=self.results,
        )


def cache_type(name: str) -> str:
    """A type of keys or values as ggml names it.

    Raises
    ------
    BadInput
        If there is none of that name.
    """
    upper = name.upper()
    if upper not in GGML_TYPES or upper in INTERLEAVED_TYPES:
        raise BadInput(
            f"unknown type of cache {name!r}", "known: f16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, bf16, f32"
        )
    return upper


def resolve(architecture: Architecture, pooling: int, settings: Settings) -> Resolved:
    """Settle what the settings leave open.

    Parameters
    ----------
    pooling
        `pooling_type` of the file's metadata; 0 for none.

    Raises
    ------
    BadInput
        If settings contradict each other or the model.
    """
    version = settings.version or (NEWEST_IK if settings.fork == "ik_llama.cpp" else NEWEST)
    era = era_for(version, settings.fork)
    sequences, unified = _sequences(settings, era)
    trained = architecture.max_positions or _OLD_CONTEXT
    context = settings.n_ctx
    context_open = context is None or context == 0
    if context is None:
        context = 0 if era.fits else _OLD_CONTEXT
    if settings.fork == "llama.cpp":
        own = next((n for n in (settings.cache_type_k, settings.cache_type_v) if n.upper() in IK_TYPES), None)
        if own is not None:
            raise BadInput(f"llama.cpp has no cache of type {own}, ik_llama.cpp has", "use f16, q8_0 or q4_0")
    flash = _flash(architecture, settings, era)
    _check_blocks(architecture, settings)
    n_ctx, unified = _context(context or trained, sequences, unified, era, flash)
    vectors = settings.embeddings or settings.reranking
    n_batch = settings.n_batch or (BATCH if era.splits_batch else _OLD_BATCH)
    n_ubatch = settings.n_ubatch or (UBATCH if era.splits_batch else n_batch)
    if vectors and settings.program == "server":
        n_batch = min(n_batch, n_ubatch)
    causal = architecture.causal and not architecture.encoder_only
    if causal:
        n_batch = min(n_batch, n_ctx)
    n_ubatch = min(n_ubatch, n_batch)
    kind = "rank" if settings.reranking else _POOLING.get(pooling, "none")
    drafted = 0
    snapshots = 0
    if settings.drafting is not None:
        drafted = settings.drafting.n_max or DRAFTED
        keeps = era.keeps_snapshots and settings.drafting.kind != "draft"
        snapshots = drafted if keeps else 0
    outputs = n_batch
    if architecture.encoder or architecture.model_type == "t5encoder":
        pass  # all results of an encoder are kept (`llama_model_has_encoder`)
    elif settings.n_outputs_max is not None:
        outputs = settings.n_outputs_max
    elif settings.program == "server" and era.few_outputs and not vectors:
        outputs = min(n_batch, sequences * (1 + drafted))
    layers = settings.n_gpu_layers
    fit = era.fits if settings.fit is None else settings.fit
    return Resolved(
        version,
        era,
        n_ctx,
        sequences,
        unified,
        n_batch,
        n_ubatch,
        max(1, outputs),
        flash,
        flash is False,
        fit and context_open,
        fit and layers in (None, "auto") and not settings.override_tensor and not settings.tensor_split,
        snapshots,
        vectors,
        kind if vectors else "none",
        int(era.spare_sequence and settings.program == "server"),
        mla_of(settings, era),
        results="both" if settings.logits_beside else era.results,
    )


def mla_of(settings: Settings, era: Era) -> int:
    """How ik_llama.cpp computes latent attention; 0 in llama.cpp."""
    if not era.chooses_latents:
        return 0
    return era.mla if settings.mla is None else settings.mla


def _flash(architecture: Architecture, settings: Settings, era: Era) -> bool | None:
    """Whether flash attention is used; None where that is left to the devices (`llama_init_from_model`)."""
    stated = {"on": True, "off": False, "auto": None, None: None if era.flash_auto else era.flash_on}
    flash = False if architecture.model_type in _WITHOUT_FLASH else stated[settings.flash_attn]
    if settings.split_mode == "tensor":
        if not era.divides_tensors:
            raise BadInput(
                "--split-mode tensor: this build does not have it yet", "use --split-mode layer or row"
            )
        if flash is False:
            raise BadInput("--split-mode tensor needs flash attention", "leave -fa out")
        return True
    if flash is None and era.forces_flash and quantized(cache_type(settings.cache_type_v)):
        return True
    if flash is False:
        require_flash_attention(settings)
    return flash


def require_flash_attention(settings: Settings) -> None:
    """Refuse quantized values without flash attention, as llama.cpp does."""
    if quantized(cache_type(settings.cache_type_v)):
        raise BadInput(
            f"--cache-type-v {settings.cache_type_v} needs flash attention, which is off or which the devices cannot",
            "use --cache-type-v f16",
        )


def _check_blocks(architecture: Architecture, settings: Settings) -> None:
    """Refuse types whose blocks do not fit into a head."""
    for layer in architecture.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                check_widths(settings, mixer.head_dim, mixer.value_dim)


def check_widths(settings: Settings, keys: int, values: int) -> None:
    """Refuse types whose blocks do not divide heads of these widths.

    Raises
    ------
    BadInput
        If they do not.
    """
    for option, width in (("k", keys), ("v", values)):
        name = settings.cache_type_k if option == "k" else settings.cache_type_v
        block = GGML_TYPES[cache_type(name)].block
        if width % block:
            raise BadInput(
                f"--cache-type-{option} {name}: blocks of {block} do not divide heads of {width}",
                f"use --cache-type-{option} f16",
            )


def _sequences(settings: Settings, era: Era) -> tuple[int, bool]:
    """How many sequences there are, and whether they share a cache."""
    count = settings.n_parallel
    unified = bool(settings.kv_unified)
    if settings.program == "server" and (count is None or count < 0):
        return (_AUTO_SLOTS, True) if era.auto_slots else (1, unified)
    return max(1, count or 1), unified


def _step(era: Era, flash: bool | None) -> int:
    """What cells are a multiple of."""
    if not era.pads_cells:
        return 1
    return PADDING if era.padding or flash is not False else _OLD_PADDING


def _context(wanted: int, sequences: int, unified: bool, era: Era, flash: bool | None) -> tuple[int, bool]:
    """Tokens of all sequences, padded as the build pads them."""
    if not era.padding:
        step = _step(era, flash)
        return -(-wanted // step) * step, unified
    total = -(-wanted // PADDING) * PADDING
    if unified:
        return total, unified
    each = -(-(total // sequences) // PADDING) * PADDING
    if not each:
        raise BadInput(f"{wanted} tokens cannot be divided among {sequences} sequences")
    return each * sequences, unified
