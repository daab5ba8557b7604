import contextlib
import json

import pytest
from checkpoint_files import traced_peak
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.jsonfile import parse_object
from willfit.errors import BadInput

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(), plain, max_size=5), st.booleans())
def test_what_json_writes_is_read_back(fields, escaped):
    data = json.dumps(fields, ensure_ascii=escaped).encode()
    assert parse_object(data, "x") == fields
    assert parse_object(b"\xef\xbb\xbf" + data, "x") == fields


def test_infinity_as_published_mamba2_configs_have_it():
    assert parse_object(b'{"time_step_limit": [0.0, Infinity]}', "x") == {
        "time_step_limit": [0.0, float("inf")]
    }


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_bad_input(data):
    with contextlib.suppress(BadInput):
        assert isinstance(parse_object(data, "x"), dict)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "line 1, column 8"),
        (b"[1]", "not a JSON object"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "too large"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' occurs twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ["\\uD800"]}', "surrogate"),
        (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", "nests too deeply"),
        (b'{"a":' * 5_000_000, "larger than 16 MiB"),
        (b"[" * 10_000_000, "nests too deeply"),
        (b"[" * 200_000, "nests too deeply"),
        (b'{"a":' * 2_000_000, "nests too deeply"),
        (b'{"a": [' + b"[]," * 5_000_000 + b"[]]}", "objects and lists"),
    ],
)
def test_faults_are_named(data, says):
    def parse() -> None:
        with pytest.raises(BadInput, match=says) as caught:
            parse_object(data, "config.json")
        assert "config.json" in caught.value.message
        assert len(str(caught.value)) < 300

    assert traced_peak(parse) < 4 * len(data) + 2**20
