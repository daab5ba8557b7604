"""Steps of the torch that is installed, and recorded ones of older torch and of other libraries, to the byte."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from small_model import SMALL
from tracker import measure

from willfit.training.optimizers import optimizer_memory

RUNS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "optimizer_runs.jsonl").read_text().splitlines()
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

#: Numbers that a step computes beside its tensors (norms, means of a row): a few bytes for each row at most.
SCALARS = 1024

DECAY = {"weight_decay": 0.1}
NATIVE = [
    ("adam", torch.optim.Adam, {}), ("adam", torch.optim.Adam, DECAY), ("adam", torch.optim.Adam, {"amsgrad": True}),
    ("adamw", torch.optim.AdamW, DECAY), ("nadam", torch.optim.NAdam, DECAY), ("radam", torch.optim.RAdam, {}),
    ("adamax", torch.optim.Adamax, {}), ("adagrad", torch.optim.Adagrad, {}), ("adadelta", torch.optim.Adadelta, DECAY),
    ("rmsprop", torch.optim.RMSprop, {"momentum": 0.9, "centered": True}), ("sgd", torch.optim.SGD, {}),
    ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True, **DECAY}),
    ("torch_adafactor", torch.optim.Adafactor, {}),
]  # fmt: skip


def everything(found):
    """Bytes of all states: on a processor what is on the host is counted as well."""
    return sum(state.bytes for state in found.states)


WAYS = {"foreach": {"foreach": True}, "for-loop": {"foreach": False}, "fused": {"fused": True}}
FUSED = ("adam", "adamw", "sgd")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "kind", "options", "way"),
    [(*entry, way) for entry in NATIVE for way in WAYS if way != "fused" or entry[0] in FUSED],
)
def test_torch(name, kind, options, way, dtype):
    def make(named):
        return kind([one for _, one in named], lr=1e-3, **options, **WAYS[way])

    stays, _, later = measure(make, DTYPES[dtype])
    found = optimizer_memory(name, SMALL, dtype, way, options)
    assert everything(found) == stays
    assert abs(found.step.bytes - later) <= (SCALARS if name == "torch_adafactor" else 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_muon(dtype):
    stays, _, later = measure(
        lambda named: torch.optim.Muon([one for name, one in named if "proj" in name]), DTYPES[dtype]
    )
    hidden = [one for one in SMALL if "proj" in one.name]
    found = optimizer_memory("torch_muon", hidden, dtype)
    assert everything(found) == stays
    assert abs(found.step.bytes - later) <= 4


@pytest.mark.parametrize("beta1", [None, 0.9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_transformers_adafactor(dtype, beta1):
    from transformers.optimization import Adafactor

    stays, _, later = measure(
        lambda named: Adafactor(
            [one for _, one in named], lr=1e-3, beta1=beta1, scale_parameter=False, relative_step=False
        ),
        DTYPES[dtype],
    )
    found = optimizer_memory("adafactor", SMALL, dtype, options={} if beta1 is None else {"beta1": beta1})
    assert everything(found) == stays
    assert abs(found.step.bytes - later) <= SCALARS


@pytest.mark.parametrize(
    "run", RUNS, ids=[f"{run['library']}-{run['version']}-{run['name']}-{n}" for n, run in enumerate(RUNS)]
)
def test_recorded(run):
    versions = {"torch": run["version"]} if run["library"] == "torch" else {}
    found = optimizer_memory(
        run["name"], SMALL, run["dtype"], run["implementation"], run["options"], versions
    )
    # optimi keeps a counter for all parameters together, torchao the learning rate as a tensor.
    assert abs(everything(found) - run["stays"]) <= 4
    if run["later"] is None:
        return
    # A decomposition's matrices are counted; what CUDA takes inside of it was not run here.
    later = max(found.step.low, found.update.low if found.update else 0)
    assert abs(later - run["later"]) <= SCALARS


def test_clipping_is_in_place():
    """Gradients are scaled in place, so that only norms are made."""
    from willfit.training.optimizers import clip_norm

    def make(named):
        parameters = [one for _, one in named]

        class Clip(torch.optim.SGD):
            def step(self):
                torch.nn.utils.clip_grad_norm_(parameters, 1e-3)

        return Clip(parameters, lr=0.1)

    _, _, later = measure(make)
    found = clip_norm(SMALL, foreach=False)
    assert later <= found.bytes + 16
    assert clip_norm(SMALL).bytes == found.bytes + 17 * 4
