"""Whether a product with a 4-bit matrix reads it as it is, or unpacks all of it first.

bitsandbytes 0.50 has kernels that multiply by packed weights, and takes them for so few rows that unpacking would cost
more: `backends/cuda/ops.py: _gemm_4bit_use_custom_cuda`, whose thresholds were measured card by card.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Rows up to which the kernels always run, and from which on they never do.
ALWAYS, NEVER = 4, 1536
#: Rows up to which the kernels of plain arithmetic serve dtypes without tensor cores.
PLAIN = 7
#: Rows above which only small matrices are read packed.
MANY = 512
#: Elements of a small matrix, exclusively.
SMALL = 4 << 20
#: Columns of the output that one thread block computes.
TILE = 64


@dataclass(frozen=True, slots=True)
class Product:
    """A product of `rows` rows with a matrix of `outputs` by `inputs`, on a card."""

    rows: int
    outputs: int
    inputs: int
    multiprocessors: int

    @property
    def blocks(self) -> int:
        """Thread blocks of a row of tiles."""
        return -(-self.outputs // TILE)

    def fills(self, numerator: int, denominator: int = 1) -> bool:
        """Whether so many blocks are at least this fraction of the multiprocessors."""
        return self.blocks * denominator >= self.multiprocessors * numerator


def reads_packed(product: Product, capability: tuple[int, int], dtype: torch.dtype, block: int) -> bool:
    """Whether the matrix is read packed.

    Parameters
    ----------
    capability
        Of the card.
    dtype
        Of the rows.
    block
        Elements that share a constant.
    """
    rows = product.rows
    if rows > NEVER or product.inputs % block:
        return False
    if rows <= ALWAYS:
        return True
    major = capability[0]
    if dtype is torch.float32 or major < 7:
        return rows <= PLAIN
    if major == 7 and (capability[1] < 5 or dtype is not torch.float16):
        return rows <= PLAIN
    if capability == (8, 7) or major == 11:
        return False
    if major == 10:
        return _datacenter_blackwell(product)
    if product.outputs * product.inputs < SMALL:
        return _small(product, capability)
    if rows > MANY:
        return False
    if rows <= PLAIN:
        return _few_rows(product, capability)
    by_card = {(7, 5): _turing, (8, 0): _a100, (8, 6): _ga10x, (12, 0): _blackwell, (12, 1): _spark}
    return (by_card.get(capability) or (_hopper if major == 9 else _ada))(product)


def _datacenter_blackwell(product: Product) -> bool:
    if product.fills(3):
        return product.rows <= 32
    return product.fills(1) and product.inputs < product.outputs and product.rows <= 8


def _small(product: Product, capability: tuple[int, int]) -> bool:
    rows, inputs, outputs = product.rows, product.inputs, product.outputs
    a100, turing = capability == (8, 0), capability == (7, 5)
    wide_memory = a100 or capability[0] == 9
    if inputs * 2 < outputs:
        if wide_memory:
            few = product.blocks * 3 < product.multiprocessors
            return rows <= {(True, True): 1536, (True, False): 512, (False, True): 512}.get((a100, few), 320)
        if turing:
            if product.fills(3):
                return rows <= 320
            return rows <= (64 if inputs >= 1024 else 96 if inputs >= 704 else 320)
        crowded = product.blocks * inputs > product.multiprocessors * 320
        return rows <= (192 if not product.fills(1) and crowded else 320)
    quarter = product.blocks * 4 <= product.multiprocessors
    if a100 and quarter:
        if inputs < outputs:
            return rows <= 384
        return rows <= (32 if product.blocks * 8 <= product.multiprocessors else 128)
    if turing and not product.fills(1) and rows > 8:
        return rows <= 64
    if quarter:
        return rows <= (32 if inputs < outputs or wide_memory else 23)
    return product.blocks * 2 <= product.multiprocessors and rows <= 16


def _few_rows(product: Product, capability: tuple[int, int]) -> bool:
    """5 to 7 rows: packed but for tall and square matrices on cards with fast memory."""
    hopper, a100 = capability[0] == 9, capability == (8, 0)
    if not (hopper or a100) or product.rows < 6 or product.blocks < (36 if hopper else 48):
        return True
    below_75, below_60 = not product.fills(3, 4), not product.fills(3, 5)
    if product.inputs > product.outputs:
        return not below_75
    if product.inputs == product.outputs:
        return not (below_60 if a100 else below_75 and not below_60)
    return True


def _turing(product: Product) -> bool:
    if product.fills(3):
        return product.rows <= (128 if product.inputs < product.outputs else 64)
    return product.rows <= (64 if product.blocks >= product.multiprocessors // 2 else 32)


def _a100(product: Product) -> bool:
    rows, inputs, outputs, blocks = product.rows, product.inputs, product.outputs, product.blocks
    if product.fills(3):
        return rows <= 128
    if product.fills(1):
        return rows <= (64 if inputs < outputs else 32)
    if inputs >= outputs * 3 and blocks * 4 > product.multiprocessors:
        return False
    if inputs == outputs and blocks >= 48 and not product.fills(3, 5):
        return False
    if not product.fills(1, 2):
        if inputs <= outputs:
            return rows <= 128
        if product.fills(1, 3):
            return False
    if blocks >= product.multiprocessors // 2 and inputs < outputs:
        return rows <= 128
    return rows <= 16


def _ga10x(product: Product) -> bool:
    half = product.blocks >= product.multiprocessors // 2
    return product.rows <= (128 if product.fills(1) else 64 if half else 16)


def _hopper(product: Product) -> bool:
    for waves, most in ((3, 64), (2, 48), (1, 32)):
        if product.fills(waves):
            return product.rows <= most
    if product.blocks < product.multiprocessors // 2:
        return False
    tall = product.inputs >= product.outputs and not product.fills(3, 4)
    return not tall and product.rows <= 16


def _spark(product: Product) -> bool:
    return product.rows <= 256 if product.fills(1) else _ada(product)


def _blackwell(product: Product) -> bool:
    rows, inputs, outputs = product.rows, product.inputs, product.outputs
    if product.fills(3):
        return rows <= 256
    if product.fills(2):
        return rows <= 128
    if product.fills(4, 5):
        return rows <= (96 if inputs >= outputs else 64)
    if product.blocks >= product.multiprocessors // 2:
        return rows <= (64 if inputs * 2 >= outputs and product.blocks >= 128 else 8)
    return rows <= (16 if inputs > outputs * 2 and product.blocks > 64 else 8)


def _ada(product: Product) -> bool:
    rows, inputs, outputs, blocks = product.rows, product.inputs, product.outputs, product.blocks
    tall = inputs > outputs * 2
    if product.fills(3):
        return rows <= 256
    if product.fills(2):
        return rows <= 128
    if product.fills(4, 5):
        if tall or blocks >= 200:
            return rows <= 128
        if inputs >= outputs:
            return rows <= (128 if product.multiprocessors >= 60 else 32)
        return rows <= 64
    if blocks >= product.multiprocessors // 2:
        return rows <= (64 if tall else 8 if blocks >= 64 else 32)
    if inputs > outputs and blocks <= 48:
        return rows <= (12 if inputs >= outputs * 3 else 10)
    return rows <= (16 if tall or blocks < 48 else 8)
