"""Tensor parallelism by transformers' plans: each rank has the whole vocabulary's logits, and for a moment the whole
gradient of a token table of which it holds a part."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Tensor
from willfit.training.modelling.builder import Builder
from willfit.training.tape import Tape, Value


class GatheringBuilder(Builder):
    """A builder that puts together what ranks' parts of the head give (`colwise_gather_output`, before that
    `colwise_rep`: transformers `distributed/tensor_parallel.py: ColwiseParallel`).

    Attributes
    ----------
    projection, vocabulary
        The matrix that makes logits, and how many of a row there are on all ranks.
    """

    projection: Tensor | None = None
    vocabulary: int = 0

    def linear(self, value: Value, tensor: Tensor, bias: Tensor | None = None, rows: int = 0) -> Value:
        """See `Builder`: behind the head, all ranks' outputs."""
        part = super().linear(value, tensor, bias, rows)
        whole = (rows or self.step.tokens) * self.vocabulary
        if tensor is not self.projection or part.elements >= whole:
            return part
        # Ranks' parts arrive one after the other, and are copied side by side.
        room = whole * part.bytes // part.elements
        return self.tape.run("gather", (part,), whole, part.dtype, forward_temp=room)


def with_whole_gradients(tape: Tape, ranks: int) -> None:
    """Make room for whole gradients where tokens are looked up in a part of a table.

    DTensors' derivative of a lookup has no way to make a part of the rows alone: the gradient is made whole, and then
    cut (torch `distributed/tensor/_ops/_embedding_ops.py: embedding_dense_backward_strategy`, 2.13).

    Parameters
    ----------
    tape
        The embedding's.
    ranks
        How many have parts of the table.
    """
    tape.operations[:] = [
        replace(operation, backward_temp=operation.backward_temp + ranks * operation.weight_bytes)
        if operation.name == "embedding"
        else operation
        for operation in tape.operations
    ]
