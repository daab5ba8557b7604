from __future__ import annotations

from pathlib import Path

import pytest

from willfit.errors import BadInput
from willfit.tracing.worker.scripts.program import program_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")


@pytest.mark.parametrize(
    ("words", "name", "arguments", "module"),
    [
        ("train.py --lr 1e-4", "train.py", ("--lr", "1e-4"), False),
        ("python -u -W ignore train.py -m x", "train.py", ("-m", "x"), False),
        ("python3.11 -m pkg.train a b", "pkg.train", ("a", "b"), True),
        ("-m pkg.train a", "pkg.train", ("a",), True),
        ("torchrun --nnodes=1 --nproc_per_node 8 train.py x", "train.py", ("x",), False),
        ("torchrun --nproc_per_node 8 -m pkg.train x", "pkg.train", ("x",), True),
        ("python -m torch.distributed.run --nproc_per_node=2 train.py", "train.py", (), False),
        (
            "accelerate launch --num_processes 4 --mixed_precision bf16 train.py -x",
            "train.py",
            ("-x",),
            False,
        ),
        ("deepspeed --num_gpus 2 train.py --deepspeed z.json", "train.py", ("--deepspeed", "z.json"), False),
        ("uv run train.py", "train.py", (), False),
        ("CUDA_VISIBLE_DEVICES=0 python train.py", "train.py", (), False),
    ],
)
def test_launchers(words: str, name: str, arguments: tuple[str, ...], module: bool) -> None:
    found = program_of(words.split())
    assert (found.name, found.arguments, found.module) == (name, arguments, module)


def test_variables() -> None:
    assert program_of(["A=1", "python", "train.py"]).variables == {"A": "1"}


@pytest.mark.parametrize("words", ["", "python", "python absent.py", "python -c 1", "vllm serve model"])
def test_no_program(words: str) -> None:
    with pytest.raises(BadInput):
        program_of(words.split())
