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


def activation_term(architecture: Architecture, resolved: Resolved, settings: Settings, dtype: str) -> Term:
    """The peak of the profile run above the weights."""
    size = DTYPE_BYTES[dtype]
    tokens = resolved.max_num_batched_tokens
    ranks = settings.tensor_parallel
    elements = widest_layer_elements(architecture, ranks)
    model = tokens * elements * size
    rows = min(resolved.max_num_seqs, tokens)
    if settings.runner == "pooling":
        per_logit, rows = 0.0, 0
    elif resolved.era.activation == "fused":
        per_logit = size + 4.0
    else:
        per_logit = constant("vllm.sampler_bytes_per_logit").value
    sampler = int(per_logit * rows * architecture.vocab_size)
    towers = 0 if settings.language_model_only else _tower_bytes(architecture, tokens, size)
    name = "sampler" if sampler > model else "model"
    peak = max(model, sampler) + towers
    spread = constant(f"vllm.activation_ratio.{resolved.era.activation}")
    formula = (
        f"max({tokens} tokens x {elements} elements x {size} B = {model}, "
        f"{rows} rows x {architecture.vocab_size} logits x {per_logit:.3g} B = {sampler}): the {name}"
    )
    if towers:
        formula += f" + image and audio encoders {towers}"
    low, high = int(peak * spread.low), int(peak * (spread.high if not towers else max(2.0, spread.high)))
    return between(
        "activations", int(peak * spread.value), low, high, formula, f"{_RUNNER}; {spread.reference}"
    )


def _tower_bytes(architecture: Architecture, tokens: int, size: int) -> int:
    """The encoder's live set at its largest item, and its output, which stays during the profile run."""
    total = 0
    for tower in architecture.towers:
        items = max(tokens, tower.tokens)
        patches = 4 * items if tower.modality == "vision" else 2 * items
        total += items * architecture.hidden_size * size
        total += patches * (3 * tower.width + 3 * tower.hidden_size) * size
    return total


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


def graph_term(architecture: Architecture, resolved: Resolved) -> Term | None:
    """What captured CUDA graphs take; None if they are off."""
    sizes = len(resolved.capture_sizes)
    if not sizes:
        return None
    layers = len(architecture.layers)
    spread = constant("vllm.graph_bytes_per_layer_and_size")
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
