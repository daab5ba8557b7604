"""Slots for LoRA adapters: what `--enable-lora` allocates before any adapter is loaded.

Every module that can be adapted is given, for each slot, both factors at the largest rank
(`lora/layers/`, before 0.10.3 `lora/layers.py`). Projections that vLLM fuses have a pair of factors for each
part that checkpoints store on its own, so the bytes follow from the checkpoint's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.model import Tensor
from willfit.engines.base import Subject
from willfit.engines.versions import Version, era_of, parse_version
from willfit.engines.vllm.loading.slack import MODULES
from willfit.engines.vllm.options import Lora
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between
from willfit.formats.weights import rank_shape
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name, round_up


@dataclass(frozen=True, slots=True)
class LoraEra:
    """How adapters are held from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    in_loading
        Slots are made while the model is loaded, so that the start-up log counts them with it; before, they are
        not subtracted from the budget at all.
    added_tokens
        Adapters may add tokens: vocabularies grow, and slots hold embeddings for them.
    experts
        Routed experts have slots.
    shards_experts
        Experts' slots are divided further if adapters are fully sharded.
    expert_parallel
        Slots of experts go with expert parallelism.
    graph_sets
        Times that each CUDA graph is captured: with adapters, and without.
    """

    since: Version
    in_loading: bool = False
    added_tokens: bool = True
    experts: bool = False
    shards_experts: bool = False
    expert_parallel: bool = False
    graph_sets: int = 1


ERAS = (
    LoraEra((0, 0)),
    LoraEra((0, 8), in_loading=True),
    LoraEra((0, 11, 1), in_loading=True, experts=True, graph_sets=2),
    LoraEra((0, 12), in_loading=True, added_tokens=False, experts=True, shards_experts=True, graph_sets=2),
    LoraEra(
        (0, 22), in_loading=True, added_tokens=False, experts=True, shards_experts=True, expert_parallel=True,
        graph_sets=2,
    ),
)  # fmt: skip

#: Ranks that vLLM takes (`config/lora.py: MaxLoRARanks`); 1 since 0.11.1.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

#: The vocabulary of a head that can be adapted is padded to a multiple of this where adapters may add tokens.
_VOCABULARY_STEP = 256

#: int64 indices for each token, each sequence, and int32 ones for each token (`lora/punica_wrapper/punica_base.py`,
#: `punica_gpu.py`): where adapters may add tokens, and later.
_TOKEN_INDICES = {True: 6 * 8 + 2 * 4, False: 4 * 8 + 4 * 4}
_SEQUENCE_INDICES = 3 * 8

#: Model types whose class names its embedding and head among what can be adapted (`embedding_modules`), and since
#: when if that came later.
_EMBEDDINGS: dict[str, Version] = {
    **dict.fromkeys(
        (
            "apertus", "aquila", "bamba", "cohere", "cohere2", "deci", "exaone", "exaone4", "falcon_h1", "glm",
            "gpt_bigcode", "granite", "granitemoe", "granitemoehybrid", "granitemoeshared", "internlm",
            "internlm3", "jamba", "lfm2", "llama", "llama4_text", "minicpm", "minicpm3", "mistral", "mixtral",
            "nemotron", "nemotron-nas", "nemotron_h", "phi3", "phimoe", "solar", "telechat", "xverse",
        ),
        (0, 0),
    ),
    "ernie4_5": (0, 11),
    "lfm2_moe": (0, 12),
    "exaone_moe": (0, 16),
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_moe"), (0, 16)),
    "hyperclovax": (0, 22),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"), (0, 29)),
}  # fmt: skip

#: Models whose tied head is the embedding's own module until this version, which is then wrapped twice.
_SAME_MODULE: dict[str, Version] = dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_moe"), (0, 29))

#: Model types whose gate and up projections of experts share a factor (`is_3d_moe_weight`), and since when.
_FUSED_EXPERTS: dict[str, Version] = {
    "gpt_oss": (0, 12),
    "interns1_pro": (0, 16),
    "qwen3_5_moe": (0, 22),
    "qwen3_5_moe_text": (0, 22),
    "qwen3_omni_moe_thinker": (0, 29),
    "qwen3_vl_moe": (0, 12),
}


def lora_era(version: str) -> LoraEra:
    """How a version holds adapters."""
    return era_of(version, ERAS)


def lora_term(subject: Subject, settings: Settings, resolved: Resolved, dtype: str) -> Term | None:
    """Slots for adapters on one rank; None without adapters."""
    lora = settings.lora
    if lora is None:
        return None
    sizes = _Slots(subject, settings, lora)
    size = DTYPE_BYTES[lora_dtype(lora, dtype)]
    # Routers, gates of shared experts and convolutions are linear modules in some versions and not in others.
    sure, unsure = sizes.linear_elements()
    towers = sizes.tower_elements()
    vocabulary = sizes.vocabulary_elements()
    tokens = sizes.added_token_elements() * DTYPE_BYTES[dtype]
    indices = (
        resolved.max_num_batched_tokens * _TOKEN_INDICES[sizes.era.added_tokens]
        + resolved.max_num_seqs * _SEQUENCE_INDICES
        + sizes.token_map_bytes()
    )
    taken = (sure + unsure + vocabulary) * size + tokens + indices
    formula = (
        f"({sure + unsure} elements of projections + {vocabulary} of vocabularies) x {size} B"
        + (f" + {tokens} B for added tokens" if tokens else "")
        + f" + {indices} B of indices ({lora.max_loras} slots of rank {lora.max_lora_rank})"
    )
    least = taken - unsure * size
    reference = source("adapters", settings.version, resolved.era)
    return between("lora", taken, least, taken + towers * size, formula, reference)


def lora_dtype(lora: Lora, dtype: str) -> str:
    """The dtype of the factors."""
    return dtype if lora.dtype == "auto" else dtype_name(lora.dtype)


def adapter_bytes(subject: Subject, settings: Settings, dtype: str) -> int:
    """Bytes of one adapter of the largest rank for all modules, as a worker keeps it in host RAM: not divided."""
    lora = settings.lora
    if lora is None:
        return 0
    whole = replace(
        settings, tensor_parallel=1, data_parallel=1, prefill_context_parallel=1, expert_parallel=False
    )
    sizes = _Slots(subject, whole, replace(lora, max_loras=1))
    elements = sum(sizes.linear_elements()) + sizes.vocabulary_elements()
    return elements * DTYPE_BYTES[lora_dtype(lora, dtype)]


def graph_sets(settings: Settings) -> int:
    """How many times each CUDA graph is captured (`v1/cudagraph_dispatcher.py: _get_lora_cases`)."""
    lora = settings.lora
    if lora is None:
        return 1
    sets = lora_era(settings.version).graph_sets
    if sets == 1 or not lora.specialize_active:
        return sets
    most = lora.max_loras + 1
    powers = sum(1 for count in range(1, most + 1) if count & (count - 1) == 0)
    return 1 + powers + (most & (most - 1) != 0)


def lora_refusal(subject: Subject, settings: Settings) -> str:
    """Why adapters cannot be served with these settings; empty if they can."""
    lora = settings.lora
    if lora is None:
        return ""
    era = lora_era(settings.version)
    experts = any(tensor.part == "experts" for _, tensor in subject.architecture.tensors())
    if experts and era.experts and settings.expert_parallel:
        if not era.expert_parallel:
            return "this version of vLLM has no adapters under expert parallelism; leave out --enable-expert-parallel"
        if lora.fully_sharded:
            return "vLLM does not shard experts' adapters fully under expert parallelism; leave out one of the two"
    if lora.max_cpu_loras is not None and lora.max_cpu_loras < lora.max_loras:
        return f"--max-cpu-loras {lora.max_cpu_loras} is less than --max-loras {lora.max_loras}"
    if lora.fully_sharded and lora.max_lora_rank % settings.tensor_parallel:
        return (
            f"rank {lora.max_lora_rank} cannot be divided over {settings.tensor_parallel} ranks "
            "(--fully-sharded-loras)"
        )
    return ""


class _Slots:
    """Elements of all slots on one rank, part by part."""

    def __init__(self, subject: Subject, settings: Settings, lora: Lora) -> None:
        self.architecture = subject.architecture
        self.lines = subject.lines
        self.settings = settings
        self.lora = lora
        self.era = lora_era(settings.version)
        self.version = parse_version(settings.version)
        self.rank = lora.max_lora_rank

    def linear_elements(self) -> tuple[int, int]:
        """Elements for projections of the language model, and for those that are no modules in some versions."""
        sure = unsure = 0
        stages = self.settings.pipeline_parallel
        for line in self.lines:
            tensor = line.tensor
            if tensor.part in ("embedding", "head", "vision", "audio", "mtp", "norm"):
                continue
            if tensor.part == "experts" and not self.era.experts:
                continue
            if not self._adapted(tensor):
                continue
            if tensor.kind == "linear":
                elements = self._factors(tensor) * line.times
                if tensor.part == "router" or 1 in tensor.shape:
                    unsure += elements
                else:
                    sure += elements
            elif tensor.kind == "conv":
                rows = rank_shape(tensor, self.settings.tensor_parallel)[0]
                unsure += self.rank * (rows + tensor.shape[-1]) * line.times
        slots = self.lora.max_loras
        return ceil_div(sure * slots, stages), ceil_div(unsure * slots, stages)

    def tower_elements(self) -> int:
        """Elements for encoders, if these have slots; which of their modules have is not established."""
        if not self.lora.tower_connector or self.settings.language_model_only:
            return 0
        total = sum(
            self._factors(line.tensor) * line.times
            for line in self.lines
            if line.tensor.part in ("vision", "audio") and line.tensor.kind == "linear"
        )
        return total * self.lora.max_loras

    def vocabulary_elements(self) -> int:
        """Elements for the embedding and the logits, which every rank holds whole."""
        if not self._has_embeddings():
            return 0
        architecture, lora = self.architecture, self.lora
        added = lora.extra_vocab_size if self.era.added_tokens else 0
        rows, width = architecture.vocab_size, architecture.hidden_size
        table = (rows + added + width) * self.rank
        head = rows + added
        if self.era.added_tokens:
            head = round_up(head, _VOCABULARY_STEP)
        logits = (width + head) * self.rank
        total = table * self._named("embed_tokens") + logits * self._named("lm_head")
        last = _SAME_MODULE.get(architecture.model_type)
        if architecture.tied and last is not None and self.version < last:
            total += table * self._named("lm_head")
        return total * lora.max_loras

    def token_map_bytes(self) -> int:
        """The map from ranks' shares of the logits to tokens, int64, where the head has slots and is divided."""
        divided = self.settings.tensor_parallel > 1 and self._has_embeddings() and self._named("lm_head")
        return 8 * round_up(self.architecture.vocab_size, 64) if divided else 0

    def added_token_elements(self) -> int:
        """Elements in the model's dtype for added tokens: in slots, and by which the vocabularies grow."""
        if not self.era.added_tokens or not self._has_embeddings():
            return 0
        architecture, lora, ranks = self.architecture, self.lora, self.settings.tensor_parallel
        slots = 2 * lora.max_loras * lora.extra_vocab_size
        grown = ceil_div(lora.max_loras * lora.extra_vocab_size, ranks)
        if not architecture.tied:
            padded = round_up(architecture.vocab_size, _VOCABULARY_STEP)
            padded = round_up(padded + lora.extra_vocab_size, _VOCABULARY_STEP)
            grown += ceil_div(padded - round_up(architecture.vocab_size, 64), ranks)
        return (slots + grown) * architecture.hidden_size

    def _has_embeddings(self) -> bool:
        since = _EMBEDDINGS.get(self.architecture.model_type)
        return since is not None and self.version >= since

    def _named(self, module: str) -> bool:
        targets = self.lora.target_modules
        return targets is None or module in targets

    def _adapted(self, tensor: Tensor) -> bool:
        """Whether a tensor's module is among the targets; one part of a fused module stands for all of them."""
        targets = self.lora.target_modules
        if targets is None:
            return True
        if tensor.part == "experts":
            return any(target in ("experts", "w1", "w2", "w3") for target in targets)
        leaf = tensor.name.removesuffix(".weight").rpartition(".")[2]
        fused = MODULES.get(leaf, leaf)
        return any(fused == MODULES.get(target, target) for target in targets)

    def _factors(self, tensor: Tensor) -> int:
        """Elements of both factors of one slot on one rank, of all copies of a tensor."""
        if tensor.part == "experts":
            return self._expert_factors(tensor)
        ranks = self.settings.tensor_parallel
        rows, columns = rank_shape(tensor, ranks)[-2:]
        inner, outer = self.rank, rows
        if self.lora.fully_sharded and tensor.split is not None:
            # The first factor's rank is divided where outputs are, the second's outputs where inputs are.
            if _divides_outputs(tensor):
                inner //= ranks
            else:
                outer //= ranks
        elements = inner * columns + outer * self.rank + (rows if self.lora.bias else 0)
        return elements * tensor.copies

    def _expert_factors(self, tensor: Tensor) -> int:
        settings, lora = self.settings, self.lora
        experts = tensor.copies if tensor.copies > 1 else tensor.shape[0]
        ranks = settings.expert_ranks
        if settings.expert_parallel:
            experts, ranks = ceil_div(experts, ranks), 1
        rows, columns = rank_shape(tensor, ranks)[-2:]
        first, second = self.rank, rows
        divides = _divides_outputs(tensor)
        if lora.fully_sharded and self.era.shards_experts:
            first, second = (first // ranks, second) if divides else (first, second // ranks)
        shares = experts if not lora.moe_shared else 1
        return (first * columns * self._pairs(tensor)) * (shares if divides else experts) + (
            second * self.rank * (experts if divides else shares)
        )

    def _pairs(self, tensor: Tensor) -> int:
        """First factors that an expert's stored tensor has: one each for gate and up, whether stored fused or not."""
        if not _divides_outputs(tensor):
            return 1
        since = _FUSED_EXPERTS.get(self.architecture.model_type)
        fused = since is not None and self.version >= since
        fused = fused and not self.lora.moe_mixed_format and not self.lora.moe_shared
        stored_fused = "gate_up" in tensor.name
        if not fused:
            return 2 if stored_fused else 1
        return 1 if stored_fused or "up_proj" in tensor.name else 0


def _divides_outputs(tensor: Tensor) -> bool:
    return tensor.split is not None and tensor.split.axis == len(tensor.shape) - 2
