"""The closed form against traces, which are equal to real ranks to the byte (`tests/tracing/distributed`)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from willfit.asking import find_subject, machine_of
from willfit.tracing import asking
from willfit.tracing.asking import allocator_settings
from willfit.training.estimate import estimate
from willfit.training.settings import (
    CheckpointingSettings,
    LayoutSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

#: Head and token table are as large as the layers together, so that units at both ends count.
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "intermediate_size": 2816,
    "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000,
    "max_position_embeddings": 2048, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SETTINGS = TrainingSettings(
    seq_len=256,
    optimizer=OptimizerSettings("adamw", "fused"),
    checkpointing=CheckpointingSettings("full", reentrant=False),
)
MIXED = PrecisionSettings(weights="fp32", compute="bf16")
WIDE = replace(MIXED, reduce="fp32")
NARROW = PrecisionSettings(weights="bf16")
SECOND = LayoutSettings(data="fsdp2")


@pytest.mark.parametrize(
    ("layout", "precision", "micro_batches", "tied"),
    [
        pytest.param(SECOND, MIXED, 1, False, id="ends apart"),
        pytest.param(SECOND, MIXED, 1, True, id="ends together"),
        pytest.param(SECOND, WIDE, 2, False, id="two micro-batches"),
        pytest.param(replace(SECOND, wrap="block-root"), MIXED, 3, False, id="three micro-batches"),
        pytest.param(replace(SECOND, shards=2), MIXED, 1, False, id="replicas"),
        pytest.param(replace(SECOND, tp=2), MIXED, 1, False, id="tensor parallel"),
        pytest.param(LayoutSettings(data="fsdp1"), MIXED, 2, False, id="flat parameters"),
        pytest.param(LayoutSettings(data="ddp", bucket_view=True), NARROW, 1, False, id="bucket views"),
    ],
)
def test_a_rank_peaks_as_its_trace_does(
    layout: LayoutSettings, precision: PrecisionSettings, micro_batches: int, tied: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": tied}))
    settings = replace(SETTINGS, layout=layout, precision=precision, gradient_accumulation=micro_batches)
    machine = machine_of("4xa100-80g")
    subject = find_subject(str(tmp_path), offline=True)[0]
    asked = asking.training(str(tmp_path), machine, settings, allocator_settings(""), offline=True)
    trace = asking.answered(asked).trace
    instants = estimate(subject, machine, settings).details["training"]["instants"]
    assert max(one["bytes"] for one in instants) == pytest.approx(max(trace.totals), rel=0.01)
