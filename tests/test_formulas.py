"""Formulas as text that is computed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.formulas import read_formula, value_of

READ = {
    "8192 tokens x 3 B": 24576,
    "100 B of library workspaces of 1 rank(s)": 100,
    "16 B of tensors (bf16) on one of 2 ranks + 10 B of copies, and slack - 4 B kept in RAM": 22,
    "(16 B of tensors (bf16) + 4 B of tables) x 1.5 (what loading leaves)": 30,
    "0.5 (share) x 1,000 B usable - 100 (weights) = 3 blocks x 128 B": 384,
    "(363 tokens + 1 of padding) x 10 B": 3640,
    "the largest of model: 8 tokens x 5 elements = 40, sampler: 2 rows x 30 logits = 60": 60,
    "(the largest of model: 8 tokens x 9 B + 1 B of scores = 73, sampler: 2 rows x 30 = 60) + 7 B of outputs": 80,
    "prefill, mlp: 10 tokens x (4 x 8 hidden + 3 x 16 MLP) x 2 B": 1600,
    "2 x 40 B for 3 tokens (bf16) x 3/8 (share of the device)": 30,
    "10 B / 4": 2.5,
    "1e+06 B": 10**6,
}


@pytest.mark.parametrize(("text", "value"), READ.items(), ids=READ)
def test_what_a_formula_says(text, value):
    assert read_formula(text).value == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "driver context", "x 3", "3 + ", "(3 x 2", "the largest of", "3 = rest", "1/0", "3 / 0"]
)
def test_what_is_no_formula(text):
    assert read_formula(text) is None


def test_parts_say_what_they_count():
    budget, blocks = read_formula("0.9 (share) x 10 B usable - 3 (weights) x 2 = 5 blocks x 1 B").sides
    assert [(part.sign, part.key) for part in budget] == [
        (1, ("", "share", "B usable")),
        (-1, ("", "weights", "")),
    ]
    assert [part.key for part in blocks] == [("", "blocks", "B")]
    assert value_of(budget) == pytest.approx(3)
    (winner,) = read_formula("the largest of a: 3 rows x 2 B, b: 1 tokens x 5 B").sides[0]
    assert (winner.stage, winner.value) == ("a", 6)
    tensors, tables = read_formula(
        "7 B of tensors (bf16) on one of 2 ranks + 1 B of rotary tables and scales"
    ).sides[0]
    assert (tensors.key, tables.key) == (("", "B of tensors"), ("", "B of rotary tables and scales"))


NUMBERS = st.integers(0, 10**13)
WORDS = st.sampled_from(["", " B", " tokens", " (weights)", " B of tables, and scales", " rows of 1 rank(s)"])


@st.composite
def sums(draw, depth=2):
    """A formula and its value."""
    text, value = "", 0
    for index in range(draw(st.integers(1, 3))):
        product, size = "", 1
        for at in range(draw(st.integers(1, 3))):
            if depth and draw(st.booleans()):
                inner, found = draw(sums(depth - 1))
                factor = f"({inner})"
            else:
                found = draw(NUMBERS)
                factor = f"{found}{draw(WORDS)}"
            product, size = product + (" x " if at else "") + factor, size * found
        sign = draw(st.sampled_from((" + ", " - "))) if index else ""
        text, value = text + sign + product, value + (-size if sign == " - " else size)
    return text, value


@given(sums())
def test_any_sum_of_products_is_computed(made):
    text, value = made
    assert read_formula(text).value == value


@given(st.text(alphabet="0123456789 x+-=/(),.:abcBthe largestof", max_size=60))
def test_any_text_is_read_or_refused(text):
    found = read_formula(text)
    assert found is None or found.sides
