"""Rendering a chat template as transformers does (`utils/chat_template_utils.py`, 5.23), in Jinja's sandbox.

A template is a program that came with a model. Jinja's sandbox keeps it from attributes of Python's objects and from
changing what it is given; its time and memory are bounded by the process that runs this (`counting`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

#: What reasoning is called in a message; templates read the first, that of gpt-oss the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class _Generation(Extension):
    """`{% generation %}` marks what a model said, for training; it renders what stands in it."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Dict:
    """`dict(...)` of a template, without the attributes of the class."""

    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        """As `dict.fromkeys`."""
        return dict.fromkeys(*arguments)


class _Namespace(Namespace):
    """`namespace(...)` of a template, without names that begin with an underscore."""

    def __init__(*arguments: Any, **named: Any) -> None:
        self, rest = arguments[0], arguments[1:]
        fields = dict(*rest, **named)
        for name in fields:
            _check(name)
        Namespace.__init__(self, fields)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        super().__setitem__(name, value)


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    special: Mapping[str, str],
) -> str:
    """The text that a model is given for a chat, up to where its answer begins.

    Raises
    ------
    TemplateError
        If the template is none, refuses the chat, or reaches for what it may not have.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise, strftime_now=_now, dict=_Dict(), namespace=_Namespace)
    rendered: str = environment.from_string(template).render(
        messages=[_with_reasoning(message) for message in messages],
        tools=list(tools) or None,
        documents=None,
        add_generation_prompt=True,
        **special,
    )
    return rendered


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    said = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    if said is None:
        return dict(message)
    return {"thinking": said, **message, "reasoning_content": said}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes what HTML does not like."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _check(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no name {name[:40]!r}")
