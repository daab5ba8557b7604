"""Reading `lms load MODEL`, LM Studio's command line.

Flags as `lms` has them (`src/subcommands/load.ts`), by the versions of LM Studio that it came with. What a command
does not say is set for the model in the program; its defaults are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import basename
from typing import Any

from willfit.checkpoints import catalogue
from willfit.engines.llama_cpp.settings import Drafting
from willfit.engines.lmstudio.eras import NEWEST, release_of
from willfit.engines.lmstudio.settings import CONTEXT, Settings
from willfit.errors import BadInput
from willfit.file_types import USUAL
from willfit.launch.base import DraftModel, Launch
from willfit.launch.flags import flag_table
from willfit.launch.lmstudio_names import meant
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Options, scan
from willfit.launch.values import whole

PROGRAM = "lms load"

DIALECT = Dialect(abbreviations=False, greedy=True)

#: Tokens that are drafted at once without a word (`draftMaxTokens`).
_DRAFTED = 3


def recognises(words: Sequence[str]) -> bool:
    """Whether a command is LM Studio's."""
    return basename(words[0]).removesuffix(".exe") == "lms"


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that makes LM Studio load a model.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of LM Studio or of a runtime; None for the newest that is known.

    Raises
    ------
    BadInput
        For a command that loads nothing, a flag that it does not have, or a value that it would refuse.
    """
    if words[1:2] != ["load"]:
        raise BadInput(f"lms {' '.join(words[1:2])[:40]}".rstrip() + ": nothing is loaded", "known: lms load")
    table = flag_table("lms_flags.txt")
    scanned = scan(words[2:], table, PROGRAM, DIALECT, version)
    if not scanned.positionals:
        raise BadInput(f"{PROGRAM}: no model is named", f"write {PROGRAM} MODEL")
    options = scanned.options
    model = meant(scanned.positionals[0])
    settings: dict[str, Any] = {"version": version or NEWEST}
    notes = list(model.notes)
    if "--context-length" in options:
        settings["context_length"] = whole(PROGRAM, "--context-length", str(options["--context-length"]))
    else:
        notes.append(
            f"no context is set: LM Studio takes {CONTEXT:,} tokens unless it was told another default"
        )
    if "--parallel" in options:
        settings["parallel"] = whole(PROGRAM, "--parallel", str(options["--parallel"]))
    if "--gpu" in options:
        settings["gpu_ratio"] = _ratio(str(options["--gpu"]))
    settings["drafting"], draft = _drafting(options)
    return Launch(
        engine="lmstudio",
        model=model.name,
        revision=None,
        settings=Settings(**settings),
        format_name=model.format_name,
        other_files=model.format_name is not None,
        notes=(
            *of_other_versions(
                scanned, table, "LM Studio", release_of(version).program if version else NEWEST
            ),
            *not_counted(scanned),
            *notes,
        ),
        draft=draft,
    )


def _ratio(text: str) -> float:
    """The share of the layers on devices (`gpuOptionParser`)."""
    word = text.strip().lower()
    if word in ("off", "max"):
        return float(word == "max")
    try:
        ratio = float(word)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise BadInput(f"{PROGRAM}: --gpu is {text[:40]!r}", "expected off, max, or a number from 0 to 1")
    return ratio


def _drafting(options: Options) -> tuple[Drafting | None, DraftModel | None]:
    """How tokens are drafted (`loadSpeculativeDecoding.ts`)."""
    named, simple = options.get("--speculative-draft-model"), options.get("--speculative-draft-simple")
    heads = options.get("--speculative-draft-mtp")
    if heads and (simple or named):
        raise BadInput(
            f"{PROGRAM}: --speculative-draft-mtp goes with no draft model", "leave one of them out"
        )
    if bool(named) != bool(simple):
        raise BadInput(
            f"{PROGRAM}: a draft model needs both --speculative-draft-simple and --speculative-draft-model"
        )
    most = whole(
        PROGRAM,
        "--speculative-draft-max-tokens",
        str(options.get("--speculative-draft-max-tokens", _DRAFTED)),
    )
    if heads:
        return Drafting("mtp", n_max=most), None
    if not named:
        return None, None
    name = meant(str(named)).name
    if ":" not in name and catalogue.find(name) is not None:
        name = f"{name}:{USUAL[0]}"
    return Drafting("draft", n_max=most), DraftModel(name, "draft_model")
