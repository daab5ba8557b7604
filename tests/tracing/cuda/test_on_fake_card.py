"""Attention, norms and optimizers on fake tensors, against what the CUDA functions return and keep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from willfit.tracing.worker.cuda import attention, kernels  # noqa: E402

HERE = Path(__file__).parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="fake CUDA needs a Linux build of torch")
#: Sequences and tokens of `on_fake_card.py`.
B, S = 2, 100
CUDA, CPU = "fake-cuda", "fake-cpu"


def run(name: str, capability: str, path: str = CUDA, *rest: object) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, str(HERE / "on_fake_card.py"), name, capability, path, *map(str, rest)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answer


def tensors(heads: int, groups: int, width: int, size: int) -> int:
    """Query, key, value and output."""
    return B * S * width * size * (2 * heads + 2 * groups)


@linux
def test_flash_attention() -> None:
    """Padded to 40; log-sum-exps, 16 bytes of the random numbers' state and 8 unused, all on the device."""
    seen = run("attend", "8.0", CUDA, "bfloat16", 4, 2, 36, "none")
    assert seen["kernels"] == {"flash": 2}
    assert seen["kept"] == tensors(4, 2, 40, 2) + 4 * B * 4 * S + 16 + 8
    assert seen["results"]["_scaled_dot_product_flash_attention"][1:4] == [
        f"float32 cuda [{B}, 4, {S}]", "uint64 cuda [2]", "uint64 cuda []",
    ]  # fmt: skip
    sums = 4 * B * 4 * 128
    expanded = B * S * 4 * 40 * 2
    # The gradient of the padding comes by heads.
    assert seen["taken"]["_scaled_dot_product_flash_attention_backward"][-4:] == [
        ["softmax_d", sums], ["dq_accum", sums * 64], ["dk_expanded", expanded], ["dv_expanded", expanded],
    ]  # fmt: skip


@linux
def test_efficient_attention_with_a_mask() -> None:
    """The mask becomes numbers, is padded to 104 columns and kept; log-sum-exps are padded to 128 rows; seed and offset
    are on the host."""
    seen = run("attend", "8.0", CUDA, "bfloat16", 4, 4, 64, "bool")
    assert seen["kernels"] == {"efficient": 2}
    assert seen["kept"] == tensors(4, 4, 64, 2) + B * S * 104 * 2 + 4 * B * 4 * 128
    assert seen["results"]["_scaled_dot_product_efficient_attention"][1:] == [
        f"float32 cuda [{B}, 4, 128]", "int64 cpu []", "int64 cpu []",
    ]  # fmt: skip
    assert seen["taken"]["_scaled_dot_product_efficient_attention_backward"][-2:] == [
        ["delta", 4 * B * 4 * S], ["workspace", B * 4 * 2 * (16 + 4 * 64 * 64)],
    ]  # fmt: skip
    quiet = seen["without_gradient"]["_scaled_dot_product_efficient_attention"]
    assert quiet[1] == f"float32 cuda [{B}, 4, 0]"


@linux
@pytest.mark.parametrize("mask", ["none", "bool"])
def test_attention_of_cudnn(mask: str) -> None:
    """Heads of a group share keys; a mask is kept as numbers, not padded; seed and offset are on the device."""
    seen = run("attend", "9.0", CUDA, "bfloat16", 4, 2, 64, mask)
    assert seen["kernels"] == {"cudnn": 2}
    numbers = B * S * S * 2 if mask == "bool" else 0
    assert seen["kept"] == tensors(4, 2, 64, 2) + numbers + 4 * B * 4 * S + 8 + 8
    assert seen["results"]["_scaled_dot_product_cudnn_attention"][1:] == [
        f"float32 cuda [{B}, 4, {S}, 1]", "int64 cuda []", "int64 cuda []",
    ]  # fmt: skip
    taken = seen["taken"]["_scaled_dot_product_cudnn_attention_backward"]
    assert taken[-1] == ["dq_accum and softmax_sum", 4 * B * 4 * S * 65]
    assert seen["without_gradient"]["_scaled_dot_product_cudnn_attention"][1] == "float32 cuda [0]"


@linux
def test_plain_attention_in_half_precision_is_computed_in_float32() -> None:
    """A T4 has no kernel for bfloat16: scores of 100 x 100 in float32 for each head are kept."""
    seen = run("attend", "7.5", CUDA, "bfloat16", 4, 4, 64, "none")
    assert seen["kernels"] == {"math": 2}
    rows = B * 4 * S
    # Softmax; queries and keys times the root of the scale, and values, in float32.
    assert seen["kept"] == 4 * rows * S + 3 * 4 * rows * 64


def test_without_fake_cuda_attention_is_chosen_and_keeps_the_same() -> None:
    seen = run("attend", "9.0", CPU, "bfloat16", 4, 2, 64, "none")
    assert seen["kernels"] == {"cudnn": 2}
    assert seen["kept"] == tensors(4, 2, 64, 2) + 4 * B * 4 * S + 8 + 8


@linux
def test_operations_are_whole_as_in_a_build_for_cuda() -> None:
    seen = run("whole", "8.0")
    ops = seen["ops"]
    for op in (
        "_fused_rms_norm",
        "_fused_rms_norm_backward",
        "silu_backward",
        "mish_backward",
        "native_dropout",
    ):
        assert op in ops
    assert "sigmoid" not in ops
    assert "rsqrt" not in ops
    assert seen["results"]["native_layer_norm"][1:] == ["float32 cuda [2, 16, 1]"] * 2
    assert seen["results"]["native_dropout"][1] == "bool cuda [2, 16, 64]"
    assert "addmm" in ops  # rows and a bias: one product with it
    taken = seen["taken"]
    assert dict(taken["index_put"])["sorted_indices"] == 8 * 32
    assert taken["embedding_dense_backward"][0] == ["sorted_indices", 8 * 5000]
    assert taken["addmm"] == [["cublas", 8 * 2**20 + 128 * 2**10]]
    assert taken["_foreach_norm"] == [["output_per_tensor", 4 * 2]]


@linux
def test_optimizers_and_clipping_take_lists_as_they_do_on_cuda() -> None:
    ops = run("whole", "8.0")["step"]
    assert {"_foreach_norm", "_foreach_mul_", "_foreach_addcdiv_", "_foreach_sqrt", "_foreach_lerp_"} <= set(
        ops
    )
    assert not {"addcdiv_", "lerp_", "addcmul_"} & set(ops)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("groups", [2, 4])
def test_plain_attention_takes_what_torchs_own_takes(dtype: torch.dtype, causal: bool, groups: int) -> None:
    """On the CPU with values: the same requests to the allocator, in the same order."""
    query, key = (torch.randn(1, heads, 32, 16, dtype=dtype) for heads in (4, groups))
    mask = None if causal else torch.randn(32, 32, dtype=dtype)
    aten = torch.ops.aten

    def own() -> torch.Tensor:
        out: torch.Tensor = aten._scaled_dot_product_attention_math(
            query, key, key, mask, 0.0, causal, None, scale=-0.3, enable_gqa=True
        )[0]
        return out

    def ours() -> torch.Tensor:
        return attention.plain(query, key, key, mask, 0.0, causal, -0.3, True)

    assert torch.equal(own(), ours())
    theirs, mine = requests(own), requests(ours)
    assert theirs == mine


def requests(function: Any) -> tuple[list[int], int]:
    """Sizes that were asked for, in order, and the most that was held."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = function()
    moves = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    del result
    now = most = 0
    for move in moves:
        now += move
        most = max(most, now)
    return [move for move in moves if move > 0], most


def test_what_is_taken_apart_without_cuda_is_what_torch_says() -> None:
    """Implicit composites with a kernel for CUDA, in the same entry or in the structured one they hand over to."""
    import torchgen
    import yaml

    listed = yaml.safe_load(
        (Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    )
    named = {entry["func"].split("(")[0]: entry for entry in listed}

    def keys(entry: dict[str, Any]) -> set[str]:
        return {key.strip() for names in entry.get("dispatch", {}) for key in names.split(",")}

    found = []
    for name, entry in named.items():
        own = keys(entry)
        if "CompositeImplicitAutograd" not in own:
            continue
        delegate = entry.get("structured_delegate")
        if "CUDA" in own | (keys(named[delegate]) if delegate else set()):
            found.append(name)
    assert sorted(found) == sorted(kernels.COMPOSITE_WITHOUT_CUDA)


@pytest.mark.parametrize(
    "op", ["linear", "matmul", "scaled_dot_product_attention", "layer_norm", "nll_loss", "pow.Scalar"]
)
def test_every_build_has_the_lists_of_autocast_for_cuda(op: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{op}", "AutocastCUDA")
