"""What is compared: operations of libraries with their sizes, each by name. Sizes tell terms apart."""

from __future__ import annotations

from typing import Any

Case = dict[str, Any]

BF16, FP16, FP32 = "bfloat16", "float16", "float32"


def four_bits() -> dict[str, Case]:
    """bitsandbytes' `Linear4bit`. More rows than any kernel for packed weights takes."""
    plain = {
        "op": "linear4bit", "inputs": 192, "outputs": 320, "rows": 1600, "bias": False, "double": False,
        "storage": "uint8", "quant_type": "nf4", "weights": BF16, "compute": BF16, "dtype": BF16, "trains": True,
    }  # fmt: skip
    changed: dict[str, Case] = {
        "4 bits": {},
        "4 bits, constants quantized": {"double": True},
        "4 bits, constants quantized, odd blocks": {
            "double": True,
            "inputs": 200,
            "outputs": 99,
            "quant_type": "fp4",
        },
        "4 bits, packed in bfloat16": {"storage": BF16, "double": True},
        "4 bits, bias": {"bias": True},
        "4 bits, float32 rows": {"dtype": FP32},
        "4 bits, loaded in float16": {"weights": FP16, "double": True},
        "4 bits, computed in float32": {"compute": FP32},
        "4 bits, no gradient": {"trains": False, "double": True},
    }
    return {name: {**plain, **change} for name, change in changed.items()}


def eight_bits() -> dict[str, Case]:
    """bitsandbytes' `Linear8bitLt`; the rows have no outliers."""
    plain = {
        "op": "linear8bit", "inputs": 192, "outputs": 320, "rows": 1600, "bias": False, "threshold": 6.0,
        "weights": BF16, "dtype": BF16, "trains": True,
    }  # fmt: skip
    changed: dict[str, Case] = {
        "8 bits": {},
        "8 bits, float16 rows": {"dtype": FP16, "weights": FP16},
        "8 bits, float32 rows": {"dtype": FP32},
        "8 bits, bias": {"bias": True},
        "8 bits, no threshold": {"threshold": 0.0},
        "8 bits, odd inputs": {"inputs": 190},
        "8 bits, no gradient": {"trains": False},
    }
    return {name: {**plain, **change} for name, change in changed.items()}


#: Of parameters: of many elements, of few, a vector, one that blocks do not divide, one that is just paged.
SHAPES = [[512, 300], [30, 40], [777], [65, 77], [400, 250], [4096]]


def optimizers() -> dict[str, Case]:
    """Optimizers whose states have few bits."""
    updates = {
        "adam": (8, False), "adam paged": (8, True), "adam 32": (32, False), "adam 32 paged": (32, True),
        "lion": (8, False), "lion paged": (8, True), "ademamix": (8, False), "ademamix paged": (8, True),
        "rmsprop": (8, False), "lamb": (32, False), "sgd": (8, False), "adagrad": (8, False), "lars": (32, False),
    }  # fmt: skip
    found: dict[str, Case] = {
        f"bitsandbytes {name}": {
            "op": "bitsandbytes",
            "update": name.split()[0],
            "optim_bits": bits,
            "paged": paged,
            "shapes": SHAPES,
            "dtype": FP16,
        }
        for name, (bits, paged) in updates.items()
    }
    for bits in ("8", "4", "fp8"):
        found[f"torchao {bits}"] = {"op": "torchao", "bits": bits, "shapes": SHAPES, "dtype": BF16}
    return found


def liger() -> dict[str, Case]:
    """Liger's operations."""
    rows = {"rows": [2, 96], "width": 320}
    found: dict[str, Case] = {}
    for dtype in (BF16, FP32):
        for in_place in (True, False):
            found[f"rms_norm {dtype} {'in place' if in_place else 'apart'}"] = {
                "op": "rms_norm", **rows, "dtype": dtype, "weights": dtype, "in_place": in_place,
            }  # fmt: skip
        found[f"layer_norm {dtype}"] = {"op": "layer_norm", **rows, "dtype": dtype, "weights": dtype}
        for gated in ("swiglu", "geglu"):
            found[f"{gated} {dtype}"] = {"op": gated, **rows, "dtype": dtype}
    found["rms_norm frozen"] = {**found["rms_norm bfloat16 in place"], "frozen": True}
    found["rms_norm of float32 rows"] = {**found["rms_norm bfloat16 in place"], "dtype": FP32}
    found["swiglu of halves"] = {"op": "swiglu", **rows, "dtype": BF16, "halves": True}
    found["rope"] = {"op": "rope", "rows": [2, 96], "heads": [8, 2], "width": 40, "dtype": BF16}
    found["rope of heads apart"] = {**found["rope"], "apart": True}
    found["cross_entropy"] = {"op": "cross_entropy", "rows": [190], "vocabulary": 1500, "dtype": FP32}
    fused = {"op": "fused_linear", "rows": [190], "width": 320, "vocabulary": 1500}
    precisions = {
        "bfloat16": (BF16, BF16, False), "float32": (FP32, FP32, False), "autocast": (FP32, FP32, True),
        "autocast of bfloat16 rows": (BF16, FP32, True), "autocast in bfloat16": (BF16, BF16, True),
    }  # fmt: skip
    for name, (dtype, weights, autocast) in precisions.items():
        for frozen in (False, True):
            found[f"fused_linear {name}{' frozen' if frozen else ''}"] = {
                **fused, "dtype": dtype, "weights": weights, "autocast": autocast, "frozen": frozen,
            }  # fmt: skip
    found["fused_linear of few rows"] = {**found["fused_linear bfloat16"], "rows": [3]}
    found["experts"] = {
        "op": "experts", "rows": [2, 96], "width": 64, "inner": 48, "experts": 4, "chosen": 2, "dtype": BF16,
    }  # fmt: skip
    return found


def float8() -> dict[str, Case]:
    """torchao's `Float8Linear`."""
    plain = {
        "op": "float8", "inputs": 192, "outputs": 320, "rows": [2, 400], "weights": BF16, "dtype": BF16, "bias": False,
        "recipe": "tensorwise", "autocast": False,
    }  # fmt: skip
    changed: dict[str, Case] = {
        "float8 tensorwise": {},
        "float8 tensorwise, bias": {"bias": True},
        "float8 tensorwise, autocast": {"weights": FP32, "dtype": FP32, "autocast": True},
        "float8 tensorwise, float32": {"weights": FP32, "dtype": FP32},
        "float8 rowwise": {"recipe": "rowwise"},
        "float8 rowwise, float32": {"recipe": "rowwise", "weights": FP32, "dtype": FP32},
        "float8 rowwise_with_gw_hp": {"recipe": "rowwise_with_gw_hp"},
    }
    return {name: {**plain, **change} for name, change in changed.items()}


def packed() -> dict[str, Case]:
    """Layers in GPTQ, AWQ and HQQ, of libraries that unpack them in Python."""
    plain = {
        "inputs": 256, "outputs": 640, "rows": [2, 600], "bias": False, "bits": 4, "group": 64, "dtype": FP16,
        "weights": FP16,
    }  # fmt: skip
    changed: dict[str, Case] = {
        "auto_gptq": {"op": "auto_gptq"},
        "auto_gptq, 8 bits and bias": {"op": "auto_gptq", "bits": 8, "bias": True},
        "autoawq": {"op": "autoawq"},
        "autoawq, bfloat16 rows": {"op": "autoawq", "dtype": BF16, "bias": True},
        "autoawq, few rows": {"op": "autoawq", "rows": [2, 30]},
        **{
            f"hqq, {bits} bits": {
                "op": "hqq",
                "bits": bits,
                "dtype": BF16,
                "weights": BF16,
                "bias": bits == 4,
            }
            for bits in (8, 4, 3, 2, 1)
        },
    }
    return {name: {**plain, **change} for name, change in changed.items()}


CASES: dict[str, Case] = {
    **four_bits(), **eight_bits(), **optimizers(), **packed(), **float8(), **liger(),
}  # fmt: skip

#: Those of libraries whose Python for CUDA runs on the CPU; the others ask what a card can.
ON_CPU = frozenset({**four_bits(), **eight_bits(), **optimizers(), **packed()})
