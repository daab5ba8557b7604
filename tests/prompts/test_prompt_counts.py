"""Counted tokens are those of transformers, whatever the tokenizer; what a template may not do ends in one line."""

import json
import re

import gguf
import pytest
from tokenizer_samples import CHATML, byte_level, prose, symbols, transformers_count, unigram
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.folder import read_path
from willfit.checkpoints.tokenizer import tokenizer_files
from willfit.errors import BadInput
from willfit.prompts import counting, worker
from willfit.prompts.counting import counted
from willfit.prompts.messages import Prompt, read_prompts

BUNDLED = Checkpoint("org/model", "catalogue")
TOOL = {
    "type": "function",
    "function": {"name": "wetter", "description": "<b>'Wie' & wo?</b>", "parameters": {"type": "object"}},
}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "How many numbers? ∑ 12345"}]},
    {"role": "assistant", "content": "  three\n", "reasoning": "the people count"},
    {"role": "user", "content": prose(500)},
]


@pytest.fixture(params=[byte_level, unigram])
def folder(request, tmp_path):
    request.param(tmp_path)
    return tmp_path


def count(folder, *messages, tools=()):
    prompt = Prompt("p.json", tuple(messages), tuple(tools))
    return counted([prompt], tokenizer_files(BUNDLED, str(folder)))[0]


@pytest.mark.parametrize("make", [prose, symbols])
def test_three_thousand_characters(folder, tmp_path, make):
    file = tmp_path / "prompt.txt"
    file.write_text(make(3000), encoding="utf-8")
    found = counted(read_prompts([str(file)]), tokenizer_files(BUNDLED, str(folder)))[0]
    alone = transformers_count(folder, [{"role": "user", "content": make(3000)}])
    assert (found.tokens, found.templated) == (alone, True)
    assert 0 < found.template_tokens < 40


def test_prose_and_symbols_are_told_apart(tmp_path):
    byte_level(tmp_path)
    of_prose, of_symbols = (
        count(tmp_path, {"role": "user", "content": make(3000)}).tokens for make in (prose, symbols)
    )
    # A word of prose is a token or two, and a symbol outside of ASCII two bytes and more.
    assert of_prose < 1000 < 3000 < of_symbols


@pytest.mark.parametrize("tools", [[], [TOOL, TOOL]])
def test_turns_tools_and_reasoning(folder, tools):
    found = count(folder, *CHAT, tools=tools)
    assert found.tokens == transformers_count(folder, CHAT, tools or None)
    # Without tools: four turns and the answer's beginning; each tool is at least its own name.
    fewer = count(folder, *CHAT)
    assert (found.template_tokens > fewer.template_tokens) is bool(tools)


def test_a_text_without_a_template_is_taken_as_it_is(tmp_path):
    tokenizer = byte_level(tmp_path, template=None)
    prompt = Prompt("p.txt", ({"role": "user", "content": prose(300)},), plain=True)
    found = counted([prompt], tokenizer_files(BUNDLED, str(tmp_path)))[0]
    assert (found.tokens, found.template_tokens, found.templated) == (
        len(tokenizer.encode(prose(300)).ids), 0, False,
    )  # fmt: skip
    with pytest.raises(BadInput, match="has no chat template"):
        count(tmp_path, {"role": "user", "content": "hello"})


def test_the_newer_file_has_the_template(tmp_path):
    byte_level(tmp_path)
    before = count(tmp_path, {"role": "user", "content": "hello"}).tokens
    (tmp_path / "chat_template.jinja").write_text(CHATML + "<|im_end|><|im_end|>")
    assert count(tmp_path, {"role": "user", "content": "hello"}).tokens == before + 2
    assert transformers_count(tmp_path, [{"role": "user", "content": "hello"}]) == before + 2


@pytest.mark.parametrize(
    ("pre", "split"),
    [
        ("qwen2", PRETOKENIZE_REGEX),
        ("llama-bpe", TikTokenConverter().pattern),
        ("gpt-2", None),
    ],
)
def test_a_gguf_file_has_its_own_vocabulary(tmp_path, pre, split):
    tokenizer = byte_level(tmp_path, split)
    path = write_gguf(tmp_path, tokenizer, pre)
    found = tokenizer_files(read_path(str(path)))
    assert found.special == {"eos_token": "<|im_end|>"}
    texts = [prose(3000), symbols(3000), "it's DON'T 1234567\r\n\n  \tx  ÄÖü e\u0301 <|im_end|> ", "a" * 300]
    for text in texts:
        messages = [{"role": "user", "content": text}]
        got = counted([Prompt("p", tuple(messages))], found)[0]
        assert got.tokens == transformers_count(tmp_path, messages), text[:40]


def write_gguf(folder, tokenizer, pre, kind="gpt2"):
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "qwen3")
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|im_") else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.token_to_id("<|im_end|>"))
    writer.add_chat_template(CHATML)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("pre", "kind", "said"),
    [("poro-chat", "gpt2", "pre-tokenizer"), ("default", "llama", "cannot be counted")],
)
def test_vocabularies_that_are_not_known(tmp_path, pre, kind, said):
    path = write_gguf(tmp_path, byte_level(tmp_path), pre, kind)
    with pytest.raises(BadInput, match=said) as caught:
        tokenizer_files(read_path(str(path)))
    assert "--tokenizer" in caught.value.hint


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "chat template did not end",
        ),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError|UndefinedError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ namespace(__class__=1) }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "SecurityError|UndefinedError"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ raise_exception('no system turn') }}", "no system turn"),
        ("{{ 'x' * 99999999999 }}", "more memory|MemoryError"),
    ],
)
def test_what_a_template_may_not_do(tmp_path, monkeypatch, template, said):
    monkeypatch.setattr(counting, "LIMIT_S", 3.0)
    byte_level(tmp_path, template=template)
    with pytest.raises(BadInput) as caught:
        count(tmp_path, {"role": "user", "content": "hello"})
    assert re.search(said, caught.value.message)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("broken", ["{}", "[]", "no json", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_a_tokenizer_that_is_none(tmp_path, broken):
    byte_level(tmp_path)
    (tmp_path / "tokenizer.json").write_text(broken)
    with pytest.raises(BadInput, match="its tokenizer cannot be used"):
        count(tmp_path, {"role": "user", "content": "hello"})


def test_what_is_not_installed(tmp_path, monkeypatch):
    byte_level(tmp_path)
    monkeypatch.setattr(counting, "NEEDED", ("jinja2", "surely_no_module"))
    with pytest.raises(BadInput, match=r"needs surely_no_module .*willfit\[tokens\]"):
        count(tmp_path, {"role": "user", "content": "hello"})


def test_the_worker_bounds_its_memory():
    assert 2**30 < worker._MEMORY < 2**40
