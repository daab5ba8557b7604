"""Terms of a PyTorch engine whose size no rule gives and no published measurement of that engine shows.

What other PyTorch engines show stands for them. It says nothing sure about this one, so their intervals reach
from the least that is possible to the most that was seen.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.context import context_term
from willfit.engines.sharding import Sharding, parameter_bytes
from willfit.engines.vllm.profiling.runtime import runtime_constants
from willfit.estimate import Term, between
from willfit.hardware.device import Device

#: What to say of these terms.
NOTE = (
    "workspaces, graphs and the activations of {engine}'s kernels are not established; what other PyTorch engines show "
    "stands for them, and widens the interval"
)


def weights_term(
    subject: Subject,
    sharding: Sharding,
    reference: str,
    copies: int = 0,
    maybe_copies: int = 0,
    mtp: bool = False,
) -> Term:
    """Parameters of the fullest rank; the allocator and rotary tables may add what they add elsewhere.

    Parameters
    ----------
    reference
        Where the engine's layers are.
    copies, maybe_copies
        Bytes of what the engine loads twice, and of what it may load twice.
    mtp
        Whether multi-token-prediction modules are loaded.
    """
    stored = parameter_bytes(subject, sharding, mtp=mtp)
    formula = f"{stored} B of tensors ({subject.recipe.name})"
    if sharding.ranks > 1:
        formula += f" on one of {sharding.ranks} ranks"
    if copies:
        formula += f" + {copies} B that are loaded twice"
    return weights_between(subject, stored + copies, formula, reference, maybe_copies)


def weights_between(subject: Subject, size: int, formula: str, reference: str, maybe: int = 0) -> Term:
    """So many bytes of weights, and `maybe` more, with the interval that other engines show."""
    spread = constant("vllm.weights_ratio")
    less, more = subject.weight_sureness
    low, high = int(size * spread.low * less), int(size * spread.high * more) + maybe
    return between("weights", size, low, high, formula, f"{reference}; interval: {spread.reference}")


def activation_term(stages: dict[str, tuple[int, str]], maybe: int, reference: str) -> Term:
    """The largest of several instants that do not coincide.

    Parameters
    ----------
    stages
        Bytes and formula of each instant by name.
    maybe
        Bytes that may come on top.
    reference
        Where the engine's run is.
    """
    size = max(found for found, _ in stages.values())
    spread = constant("borrowed.activation_ratio")
    formula = "the largest of " + ", ".join(
        f"{name}: {text} = {found}" for name, (found, text) in stages.items()
    )
    low, high = int(size * spread.low), int(size * spread.high) + maybe
    return between("activations", size, low, high, formula, f"{reference}; interval: {spread.reference}")


def library_terms(device: Device, ranks: int, processes: int = 1) -> tuple[Term, Term]:
    """Workspaces of libraries, and the driver's context of each process on a card."""
    spread = constant(*runtime_constants(ranks, device))
    low, size, high = int(spread.low), int(spread.value), int(spread.high)
    formula = f"{size} B of library workspaces of {ranks} rank(s)"
    context = context_term(device)
    if processes > 1:
        context = between(
            context.name,
            processes * context.bytes,
            processes * context.low_bytes,
            processes * context.high_bytes,
            f"{processes} processes x {context.formula}",
            context.reference,
        )
    return between("runtime", size, low, high, formula, spread.reference), context


def graph_terms(architecture: Architecture, sizes: int, reference: str) -> tuple[Term, ...]:
    """CUDA graphs of so many batch sizes; empty if there are none."""
    layers = len(architecture.layers)
    if not sizes:
        return ()
    spread = constant("vllm.graphs_taken")
    count = layers * sizes
    formula = f"{layers} layers x {sizes} captured sizes x {spread.value:.15g} B"
    return (
        between(
            "cuda_graphs",
            int(count * spread.value),
            0,
            int(count * spread.high),
            formula,
            f"{reference}; size: {spread.reference}",
        ),
    )
