"""Runs of a small model by several processes, for real ranks and for traces alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.tracing.question import Train
from willfit.training.run import Habits
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

#: Odd sizes, so that shards do not divide evenly; the peak is inside the layers.
CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 72, "intermediate_size": 203,
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 12, "vocab_size": 151,
    "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
#: Of which two ranks can have half each.
EVEN = {**CONFIG, "intermediate_size": 204, "num_key_value_heads": 2, "vocab_size": 152}

MIXED = PrecisionSettings(
    weights="fp32", trainable="fp32", compute="bf16", gradients="fp32", states="fp32", reduce="fp32",
    autocast=False,
)  # fmt: skip
PLAIN = PrecisionSettings(weights="fp32", trainable="fp32", compute="fp32", autocast=False)
SETTINGS = TrainingSettings(
    micro_batch=2,
    seq_len=64,
    attention="eager",
    precision=PLAIN,
    optimizer=OptimizerSettings("adamw", "foreach"),
)
POSTPONING = Habits(postpones_sharing=True)


def run(
    layout: LayoutSettings,
    config: dict[str, Any] = CONFIG,
    habits: Habits = POSTPONING,
    ranks: int = 2,
    **named: Any,
) -> Train:
    """Ranks that take two steps."""
    return Train(config, replace(SETTINGS, layout=layout, **named), habits, ranks=ranks)


CHECKPOINTED = {"checkpointing": CheckpointingSettings("full", reentrant=False)}
ADAPTED = {"adapter": AdapterSettings("lora", 4, targets=("q_proj", "v_proj"))}

CASES = {
    "fsdp2": run(LayoutSettings(data="fsdp2")),
    "fsdp2 rooted": run(LayoutSettings(data="fsdp2", wrap="block-root"), precision=MIXED, **CHECKPOINTED),
    "fsdp2 lora": run(LayoutSettings(data="fsdp2"), precision=MIXED, **ADAPTED),
    "fsdp2 accumulated": run(LayoutSettings(data="fsdp2"), precision=MIXED, gradient_accumulation=2),
    "fsdp2 hybrid": run(LayoutSettings(data="fsdp2", shards=2), precision=MIXED, ranks=4),
    "fsdp1": run(LayoutSettings(data="fsdp1")),
    "fsdp1 lora": run(LayoutSettings(data="fsdp1"), precision=MIXED, **ADAPTED),
    "fsdp1 accumulated": run(
        LayoutSettings(data="fsdp1", prefetch=0, strategy="shard_grad_op"),
        precision=MIXED,
        gradient_accumulation=2,
        **CHECKPOINTED,
    ),
    "ddp": run(LayoutSettings(data="ddp")),
    "ddp autocast": run(
        LayoutSettings(data="ddp"), precision=PrecisionSettings(weights="fp32", compute="bf16", autocast=True)
    ),
    "ddp small buckets": run(LayoutSettings(data="ddp", bucket_bytes=50_000), **CHECKPOINTED),
    "ddp views": run(LayoutSettings(data="ddp", bucket_view=True), gradient_accumulation=2, **CHECKPOINTED),
    "tp": run(LayoutSettings(tp=2), EVEN),
    "tp tied": run(LayoutSettings(tp=2), {**EVEN, "tie_word_embeddings": True}),
    "tp fsdp2": run(LayoutSettings(tp=2, data="fsdp2"), EVEN, ranks=4, precision=MIXED),
}
#: Held to the profiler; in float32 and without checkpoints, as CPU kernels take scratch for other dtypes and a
#: checkpoint keeps the host's generator.
PROFILED = ("fsdp2", "fsdp1", "ddp", "tp")
#: Held to real tensors.
ALIKE = tuple(name for name in CASES if name not in PROFILED)
