"""Selective checkpointing: which operations' outputs are kept, the rest of a layer being computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from willfit.training.tape import Operation
from willfit.training.tape.replay import Selection

#: A result this many times smaller than what it is made of is a reduction: a statistic of each row.
_REDUCED = 8

#: Names of products and of attention on a tape.
_PRODUCTS = ("mm", "grouped mm")
_ATTENTION = (
    "flash",
    "flash_attention_2",
    "flash_attention_3",
    "efficient",
    "math",
    "mix",
    "flex_attention",
    "te",
)

#: What is costly to compute: products, attention, convolutions.
HEAVY = frozenset((*_PRODUCTS, *_ATTENTION, "cudnn", "bmm", "scores", "conv", "conv1d", "solve"))


def every_second_product(operations: Sequence[Operation]) -> list[Operation]:
    """Attention, and every second matrix product from the first on (torchtitan `activation_checkpoint.py`)."""
    chosen, products = [], 0
    for operation in operations:
        if operation.name in _PRODUCTS:
            products += 1
            if products % 2:
                chosen.append(operation)
        elif operation.name in _ATTENTION:
            chosen.append(operation)
    return chosen


def all_products(operations: Sequence[Operation]) -> list[Operation]:
    """Attention and every matrix product."""
    return [operation for operation in operations if operation.name in (*_PRODUCTS, *_ATTENTION)]


def all_but(operations: Sequence[Operation], modules: Sequence[str]) -> list[Operation]:
    """What a layer keeps anyway, but for some of its parts, which run again (Megatron-LM's `selective`).

    `core_attn` is attention without its projections; the others are parts of a layer.
    """
    kept = {value.storage for operation in operations for value in operation.saved}
    # What is kept of an operation beside values (a mask of dropout) is kept even if its output is not.
    dropped = {_PARTS[name] for name in modules if name in _PARTS}

    def runs_again(operation: Operation) -> bool:
        core = "core_attn" in modules and operation.module == "attention" and operation.name in _CORE
        return core or operation.module in dropped

    return [
        replace(operation, outputs=tuple(value for value in operation.outputs if value.storage in kept))
        for operation in operations
        if not runs_again(operation)
    ]


#: Parts of a layer by Megatron's names (`transformer_config.py: recompute_modules`); operations of attention proper.
_PARTS = {"mlp": "mlp", "moe": "experts", "layernorm": "norm"}
_CORE = ("scores", "scale", "tanh", "add mask", "softmax", "cast", "dropout")


def selection_of(kind: str | None, modules: Sequence[str]) -> Selection | None:
    """Which outputs a kind of checkpointing keeps of a layer; None if it keeps the input alone, or everything."""
    if kind == "selective-core-attn":
        return partial(all_but, modules=("core_attn",))
    if kind == "selective-mlp":
        return partial(all_but, modules=("mlp",))
    if kind == "selective-modules":
        return partial(all_but, modules=tuple(modules))
    return SELECTIONS.get(kind or "none")


#: By the name of the checkpointing kind.
SELECTIONS: dict[str, Selection] = {
    "selective-op": every_second_product,
    "selective": every_second_product,
    "selective-graph": every_second_product,
    "selective-products": all_products,
}
