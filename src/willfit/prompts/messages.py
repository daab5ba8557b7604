"""Reading prompts: plain text, or chats as JSON and JSONL have them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from willfit.checkpoints.jsonfile import parse_value
from willfit.checkpoints.source import LocalFile, read_all
from willfit.errors import BadInput

#: All files together; a million tokens are about 4 MB.
_MAX_BYTES = 16 * 2**20
_MAX_PROMPTS = 10_000

_SHAPE = 'write [{"role": "user", "content": "..."}], or {"messages": [...], "tools": [...]}'


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is said to a model before it answers.

    Attributes
    ----------
    file
        Where it was read.
    messages
        Its turns, each with a `role`, and a `content` that is text, a list of texts or nothing.
    tools
        Descriptions of tools that the model may call.
    plain
        It is a text without roles, which a model without a chat template takes as it is.
    """

    file: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    plain: bool = False

    @property
    def texts(self) -> list[str]:
        """The texts of all turns."""
        found = []
        for message in self.messages:
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content or ""}]
            found += [part["text"] for part in parts]
        return found


def read_prompts(paths: Sequence[str]) -> tuple[Prompt, ...]:
    """The prompts of files, in order.

    A file that ends in `.json` holds a chat or a list of chats, one that ends in `.jsonl` a chat in each line; every
    other file is one turn of a user.

    Raises
    ------
    BadInput
        If a file cannot be read, is no UTF-8 text, is empty, or holds something else; or they are too long together.
    """
    prompts: list[Prompt] = []
    left = _MAX_BYTES
    for path in paths:
        with LocalFile(os.path.expanduser(path), path) as file:
            data = read_all(file, left)
        left -= len(data)
        prompts += _prompts(path, data)
        if len(prompts) > _MAX_PROMPTS:
            raise BadInput(f"{path} has more than {_MAX_PROMPTS:,} prompts", "give the longest of them")
    return tuple(prompts)


def _prompts(path: str, data: bytes) -> list[Prompt]:
    kind = os.path.splitext(path)[1].lower()
    if not data.strip():
        raise BadInput(f"{path} is empty")
    if kind == ".jsonl":
        lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
        return [
            _chat(path, parse_value(line, f"{path}, line {number}"), f", line {number}")
            for number, line in lines
        ]
    if kind == ".json":
        value = parse_value(data, path)
        several = (
            isinstance(value, list)
            and value
            and all(isinstance(one, list) or (isinstance(one, dict) and "messages" in one) for one in value)
        )
        if several:
            return [_chat(path, one, f", chat {number}") for number, one in enumerate(value, 1)]
        return [_chat(path, value, "")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: byte {error.start}") from None
    return [Prompt(path, ({"role": "user", "content": text},), plain=True)]


def _chat(path: str, value: Any, at: str) -> Prompt:
    where = f"{path}{at}"
    fields = value if isinstance(value, dict) else {"messages": value}
    messages, tools = fields.get("messages"), fields.get("tools") or []
    if not isinstance(messages, list) or not messages:
        raise BadInput(f"{where} holds no list of messages", _SHAPE)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadInput(f"{where}: its tools are no list of objects", _SHAPE)
    for number, message in enumerate(messages, 1):
        _check(message, f"{where}: message {number}")
    return Prompt(path, tuple(messages), tuple(tools))


def _check(message: Any, where: str) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadInput(f"{where} is no object with a role", _SHAPE)
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind is None:
            raise BadInput(f"{where} has a part that is no object", _SHAPE)
        if kind != "text":
            raise BadInput(
                f"{where} has a part of type {str(kind)[:40]!r}", "tokens of text alone can be counted"
            )
        if not isinstance(part.get("text"), str):
            raise BadInput(f"{where} has a part without a text", _SHAPE)
    if not isinstance(content, str | list | None):
        raise BadInput(f"{where}: its content is neither a text nor a list of parts", _SHAPE)
    if content is None and len(message) == 1:
        raise BadInput(f"{where} has no content", _SHAPE)
