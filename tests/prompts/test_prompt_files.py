"""Files of prompts: how many there are, what they say, and one line for each fault."""

import json

import pytest

from willfit.errors import BadInput
from willfit.prompts import messages as module
from willfit.prompts.messages import read_prompts

USER = {"role": "user", "content": "hello"}


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def test_every_shape(tmp_path):
    lines = json.dumps([USER]) + "\n\n" + json.dumps({"messages": [USER, USER], "tools": [{"a": 1}]})
    found = read_prompts(
        [
            written(tmp_path, "one.json", [USER]),
            written(tmp_path, "several.json", [[USER], {"messages": [USER]}]),
            written(tmp_path, "lines.JSONL", lines.encode()),
            written(tmp_path, "text.md", b"\xef\xbb\xbf[1, 2]\n"),
        ]
    )
    assert [len(one.messages) for one in found] == [1, 1, 1, 1, 2, 1]
    assert [one.plain for one in found] == [False] * 5 + [True]
    assert found[4].tools == ({"a": 1},)
    assert found[5].texts == ["[1, 2]\n"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[" * 100_000, "nests too deeply"),
        ("a.json", b"3", "no list of messages"),
        ("a.json", [], "no list of messages"),
        ("a.json", {"prompt": "x"}, "no list of messages"),
        ("a.json", ["x"], "message 1 is no object with a role"),
        ("a.json", [USER, {"content": "x"}], "message 2 is no object with a role"),
        ("a.json", [{"role": "user"}], "message 1 has no content"),
        ("a.json", [{"role": "user", "content": 3}], "neither a text nor a list"),
        ("a.json", [{"role": "user", "content": [{"type": "image_url"}]}], "part of type 'image_url'"),
        ("a.json", [{"role": "user", "content": ["x"]}], "a part that is no object"),
        ("a.json", [{"role": "user", "content": [{"type": "text"}]}], "a part without a text"),
        ("a.json", {"messages": [USER], "tools": "x"}, "tools are no list"),
        ("a.jsonl", json.dumps([USER]).encode() + b"\n{}", "line 2 holds no list of messages"),
    ],
)
def test_malformed(tmp_path, name, content, said):
    with pytest.raises(BadInput, match=said):
        read_prompts([written(tmp_path, name, content)])


def test_oversized_and_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 2**20)
    half, rest = (written(tmp_path, name, b"x" * (2**19 + 1)) for name in ("half.txt", "rest.txt"))
    assert len(read_prompts([half])) == 1
    with pytest.raises(BadInput, match="larger than"):
        read_prompts([half, rest])
    with pytest.raises(BadInput, match="does not exist"):
        read_prompts([str(tmp_path / "none.txt")])
    with pytest.raises(BadInput, match="is not a file"):
        read_prompts([str(tmp_path)])
