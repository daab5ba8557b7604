"""The forms in which a command is handed over."""

from __future__ import annotations

from collections.abc import Callable

from willfit.errors import BadInput
from willfit.launch.writing.compose import compose_text
from willfit.launch.writing.containers import PROGRAMS
from willfit.launch.writing.kubernetes import kubernetes_text
from willfit.launch.writing.shell_text import shell_text
from willfit.launch.writing.written import Order, Written

#: Forms that are made around a command, by name.
AROUND: dict[str, Callable[[Written, Order], str]] = {"compose": compose_text, "kubernetes": kubernetes_text}

#: Files beside a command, by the form that asks for them alone: how their names end.
ALONE = {"modelfile": "Modelfile", "yaml": ".yaml", "json": ".json"}

FORMS = ("command", *AROUND, *ALONE)


def text_in(form: str, written: Written, order: Order, about: str = "") -> str:
    """A command in a form.

    Parameters
    ----------
    form
        One of `FORMS`.
    about
        A line for the top of a command, in words.

    Raises
    ------
    BadInput
        If there is no such form of it.
    """
    if form == "command":
        return shell_text(written, about)
    if form in AROUND:
        if written.engine not in PROGRAMS:
            raise BadInput(f"{written.engine} is written as a command alone", "take --as command")
        return AROUND[form](written, order)
    ending = ALONE.get(form, "")
    file = next((text for name, text in written.files.items() if ending and name.endswith(ending)), None)
    if file is None:
        known = ["command", *(AROUND if written.engine in PROGRAMS else ())]
        known += [name for name, end in ALONE.items() if any(file.endswith(end) for file in written.files)]
        raise BadInput(
            f"{written.engine} has no {form[:40]} beside its command", f"known: {', '.join(known)}"
        )
    return file
