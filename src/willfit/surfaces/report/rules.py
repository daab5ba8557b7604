"""The rules of thumb beside our estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask, default_engine
from willfit.estimate import Estimate
from willfit.quantities import format_bytes
from willfit.rules.peak_flops import peak_flops
from willfit.rules.result import RuleResult
from willfit.rules.shared_model import shared_model
from willfit.rules.table import rules_for


@dataclass(frozen=True, slots=True)
class Compared:
    """An estimate and what the rules of thumb say instead."""

    estimate: Estimate
    minimum: Estimate
    results: tuple[RuleResult, ...]


def compare(
    subject: Subject, machine: Machine, question: Question, is_gguf: bool, card: tuple[int, int] | None = None
) -> Compared:
    """Ask our engines and apply the rules.

    Parameters
    ----------
    card
        Arithmetic units and clock in MHz, for the rule about peak FLOP/s; None leaves it out.
    """
    engine = default_engine(subject, machine, is_gguf)
    usable = machine.devices[0].usable_bytes
    tokens = question.context_for(subject.architecture)
    results = rules_for(subject.architecture, tokens=tokens, batch=question.users, card_bytes=usable)
    one = ask("minimum", subject, machine, replace(question, users=1)).devices[0]
    loaded = sum(term.bytes for term in one.terms if term.name in ("weights", "context"))
    results += (shared_model(loaded, one.peak_bytes, question.users),)
    if card is not None:
        results += (peak_flops(*card, 2),)
    return Compared(
        ask(engine, subject, machine, question), ask("minimum", subject, machine, question), results
    )


def as_json(compared: Compared) -> dict[str, Any]:
    """The comparison as JSON."""
    return {
        "estimate": compared.estimate.as_json(),
        "minimum": compared.minimum.as_json(),
        "rules": [result.as_json() for result in compared.results],
    }


def render(compared: Compared, console: Console) -> None:
    """Print the comparison."""
    estimate, minimum = compared.estimate, compared.minimum
    console.print()
    console.print(Text.assemble(" ", (estimate.model, "bold"), ": rules of thumb beside our estimate"))
    console.print()
    table = Table(box=None, padding=(0, 2, 1, 0), header_style="dim")
    table.add_column("rule", max_width=30)
    table.add_column("says", justify="right", no_wrap=True)
    table.add_column("because")
    ours = f"{estimate.engine} {estimate.engine_version}".strip()
    table.add_row(
        Text(f"willfit, {ours}", style="bold"),
        Text(format_bytes(estimate.devices[0].peak_bytes), style="bold"),
        _terms(estimate),
    )
    if estimate.engine != minimum.engine:
        table.add_row(
            Text("willfit, the minimum of any engine", style="bold"),
            Text(format_bytes(minimum.devices[0].peak_bytes), style="bold"),
            _terms(minimum),
        )
    for result in compared.results:
        because = Text.assemble(result.formula, "\n", (result.why, "dim"))
        table.add_row(result.name, _value(result), because)
    console.print(Padding(table, (0, 2)))


def _value(result: RuleResult) -> str:
    if result.unit == "B":
        return format_bytes(result.value)
    return f"{result.value:,.6g} {result.unit}"


def _terms(estimate: Estimate) -> str:
    return " + ".join(f"{term.name} {format_bytes(term.bytes)}" for term in estimate.devices[0].terms)
