"""What vLLM's profile run and graph capture take beside weights and cache.

The profile runs the model once on `max_num_batched_tokens` tokens, then the sampler on `max_num_seqs` rows
(`v1/worker/gpu_model_runner.py: profile_run`). Tensors of one layer are freed before the next, so the peak is
the largest instant, not their sum.
"""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Tower
from willfit.calibration import Constant, constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Subject
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between, combined
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div, round_up

#: Bytes per logit, beside the logits themselves and their fp32 copy, of a sampler that sorts the vocabulary: sorted
#: values and int64 indices, the sort's own buffers of the same size, probabilities and their running sums in fp32.
_SORTING_SAMPLER = 12 + 12 + 8

#: What encoders hold depends on attention kernels that are not established: from nothing to this many times the rule.
_UNSURE_OF_ENCODERS = 4


#: A tiled encoder pads the positions of a tile to a multiple of this (`models/mllama.py`).
_TILE_STEP = 8

#: Hidden states that a tiled encoder holds in its last layers: five kept outputs and the residual.
_TILED_STATES = 6

#: Bytes for each attention score where torch has no fused kernel: fp32 scores, their softmax, and a mask of the rows
#: that may see nothing (ATen, `_scaled_dot_product_attention_math`).
_UNFUSED_SCORE = 4 + 4 + 1


def activation_term(
    architecture: Architecture, resolved: Resolved, settings: Settings, dtype: str, device: Device
) -> Term:
    """The peak of the profile run above the weights."""
    size = DTYPE_BYTES[dtype]
    tokens = resolved.max_num_batched_tokens
    ranks = settings.tensor_parallel
    elements = widest_layer_elements(architecture, ranks)
    scores = _score_bytes(architecture, resolved, settings, device)
    model = tokens * elements * size + scores
    rows = min(resolved.max_num_seqs, tokens)
    if settings.runner == "pooling":
        per_logit, rows = 0, 0
    else:
        per_logit = size + 4 + (0 if resolved.era.activation == "fused" else _SORTING_SAMPLER)
    sampler = per_logit * rows * architecture.logits_per_row
    encoders, outputs = (
        (0, 0) if settings.language_model_only else _encoder_bytes(architecture, resolved, size)
    )
    stages = {"model": model, "sampler": sampler, "encoder": encoders}
    name = max(stages, key=lambda stage: stages[stage])
    peak = stages[name] + outputs
    spread = constant(f"vllm.activation_ratio.{resolved.era.generation}")
    formula = (
        f"the largest of model: {tokens} tokens x {elements} elements x {size} B"
        f"{f' + {scores} B of attention scores' if scores else ''} = {model}, "
        f"sampler: {rows} rows x {architecture.logits_per_row} logits x {per_logit} B = {sampler}"
    )
    if outputs:
        formula = f"({formula}, encoder: {encoders} B) + {outputs} B of encoder outputs"
    reference = f"{source('profile', settings.version, resolved.era)}; interval: {spread.reference}"
    low, high = int(max(model, sampler) * spread.low), int(peak * spread.high)
    if outputs:
        high = max(high, outputs + _UNSURE_OF_ENCODERS * encoders)
    return between("activations", peak, low, high, formula, reference)


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


def _encoder_bytes(architecture: Architecture, resolved: Resolved, size: int) -> tuple[int, int]:
    """What image and audio encoders hold while they run, and their outputs, which stay during the profile run.

    The encoder budget is that of the scheduler, or one item if that is larger. An image token is made of four
    patches, an audio token of two frames.
    """
    live = outputs = 0
    for tower in architecture.towers:
        if architecture.family == "mllama":
            live = _tiled_bytes(architecture, tower, resolved.max_num_seqs, size)
            continue
        items = max(resolved.max_num_batched_tokens, tower.tokens)
        patches = (4 if tower.modality == "vision" else 2) * items
        live = max(live, patches * (3 * tower.width + 3 * tower.hidden_size) * size)
        outputs = max(outputs, items * architecture.hidden_size * size)
    return live, outputs


def _tiled_bytes(architecture: Architecture, tower: Tower, images: int, size: int) -> int:
    """Llama 3.2's encoder with an image for each sequence (`worker/enc_dec_model_runner.py: profile_run`).

    Its layers attend over all tiles of an image under a mask that is written out, and hold both widths of the MLP.
    """
    tile = next(t.shape[0] for t in tower.tensors if t.name.endswith("gated_positional_embedding.embedding"))
    positions = ceil_div(architecture.encoder_tokens, tile) * round_up(tile, _TILE_STEP)
    states = positions * (2 * tower.width + _TILED_STATES * tower.hidden_size)
    return images * (states + positions**2) * size


def runtime_term(settings: Settings, device: Device) -> Term:
    """What is taken outside the allocator during the profile run: workspaces of libraries, NCCL's buffers.

    Where the host's memory is the device's, too, what the process takes as its own counts as well.
    """
    ranks = settings.tensor_parallel * settings.pipeline_parallel
    spread = constant(runtime_constant(ranks, device))
    return Term(
        "runtime",
        int(spread.value),
        int(spread.low),
        int(spread.high),
        f"{int(spread.value)} B of library workspaces of {ranks} rank(s)",
        spread.reference,
    )


def runtime_constant(ranks: int, device: Device) -> str:
    """Name of the constant for what is taken outside the allocator on a device."""
    if device.unified_memory:
        return "vllm.non_torch.unified"
    if device.vendor == "AMD":
        return "vllm.non_torch.amd"
    return "vllm.non_torch.one_rank" if ranks == 1 else "vllm.non_torch.many_ranks"


def context_term(name: str = "cuda.context") -> Term:
    """The driver's context and loaded kernels, which exist before the budget's first reading."""
    spread = constant(name)
    size = int(spread.value)
    return Term(
        "context",
        size,
        int(spread.low),
        int(spread.high),
        f"{size} B of the driver's context",
        spread.reference,
    )


def graph_term(subject: Subject, resolved: Resolved, settings: Settings, estimated: bool) -> Term | None:
    """What captured CUDA graphs take, or what vLLM estimates that they will; None if they are off.

    Each graph has nodes of its own for each layer; a few graphs take no less than the pool that the largest needs.
    The estimate extrapolates from the two largest (`gpu_model_runner.py: profile_cudagraph_memory`).
    """
    sizes = len(resolved.capture_sizes)
    if not sizes:
        return None
    layers = len(subject.architecture.layers)
    least, each = constant("vllm.graphs_least"), constant(graph_constant(subject))
    count = layers * sizes
    spread = each.value * count >= least.value
    parts = [_times(each, count) if spread else _times(least, 1)]
    formula = f"{layers} layers x {sizes} captured sizes x {each.value:.15g} B"
    if not spread:
        formula = f"(the largest of each: {formula}, pool: {least.value:.15g} B)"
    if estimated:
        more = constant("vllm.graphs_overestimated")
        parts.append(_times(more, 1))
        formula += f" + {more.value:.15g} B that the engine expects beyond"
    size, low, high = combined(parts)
    reference = f"{source('graphs', settings.version, resolved.era)}; {(each if spread else least).reference}"
    return between("cuda_graphs", size, low, high, formula, reference)


def _times(one: Constant, count: int) -> Term:
    return Term("", int(count * one.value), int(count * one.low), int(count * one.high))


def graph_constant(subject: Subject) -> str:
    """Name of the constant for a layer's share of one graph: kernels that unpack weights on the way take more."""
    return (
        "vllm.graphs_taken.bitsandbytes" if subject.recipe.method == "bitsandbytes" else "vllm.graphs_taken"
    )
