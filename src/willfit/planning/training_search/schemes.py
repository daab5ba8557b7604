"""How a training run can be spread over devices, by the programs that people train with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from willfit.engines.base import Subject
from willfit.planning.search.layouts import MACHINE, counts_up_to
from willfit.training.settings import LayoutSettings, PrecisionSettings, TrainingSettings

#: Objectives of a loss on the next token, which every program has.
_PLAIN = ("sft", "pretrain")
#: From this length on sequences are divided over ranks.
_LONG = 16_384

#: What holds of full training where no recipe is asked for: 16 bits with a copy in 32, as each scheme has it.
_RECIPES = {
    "none": "amp-bf16", "ddp": "amp-bf16", "fsdp2": "fsdp-mixed", "zero2": "deepspeed-bf16", "zero3": "deepspeed-bf16",
    "distributed-optimizer": "megatron-bf16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to spread a run.

    Attributes
    ----------
    framework
        The program.
    layout
        Over how many devices of each kind of parallelism.
    """

    framework: str
    layout: LayoutSettings

    @property
    def family(self) -> tuple[str, str]:
        """What tells it from others in kind, and not in degree."""
        return self.framework, self.layout.data or "none"

    def __str__(self) -> str:
        layout = self.layout
        words = [
            {"none": "", "distributed-optimizer": "dist. optimizer"}.get(layout.data or "", layout.data or "")
        ]
        degrees = {"TP": layout.tp, "PP": layout.pp, "CP": layout.cp, "EP": layout.ep}
        words += [f"{name} {degree}" for name, degree in degrees.items() if degree > 1]
        return " ".join(word for word in words if word) or "1 device"

    def of(self, asked: TrainingSettings) -> TrainingSettings:
        """The run that was asked for, spread so."""
        precision = asked.precision
        full = asked.adapter is None and asked.quantization is None
        if precision == PrecisionSettings() and full:
            precision = PrecisionSettings(recipe=_RECIPES.get(self.layout.data or "none"))
        degrees = {name: getattr(self.layout, name) for name in ("data", "tp", "sp", "pp", "cp", "ep")}
        layout = replace(asked.layout, **degrees)
        return replace(asked, framework=self.framework, layout=layout, precision=precision)

    def keeps(self, asked: LayoutSettings) -> bool:
        """Whether it is spread as far as that was said."""
        own = self.layout
        degrees = ((own.tp, asked.tp), (own.pp, asked.pp), (own.cp, asked.cp), (own.ep, asked.ep))
        return asked.data in (None, own.data) and all(wanted in (1, degree) for degree, wanted in degrees)


def schemes(asked: TrainingSettings, subject: Subject, devices: int, framework: str | None) -> list[Scheme]:
    """Every scheme over so many devices that the run can have, and that is spread as it was asked to be.

    Parameters
    ----------
    framework
        The only program that is tried; None for those that people use.
    """
    return [one for one in _all(asked, subject, devices, framework) if one.keeps(asked.layout)]


def _all(asked: TrainingSettings, subject: Subject, devices: int, framework: str | None) -> Iterator[Scheme]:
    plain = asked.objective in _PLAIN and asked.adapter is None and asked.quantization is None
    if framework == "torchtitan" or (framework is None and plain):
        yield from _torchtitan(asked, devices)
    if framework == "megatron" or (framework is None and plain):
        yield from _megatron(subject, devices)
    if framework not in ("torchtitan", "megatron"):
        yield from _data_parallel(framework or asked.framework, devices)


def _data_parallel(framework: str, devices: int) -> Iterator[Scheme]:
    if devices == 1:
        yield Scheme(framework, LayoutSettings(data="none"))
        return
    yield Scheme(framework, LayoutSettings(data="ddp"))
    yield Scheme(framework, LayoutSettings(data="fsdp2"))
    sharing = "deepspeed" if framework == "transformers" else framework
    for stage in (2, 3):
        yield Scheme(sharing, LayoutSettings(data=f"zero{stage}"))


def _torchtitan(asked: TrainingSettings, devices: int) -> Iterator[Scheme]:
    """FSDP2 alone, within machines, with tensor and with context parallelism."""
    if devices == 1:
        return
    long = (asked.seq_len or 0) >= _LONG
    for tensor in _within_machine(devices):
        for context in _within_machine(devices // tensor) if long else (1,):
            yield Scheme("torchtitan", LayoutSettings(data="fsdp2", tp=tensor, cp=context))


def _megatron(subject: Subject, devices: int) -> Iterator[Scheme]:
    """Tensor and pipeline parallelism with shared optimizer states; experts over the data-parallel ranks."""
    if devices == 1:
        return
    architecture = subject.architecture
    experts = max((ffn.experts for layer, _ in architecture.blocks if (ffn := layer.feed_forward)), default=0)
    layers = len(architecture.layers)
    for tensor in _within_machine(devices):
        for stages in (count for count in counts_up_to(devices // tensor) if count <= layers):
            replicas = devices // (tensor * stages)
            if replicas * tensor * stages != devices:
                continue
            shared = (
                [n for n in (MACHINE, 4 * MACHINE) if n <= replicas and not experts % n] if experts else []
            )
            for expert in (1, *shared):
                layout = LayoutSettings(
                    data="distributed-optimizer", tp=tensor, sp=tensor > 1, pp=stages, ep=expert
                )
                yield Scheme("megatron", layout)


def _within_machine(devices: int) -> list[int]:
    return [count for count in (1, 2, 4, 8) if count <= min(devices, MACHINE) and not devices % count]
