"""Which tensors of a layer are which: its norms in order, and what belongs to attention, MLP and experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.architectures.model import Layer, Tensor


@dataclass(frozen=True, slots=True)
class Norm:
    """A normalisation: its scale and shift, if it has them."""

    weight: Tensor | None
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """A layer's tensors by what they do.

    Attributes
    ----------
    norms
        Of the residual stream, in the order of the checkpoint.
    attention
        Of the token mixer, norms of heads and latents included.
    mlp, router, experts
        Of the dense MLP or shared experts, of the router, of the routed experts.
    latents
        Matrices from the stream to narrower experts, and back.
    """

    norms: tuple[Norm, ...]
    attention: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    router: tuple[Tensor, ...]
    experts: tuple[Tensor, ...]
    latents: tuple[Tensor, ...] = ()


def roles_of(layer: Layer) -> Roles:
    """Sort a layer's tensors."""
    mixing = [t for t in layer.tensors if t.part in ("attention", "mixer")]
    inside = {_module(_module(tensor.name)) for tensor in mixing if tensor.kind == "linear"}
    norms = [
        t for t in layer.tensors if t.part == "norm" and t.kind == "norm" and "ffn_sub_norm" not in t.name
    ]
    stream = [t for t in norms if not _lies_in(t.name, inside)]
    heads = [t for t in norms if _lies_in(t.name, inside)]
    return Roles(
        norms_of(stream),
        tuple(mixing + heads),
        tuple(t for t in layer.tensors if (t.part == "mlp" and not _beside(t)) or "ffn_sub_norm" in t.name),
        tuple(t for t in layer.tensors if t.part == "router"),
        tuple(t for t in layer.tensors if t.part == "experts"),
        tuple(
            t
            for t in layer.tensors
            if t.kind == "linear" and ("routed_expert_" in t.name or "latent_proj" in t.name)
        ),
    )


#: Gemma 3n's and 4's surroundings of the MLP; Kimi K3's weights of residuals; what leads into experts that are narrower
#: than the stream, and back (`Roles.latents`).
_AROUND = (
    ".altup.", ".laurel.", ".per_layer_", "_res_proj", "_res_norm", "routed_expert_", "latent_proj",
)  # fmt: skip


def _beside(tensor: Tensor) -> bool:
    """Whether a tensor counts as MLP or norm but belongs to what a family runs around them."""
    return any(name in tensor.name for name in _AROUND)


def _residual(tensor: Tensor) -> bool:
    return "_res_norm" in tensor.name or "routed_expert_" in tensor.name


def mixer_groups(tensors: Sequence[Tensor], count: int) -> list[tuple[Tensor, ...]]:
    """A layer's mixing tensors by module, in the order of its mixers; all in one group if it has one mixer."""
    if count < 2:
        return [tuple(tensors)]
    modules = list(dict.fromkeys(_module(_module(t.name)) for t in tensors if t.kind == "linear"))
    modules = [module for module in modules if not module.endswith("{layer}")]
    # A module inside another belongs to it.
    outer = [one for one in modules if not any(one.startswith(f"{other}.") for other in modules)]
    return [tuple(t for t in tensors if t.name.startswith(f"{module}.")) for module in outer]


def norms_of(tensors: Sequence[Tensor]) -> tuple[Norm, ...]:
    """Scales with their shifts."""
    biases = {_module(tensor.name): tensor for tensor in tensors if tensor.name.endswith(".bias")}
    return tuple(
        Norm(tensor, biases.get(_module(tensor.name)))
        for tensor in tensors
        if not tensor.name.endswith(".bias")
    )


def _lies_in(name: str, modules: set[str]) -> bool:
    if _module(name).endswith(".LayerNorm"):
        # BERT's norm of the stream lies beside the projection whose output it norms.
        return False
    # A mixer that is written without a module of its own would hold the whole layer.
    return any(name.startswith(f"{module}.") for module in modules if not module.endswith("{layer}"))


def _module(name: str) -> str:
    return name.rpartition(".")[0]
