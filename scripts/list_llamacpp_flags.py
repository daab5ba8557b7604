"""Write the tables of flags of llama.cpp's programs, from the source trees of its builds.

    python scripts/list_llamacpp_flags.py llamacpp TREE... > table
    python scripts/list_llamacpp_flags.py llamabench TREE... > table
    python scripts/list_llamacpp_flags.py ik_llama TREE... > table
    python scripts/list_llamacpp_flags.py ik_llamabench TREE... > table

Each TREE is a folder `llamacpp-<build>` with the sources of that build. Since September 2024 `common/arg.cpp` lists all
flags with the programs and the variables that they belong to; before, `common/common.cpp` compared each word with
each spelling, the server did so once more in its own file until June 2024, and llama-bench still does.

Columns as `list_flags.py` writes them, with three things more: spellings behind `!` turn a flag off; `$NAME` is the
variable that sets it; `@server,cli` are the programs that have it, all if none is named. The column of what can
change memory and the words behind `#` are kept from the table that is there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from list_flags import DATA, Flag, _between, _judged, _numbers, merged

#: Flags of which every one counts, not the last.
REPEATED = {
    "--override-tensor", "--override-tensor-draft", "--spec-draft-override-tensor", "--lora", "--control-vector",
    "--override-kv", "--rpc", "--spec-type", "-pg",
}  # fmt: skip

#: A file with its scale, in two words until December 2025, in one since.
SCALED = {"--lora-scaled", "--control-vector-scaled"}

#: Programs by the names that the sources had for them.
PROGRAMS = {"main": ("cli", "completion"), "llava": ("mtmd",), "bench": ("batched-bench",)}

#: In place of programs: one reader of flags served them all, whatever they did with them.
ANY = "any"

STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
COMPARED = re.compile(r'(?:value|arg_next|val|s) == "([^"]*)"')


class Option(NamedTuple):
    """A flag of one build, with what turns it off, the variables that set it and the programs that have it."""

    flag: Flag
    negatives: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The spelling that it is known by."""
        names = self.flag.names or self.negatives
        return next((name for name in names if name.startswith("--")), names[0])


def _closing(text: str, start: int) -> int:
    """Index behind the bracket that closes the one at `start`; strings, characters and comments are skipped."""
    depth, index = 0, start
    while index < len(text):
        if text.startswith("//", index):
            index = text.find("\n", index)
            continue
        letter = text[index]
        if letter == '"':
            raw = (
                re.match(r'R"(\w*)\((.*?)\)\1"', text[index - 1 :], re.DOTALL)
                if text[index - 1] == "R"
                else None
            )
            index = index - 1 + raw.end() if raw else STRING.match(text, index).end()  # type: ignore[union-attr]
            continue
        if letter == "'":
            index += 4 if text[index + 1] == "\\" else 3
            continue
        depth += (letter in "({[") - (letter in ")}]")
        index += 1
        if not depth:
            return index
    raise ValueError("a bracket is not closed")


def _kind(body: str, hint: str = "") -> str:
    words = [word for word in dict.fromkeys(COMPARED.findall(body)) if word]
    if "is_truthy" in body or "split" in body or "regex" in body or "parse_int_range" in body:
        return "str"
    if words and "stoi" in body:
        return "str"  # a number or a word
    if len(words) > 1 and ("invalid" in body or "throw" in body):
        return "|".join(words)
    listed = re.fullmatch(r"\{([\w,.-]+)\}", hint)
    if listed:
        return listed[1].replace(",", "|")
    if "std::stof" in body or "std::stod" in body:
        return "stof"
    return "stoi" if re.search(r"std::stou?[il]+\(|atoi\(", body) else "str"


def _named(names: tuple[str, ...], takes: str, kind: str) -> Flag:
    if takes == "value" and REPEATED.intersection(names):
        takes = "each"
    if takes in ("value", "pair") and SCALED.intersection(names):
        takes = "values"
    return Flag(names, takes, kind)


def of_list(text: str) -> Iterator[Option]:
    """Flags that `common/arg.cpp` adds to its list, without those that it has to say that they are gone."""
    lists = {
        name: re.findall(r"LLAMA_EXAMPLE_(\w+)", inner)
        for name, inner in re.findall(
            r"initializer_list<enum llama_example> (\w+) = \{(.*?)\};", text, re.DOTALL
        )
    }
    for found in re.finditer(r"add_opt\((?:common|llama)_arg\(", text):
        whole = text[found.end() : _closing(text, found.start() + len("add_opt"))]
        groups, at = [], 0
        while (opened := re.compile(r"(?:\s|,|//[^\n]*\n)*\{").match(whole, at)) is not None:
            at = _closing(whole, opened.end() - 1)
            groups.append(tuple(STRING.findall(whole[opened.end() : at])))
        hint = re.compile(r'\s*,\s*"([^"]*)"\s*,').match(whole, at)
        lam = re.search(r"\[[^\]]*\]\s*\(([^)]*)\)\s*(?:\{|->)", whole)
        if lam is None or "arg_removed(" in whole:
            continue
        given = [part for part in lam[1].split(",")[1:] if part.strip()]
        kind, takes = "-", "switch"
        if len(given) > 1:
            kind, takes = "str", "pair"
        elif given and "bool" not in given[0]:
            kind, takes = (
                ("stoi" if re.search(r"\bint\b", given[0]) else _kind(whole, hint[1] if hint else "")),
                "value",
            )
        examples = re.search(r"set_examples\(\s*(?:\{([^}]*)\}|(\w+))\s*\)", whole)
        programs: list[str] = []
        if examples:
            listed = lists[examples[2]] if examples[2] else re.findall(r"LLAMA_EXAMPLE_(\w+)", examples[1])
            for one in (name.lower().replace("_", "-") for name in listed):
                programs += PROGRAMS.get(one, (one,))
            programs = [] if "common" in programs else programs
        variable = re.search(r'set_env\("([^"]*)"\)', whole)
        variables = (variable[1],) if variable and variable[1].startswith("LLAMA_") else ()
        negatives = groups[1] if len(groups) > 1 else ()
        yield Option(_named(groups[0], takes, kind), negatives, variables, tuple(programs))


def of_chain(text: str, programs: tuple[str, ...] = ()) -> Iterator[Option]:
    """Flags that a chain of comparisons knows."""
    for found in re.finditer(r'if \(([^{};]*?arg == "[^{};]*?)\)\s*\{', text):
        given = re.findall(r'arg == "(-[^"]*)"', found[1])
        # Words are compared with `_` made `-`.
        names = tuple(dict.fromkeys(n.replace("_", "-") if n.startswith("--") else n for n in given))
        body = text[found.end() : _closing(text, found.end() - 1)]
        checked, taken = (
            len(re.findall(mark, body)) for mark in (r"CHECK_ARG|\+\+i >= argc", r"argv\[\+\+i\]")
        )
        count = max(checked, taken)
        takes = ("switch", "value", "pair")[min(count, 2)]
        if names:
            yield Option(
                _named(names, takes, _kind(body) if count == 1 else "str" if count else "-"), (), (), programs
            )


def _functions(text: str, pattern: str) -> str:
    """The bodies of functions whose names a pattern describes."""
    found = re.finditer(rf"^[^\n;]*\b(?:{pattern})\([^;{{]*\) \{{$", text, re.MULTILINE)
    return "\n".join(text[one.start() : _closing(text, one.end() - 1)] for one in found)


def options(table: str, tree: Path) -> Iterator[Option]:
    """The flags that the programs of one build have."""

    def read(*names: str) -> str:
        return next(
            (path.read_text(encoding="utf-8") for name in names if (path := tree / name).exists()), ""
        )

    if table.endswith("llamabench"):
        bench = read("tools/llama-bench/llama-bench.cpp", "examples/llama-bench/llama-bench.cpp")
        yield from of_chain(_functions(bench, "parse_cmd_params"))
        return
    listed = read("common/arg.cpp")
    if listed and table == "llamacpp":
        yield from of_list(listed)
        return
    chain = _functions(read("common/common.cpp"), r"gpt_params_find_arg|gpt_params_parse(?:_ex)?")
    yield from of_chain(chain, (ANY,))
    server = read("examples/server/server.cpp")
    if table == "llamacpp":
        yield from of_chain(_functions(server, "server_params_parse"), ("server",))


def _together(one: Option, other: Option) -> Option:
    """A flag as of two builds, `other` the newer one."""
    flag = (
        other.flag
        if not one.flag.names
        else one.flag
        if not other.flag.names
        else _merged(one.flag, other.flag)
    )
    negatives = dict.fromkeys((*other.negatives, *one.negatives))
    variables = dict.fromkeys((*other.variables, *one.variables))
    return Option(flag, tuple(negatives), tuple(variables), _programs(one.programs, other.programs))


def _programs(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The programs that have a flag in either of two builds; what one reader took for all programs tells nothing."""
    if ANY in one or ANY in other:
        return other if ANY in one else one
    return tuple(dict.fromkeys((*other, *one))) if one and other else ()


def _merged(one: Flag, other: Flag) -> Flag:
    both = {one.takes, other.takes}
    if both == {"optional", "value"}:  # a switch once
        other = other._replace(takes="optional")
    if both == {"each", "value"}:
        one, other = one._replace(takes="value"), other._replace(takes="value")
        return merged(one, other)._replace(takes="each")
    numbers = {one.kind, other.kind} & {"stoi", "stof"}
    flag = merged(one, other)
    return flag._replace(kind="stof") if numbers == {"stoi", "stof"} and flag.kind == "str" else flag


def _seen(table: str, tree: Path, turned: dict[str, Option]) -> dict[str, Option]:
    """The flags of a build by their keys, those that only turn something off under what they turn off."""
    seen: dict[str, Option] = {}
    for option in options(table, tree):
        owner = next((turned[name] for name in option.flag.names if name in turned), None)
        if owner is not None:
            plain = tuple(re.sub("_NO_", "_", name, count=1) for name in option.variables)
            option = Option(Flag((), "switch", "-"), option.flag.names, plain, option.programs)
        key = owner.key if owner else option.key
        if key in seen:
            both = _together(seen[key], option)
            either = ANY in seen[key].programs + option.programs
            option = both._replace(programs=(ANY,)) if either else both
        seen[key] = option
    return seen


def flag_table(table: str, trees: list[Path]) -> str:
    """The table of the flags of some programs."""
    versions = [f"b{_numbers(tree)[0]}" for tree in trees]
    turned = {
        name: option
        for tree in trees
        for option in options(table, tree)
        for name in option.negatives
        if option.flag.names
    }
    found: dict[str, tuple[Option, list[str]]] = {}
    for tree, version in zip(trees, versions, strict=True):
        for key, option in _seen(table, tree, turned).items():
            names = {name for name in (*option.flag.names, *option.negatives) if name.startswith("--")} or {
                key
            }
            owners = [
                own for own, (was, _) in found.items() if names & {own, *was.flag.names, *was.negatives}
            ]
            for own in owners[1:]:  # two flags that have become one
                (first, earlier), (second, later) = found[owners[0]], found.pop(own)
                found[owners[0]] = (_together(first, second), [*earlier, *later])
            owner = owners[0] if owners else key
            was, present = found.get(owner, (option, []))
            found[owner] = (_together(was, option), [*present, version])
    judged = _judged(DATA / f"{table}_flags.txt")
    rows = []
    for option, present in found.values():
        names = sorted(
            option.flag.names, key=lambda name: (not name.startswith("--"), option.flag.names.index(name))
        )
        spellings = [
            *names,
            *(f"!{name}" for name in sorted(option.negatives, key=lambda one: one[:2] != "--")),
        ]
        effect, about = next((judged[name] for name in spellings if name in judged), ("memory", ""))
        row = f"{','.join(spellings)} {option.flag.takes} {option.flag.kind or 'str'} {effect}"
        row += _between(sorted(set(present), key=versions.index), versions)
        row += "".join(f" ${name}" for name in option.variables)
        row += f" @{','.join(option.programs)}" if option.programs and ANY not in option.programs else ""
        rows.append(row + about)
    return "\n".join([f"# versions {' '.join(versions)}", *sorted(rows)])


if __name__ == "__main__":
    name_of_table, *paths = sys.argv[1:]
    print(flag_table(name_of_table, sorted((Path(path) for path in paths), key=_numbers)))
