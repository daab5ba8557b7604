"""Ollama's templates say what the checkpoint's own say: both are run, Jinja's by jinja2 and Go's by a reader of its
few actions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest

from willfit.checkpoints.chat_template import chat_template_of
from willfit.checkpoints.gguf import GgufHeader
from willfit.launch.modelfile import parse_modelfile
from willfit.launch.writing.templates import FAMILIES, family_of, go_template, template_of

#: As checkpoints have them, by family.
CHECKPOINTS = {
    "ChatML": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
        "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "Llama 3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
        "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 "
        "%}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "Gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
        "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "Phi-3": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
        "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "Phi-4": (
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
        "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
    ),
    "Zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
        "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
        "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
}  # fmt: skip

_TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'One {{ .Role }} "quoted"?'},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And\ntwo lines?"},
]


def of_jinja(template: str, messages: list[dict[str, str]]) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    made: str = environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, bos_token="", eos_token="</s>"
    )
    return made


def of_go(template: str, messages: list[dict[str, str]]) -> str:
    """What Go's template package makes of the actions that are written here; any other is an error."""
    tokens = _actions(template)
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    out = []
    for index, message in enumerate(messages):
        last = index == len(messages) - 1
        names = {"$.System": system, ".Content": message["content"]}
        tests = {
            'eq .Role "system"': message["role"] == "system",
            'eq .Role "user"': message["role"] == "user",
            'eq .Role "assistant"': message["role"] == "assistant",
            "not $last": not last,
            'and $last (ne .Role "assistant")': last and message["role"] != "assistant",
            "and $.System (le $i 1)": bool(system) and index <= 1,
        }
        stack: list[list[bool]] = []  # of each `if`: whether it is live now, whether a branch was taken
        for token in tokens:
            live = all(state[0] for state in stack)
            if token.startswith("if "):
                stack.append([tests[token[3:]], tests[token[3:]]])
            elif token.startswith("else if "):
                holds = not stack[-1][1] and tests[token[8:]]
                stack[-1] = [holds, stack[-1][1] or holds]
            elif token == "end":
                stack.pop()
            elif token == "$last := eq (len (slice $.Messages $i)) 1" or not live:
                continue
            else:
                out.append(json.loads(token) if token.startswith('"') else names[token])
        assert not stack
    return "".join(out)


def _actions(template: str) -> list[str]:
    """The actions inside `range`, in which quotes may hold braces."""
    found, at = [], 0
    one = re.compile(r'\{\{ ((?:"(?:\\.|[^"\\])*"|[^"}])*) \}\}')
    while at < len(template):
        match = one.match(template, at)
        assert match is not None, template[at:]
        found.append(match[1])
        at = match.end()
    assert found[0] == "range $i, $_ := .Messages"
    assert found[-1] == "end"
    return found[1:-1]


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_both_say_the_same(family: str) -> None:
    assert family_of(CHECKPOINTS[family]) == family
    talk = _TALK[1:] if family == "Gemma" else _TALK
    expected = of_jinja(CHECKPOINTS[family], talk)
    made = of_go(go_template(FAMILIES[family]), talk)
    if family == "Zephyr":
        # Its own has a line break less behind the last word, which Hugging Face's own example adds.
        expected, made = expected.rstrip("\n"), made.rstrip("\n")
    assert made == expected


def test_system_inside_of_a_turn() -> None:
    """Gemma has no turn for the system; Gemma 3's own template puts its words in front of the user's."""
    assert of_go(go_template(FAMILIES["Gemma"]), _TALK).startswith(
        "<start_of_turn>user\nBe brief.\n\nOne {{ .Role }}"
    )
    assert of_go(go_template(FAMILIES["Gemma"]), _TALK).count("Be brief.") == 1


@pytest.mark.parametrize(
    "more",
    [
        "{% if tools %}{{ tools }}{% endif %}",
        "{{ '<think>\n' }}",
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}"
        "{% endif %}",
        "{{ strftime_now('%d') }}",
        "{{ '<|channel|>' }}",
        "x" * 2**17,
    ],
)
def test_more_than_turns_is_not_guessed(more: str) -> None:
    assert family_of(CHECKPOINTS["ChatML"] + more) is None
    text, note = template_of(CHECKPOINTS["ChatML"] + more)
    assert text == ""
    assert "no TEMPLATE is written" in note


def test_without_a_template() -> None:
    assert template_of(None) == ("", template_of(None)[1])
    assert "not at hand" in template_of(None)[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_modelfile_reads_back(family: str) -> None:
    text, _ = template_of(CHECKPOINTS[family])
    assert '"""' not in text.removeprefix('TEMPLATE """').partition('"""')[0]
    file = parse_modelfile(f"FROM ./a.gguf\nPARAMETER num_ctx 4096\n{text}\n")
    stops = [value for name, value in file.parameters if name == "stop"]
    assert tuple(stops) == FAMILIES[family].stops


def test_where_templates_lie(tmp_path: Path) -> None:
    def header(metadata: dict[str, Any]) -> GgufHeader:
        return GgufHeader(3, False, metadata, (), (0,))

    assert chat_template_of("x", header({"tokenizer.chat_template": "in the file"})) == "in the file"
    (tmp_path / "config.json").write_text("{}")
    assert chat_template_of(str(tmp_path)) is None
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "usual"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert chat_template_of(str(tmp_path)) == "usual"
    assert chat_template_of(str(tmp_path / "config.json")) == "usual"
    (tmp_path / "chat_template.jinja").write_text("newer")
    assert chat_template_of(str(tmp_path)) == "newer"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    (tmp_path / "tokenizer_config.json").write_text("{]")
    assert chat_template_of(str(tmp_path)) is None
