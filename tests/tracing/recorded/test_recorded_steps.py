"""The recorded steps are those of the installed torch, transformers and peft, to the byte."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("record", Path(__file__).with_name("record.py"))
record = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(record)

from willfit.tracing.child import traced_all  # noqa: E402

LINES = record.recorded()

#: Traced anew: each has something that the others have not.
AGAIN = (
    "llama bf16", "llama fp32 checkpointed", "llama amp reentrant", "llama bf16 padded", "gpt2 bf16", "mixtral amp",
    "deepseek_v3 bf16 flash_attention_2", "qwen3_next bf16", "falcon bf16 checkpointed", "llama tied bf16",
    "llama bf16 lora dropout", "llama amp dora", "llama bf16 prefix", "gpt2 lora", "llama bf16 accumulated",
)  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="the shims know torch's libraries on Linux only")
def test_lines_are_what_is_traced_now():
    found = [record.said(LINES[name]) for name in AGAIN]
    traces = traced_all([record.question_of(one) for one in found])
    assert [record.line_of(one, trace) for one, trace in zip(found, traces, strict=True)] == [
        LINES[name] for name in AGAIN
    ]


def test_a_layer_keeps_what_is_counted_by_hand():
    # Two norms: input in float32, its inverse deviation, itself normalized, and with weights; queries, keys and values;
    # log-sum-exps and the output; gate, its activation, up and their product; 24 bytes of random state.
    h, f, heads, query, key, tokens = 176, 464, 8, 8 * 24, 2 * 24, 2 * 144
    norms = 2 * (4 * h + 4 + 2 * h + 2 * h)
    kept = norms + 2 * (query + 2 * key) + 2 * query + 4 * heads + 4 * 2 * f
    assert LINES["llama bf16"]["kept"]["model.layers.1"] == kept * tokens + 24


def test_lines_are_of_the_scenarios():
    assert [record.said(line) for line in LINES.values()] == record.scenarios.all_scenarios()
