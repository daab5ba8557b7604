"""What a command of llama.cpp gives: flags, the variables that stand for flags, and sections of a preset file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.launch.flags import Flag, FlagTable, unknown_flag
from willfit.launch.scanning import Dialect, Scanned
from willfit.launch.values import check, stoi

#: A word is a flag, whose value is the next word whatever it is; in long flags `_` is `-`; the last one counts
#: (`common/arg.cpp: common_params_parse_ex`).
DIALECT = Dialect(abbreviations=False, underscores=True, greedy=True, exact=True)

#: Words for yes, no and `auto` (`common_arg_utils`).
TRUE = ("on", "enabled", "true", "1")
FALSE = ("off", "disabled", "false", "0")
AUTO = ("auto", "-1")

_SECTION = re.compile(r"\[\s*([^\]]+?)\s*\]")
_ENTRY = re.compile(r"([A-Za-z_][\w.-]*)\s*=\s*(.*)")


def with_variables(
    scanned: Scanned, table: FlagTable, variables: Mapping[str, str], program: str
) -> list[str]:
    """Add what `LLAMA_ARG_...` variables set; a flag wins, of those that gather values both count.

    Returns
    -------
    list of str
        Notes on variables of that name that the program does not read.

    Raises
    ------
    BadInput
        For a value that the program would refuse.
    """
    known = set()
    flags = [*table.flags.values(), *table.negatives.values()]
    for flag in dict.fromkeys(flags):
        negatives = any(turned == flag for turned in table.negatives.values())
        for name in flag.variables:
            negated = name.replace("LLAMA_ARG_", "LLAMA_ARG_NO_", 1)
            known |= {name, negated} if negatives else {name}
            if negatives and negated in variables:
                _put(scanned, flag, False, negated)
            elif name in variables:
                _put(scanned, flag, _of_variable(flag, name, variables[name], negatives, program), name)
    return [
        f"{program} reads no variable {name}"
        for name in variables
        if name.startswith("LLAMA_ARG_") and name not in known
    ]


def with_preset(scanned: Scanned, table: FlagTable, path: str, program: str) -> None:
    """Add what the only model's section of a preset file sets, and the section `[*]` before it; flags win.

    Raises
    ------
    BadInput
        If the file cannot be read, names several models, or sets what the program does not have.
    """
    try:
        sections = _sections(Path(path).expanduser().read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{program}: cannot read the presets in {path[:120]}", str(error)[:120]) from None
    models = [name for name in sections if name not in ("*", "default", "")]
    if len(models) != 1:
        names = ", ".join(models[:6]) or "none"
        raise BadInput(
            f"{program}: the presets are of {len(models)} models ({names}), loaded as they are asked for",
            "ask about one of them: write its settings as flags behind llama-server",
        )
    for section in (models[0], "*"):
        for key, text in sections.get(section, {}).items():
            _put_entry(scanned, table, key, text, program)


def truth(program: str, name: str, text: str) -> bool:
    """What a word for yes or no says.

    Raises
    ------
    BadInput
        If it is neither.
    """
    if text not in TRUE + FALSE:
        raise BadInput(f"{program}: {name} is {text[:40]!r}, expected on or off")
    return text in TRUE


def _put(scanned: Scanned, flag: Flag, value: Any, spelled: str) -> None:
    if flag.name not in scanned.flags:
        scanned.spelled[flag.name] = spelled
    if flag.takes in ("each", "values"):
        scanned.options[flag.name] = [*value, *scanned.options.data.get(flag.name, [])]
    elif flag.name not in scanned.options:
        scanned.options[flag.name] = value
    scanned.flags.setdefault(flag.name, flag)


def _of_variable(flag: Flag, name: str, text: str, negatives: bool, program: str) -> Any:
    if flag.takes == "switch":
        # Without a spelling that turns it off any word but those for yes leaves it as it is.
        return truth(program, name, text) if negatives else text in TRUE
    check(program, flag._replace(name=name), text)
    return [text] if flag.takes in ("each", "values") else text


def _put_entry(scanned: Scanned, table: FlagTable, key: str, text: str, program: str) -> None:
    """Add a line of a preset: a flag without its dashes, or a variable."""
    if key in ("version", "load-on-startup", "stop-timeout", "dedup-cache-models"):
        return
    name = key.replace("_", "-")
    spellings = (f"--{name}", f"-{key}")
    flag = next((table.flags[one] for one in spellings if one in table.flags), None)
    if flag is None:
        flag = next((one for one in table.flags.values() if key in one.variables), None)
    if flag is not None:
        if flag.takes == "switch":
            _put(scanned, flag, text in TRUE, key)
            return
        check(program, flag, text)
        _put(scanned, flag, [text] if flag.takes in ("each", "values") else text, key)
        return
    turned = next((table.negatives[one] for one in spellings if one in table.negatives), None)
    if turned is None:
        raise unknown_flag(spellings[0], table.flags, f"{program} (in its presets)")
    _put(scanned, turned, text not in TRUE, key)


def _sections(text: str, path: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {"": {}}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.split(r"\s*[;#]", line.strip(), maxsplit=1)[0]
        named, entry = _SECTION.fullmatch(bare), _ENTRY.fullmatch(bare)
        if named is not None:
            section = named[1]
            found.setdefault(section, {})
        elif entry is not None:
            found[section][entry[1]] = entry[2]
        elif bare:
            raise BadInput(f"{path[:120]}: line {number} is neither a section nor 'name = value'")
    return found


def number(program: str, flag: str, text: str, least: int, notes: list[str]) -> int:
    """A whole number as the program reads it, with a note if it reads less than what is written.

    Raises
    ------
    BadInput
        If it is none, or less than the program takes.
    """
    try:
        value = stoi(text)
    except ValueError:
        raise BadInput(f"{program}: {flag} is {text[:40]!r}, expected a whole number") from None
    if value < least:
        raise BadInput(f"{program}: {flag} is {value}, expected at least {least}")
    if not re.fullmatch(r"\s*[+-]?\d+\s*", text):
        notes.append(f"{flag} {text[:40]} is read as {value}: llama.cpp stops at the first letter")
    return value
