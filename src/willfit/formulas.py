"""Formulas of terms as text that adds up: `36 layers x 51 captured sizes x 368200 B + 182800000 B beyond`.

A term's formula is written for people, in a grammar that is also read by program: tests compute it, and a comparison
says which of its numbers made a difference.

    formula = [ stage ": " ] sum { " = " sum }     the last is what is allocated; those before were rounded to it
    sum     = product { " + " product | " - " product }
    product = factor { " x " factor | " / " factor }
    factor  = number [words] | "(" sum ")" [words] | "the largest of " name ": " sum { ", " name ": " sum }

Words behind a number say what it counts. They may hold digits, commas and parentheses, but no operator between spaces.
`3/8` is one number. A number that is restated behind `=` inside of "the largest of" is a result and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

_NUMBER = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?)(?:/(\d+))?(?![\w.])")
_OPERATOR = re.compile(r" ([x/+=-]) ")
_NEXT_NAME = re.compile(r", (?=[a-z][\w ]*: )")
_NAME = re.compile(r"([a-z][\w ,]*?): ")
_LARGEST = "the largest of "

#: Where the words of a label end that are not part of what it counts: `B of tensors (bf16) on one of 2 ranks`.
_KEY_END = re.compile(r" ?\(| on |, | of \d")


@dataclass(frozen=True, slots=True)
class Factor:
    """A number of a formula.

    Attributes
    ----------
    value
        The number.
    words
        What it counts; may be empty.
    """

    value: float
    words: str

    @property
    def key(self) -> str:
        """The words without what varies in them, to find the same number in another formula."""
        if self.words.startswith("(") and self.words.endswith(")"):
            return self.words[1:-1]
        return _KEY_END.split(self.words, maxsplit=1)[0].strip()


@dataclass(frozen=True, slots=True)
class Part:
    """A summand of a formula that is multiplied out: a product with a sign.

    Attributes
    ----------
    sign
        1 or -1.
    factors
        What is multiplied.
    stage
        Of several that do not coincide, the largest, by its name; empty where there is no choice.
    """

    sign: int
    factors: tuple[Factor, ...]
    stage: str = ""

    @property
    def value(self) -> float:
        """What it adds to the sum."""
        return self.sign * prod(factor.value for factor in self.factors)

    @property
    def key(self) -> tuple[str, ...]:
        """What it counts, whatever the numbers."""
        return (self.stage, *(factor.key for factor in self.factors))


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that was read: each side of its `=` as a sum of parts."""

    sides: tuple[tuple[Part, ...], ...]

    @property
    def value(self) -> float:
        """What the formula says is allocated: its last side."""
        return value_of(self.sides[-1])


def value_of(parts: Iterable[Part]) -> float:
    """The sum of parts."""
    return sum(part.value for part in parts)


def read_formula(text: str) -> Formula | None:
    """A formula from its text; None if it is not written in the grammar."""
    reader = _Reader(text)
    stage = None if text.startswith(_LARGEST) else _NAME.match(text)
    reader.at = stage.end() if stage else 0
    try:
        sides = [reader.sum()]
        while reader.take(" = "):
            sides.append(reader.sum())
    except ValueError:
        return None
    if reader.at < len(text):
        return None
    if stage:
        sides = [tuple(replace(part, stage=part.stage or stage[1]) for part in side) for side in sides]
    return Formula(tuple(sides))


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, word: str) -> bool:
        """Whether the text goes on with a word, which is then read."""
        if not self.text.startswith(word, self.at):
            return False
        self.at += len(word)
        return True

    def sum(self) -> tuple[Part, ...]:
        parts = list(self.product())
        while True:
            if self.take(" + "):
                parts += self.product()
            elif self.take(" - "):
                parts += [replace(part, sign=-part.sign) for part in self.product()]
            else:
                return tuple(parts)

    def product(self) -> list[Part]:
        parts = list(self.factor())
        while True:
            if self.take(" x "):
                others = self.factor()
            elif self.take(" / "):
                others = [
                    replace(part, factors=tuple(Factor(_ratio(1, f.value), f.words) for f in part.factors))
                    for part in self.factor()
                ]
            else:
                return parts
            parts = [_times(one, other) for one in parts for other in others]

    def factor(self) -> list[Part]:
        if self.take(_LARGEST):
            return self.largest()
        if self.take("("):
            parts = list(self.sum())
            if not self.take(")"):
                raise ValueError
            self.words()
            return parts
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            raise ValueError
        self.at = match.end()
        number = match[1].replace(",", "")
        value = int(number) if number.isdigit() else float(number)
        return [Part(1, (Factor(_ratio(value, int(match[2])) if match[2] else value, self.words()),))]

    def largest(self) -> list[Part]:
        """The largest of named sums."""
        found: list[tuple[str, tuple[Part, ...]]] = []
        while not found or self.take(", "):
            name = _NAME.match(self.text, self.at)
            if name is None:
                raise ValueError
            self.at = name.end()
            found.append((name[1], self.sum()))
            if self.take(" = "):
                self.factor()
        stage, parts = max(found, key=lambda entry: value_of(entry[1]))
        return [replace(part, stage=part.stage or stage) for part in parts]

    def words(self) -> str:
        """The words behind a number, up to what is no part of them."""
        start, inner = self.at, 0
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == "(":
                inner += 1
            elif letter == ")":
                if not inner:
                    break
                inner -= 1
            elif not inner and (_OPERATOR.match(self.text, self.at) or _NEXT_NAME.match(self.text, self.at)):
                break
            self.at += 1
        return self.text[start : self.at].strip()


def _ratio(one: float, other: float) -> float:
    if not other:
        raise ValueError
    return one / other


def _times(one: Part, other: Part) -> Part:
    return Part(one.sign * other.sign, (*one.factors, *other.factors), one.stage or other.stage)
