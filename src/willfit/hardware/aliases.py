"""Reading device names: what people type, what drivers print, and what the table says, brought to one form.

`rtx4090`, `NVIDIA GeForce RTX 4090` and the table's `GeForce RTX 4090` have the same core, `4090`; what
else is in a name (a memory size, SXM or PCIe, a generation, laptop) narrows the choice among rows with
that core. Names that no rule derives stand in `data/aliases.csv`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Form factor, edition, generation and memory type: words that tell rows with one core apart.
FORMS = ("sxm", "", "pcie", "nvl")
EDITIONS = frozenset({"laptop", "modified", "server", "maxq", "sff"})
_QUALIFIERS = (
    EDITIONS
    | frozenset(form for form in FORMS if form)
    | frozenset({"workstation", "quadro", "pro"})
    | frozenset({"ada", "blackwell", "hopper", "ampere", "turing", "volta", "pascal"})
    | frozenset({"hbm2", "hbm2e", "hbm3", "hbm3e", "gddr5", "gddr5x", "gddr6", "gddr6x", "gddr7"})
)
# fmt: off
_BRANDS = frozenset({
    "nvidia", "amd", "intel", "google", "aws", "huawei", "apple", "cambricon", "hygon", "kunlunxin", "mtt",
    "geforce", "gtx", "tesla", "radeon", "rx", "instinct", "arc", "jetson", "ascend", "dcu", "tpu",
    "corporation",
})
_FILLERS = frozenset({
    "gpu", "gpus", "graphics", "generation", "edition", "series", "card", "with", "data", "center", "tensor",
    "core", "nvlink", "oam", "ac", "ecc", "memory", "accelerator",
})
_PREFIXES = (
    "geforce", "nvidia", "quadro", "instinct", "radeon", "tesla", "titan", "ascend", "apple", "rtx", "gtx",
    "rx", "pro",
)
# fmt: on

_PARENTHESES = re.compile(r"\(([^)]*)\)")
_TRADEMARK = re.compile(r"\((?:r|tm|c)\)|[®™©]")
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+)\s*(?:gib|gb|g)\b")
_CORES = re.compile(r"\b(\d+)[\s-]*core\b")
_SUFFIX = re.compile(r"(.*\d.*?)(ada|blackwell|laptop|mobile|sxm\d?|pcie|nvl|server|workstation|maxq|sff)$")
_TOKEN = re.compile(r"[a-z0-9]+")
_SIZE_TOKEN = re.compile(r"\d+g$")
_CORES_TOKEN = re.compile(r"\d+core$")
_APPLE_TOKEN = re.compile(r"m\d$")


class Name(NamedTuple):
    """A device name in parts.

    Attributes
    ----------
    core
        The model, without brand: `4090`, `a100`, `m3max`, `6000`.
    size_gb
        The memory size in the name; None if it names none.
    words
        Qualifiers: `sxm`, `pcie`, `ada`, `laptop`, `pro`, `hbm3`, `40core`, ...
    """

    core: str
    size_gb: int | None
    words: frozenset[str]


def parse_name(text: str) -> Name:
    """Split a device name into its core, its memory size and its qualifiers. Never fails."""
    plain = _TRADEMARK.sub(" ", text.lower()).replace("max-q", "maxq")
    plain = _CORES.sub(r" \1core ", _SIZE.sub(r" \1g ", plain))
    tokens: list[str] = []
    for token in _TOKEN.findall(plain):
        tokens += _split_glued(token)
    size: int | None = None
    words: set[str] = set()
    pieces: list[str] = []
    for token in tokens:
        word = "sxm" if token.startswith("sxm") else "laptop" if token == "mobile" else token
        apple_pro = word == "pro" and pieces and _APPLE_TOKEN.match(pieces[-1])
        if (word in _QUALIFIERS and not apple_pro) or _CORES_TOKEN.match(word):
            words.add(word)
        elif _SIZE_TOKEN.match(word):
            size = int(word[:-1])
        elif word == "rtx" and pieces[-1:] != ["titan"]:
            continue
        elif word not in _BRANDS and word not in _FILLERS:
            pieces.append(word)
    if "maxq" in words:
        words.discard("workstation")  # "Max-Q Workstation Edition" is one edition
    return Name("".join(pieces), size, frozenset(words))


def _split_glued(token: str) -> list[str]:
    """`rtx6000ada` -> rtx, 6000, ada."""
    head: list[str] = []
    found = True
    while found:
        found = False
        for prefix in _PREFIXES:
            if token.startswith(prefix) and len(token) > len(prefix):
                head.append(prefix)
                token = token[len(prefix) :]
                found = True
                break
    match = _SUFFIX.match(token)
    return [*head, match[1], match[2]] if match else [*head, token]


def row_names(name: str) -> tuple[Name, ...]:
    """The names that a row of the table answers to: its own, and those in parentheses.

    `TPU v6e (Trillium)` answers to both; in `(40-core GPU)` and `(modified)` there are only qualifiers,
    and `(per GCD)` says what the row counts.
    """
    main = parse_name(_PARENTHESES.sub(" ", name))
    words = set(main.words)
    others: list[Name] = []
    for inside in _PARENTHESES.findall(name):
        if inside.startswith("per "):
            continue
        other = parse_name(inside)
        if other.core:
            others.append(other)
        else:
            words |= other.words
    return (main._replace(words=frozenset(words)), *others)


def compact(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return "".join(_TOKEN.findall(text.lower()))
