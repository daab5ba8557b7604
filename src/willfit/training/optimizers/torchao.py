"""torchao: states in 8 or 4 bits or in float8, each with its own scales and map; and the step on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.engines.versions import Version
from willfit.training.optimizers.muon import is_hidden_matrix
from willfit.training.optimizers.records import (
    CONSTRUCTION,
    Job,
    OptimizerMemory,
    StateBytes,
    Transient,
    counted,
    state,
    steps_counter,
)
from willfit.training.parameters import Parameter

#: Tensors with fewer elements, or which blocks do not divide, keep states of their own dtype
#: (`optim/adam.py: _new_buffer`).
_LEAST = 4096

#: Elements of a block in 8 bits: 2048, from 0.6 on 256.
_OLD_BLOCK, _BLOCK = 2048, 256
_SMALL_BLOCKS_SINCE: Version = (0, 6)
_BLOCK_OF_FOUR_BITS = 128

#: The step on the host leaves tensors with fewer elements on the device (`optim/cpu_offload.py`).
_LEAST_OFFLOADED = 4096

#: float32 copies of a tensor that a compiled step may write out between its kernels: parameter and both moments.
_MOST_COPIES = 3


def torchao(job: Job) -> OptimizerMemory:
    """torchao's Adam and AdamW.

    Parameters
    ----------
    job
        What it works on. Options: `bits` (`8`, `4` or `fp8`), `block_size`, `amsgrad`.
    """
    bits = str(job.options.get("bits", "8"))
    block = job.count("block_size", _default_block(job, bits))
    kinds = [("exp_avg", True), ("exp_avg_sq", False)]
    if job.flag("amsgrad"):
        kinds.append(("max_exp_avg_sq", False))
    narrow: list[Parameter] = []
    plain: list[Parameter] = []
    for parameter in job.parameters:
        each = parameter.elements // parameter.copies
        (narrow if each >= _LEAST and each % block == 0 else plain).append(parameter)
    count = sum(parameter.elements for parameter in narrow)
    tensors = sum(parameter.copies for parameter in narrow)
    states: list[StateBytes] = []
    for kind, _ in kinds:
        states += state(job, kind, parameters=plain)
        if bits == "4":
            states += counted(f"{kind} codes", "uint8", count // 2, tensors, words="pairs")
        else:
            states += counted(
                kind, "fp8_e4m3" if bits == "fp8" else "uint8", count, tensors, words="elements"
            )
    states += counted("scale", "fp32", count // block * len(kinds), tensors * len(kinds), words="blocks")
    if bits != "fp8":
        entries = 2 ** int(bits)
        states += counted(
            "maps", "fp32", entries * tensors * len(kinds), tensors * len(kinds), words="entries"
        )
    states += steps_counter(job, "host")
    largest = max((one.elements // one.copies for one in job.parameters), default=0)
    most = _MOST_COPIES * 4 * largest
    return OptimizerMemory(
        f"torchao AdamW, {bits} bits" if bits != "fp8" else "torchao AdamW, float8",
        "compiled",
        tuple(states),
        Transient(0, 0, most, "0 B"),
        reference="torchao optim/adam.py: _new_buffer; optim/subclass_8bit.py, subclass_4bit.py, subclass_fp8.py",
        notes=("the step is compiled: what its kernels write out between them is between nothing and three float32 "
               "copies of the largest tensor",),
    )  # fmt: skip


def _default_block(job: Job, bits: str) -> int:
    if bits == "4":
        # The Trainer gives its own (`trainer_optimizer.py: _get_torchao_optimizer`).
        return _BLOCK if "transformers" in job.versions else _BLOCK_OF_FOUR_BITS
    if "transformers" in job.versions:
        return _BLOCK
    return _BLOCK if job.versions.get("torchao", _SMALL_BLOCKS_SINCE) >= _SMALL_BLOCKS_SINCE else _OLD_BLOCK


def cpu_offload(job: Job) -> OptimizerMemory:
    """torchao's CPUOffloadOptimizer: parameters, gradients and states of larger tensors on the host as well.

    Options: `minimal_size`, `offload_gradients` (a gradient leaves the device as soon as it is on the host).
    """
    least = job.count("minimal_size", _LEAST_OFFLOADED)
    large: Sequence[Parameter] = [one for one in job.parameters if one.elements // one.copies >= least]
    small = [one for one in job.parameters if one.elements // one.copies < least]
    states: list[StateBytes] = []
    for kind in ("parameter", "gradient"):
        states += state(job, kind, None, large, "host", CONSTRUCTION, pinned=True)
    for kind in ("exp_avg", "exp_avg_sq"):
        states += state(job, kind, None, large, "host")
        states += state(job, kind, None, small)
    states += steps_counter(job.only(large), "host")
    # The default is the fused AdamW, which keeps the counters of small ones on the device.
    states += steps_counter(job.only(small), "device")
    return OptimizerMemory(
        "torchao CPUOffloadOptimizer", "fused", tuple(states),
        gradients="one parameter" if job.flag("offload_gradients") else "all",
        reference="torchao optim/cpu_offload.py: CPUOffloadOptimizer",
    )  # fmt: skip


def sinkgd(job: Job) -> OptimizerMemory:
    """axolotl's SinkGD: matrices between embedding and head keep a vector each, the rest torchao's 8-bit states."""
    matrices = [one for one in job.parameters if is_hidden_matrix(one)]
    rest = torchao(job.only([one for one in job.parameters if not is_hidden_matrix(one)]))
    vectors = sum(one.elements // one.shape[-2] for one in matrices)
    states = counted("norm's vector", "fp32", vectors, sum(one.copies for one in matrices), words="elements")
    return replace(
        torchao(job), name="SinkGD", states=(*states, *rest.states),
        reference="axolotl utils/optimizers/sinkgd.py: SinkGD, 0.19",
    )  # fmt: skip


def flash(job: Job) -> OptimizerMemory:
    """flashoptim's: 8-bit states with a float16 scale for 32 elements, and the bits that a 16-bit weight lacks.

    Options: `moments` (1 or 2), `quantize`, `master_weight_bits` (24 by default, 32 or 0).
    """
    moments = ("momentum", "variance")[: job.count("moments", 2)]
    elements = sum(one.elements for one in job.parameters)
    tensors = sum(one.copies for one in job.parameters)
    groups = sum(-(-(one.elements // one.copies) // _FLASH_GROUP) * one.copies for one in job.parameters)
    states: list[StateBytes] = []
    for kind in moments:
        if job.flag("quantize", True):
            states += counted(kind, "int8", elements, tensors, words="elements")
            states += counted(f"{kind} scale", "fp16", groups, tensors, words="groups")
        else:
            states += state(job, kind)
    master = job.count("master_weight_bits", 24) // 8
    lacking = [one for one in job.parameters if job.width(one) < master]
    if lacking:
        bytes_more = master - job.width(lacking[0])
        states += state(job, "error bits", "int8" if bytes_more == 1 else "int16", lacking)
    return OptimizerMemory(
        "flashoptim", "fused", tuple(states), reference="flashoptim optimizers.py: FlashOptimizer, 0.1.4"
    )


#: Elements that share a scale (flashoptim `optimizers.py`, `group_size`).
_FLASH_GROUP = 32
