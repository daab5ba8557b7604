"""What bitsandbytes answers when it chooses between packed and unpacked products, for sizes drawn at random."""

from __future__ import annotations

import random
from typing import Any

import torch

#: Compute capability and multiprocessors of cards: T4, A100, A10, Orin, L4, 4090, H100, B200, RTX 5090, GB10, V100.
CARDS = (
    ((7, 5), 40), ((8, 0), 108), ((8, 6), 72), ((8, 7), 16), ((8, 9), 58), ((8, 9), 128), ((9, 0), 132),
    ((10, 0), 148), ((12, 0), 170), ((12, 1), 48), ((7, 0), 80),
)  # fmt: skip
SIDES = (256, 512, 768, 1024, 1536, 2048, 2560, 3072, 4096, 5120, 8192, 11008, 12288, 14336, 28672)
ROWS = (
    4,
    5,
    7,
    8,
    9,
    12,
    16,
    17,
    24,
    32,
    33,
    48,
    64,
    65,
    96,
    128,
    129,
    192,
    256,
    320,
    384,
    512,
    513,
    1024,
    1536,
    1537,
)


def recorded(count: int = 3000) -> list[list[Any]]:
    """Card, rows, outputs, inputs, dtype, and whether the matrix is read packed."""
    from bitsandbytes.backends.cuda import ops

    drawn = random.Random(0)
    found = []
    for _ in range(count):
        (capability, processors), rows = drawn.choice(CARDS), drawn.choice(ROWS)
        outputs, inputs = drawn.choice(SIDES), drawn.choice(SIDES)
        dtype = drawn.choice(("bfloat16", "float16", "bfloat16", "float32"))
        ops._gpu_dispatch_props = lambda _, card=(processors, *capability): card
        ops._gemm_4bit_use_custom_cuda.cache_clear()
        packed = rows <= ops._gemm_4bit_custom_max_m and ops._gemm_4bit_use_custom_cuda(
            0, getattr(torch, dtype), rows, outputs, inputs
        )
        found.append([list(capability), processors, rows, outputs, inputs, dtype, bool(packed)])
    return found
