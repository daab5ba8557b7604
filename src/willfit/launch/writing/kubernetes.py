"""Manifests for `kubectl apply`: a Deployment, its Service, a claim for what is downloaded, and its files."""

from __future__ import annotations

import re
from typing import Any

from willfit.launch.writing.containers import FILES, MODELS, Contained, contained
from willfit.launch.writing.written import Order, Written
from willfit.launch.writing.yaml_text import Said, comment_text, yaml_text
from willfit.quantities import GIB, ceil_div

#: Shared memory of a pod, which counts as its RAM: where one device works alone, and for each that works with others
#: (vLLM's example of a deployment has 2Gi).
_SHARED_ALONE, _SHARED_EACH = 1, 2

#: What the hub's files of a model take beside its weights, and how much more a claim has than is needed.
_SPARE_GIB = 8

#: A server may load for so long before it is called unwell: tries of ten seconds.
_TRIES = 360

_RESOURCES = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu", "Intel": "gpu.intel.com/xe"}


def kubernetes_text(written: Written, order: Order) -> str:
    """The manifests, with each flag's reason above it.

    Raises
    ------
    BadInput
        If the engine's makers publish no image for such devices.
    """
    inside = contained(written, order)
    name = _name(order)
    documents = [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"{name}-models"},
         "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _storage(order)}}}},
        *([_config_map(inside, name)] if inside.files else []),
        _deployment(inside, written, order, name),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"selector": {"app": name},
                  "ports": [{"name": "http", "port": inside.program.port, "targetPort": "http"}]}},
    ]  # fmt: skip
    notes = "".join(f"{comment_text(note)}\n" for note in inside.notes)
    return notes + "---\n".join(map(yaml_text, documents))


def _deployment(inside: Contained, written: Written, order: Order, name: str) -> dict[str, Any]:
    labels = {"app": name}
    volumes: list[Any] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": f"{name}-models"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{_shared(inside)}Gi"}},
    ]
    if inside.files:
        volumes.append({"name": "files", "configMap": {"name": f"{name}-files"}})
    if inside.folder:
        folder = Said(
            {"name": "folder", "hostPath": {"path": _absolute(inside.folder)}}, "the model, on the node"
        )
        volumes.append(folder)
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [_container(inside, written, order)], "volumes": volumes},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "strategy": Said({"type": "Recreate"}, "two do not fit on the same devices"),
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def _container(inside: Contained, written: Written, order: Order) -> dict[str, Any]:
    reasons = {flag.words[0].partition("=")[0]: flag.reason for flag in written.variables}
    environment: list[Any] = []
    for key, value in inside.environment.items():
        pair = {"name": key, "value": _escaped(value)}
        environment.append(Said(pair, reasons[key]) if key in reasons else pair)
    secret = {"name": "hf-token", "key": "token", "optional": True}
    environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}})
    mounts: list[dict[str, Any]] = [
        {"name": "models", "mountPath": inside.program.cache},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    mounts += [{"name": "files", "mountPath": FILES}] if inside.files else []
    if inside.folder:
        mounts.append({"name": "folder", "mountPath": MODELS, "readOnly": True})
    check = {"httpGet": {"path": inside.program.health, "port": "http"}, "periodSeconds": 10}
    return {
        "name": written.engine.replace(".", "-"),
        "image": Said(inside.image, f"{written.engine} {written.version}"),
        "command": [_escaped(word) for word in inside.entry],
        "args": _arguments(inside),
        "env": environment,
        "ports": [{"name": "http", "containerPort": inside.program.port}],
        "resources": _resources(inside, order),
        "startupProbe": {
            **check,
            "failureThreshold": Said(_TRIES, "weights are downloaded and loaded first"),
        },
        "readinessProbe": check,
        "livenessProbe": {**check, "failureThreshold": 6},
        "volumeMounts": mounts,
    }


def _arguments(inside: Contained) -> list[Any]:
    found: list[Any] = []
    for flag in inside.arguments:
        words = [_escaped(word) for word in flag.words]
        found.append(Said(words[0], flag.reason) if flag.reason else words[0])
        found += words[1:]
    return found


def _resources(inside: Contained, order: Order) -> dict[str, Any]:
    """The devices, and the RAM that the estimate has for the host; of that no limit, as a limit would kill it."""
    host = order.estimate.host
    ram = ceil_div(max(host.interval_bytes[1], host.peak_bytes), GIB) + _shared(inside)
    said = Said(f"{ram}Gi", "what the host holds by the estimate, and shared memory")
    found: dict[str, Any] = {"requests": {"memory": said}}
    if inside.vendor:
        devices = {_RESOURCES[inside.vendor]: str(inside.devices)}
        found = {"requests": {"memory": said, **devices}, "limits": devices}
    return found


def _config_map(inside: Contained, name: str) -> dict[str, Any]:
    data = {path.removeprefix(f"{FILES}/"): text for path, text in inside.files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-files"}, "data": data}


def _shared(inside: Contained) -> int:
    return _SHARED_EACH * inside.devices if inside.devices > 1 else _SHARED_ALONE


def _storage(order: Order) -> str:
    stored = order.subject.weight_bytes + order.subject.mtp_bytes
    return f"{ceil_div(stored, GIB) + _SPARE_GIB}Gi"


def _name(order: Order) -> str:
    """A name for labels and hosts: small letters, digits and dashes, a letter first, at most 63 with what is added
    (RFC 1035)."""
    bare = order.subject.model.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")[:50].strip("-") or "model"
    return name if name[0].isalpha() else f"m-{name}"


def _absolute(folder: str) -> str:
    return folder if folder.startswith("/") else f"/srv/{folder.strip('./~') or 'models'}"


def _escaped(text: str) -> str:
    """Text in which Kubernetes puts no variables."""
    return text.replace("$(", "$$(")
