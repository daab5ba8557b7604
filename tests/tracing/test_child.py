"""The child process: what it answers, and that nothing of it stays whatever happens."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from willfit.errors import BadInput
from willfit.tracing import cache, child
from willfit.tracing.question import Question, Train
from willfit.tracing.trace import Mark, PhaseStart, Place, Storage, Trace
from willfit.training.settings import PrecisionSettings, TrainingSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fake CUDA is for Linux")

TINY = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64,
}  # fmt: skip


def question(**settings):
    return Question(Train(TINY, TrainingSettings(seq_len=32, **settings)))


class Deadly:
    """Kills whoever reads it."""

    def __reduce__(self):
        return os.abort, ()


def children():
    return {process.pid for process in psutil.Process().children(recursive=True)}


def left_behind(tmp_path):
    return [path for path in tmp_path.iterdir() if path.name.startswith("willfit-trace-")]


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_paths_agree_where_there_is_no_dropout():
    # Fake CPU tensors stand in where fake CUDA ones cannot be had. Random state and step counters differ.
    amp = PrecisionSettings(weights="fp32", compute="bf16", autocast=True)
    asked = [question(), question(precision=amp)]
    traces = child.traced_all([*asked, *(replace(one, path="fake-cpu") for one in asked)])
    assert [trace.path for trace in traces] == ["fake-cuda"] * 2 + ["fake-cpu"] * 2
    for cuda, cpu in zip(traces[:2], traces[2:], strict=True):
        assert cuda.kernels == cpu.kernels
        assert max(cpu.totals) == pytest.approx(max(cuda.totals), abs=300)


def test_each_question_has_its_own_answer():
    broken = Question(Train({"model_type": "no such type"}, TrainingSettings(seq_len=32)))
    first, second, third = child.traced_all([question(), broken, question(micro_batch=2)])
    assert isinstance(second, BadInput)
    assert "no such type" in str(second)
    assert max(first.totals) < max(third.totals)


def test_progress_names_phases_in_order():
    told = []
    child.traced(question(), told.append)
    assert told
    assert {one.phase for one in told} <= {"forward", "backward"}
    assert [one.events for one in told] == sorted(one.events for one in told)


def test_a_child_that_dies_is_told_of(tmp_path):
    with pytest.raises(BadInput, match="SIGABRT"):
        child.traced(Question(Deadly()))
    assert not left_behind(tmp_path)


def test_an_interrupt_leaves_nothing(tmp_path):
    before = children()

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.traced(question(), interrupt)
    assert children() == before
    assert not left_behind(tmp_path)


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(child, "find_spec", lambda name: None if name == "torch" else name)
    with pytest.raises(BadInput, match=r"pip install 'willfit\[trace\]'"):
        child.traced(question())


# The cache


TRACE = Trace(
    [
        Storage(
            8,
            "empty",
            (2, 1),
            "float32",
            Place(1, 1, "forward", "lm_head", "", True, "a.py:3"),
            "logits",
            "x",
            2,
        )
    ],
    [0, ~0],
    [Mark(1, "forward", 1, 1)],
    [PhaseStart(0, 1, 1, "forward")],
    "fake-cpu",
    {"torch": "2"},
    {"flash": 3},
    ["a note"],
)


def test_a_trace_comes_back_as_it_was():
    assert Trace.from_bytes(TRACE.to_bytes()) == TRACE
    assert Trace.from_bytes(Trace().to_bytes()) == Trace()
    with pytest.raises(ValueError, match="not a trace"):
        Trace.from_bytes(b"something else")


def test_kept_traces_are_found_by_all_that_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keys = {
        cache.key_of(one)
        for one in (question(), question(micro_batch=2), replace(question(), path="fake-cpu"))
    }
    assert len(keys) == 3
    key = cache.key_of(question())
    assert key == cache.key_of(question())
    assert cache.found(key) is None
    cache.keep(key, TRACE)
    assert cache.found(key) == TRACE
    (cache.folder() / key).write_bytes(b"broken")
    assert cache.found(key) is None


def test_the_oldest_traces_go(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_KEPT", 2)
    for age, name in enumerate("abc"):
        cache.keep(name, TRACE)
        os.utime(cache.folder() / name, (age, age))
    cache.keep("d", TRACE)
    assert {path.name for path in cache.folder().iterdir()} == {"c", "d"}


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    cache.keep("a", TRACE)
    assert cache.found("a") is None
    assert isinstance(cache.folder(), Path)
