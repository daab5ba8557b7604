"""Selective checkpointing: which operations' outputs are kept, the rest of a layer being computed again."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.tape import Operation
from willfit.training.tape.replay import Selection

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


def compiled(operations: Sequence[Operation]) -> list[Operation]:
    """What `torch.compile` keeps of a layer: results of products and of attention, from which the rest is made anew.

    The last product's result is the layer's own (torch `_functorch/partitioners.py`).
    """
    chosen = all_products(operations)
    return chosen[:-1] if chosen and chosen[-1].name in _PRODUCTS else chosen


def all_but(*modules: str) -> Selection:
    """What a layer keeps, but for some of its parts, which run again (Megatron-LM's `selective`)."""

    def chosen(operations: Sequence[Operation]) -> list[Operation]:
        return [operation for operation in operations if operation.module not in modules]

    return chosen


#: By the name of the checkpointing kind.
SELECTIONS: dict[str, Selection] = {
    "selective-op": every_second_product,
    "selective": every_second_product,
    "selective-graph": every_second_product,
    "selective-products": all_products,
}
