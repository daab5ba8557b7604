"""YAML for small files, written by hand: strings are quoted, so that none is taken for something else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What a double-quoted scalar cannot hold as it is, beside what JSON escapes (YAML 1.2, 5.1 and 5.4).
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")

#: Names that need no quotes as keys.
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)

#: Words that YAML 1.1 takes for something else than a name.
_TAKEN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True, slots=True)
class Said:
    """A value with the comment above it."""

    value: Any
    comment: str


def yaml_text(value: Any) -> str:
    """A document of mappings, lists, strings, numbers, booleans and None.

    Parameters
    ----------
    value
        Anything of these; `Said` where a comment stands above an entry.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        found = []
        for key, one in value.items():
            comment, one = _apart(one)
            found += [*comment, *_entry(f"{_key(str(key))}:", one, "  ")]
        return found
    if isinstance(value, list | tuple) and value:
        found = []
        for one in value:
            comment, one = _apart(one)
            found += [*comment, *_item(one)]
        return found
    return [_scalar(value)]


def _entry(name: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        return [name, *(indent + line for line in _lines(value))]
    if isinstance(value, str) and _is_block(value):
        return [f"{name} |", *(indent + line if line else "" for line in value[:-1].split("\n"))]
    return [f"{name} {_scalar(value)}"]


def _item(value: Any) -> list[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        first, *rest = _lines(value)
        return [f"- {first}", *(f"  {line}" for line in rest)]
    return _entry("-", value, "  ")


def _apart(value: Any) -> tuple[list[str], Any]:
    if isinstance(value, Said):
        return [comment_text(value.comment)], value.value
    return [], value


def comment_text(text: str) -> str:
    """A comment in one line, in which nothing ends it: model names may hold anything."""
    return "# " + "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def _is_block(text: str) -> bool:
    """Whether a text of several lines reads back from a literal block: no odd sign, no space where it would be lost."""
    if not text.endswith("\n") or text.endswith("\n\n") or text[:1] in (" ", "\n"):
        return False
    return "\n" in text[:-1] and all(char == "\n" or char.isprintable() for char in text)


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _TAKEN else _scalar(name)


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[]"
    if isinstance(value, float):
        # Without a point YAML 1.1 takes `1e-05` for a string.
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
