"""Which modules of which models Liger replaces: liger_kernel/transformers/monkey_patch.py (0.8.5)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins.liger import experts
from willfit.tracing.worker.stand_ins.liger.gated import Gated, rotary
from willfit.tracing.worker.stand_ins.liger.losses import causal_loss, cross_entropy
from willfit.tracing.worker.stand_ins.liger.norms import RMSNorm


@dataclass(frozen=True, slots=True)
class Family:
    """What is replaced in the models of a type.

    Attributes
    ----------
    norms
        Paths in a layer of RMS norms; the one after the last layer beside.
    in_place, last_in_place
        Gradients of these norms, and of the last one, overwrite their output's.
    gated
        `swiglu`, `geglu`, `fused-swiglu` (one matrix for both parts) or `experts`; empty where the MLP stays.
    rope
        Rotary embeddings are replaced.
    """

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    in_place: bool = True
    last_in_place: bool = True
    gated: str = "swiglu"
    rope: bool = True


_PLAIN = Family()
_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
_AROUND = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_QK = ("self_attn.q_norm", "self_attn.k_norm")
_BEFORE_QK = (*_PLAIN.norms, *_QK)

FAMILIES = {
    "llama": _PLAIN, "mistral": _PLAIN, "ministral": _PLAIN, "qwen2": _PLAIN, "smollm3": _PLAIN, "granite": _PLAIN,
    "hunyuan_v1_dense": _PLAIN,
    "mixtral": Family(gated="experts"),
    "qwen3": Family(_BEFORE_QK),
    "qwen3_moe": Family(_BEFORE_QK, gated="experts"),
    "phi3": Family(gated="fused-swiglu"),
    "gemma": Family(gated="geglu"),
    "gemma2": Family(_AROUND, False, False, "geglu"),
    "gemma3_text": Family((*_AROUND, *_QK), False, False, "geglu"),
    "olmo2": Family(_AFTER, False),
    "olmo3": Family(_AFTER, False),
    "glm4": Family(
        (*_PLAIN.norms, "post_self_attn_layernorm", "post_mlp_layernorm"), False, False, "fused-swiglu", False
    ),
    "exaone4": Family((*_AFTER, *_QK), False, False),
    "gpt_oss": Family(gated=""),
}  # fmt: skip

#: Other types that Liger has kernels for.
OTHERS = (
    "deepseek_v2", "deepseek_v3", "deepseek_v4", "gemma3", "gemma4_text", "gemma4", "glm4v", "glm4v_moe", "internvl",
    "llama4_text", "llama4", "llava", "mllama", "mllama_text_model", "muse_glimmer", "nemotron", "pixtral", "qwen2_vl",
    "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe",
    "qwen3_5_moe_text", "qwen3_vl", "qwen3_vl_text", "qwen3_vl_moe", "qwen3_vl_moe_text", "paligemma", "falcon_h1",
    "smolvlm", "hunyuan_v1_moe",
)  # fmt: skip
#: Types whose logits are scaled, so that head and loss stay apart.
UNFUSED = ("granite",)


def apply(model: Any, kernels: Collection[str], loss: str | None) -> None:
    """Replace what Liger would in a model; nothing where it has no kernels for its type.

    Parameters
    ----------
    kernels
        Of `rms_norm`, `rope`, `swiglu` (any gated activation).
    loss
        `liger` for head and loss in one, `fused` for a loss of whole logits, else transformers'.

    Raises
    ------
    BadInput
        If it has some that are not written here.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = inner.config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        if kind in OTHERS:
            raise BadInput(
                f"Liger's kernels of {kind} are not traced", f"traced: {', '.join(sorted(FAMILIES))}"
            )
        return
    base = getattr(inner, inner.base_model_prefix, inner)
    if "rms_norm" in kernels:
        _norm(base.norm, family.last_in_place)
    for layer in base.layers:
        if "rms_norm" in kernels:
            for path in family.norms:
                _norm(layer.get_submodule(path), family.in_place)
        if "swiglu" in kernels:
            _gate(layer, family.gated)
    if "rope" in kernels and family.rope:
        code: Any = sys.modules[type(inner).__module__]
        code.apply_rotary_pos_emb = rotary
    if loss == "fused" or (loss == "liger" and kind in UNFUSED):
        torch.nn.functional.cross_entropy = cross_entropy
    elif loss == "liger":
        inner.loss_function = causal_loss
        _bind(inner, _without_logits)


def _bind(module: torch.nn.Module, forward: Callable[..., Any]) -> None:
    module.forward = forward.__get__(module)


def _norm(module: torch.nn.Module, in_place: bool) -> None:
    _bind(module, lambda self, rows: RMSNorm.apply(rows, self.weight, in_place))


def _gate(layer: Any, gated: str) -> None:
    if gated == "experts":
        if hasattr(layer.mlp, "experts"):
            _bind(layer.mlp.experts, experts.forward)
    elif gated == "fused-swiglu":
        _bind(layer.mlp, _fused_swiglu)
    elif gated == "swiglu":
        _bind(layer.mlp, _swiglu)
    elif gated == "geglu":
        _bind(layer.mlp, _geglu)


def _swiglu(module: Any, rows: torch.Tensor) -> torch.Tensor:
    return module.down_proj(Gated.apply(module.gate_proj(rows), module.up_proj(rows), "swiglu"))


def _geglu(module: Any, rows: torch.Tensor) -> torch.Tensor:
    return module.down_proj(Gated.apply(module.gate_proj(rows), module.up_proj(rows), "geglu"))


def _fused_swiglu(module: Any, rows: torch.Tensor) -> torch.Tensor:
    gate, up = module.gate_up_proj(rows).chunk(2, dim=-1)
    return module.down_proj(Gated.apply(gate, up, "swiglu"))


def _without_logits(model: Any, labels: torch.Tensor | None = None, **inputs: Any) -> Any:
    """A causal model's forward pass that makes no logits to train (transformers/model/llama.py: lce_forward)."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    outputs = model.model(**inputs)
    hidden = outputs[0][:, slice(0, None), :]
    loss = model.loss_function(hidden, head_weight(model.lm_head), labels)
    return CausalLMOutputWithPast(loss=loss, past_key_values=outputs.past_key_values)


def head_weight(head: Any) -> torch.Tensor:
    """The head's matrix; of one that is trained beside a frozen copy, the trained one."""
    saved = getattr(head, "modules_to_save", None)
    return (head if saved is None else saved.default).weight
