"""What flags a program has, by version: the tables in `data/`, which `scripts/list_flags.py` writes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from willfit.engines.versions import parse_version
from willfit.errors import BadInput

#: What follows a flag: nothing; nothing, with `--no-flag`; nothing or `true` or `false`; one value; one of which every
#: one counts that is given; two; one or more; any number; one or none.
Takes = Literal["switch", "toggle", "boolean", "value", "each", "pair", "values", "any", "optional"]

_DATA = Path(__file__).parent / "data"


class Flag(NamedTuple):
    """A flag of a program.

    Attributes
    ----------
    name
        Its first spelling.
    takes
        What follows it.
    kind
        What a value must be: `str`, `int`, `float`, `json`, `tokens` (a number with a unit, read by the launcher),
        `stoi` and `stof` (what C++ takes for a number: whatever begins with one) or words with bars between them;
        `?` behind it if `None` stands for no value.
    quiet
        It cannot change memory.
    since, until
        First and last version that has it, empty for the first and last that are known.
    about
        What it changes in memory, in words (plural); empty if there are none.
    variables
        Variables that set it, the newest name first.
    programs
        The programs of a family that have it; empty for all.
    """

    name: str
    takes: Takes
    kind: str = "str"
    quiet: bool = False
    since: str = ""
    until: str = ""
    about: str = ""
    variables: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


class FlagTable(NamedTuple):
    """The flags of a program.

    Attributes
    ----------
    flags
        By each of their spellings.
    versions
        Those that were looked into, oldest first.
    negatives
        Flags by the spellings that turn them off, where these do not follow from the flag's own.
    """

    flags: dict[str, Flag]
    versions: tuple[str, ...] = ()
    negatives: dict[str, Flag] = {}  # noqa: RUF012  (never changed)

    def of_program(self, program: str) -> FlagTable:
        """The flags that one program of a family has."""

        def its(flags: dict[str, Flag]) -> dict[str, Flag]:
            return {
                name: flag for name, flag in flags.items() if not flag.programs or program in flag.programs
            }

        return self._replace(flags=its(self.flags), negatives=its(self.negatives))


@cache
def flag_table(*names: str) -> FlagTable:
    """The flags of a program as files of `data/` list them; of a flag in several files, the first counts."""
    flags: dict[str, Flag] = {}
    negatives: dict[str, Flag] = {}
    versions: tuple[str, ...] = ()
    for name in names:
        for line in (_DATA / name).read_text(encoding="utf-8").splitlines():
            row, _, about = line.partition(" # ")
            words = row.split()
            if line.startswith("# versions"):
                versions = versions or tuple(words[2:])
            elif line.startswith(("-", "!")):
                spellings, flag = words[0].split(","), _flag(words, about)
                for spelling in spellings:
                    known = negatives if spelling.startswith("!") else flags
                    known.setdefault(spelling.removeprefix("!"), flag)
    return FlagTable(flags, versions, negatives)


def _flag(words: list[str], about: str) -> Flag:
    """The flag that a row describes: `spellings takes kind effect`, then versions, `$VARIABLE`, `@program,program`."""
    spellings, takes, kind, effect, *more = (*words, *("", "", "")[: max(0, 4 - len(words))])
    between = next((word for word in more if word[0] not in "$@"), "")
    since, _, until = between.partition("-")
    return Flag(
        spellings.partition(",")[0].removeprefix("!"),
        takes,  # type: ignore[arg-type]
        kind,
        effect == "quiet",
        since,
        until,
        about,
        variables=tuple(word[1:] for word in more if word[0] == "$"),
        programs=tuple(name for word in more if word[0] == "@" for name in word[1:].split(",")),
    )


@cache
def variable_table(name: str) -> dict[str, bool]:
    """The variables of a program as a file of `data/` lists them, and whether each can change memory."""
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return {words[0]: words[1] == "memory" for words in map(str.split, lines) if words[:1] != ["#"]}


def unknown_flag(name: str, spellings: Iterable[str], program: str) -> BadInput:
    """What to raise for a flag that a program does not have, naming the closest that it has."""
    return BadInput(f"{program} has no flag {name[:80]}", did_you_mean(name, spellings))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of some words."""
    from difflib import get_close_matches

    dashed = {word.replace("_", "-"): word for word in known}
    close = get_close_matches(name.replace("_", "-")[:80], dashed, n=1, cutoff=0.6)
    return f"did you mean {dashed[close[0]]}?" if close else "check the spelling, or leave it out"


def lacks(flag: Flag, versions: tuple[str, ...], version: str) -> bool:
    """Whether a version is known not to have a flag; between two that were looked into, it is not known."""
    if not versions or not (flag.since or flag.until):
        return False
    asked, numbers = parse_version(version), [parse_version(one) for one in versions]
    if flag.since and asked <= numbers[versions.index(flag.since) - 1]:
        return True
    return bool(flag.until) and asked >= numbers[versions.index(flag.until) + 1]
