"""LMDeploy's settings under their own names, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.architectures.model import Architecture
from willfit.engines.lmdeploy.eras import NEWEST, TURBOMIND_MODELS, TURBOMIND_PAUSES, Era
from willfit.engines.versions import parse_version
from willfit.hardware.device import Device

Backend = Literal["turbomind", "pytorch"]

#: `--quant-policy`: bits of a key and of a value, and 16-bit scales and zero points per head and token for each.
QUANT_POLICIES: dict[int, tuple[int, int, int, int]] = {
    4: (4, 4, 2, 2),
    8: (8, 8, 2, 2),
    16: (8, 8, 0, 0),
    17: (8, 8, 0, 0),
    42: (4, 2, 2, 1),
}

#: Those that TurboMind has, too.
TURBOMIND_POLICIES = frozenset({0, 4, 8})

#: The PyTorch engine's kernels for heads this wide need blocks this small (`_adjust_block_size`).
_WIDE_HEAD, _SMALL_BLOCK = 512, 32

_BATCH_ELSEWHERE = 128

_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `lmdeploy serve api_server`; None leaves the choice to LMDeploy.

    Attributes
    ----------
    backend
        None for the one that LMDeploy chooses: TurboMind if it has the model.
    cache_max_entry_count
        Share of free memory for the cache; for TurboMind before 0.15 also a number of blocks.
    quant_policy
        0, or a key of `QUANT_POLICIES`.
    tp, dp, ep, cp
        Tensor, data, expert and context parallelism; see `layout`.
    num_gpu_blocks, eager_mode, cudagraph_capture_batch_sizes, prefix_cache_state_budget
        Of the PyTorch engine.
    num_draft_tokens
        `--speculative-num-draft-tokens` with the model's own module; 0 without speculation. Of the PyTorch engine.
    """

    version: str = NEWEST
    backend: Backend | None = None
    tp: int = 1
    dp: int = 1
    ep: int = 1
    cp: int = 1
    dtype: str = "auto"
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float | None = None
    cache_block_seq_len: int | None = None
    quant_policy: int = 0
    max_prefill_token_num: int = 8192
    num_gpu_blocks: int = 0
    eager_mode: bool = False
    cudagraph_capture_batch_sizes: tuple[int, ...] = ()
    language_model_only: bool = False
    prefix_cache_state_budget: int = 0
    num_draft_tokens: int = 0


def has_turbomind(architecture: Architecture, version: str) -> bool:
    """Whether TurboMind of that version runs the model (`turbomind/supported_models.py`)."""
    numbers, kind = parse_version(version), architecture.model_type
    if kind in TURBOMIND_PAUSES:
        since, until, again = TURBOMIND_PAUSES[kind]
        return since <= numbers < until or numbers >= again
    since, until = TURBOMIND_MODELS.get(kind, (numbers, numbers))
    return since <= numbers < until


def backend_of(settings: Settings, architecture: Architecture) -> Backend:
    """The engine that would run: PyTorch if asked for, or if TurboMind lacks the model (`archs.py`)."""
    turbomind = settings.backend != "pytorch" and has_turbomind(architecture, settings.version)
    return "turbomind" if turbomind else "pytorch"


def batch_size(settings: Settings, device: Device, era: Era) -> int:
    """`max_batch_size`: as asked, else by the card's name (`utils.py: get_max_batch_size`)."""
    if settings.max_batch_size:
        return settings.max_batch_size
    name = device.name.lower()
    return next((size for word, size in era.batches if word in name), _BATCH_ELSEWHERE)


def block_length(settings: Settings, backend: Backend, widest_head: int, era: Era) -> int:
    """Tokens of a block."""
    length = settings.cache_block_seq_len or (era.block if backend == "turbomind" else _BLOCK)
    if backend == "pytorch" and widest_head >= _WIDE_HEAD:
        return min(length, _SMALL_BLOCK)
    return length


def capture_sizes(largest: int) -> tuple[int, ...]:
    """Batch sizes that the PyTorch engine captures CUDA graphs for: powers of two up to 256, then every 256.

    `pytorch/backends/cuda/graph_runner.py: _get_capture_batch_size_impl`.
    """
    sizes, size = [], 1
    while size <= min(256, largest):
        sizes.append(size)
        size *= 2
    sizes += range(size, largest + 1, 256)
    if sizes[-1] != largest:
        sizes.append(largest)
    return tuple(sizes)
