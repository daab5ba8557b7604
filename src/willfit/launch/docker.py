"""Reading `docker run [options] IMAGE [command]`, and podman's: what would run inside, with the variables it gets.

Options end at the image (Docker's command line reference); what the image starts by itself is known for those that
engines publish.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import unknown_flag
from willfit.launch.values import flag_table

READS_VARIABLES = True

_FLAGS = "docker_flags.txt"

_PROGRAMS = frozenset({"docker", "podman"})

_SHORT = {
    "a": "--attach", "c": "--cpu-shares", "d": "--detach", "e": "--env", "h": "--hostname",
    "i": "--interactive", "l": "--label", "m": "--memory", "p": "--publish", "P": "--publish-all",
    "q": "--quiet", "t": "--tty", "u": "--user", "v": "--volume", "w": "--workdir",
}  # fmt: skip

_SHELLS = frozenset({"bash", "sh", "dash", "zsh"})

#: Where a script's command writes to.
_REDIRECTION = re.compile(r"\s\d*>>?\s*&?\s*[^\s;&|]+")

#: What separates commands in a script.
_SEPARATORS = frozenset({"&&", "||", ";", "&", "|"})


class _Image(NamedTuple):
    """What an image starts by itself, and whether its tag is the engine's version."""

    entrypoint: tuple[str, ...] = ()
    versioned: bool = True


#: By the end of an image's name, without registry and tag.
_IMAGES = {
    "vllm/vllm-openai": _Image(("vllm", "serve")),
    "vllm/vllm-openai-rocm": _Image(("vllm", "serve")),
    "huggingface/text-generation-inference": _Image(("text-generation-launcher",)),
    "lmsysorg/sglang": _Image(),
    "openmmlab/lmdeploy": _Image(),
    "nvidia/tensorrt-llm/release": _Image(),
}

_VERSION = re.compile(r"v?(\d+\.\d+(?:\.\d+)*(?:\.post\d+|rc\d+)?)(?![\d.])")

#: Variables that say which cards a program sees.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


@dataclass(slots=True)
class _Container:
    """Options before the image, by name, every value of each; the image; and the words behind it."""

    options: dict[str, list[str]] = field(default_factory=dict)
    image: str = ""
    command: list[str] = field(default_factory=list)

    def last(self, name: str) -> str | None:
        """The value that counts of an option that is given more than once."""
        return self.options[name][-1] if name in self.options else None


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts Docker or Podman."""
    return words[0].rsplit("/", 1)[-1] in _PROGRAMS


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts a container, and the command that runs in it.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of the engine; None for the one that the image's tag names.
    variables
        What is set in front of it; the container gets those that `--env NAME` passes on.

    Raises
    ------
    BadInput
        For an option that `docker run` does not have, or a command inside that cannot be read.
    """
    from willfit.launch.table import parse_command

    program = words[0].rsplit("/", 1)[-1]
    container = _container(_after_run(words, program), f"{program} run")
    image, tagged = _known_image(container.image)
    inside = _environment(container, variables or {})
    command = _command(container, image, program)
    launch = parse_command(
        [*(f"{name}={value}" for name, value in inside.items()), *command], version or tagged
    )
    notes = _notes(container, tagged if version is None else None)
    return replace(launch, model=_on_host(launch.model, container), notes=(*notes, *launch.notes))


def _after_run(words: Sequence[str], program: str) -> list[str]:
    rest = list(words[1:])
    if rest[:1] == ["container"]:
        rest = rest[1:]
    if rest[:1] != ["run"]:
        raise BadInput(
            f"{' '.join([program, *rest[:1]])}: only '{program} run' is read",
            f"write {program} run IMAGE ...",
        )
    return rest[1:]


def _container(words: list[str], program: str) -> _Container:
    """Take options apart until the image comes."""
    flags, found, index = flag_table(_FLAGS), _Container(), 0
    while index < len(words) and words[index].startswith("-") and words[index] != "--":
        word = words[index]
        index += 1
        for name, value in _options(word, program):
            if flags[name] == "switch":
                found.options.setdefault(name, []).append(value or "true")
                continue
            if value is None:
                if index >= len(words):
                    raise BadInput(f"{program}: {name} needs a value")
                value, index = words[index], index + 1
            found.options.setdefault(name, []).append(value)
    rest = words[index + 1 :] if words[index : index + 1] == ["--"] else words[index:]
    if not rest or not rest[0]:
        raise BadInput(f"{program}: no image is named", f"write {program} [options] IMAGE [command]")
    found.image, found.command = rest[0], rest[1:]
    return found


def _options(word: str, program: str) -> list[tuple[str, str | None]]:
    """The options of one word with their values as far as they are in it: `--rm`, `--gpus=all`, `-it`, `-p80:80`."""
    flags = flag_table(_FLAGS)
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        if name not in flags:
            raise unknown_flag(name, flags, program)
        return [(name, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        known = _SHORT.get(letter)
        if known is None:
            raise unknown_flag(f"-{letter}", flags, program)
        if flags[known] == "value":
            return [*found, (known, letters.removeprefix("=") or None)]
        found.append((known, None))
    return found


def _known_image(name: str) -> tuple[_Image, str | None]:
    """What is known of an image, and the engine's version that its tag names."""
    path, _, tag = name.partition("@")[0].rpartition(":")
    if not path or "/" in tag:  # no tag; the colon was that of a registry's port
        path, tag = name.partition("@")[0], ""
    for ending, image in _IMAGES.items():
        if path == ending or path.endswith("/" + ending):
            found = _VERSION.match(tag) if image.versioned else None
            return image, found.group(1) if found else None
    return _Image(), None


def _environment(container: _Container, outside: Mapping[str, str]) -> dict[str, str]:
    """Variables inside the container; a name alone passes on the value from outside."""
    inside: dict[str, str] = {}
    for text in container.options.get("--env", ()):
        name, equals, value = text.partition("=")
        if equals:
            inside[name] = value
        elif name in outside:
            inside[name] = outside[name]
    return {name: value for name, value in inside.items() if name.isidentifier()}


def _command(container: _Container, image: _Image, program: str) -> list[str]:
    """What runs in the container: the entry point with the words behind the image, a shell's script unpacked."""
    entrypoint = container.last("--entrypoint")
    start = image.entrypoint if entrypoint is None else tuple(entrypoint.split())
    command = [*start, *container.command]
    if not command:
        raise BadInput(
            f"{program} run: what {container.image[:60]} starts is not known",
            "write the command behind the image",
        )
    if command[0].rsplit("/", 1)[-1] in _SHELLS:
        return _script(command, program)
    return command


def _script(command: list[str], program: str) -> list[str]:
    """The command of a script (`bash -c "..."`) that a launcher can read."""
    from willfit.launch.table import PROGRAMS, variables_before

    flag = next((index for index, word in enumerate(command) if re.fullmatch(r"-\w*c", word)), None)
    if flag is None or flag + 1 >= len(command):
        raise BadInput(f"{program} run: a shell without a script starts no server", "give it -c 'COMMAND'")
    script = _REDIRECTION.sub(" ", command[flag + 1].replace("\\\n", " ").replace("\n", " ; "))
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        raise BadInput(f"{program} run: cannot read the script: {error}") from error
    commands: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS:
            commands.append([])
        elif word != "exec" or commands[-1]:
            commands[-1].append(word)
    for one in commands:
        bare = variables_before(one)[1]
        if bare and os.path.basename(bare[0]) in PROGRAMS:
            return one
    raise BadInput(
        f"{program} run: the script starts no program that is known", f"known: {', '.join(sorted(PROGRAMS))}"
    )


def _mounts(container: _Container) -> list[tuple[str, str]]:
    """(path inside, path on the host) of folders that are mounted, named volumes left out."""
    found = []
    for text in container.options.get("--volume", ()):
        parts = text.split(":")
        if len(parts) >= 2:
            found.append((parts[1], parts[0]))
    for text in container.options.get("--mount", ()):
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        source = fields.get("source", fields.get("src", ""))
        found.append((fields.get("target", fields.get("destination", fields.get("dst", ""))), source))
    return [
        (inside, host) for inside, host in found if inside.startswith("/") and host[:1] in ("/", ".", "~")
    ]


def _on_host(model: str, container: _Container) -> str:
    """Where a model that lies in a mounted folder is on the host."""
    for inside, host in sorted(_mounts(container), reverse=True):
        inside = inside.rstrip("/")
        if model == inside or model.startswith(inside + "/"):
            return host.rstrip("/") + model[len(inside) :]
    return model


def _notes(container: _Container, tagged: str | None) -> list[str]:
    notes = []
    if tagged is not None:
        notes.append(f"version {tagged} is that of the image's tag")
    gpus = container.last("--gpus")
    if gpus is not None and gpus.strip("\"'") != "all":
        notes.append(
            f"the container sees the GPUs of --gpus {gpus[:40]}; the question is about those of --gpu"
        )
    inside = {text.partition("=")[0]: text for text in container.options.get("--env", ())}
    notes += [
        f"the container sees the GPUs of {inside[name][:60]}; the question is about those of --gpu"
        for name in _VISIBLE
        if name in inside
    ]
    memory = container.last("--memory")
    if memory is not None:
        notes.append(f"the container may use {memory[:20]} of RAM (--memory); that limit is not counted")
    if "--env-file" in container.options:
        notes.append("the variables of a file (--env-file) are not read")
    return notes
