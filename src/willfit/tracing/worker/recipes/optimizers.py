"""Optimizers by the names of `OptimizerSettings`, each as torch, transformers or a library makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins.bitsandbytes.optimizers import BitsAndBytes
from willfit.tracing.worker.stand_ins.muon import Keller, Moonlight
from willfit.tracing.worker.stand_ins.torchao.optimizers import LowBitAdam
from willfit.training.optimizers.table import find
from willfit.training.settings import OptimizerSettings

#: Learning rates and the like do not change what is allocated.
RATE = 1e-4

#: torch's own, by the rule that `willfit train` has for them: the class, and whether it has a fused kernel.
TORCH: dict[str, tuple[str, bool]] = {
    "adamw": ("AdamW", True), "adam": ("Adam", True), "sgd": ("SGD", True), "adagrad": ("Adagrad", False),
    "rmsprop": ("RMSprop", False), "nadam": ("NAdam", False), "radam": ("RAdam", False), "adamax": ("Adamax", False),
    "adadelta": ("Adadelta", False), "torch_adafactor": ("Adafactor", False),
}  # fmt: skip

#: Packages of plain torch code: rule, package and class.
PACKAGES = {
    "came": ("came_pytorch", "CAME"), "adam_mini": ("adam_mini", "Adam_mini"), "prodigy": ("prodigyopt", "Prodigy"),
    "grokadamw": ("grokadamw", "GrokAdamW"),
}  # fmt: skip

#: The Trainer's names of torchao's, whose scales are for this many elements (trainer_optimizer.py:
#: _get_torchao_optimizer).
_TRAINERS_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """What an optimizer is made from.

    Attributes
    ----------
    settings
        As they were said.
    options
        What the name stands for, and options of the settings.
    how
        `foreach`, `fused` or `for-loop`.
    parameters
        What is trained.
    model
        Whose they are.
    """

    settings: OptimizerSettings
    options: dict[str, Any]
    how: str
    parameters: Sequence[torch.nn.Parameter]
    model: Any

    def embeddings(self, head: bool = False) -> set[int]:
        """The parameters of embeddings, by their `id`; with those of the head."""
        found = {
            id(parameter)
            for module in self.model.modules()
            if isinstance(module, torch.nn.Embedding)
            for parameter in module.parameters()
        }
        output = self.model.get_output_embeddings() if head else None
        return found if output is None else found | {id(parameter) for parameter in output.parameters()}


def made(
    settings: OptimizerSettings, parameters: Sequence[torch.nn.Parameter], model: Any
) -> torch.optim.Optimizer:
    """The optimizer that a run names.

    Raises
    ------
    BadInput
        If it is not known here.
    """
    named = find(settings.name or "adamw")
    how = settings.implementation or named.implementation or "foreach"
    asked = Asked(settings, {**named.options, **settings.options}, how, parameters, model)
    rule = named.rule.__name__
    if rule in TORCH:
        return _of_torch(rule, asked)
    if rule in OTHERS:
        return OTHERS[rule](asked)
    if rule in PACKAGES and find_spec(PACKAGES[rule][0]) is not None:
        package, kind = PACKAGES[rule]
        source: Any = parameters if rule != "adam_mini" else model.named_parameters()
        found: torch.optim.Optimizer = getattr(import_module(package), kind)(source, lr=RATE)
        return found
    hint = f"{', '.join((*TORCH, *OTHERS))} are; {', '.join(PACKAGES)} where their packages are installed"
    raise BadInput(f"the optimizer {settings.name!r} is not traced", hint)


def notes(optimizer: torch.optim.Optimizer) -> list[str]:
    """What a trace does not show of an optimizer."""
    return list(optimizer.notes()) if hasattr(optimizer, "notes") else []


def _of_torch(rule: str, asked: Asked) -> torch.optim.Optimizer:
    name, fuses = TORCH[rule]
    # Never None: torch would take a loop for fake tensors, whose type is not that of tensors.
    ways: dict[str, Any] = {"foreach": asked.how == "foreach"}
    if fuses:
        ways["fused"] = asked.how == "fused"
    if rule == "sgd" and (asked.settings.momentum or asked.options.get("momentum")):
        ways["momentum"] = 0.9
    return getattr(torch.optim, name)(asked.parameters, RATE, **ways)


def _bitsandbytes(asked: Asked) -> torch.optim.Optimizer:
    # The Trainer keeps embeddings at 32 bits for every 8-bit optimizer of the package (trainer.py: create_optimizer).
    wide = asked.embeddings() if asked.options.get("embeddings_32bit", True) else set()
    return BitsAndBytes(asked.parameters, asked.options, wide)


def _torchao(asked: Asked) -> torch.optim.Optimizer:
    bits = str(asked.options.get("bits", "8"))
    block = asked.options.get("block_size")
    if block is None and (asked.settings.name or "").startswith("adamw_torch"):
        block = _TRAINERS_BLOCK
    return LowBitAdam(asked.parameters, bits, block)


def _muon(asked: Asked) -> torch.optim.Optimizer:
    outside = asked.embeddings(head=True)
    hidden = {id(one) for one in asked.parameters if one.dim() >= 2 and id(one) not in outside}
    variant = asked.options.get("variant", "moonlight")
    if variant == "torch":
        raise BadInput("torch's Muon takes matrices alone, and what is beside it is not said", "name muon")
    return (Keller if variant == "keller" else Moonlight)(asked.parameters, RATE, hidden)


def _adafactor(asked: Asked) -> torch.optim.Optimizer:
    from transformers import Adafactor

    return Adafactor(asked.parameters, RATE, scale_parameter=False, relative_step=False)


def _lion(asked: Asked) -> torch.optim.Optimizer:
    return Lion(asked.parameters, RATE)


def _schedule_free(asked: Asked) -> torch.optim.Optimizer:
    if find_spec("schedulefree") is None:
        raise BadInput("schedule-free optimizers are traced with their package", "pip install schedulefree")
    name = {"adamw": "AdamWScheduleFree", "sgd": "SGDScheduleFree", "radam": "RAdamScheduleFree"}
    kind = getattr(import_module("schedulefree"), name[str(asked.options["base"])])
    made = kind(asked.parameters, lr=RATE, foreach=True)
    made.train()
    return made


OTHERS: dict[str, Callable[[Asked], torch.optim.Optimizer]] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
    "muon": _muon,
    "transformers_adafactor": _adafactor,
    "lion": _lion,
    "schedule_free": _schedule_free,
}


class Lion(torch.optim.Optimizer):
    """Lion as its authors' PyTorch code does it: one moment, an update made from it and the gradient."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        """Take a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                moment = state["exp_avg"]
                update = moment * 0.9 + parameter.grad * 0.1
                parameter.add_(update.sign_(), alpha=-group["lr"])
                moment.mul_(0.99).add_(parameter.grad, alpha=0.01)
