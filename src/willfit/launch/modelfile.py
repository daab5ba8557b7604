"""Reading a Modelfile: what a model of Ollama's is made of (`parser/parser.go`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from willfit.errors import BadInput
from willfit.launch.flags import did_you_mean

_COMMANDS = (
    "from", "parameter", "adapter", "draft", "template", "system", "message", "license", "renderer", "parser",
    "requires",
)  # fmt: skip
_QUOTES = '"""'
_MOST_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a Modelfile says about memory.

    Attributes
    ----------
    path
        Where it is.
    model
        What FROM names: a model, a GGUF file or a folder.
    parameters
        Names and values in order; the last of a name counts.
    adapters, draft
        LoRA adapters, and a model that drafts.
    """

    path: str
    model: str
    parameters: tuple[tuple[str, str], ...] = ()
    adapters: tuple[str, ...] = ()
    draft: str = ""


def read_modelfile(path: str) -> Modelfile:
    """Read a Modelfile; paths in it are those beside it.

    Raises
    ------
    BadInput
        If it cannot be read, names no model, or has a command that there is not.
    """
    try:
        with Path(path).expanduser().open(encoding="utf-8") as stream:
            text = stream.read(_MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"cannot read the Modelfile {path}: {reason}", "name it with -f") from error
    return parse_modelfile(text, path)


def parse_modelfile(text: str, path: str = "Modelfile") -> Modelfile:
    """What the text of a Modelfile says.

    Raises
    ------
    BadInput
        If it names no model, or has a command that there is not.
    """
    models: list[str] = []
    parameters: list[tuple[str, str]] = []
    adapters: list[str] = []
    draft = ""
    for number, line in _statements(text):
        command, _, rest = line.partition(" ")
        value = rest.strip().strip('"')
        word = command.lower()
        if word not in _COMMANDS:
            known = [name.upper() for name in _COMMANDS]
            raise BadInput(
                f"{path}, line {number}: {command[:40]!r} is no command", did_you_mean(command.upper(), known)
            )
        if word == "from":
            models.append(value)
        elif word == "adapter":
            adapters.append(_beside(value, path))
        elif word == "draft":
            draft = _beside(value, path)
        elif word == "parameter":
            name, _, text_ = rest.strip().partition(" ")
            parameters.append((name.lower(), text_.strip().strip('"')))
    if not models or not models[0]:
        raise BadInput(f"{path}: no model is named", "write FROM MODEL")
    return Modelfile(path, _beside(models[0], path), tuple(parameters), tuple(adapters), draft)


def _statements(text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, without comments; text in three quotes is one with the line where it begins."""
    found = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        quotes = bare.count(_QUOTES)
        if inside:
            inside = quotes % 2 == 0
            continue
        if bare and not bare.startswith("#"):
            found.append((number, bare))
            inside = quotes % 2 == 1
    return found


def _beside(name: str, path: str) -> str:
    """A path as seen from here; names of models stay as they are."""
    if name.startswith(("./", "../")) or name == ".":
        return str(Path(path).expanduser().parent / name)
    return name
