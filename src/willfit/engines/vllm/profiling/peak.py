"""What vLLM's profile run takes beside the weights.

The profile runs the model once on `max_num_batched_tokens` tokens, then the sampler on `max_num_seqs` rows
(`v1/worker/gpu_model_runner.py: profile_run`). Tensors of one layer are freed before the next, so the peak is
the largest instant, not their sum.
"""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture, Layer
from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.vllm.profiling.encoders import encoder_run
from willfit.engines.vllm.profiling.runner import uses_v2_runner
from willfit.engines.vllm.profiling.sampler import sampler_bytes
from willfit.engines.vllm.profiling.scratch import expert_scratch, index_scratch, rehearsed_bytes
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between, exact
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div

#: Hidden states of the whole batch that are alive while logits are sampled: the model's output, and in V1 one more
#: tensor of its size. Which one that is the source does not tell; six logs of 0.11 show it to the second digit.
_STATES_BESIDE_LOGITS = {"v0": 1, "v1": 2}

#: Bytes for each attention score where torch has no fused kernel: fp32 scores, their softmax, and a mask of the rows
#: that may see nothing (ATen, `_scaled_dot_product_attention_math`).
_UNFUSED_SCORE = 4 + 4 + 1


def activation_term(
    subject: Subject, resolved: Resolved, settings: Settings, dtype: str, device: Device, block_size: int
) -> Term:
    """The peak of the profile run above the weights.

    Parameters
    ----------
    block_size
        Tokens in a block of the cache.
    """
    architecture, era = subject.architecture, resolved.era
    size, hidden = DTYPE_BYTES[dtype], subject.architecture.hidden_size
    tokens = resolved.max_num_batched_tokens
    model, live = max(
        (
            _layer_stage(layer, hidden, resolved, settings, size, block_size)
            for layer, _ in architecture.blocks
        ),
        default=(0, "0 B"),
    )
    unfused = _score_bytes(architecture, resolved, settings, device)
    if unfused:
        model, live = model + unfused, f"{live} + {unfused} B of attention scores"
    rows = 0 if settings.runner == "pooling" else min(resolved.max_num_seqs, tokens)
    logits = rows * architecture.logits_per_row
    per_logit = sampler_bytes(era, settings, device, rows, size, uses_v2_runner(subject, settings))
    beside = _STATES_BESIDE_LOGITS[era.generation] * tokens * hidden * size if logits else 0
    sampler = logits * per_logit.passing + beside
    encoders = encoder_run(subject, resolved, settings, size)
    stages = {
        "model": model + encoders.kept,
        "sampler": sampler + encoders.kept,
        "encoder": encoders.running,
    }
    name = max(stages, key=lambda stage: stages[stage])
    kept = _kept_scratch(architecture, resolved, settings, size, device)
    peak = stages[name] + kept
    spread = constant(f"vllm.activation_ratio.{era.generation}")
    outputs = f" + {encoders.kept} B of encoder outputs" if encoders.kept else ""
    formula = (
        f"the largest of model: {live}{outputs} = {stages['model']}, sampler: {rows} rows x "
        f"{architecture.logits_per_row} logits x {per_logit.passing} B + {beside} B of hidden states{outputs} = "
        f"{stages['sampler']}"
    )
    if encoders.formula:
        formula += f", encoder: {encoders.formula} = {encoders.running}"
    if kept:
        formula = f"({formula}) + {kept} B of scratch space that stays"
    reference = f"{source('profile', settings.version, era)}; interval: {spread.reference}"
    least = max(max(model, logits * per_logit.least + beside) + encoders.kept, encoders.least) + kept
    low, high = int(least * spread.low), max(int(peak * spread.high), encoders.most + kept)
    return between("activations", peak, low, high, formula, reference)


def _layer_stage(
    layer: Layer, hidden: int, resolved: Resolved, settings: Settings, size: int, block_size: int
) -> tuple[int, str]:
    """Bytes of the widest instant of a layer, and what they are made of.

    Its mixer, its MLP or its experts, each beside the residual stream and two copies of it.
    """
    tokens, ranks, era = resolved.max_num_batched_tokens, settings.tensor_parallel, resolved.era
    beside = 3 * hidden
    instants = []
    for mixer in layer.mixers:
        live = ceil_div(mixer.projected_width + mixer.output_width, ranks) + beside
        rehearsed = 0
        if isinstance(mixer, LatentAttention):
            rehearsed = rehearsed_bytes(mixer, resolved, settings, size, block_size)
        instants.append((live, rehearsed))
    ffn = layer.feed_forward
    if ffn is not None and ffn.width:
        instants.append((ceil_div((3 if ffn.gated else 2) * ffn.width, ranks) + beside, 0))
    if ffn is not None and ffn.experts:
        passing = 0 if era.scratch_kept else expert_scratch(ffn, hidden, tokens, size, settings, era)
        instants.append((beside, passing))
    stages = (
        (
            tokens * live * size + more,
            f"{tokens} tokens x {live} elements x {size} B{f' + {more} B of scratch space' if more else ''}",
        )
        for live, more in instants
    )
    return max(stages, default=(0, "0 B"))


def _kept_scratch(
    architecture: Architecture, resolved: Resolved, settings: Settings, size: int, device: Device
) -> int:
    """The one buffer that kernels share, as large as the largest of them asks for."""
    index = index_scratch(architecture, resolved, device)
    if not resolved.era.scratch_kept:
        return index
    tokens, hidden = resolved.max_num_batched_tokens, architecture.hidden_size
    feed_forwards = [layer.feed_forward for layer, _ in architecture.blocks if layer.feed_forward]
    experts = [expert_scratch(ffn, hidden, tokens, size, settings, resolved.era) for ffn in feed_forwards]
    return max(index, *experts, 0)


def buffers_term(subject: Subject, resolved: Resolved, settings: Settings, device: Device) -> Term | None:
    """Buffers that the model runner keeps beside the model; None if it keeps nothing large."""
    era = resolved.era
    if settings.runner == "pooling" or not uses_v2_runner(subject, settings):
        return None
    rows, vocabulary = resolved.max_num_seqs, subject.architecture.vocab_size
    per_token = sampler_bytes(era, settings, device, rows, 0, True).kept_eighths / 8
    size = int(rows * vocabulary * per_token)
    formula = (
        f"{rows} sequences x {vocabulary} tokens of the vocabulary x {per_token:g} B of counts and marks"
    )
    return exact("buffers", size, formula, source("counts", settings.version, era))


def _score_bytes(architecture: Architecture, resolved: Resolved, settings: Settings, device: Device) -> int:
    """Scores of Gemma 3's image masks in V0, which go through torch's attention (`models/gemma3.py`).

    Cards before AMD's matrix units have no fused kernel for it, so that all scores of a layer are held.
    """
    masked = architecture.family == "gemma3_multimodal" and resolved.era.generation == "v0"
    if not masked or settings.language_model_only or not device.arch.startswith("GCN"):
        return 0
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    heads = max((mixer.heads for mixer in mixers if isinstance(mixer, Attention)), default=0)
    sequence = ceil_div(resolved.max_num_batched_tokens, resolved.max_num_seqs)
    return ceil_div(heads, settings.tensor_parallel) * sequence**2 * _UNFUSED_SCORE
