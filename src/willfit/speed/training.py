"""Seconds of a training step: products, what flows between them, the optimizer, and what ranks and hosts exchange.

A product of the forward pass has two in the backward pass, one for the gradient of its input and one for that of its
weight; a frozen weight has no gradient (Hu et al. 2021, section 4.2), and what is checkpointed runs once more (Chen et
al. 2016). Attention's backward pass makes its scores again and has five products for the forward pass's two (Dao 2023,
section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Subject
from willfit.quantities import DTYPE_BYTES
from willfit.speed.attention import prefill_flops
from willfit.speed.counting import work_of
from willfit.speed.serving import Times
from willfit.speed.training_rates import TrainingRates
from willfit.training.layout import Ranks
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Products of attention in a backward pass for one in the forward pass: flash attention, and scores that were kept.
_FLASH_BACKWARD, _KEPT_BACKWARD = 2.5, 2.0

#: What a checkpoint runs again of a layer's products and of its attention. `selective-op` keeps attention and every
#: other product (torchtitan `models/llama/parallelize_llama.py: _apply_ac_to_transformer_block`, 2024 to 2026).
_AGAIN: dict[str, tuple[float, float]] = {
    "none": (0.0, 0.0),
    "full": (1.0, 1.0),
    "selective-op": (0.5, 0.0),
    "selective-core-attn": (0.0, 1.0),
    "selective-mlp": (0.65, 0.0),
    "selective-modules": (0.3, 0.5),
}

#: Bytes of a weight in 4 bits.
_FOUR_BITS = 0.5

#: Sums of a tensor-parallel layer: two in the forward pass and two in the backward pass (Shoeybi et al. 2019).
_SUMS = 4

#: Devices of one host, and what a device has of the network between hosts, one way: 400 Gb/s.
_HOST_DEVICES, _NETWORK = 8, 50e9

#: What an optimizer in RAM reaches: float32 states through a host's memory, parameters per second (DeepSpeedCPUAdam's
#: published 1 to 2 billion).
_HOST_UPDATES = 1.0e9


@dataclass(frozen=True, slots=True)
class Step:
    """What one rank does in a step, without any rate.

    Attributes
    ----------
    products, narrow_products
        Operations of matrix products, in the run's compute dtype and in 8 or 4 bits.
    attention
        Operations of attention.
    flowing_bytes
        Of values that pass between kernels once: what norms, activations, residuals and the loss read and write is
        several times that.
    unpacked_bytes
        Of quantized weights that are unpacked, read packed and written and read unpacked.
    optimizer_bytes
        That the optimizer reads and writes on the device.
    shared_bytes
        That pass a link between ranks and hide behind computation, over links inside a host and between hosts.
    summed_bytes
        That tensor-parallel ranks wait for.
    moved_bytes
        Over PCI Express.
    host_updates
        Parameters that an optimizer in RAM updates.
    layers
        That Python launches, forward, backward and again.
    bubble
        Share of a step that pipeline stages wait, beyond the rest.
    tokens
        Of the step, over all ranks.
    sequences
        Likewise.
    micro_batches
        Of one rank.
    crosses_hosts
        Whether ranks that share states lie on several hosts.
    dtype
        Of the products.
    compiled
        Whether a compiler fuses what lies between products.
    """

    products: float
    narrow_products: float
    attention: float
    flowing_bytes: float
    unpacked_bytes: float
    optimizer_bytes: float
    shared_bytes: float
    summed_bytes: float
    moved_bytes: float
    host_updates: float
    layers: float
    bubble: float
    tokens: int
    sequences: int
    micro_batches: int
    crosses_hosts: bool
    dtype: str
    compiled: bool


def step_of(subject: Subject, run: Run, ranks: Ranks) -> Step:
    """What one rank does in a step of a run that is filled in (`training.estimate.prepared`).

    All sequences are taken to be as long as the longest that is asked for.
    """
    settings = run.settings
    layout, precision = settings.layout, settings.precision
    compute = precision.compute or "bf16"
    work = work_of(subject, layout.tp)
    length = settings.seq_len or 1
    spread = layout.cp * layout.ulysses
    micro = settings.micro_batch
    tokens = micro * length / spread
    count = max(1, settings.gradient_accumulation)
    trained = 1.0 if settings.adapter is None else 0.0
    again, attended_again = _AGAIN.get(settings.checkpointing.kind or "none", _AGAIN["none"])
    share = 1 / settings.checkpointing.every if not settings.checkpointing.together else 1.0
    again, attended_again = again * share, attended_again * share
    layers = float(sum(one.products for one in (*work.dense, *work.encoder)))
    layers += sum(one.products * one.chosen / one.experts for one in work.experts)
    head = sum(one.products for one in work.head)
    passes = (2 + trained + again) / layout.pp
    body = 2 * layers * tokens * passes
    # The head's gradients are on one stage; the fullest has as much as its layers alone or a head beside them.
    ends = 2 * head * tokens * (2 + trained)
    narrow = precision.float8 is not None
    flash = settings.attention not in ("eager", None)
    attended = sum(
        one.layers * one.share * prefill_flops(one.mixer, length, work.causal and flash, work.source_tokens)
        for one in work.mixed
    )
    backward = _FLASH_BACKWARD if flash else _KEPT_BACKWARD
    attention = micro * attended / spread * (1 + backward + attended_again) / layout.pp
    width = _width(subject) / layout.tp
    logits = subject.architecture.logits_per_row / layout.tp
    flowing = tokens * DTYPE_BYTES[compute] * (width * (1 + again / 3) / layout.pp + logits)
    held = work.products / layout.pp
    data = layout.data or "none"
    updated = held * trained / (ranks.states if _shards_states(data) else 1)
    return Step(
        products=count * (ends if narrow else body + ends),
        narrow_products=count * body if narrow else 0.0,
        attention=count * attention,
        flowing_bytes=count * flowing,
        unpacked_bytes=count * _unpacked(settings, held, 2 + again),
        optimizer_bytes=0.0 if settings.offload.optimizer else updated * _update_bytes(settings),
        shared_bytes=_shared(settings, held, trained, ranks, count),
        summed_bytes=count * _SUMS * work.layers / layout.pp * tokens * work.hidden * DTYPE_BYTES[compute]
        if layout.tp > 1
        else 0.0,
        moved_bytes=_moved(settings, held, updated, count, tokens * work.hidden * work.layers / layout.pp),
        host_updates=updated if settings.offload.optimizer else 0.0,
        layers=count * work.layers / layout.pp * (3 + again),
        bubble=(layout.pp - 1) / (count * layout.virtual_stages),
        tokens=micro * count * ranks.data * length,
        sequences=micro * count * ranks.data,
        micro_batches=count,
        crosses_hosts=ranks.states * layout.tp > _HOST_DEVICES,
        dtype="fp32" if compute == "fp32" else "half",
        compiled=settings.compile,
    )


def step_times(step: Step, rates: TrainingRates) -> Times:
    """Seconds of a step by what holds it up.

    What ranks share hides behind computation as far as it is not longer; sums over tensor-parallel ranks do not.
    """
    compute = step.products / rates.products[step.dtype] + step.narrow_products / rates.products["narrow"]
    compute += step.attention / rates.attention
    flowing = step.flowing_bytes * (rates.flow_compiled if step.compiled else rates.flow_eager)
    bandwidth = (flowing + step.unpacked_bytes + step.optimizer_bytes) / rates.bandwidth
    waits = max(0.0, step.layers * rates.launch_s - compute - bandwidth)
    waits += step.host_updates / _HOST_UPDATES + step.bubble * (compute + bandwidth)
    link = min(rates.link, _NETWORK) if step.crosses_hosts else rates.link
    hidden = max(0.0, step.shared_bytes / link - compute - bandwidth)
    return Times(
        bandwidth, compute, waits, hidden + step.summed_bytes / rates.link + step.moved_bytes / rates.pcie
    )


def _width(subject: Subject) -> int:
    """Elements of one token that pass between kernels over all layers: residuals, projections, feed-forward parts."""
    hidden, total = subject.architecture.hidden_size, 0
    for layer, times in (*subject.architecture.blocks, *subject.architecture.encoder_blocks):
        width = 4 * hidden
        for mixer in layer.mixers:
            width += mixer.projected_width + mixer.output_width
        ffn = layer.feed_forward
        if ffn is not None:
            width += (3 if ffn.gated else 2) * (ffn.width + ffn.top_k * ffn.expert_width)
        total += times * width
    return total


def _shards_states(data: str) -> bool:
    return data.startswith(("fsdp", "zero")) or data == "distributed-optimizer"


def _unpacked(settings: TrainingSettings, parameters: float, passes: float) -> float:
    """A quantized base is unpacked in each pass: written and read in 16 bits, read packed."""
    if settings.quantization is None:
        return 0.0
    return parameters * passes * (2 * DTYPE_BYTES["bf16"] + _FOUR_BITS)


def _update_bytes(settings: TrainingSettings) -> float:
    """Bytes that an optimizer with two moments reads and writes of a parameter."""
    precision, name = settings.precision, settings.optimizer.name or "adamw"
    states = 1 if "8bit" in name else DTYPE_BYTES.get(precision.states or "fp32", 4)
    weights = DTYPE_BYTES.get(precision.trainable or precision.weights or "bf16", 2)
    master = DTYPE_BYTES.get(precision.master or "none", 0)
    return 2.0 * (weights + master + 2 * states) + DTYPE_BYTES.get(precision.gradients or "bf16", 2)


def _shared(settings: TrainingSettings, parameters: float, trained: float, ranks: Ranks, count: int) -> float:
    """Bytes that pass each link for weights that are gathered and gradients that are reduced.

    A gather or a scatter passes (n - 1) / n of the whole, an all-reduce twice that (Rajbhandari et al. 2020,
    section 7).
    """
    layout, precision = settings.layout, settings.precision
    data, shards = layout.data or "none", ranks.states
    compute = float(DTYPE_BYTES.get(precision.compute or "bf16", 2))
    reduced = DTYPE_BYTES.get(precision.reduce or precision.gradients or "bf16", 2)
    passed = (shards - 1) / shards if shards > 1 else 0.0
    if data in ("fsdp1", "fsdp2", "zero3"):
        gathers = 1 if layout.reshard is False or layout.strategy in ("shard_grad_op", "no_shard") else 2
        if settings.quantization is not None:
            compute = _FOUR_BITS
        return count * parameters * passed * (gathers * compute + trained * reduced)
    if data in ("zero1", "zero2", "distributed-optimizer"):
        return parameters * trained * passed * (reduced + compute)
    spread = max(ranks.data, 1)
    return parameters * trained * 2 * (spread - 1) / spread * reduced


def _moved(settings: TrainingSettings, parameters: float, updated: float, count: int, kept: float) -> float:
    """Bytes over PCI Express: gradients down and weights up again, weights for each pass, kept activations."""
    offload = settings.offload
    compute = DTYPE_BYTES.get(settings.precision.compute or "bf16", 2)
    size = 0.0
    if offload.optimizer:
        size += updated * (DTYPE_BYTES.get(settings.precision.gradients or "bf16", 2) + compute)
    if offload.params:
        size += count * 2 * parameters * compute
    if settings.checkpointing.offload:
        size += count * 2 * kept * compute
    return size
