"""Why vLLM would not start, whatever the memory: models, formats and divisions that it does not have."""

from __future__ import annotations

from math import gcd

from willfit.architectures.mixers import Attention, CompressedAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.support import model_refusal, too_long
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.features.context_parallel import context_refusal
from willfit.engines.vllm.features.drafts import draft_refusal
from willfit.engines.vllm.features.experts import experts_refusal
from willfit.engines.vllm.features.lora import lora_refusal
from willfit.engines.vllm.features.offload import offload_refusal
from willfit.engines.vllm.features.sleeping import sleep_refusal
from willfit.engines.vllm.loading.buffers import mamba_groups
from willfit.engines.vllm.models import support
from willfit.engines.vllm.settings import Settings
from willfit.formats.base import Format
from willfit.formats.ggml import Ggml
from willfit.formats.gptq import Gptq
from willfit.formats.scaled import Scaled
from willfit.formats.weights import rank_shape

#: Quantization methods that vLLM has never loaded, and those that it has dropped: since when, and the last version
#: that loads them (`layers/quantization/__init__.py`).
_NEVER = frozenset({"bitnet", "eetq", "exl2", "exl3", "mlc", "mlx", "quanto"})
_DROPPED: dict[str, tuple[Version, str]] = {
    "aqlm": ((0, 10, 1), "0.10.0"), "bitsandbytes": ((0, 28), "0.27.1"), "gguf": ((0, 24), "0.23.0"),
    "hqq": ((0, 15), "0.14.1"),
}  # fmt: skip

#: Methods that need `--allow-deprecated-quantization`, and since when (`DEPRECATED_QUANTIZATION_METHODS`).
_DEPRECATED: dict[str, Version] = {"fbgemm_fp8": (0, 33)}

#: Since when GPTQ's groups in the order of activations are refused (`layers/quantization/auto_gptq.py`).
_NO_ORDER: Version = (0, 33)

#: Since when whole prefills are refused while states are cached.
_WHOLE_PREFILLS: Version = (0, 33)

#: Block-quantized experts whose shards cut a block are refused before this version, later their scales are refined
#: (`fused_moe/oracle/fp8.py: refine_fp8_moe_block_shape`).
_REFINES: Version = (0, 12)


def refusal(subject: Subject, settings: Settings) -> str:
    """Why this version does not start with the model as it is stored, on any device; empty if it does.

    What a device does not have is said by `devices.support.device_refusal`.
    """
    version = parse_version(settings.version)
    return (
        _model(subject.architecture, settings.version)
        or too_long(subject.architecture, settings.max_model_len or 0)
        or _method(subject, settings, version)
        or _length(subject.architecture, settings)
        or _cache(subject.architecture, settings)
        or _states(subject.architecture, settings)
        or undivided(subject, settings)
        or context_refusal(subject.architecture, settings)
        or experts_refusal(subject, settings)
        or lora_refusal(subject, settings)
        or draft_refusal(subject, settings, era_for(settings.version, settings.generation).generation)
        or offload_refusal(settings)
        or sleep_refusal(settings)
    )


def undivided(subject: Subject, settings: Settings) -> str:
    """What cannot be divided over the tensor-parallel ranks; empty if everything can."""
    heads = _heads(subject.architecture, settings.tensor_parallel)
    return heads or _blocks(subject, settings, parse_version(settings.version))


def _model(architecture: Architecture, version: str) -> str:
    return model_refusal("vllm", architecture, version, support(architecture, version))


def _method(subject: Subject, settings: Settings, version: Version) -> str:
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    if method in _NEVER:
        return f"vLLM does not load {method} checkpoints; take one in fp8, awq or gptq"
    if method in _DROPPED and version >= _DROPPED[method][0]:
        last = _DROPPED[method][1]
        return f"this version of vLLM does not load {method} any more; {last} does, or take fp8, awq or gptq"
    ordered = any(
        isinstance(stored, Gptq) and stored.ordered and stored.group > 0 for stored in _formats(subject)
    )
    if ordered and version >= _NO_ORDER:
        return "this version of vLLM does not load GPTQ checkpoints with desc_act any more; take one without, or awq"
    since = _DEPRECATED.get(method)
    if since is not None and version >= since and not settings.allow_deprecated_quantization:
        return f"{method} is deprecated in this version of vLLM; add --allow-deprecated-quantization"
    return ""


def _length(architecture: Architecture, settings: Settings) -> str:
    """A longest sequence beyond the model's positions, scaled ones included (`config/model.py`)."""
    asked, limit = settings.max_model_len or 0, architecture.max_positions
    scaled = [int(max(limit, rope.original_positions) * max(1.0, rope.factor)) for rope in architecture.ropes]
    if not limit or settings.allow_long_max_model_len or asked <= max([limit, *scaled]):
        return ""
    return (
        f"{asked:,} tokens are more than the model's {limit:,} positions; "
        "vLLM takes them only with VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
    )


def _cache(architecture: Architecture, settings: Settings) -> str:
    """DeepSeek-V4's cache has a layout of 8 bits only (`models/deepseek_v4/attention.py`)."""
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    compressed = any(isinstance(mixer, CompressedAttention) for mixer in mixers)
    if not compressed or settings.kv_cache_dtype == "auto" or settings.kv_cache_dtype.startswith("fp8"):
        return ""
    return "vLLM's kernels for this model keep their cache in 8 bits; leave --kv-cache-dtype at auto"


def _formats(subject: Subject) -> set[Format]:
    return {line.format for line in subject.lines}


def _states(architecture: Architecture, settings: Settings) -> str:
    """Settings that layers with states beside attention do not run with.

    One group for all layers (`v1/core/kv_cache_planning.py: _promote_local_kv_cache_specs`), and whole prefills while
    states are cached (`models/config.py: MambaModelConfig`).
    """
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    states = [bool(mixer.fixed_states) and not isinstance(mixer, CompressedAttention) for mixer in mixers]
    if not any(states) or all(states):
        return ""
    era = era_for(settings.version, settings.generation)
    if not settings.hybrid_cache_manager and era.generation == "v1":
        return (
            "layers with states need cache groups of their own; leave out --disable-hybrid-kv-cache-manager"
        )
    cached = (
        parse_version(settings.version) >= _WHOLE_PREFILLS and settings.enable_prefix_caching is not False
    )
    if settings.enable_chunked_prefill is False and cached:
        return "caching prefixes of states needs chunked prefill; add --no-enable-prefix-caching"
    return ""


def _heads(architecture: Architecture, ranks: int) -> str:
    """Heads and groups must divide over ranks; KV heads may also be repeated (`layers/linear.py`)."""
    for layer, _ in architecture.blocks:
        for mixer in layer.mixers:
            if found := _undivided(mixer, ranks):
                return f"{found} cannot be divided over {ranks} tensor-parallel ranks"
    return ""


def _undivided(mixer: Mixer, ranks: int) -> str:
    heads = getattr(mixer, "heads", 0)
    if heads % ranks and not mixer.fixed_states:
        return f"{heads} attention heads"
    if isinstance(mixer, Attention) and mixer.kv_heads % ranks and ranks % mixer.kv_heads:
        return f"{mixer.kv_heads} key/value heads"
    if isinstance(mixer, Recurrent) and mixer.kind == "mamba2":
        if mixer.heads % ranks:
            return f"{mixer.heads} state heads"
        if mamba_groups(mixer) > 1 and mamba_groups(mixer) % ranks:
            return f"{mamba_groups(mixer)} groups of states"
    return ""


def _blocks(subject: Subject, settings: Settings, version: Version) -> str:
    """Shards of block-quantized inputs must be whole blocks (`fp8_utils.py: validate_fp8_block_shape`).

    Fused projections may cut a block of outputs (`layers/linear.py: _maybe_allow_fp8_block_shape_mismatch`).
    """
    ranks = settings.tensor_parallel
    if ranks == 1:
        return ""
    for line in subject.lines:
        tensor, stored = line.tensor, line.format
        experts = tensor.part == "experts"
        if not isinstance(stored, Scaled) or stored.granularity != "block" or tensor.split is None:
            continue
        outputs = tensor.split.axis == len(tensor.shape) - 2
        if tensor.part == "mtp" or (settings.expert_parallel if experts else outputs):
            continue
        width = rank_shape(tensor, ranks)[tensor.split.axis]
        block = stored.block[tensor.split.axis - len(tensor.shape)]
        refined = experts and version >= _REFINES and gcd(width, *stored.block) >= 32
        if width % block and not refined:
            name = tensor.name.removesuffix(".weight").rpartition(".")[2]
            return (
                f"{name}: {width} of {tensor.shape[tensor.split.axis]} channels on each of {ranks} ranks are no "
                f"multiple of the {block} that share a scale; use fewer ranks"
                + (" or --enable-expert-parallel" if experts else "")
            )
    return ""
