"""Parsing of JSON that came with a model: bounded, strict, and with one line per fault."""

from __future__ import annotations

import json
from typing import Any

from willfit.errors import BadInput

#: A config is a few kB; the longest published ones (per-tensor quantization lists) are below 3 MB.
MAX_CONFIG_BYTES = 16 * 2**20
#: An index has one short line for each tensor; a million tensors take about 100 MB.
MAX_INDEX_BYTES = 128 * 2**20
#: Tokenizers of a 260k vocabulary with all merges take 35 MB.
MAX_TOKENIZER_BYTES = 64 * 2**20

#: Published configs nest at most nine deep.
_MAX_DEPTH = 64
#: Parsed, an empty list takes 30 times its two characters: the number of objects and lists bounds the memory.
#: The longest published configs hold 30,000.
_MAX_CONTAINERS = 2**18


def parse_object(
    data: bytes, where: str, max_bytes: int = MAX_CONFIG_BYTES, max_containers: int = _MAX_CONTAINERS
) -> dict[str, Any]:
    """Parse a JSON object, as `parse_value` does.

    Raises
    ------
    BadInput
        If it is no JSON object, is too large, or nests too deeply.
    """
    value = parse_value(data, where, max_bytes, max_containers)
    if not isinstance(value, dict):
        raise BadInput(f"{where} is not a JSON object")
    return value


def parse_value(
    data: bytes, where: str, max_bytes: int = MAX_CONFIG_BYTES, max_containers: int = _MAX_CONTAINERS
) -> Any:
    """Parse JSON of any kind.

    A byte order mark is accepted, and so is `Infinity`: published configs of Mamba2 hybrids hold it
    (`time_step_limit`). Duplicate keys and NaN are not: readers disagree about what they mean.

    Parameters
    ----------
    data
        The whole file.
    where
        How to name the file in an error.
    max_bytes
        A longer file is refused unread.
    max_containers
        So is one with more objects and lists.

    Raises
    ------
    BadInput
        If it is no JSON, is too large, or nests too deeply.
    """
    if len(data) > max_bytes:
        raise BadInput(f"{where} is larger than {max_bytes // 2**20} MiB", "is it the right file?")
    if data.count(b"{") + data.count(b"[") > max_containers:
        raise BadInput(f"{where} holds more than {max_containers} objects and lists, or nests too deeply")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} is not UTF-8 text: byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_int=_short_int,
        )
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except _Fault as fault:
        raise BadInput(f"{where} cannot be used: {fault}") from None
    except RecursionError:
        raise BadInput(f"{where} nests too deeply") from None
    if isinstance(value, dict | list) and _deeper_than(value, _MAX_DEPTH):
        raise BadInput(f"{where} nests too deeply")
    if "\\ud" in text or "\\uD" in text:
        try:  # half of a surrogate pair is a string that no terminal and no file can take
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadInput(f"{where} holds a character that does not exist (half a surrogate pair)") from None
    return value


class _Fault(ValueError):
    """Valid JSON syntax that we refuse."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Fault(f"the key {twice[:80]!r} occurs twice")
    return fields


def _constant(text: str) -> float:
    if text == "NaN":
        raise _Fault("NaN is not a number")
    return float(text)


def _short_int(text: str) -> int:
    if len(text) > 40:
        raise _Fault(f"the number {text[:40]}... is too large")
    return int(text)


def _deeper_than(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
