"""Each condition of torch 2.13's choice of an attention kernel, once, from `sdp_utils.cpp` by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from willfit.tracing.worker.cuda.choice import CUDNN_FIRST, Call, choose  # noqa: E402

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
VOLTA, TURING, A100, A10, ADA, H100, B200, RTX50 = (
    (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0),
)  # fmt: skip
EVERY = (VOLTA, TURING, A100, A10, ADA, H100, B200, RTX50)


@contextmanager
def order_of(capability: tuple[int, int]) -> Iterator[None]:
    before = torch._C._get_sdp_priority_order()
    if capability[0] in (9, 10):
        torch._C._set_sdp_priority_order([backend.value for backend in CUDNN_FIRST])
    try:
        yield
    finally:
        torch._C._set_sdp_priority_order(before)


def rows(
    *shape: int, dtype: torch.dtype = BF16, grad: bool = True, step: int = 1, offset: int = 0
) -> torch.Tensor:
    """A tensor without storage whose last stride is `step` and whose rows begin after `offset` elements."""
    *outer, width = shape
    whole = torch.empty(offset + torch.Size(outer).numel() * width * step, dtype=dtype, device="meta")
    strides, size = [], width * step
    for count in reversed(outer):
        strides.insert(0, size)
        size *= count
    return whole.as_strided(shape, (*strides, step), offset).requires_grad_(grad)


def kernel(
    capability: tuple[int, int],
    dtype: torch.dtype = BF16,
    heads: tuple[int, int, int] = (8, 8, 8),
    width: int = 64,
    value_width: int | None = None,
    tokens: tuple[int, int] = (128, 128),
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = True,
    gqa: bool = False,
    grad: bool = True,
    step: int = 1,
    offset: int = 0,
    value_dtype: torch.dtype | None = None,
) -> str:
    made = {"grad": grad, "step": step, "offset": offset}
    query = rows(2, heads[0], tokens[0], width, dtype=dtype, **made)
    key = rows(2, heads[1], tokens[1], width, dtype=dtype, **made)
    value = rows(2, heads[2], tokens[1], value_width or width, dtype=value_dtype or dtype, **made)
    with order_of(capability):
        return choose(Call(query, key, value, mask, dropout, causal, gqa), capability)


def mask(*shape: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


FULL = mask(2, 1, 128, 128)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        (VOLTA, "math"), (TURING, "math"), (A100, "flash"), (A10, "flash"), (ADA, "flash"), (H100, "cudnn"),
        (B200, "cudnn"), (RTX50, "flash"), ((10, 3), "cudnn"), ((11, 0), "flash"), ((13, 0), "math"),
    ],
)  # fmt: skip
def test_bfloat16_without_a_mask(capability: tuple[int, int], expected: str) -> None:
    assert kernel(capability) == expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(VOLTA, "efficient"), (TURING, "efficient"), (A100, "flash"), (H100, "cudnn"), (RTX50, "flash")],
)
def test_float16_has_kernels_before_ampere(capability: tuple[int, int], expected: str) -> None:
    assert kernel(capability, F16) == expected


@pytest.mark.parametrize("capability", EVERY)
def test_float32_is_efficient_and_with_grouped_heads_plain(capability: tuple[int, int]) -> None:
    assert kernel(capability, F32) == "efficient"
    assert kernel(capability, F32, heads=(8, 2, 2), gqa=True) == "math"


@pytest.mark.parametrize("capability", EVERY)
def test_types_must_be_one_and_known(capability: tuple[int, int]) -> None:
    assert kernel(capability, torch.float64) == "math"
    assert kernel(capability, F16, value_dtype=F32) == "math"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(VOLTA, "efficient"), (A100, "efficient"), (H100, "cudnn"), (B200, "cudnn"), (RTX50, "efficient")],
)
def test_flash_takes_no_mask(capability: tuple[int, int], expected: str) -> None:
    assert kernel(capability, F16, mask=FULL, causal=False) == expected


def test_a_mask_and_grouped_heads_have_one_kernel() -> None:
    """As measured on an H100 in generation; elsewhere the plain products remain."""
    given = {"mask": mask(2, 1, 1, 128), "heads": (8, 2, 2), "gqa": True, "tokens": (1, 128), "causal": False}
    assert kernel(H100, **given) == "cudnn"
    assert kernel(A100, **given) == "math"


def test_cudnn_takes_masks_of_two_and_four_dimensions_that_need_no_gradient() -> None:
    assert kernel(H100, mask=mask(128, 128), causal=False) == "cudnn"
    assert kernel(H100, mask=mask(2, 8, 128, 128), causal=False) == "cudnn"
    assert kernel(H100, mask=mask(2, 128, 128), causal=False) == "efficient"
    assert kernel(H100, mask=mask(2, 4, 128, 128), causal=False) == "efficient"
    learnt = mask(1, 8, 128, 128, dtype=BF16).requires_grad_()
    assert kernel(H100, mask=learnt, causal=False) == "efficient"


def test_a_mask_that_is_expanded_along_keys_has_no_kernel() -> None:
    assert kernel(A100, mask=mask(2, 1, 128, 1).expand(2, 1, 128, 128), causal=False) == "math"


@pytest.mark.parametrize(
    ("capability", "width", "grad", "dropout", "expected"),
    [
        (A100, 256, True, 0.0, "flash"),
        (A100, 264, True, 0.0, "efficient"),
        (A100, 36, True, 0.0, "flash"),  # padded to 40
        (A10, 192, True, 0.0, "flash"),
        (A10, 200, True, 0.0, "efficient"),
        (ADA, 224, True, 0.0, "efficient"),
        (RTX50, 200, True, 0.0, "efficient"),
        ((12, 1), 200, True, 0.0, "efficient"),
        ((8, 7), 200, True, 0.0, "efficient"),
        (RTX50, 200, False, 0.0, "flash"),
        (A10, 256, True, 0.0, "flash"),
        (A10, 256, True, 0.1, "efficient"),
        (H100, 256, True, 0.0, "cudnn"),
        (H100, 264, True, 0.0, "efficient"),
        (H100, 36, True, 0.0, "flash"),  # cuDNN takes multiples of 8
        (B200, 128, True, 0.0, "cudnn"),
        (B200, 136, True, 0.0, "flash"),
        (TURING, 264, True, 0.0, "math"),  # bfloat16
    ],
)
def test_widths(capability: tuple[int, int], width: int, grad: bool, dropout: float, expected: str) -> None:
    assert kernel(capability, width=width, grad=grad, dropout=dropout) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [(A100, "efficient"), (H100, "cudnn"), (B200, "cudnn"), (RTX50, "efficient")]
)
def test_keys_wider_than_values(capability: tuple[int, int], expected: str) -> None:
    """As in multi-head latent attention: 192 and 128."""
    assert kernel(capability, width=192, value_width=128) == expected


def test_no_gradient_is_asked_for_without_grad_mode() -> None:
    with torch.no_grad():
        assert kernel(A10, width=200) == "flash"


@pytest.mark.parametrize(("capability", "dtype", "width", "expected"), [
    (A100, BF16, 8, "efficient"), (A100, BF16, 4, "math"), (A100, F32, 4, "efficient"), (A100, F32, 2, "math"),
    (TURING, F16, 8, "efficient"), (TURING, F16, 4, "math"), (TURING, F32, 3, "efficient"),
])  # fmt: skip
def test_efficient_reads_whole_words(
    capability: tuple[int, int], dtype: torch.dtype, width: int, expected: str
) -> None:
    whole = mask(2, 1, 128, 128)
    assert kernel(capability, dtype, width=width, mask=whole, causal=False) == expected


@pytest.mark.parametrize(("capability", "offset", "expected"), [
    (A100, 8, "efficient"), (A100, 4, "math"), (TURING, 4, "efficient"),
])  # fmt: skip
def test_efficient_starts_at_whole_words(capability: tuple[int, int], offset: int, expected: str) -> None:
    assert kernel(capability, F16, mask=FULL, causal=False, offset=offset) == expected


@pytest.mark.parametrize(("capability", "expected"), [(A100, "efficient"), (H100, "cudnn")])
def test_causal_needs_as_many_queries_as_keys_for_flash(capability: tuple[int, int], expected: str) -> None:
    assert kernel(capability, tokens=(64, 128)) == expected
    assert kernel(A100, tokens=(64, 128), causal=False) == "flash"


def test_grouped_heads() -> None:
    assert kernel(A100, heads=(8, 2, 2), gqa=True) == "flash"
    assert kernel(A100, heads=(8, 3, 3), gqa=True) == "math"
    assert kernel(A100, heads=(8, 2, 4), gqa=True) == "math"  # as many keys as values
    assert kernel(H100, heads=(8, 2, 4), gqa=True) == "cudnn"
    assert kernel(A100, heads=(8, 2, 2), gqa=False) == "math"


def test_dropout_of_cudnn_comes_in_sixteenths() -> None:
    assert kernel(H100, dropout=0.125) == "cudnn"
    assert kernel(H100, dropout=0.1) == "flash"


def test_cudnn_needs_more_than_one_key_and_with_dropout_query() -> None:
    assert kernel(H100, tokens=(1, 128), causal=False) == "cudnn"
    assert kernel(H100, tokens=(128, 1), causal=False) == "flash"
    assert kernel(H100, tokens=(1, 128), causal=False, dropout=0.5) == "flash"


def test_determinism_excludes_cudnn() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert kernel(H100) == "flash"
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert kernel(H100) == "cudnn"
    finally:
        torch.use_deterministic_algorithms(False)


def test_strides_and_dimensions() -> None:
    assert kernel(A100, step=2) == "math"
    assert kernel(A100, width=1, step=2) == "flash"
    query = torch.empty(8, 128, 64, dtype=BF16, device="meta")
    assert choose(Call(query, query, query, None, 0.0, True, False), A100) == "math"
    assert kernel(A100, tokens=(0, 128), causal=False) == "math"


def test_switches_are_read_at_each_call() -> None:
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        assert kernel(A100) == "efficient"
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
        query = rows(2, 8, 128, 64)
        assert choose(Call(query, query, query, None, 0.0, True, False), A100) == "efficient"
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        assert kernel(A100) == "cudnn"
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), pytest.raises(RuntimeError, match="No available kernel"):
        kernel(A100, F32)
    assert kernel(A100) == "flash"
