"""What older transformers did otherwise, put in the place of what the installed one does."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from willfit.training.run import Habits

#: Labels that do not count.
_IGNORED = -100


def install(model: Any, habits: Habits) -> list[str]:
    """Make a model, before PEFT wraps it, do what older code did.

    Returns
    -------
    list of str
        What was replaced, and what could not be, for the reader.
    """
    notes = []
    if habits.shifts_logits:
        model.loss_function = shifted_loss
        notes.append("the loss is that of transformers before 4.49, which moves logits and not labels")
    head = model.get_output_embeddings()
    if habits.upcasts_logits and head is not None:
        head.register_forward_hook(lambda module, given, made: made.float())
    if habits.repeats_keys:
        from transformers.integrations import sdpa_attention

        sdpa_attention.use_gqa_in_sdpa = lambda *arguments: False
        notes.append("keys and values are repeated for all heads before SDPA, as older transformers did")
    if habits.table_bytes:
        tables = torch.empty(habits.table_bytes, dtype=torch.uint8, device="meta")
        model.register_buffer("older_tables", tables, persistent=False)
        notes.append("rotary tables and masks that older transformers kept are counted as a buffer")
    if not habits.grouped_experts and hasattr(model.config, "num_experts_per_tok"):
        notes.append("experts run as grouped products; older transformers ran them one by one")
    return notes


def shifted_loss(
    logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **named: object
) -> torch.Tensor:
    """The loss of models before `loss_utils.py`: logits in float32, and a copy of all but the last position
    (`modeling_llama.py: LlamaForCausalLM.forward`, 4.40)."""
    logits = logits.float()
    moved = logits[..., :-1, :].contiguous().view(-1, vocab_size)
    return functional.cross_entropy(moved, labels[..., 1:].contiguous().view(-1), ignore_index=_IGNORED)
