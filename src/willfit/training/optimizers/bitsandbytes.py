"""bitsandbytes: states in 8 bits, block by block, or in float32; paged ones in unified memory."""

from __future__ import annotations

from willfit.engines.versions import Version
from willfit.quantities import ceil_div
from willfit.training.optimizers.records import (
    Job,
    OptimizerMemory,
    Place,
    StateBytes,
    counted,
)

#: Elements of a block that share a scale (`optim/optimizer.py: init_state`): 2048, from 0.44 on 256.
_OLD_BLOCK, _BLOCK = 2048, 256
_SMALL_BLOCKS_SINCE: Version = (0, 44)

#: Tensors with fewer elements stay in float32 (`min_8bit_size`).
_LEAST = 4096

#: Tensors with fewer elements are not paged (`optim/optimizer.py: get_state_buffer`).
_LEAST_PAGED = 100_000

#: Entries of a map from codes to values (`functional.py: create_dynamic_map`).
_MAP = 256

#: Norms that percentile clipping remembers for a tensor (`optim/optimizer.py: init_state`).
_NORMS = 100

#: From this version on the Trainer keeps embeddings at 32 bits for every 8-bit optimizer of bitsandbytes
#: (`trainer.py: create_optimizer`); before, only for a class named Adam8bit, which it never uses itself.
_EMBEDDINGS_WIDE_SINCE: Version = (4, 52)

#: How many moments each has, as multiples of the parameter: those of the first state and of the second.
_STATES = {
    "adam": (1, 1), "ademamix": (2, 1), "lamb": (1, 1),
    "lion": (1, 0), "rmsprop": (1, 0), "sgd": (1, 0), "adagrad": (1, 0), "lars": (1, 0),
}  # fmt: skip


def bitsandbytes(job: Job) -> OptimizerMemory:
    """States of an optimizer of bitsandbytes; its kernels need nothing more.

    Parameters
    ----------
    job
        What it works on. Options: `update` (`adam`, `lion`, `rmsprop`, `ademamix`, `sgd`, `adagrad`, `lamb`, `lars`),
        `optim_bits` (8 or 32), `paged`, `min_8bit_size`, `block_wise` (up to 0.45), `percentile_clipping`,
        `embeddings_32bit` (None: as the Trainer of that version does, where `transformers` is among the versions).
    """
    first, second = _STATES[str(job.options.get("update", "adam"))]
    bits, least = job.count("optim_bits", 8), job.count("min_8bit_size", _LEAST)
    version = job.versions.get("bitsandbytes", _SMALL_BLOCKS_SINCE)
    paged = job.flag("paged")
    block = _BLOCK if version >= _SMALL_BLOCKS_SINCE else _OLD_BLOCK
    wide = _embeddings_stay_wide(job)
    elements: dict[tuple[str, Place], list[int]] = {}
    scales, narrow, tensors = 0, 0, 0
    for parameter in job.parameters:
        each = parameter.elements // parameter.copies
        small = bits == 32 or each < least or (wide and parameter.kind == "embedding")
        place: Place = "managed" if paged and each >= _LEAST_PAGED else "device"
        entry = elements.setdefault(("fp32" if small else "uint8", place), [0, 0])
        entry[0] += parameter.elements
        entry[1] += parameter.copies
        tensors += parameter.copies
        if not small:
            narrow += parameter.copies
            scales += (
                ceil_div(each, block) * parameter.copies if job.flag("block_wise", True) else parameter.copies
            )
    states: list[StateBytes] = []
    for kind, times in (("exp_avg", first), ("exp_avg_sq", second)):
        if times:
            for (dtype, place), (count, of) in elements.items():
                states += counted(kind, dtype, count * times, of, place, "elements")
    if narrow:
        # Without blocks a tensor keeps its largest value and that of the step (`max1`, `new_max1`).
        factor = (first + second) * (1 if job.flag("block_wise", True) else 2)
        kinds = 1 + (second > 0)
        states += counted("absmax", "fp32", scales * factor, narrow * kinds, words="blocks")
        states += counted("maps", "fp32", _MAP * kinds, kinds, words="entries of the maps that all share")
    if job.number("percentile_clipping", 100) < 100:
        states += counted("gradient norms", "fp32", _NORMS * tensors, tensors)
    return OptimizerMemory(
        f"bitsandbytes {job.options.get('update', 'adam')}, {bits} bits",
        "fused",
        tuple(states),
        reference="bitsandbytes optim/optimizer.py: init_state; optim/ademamix.py",
        notes=("paged states lie in unified memory: on the device until it is full, in no counter of torch",)
        if paged
        else (),
    )


def _embeddings_stay_wide(job: Job) -> bool:
    if "embeddings_32bit" in job.options:
        return job.flag("embeddings_32bit")
    trainer = job.versions.get("transformers")
    return trainer is not None and trainer >= _EMBEDDINGS_WIDE_SINCE
