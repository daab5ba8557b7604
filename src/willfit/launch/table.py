"""Which launcher reads a command, and what stands in front of it: variables, wrappers, shells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from os.path import basename
from types import ModuleType

from willfit.errors import BadInput
from willfit.launch.base import Launch, OnlyServes
from willfit.launch.images import known_image
from willfit.launch.llama_names import PUBLISHED, is_koboldcpp, is_llama_program, llama_program
from willfit.launch.shell import SHELLS, VARIABLE, commands_of, script_of
from willfit.launch.training.table import PROGRAMS as TRAINING_PROGRAMS
from willfit.launch.training.table import launcher_of
from willfit.launch.values import numbers_of

#: Modules of this folder, asked in turn whether a command is theirs.
LAUNCHERS: tuple[str, ...] = (
    "vllm", "ktransformers", "sglang", "trtllm", "tgi", "lmdeploy", "lightllm", "llamacpp", "llamabench",
    "llama_cpp_python", "koboldcpp", "ollama", "lmstudio", "mlx", "tabby", "exllama", "fastllm", "mlc", "docker",
)  # fmt: skip

#: Programs that start another one; what stands between them and its name is theirs.
_WRAPPERS = frozenset({
    "accelerate", "apptainer", "chrt", "conda", "docker-compose", "dumb-init", "enroot", "env", "exec", "flock",
    "gdb", "hatch", "ionice", "kubectl", "mamba", "micromamba", "mpiexec", "mpirun", "ncu", "nice", "nohup", "nsys",
    "numactl", "oc", "op", "pdm", "pipenv", "pipx", "pixi", "poetry", "ray", "rocprof", "rocprofv3", "screen",
    "setsid", "singularity", "srun", "stdbuf", "sudo", "systemd-run", "taskset", "time", "timeout", "tini", "tmux",
    "torchrun", "trtllm-llmapi-launch", "uv", "uvx", "watch", "xargs",
})  # fmt: skip

_CONTAINERS = frozenset({"docker", "podman", "nerdctl", "nvidia-docker"})

_ENGINES = frozenset({
    "vllm", "sglang", "lmdeploy", "trtllm-serve", "text-generation-launcher", "llama-server", "koboldcpp",
    "ollama", "mlx_lm.server", "mlx_lm.generate", "ktransformers", "kt", "ftllm", "mlc_llm", "tabbyapi",
})  # fmt: skip

#: Programs most of whose commands load nothing: scripts have those, too.
_TOOLS = frozenset({"lms"})

#: Programs of a package that have a dot in their names, or are words behind its name: `mlx_lm.server`, `mlx_lm server`.
_DOTTED = re.compile(r"mlx_v?lm(\.\w+)?")

#: First words of commands, so that a model's name is not taken for one.
PROGRAMS: frozenset[str] = _WRAPPERS | _CONTAINERS | _ENGINES | _TOOLS | SHELLS | TRAINING_PROGRAMS

_SUBCOMMANDS = frozenset(
    {"serve", "bench", "run-batch", "chat", "complete", "generate", "server", "benchmark", "run", "webui"}
)

_PYTHON = re.compile(r"python(\d(\.\d+)?)?")

#: Modules and scripts with which `python` starts an engine.
_MODULES = re.compile(
    r"vllm(\.entrypoints\..*)?|sglang\.(launch_server|srt\..*)|sglang|lightllm\.server\..*|lmdeploy|mlx_v?lm(\.\w+)?"
    r"|llama_cpp\.server|mlc_llm|ktransformers\.(local_chat|server\.main)"
)
_SCRIPTS = re.compile(r"(benchmark_(latency|throughput)|test_inference|local_chat|koboldcpp)\.py")

#: Names that many scripts have; a launcher knows its own by what follows.
_COMMON_SCRIPTS = re.compile(r"(main|start|chat)\.py|start\.(sh|bat)")

#: `vllm==0.11.0`, `vllm[flashinfer]==0.11.0`, `vllm@0.11.0`: the version that is installed for the command.
_PINNED = re.compile(
    r"(vllm|sglang|lmdeploy|llama-cpp-python|mlx-lm|trl)(?:\[[^\]]*\])?(?:==|@)v?(\d+(?:\.\w+)*)"
)

#: Packages whose modules have another name.
_MODULE_OF = {"llama-cpp-python": "llama_cpp", "mlx-lm": "mlx_lm"}

#: Variables that say which devices a program sees.
_VISIBLE = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip


def is_program(word: str) -> bool:
    """Whether a word starts a launch command."""
    name = basename(word)
    if name.lower() == "tabbyapi":
        return True
    forms = any(form.fullmatch(name) for form in (_PYTHON, _DOTTED))
    return name in PROGRAMS or forms or is_llama_program(word)


def programs_like(word: str) -> list[str]:
    """Programs whose names are near a word, which is none."""
    from difflib import get_close_matches

    return get_close_matches(basename(word).lower(), sorted({*_ENGINES, *PUBLISHED}), 2, 0.75)


def variables_before(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that are set in front of a command, with `env` or without, and the command."""
    variables: dict[str, str] = {}
    for index, word in enumerate(words):
        if word == "env" and not index:
            continue
        found = VARIABLE.fullmatch(word)
        if found is None:
            return variables, list(words[index:])
        variables[found.group(1)] = found.group(2)
    return variables, []


def parse_command(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a launch command.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of the engine; None for the one that the command pins, else the newest that is known.
    variables
        What is set for it before.

    Raises
    ------
    BadInput
        If no launcher knows the program, or the command is wrong.
    """
    # A backslash at the end of a line is left over where a command was pasted.
    words = [word for word in words if not word or word.strip(" \\\n\t")]
    before, command = variables_before(words)
    given = {**(variables or {}), **before}
    name = basename(command[0]) if command else ""
    trainer = launcher_of(command)
    if name in SHELLS and trainer is None:
        return _parse_script(command, version, given)
    launch: Launch | None
    if trainer is not None:
        launch = _parse_with(trainer, command, version, given)
    else:
        launch = None if is_wrapped(command) else _parse_plain(command, version, given)
    if launch is None:
        launch = _parse_wrapped(command, version, given)
    visible = devices_of(given)
    if visible is None or launch.devices is not None:
        return launch
    return replace(launch, devices=len(visible), visible=numbers_of(visible))


def is_wrapped(command: Sequence[str]) -> bool:
    """Whether a command starts another one that stands behind it."""
    return bool(command) and (basename(command[0]) in _WRAPPERS or _in_container(command))


def devices_of(variables: Mapping[str, str]) -> list[str] | None:
    """The devices that variables let a program see; None if they say nothing."""
    for name in _VISIBLE:
        listed = [one.strip() for one in variables.get(name, "").split(",") if one.strip()]
        if listed and listed[0] not in ("all", "void", "none"):
            return listed[: listed.index("-1")] if "-1" in listed else listed
    return None


def _in_container(command: Sequence[str]) -> bool:
    """Whether a command starts another one in a container that is described elsewhere."""
    names = ["exec"], ["compose"]
    return (
        basename(command[0]) in _CONTAINERS
        and list(command[1:2]) in names
        and any(starts(command[index:]) for index in range(2, len(command)))
        if command
        else False
    )


def _parse_plain(command: Sequence[str], version: str | None, variables: Mapping[str, str]) -> Launch | None:
    """What a command that begins with its program says; None if no launcher knows it."""
    module = reader_of(command)
    return None if module is None else _parse_with(module, command, version, variables)


def reader_of(command: Sequence[str]) -> ModuleType | None:
    """The launcher of an engine or a container that reads a command which begins with its program."""
    for name in LAUNCHERS if command else ():
        module = import_module(f"willfit.launch.{name}")
        if module.recognises(command):
            return module
    return None


def _parse_with(
    module: ModuleType, command: Sequence[str], version: str | None, variables: Mapping[str, str]
) -> Launch:
    """What a launcher reads in a command that is its own."""
    launch: Launch
    if getattr(module, "READS_VARIABLES", False):
        launch = module.parse(command, version, variables)
    else:
        launch = module.parse(command, version)
    return launch


def _parse_wrapped(command: list[str], version: str | None, variables: Mapping[str, str]) -> Launch:
    """What a command says that stands behind other programs: the first that a launcher could read."""
    start = start_of(command)
    if start is None:
        what = " ".join(command)[:80]
        more = ("python -m lightllm.server.api_server", "docker run", "accelerate launch", "torchrun")
        known = ", ".join([*sorted(_ENGINES | _TOOLS | TRAINING_PROGRAMS), *more])
        script = any(word.endswith(".py") for word in command[1:3])
        hint = "about a script with transformers ask willfit MODEL --engine transformers; " if script else ""
        raise BadInput(f"cannot read the command {what!r}", f"{hint}known: {known}")
    between, rest = command[:start], list(command[start:])
    given = dict(variables)
    for word in between:
        # `numactl ... env NAME=value`, `srun --export=ALL,NAME=value`
        for part in word.removeprefix("--export=").split(",") if word.startswith("--export=") else [word]:
            found = VARIABLE.fullmatch(part)
            if found is not None:
                given[found[1]] = found[2]
    pinned = _pinned([*between, rest[0]], rest)
    rest[0] = re.sub(r"@.*", "", rest[0]) if _PINNED.fullmatch(rest[0]) else rest[0]
    tagged = next((known_image(word.rpartition("=")[2])[1] for word in between), None)
    for word in between:
        tagged = tagged or known_image(word.rpartition("=")[2])[1]
    launch = parse_command(rest, version or pinned or tagged, given)
    if version is None and (pinned or tagged) and basename(rest[0]) not in _CONTAINERS:
        note = f"version {pinned} is the one that is installed for the command"
        if not pinned:
            note = f"version {tagged} is that of the image's tag"
        launch = replace(launch, notes=(note, *launch.notes))
    return launch


def _pinned(words: Sequence[str], command: Sequence[str]) -> str | None:
    """The version that words pin of the package that a command starts."""
    started = " ".join(command[:4])
    for word in words:
        found = _PINNED.fullmatch(word.rpartition("--with=")[2].rpartition("--from=")[2])
        if found is not None and re.search(rf"\b{_MODULE_OF.get(found[1], found[1])}\b", started):
            return found[2]
    return None


def start_of(command: Sequence[str]) -> int | None:
    """Where the first command begins that a launcher could read; None if there is none."""
    return next((index for index in range(len(command)) if starts(command[index:])), None)


def starts(words: Sequence[str]) -> bool:
    """Whether an engine's command, a container or a shell's script begins here, behind other programs."""
    name, following = basename(words[0]), list(words[1:5])
    if launcher_of(words) is not None:
        return True
    if _PINNED.fullmatch(name):
        name = name.partition("@")[0]
    if (
        name.lower() == "tabbyapi"
        or name in ("trtllm-serve", "text-generation-launcher", "ktransformers")
        or (_DOTTED.fullmatch(name) and "." in name)
    ):
        return True
    if llama_program(words) is not None or is_koboldcpp(words[0]):
        return True
    if name == "ollama":
        return following[:1] in (["run"], ["create"], ["serve"], ["start"])
    if name.removesuffix(".exe") == "lms":
        return following[:1] == ["load"]
    if name in ("vllm", "sglang", "lmdeploy", "kt", "ftllm", "mlc_llm") or _DOTTED.fullmatch(name):
        return bool(following) and following[0] in _SUBCOMMANDS
    if name in _CONTAINERS:
        return following[:1] in (["run"], ["container"])
    if name in SHELLS:
        return any(re.fullmatch(r"-\w*c", word) for word in following)
    if _PYTHON.fullmatch(name):
        module = following.index("-m") + 1 if "-m" in following else None
        if module is not None:
            return module < len(following) and _MODULES.fullmatch(following[module]) is not None
        if any(_SCRIPTS.fullmatch(basename(word)) for word in following[:2]):
            return True
        return any(_COMMON_SCRIPTS.fullmatch(basename(word)) for word in following[:2]) and _known(words)
    if _COMMON_SCRIPTS.fullmatch(name):
        return _known(words)
    return name == "-m" and bool(following) and _MODULES.fullmatch(following[0]) is not None


def _known(words: Sequence[str]) -> bool:
    """Whether a launcher knows a command."""
    return any(import_module(f"willfit.launch.{name}").recognises(words) for name in LAUNCHERS)


def _parse_script(command: list[str], version: str | None, variables: Mapping[str, str]) -> Launch:
    """What the first command of a script says that a launcher can read; versions that it installs before count."""
    program = basename(command[0])
    installed: list[str] = []
    server: OnlyServes | None = None
    for exported, one in commands_of(script_of(command, program), program):
        before, bare = variables_before(one)
        if bare and (starts(bare) or basename(bare[0]) in _ENGINES or _begins(bare) or _in_container(bare)):
            pinned = _pinned(installed, bare) if version is None else None
            given = {**variables, **(server.variables if server else {}), **exported, **before}
            asked = version or pinned or (server.version if server else None)
            try:
                launch = parse_command(bare, asked, given)
            except OnlyServes as found:
                # A server in the background, with what it is told; the model comes behind it.
                server = found
                continue
            if pinned is not None:
                note = f"version {pinned} is the one that is installed for the command"
                launch = replace(launch, notes=(note, *launch.notes))
            return launch
        installed += bare
    if server is not None:
        raise server
    known = ", ".join(sorted(_ENGINES | _TOOLS))
    raise BadInput(f"{program}: the script starts no program that is known", f"known: {known}")


def _begins(words: Sequence[str]) -> bool:
    """Whether a wrapped command has one inside that can be read."""
    return basename(words[0]) in _WRAPPERS and any(starts(words[index:]) for index in range(len(words)))
