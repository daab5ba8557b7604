"""What vLLM's profile run and graph capture take beside weights and cache.

The profile runs the model once on `max_num_batched_tokens` tokens, then the sampler on `max_num_seqs` rows
(`v1/worker/gpu_model_runner.py: profile_run`). Tensors of one layer are freed before the next, so the peak is
the largest instant, not their sum.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.calibration import constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.estimate import Term, between
from willfit.quantities import DTYPE_BYTES

_RUNNER = "vllm/v1/worker/gpu_model_runner.py: profile_run"

#: Bytes per logit, beside the logits themselves and their fp32 copy, of a sampler that sorts the vocabulary: sorted
#: values and int64 indices, the sort's own buffers of the same size, probabilities and their running sums in fp32.
_SORTING_SAMPLER = 12 + 12 + 8

#: What encoders hold depends on attention kernels that are not established: from nothing to this many times the rule.
_UNSURE_OF_ENCODERS = 4


def activation_term(architecture: Architecture, resolved: Resolved, settings: Settings, dtype: str) -> Term:
    """The peak of the profile run above the weights."""
    size = DTYPE_BYTES[dtype]
    tokens = resolved.max_num_batched_tokens
    ranks = settings.tensor_parallel
    elements = widest_layer_elements(architecture, ranks)
    model = tokens * elements * size
    rows = min(resolved.max_num_seqs, tokens)
    if settings.runner == "pooling":
        per_logit, rows = 0, 0
    else:
        per_logit = size + 4 + (0 if resolved.era.activation == "fused" else _SORTING_SAMPLER)
    sampler = per_logit * rows * architecture.logits_per_row
    encoders, outputs = (0, 0) if settings.language_model_only else _encoder_bytes(architecture, tokens, size)
    stages = {"model": model, "sampler": sampler, "encoder": encoders}
    name = max(stages, key=lambda stage: stages[stage])
    peak = stages[name] + outputs
    spread = constant(f"vllm.activation_ratio.{resolved.era.generation}")
    formula = (
        f"the {name}, largest of {tokens} tokens x {elements} elements x {size} B = {model}, "
        f"{rows} rows x {architecture.logits_per_row} logits x {per_logit} B = {sampler}"
    )
    if outputs:
        formula += f", {encoders} in the encoders; + {outputs} of encoder outputs"
    reference = f"{_RUNNER}; interval: {spread.reference}"
    low, high = int(max(model, sampler) * spread.low), int(peak * spread.high)
    if outputs:
        high = max(high, outputs + _UNSURE_OF_ENCODERS * encoders)
    return between("activations", peak, low, high, formula, reference)


def _encoder_bytes(architecture: Architecture, tokens: int, size: int) -> tuple[int, int]:
    """What image and audio encoders hold while they run, and their outputs, which stay during the profile run.

    The encoder budget is that of the scheduler, or one item if that is larger. An image token is made of four
    patches, an audio token of two frames.
    """
    live = outputs = 0
    for tower in architecture.towers:
        items = max(tokens, tower.tokens)
        patches = (4 if tower.modality == "vision" else 2) * items
        live = max(live, patches * (3 * tower.width + 3 * tower.hidden_size) * size)
        outputs = max(outputs, items * architecture.hidden_size * size)
    return live, outputs


def runtime_term(settings: Settings) -> Term:
    """What libraries take outside the allocator during the profile run: workspaces, NCCL buffers."""
    spread = constant("vllm.non_torch.one_rank" if _world(settings) == 1 else "vllm.non_torch.many_ranks")
    return Term(
        "runtime",
        int(spread.value),
        int(spread.low),
        int(spread.high),
        f"library workspaces of {_world(settings)} rank(s)",
        spread.reference,
    )


def context_term(name: str = "cuda.context") -> Term:
    """The driver's context and loaded kernels, which exist before the budget's first reading."""
    spread = constant(name)
    return Term(
        "context", int(spread.value), int(spread.low), int(spread.high), "driver context", spread.reference
    )


def graph_term(architecture: Architecture, resolved: Resolved, estimated: bool) -> Term | None:
    """What captured CUDA graphs take, or what vLLM estimates that they will; None if they are off."""
    sizes = len(resolved.capture_sizes)
    if not sizes:
        return None
    layers = len(architecture.layers)
    spread = constant("vllm.graphs_estimated" if estimated else "vllm.graphs_taken")
    count = layers * sizes
    return Term(
        "cuda_graphs",
        int(count * spread.value),
        int(count * spread.low),
        int(count * spread.high),
        f"{layers} layers x {sizes} captured sizes x {spread.value:.0f} B",
        spread.reference,
    )


def _world(settings: Settings) -> int:
    return settings.tensor_parallel * settings.pipeline_parallel
