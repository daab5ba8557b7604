"""A stand-in for the package `flash_attn`, whose kernels cannot be built here: PyTorch carries the same kernels.

`flash_attn_func` keeps queries, keys, values, the output, log-sum-exps and the state of the random numbers, and its
backward pass makes the three gradients (flash_attn 2.8: `FlashAttnFunc`), as PyTorch's own operation does, but for 8
bytes of an unused value. Batches with padding are not supported: unpadding depends on the values of the mask.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types

import torch

from willfit.tracing.worker.cuda import attention

aten = torch.ops.aten


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor:
    """Attention over tensors of batch, tokens, heads, width."""
    attention.chosen["flash_attn"] = attention.chosen.get("flash_attn", 0) + 1
    query, key, value = (tensor.transpose(1, 2) for tensor in (q, k, v))
    out = aten._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, causal, False, scale=softmax_scale
    )
    return out[0].transpose(1, 2)


def _not_here(*arguments: object, **named: object) -> None:
    raise NotImplementedError("only dense batches without padding are traced with flash_attention_2")


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> None:
    """Only there to be imported, and for its names."""
    _not_here()


def install() -> None:
    """Let transformers find the stand-in."""
    from transformers import PreTrainedModel, modeling_flash_attention_utils

    package, padding = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.bert_padding")
    for module in (package, padding):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    vars(package).update(
        flash_attn_func=flash_attn_func,
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_with_kvcache=flash_attn_varlen_func,
    )
    vars(padding).update(pad_input=_not_here, unpad_input=_not_here)
    sys.modules.update({"flash_attn": package, "flash_attn.bert_padding": padding})
    modeling_flash_attention_utils.is_flash_attn_2_available = lambda *arguments, **named: True
    looks = modeling_flash_attention_utils._is_packed_sequence

    def packed(*arguments: object) -> bool:
        """A batch is one sequence after another only in the values of its positions: none is here."""
        looks(*arguments)
        return False

    modeling_flash_attention_utils._is_packed_sequence = packed
    PreTrainedModel._flash_attn_can_dispatch = lambda self, *arguments, **named: True
