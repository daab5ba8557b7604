"""Fully sharded ranks: which checkpointed inputs outlive their layer, as torch itself keeps them."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from willfit.asking import find_subject, machine_of
from willfit.estimate import Estimate
from willfit.training.estimate import estimate
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    PrecisionSettings,
    TrainingSettings,
)

SMALL = "Qwen/Qwen2.5-0.5B"
LAYERS, WIDTH, TOKENS = 24, 896, 4096
ADAPTED = TrainingSettings(
    attention="flash_attention_2",
    seq_len=TOKENS,
    packed=True,
    precision=PrecisionSettings(recipe="pure-bf16"),
    adapter=AdapterSettings(rank=8, targets=("q_proj", "v_proj")),
    layout=LayoutSettings(data="fsdp1"),
    loss=LossSettings("liger"),
    checkpointing=CheckpointingSettings("full", reentrant=True),
)


def ask(settings: TrainingSettings, model: str = SMALL, gpus: str = "2xa100-80g") -> Estimate:
    return estimate(find_subject(model, offline=True)[0], machine_of(gpus), settings)


def instant(answer: Estimate, name: str) -> dict[str, int]:
    return next(
        one
        for one in answer.details["training"]["instants"]
        if one["name"].startswith(f"recompute of {name},")
    )


def measured(kind: str, store: Path) -> list[int]:
    """Activations that are alive when each layer runs again, the last layer first."""
    worker = Path(__file__).with_name("fsdp_worker.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(worker), str(rank), kind, str(store)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    lines = [rank.communicate(timeout=120)[0] for rank in ranks]
    counts: list[int] = json.loads(lines[0])
    return counts


@pytest.mark.parametrize(("kind", "reentrant"), [("reentrant", True), ("not", False)])
def test_inputs_live_as_long_as_in_torch(kind: str, reentrant: bool, tmp_path: Path) -> None:
    """From layer to layer one checkpoint goes; where hooks keep it with its gradient, two stay."""
    pytest.importorskip("torch")
    counts = measured(kind, tmp_path / "store")
    steps = {later - earlier for earlier, later in pairwise(counts[1:])}
    assert len(steps) == 1, counts
    settings = replace(ADAPTED, checkpointing=CheckpointingSettings("full", reentrant=reentrant))
    answer = ask(settings)
    size = 2 * WIDTH * TOKENS
    ours = {
        instant(answer, f"layer {index}")["kept_bytes"]
        + instant(answer, f"layer {index}")["passing_bytes"]
        - instant(answer, f"layer {index + 1}")["kept_bytes"]
        - instant(answer, f"layer {index + 1}")["passing_bytes"]
        for index in range(2, LAYERS - 2)
    }
    assert ours == {size * steps.pop()}


def test_offloaded_shards_leave_the_device() -> None:
    """Weights, gradients and states of all ranks lie on the host: 16 B a parameter in float32."""
    settings = TrainingSettings(
        seq_len=512,
        precision=PrecisionSettings(recipe="fsdp-mixed"),
        layout=LayoutSettings(data="fsdp2"),
        offload=OffloadSettings(params=True),
    )
    answer = ask(settings)
    held = {term.name: term.bytes for term in answer.devices[0].terms}
    assert not {"weights", "optimizer_state", "gradients"} & set(held)
    parameters = 494_032_768
    host = {term.name: term.bytes for term in answer.host.terms}
    assert host["offloaded_weights"] == pytest.approx(8 * parameters, rel=1e-3)
    assert host["offloaded_states"] == pytest.approx(8 * parameters, rel=1e-3)
