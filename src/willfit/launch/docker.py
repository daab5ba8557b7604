"""Reading `docker run [options] IMAGE [command]`, and podman's: what would run inside, with the variables it gets.

Options end at the image (Docker's command line reference); what the image starts by itself is known for those that
engines publish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from willfit.engines.vllm.settings import with_flashinfer
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import flag_table, unknown_flag
from willfit.launch.images import Image, known_image
from willfit.launch.values import numbers_of

READS_VARIABLES = True

_FLAGS = "docker_flags.txt"

_PROGRAMS = frozenset({"docker", "podman", "nerdctl", "nvidia-docker"})

_SHORT = {
    "a": "--attach", "c": "--cpu-shares", "d": "--detach", "e": "--env", "h": "--hostname",
    "i": "--interactive", "l": "--label", "m": "--memory", "p": "--publish", "P": "--publish-all",
    "q": "--quiet", "t": "--tty", "u": "--user", "v": "--volume", "w": "--workdir",
}  # fmt: skip

#: Flags whose value is a file that the engine reads.
_FILES = (
    "--config", "--extra_llm_api_options", "--chat-template", "--mmproj", "-mm", "--lora", "--models-preset", "-md",
    "--model-draft", "--spec-draft-model", "--draftmodel", "--config_file", "--clip_model_path", "--lora_path",
)  # fmt: skip


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
    image, tagged = known_image(container.image)
    inside = _environment(container, variables or {})
    command = _with_files_of_host(_command(container, image, program), container)
    launch = parse_command(command, version or tagged, inside)
    if image.flashinfer and launch.engine == "vllm":
        launch = replace(launch, settings=with_flashinfer(launch.settings))
    if image.backend is not None and launch.engine == "llama.cpp":
        only = {"devices": ()} if image.backend == "cpu" else {}
        launch = replace(launch, settings=replace(launch.settings, backend=image.backend, **only))
    notes = _notes(container, tagged if version is None else None)
    if image.backend == "cpu":
        notes.append("the image has llama.cpp for the processor alone")
    count, numbers = _devices(container)
    return replace(
        launch,
        model=_on_host(launch.model, container),
        devices=launch.devices if launch.devices is not None else count,
        visible=launch.visible if launch.devices is not None else numbers,
        notes=(*notes, *launch.notes),
    )


def inner_command(words: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """What a container's image starts in front of the words behind it, and which word names the image.

    Raises
    ------
    BadInput
        For an option that `docker run` does not have.
    """
    program = words[0].rsplit("/", 1)[-1]
    container = _container(_after_run(words, program), f"{program} run")
    command = _command(container, known_image(container.image)[0], program)
    own = len(container.command)
    return tuple(command[: len(command) - own]), len(words) - own - 1


def _after_run(words: Sequence[str], program: str) -> list[str]:
    rest = list(words[1:])
    if rest[:1] == ["container"]:
        rest = rest[1:]
    if rest[:1] == ["model"]:
        raise BadInput(
            f"{program} model: models of Docker Hub are not read; llama.cpp runs them",
            "write llama-server with the same model's file or repository",
        )
    if rest[:1] != ["run"]:
        raise BadInput(
            f"{' '.join([program, *rest[:1]])}: only '{program} run' is read",
            f"write {program} run IMAGE ...",
        )
    return rest[1:]


def _container(words: list[str], program: str) -> _Container:
    """Take options apart until the image comes."""
    flags, found, index = flag_table(_FLAGS).flags, _Container(), 0
    while index < len(words) and words[index].startswith("-") and words[index] != "--":
        word = words[index]
        index += 1
        for name, value in _options(word, program):
            if flags[name].takes == "switch":
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
    flags = flag_table(_FLAGS).flags
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
        if flags[known].takes == "value":
            return [*found, (known, letters.removeprefix("=") or None)]
        found.append((known, None))
    return found


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


def _command(container: _Container, image: Image, program: str) -> list[str]:
    """What runs in the container: the entry point with the words behind the image."""
    entrypoint = container.last("--entrypoint")
    start = image.entrypoint if entrypoint is None else tuple(entrypoint.split())
    command = [*start, *(container.command or (image.command if entrypoint is None else ()))]
    if not command:
        raise BadInput(
            f"{program} run: what {container.image[:60]} starts is not known",
            "write the command behind the image",
        )
    return command


def _with_files_of_host(command: Sequence[str], container: _Container) -> list[str]:
    """The command with the paths of files that lie in mounted folders as they are on the host."""
    found = []
    for index, word in enumerate(command):
        flag, equals, path = word.partition("=")
        if equals and flag in _FILES:
            found.append(f"{flag}={_on_host(path, container)}")
        else:
            found.append(_on_host(word, container) if index and command[index - 1] in _FILES else word)
    return found


def _devices(container: _Container) -> tuple[int | None, tuple[int, ...]]:
    """How many GPUs `--gpus` gives, and which: `2`, `device=0,1`, `"device=0,1",capabilities=utility`; None for all."""
    text = (container.last("--gpus") or "").strip("'")
    listed = re.search(r"device=([\w:.-]+(?:,[\w:.-]+)*)\"", text + '"') or re.match(
        r"device=([\w,:.-]+)", text
    )
    if listed is not None:
        named = listed.group(1).split(",")
        return len(named), numbers_of(named)
    count = re.fullmatch(r"(?:count=)?(\d+)", text)
    return (int(count.group(1)) if count is not None and int(count.group(1)) else None), ()


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
    memory = container.last("--memory")
    if memory is not None:
        notes.append(f"the container may use {memory[:20]} of RAM (--memory); that limit is not counted")
    if "--env-file" in container.options:
        notes.append("the variables of a file (--env-file) are not read")
    return notes
