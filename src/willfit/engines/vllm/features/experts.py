"""Expert parallelism beyond dividing experts: copies that balance load, and buffers of all-to-all kernels.

`distributed/eplb/`, `distributed/device_communicators/all2all.py`, `fused_moe/config.py` (0.33).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.versions import Version, era_of
from willfit.engines.vllm.loading.pieces import rank_bytes
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import SOURCES
from willfit.estimate import Term, between, exact
from willfit.hardware.device import Device
from willfit.quantities import ceil_div, round_up

#: Tokens that a rank dispatches at once where batches are cut up (`VLLM_MOE_DP_CHUNK_SIZE`).
_CHUNK = 256

#: DeepEP's low-latency messages: 16 bytes of head, and an fp32 scale for 128 elements (`csrc/config.hpp`).
_MESSAGE_HEAD = 16
_SCALED = 128

#: Devices of one host, within which DeepEP's high-throughput kernels need no second buffer (NVLink's reach).
_ON_ONE_HOST = 8

#: Back ends without buffers of their own: they gather and scatter.
_WITHOUT_BUFFERS = frozenset({"allgather_reducescatter", "naive", "passthrough"})


@dataclass(frozen=True, slots=True)
class BalanceEra:
    """How copies of experts are handled from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    balances
        Experts can be balanced.
    keeps_buffer
        The experts of one layer are held a second time from the start, to exchange them.
    whole_batches
        Tokens are dispatched a batch at a time; before, in chunks.
    """

    since: Version
    balances: bool = False
    keeps_buffer: bool = False
    whole_batches: bool = False


ERAS = (
    BalanceEra((0, 0)),
    BalanceEra((0, 9, 2), balances=True),
    BalanceEra((0, 12), balances=True, keeps_buffer=True),
    BalanceEra((0, 20), balances=True, keeps_buffer=True, whole_batches=True),
)


def local_experts(experts: int, settings: Settings) -> int:
    """Experts of a layer on one rank under expert parallelism, copies included."""
    return ceil_div(experts + (settings.redundant_experts or 0), settings.expert_ranks)


def balance_term(subject: Subject, settings: Settings, dtype: str, device: Device) -> Term | None:
    """The buffer through which experts are exchanged: those of the first layer that has any; None without."""
    if settings.redundant_experts is None or not era_of(settings.version, ERAS).keeps_buffer:
        return None
    layer = next((layer for layer, _ in subject.architecture.blocks if _experts(layer.feed_forward)), None)
    if layer is None:
        return None
    own = {id(tensor) for tensor in layer.tensors if tensor.part == "experts"}
    lines = [line for line in subject.lines if id(line.tensor) in own]
    size = sum(rank_bytes(line, subject, settings, dtype, device) // line.times for line in lines)
    experts = local_experts(layer.feed_forward.experts, settings)  # type: ignore[union-attr]
    formula = f"{size} B of {experts} experts of one layer"
    return exact("expert_exchange", size, formula, SOURCES.cite("balance", settings.version))


def all_to_all_term(architecture: Architecture, settings: Settings, resolved: Resolved) -> Term | None:
    """Buffers through which tokens reach their experts, outside torch's allocator; None without."""
    backend = settings.all2all_backend
    exchanges = settings.expert_parallel and settings.data_parallel > 1
    if not exchanges or backend is None or backend in _WITHOUT_BUFFERS:
        return None
    experts = max((_experts(layer.feed_forward) for layer, _ in architecture.blocks), default=0)
    if not experts:
        return None
    size = settings.all2all_buffer_bytes
    reference = SOURCES.cite("all-to-all", settings.version)
    if backend == "deepep_high_throughput":
        both = size * (2 if settings.expert_ranks > _ON_ONE_HOST else 1)
        formula = f"{both // size} buffers of {size} B"
        return exact("communication", both, formula, reference)
    hidden = architecture.hidden_size
    experts += settings.redundant_experts or 0
    tokens = resolved.max_num_batched_tokens if era_of(settings.version, ERAS).whole_batches else _CHUNK
    low_latency = _low_latency_bytes(tokens, hidden, experts)
    formula = f"{low_latency} B for {tokens} tokens to each of {experts} experts, twice"
    if backend == "deepep_low_latency":
        total = low_latency + size
        return exact(
            "communication",
            total,
            f"{formula} + {size} B of a buffer",
            f"{reference}; DeepEP csrc/config.hpp",
        )
    formula = f"not established for {backend}: at most what DeepEP's low-latency kernels take"
    return between("communication", 0, 0, low_latency + size, formula, reference)


def experts_refusal(subject: Subject, settings: Settings) -> str:
    """Why experts cannot be placed so; empty if they can."""
    if settings.redundant_experts is None:
        return ""
    if not era_of(settings.version, ERAS).balances:
        return "this version of vLLM does not balance experts (--enable-eplb came with 0.9.2)"
    if not settings.expert_parallel:
        return "--enable-eplb needs --enable-expert-parallel"
    if settings.expert_ranks == 1:
        return "--enable-eplb needs more than one rank"
    experts = max((_experts(layer.feed_forward) for layer, _ in subject.architecture.blocks), default=0)
    held = experts + settings.redundant_experts
    if experts and held % settings.expert_ranks:
        return (
            f"{experts} experts and {settings.redundant_experts} copies cannot be divided over "
            f"{settings.expert_ranks} expert-parallel ranks"
        )
    return ""


def _experts(feed_forward: object) -> int:
    return int(getattr(feed_forward, "experts", 0) or 0)


def _low_latency_bytes(tokens: int, hidden: int, experts: int) -> int:
    """What DeepEP's low-latency kernels exchange: two sets of buffers to send and to receive, and flags."""
    scales = hidden // _SCALED
    dispatch = _MESSAGE_HEAD + max(2 * hidden, hidden + 4 * scales)
    combine = 4 * scales + 2 * hidden
    send = max(tokens * dispatch, experts * tokens * combine)
    receive = experts * tokens * max(dispatch, combine)
    flags = round_up(4 * experts, 128)
    return round_up(2 * (send + receive + flags), 128)
