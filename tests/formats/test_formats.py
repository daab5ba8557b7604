"""Bytes of each format, worked out by hand from the layouts that the implementations store."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.errors import BadInput
from willfit.formats.awq import Awq
from willfit.formats.base import Format
from willfit.formats.bitsandbytes import Bnb4, BnbInt8
from willfit.formats.codebook import Aqlm, BitNet, Exl2, Exl3
from willfit.formats.compressed_tensors import PackQuantized
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.ggml import Ggml
from willfit.formats.gptq import Gptq
from willfit.formats.packed import GroupWords, Hqq, PackedInt
from willfit.formats.plain import Plain
from willfit.formats.scaled import Scaled, fp8_block, mxfp8

OUT, IN = 1000, 4096  # 1000 rows: no multiple of 128
N = OUT * IN  # 4,096,000

BY_HAND: list[tuple[Format, int]] = [
    (Plain("bf16"), 2 * N),
    (Plain("fp64"), 8 * N),
    (Plain("int8"), N),
    # one fp32 scale
    (Scaled("fp8", "fp8_e4m3", "tensor"), N + 4),
    # weight and activation scale
    (Scaled("fp8", "fp8_e4m3", "tensor", input_dtype="fp32"), N + 8),
    # one bf16 scale a row
    (Scaled("fp8", "fp8_e4m3", "channel", scale_dtype="bf16"), N + 2 * OUT),
    # 8 x 32 blocks of 128 x 128, the last row of blocks partly filled
    (fp8_block(), N + 4 * 8 * 32),
    # one exponent byte for 32 inputs
    (mxfp8(), N + OUT * 128),
    # qweight 512 x 1000 words, qzeros 32 x 125 words, scales 32 x 1000 halves, g_idx 4096 words
    (Gptq(4, 128), 4 * 512 * 1000 + 4 * 32 * 125 + 2 * 32 * 1000 + 4 * 4096),
    # 3 bits: 384 x 1000 words; qzeros ceil(3000 / 32) = 94 words a group
    (Gptq(3, 128, indexed=False), 4 * 384 * 1000 + 4 * 32 * 94 + 2 * 32 * 1000),
    # one group for all inputs
    (Gptq(8, -1), 4 * 1024 * 1000 + 4 * 250 + 2 * 1000 + 4 * 4096),
    # qweight 4096 x 125 words, qzeros 32 x 125 words, scales 32 x 1000 halves
    (Awq(4, 128), 4 * 4096 * 125 + 4 * 32 * 125 + 2 * 32 * 1000),
    # groups of 64: 64 groups are 8 words of 8, already a multiple of 2; scales and zeros 64 x 1000 halves
    (Awq(4, 64, "gemv_fast"), 2 * 250 * 4096 + 2 * 2 * 64 * 1000),
    # 64,000 blocks: fp32 maxima, 16 fp32 code values, and the text of the state, 82 characters:
    # {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [1000, 4096]}
    (Bnb4("nf4"), N // 2 + 4 * 64000 + 4 * 16 + 82),
    # uint8 maxima, 250 fp32 maxima of maxima, both code tables
    (Bnb4("nf4", double=True), N // 2 + 64000 + 4 * 250 + 4 * 256 + 4 * 16 + 172),
    (BnbInt8(), N + 4 * OUT + 1),
    (Mxfp4(), N // 2 + OUT * 128),
    (Mxfp4(blocks=True), N // 2 + OUT * 128),
    # one fp8 scale for 16 inputs, two fp32 scalars
    (Nvfp4(), N // 2 + OUT * 256 + 8),
    (Nvfp4(input_scale=False), N // 2 + OUT * 256 + 4),
    # 512 words a row, 32 bf16 scales a row, two int64 of shape
    (PackQuantized(4, 128), 4 * 512 * OUT + 2 * 32 * OUT + 16),
    # 125 x 32 words of zero points, and the group of each input
    (
        PackQuantized(4, 128, symmetric=False, ordered=True),
        4 * 512 * OUT + 2 * 32 * OUT + 16 + 4 * 125 * 32 + 4 * 4096,
    ),
    (PackQuantized(8, 0), 4 * 1024 * OUT + 2 * OUT + 16),
    # codes 1000 x 512 of 2 bytes, 65,536 vectors of 8 halves, a scale a row
    (Aqlm(), 2 * 1000 * 512 + 2 * 65536 * 8 + 2 * 1000),
    # two codebooks of 256 vectors, codes of 1 byte
    (Aqlm(2, 8), 1000 * 512 * 2 + 2 * 2 * 256 * 8 + 2 * 1000),
    # 64,000 groups of 64: packed in pairs, scale and zero point in bf16
    (Hqq(4, 64), 32000 * 64 + 2 * 2 * 64000),
    # ten groups to an int32 row
    (Hqq(3, 64), 4 * 6400 * 64 + 2 * 2 * 64000),
    (PackedInt("torchao", 4, 128, "bf16", "bf16"), N // 2 + 2 * 2 * OUT * 32),
    # 4096 * 4 / 32 = 512 words a row, scale and bias for 64 inputs: 4.5 bits
    (PackedInt("mlx", 4, 64, "bf16", "bf16", word=32), N * 9 // 16),
    # four words and a scale for 32 inputs
    (GroupWords("mlc", 4, 32, "fp16"), N // 32 * 18),
    # four words of ten 3-bit weights and a scale for 40 inputs, the last group of a row partly filled
    (GroupWords("mlc", 3, 40, "fp16"), OUT * -(-IN // 40) * 18),
    (Exl2(4.0), N // 2),
    # 1000 rows padded to 1024; a half for each input and output
    (Exl3(4.0), 1024 * IN // 2 + 2 * IN + 2 * 1024),
    # four rows a byte and one scale
    (BitNet(), N // 4 + 2),
    # 128 blocks of 34 bytes a row
    (Ggml("Q8_0"), 128 * 34 * OUT),
    (Ggml("Q4_K"), 16 * 144 * OUT),
]


@pytest.mark.parametrize(("stored", "size"), BY_HAND, ids=lambda value: getattr(value, "name", ""))
def test_bytes_by_hand(stored: Format, size: int) -> None:
    assert stored.bytes((OUT, IN)) == size


#: Formats without a part that is independent of the number of experts or packs across them.
REPEATING: list[Format] = [stored for stored, _ in BY_HAND if not isinstance(stored, Bnb4 | Exl2 | Hqq)]


@pytest.mark.parametrize("stored", REPEATING, ids=lambda stored: stored.name)
def test_fused_experts_are_as_many_matrices(stored: Format) -> None:
    assert stored.bytes((7, OUT, IN)) == 7 * stored.bytes((OUT, IN))


@pytest.mark.parametrize("stored", [stored for stored, _ in BY_HAND], ids=lambda stored: stored.name)
@given(rows=st.integers(1, 300), blocks=st.integers(1, 12), experts=st.none() | st.integers(1, 5))
def test_bytes_are_the_sum_of_pieces_and_grow_with_the_shape(
    stored: Format, rows: int, blocks: int, experts: int | None
) -> None:
    lead = () if experts is None else (experts,)
    shape = (*lead, rows, 256 * blocks)
    size = stored.bytes(shape)
    assert size == sum(piece.bytes for piece in stored.pieces(shape)) > 0
    assert stored.bytes((*lead, rows + 1, 256 * blocks)) >= size
    assert stored.bytes((*lead, rows, 256 * (blocks + 1))) > size


@pytest.mark.parametrize("stored", [stored for stored, _ in BY_HAND], ids=lambda stored: stored.name)
def test_pieces_have_the_bytes_of_their_dtype_and_shape(stored: Format) -> None:
    from math import prod

    from willfit.formats.ggml import ggml_bytes
    from willfit.quantities import DTYPE_BYTES

    for piece in stored.pieces((OUT, IN)):
        if piece.dtype in DTYPE_BYTES:
            assert piece.bytes == prod(piece.shape) * DTYPE_BYTES[piece.dtype]
        else:
            assert piece.bytes == ggml_bytes(piece.dtype, piece.shape[::-1])


def test_vectors_and_scalars() -> None:
    assert Plain("fp32").bytes((4096,)) == 4 * 4096
    assert Plain("int64").bytes(()) == 8
    assert Ggml("F32").bytes((4096,)) == 4 * 4096
    assert fp8_block().bytes((4096,)) == 4096 + 4 * 32


def test_a_row_that_is_no_whole_number_of_blocks() -> None:
    with pytest.raises(BadInput, match="blocks of 256"):
        Ggml("Q4_K").bytes((10, 2880))


def test_bits_per_weight_of_published_tables() -> None:
    # the figures that the engines' documentation gives for large matrices
    def bits(stored: Format) -> float:
        return stored.bytes((8192, 8192)) * 8 / 8192**2

    expected: list[tuple[Callable[[], Format], float]] = [
        (lambda: Nvfp4(), 4.5),
        (lambda: Mxfp4(), 4.25),
        (lambda: PackedInt("mlx", 4, 64, "bf16", "bf16", word=32), 4.5),
        (lambda: Hqq(4, 64), 4.5),
        (lambda: Bnb4("nf4"), 4.5),
        (lambda: Awq(4, 128), 4.15625),
    ]
    for make, figure in expected:
        assert bits(make()) == pytest.approx(figure, abs=1e-3)
