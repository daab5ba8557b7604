"""Bytes by hand from the sources that README.md beside the code names."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from willfit.quantities import MIB  # noqa: E402
from willfit.tracing.question import Card  # noqa: E402
from willfit.tracing.worker.cuda import workspaces  # noqa: E402
from willfit.tracing.worker.cuda.workspaces import Workspace, efficient, flash  # noqa: E402

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
A100, A10, L4, H100, T4, V100 = (
    Card(capability=capability, multiprocessors=count)
    for capability, count in (
        ((8, 0), 108),
        ((8, 6), 72),
        ((8, 9), 58),
        ((9, 0), 132),
        ((7, 5), 40),
        ((7, 0), 80),
    )
)


def of(
    op: str, *args: object, card: Card = A100, result: object = None, **named: object
) -> list[tuple[str, int]]:
    return [(taken.name, taken.nbytes) for taken in workspaces.of(op, args, named, result, card)]


def rows(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def by_tokens(batch: int, heads: int, tokens: int, width: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    """Heads as views of rows of tokens, as models make them."""
    return rows(batch, tokens, heads, width, dtype=dtype).transpose(1, 2)


# Flash attention


def test_flash_backward() -> None:
    query, out = by_tokens(2, 8, 1000, 80), by_tokens(2, 8, 1000, 80)
    assert of("_scaled_dot_product_flash_attention_backward", out, query, query, query, out) == [
        ("softmax_d", 4 * 2 * 8 * 1024),
        ("dq_accum", 4 * 2 * 8 * 1024 * 96),
    ]


def test_flash_backward_of_grouped_heads_wide_ones_and_rows_that_do_not_follow() -> None:
    query, key, out = by_tokens(1, 8, 128, 160), by_tokens(1, 2, 256, 160), rows(1, 8, 128, 160)
    assert of("_scaled_dot_product_flash_attention_backward", out, query, key, key, out) == [
        ("grad_out", 8 * 128 * 160 * 2),
        ("out", 8 * 128 * 160 * 2),
        ("softmax_d", 4 * 8 * 128),
        ("dq_accum", 4 * 8 * 128 * 192),
        ("dk_expanded", 256 * 8 * 160 * 2),
        ("dv_expanded", 256 * 8 * 160 * 2),
    ]


def test_flash_backward_in_parts_if_it_must_be_deterministic() -> None:
    query = by_tokens(2, 8, 128, 64)
    torch.use_deterministic_algorithms(True)
    try:
        taken = of("_scaled_dot_product_flash_attention_backward", query, query, query, query, query)
    finally:
        torch.use_deterministic_algorithms(False)
    assert taken[1] == ("dq_accum", 7 * 4 * 2 * 8 * 128 * 64)  # 108 multiprocessors, 16 blocks


def test_flash_forward_of_many_queries_is_not_split() -> None:
    query = by_tokens(2, 32, 2048, 128)
    assert of("_scaled_dot_product_flash_attention", query, query, query) == []


def test_flash_forward_of_one_query_is_split() -> None:
    """8 heads of keys for 4 queries each make 8 blocks, 4096 keys 32 blocks of 128. Of 216 places 16 parts fill one
    round by 0.59, and 32 parts two rounds by as much."""
    query, key = by_tokens(1, 32, 1, 128), by_tokens(1, 8, 4096, 128)
    parts = 16
    assert of("_scaled_dot_product_flash_attention", query, key, key) == [
        ("softmax_lse_accum", 4 * parts * 8 * 4),
        ("out_accum", 4 * parts * 8 * 4 * 128),
    ]
    assert of("_scaled_dot_product_flash_attention", query, key, key, 0.1) == []


def test_splits_take_the_smallest_number_that_is_nearly_the_best() -> None:
    assert flash.splits(48, 108, 64) == 2  # the source's own example: 2 parts fill 0.89
    assert flash.splits(87, 108, 64) == 1
    assert flash.splits(1, 216, 1) == 1


def test_cudnn_backward() -> None:
    query, key, out = by_tokens(2, 8, 100, 64), by_tokens(2, 2, 100, 64), by_tokens(2, 8, 100, 64)
    alike = of("_scaled_dot_product_cudnn_attention_backward", out, query, key, key, out, card=H100)
    assert alike == [("dq_accum and softmax_sum", 4 * 2 * 8 * 100 * 65)]
    other = of(
        "_scaled_dot_product_cudnn_attention_backward", rows(2, 8, 100, 64), query, key, key, out, card=H100
    )
    assert other == [("grad_out", 2 * 8 * 100 * 64 * 2), *alike]


# Memory-efficient attention


def backward(
    query: torch.Tensor, card: Card, value: torch.Tensor | None = None, dropout: float = 0.0
) -> list:
    value = query if value is None else value
    return of(
        "_scaled_dot_product_efficient_attention_backward",
        value, query, query, value, None, value, None, None, None, dropout, card=card,
    )  # fmt: skip


def test_efficient_forward_sums_wide_heads_in_memory() -> None:
    wide, narrow = by_tokens(2, 8, 100, 256), by_tokens(2, 8, 100, 128)
    assert of("_scaled_dot_product_efficient_attention", wide, wide, wide) == [
        ("output_accum", 4 * 2 * 8 * 100 * 256)
    ]
    assert of("_scaled_dot_product_efficient_attention", narrow, narrow, narrow) == []
    single = by_tokens(2, 8, 100, 256, F32)
    assert of("_scaled_dot_product_efficient_attention", single, single, single) == []


def test_efficient_backward_by_tile() -> None:
    """Tiles of 64 x 64 in float32 and 16 bytes: 16 of them for 1000 queries."""
    assert backward(by_tokens(2, 8, 1000, 64), A100) == [
        ("delta", 4 * 2 * 8 * 1000),
        ("workspace", 2 * 8 * 16 * (16 + 4 * 64 * 64)),
    ]


@pytest.mark.parametrize(
    ("card", "dropout", "tile", "columns", "parts"),
    [
        (A100, 0.0, (128, 128), 1, 0),
        (A100, 0.1, (128, 128), 1, 0),
        (A10, 0.0, (64, 64), 2, 12),  # 131 KiB of shared memory are more than it has; 200 blocks at most
        (L4, 0.1, (64, 64), 2, 12),
        (T4, 0.0, (128, 64), 2, 0),
        (V100, 0.0, (128, 64), 2, 0),
    ],
)  # fmt: skip
def test_efficient_backward_by_card(
    card: Card, dropout: float, tile: tuple[int, int], columns: int, parts: int
) -> None:
    """Width 128: in registers if the tile is as tall, else gradients of keys and values in memory for each part."""
    rows_, keys = tile
    each = -(-1000 // rows_) * columns * (16 + 4 * rows_ * keys) + 2 * 4 * parts * keys * 128
    taken = backward(by_tokens(2, 8, 1000, 128, F16), card, dropout=dropout)
    assert taken == [("delta", 4 * 2 * 8 * 1000), ("workspace", 2 * 8 * each)]


def test_efficient_backward_of_float32_sums_outside_the_kernel() -> None:
    query = by_tokens(1, 4, 256, 64, F32)
    assert backward(query, A100) == [
        ("delta", 4 * 4 * 256),
        ("products for delta", 4 * 4 * 256 * 64 + 4 * 4 * 256),
        ("workspace", 4 * 4 * (16 + 4 * 64 * 64)),
    ]


def test_efficient_backward_of_a_card_that_nobody_knows() -> None:
    assert backward(rows(1, 4, 256, 64), Card(capability=(14, 0))) == [("grad_out", 4 * 256 * 64 * 2)]


def test_shared_memory_of_the_kernels_is_in_order_of_size() -> None:
    assert efficient.kernel(BF16, False, 96, (8, 6)).width == 96
    assert efficient.kernel(BF16, False, 96, (12, 0)).width == 128
    assert efficient.kernel(BF16, False, 96, (12, 0)).rows == 64
    assert efficient.kernel(F32, False, 128, (8, 6)).rows == 64
    assert efficient.kernel(F32, False, 128, (9, 0)).rows == 128


# Products


@pytest.mark.parametrize(("card", "expected"), [(A100, 8 * MIB + 128 * 1024), (H100, 32 * MIB)])
def test_cublas(card: Card, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for op in ("mm", "addmm", "bmm"):
        assert workspaces.of(op, (), {}, None, card) == [Workspace(expected, "cublas", kept=True)]
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    assert of("mm", card=card) == [("cublas", 8 * MIB + 128 * 1024)]
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert of("mm", card=card) == [("cublas", 128 * 1024)]


def test_grouped_products() -> None:
    tokens, experts = rows(64, 32), rows(5, 32, 16)
    assert of("_grouped_mm", tokens, experts, rows(5), card=H100) == [("groups", 3 * 8 * 6 + 5 * 12 + 5 * 24)]
    assert of("_grouped_mm", tokens, experts, rows(5), card=A100)[0][0] == "cublas"
    assert of("_grouped_mm", rows(64, 32).T, rows(32, 16), rows(7), card=H100)[0] == (
        "groups",
        3 * 8 * 8 + 7 * 36,
    )


# Lookups


def test_embedding_of_few_indices_is_not_sorted() -> None:
    assert (
        of("embedding_dense_backward", rows(3072, 64), rows(3072, dtype=torch.int64), 1000, -1, False) == []
    )


def test_embedding_in_two_passes() -> None:
    count, width, vocabulary = 8192, 4096, 128256
    taken = of(
        "embedding_dense_backward",
        rows(2, 4096, width),
        rows(2, 4096, dtype=torch.int64),
        vocabulary,
        -1,
        False,
    )
    parts = count // 10 + count
    assert taken[-1] == ("grad_weight_per_segment", 4 * parts * width)
    assert sum(size for _, size in taken[:-1]) == 8 * (6 * count + parts) + 2 * 8


def test_embedding_of_few_rows_adds_at_once() -> None:
    """32 rows of 64 fill 32 blocks; 20,000 indices would fill 2,032."""
    taken = of("embedding_dense_backward", rows(20_000, 64), rows(20_000, dtype=torch.int64), 32, -1, False)
    assert taken[-2:] == [("partial_to_segment_idx", 8 * 2032), ("grad_weight_acc", 4 * 32 * 64)]


def test_index_put_that_adds() -> None:
    index = rows(7, 1, dtype=torch.int64), None, rows(5, dtype=torch.int64)
    taken = of("index_put", rows(9, 3, 9), index, rows(7, 5, 3), True)
    assert taken == [(name, 8 * 35) for name in ("linear_index", "sorted_indices", "orig_indices", "range")]
    assert of("index_put", rows(9, 3, 9), index, rows(7, 5, 3)) == []
    assert of("index_put", rows(9), (rows(9, dtype=torch.bool),), rows(9), True) == []


# Sums


def test_safe_softmax_as_on_the_cpu() -> None:
    """The same function runs there: what it takes and gives back is what the profiler saw."""
    from torch.profiler import ProfilerActivity, profile

    scores = torch.randn(2, 3, 64, 32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = torch.ops.aten._safe_softmax(scores, -1)
    moves = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = [size for _, size in of("_safe_softmax", scores, -1, result=result)]
    assert moves[:4] == [result.nbytes, *taken]
    assert sorted(moves[4:7]) == sorted(-size for size in taken)


def test_gradients_of_norms_weights_in_parts_only_for_many_rows_and_few_columns() -> None:
    few, many = rows(65536, 256), rows(65568, 256)
    weight, each = rows(256), min(32768 // 8, 2049) * 256 * 2
    norm = (weight, weight, [True, True, True])
    assert of("native_layer_norm_backward", few, few, [256], None, None, *norm) == []
    assert (
        of("native_layer_norm_backward", many, many, [256], None, None, *norm) == [("partial sums", each)] * 2
    )
    assert of("_fused_rms_norm_backward", many, many, [256], None, weight, [True, True]) == [
        ("partial sums", each)
    ]
    wide = rows(65568, 1728), rows(1728)
    assert of("_fused_rms_norm_backward", wide[0], wide[0], [1728], None, wide[1], [True, True]) == []


def test_norms_of_lists() -> None:
    gradients = [rows(65537), rows(10), rows(3)]
    assert of("_foreach_norm", gradients) == [("output_per_tensor", 4 * 3 * 2)]
    assert of("_foreach_norm", gradients, 3) == []
    assert of("_foreach_norm", [rows(2), rows(2, dtype=F32)], 2) == []


def test_order_of_what_is_taken_and_given_back() -> None:
    kept, brief, plain = Workspace(1, "a", kept=True), Workspace(2, "b", brief=True), Workspace(3, "c")
    assert list(workspaces.events([kept, brief, plain])) == [
        (kept, True), (brief, True), (brief, False), (plain, True), (plain, False),
    ]  # fmt: skip
    assert list(workspaces.events([plain, brief])) == [
        (plain, True), (brief, True), (plain, False), (brief, False),
    ]  # fmt: skip


def test_an_operation_that_is_not_known() -> None:
    assert of("relu", rows(3)) == []
