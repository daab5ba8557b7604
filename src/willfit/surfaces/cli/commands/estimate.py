"""`willfit MODEL`, and `willfit` in front of a launch command."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from willfit.engines.table import ENGINES
from willfit.errors import BadInput
from willfit.surfaces.cli.parsing import Parser, add_context, add_json, add_source, whole
from willfit.surfaces.cli.prompt import add_prompt, length_given

if TYPE_CHECKING:
    from willfit.asking import Answer, Candidate
    from willfit.engines.base import Machine, Question
    from willfit.estimate import Estimate

HELP = "Will it fit? The command that is meant where none is named."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "model",
        metavar="MODEL | COMMAND...",
        nargs="?",
        help="hub id, directory, config.json, .safetensors or .gguf file, or URL; or the command that would "
        "start it, behind the options",
    )
    declare_options(parser)


def declare_options(parser: Parser) -> None:
    """Add the options of a question, without the model."""
    declare_machine(parser)
    declare_question(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show each term's formula with its numbers, and where the rule is from",
    )


def declare_machine(parser: Parser) -> None:
    """Add the options of where it shall run."""
    parser.add_argument(
        "-g",
        "--gpu",
        metavar="GPU",
        help="devices: rtx4090, 8xh100, 2x3090+4090, m3-max-64g, 24GiB, cpu; default: this machine's",
    )
    parser.add_argument("--host-ram", metavar="SIZE", help="RAM of the host, such as 64GiB")
    parser.add_argument(
        "--cpu",
        metavar="CPU",
        help="processor of the host: x86, avx512, amx, arm, graviton4, ...; default: what the devices come with",
    )


def declare_question(parser: Parser) -> None:
    """Add the options of what shall run: how it is stored, what is asked of it, by which engine."""
    add_context(parser)
    add_prompt(parser)
    parser.add_argument(
        "-u",
        "--users",
        metavar="N",
        type=whole("--users"),
        help="sequences at once (1, or as many as there are prompts)",
    )
    parser.add_argument(
        "--kv-dtype", metavar="DTYPE", default="auto", help="dtype of the KV cache, such as fp8"
    )
    parser.add_argument("-e", "--engine", metavar="ENGINE", help=", ".join(ENGINES))
    parser.add_argument(
        "--engine-version", metavar="VERSION", help="such as 0.25.1; default: the newest that is known"
    )
    add_source(parser)
    add_json(parser)


def run(given: Namespace, launch: Sequence[str]) -> int:
    """Print the answer; 0 if it fits, 1 if it does not, 2 if that cannot be judged."""
    machine = machine_given(given)
    if machine is None and not launch:
        from willfit.asking import ask_candidates

        return _show_candidates(
            ask_candidates(model_given(given), question_given(given), *_chosen(given)), given
        )
    return _show(answered(given, launch, machine).estimate, given)


def machine_given(given: Namespace) -> Machine | None:
    """The devices that were named, else those of this machine; None if it has none.

    Raises
    ------
    BadInput
        If a device is not known.
    """
    from willfit.asking import machine_of, this_machine

    if given.gpu is None:
        return this_machine(given.host_ram, given.cpu)
    return machine_of(given.gpu, given.host_ram, given.cpu)


def answered(given: Namespace, launch: Sequence[str], machine: Machine | None) -> Answer:
    """The answer to a question, or for a launch command.

    Raises
    ------
    BadInput
        If there is no machine, or anything that was given cannot be used.
    """
    from willfit.asking import answer_about, require_devices

    if launch:
        return _answer_command(given, launch, machine)
    return answer_about(model_given(given), require_devices(machine), question_given(given), *_chosen(given))


def model_given(given: Namespace) -> str:
    """The model that was named.

    Raises
    ------
    BadInput
        If there is none.
    """
    if given.model is None:
        raise BadInput("no model was given", "write willfit MODEL --gpu rtx4090")
    model: str = given.model
    return model


def question_given(given: Namespace) -> Question:
    """What is asked of an engine: prompts that were given set the context and the users, unless these are said.

    Raises
    ------
    BadInput
        If a prompt cannot be counted, or does not fit into the context.
    """
    from willfit.engines.base import Question

    context, users, prompt = length_given(given)
    return Question(context, users, given.kv_dtype, given.engine_version, prompt)


def _chosen(given: Namespace) -> tuple[str | None, str | None, str | None, bool]:
    return given.engine, given.format, given.revision, given.offline


def _answer_command(given: Namespace, launch: Sequence[str], machine: Machine | None) -> Answer:
    from willfit.asking import answer_command, require_devices

    require_no_question(given)
    try:
        return answer_command(
            launch, require_devices(machine), given.users or 1, given.engine_version, given.offline
        )
    except BadInput as error:
        ours = [f"--{name.replace('_', '-')}" for name in vars(given)]
        # `--gpu` is the beginning of a flag of some engines, so that they read it as that.
        late = next(
            (
                word
                for word in launch
                if word == "--gpu" or (word in ours and error.message.endswith(f" {word}"))
            ),
            None,
        )
        if late is None:
            raise
        what = f"{late} is read as an option of the command" if late == "--gpu" else error.message
        raise BadInput(what, f"options of willfit stand before {launch[0]}") from None


def require_no_question(given: Namespace) -> None:
    """Refuse options that say what a launch command says itself.

    Raises
    ------
    BadInput
        For such an option.
    """
    for option in (
        "model",
        "context",
        "format",
        "engine",
        "revision",
        "prompt_file",
        "new_tokens",
        "tokenizer",
    ):
        if getattr(given, option) is not None:
            raise BadInput(
                f"--{option.replace('_', '-')} does not go with a launch command",
                "the command itself says so",
            )


def _show(answer: Estimate, given: Namespace) -> int:
    if given.json:
        print(json.dumps(answer.as_json()))
    else:
        from willfit.surfaces.report.console import console
        from willfit.surfaces.report.estimate import render

        render(answer, console(), given.explain)
    return status_of(answer)


def status_of(answer: Estimate) -> int:
    """The exit status that a verdict gives."""
    return {"does_not_fit": 1, "unknown": 2}.get(answer.verdict, 0)


def _show_candidates(candidates: Sequence[Candidate], given: Namespace) -> int:
    from willfit.surfaces.report.candidates import as_json, render

    if given.json:
        print(json.dumps(as_json(candidates)))
    else:
        from willfit.surfaces.report.console import console

        render(candidates, console())
    return 0 if any(one.estimate.verdict in ("fits", "tight") for one in candidates) else 1
