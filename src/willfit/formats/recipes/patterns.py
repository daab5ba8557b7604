"""Lists of module names, with wildcards and regular expressions, as quantization configs write them.

The same list is written in several dialects:

- plain names, whole (`model.layers.0.mlp.gate`) or partial (`lm_head`, `visual`, `mlp.gate`), that stand for
  the module and all below it (Transformers `should_convert_module`, vLLM `is_layer_skipped`);
- names with `*` (ModelOpt `exclude_modules`);
- `re:` and a regular expression matched from the start (compressed-tensors `match_name`).

Engines, exporters and checkpoints disagree about what stands before `layers.` (`model.`, `backbone.`,
`language_model.model.`), so both sides are compared from `layers.` on, except inside encoders of images and
sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from willfit.errors import BadInput

#: A digit, or a regular expression that may stand for one: the entry may tell layers apart.
_NAMES_INDEX = re.compile(r"[0-9\[]|\\d")

_ENCODERS = ("vision", "visual", "audio", "encoder", "tower", "mtp")


def module_of(name: str) -> str:
    """Module name of a tensor: without `weight`, and with the first expert standing for all of them."""
    return name.removesuffix(".weight").replace("{expert}", "0")


def without_prefix(module: str) -> str:
    """Cut off what stands before `layers.` in a decoder's module name; of any other, a leading `model.`."""
    at = module.find("layers.")
    if at <= 0 or module[at - 1] != "." or any(word in module[:at] for word in _ENCODERS):
        return module.removeprefix("model.")
    return module[at:]


class Patterns:
    """A list of names that answers whether a module is meant.

    Parameters
    ----------
    texts
        The entries.
    where
        How to name the list in an error.

    Raises
    ------
    BadInput
        If a regular expression is broken.
    """

    __slots__ = ("_anywhere", "_lengths", "_regexes", "_starts", "_whole", "by_layer")

    def __init__(self, texts: Iterable[str], where: str = "quantization_config") -> None:
        whole: set[str] = set()
        anywhere: set[str] = set()
        starts: list[str] = []
        regexes: list[re.Pattern[str]] = []
        self.by_layer = False
        for text in texts:
            self.by_layer = self.by_layer or _NAMES_INDEX.search(text) is not None
            if text.startswith("re:"):
                regexes.append(_compiled(text[3:], text, where))
                continue
            name = without_prefix(text.removesuffix(".weight").strip("."))
            if "*" not in name and "?" not in name:
                (whole if name.startswith("layers.") else anywhere).add(name)
            elif "*" not in name[:-1] and "?" not in name:
                starts.append(name[:-1])
            else:
                # `translate` closes with an end anchor; a name stands for everything below it, too.
                body = translate(name).removesuffix(r"\Z").removesuffix(r"\z")
                regexes.append(_compiled(rf"{body}(?:\.|$)", text, where))
        self._whole = frozenset(whole)
        self._anywhere = frozenset(anywhere)
        self._lengths = sorted({name.count(".") + 1 for name in anywhere})
        self._starts = tuple(starts)
        self._regexes = tuple(regexes)

    def __bool__(self) -> bool:
        return bool(self._whole or self._anywhere or self._starts or self._regexes)

    def match(self, name: str) -> bool:
        """Whether the list means the module of the tensor of this name, or a module above it."""
        module = module_of(name)
        short = without_prefix(module)
        if self._whole and self._match_whole(short):
            return True
        if self._anywhere and self._match_anywhere(module):
            return True
        if self._starts and (short.startswith(self._starts) or module.startswith(self._starts)):
            return True
        return any(regex.match(short) or regex.match(module) for regex in self._regexes)

    def _match_whole(self, short: str) -> bool:
        at = len(short)
        while at > 0:
            if short[:at] in self._whole:
                return True
            at = short.rfind(".", 0, at)
        return False

    def _match_anywhere(self, module: str) -> bool:
        words = module.split(".")
        return any(
            ".".join(words[at : at + length]) in self._anywhere
            for length in self._lengths
            for at in range(len(words) - length + 1)
        )


def _compiled(expression: str, text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise BadInput(f"{where}: the pattern {text!r} is no regular expression: {error}") from error
