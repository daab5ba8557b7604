"""The commands and their options. Each prints JSON or hands over to a report; none computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from willfit import __version__
from willfit.engines.base import Question
from willfit.errors import BadInput
from willfit.quantities import parse_tokens

app = typer.Typer(
    name="willfit",
    help="Will it fit? GPU memory and host RAM of large language models, from config or file headers alone.",
    epilog="Exit status: 0 fits, 1 does not fit, 2 bad input.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a picture.")]
ExplainOption = Annotated[
    bool,
    typer.Option("--explain", help="Show each term's formula with its numbers, and where the rule is from."),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit on the hub.")
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="Weights stored so: bf16, fp8, awq, gptq, nf4, nvfp4, q8_0, ...",
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Hub id, directory, config.json, .safetensors or .gguf file, or URL."
    ),
]


def _version(asked: bool) -> None:
    if asked:
        print(f"willfit {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Will it fit? GPU memory and host RAM of large language models, from config or file headers alone."""


@app.command()
def estimate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL | -- COMMAND...", help="A model, or the command that would start it."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            "-g",
            metavar="GPU",
            help="Devices: rtx4090, 8xh100, 2x3090+4090, m3-max-64g, 24GiB, cpu.",
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="TOKENS", help="Longest sequence, such as 32k.")
    ] = None,
    users: Annotated[int, typer.Option("--users", "-u", metavar="N", help="Sequences at once.")] = 1,
    format_name: FormatOption = None,
    kv_dtype: Annotated[
        str, typer.Option("--kv-dtype", metavar="DTYPE", help="Dtype of the KV cache, such as fp8.")
    ] = "auto",
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", metavar="ENGINE", help="vllm, transformers or minimum.")
    ] = None,
    engine_version: Annotated[
        str | None,
        typer.Option("--engine-version", metavar="VERSION", help="Such as 0.25.1; default: the newest."),
    ] = None,
    host_ram: Annotated[
        str | None, typer.Option("--host-ram", metavar="SIZE", help="RAM of the host, such as 64GiB.")
    ] = None,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json_output: JsonOption = False,
    explain: ExplainOption = False,
) -> None:
    """Will it fit? (The default command: `willfit MODEL` means `willfit estimate MODEL`.)"""
    from willfit.asking import (
        ask_about,
        ask_candidates,
        ask_command,
        machine_of,
        require_devices,
        this_machine,
    )
    from willfit.surfaces.cli.words import is_program

    if not words:
        raise BadInput("no model was given", "write willfit MODEL --gpu rtx4090")
    if users < 1:
        raise BadInput(f"--users is {users}, expected at least 1")
    machine = machine_of(gpu, host_ram) if gpu else this_machine()
    if is_program(words[0]):
        for name, value in (("--context", context), ("--format", format_name), ("--engine", engine)):
            if value is not None:
                raise BadInput(f"{name} does not go with a launch command", "the command itself says so")
        answer = ask_command(words, require_devices(machine), users, engine_version, offline)
    else:
        if len(words) > 1:
            raise BadInput(f"one model at a time: {words[1]!r} is one too many")
        question = Question(parse_tokens(context) if context else None, users, kv_dtype, engine_version)
        if machine is None:
            candidates = ask_candidates(words[0], question, engine, format_name, revision, offline)
            _show_candidates(candidates, json_output)
        else:
            answer = ask_about(words[0], machine, question, engine, format_name, revision, offline)
    if json_output:
        print(json.dumps(answer.as_json()))
    else:
        from willfit.surfaces.report.console import console
        from willfit.surfaces.report.estimate import render

        render(answer, console(), explain)
    raise typer.Exit(1 if answer.verdict == "does_not_fit" else 0)


def _show_candidates(candidates: Any, json_output: bool) -> None:
    from willfit.surfaces.report.candidates import as_json, render

    if json_output:
        print(json.dumps(as_json(candidates)))
    else:
        from willfit.surfaces.report.console import console

        render(candidates, console())
    fits = any(candidate.estimate.verdict in ("fits", "tight") for candidate in candidates)
    raise typer.Exit(0 if fits else 1)


@app.command()
def inspect(
    model: ModelArgument,
    format_name: FormatOption = None,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json_output: JsonOption = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
) -> None:
    """What a model is: parameters by part, layers by kind, bytes per token."""
    from willfit.asking import find_subject
    from willfit.surfaces.report import inspection

    subject, _ = find_subject(model, format_name, revision, offline)
    if json_output:
        print(json.dumps(inspection.as_json(subject, tensors)))
    else:
        from willfit.surfaces.report.console import console

        inspection.render(subject, console(), tensors)


@app.command()
def rules(
    model: ModelArgument,
    gpu: Annotated[
        str | None, typer.Option("--gpu", "-g", metavar="GPU", help="A device to ask about.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="TOKENS", help="Tokens of a sequence.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", metavar="N", help="Sequences at once.")] = 1,
    format_name: FormatOption = None,
    revision: RevisionOption = None,
    offline: OfflineOption = False,
    json_output: JsonOption = False,
) -> None:
    """The well-known rules of thumb beside our estimate, and why they differ."""
    from willfit.asking import find_subject, machine_of
    from willfit.surfaces.report import rules as report

    subject, is_gguf = find_subject(model, format_name, revision, offline)
    machine = machine_of(gpu or "80GiB")
    question = Question(parse_tokens(context) if context else None, batch)
    compared = report.compare(subject, machine, question, is_gguf)
    if json_output:
        print(json.dumps(report.as_json(compared)))
    else:
        from willfit.surfaces.report.console import console

        report.render(compared, console())


@app.command()
def gpus(
    filter_: Annotated[
        str, typer.Argument(metavar="[FILTER]", help="Part of a name, vendor or generation.")
    ] = "",
    json_output: JsonOption = False,
) -> None:
    """The devices that are known."""
    from willfit.surfaces.report import devices as report

    found = report.matching(filter_)
    if json_output:
        print(json.dumps(report.as_json(found)))
    else:
        from willfit.surfaces.report.console import console

        report.render(found, console())


@app.command()
def models(
    filter_: Annotated[str, typer.Argument(metavar="[FILTER]", help="Part of an id.")] = "",
    json_output: JsonOption = False,
) -> None:
    """The models that are bundled and need no network."""
    from willfit.checkpoints.catalogue import catalogue_ids

    ids = catalogue_ids(filter_)
    print(json.dumps(ids) if json_output else "\n".join(ids))
    if not ids:
        raise BadInput(f"no bundled model's id contains {filter_!r}", "any hub id works as well")


@app.command()
def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="CASES.jsonl...", help="Files of published measurements.")
    ],
    json_output: JsonOption = False,
) -> None:
    """Score predictions against published measurements."""
    from willfit.validation.run import validate_files

    score = validate_files(files, progress=not json_output and sys.stderr.isatty())
    if json_output:
        print(json.dumps(score.as_json()))
    else:
        from willfit.surfaces.report.console import console
        from willfit.surfaces.report.scores import render

        render(score, console())


@app.command()
def calibrate(
    files: Annotated[
        list[Path], typer.Argument(metavar="CASES.jsonl...", help="Files of published measurements.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: print it.")
    ] = None,
) -> None:
    """Fit the constants that no rule gives, with the spread of their residuals."""
    from willfit.validation.calibrate import calibration_of

    text = calibration_of(files)
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8")


@app.command()
def schema() -> None:
    """The JSON Schema of an estimate."""
    from importlib.resources import files

    print(files("willfit.surfaces").joinpath("estimate.schema.json").read_text(encoding="utf-8"), end="")
