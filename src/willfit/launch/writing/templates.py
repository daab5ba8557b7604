"""Ollama's TEMPLATE for a checkpoint's chat template, where the two are known to say the same.

A chat template is a program (Jinja) that may not be run. So it is recognised: by the marks that it has, and by having
nothing else: no tools, no dates, no words of its own. Go's templates are Ollama's (`template/template.go`); literal
text stands in Go's quotes, so that trimming never touches it.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple


class Turns(NamedTuple):
    """How the turns of a conversation are written.

    Attributes
    ----------
    system, user, assistant
        What stands in front of a turn and behind it.
    in_user
        The system's words stand at the beginning of the first user's turn, with this behind them; None where the
        system has a turn of its own.
    stops
        What ends an answer.
    """

    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    stops: tuple[str, ...]
    in_user: str | None = None


_LLAMA3 = "<|start_header_id|>{}<|end_header_id|>\n\n"

#: Families of templates by name.
FAMILIES: dict[str, Turns] = {
    "ChatML": Turns(
        ("<|im_start|>system\n", "<|im_end|>\n"),
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("<|im_start|>assistant\n", "<|im_end|>\n"),
        ("<|im_end|>", "<|im_start|>"),
    ),
    "Llama 3": Turns(
        (_LLAMA3.format("system"), "<|eot_id|>"),
        (_LLAMA3.format("user"), "<|eot_id|>"),
        (_LLAMA3.format("assistant"), "<|eot_id|>"),
        ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    ),
    "Gemma": Turns(
        ("", ""),
        ("<start_of_turn>user\n", "<end_of_turn>\n"),
        ("<start_of_turn>model\n", "<end_of_turn>\n"),
        ("<end_of_turn>",),
        in_user="\n\n",
    ),
    "Phi-3": Turns(
        ("<|system|>\n", "<|end|>\n"),
        ("<|user|>\n", "<|end|>\n"),
        ("<|assistant|>\n", "<|end|>\n"),
        ("<|end|>", "<|user|>", "<|assistant|>"),
    ),
    "Phi-4": Turns(
        ("<|im_start|>system<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>user<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
        ("<|im_end|>", "<|im_start|>"),
    ),
    "Zephyr": Turns(
        ("<|system|>\n", "</s>\n"),
        ("<|user|>\n", "</s>\n"),
        ("<|assistant|>\n", "</s>\n"),
        ("</s>", "<|user|>", "<|system|>", "<|assistant|>"),
    ),
}

#: Marks that a family's template has, and those that it may have beside them.
_MARKS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "ChatML": (frozenset({"<|im_start|>", "<|im_end|>"}), frozenset({"<|endoftext|>"})),
    "Llama 3": (
        frozenset({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}), frozenset({"<|begin_of_text|>"}),
    ),
    "Gemma": (frozenset({"<start_of_turn>", "<end_of_turn>"}), frozenset({"<bos>", "<start_of_image>"})),
    "Phi-3": (frozenset({"<|user|>", "<|assistant|>", "<|end|>"}), frozenset({"<|system|>", "<s>", "<|endoftext|>"})),
    "Phi-4": (frozenset({"<|im_start|>", "<|im_sep|>", "<|im_end|>"}), frozenset()),
    "Zephyr": (frozenset({"<|user|>", "<|system|>", "<|assistant|>"}), frozenset({"</s>"})),
}  # fmt: skip

_MARK = re.compile(r"<\|[\w-]+\|>|</?[a-z_]+>|\[/?[A-Z_]{3,}\]")

#: What a template would take from outside of the conversation, or decide by itself.
_OUTSIDE = re.compile(
    r"\b(tools?|documents|tool_calls|functions?|strftime_now|date_string|enable_thinking|reasoning_content|thinking)\b"
)

#: Errors that a template raises for roles it does not take: words, but none of the conversation's.
_RAISED = re.compile(r"raise_exception\((?:'[^']*'|\"[^\"]*\")\)")

#: What stands in quotes in it.
_QUOTED = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")

#: Two words with a space between them are a sentence of the template's own, such as a system prompt.
_SENTENCE = re.compile(r"[A-Za-z]{2,},? [a-zA-Z]{2,}")

#: A template is a few kB; the longest published ones are below this.
_LONGEST = 2**16


def family_of(template: str) -> str | None:
    """The family of a chat template; None for one that is not known, or has more than turns."""
    if len(template) > _LONGEST:
        return None
    bare = _RAISED.sub("", template)
    if _OUTSIDE.search(bare):
        return None
    quoted = "".join(one or other for one, other in _QUOTED.findall(bare))
    spoken = _MARK.sub("", quoted.replace("\\n", " | "))
    if _SENTENCE.search(spoken):
        return None
    marks = set(_MARK.findall(bare))
    for name, (needed, allowed) in _MARKS.items():
        ends = name != "Zephyr" or "eos_token" in bare or "</s>" in marks
        if needed <= marks <= needed | allowed and ends:
            return name
    return None


def template_of(chat_template: str | None) -> tuple[str, str]:
    """TEMPLATE and the stops for a Modelfile, empty where none is known, and what a reader should know.

    Parameters
    ----------
    chat_template
        The checkpoint's (Jinja); None if it is not at hand.
    """
    if chat_template is None:
        return (
            "",
            "no TEMPLATE is written, as the chat template is not at hand: Ollama takes the one in the file",
        )
    name = family_of(chat_template)
    if name is None:
        return "", (
            "no TEMPLATE is written, as the checkpoint's has more than turns of one known form: Ollama takes the one "
            "in the file"
        )
    turns = FAMILIES[name]
    stops = "".join(f"\nPARAMETER stop {json.dumps(stop)}" for stop in turns.stops)
    return (
        f'TEMPLATE """{go_template(turns)}"""{stops}',
        f"TEMPLATE is that of {name}, as the checkpoint's own is",
    )


def go_template(turns: Turns) -> str:
    """Go's template of turns, on one line of actions: text is in quotes, so nothing is trimmed."""
    system = _turn(turns.system)
    begins = ""
    if turns.in_user is not None:
        # The system's words are the first message where there are any, so that the user's is the second.
        system = ""
        begins = "{{ if and $.System (le $i 1) }}{{ $.System }}" + _text(turns.in_user) + "{{ end }}"
    before, after = turns.assistant
    return "".join((
        "{{ range $i, $_ := .Messages }}",
        "{{ $last := eq (len (slice $.Messages $i)) 1 }}",
        '{{ if eq .Role "system" }}', system,
        '{{ else if eq .Role "user" }}', _text(turns.user[0]), begins, "{{ .Content }}", _text(turns.user[1]),
        '{{ else if eq .Role "assistant" }}', _text(before), "{{ .Content }}",
        "{{ if not $last }}", _text(after), "{{ end }}",
        "{{ end }}",
        '{{ if and $last (ne .Role "assistant") }}', _text(before), "{{ end }}",
        "{{ end }}",
    ))  # fmt: skip


def _turn(turn: tuple[str, str]) -> str:
    return _text(turn[0]) + "{{ .Content }}" + _text(turn[1])


def _text(text: str) -> str:
    """Literal text as an action of Go's: its quoted strings are JSON's for what stands here."""
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""
