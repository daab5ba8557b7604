"""Models that the tests of vLLM's features size, and a short way to size them."""

from __future__ import annotations

from typing import Any

from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_from_config
from willfit.engines.vllm import Settings, estimate
from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.estimate import Estimate, Term
from willfit.hardware.table import find_device

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip

#: Tied embeddings; what a public log names 6.016 GiB without adapters.
LLAMA_3B: dict[str, Any] = {
    **LLAMA_8B, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip

QWEN3_8B: dict[str, Any] = {
    **LLAMA_8B, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936,
    "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128, "max_position_embeddings": 40960,
}  # fmt: skip

QWEN3_MOE: dict[str, Any] = {
    **QWEN3_8B, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048,
    "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
}  # fmt: skip

#: The head of an EAGLE-3 draft for Llama-3.1-8B, as published with the config of a plain decoder.
EAGLE3: dict[str, Any] = {
    **LLAMA_8B, "architectures": ["LlamaForCausalLMEagle3"], "num_hidden_layers": 1, "draft_vocab_size": 32000,
    "max_position_embeddings": 2048,
}  # fmt: skip


def subject_of(config: dict[str, Any]) -> Subject:
    """The model of a config."""
    return subject_from_config("a model", Config(config, "a model"))


def machine(gpu: str, count: int = 1, host: int | None = None) -> Machine:
    """Equal cards."""
    return Machine((find_device(gpu),) * count, host)


def sized(subject: Subject, gpu: str = "H100", **settings: Any) -> Sizing:
    """vLLM's start-up on as many cards as there are ranks."""
    asked = Settings(**settings)
    return size_up(subject, machine(gpu, asked.replica_ranks), asked)


def answered(
    subject: Subject, gpu: str = "H100", host: int | None = None, users: int = 1, **settings: Any
) -> Estimate:
    """vLLM's estimate on as many cards as all local replicas take."""
    asked = Settings(**settings)
    count = asked.replica_ranks * asked.local_replicas
    return estimate(subject, machine(gpu, count, host), asked, users)


def term(sizing: Sizing, name: str) -> Term:
    """The term of that name."""
    return next(one for one in (*sizing.inside, *sizing.outside) if one.name == name)


def names(terms: tuple[Term, ...]) -> list[str]:
    """The names of terms."""
    return [one.name for one in terms]
