"""Which tensor of an architecture a stored array belongs to.

A quantized weight is stored as several arrays (`q_proj.qweight`, `q_proj.weight.absmax`,
`experts.gate_up_proj_blocks`), routed experts and the layers of a tower as many that one record stands for,
and the same model under different prefixes (`model.language_model.`, `language_model.model.`, none).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from willfit.architectures.model import Architecture, Tensor

#: An index in a name, not the digit of `w1` or `conv1d`.
_INDEX = re.compile(r"(?<![A-Za-z0-9])\d+")
_PLACEHOLDER = re.compile(r"\{\w+\}")
#: How far the arrays of a weight are named apart from it: `weight.quant_state.bitsandbytes__nf4`.
_SUFFIXES = 3
#: How many leading words of a name may differ, and how many must be left to recognise a tensor by.
_PREFIXES, _LEAST_WORDS = 3, 2


class Matcher:
    """Finds the tensors of one architecture by the names in its files.

    A tensor is known by its key: its full name, with `#` for the index of a copy.

    Parameters
    ----------
    architecture
        The model.

    Attributes
    ----------
    tensors
        Key to tensor.
    names
        Key to full name, with the placeholder of the copies.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}
        for name, tensor in architecture.tensors():
            key = _PLACEHOLDER.sub("#", name)
            self.tensors[key], self.names[key] = tensor, name
        self._tails: dict[str, list[str]] | None = None
        self._prefixes: dict[tuple[str, str], None] = {}

    def named(self, name: str) -> tuple[str, str] | None:
        """Key of the tensor that a stored name belongs to by its full name, and the index of the copy."""
        for base in self._bases(name):
            for key, copy in _variants(base):
                if key in self.tensors and (base == name or self._is_weight(key)):
                    return key, copy
        return None

    def similar(self, name: str, taken: set[str]) -> tuple[str, str] | None:
        """The same for a name whose prefix differs.

        Parameters
        ----------
        name
            A stored name that `named` does not know.
        taken
            Keys that belong to names already.
        """
        for theirs, ours in self._prefixes:
            if name.startswith(theirs):
                found = self.named(ours + name[len(theirs) :])
                if found is not None and found[0] not in taken:
                    return found
        for base in self._bases(name):
            for variant, copy in _variants(base):
                key = self._by_tail(variant, taken)
                if key is not None and (base == name or self._is_weight(key)):
                    return key, copy
        return None

    def _is_weight(self, key: str) -> bool:
        """Whether a tensor may be stored as several arrays."""
        return self.tensors[key].kind in ("linear", "embedding")

    def _bases(self, name: str) -> Iterator[str]:
        """The name itself, and the names that a weight may have which it is an array of."""
        yield name
        stem = name
        for _ in range(_SUFFIXES):
            stem = stem.rpartition(".")[0]
            if not stem:
                break
            yield f"{stem}.weight"
            yield stem
        module, _, last = name.rpartition(".")
        for _ in range(_SUFFIXES):
            last = last.rpartition("_")[0]
            if not last:
                break
            yield f"{module}.{last}" if module else last

    def _by_tail(self, name: str, taken: set[str]) -> str | None:
        if self._tails is None:
            self._tails = defaultdict(list)
            for key in self.tensors:
                for tail in _tails(key):
                    self._tails[tail].append(key)
        for tail in _tails(name):
            keys = [key for key in self._tails.get(tail, ()) if key not in taken]
            if not keys:
                continue
            theirs = name[: len(name) - len(tail)]
            words = set(theirs.split("."))

            def likeness(key: str, size: int = len(tail), words: set[str] = words) -> tuple[int, int]:
                own = set(key[:-size].split("."))
                return len(own & words), -len(own - words)

            keys.sort(key=likeness, reverse=True)
            if len(keys) > 1 and likeness(keys[0]) == likeness(keys[1]):
                return None
            self._prefixes[theirs, keys[0][: -len(tail)]] = None
            return keys[0]
        return None


def _variants(name: str) -> Iterator[tuple[str, str]]:
    """The name as it is, and with each index in turn taken for that of a copy."""
    yield name, ""
    for match in _INDEX.finditer(name):
        yield f"{name[: match.start()]}#{name[match.end() :]}", match.group()


def _tails(name: str) -> Iterator[str]:
    """The name, and what is left of it without its first words."""
    words = name.split(".")
    for dropped in range(min(_PREFIXES, len(words) - _LEAST_WORDS) + 1):
        yield ".".join(words[dropped:])
