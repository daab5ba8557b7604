"""Whole models that are compared: two steps of a small one of each kind, with all of Liger's kernels or quantized."""

from __future__ import annotations

import zlib
from typing import Any

from streams import sizes_of

from willfit.tracing.question import Train
from willfit.tracing.trace import Trace
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    OptimizerSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)

SMALL = {
    "hidden_size": 192, "intermediate_size": 416, "num_hidden_layers": 2, "num_attention_heads": 6, "head_dim": 32,
    "num_key_value_heads": 2, "vocab_size": 1504, "max_position_embeddings": 512, "tie_word_embeddings": False,
    "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 96}
LIGER: dict[str, dict[str, Any]] = {
    kind: {"model_type": kind, **SMALL}
    for kind in (
        "llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "phi3", "gemma", "gemma2", "gemma3_text", "olmo2",
        "olmo3", "glm4", "exaone4",
    )
}  # fmt: skip
LIGER["mixtral"] = {"model_type": "mixtral", **SMALL, **EXPERTS, "num_local_experts": 4}
LIGER["qwen3_moe"] = {"model_type": "qwen3_moe", **SMALL, **EXPERTS, "num_experts": 4}

#: What `--bf16` of the Trainer does to a model that is loaded in bfloat16.
MIXED = PrecisionSettings(weights="bfloat16", compute="bfloat16", autocast=True)
ALL = AdapterSettings(rank=8, targets=("all-linear",))
QUANTIZED: dict[str, TrainingSettings] = {
    "nf4": TrainingSettings(
        quantization=QuantizationSettings("nf4", True, upcast="all"), precision=MIXED, adapter=ALL
    ),
    "nf4, dropout": TrainingSettings(
        quantization=QuantizationSettings("nf4", False, upcast="norms"),
        precision=MIXED,
        adapter=AdapterSettings(rank=8, targets=("q_proj", "down_proj"), dropout=0.05),
    ),
    "nf4, no autocast": TrainingSettings(
        quantization=QuantizationSettings("nf4", True, upcast="none"),
        precision=PrecisionSettings(weights="bfloat16", compute="bfloat16"),
        adapter=ALL,
        checkpointing=CheckpointingSettings("full", reentrant=True),
    ),
    "nf4, checkpointed": TrainingSettings(
        quantization=QuantizationSettings("nf4", True, "bfloat16", "all"),
        precision=MIXED,
        adapter=ALL,
        checkpointing=CheckpointingSettings("full", reentrant=False),
    ),
    "int8, checkpointed": TrainingSettings(
        quantization=QuantizationSettings("int8", upcast="all"),
        precision=MIXED,
        adapter=ALL,
        checkpointing=CheckpointingSettings("full", reentrant=False),
    ),
    "int8": TrainingSettings(
        quantization=QuantizationSettings("int8", upcast="all"), precision=MIXED, adapter=ALL
    ),
}


def of_liger(kind: str) -> Train:
    """Two steps with all of Liger's kernels, in bfloat16."""
    settings = TrainingSettings(
        micro_batch=2,
        seq_len=96,
        precision=PrecisionSettings(weights="bfloat16"),
        optimizer=OptimizerSettings("adamw", "fused"),
        kernels=("liger",),
        attention="eager" if kind == "gemma2" else None,
    )
    return Train(LIGER[kind], settings)


def of_quantized(name: str) -> Train:
    """Two steps on the CPU, where attention is the model's own; enough tokens that every matrix is unpacked."""
    from dataclasses import replace

    settings = replace(QUANTIZED[name], micro_batch=4, seq_len=401, attention="eager")
    return Train(LIGER["llama"], settings)


def summary(trace: Trace) -> dict[str, Any]:
    """Of a trace, without what kernels take for themselves: events, what is alive at marks, the peak, and a checksum of
    all bytes in order."""
    now, totals = 0, [0]
    for event in trace.events:
        storage = trace.storages[event if event >= 0 else ~event]
        if storage.category != "workspace":
            now += storage.nbytes if event >= 0 else -storage.nbytes
        totals.append(now)
    sizes = sizes_of(trace, trace.events[trace.marks[0].event : trace.marks[-1].event])
    return {
        "events": len(sizes),
        "peak": max(totals),
        "marks": {f"{mark.name} {mark.step}": totals[mark.event] for mark in trace.marks},
        "checksum": zlib.crc32(repr(sizes).encode()),
    }
