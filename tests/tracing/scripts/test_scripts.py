"""Programs of users, each traced in a process of its own as the command line does."""

from __future__ import annotations

import json
import struct
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from willfit.errors import BadInput
from willfit.tracing.child import traced
from willfit.tracing.question import Question, Script, Train
from willfit.tracing.trace import Trace
from willfit.training.settings import (
    CheckpointingSettings,
    LossSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

DATA = Path(__file__).parent / "data"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500,
    "max_position_embeddings": 128, "tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
#: Of an embedding and a head, and of 2 layers with 4 projections, 3 matrices and 2 norms each, and the last norm.
PARAMETERS = 2 * 500 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def run(name: str, *words: str, steps: int = 2, ranks: int = 1) -> Trace:
    return traced(Question(Script(("python", str(DATA / name), *words), steps, ranks)))


def at_peak(trace: Trace) -> Counter[str]:
    found: Counter[str] = Counter()
    for index in trace.alive_at(trace.peak_event):
        found[trace.storages[index].category] += trace.storages[index].nbytes
    return found


def named(trace: Trace, category: str) -> dict[str, int]:
    return {one.name: one.nbytes for one in trace.storages if one.category == category}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {
        "model/config.json"
    }


def test_a_plain_loop(elsewhere: Path) -> None:
    trace = run("plain.py", "--accumulation", "2")
    parameters = 4 * (1000 * 64 + 32 * 64 + 2 * (2 * 64 + 64 * 256 + 256 + 256 * 64 + 64) + 1)
    peak = at_peak(trace)
    assert sum(named(trace, "parameter").values()) == peak["parameter"] == peak["gradient"] == parameters
    assert "blocks.1.down.weight" in named(trace, "parameter")
    assert "head.weight" not in named(trace, "parameter")  # it is the embedding's
    assert named(trace, "buffer") == {"positions": 8 * 32}
    assert peak["optimizer_state"] == 2 * parameters
    assert peak["input"] >= 4 * 33 * 8
    micros = [(mark.step, mark.micro) for mark in trace.marks if mark.name == "backward"]
    assert micros == [(1, 1), (1, 2), (2, 1), (2, 2)]
    order = [mark.name for mark in trace.marks if mark.step == 2 and mark.micro != 1]
    assert order == ["output", "forward", "backward", "clip", "optimizer", "end"]
    assert any(
        one.place.module == "blocks.0.up" and one.place.source.startswith("plain.py:")
        for one in trace.storages
    )
    assert files(elsewhere) == set()
    assert "checkpoints are not written: the weights have no values" in trace.notes


@pytest.mark.parametrize("micros", [1, 2])
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_a_loop_by_hand_is_the_run_by_settings(micros: int, checkpointing: str) -> None:
    words = ("model", "2", "96", str(micros), *(["checkpoint"] if checkpointing == "full" else []))
    settings = TrainingSettings(
        micro_batch=2, seq_len=96, gradient_accumulation=micros,
        precision=PrecisionSettings(weights="bf16", autocast=False),
        optimizer=OptimizerSettings(name="adamw", implementation="fused"),
        checkpointing=CheckpointingSettings(checkpointing), loss=LossSettings(keeps_logits=False), padded=False,
    )  # fmt: skip
    script, asked = run("exact.py", *words), traced(Question(Train(CONFIG, settings, steps=2)))
    assert script.totals[script.peak_event] == asked.totals[asked.peak_event]
    assert at_peak(script) == at_peak(asked)
    assert script.kernels == asked.kernels


@pytest.mark.parametrize("built", ["config", "pretrained"])
def test_trainer(built: str, elsewhere: Path) -> None:
    trace = run("trainer.py", "model", built, "5")
    assert sum(named(trace, "parameter").values()) == 2 * PARAMETERS
    assert at_peak(trace)["optimizer_state"] == 4 * PARAMETERS + 4 * 21  # a counter for each of 21 parameters
    assert trace.kernels == {
        "flash": 2 * (2 * 2 * 2 + 8)
    }  # layers, in 2 steps of 2, twice each, and 8 batches once
    assert any(one.place.again for one in trace.storages)
    assert files(elsewhere) == set()
    assert any("tensorboard" in note for note in trace.notes)


def test_weights_are_not_read(elsewhere: Path) -> None:
    """The dtype is in the header of a file whose numbers are holes."""
    header = {"lm_head.weight": {"dtype": "F16", "shape": [500, 64], "data_offsets": [0, 64000]}}
    said = json.dumps(header).encode()
    file = elsewhere / "model" / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(said)) + said)
    with file.open("r+b") as opened:
        opened.truncate(8 + len(said) + 64000)
    script = elsewhere / "own.py"
    script.write_text(
        "import torch, transformers\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained('model', device_map='cuda')\n"
        "assert model.dtype is torch.float16 and model.device.type == 'cuda'\n"
        "model(torch.ones(1, 9, dtype=torch.int64, device='cuda'))\n"
    )
    trace = traced(Question(Script(("own.py",))))
    assert sum(named(trace, "parameter").values()) == 2 * PARAMETERS
    assert "own.py ended after 0 of 2 optimizer steps" in trace.notes
    assert "weights are not read: models are built from their configs" in trace.notes


def test_accelerate_and_lora(elsewhere: Path) -> None:
    trace = run("accelerated.py", "model")
    adapters = {name: size for name, size in named(trace, "parameter").items() if "lora" in name}
    assert sum(adapters.values()) == 4 * 2 * 4 * (64 + 64 + 64 + 32)
    assert "model.layers.1.self_attn.q_proj.lora_A.default.weight" in adapters
    assert trace.kernels.keys() == {"efficient"}  # as the data has padding
    moments = [
        one.nbytes for one in trace.storages if one.category == "optimizer_state" and one.name == "exp_avg"
    ]
    assert sorted(moments) == sorted(adapters.values())
    assert files(elsewhere) == set()


@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")
def test_trl(elsewhere: Path) -> None:
    words = {"<pad>": 0, "<unk>": 1, "</s>": 2, "a": 3}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    (elsewhere / "tokenizer.json").write_text(json.dumps(tokenizer))
    trace = run("sft.py", "model", "tokenizer.json")
    assert max(mark.step for mark in trace.marks) == 2
    assert any("lora_B" in name for name in named(trace, "parameter"))


def test_a_large_model_costs_nothing_and_nothing_runs_afterwards(elsewhere: Path) -> None:
    trace = run("large.py", "compiled")
    assert sum(named(trace, "parameter").values()) == 64 * 2 * 4096 * 4097
    assert (elsewhere / "written").read_text() == ""  # the script's `finally` comes to its first operation
    assert (
        trace.totals[-1]
        == trace.totals[next(m.event for m in trace.marks if m.name == "start" and m.step == 2) - 1]
    )
    assert any(note.startswith("torch.compile was left out") for note in trace.notes)


def test_values_are_those_of_the_data(elsewhere: Path) -> None:
    torch.save(torch.full((6, 8), 0.5), elsewhere / "data.pt")
    trace = run("values.py")
    assert [mark.step for mark in trace.marks if mark.name == "optimizer"] == [1, 1, 2, 2]
    notes = " ".join(trace.notes)
    assert "places where a mask is set: every element counts (values.py:" in notes
    assert "whole numbers that come from the model were read as 1 (values.py:" in notes


def test_one_of_several_processes() -> None:
    trace = run("accelerated.py", "model", ranks=4)
    buckets = [one for one in trace.storages if one.category == "communication"]
    assert buckets


@pytest.mark.parametrize(
    ("code", "said", "hint"),
    [
        ("import torch\nm = torch.nn.Linear(3, 3)\nm(torch.ones(2, 3)).sum().backward()",
         "put nothing on the device", "cuda"),
        ("import torch\nx = torch.ones(2, device='cuda')\nraise KeyError('here')",
         "own.py failed: KeyError: 'here' (own.py:3: raise KeyError('here'))", "fake CUDA"),
        ("import torch\nm = torch.nn.Linear(3, 3).cuda()\nm(torch.ones(2, 4).cuda())",
         "(own.py:3: m(torch.ones(2, 4).cuda()))", ""),
        ("import torch\nx = torch.randn(9, device='cuda')\ntorch.bincount(x.long())",
         "aten.bincount.default cannot be traced: its result depends on values", "on the host"),
        ("raise SystemExit('no data')", "own.py ended by itself with 'no data'", ""),
    ],
)  # fmt: skip
def test_what_goes_wrong(code: str, said: str, hint: str, elsewhere: Path) -> None:
    (elsewhere / "own.py").write_text(code)
    with pytest.raises(BadInput) as raised:
        traced(Question(Script(("torchrun", "--nproc_per_node", "1", "own.py", "--flag"))))
    assert said in raised.value.message
    assert hint in (raised.value.hint or "")
