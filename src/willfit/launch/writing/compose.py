"""A file for `docker compose up` (the Compose Specification)."""

from __future__ import annotations

from typing import Any

from willfit.launch.writing.containers import FILES, MODELS, Contained, contained
from willfit.launch.writing.written import Order, Written
from willfit.launch.writing.yaml_text import Said, comment_text, yaml_text

#: Shared memory where a container has its own (TGI's documentation: `--shm-size 1g`); beside `ipc: host` it says
#: nothing.
_SHARED = "1gb"

#: Until then a server may load its weights from a slow disk or the hub without being called unwell.
_START_PERIOD = "30m"


def compose_text(written: Written, order: Order) -> str:
    """The file, with each flag's reason above it.

    Raises
    ------
    BadInput
        If the engine's makers publish no image for such devices.
    """
    inside = contained(written, order)
    service: dict[str, Any] = {
        "image": Said(inside.image, f"{written.engine} {written.version}"),
        "entrypoint": _escaped(list(inside.entry)),
        "command": _command(inside),
        "environment": _environment(inside, written),
        "ports": [f"{inside.program.port}:{inside.program.port}"],
        "volumes": _volumes(inside),
    }
    if inside.files:
        service["configs"] = [{"source": _config(path), "target": path} for path in inside.files]
    if inside.program.shares_memory and inside.devices > 1:
        service["ipc"] = Said("host", "processes of several devices share memory")
    else:
        service["shm_size"] = _SHARED
    service |= _devices(inside)
    service["healthcheck"] = {
        "test": ["CMD-SHELL", _test(inside)],
        "interval": "30s",
        "timeout": "10s",
        "retries": 3,
        "start_period": Said(_START_PERIOD, "weights are downloaded and loaded first"),
    }
    service["restart"] = "unless-stopped"
    document: dict[str, Any] = {"services": {_service(written): service}, "volumes": {"models": {}}}
    if inside.files:
        document["configs"] = {
            _config(path): {"content": _escaped(text)} for path, text in inside.files.items()
        }
    notes = [comment_text(note) for note in inside.notes]
    return "\n".join([*notes, yaml_text(document)]) if notes else yaml_text(document)


def _service(written: Written) -> str:
    return written.engine.replace(".", "-")


def _command(inside: Contained) -> list[Any]:
    found: list[Any] = []
    for flag in inside.arguments:
        words = [_escaped(word) for word in flag.words]
        found.append(Said(words[0], flag.reason) if flag.reason else words[0])
        found += words[1:]
    return found


def _environment(inside: Contained, written: Written) -> dict[str, Any]:
    reasons = {flag.words[0].partition("=")[0]: flag.reason for flag in written.variables}
    found: dict[str, Any] = {}
    for name, value in inside.environment.items():
        found[name] = Said(_escaped(value), reasons[name]) if name in reasons else _escaped(value)
    return found | {"HF_TOKEN": Said("${HF_TOKEN:-}", "of the hub, for models that need one")}


def _volumes(inside: Contained) -> list[Any]:
    found: list[Any] = [
        Said(f"models:{inside.program.cache}", "what is downloaded stays when it starts again")
    ]
    if inside.folder:
        bound = {"type": "bind", "source": _escaped(inside.folder), "target": MODELS, "read_only": True}
        found.append(Said(bound, "the folder with the model"))
    return found


def _devices(inside: Contained) -> dict[str, Any]:
    """How devices are handed in: NVIDIA's by a reservation, AMD's and Intel's as files."""
    if not inside.vendor:
        return {}
    if inside.vendor == "NVIDIA":
        asked = {"driver": "nvidia", "count": inside.devices, "capabilities": ["gpu"]}
        return {"deploy": {"resources": {"reservations": {"devices": [asked]}}}}
    files = ["/dev/dri"] if inside.vendor == "Intel" else ["/dev/kfd", "/dev/dri"]
    return {
        "devices": [f"{name}:{name}" for name in files],
        "group_add": ["video"],
        "security_opt": ["seccomp=unconfined"],
    }


def _test(inside: Contained) -> str:
    url = f"http://localhost:{inside.program.port}{inside.program.health}"
    return inside.program.test.format(url=url)


def _config(path: str) -> str:
    return path.removeprefix(f"{FILES}/").replace(".", "-").lower()


def _escaped(value: Any) -> Any:
    """Text in which Compose puts no variables."""
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return value.replace("$", "$$")
