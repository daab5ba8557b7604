"""Modules of a model that an adapter can wrap, from the tensors of its architecture.

Identical layers share one `Layer` object, so a module stands for all layers that hold it: its name keeps `{layer}`
(and `{expert}`), and `layers` says which they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from willfit.architectures.model import Architecture, Layer, Part, Tensor

#: What a module is in the model's code. `conv1d` is transformers' transposed linear layer, `experts` one parameter
#: of all routed experts of a layer and `router` its router's (transformers 5), `weight` a two-dimensional parameter
#: that a library calls by name.
ModuleKind = Literal["linear", "conv1d", "embedding", "norm", "experts", "router", "weight", "other"]

#: Linear layers of these models are `Conv1D`, shape (in, out). transformers: models/gpt2/modeling_gpt2.py.
CONV1D_TYPES = frozenset({"gpt2", "openai-gpt", "decision_transformer", "imagegpt"})


#: Routers that are parameters of a module of their own in transformers 5, no linear layers.
ROUTERS = frozenset({"gate", "router"})


@dataclass(frozen=True, slots=True)
class Module:
    """A module, or one parameter of it, that occurs in several layers alike.

    Attributes
    ----------
    name
        Name in the model, with `{layer}` and `{expert}` for the indices, without `.weight`.
    kind
        See `ModuleKind`.
    inputs, outputs
        Features in and out; of an embedding rows and width, of a norm 0 and its width.
    part
        As of the architecture's tensors.
    biased
        It has a bias.
    layers
        Indices of the layers that hold it; empty outside of layers.
    per_layer
        How many of them a layer holds (routed experts that are modules of their own).
    stacked
        Experts in one parameter (`experts`), or 1.
    layer
        The layers' common record; None outside of layers.
    members
        Names of the checkpoint's tensors that a parameter of all experts was put together from.
    """

    name: str
    kind: ModuleKind
    inputs: int
    outputs: int
    part: Part
    biased: bool = False
    layers: tuple[int, ...] = ()
    per_layer: int = 1
    stacked: int = 1
    layer: Layer | None = None
    members: tuple[str, ...] = ()

    @property
    def copies(self) -> int:
        """How many of them the model holds."""
        return max(1, len(self.layers)) * self.per_layer

    @property
    def leaf(self) -> str:
        """Last part of the name: `q_proj`."""
        return self.name.rpartition(".")[2]


def find_modules(architecture: Architecture, fuses_experts: bool) -> tuple[Module, ...]:
    """Every module of the model, in its order, a tied head included.

    Parameters
    ----------
    architecture
        The model.
    fuses_experts
        Routed experts are one parameter of a layer (transformers 5 and later), not modules.
    """
    conv1d = architecture.model_type in CONV1D_TYPES
    found = list(_outside((*architecture.embeddings, *architecture.shared), conv1d))
    for layers in (architecture.encoder, architecture.layers):
        places: dict[int, list[int]] = {}
        for index, layer in enumerate(layers):
            places.setdefault(id(layer), []).append(index)
        distinct = {id(layer): layer for layer in layers}
        for key, where in places.items():
            found.extend(_of_layer(distinct[key], tuple(where), conv1d, fuses_experts))
    found.extend(_outside(architecture.head, conv1d))
    for tower in architecture.towers:
        found.extend(_outside(tower.tensors, conv1d))
    if architecture.tied:
        found.extend(
            Module("lm_head", "linear", module.outputs, module.inputs, "head")
            for module in found[:1]
            if module.kind == "embedding"
        )
    return tuple(found)


def _outside(tensors: tuple[Tensor, ...], conv1d: bool) -> Iterator[Module]:
    biased = {tensor.name for tensor in tensors if tensor.name.endswith(".bias")}
    for tensor in tensors:
        module = _module(tensor, conv1d, biased)
        if module is not None:
            yield module


def _of_layer(layer: Layer, where: tuple[int, ...], conv1d: bool, fused: bool) -> Iterator[Module]:
    biased = {tensor.name for tensor in layer.tensors if tensor.name.endswith(".bias")}
    experts: list[Tensor] = []
    for tensor in layer.tensors:
        if fused and "{expert}" in tensor.name:
            experts.append(tensor)
            continue
        module = _module(tensor, conv1d, biased, where, layer)
        if module is None:
            continue
        if fused and module.part == "router" and module.leaf in ROUTERS:
            module = replace(module, kind="router")
        yield module
    yield from _fused(experts, where, layer)


def _module(
    tensor: Tensor,
    conv1d: bool,
    biased: set[str],
    where: tuple[int, ...] = (),
    layer: Layer | None = None,
) -> Module | None:
    name, _, suffix = tensor.name.rpartition(".")
    if suffix != "weight":
        if tensor.kind == "linear" and len(tensor.shape) == 3:
            stacked, outputs, inputs = tensor.shape
            return Module(
                tensor.name, "experts", inputs, outputs, tensor.part, False, where, 1, stacked, layer
            )
        return None
    bias = f"{name}.bias" in biased
    if tensor.kind == "linear" and len(tensor.shape) == 2:
        outputs, inputs = tensor.shape
        kind: ModuleKind = "conv1d" if conv1d else "linear"
        return Module(name, kind, inputs, outputs, tensor.part, bias, where, tensor.copies, 1, layer)
    if tensor.kind == "embedding" or (tensor.kind == "other" and len(tensor.shape) == 2):
        rows, width = tensor.shape
        return Module(name, "embedding", rows, width, tensor.part, bias, where, tensor.copies, 1, layer)
    kind = "norm" if tensor.kind == "norm" else "other"
    return Module(name, kind, 0, tensor.shape[0], tensor.part, bias, where, tensor.copies, 1, layer)


def _fused(experts: list[Tensor], where: tuple[int, ...], layer: Layer) -> Iterator[Module]:
    """Routed experts as transformers 5 holds them: `gate_up_proj` and `down_proj`, experts in front.

    Of two products into the width, gate and up become one parameter (transformers: core_model_loading.py and
    conversion_mapping.py, 5.0).
    """
    wide = [tensor for tensor in experts if tensor.kind == "linear"]
    if not wide:
        return
    container = wide[0].name.split(".{expert}")[0].replace("block_sparse_moe", "mlp")
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in wide:
        groups.setdefault(tensor.shape, []).append(tensor)
    for tensors in groups.values():
        outputs, inputs = tensors[0].shape
        names = {"gate_proj", "up_proj", "w1", "w3"}
        into = any(tensor.name.split(".")[-2] in names for tensor in tensors)
        if into and len(groups) == 1 and len(tensors) > 2:  # a square expert: gate and up, then down
            down = [tensor for tensor in tensors if tensor.name.split(".")[-2] in ("down_proj", "w2")]
            up = [tensor for tensor in tensors if tensor not in down]
        else:
            up, down = (tensors, []) if into else ([], tensors)
        stacked = tensors[0].copies
        for leaf, members in (("gate_up_proj", up), ("down_proj", down)):
            if members:
                name = leaf if len(members) > 1 or leaf == "down_proj" else "up_proj"
                yield Module(
                    f"{container}.{name}", "experts", inputs, outputs * len(members), "experts", False, where, 1,
                    stacked, layer, tuple(tensor.name for tensor in members),
                )  # fmt: skip
