"""ggml tensor types against the tables of the gguf package."""

import gguf
import pytest

from willfit.errors import BadInput
from willfit.formats.ggml import ggml_bytes
from willfit.ggml_types import GGML_TYPES, GGML_TYPES_BY_ID


def test_every_type_of_the_gguf_package_has_its_number_and_size() -> None:
    theirs = {kind.name: (int(kind), *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    ours = {kind.name: (kind.id, kind.block, kind.bytes) for kind in GGML_TYPES.values()}
    assert theirs.items() <= ours.items()


def test_numbers_are_unique() -> None:
    assert len(GGML_TYPES_BY_ID) == len(GGML_TYPES)


def test_bytes_of_a_row_cut_into_blocks() -> None:
    # 4096 / 256 = 16 blocks of 144 B a row, 14336 rows
    assert ggml_bytes("Q4_K", (4096, 14336)) == 16 * 144 * 14336
    # 8 experts: 2880 / 32 = 90 blocks of 17 B a row
    assert ggml_bytes("mxfp4", (2880, 2880, 8)) == 90 * 17 * 2880 * 8


@pytest.mark.parametrize(
    ("name", "ne"), [("Q4_K", (2880, 10)), ("Q4_0", (40,)), ("Q4_0", ()), ("Q9_Z", (256,))]
)
def test_rejects_partial_blocks_and_unknown_types(name: str, ne: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        ggml_bytes(name, ne)
