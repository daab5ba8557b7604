"""Reading a command line as its program would: argparse with vLLM's additions, click, clap, or llama.cpp."""

from __future__ import annotations

import json
import re
from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from willfit.errors import BadInput
from willfit.launch.flags import Flag, FlagTable, lacks, unknown_flag
from willfit.launch.values import check, without_units

#: Values that leave something off, so that nothing is to be said of it.
_OFF: tuple[Any, ...] = (False, "0", "1", "none", "null", "auto", "cuda", "normal", "[]", "{}", [])


class Dialect(NamedTuple):
    """How a program reads its command line.

    Attributes
    ----------
    abbreviations
        argparse takes the beginning of a flag for the flag if no other begins so.
    underscores
        `--max_model_len` is `--max-model-len` (`FlexibleArgumentParser` of vLLM and LMDeploy).
    fields
        `--config.key.deeper value` sets a field of a JSON option (theirs, too).
    inverses
        `--disable-x` turns `--enable-x` off (vLLM's `EnableDisableAction`).
    greedy
        The word behind a flag is its value even if it looks like a flag (click).
    once
        A flag may stand once (clap).
    exact
        A word is a flag or it is refused: no `--flag=value` and no `-fvalue`; flags with several values gather those
        of all places where they stand (llama.cpp).
    """

    abbreviations: bool = True
    underscores: bool = False
    fields: bool = False
    inverses: bool = False
    greedy: bool = False
    once: bool = False
    exact: bool = False


class Options(UserDict[str, Any]):
    """Values by name, in which dashes and underscores are the same; it keeps in mind which of them were looked at.

    Those of flags are a string, a list of strings, or True or False.

    Attributes
    ----------
    seen
        Names that were looked at.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.seen: set[str] = set()
        super().__init__(given or {})

    def __getitem__(self, name: str) -> Any:
        self.seen.add(_dashed(name))
        return super().__getitem__(_dashed(name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(_dashed(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(_dashed(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(_dashed(str(name)))

    def unseen(self, name: str) -> bool:
        """Whether something that turns anything on is given under a name, and nothing looked at it."""
        return _dashed(name) not in self.seen and self.data.get(_dashed(name), False) not in _OFF


@dataclass(slots=True)
class Scanned:
    """A command line, taken apart.

    Attributes
    ----------
    positionals
        Words that belong to no flag.
    options
        By flag. The last one wins, as it does in the programs.
    flags
        Those that were given.
    spelled
        How they were written, where that was one of their spellings in full.
    """

    positionals: list[str] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    flags: dict[str, Flag] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)


def scan(
    words: Sequence[str], table: FlagTable, program: str, dialect: Dialect, version: str | None = None
) -> Scanned:
    """Take a command line apart.

    Parameters
    ----------
    words
        The words after the program's name.
    table
        The flags that the program has.
    program
        How to call the program in an error.
    version
        Flags of other versions do not make an abbreviation ambiguous; None for the newest.

    Raises
    ------
    BadInput
        For a flag that the program does not have, naming the closest that it has, or a value that is missing or wrong.
    """
    reader = _Reader(words, table, program, dialect, version)
    reader.read()
    return reader.found


def meaning(word: str, table: FlagTable, dialect: Dialect) -> tuple[Flag, bool, str] | None:
    """The flag that a word is, whether it turns the flag on, and what stands before a value in the same word.

    None if it is no flag, or none that is known.
    """
    reader = _Reader((), table, "", dialect, None)
    if not reader.is_flag(word):
        return None
    name, joined = reader.split(word)
    meant = list(reader.meanings(name).values())
    if len(meant) != 1:
        return None
    return *meant[0], word[: len(word) - len(joined)] if joined is not None else ""


class _Reader:
    """One pass over a command line."""

    def __init__(
        self, words: Sequence[str], table: FlagTable, program: str, dialect: Dialect, version: str | None
    ) -> None:
        self.words, self.table, self.program = words, table, program
        self.dialect, self.version = dialect, version
        self.index = 0
        self.found = Scanned()
        self.fields: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        if self.dialect.fields:
            self._take_fields()
        while self.index < len(self.words):
            word = self.words[self.index]
            self.index += 1
            if word == "--":
                self.found.positionals.extend(self.words[self.index :])
                break
            if not self.is_flag(word):
                self.found.positionals.append(word)
            else:
                self._flag(word)
        # Fields are put behind everything else, so that they replace an option that was given whole.
        for name, fields in self.fields.items():
            self.found.options[name] = json.dumps(fields)

    def _take_fields(self) -> None:
        """Read the words that set one field of a JSON option, which vLLM does before all others."""
        rest = []
        while self.index < len(self.words):
            word = self.words[self.index]
            self.index += 1
            if word.startswith("-") and "." in word.partition("=")[0] and not _is_number(word):
                self._field(word)
            else:
                rest.append(word)
        self.words, self.index = rest, 0

    def is_flag(self, word: str) -> bool:
        """What argparse takes for a flag: words with blanks and negative numbers are none."""
        if len(word) < 2 or word[0] != "-":
            return False
        if self.dialect.exact and self._known(word):
            return True
        name = word.partition("=")[0]
        return name in self.table.flags or not (_is_number(word) or " " in name or "\n" in name)

    def split(self, word: str) -> tuple[str, str | None]:
        """A flag's spelling, and the value in the same word; None if there is none."""
        if self.dialect.exact:
            return word, None
        name, equals, joined = word.partition("=")
        short = self.table.flags.get(word[:2]) if word[:2] != "--" else None
        if name not in self.table.flags and short is not None and short.takes not in ("switch", "toggle"):
            return word[:2], word[2:].removeprefix("=")  # `-qawq`
        return name, joined if equals else None

    def _flag(self, word: str) -> None:
        name, value = self.split(word)
        flag, on = self.meant(name)
        if self.dialect.once and flag.name in self.found.flags and flag.takes == "value":
            raise BadInput(f"{self.program}: {flag.name} may stand once only")
        self.found.flags[flag.name] = flag
        if name in self.table.flags or name in self.table.negatives:
            self.found.spelled[flag.name] = name
        if flag.takes in ("switch", "toggle"):
            if value is not None:
                raise BadInput(f"{self.program}: {name} takes no value", f"leave ={value[:20]} out")
            self._set(flag, on)
        elif flag.takes == "boolean":
            self._set(flag, self._boolean(flag, value) == on)
        elif flag.takes in ("values", "any"):
            before = self.found.options.data.get(_dashed(flag.name), []) if self.dialect.exact else []
            self._set(flag, [*before, *(self._values(flag) if value is None else [value])])
        elif flag.takes == "each":
            before = self.found.options.data.get(_dashed(flag.name), [])
            self._set(flag, [*before, self._value(flag.name) if value is None else value])
        elif flag.takes == "pair":
            self._set(flag, [self._value(flag.name), self._value(flag.name)])
        elif flag.takes == "optional" and value is None and not self._next_is_value():
            self._set(flag, True)
        else:
            self._set(flag, self._value(flag.name) if value is None else value)

    def _field(self, word: str) -> None:
        """`--compilation-config.level 3`: one field of a JSON option (`argparse_utils.py: parse_args`)."""
        path, equals, text = word.partition("=")
        if not equals:
            if self.index >= len(self.words):
                raise BadInput(f"{self.program}: {path} needs a value")
            text = self.words[self.index]
            self.index += 1
        name, *keys = path.split(".")
        flag = self.meant(name)[0]
        value: Any
        if keys[-1].endswith("+"):
            keys[-1], value = keys[-1][:-1], text.split(",")
        else:
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                number = without_units(text)
                value = text if number is None else number
        if flag.kind.removesuffix("?") not in ("json", "str"):
            raise BadInput(f"{self.program}: {flag.name} has no fields")
        self.found.flags[flag.name] = flag
        inside = self.fields.setdefault(flag.name, {})
        for key in keys[:-1]:
            deeper = inside.setdefault(key, {})
            if not isinstance(deeper, dict):
                deeper = inside[key] = {}
            inside = deeper
        old = inside.get(keys[-1])
        inside[keys[-1]] = old + value if isinstance(old, list) and isinstance(value, list) else value

    def meant(self, name: str) -> tuple[Flag, bool]:
        """The flag that a word stands for, and whether it turns it on."""
        meant = self.meanings(name)
        if len(meant) > 1:
            raise BadInput(f"{self.program}: {name} could be {', '.join(sorted(meant)[:4])}", "write it out")
        if not meant:
            raise unknown_flag(name, (*self.table.flags, *self.table.negatives), self.program)
        return next(iter(meant.values()))

    def meanings(self, name: str) -> dict[str, tuple[Flag, bool]]:
        """The flags that a word may stand for, by a spelling of each, and whether it turns them on."""
        if self.dialect.underscores and name.startswith("--"):
            name = "--" + name[2:].replace("_", "-")
        flag = self.table.flags.get(name)
        if flag is not None:
            return {name: (flag, True)}
        negated = self.table.negatives.get(name) or self._negated(name)
        if negated is not None:
            return {name: (negated, False)}
        begun = self._begun(name) if self.dialect.abbreviations and name.startswith("--") else {}
        if len(begun) > 1:
            known = [spelling for spelling, (flag, _) in begun.items() if not self._absent(flag)]
            begun = {spelling: begun[spelling] for spelling in known or begun}
        different = len({(flag.name, on) for flag, on in begun.values()}) > 1
        return begun if different else dict(list(begun.items())[:1])

    def _known(self, word: str) -> bool:
        """Whether a word is the spelling of a flag."""
        name = word.replace("_", "-") if self.dialect.underscores and word.startswith("--") else word
        return name in self.table.flags or name in self.table.negatives

    def _negated(self, name: str) -> Flag | None:
        """The flag that `--no-flag` turns off, or `--disable-flag` if there is `--enable-flag`."""
        others = ["--" + name[5:] if name.startswith("--no-") else "", self._inverse(name)]
        flags = (self.table.flags.get(other) for other in others)
        return next((flag for flag in flags if flag and flag.takes in ("toggle", "boolean")), None)

    def _inverse(self, name: str) -> str:
        """`--disable-x` of `--enable-x`, and the other way round, if the program has it; empty if not."""
        for one, other in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
            if self.dialect.inverses and name.startswith(one):
                return other + name[len(one) :]
        return ""

    def _begun(self, name: str) -> dict[str, tuple[Flag, bool]]:
        """Flags that begin with a word."""
        begun = {
            spelling: (flag, True)
            for spelling, flag in self.table.flags.items()
            if spelling.startswith(name) and spelling.startswith("--")
        }
        for spelling, flag in self.table.flags.items():
            if flag.takes in ("toggle", "boolean") and spelling.startswith("--"):
                inverse = self._inverse(spelling)
                for other in ("--no-" + spelling[2:], *([inverse] if inverse else [])):
                    if other.startswith(name):
                        begun[other] = (flag, False)
        return begun

    def _absent(self, flag: Flag) -> bool:
        versions = self.table.versions
        return bool(versions) and lacks(flag, versions, self.version or versions[-1])

    def _set(self, flag: Flag, value: Any) -> None:
        texts = value if isinstance(value, list) else [value]
        if flag.kind.endswith("?") and texts in (["None"], [""]):
            self.found.options.pop(flag.name, None)
            self.found.flags.pop(flag.name, None)
            return
        for text in texts:
            if isinstance(text, str):
                check(self.program, flag, text)
        self.found.options[flag.name] = value

    def _value(self, name: str) -> str:
        if self.index >= len(self.words) or not (self.dialect.greedy or self._next_is_value()):
            raise BadInput(f"{self.program}: {name} needs a value")
        self.index += 1
        return self.words[self.index - 1]

    def _values(self, flag: Flag) -> list[str]:
        start = self.index
        while self._next_is_value():
            self.index += 1
        if flag.takes == "values" and self.index == start:
            raise BadInput(f"{self.program}: {flag.name} needs a value")
        return list(self.words[start : self.index])

    def _boolean(self, flag: Flag, text: str | None) -> bool:
        if text is None:
            if self.index >= len(self.words) or self.words[self.index].lower() not in ("true", "false"):
                return True
            text = self.words[self.index]
            self.index += 1
        if text.lower() not in ("true", "false"):
            raise BadInput(f"{self.program}: {flag.name} is {text[:40]!r}, expected true or false")
        return text.lower() == "true"

    def _next_is_value(self) -> bool:
        return self.index < len(self.words) and not self.is_flag(self.words[self.index])


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-\d+|-\d*\.\d+", word) is not None
