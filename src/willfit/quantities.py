"""Bytes, dtypes and the few arithmetic helpers that every rule shares.

Naming: a name that ends in `_bytes` is an integer number of bytes, `_gib` is a float in 2**30 bytes.
GB (10**9) appears only where a source or a device's marketing name uses it.

Rules are written once, for one integer and for a NumPy integer array alike, so the helpers below use
plain arithmetic only and never import NumPy.
"""

from __future__ import annotations

import re
from math import inf
from typing import Any, TypeVar

from willfit.errors import BadInput

KIB = 2**10
MIB = 2**20
GIB = 2**30
GB = 10**9

#: Bytes of one element of each dtype, by the name used everywhere inside.
DTYPE_BYTES: dict[str, int] = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,  # a compute mode: stored as fp32
    "fp16": 2,
    "bf16": 2,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_e8m0": 1,
    "int64": 8,
    "uint64": 8,
    "int32": 4,
    "uint32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

_DTYPE_ALIASES: dict[str, str] = {
    # torch
    "float64": "fp64", "double": "fp64",
    "float32": "fp32", "float": "fp32",
    "float16": "fp16", "half": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8_e4m3", "float8_e4m3fnuz": "fp8_e4m3", "float8_e5m2": "fp8_e5m2",
    "float8_e5m2fnuz": "fp8_e5m2", "float8_e8m0fnu": "fp8_e8m0", "fp8": "fp8_e4m3", "float8": "fp8_e4m3",
    # safetensors
    "f64": "fp64", "f32": "fp32", "f16": "fp16",
    "f8_e4m3": "fp8_e4m3", "f8_e5m2": "fp8_e5m2", "f8_e8m0": "fp8_e8m0",
    "f8_e4m3fnuz": "fp8_e4m3", "f8_e5m2fnuz": "fp8_e5m2",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
    "long": "int64", "int": "int32", "short": "int16", "byte": "uint8", "boolean": "bool",
}  # fmt: skip


def dtype_name(text: str) -> str:
    """Return the name used here for a dtype as torch, safetensors or a person writes it.

    Raises
    ------
    BadInput
        If no dtype is called that.
    """
    key = text.strip().lower().removeprefix("torch.")
    key = _DTYPE_ALIASES.get(key, key)
    if key not in DTYPE_BYTES:
        raise BadInput(f"unknown dtype {text!r}", f"known: {', '.join(DTYPE_BYTES)}")
    return key


Number = TypeVar("Number", bound=Any)  # an int or a NumPy integer array


def ceil_div(a: Number, b: int) -> Number:
    """a / b rounded up, for an integer or an integer array."""
    return -(-a // b)  # type: ignore[no-any-return]


def round_up(a: Number, multiple: int) -> Number:
    """The smallest multiple of `multiple` that is not below a."""
    return ceil_div(a, multiple) * multiple  # type: ignore[no-any-return]


def at_most(a: Number, limit: int) -> Number:
    """min(a, limit), for an integer or an integer array (2*min(a, b) = a + b - |a - b|)."""
    return (a + limit - abs(a - limit)) // 2  # type: ignore[no-any-return]


def at_least(a: Number, limit: int) -> Number:
    """max(a, limit), for an integer or an integer array."""
    return (a + limit + abs(a - limit)) // 2  # type: ignore[no-any-return]


#: What a float holds exactly; nobody has that many bytes or tokens.
_LARGEST = 2**53

_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*$")
_SIZE_UNITS = {
    "b": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB, "t": 2**40, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": GB, "tb": 10**12,
}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Read a size such as '24GiB', '80 GB' or '512MiB'. A bare G is GiB; GB is 10**9.

    Raises
    ------
    BadInput
        If the text is not a number with a known unit.
    """
    match = _SIZE.match(text)
    unit = match.group(2).lower() if match else ""
    size = float(match.group(1)) * _SIZE_UNITS[unit] if match and unit in _SIZE_UNITS else inf
    if size >= _LARGEST:
        raise BadInput(f"cannot read the size {text[:40]!r}", "write it as 24GiB, 80GB or 512MiB")
    return int(size)


def parse_tokens(text: str) -> int:
    """Read a number of tokens: '4096', '32k' (32 * 1024) or '1m' (1024 * 1024).

    Raises
    ------
    BadInput
        If the text is not a positive whole number of tokens.
    """
    match = _SIZE.match(text.replace(",", "").replace("_", ""))
    scale = {"": 1, "k": 1024, "m": 1024 * 1024}.get(match.group(2).lower()) if match else None
    tokens = float(match.group(1)) * scale if match and scale else 0.0
    if not 1 <= tokens < _LARGEST or tokens != int(tokens):
        raise BadInput(f"cannot read {text[:40]!r} as a number of tokens", "write it as 4096 or 32k")
    return int(tokens)


def format_bytes(size: float) -> str:
    """A size for people: '15.27 GiB', '512.0 MiB', '64 B'."""
    for unit, scale, digits in (("TiB", 2**40, 2), ("GiB", GIB, 2), ("MiB", MIB, 1), ("KiB", KIB, 1)):
        if abs(size) >= scale:
            return f"{size / scale:.{digits}f} {unit}"
    return f"{size:.0f} B"


def format_count(count: float) -> str:
    """A number of parameters for people: '8.19 B', '109 M'."""
    for unit, scale in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(count) >= scale:
            value = count / scale
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{count:.0f}"
