"""Files that are written: valid by their own schemas and libraries, and the command in them is the one written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from willfit.asking import machine_of
from willfit.checkpoints.catalogue import find
from willfit.engines.base import Question
from willfit.engines.table import engine_module
from willfit.errors import BadInput
from willfit.launch.images import known_image
from willfit.launch.shell import commands_of
from willfit.launch.table import parse_command
from willfit.launch.writing.containers import PROGRAMS, image_of
from willfit.launch.writing.forms import text_in
from willfit.launch.writing.yaml_text import Said, yaml_text
from willfit.launching import Launchable, launch_about, same_bytes

SCHEMAS = Path(__file__).parents[1] / "data" / "schemas"

_MODEL = "Qwen/Qwen3-8B"


def made(engine: str, gpu: str = "2xl40s", model: str = _MODEL, kv_dtype: str = "auto") -> Launchable:
    one = launch_about(model, machine_of(gpu), Question(8192, 4, kv_dtype), engine, offline=True)
    assert one.written is not None
    return one


def same(
    one: Launchable, words: list[str], environment: dict[str, str], files: dict[str, str], tmp: Path
) -> None:
    """Hold the words in a container to the estimate, with files from inside put where they can be read."""
    for path, text in files.items():
        target = tmp / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        words = [word.replace(path, str(target)) for word in words]
    assert one.written is not None
    launch = parse_command(words, one.written.version, environment)
    again = engine_module(launch.engine).estimate(one.order.subject, one.order.machine, launch.settings, 4)
    assert same_bytes(again, one.order.estimate), words


@pytest.mark.parametrize("engine", PROGRAMS)
@pytest.mark.parametrize("gpu", ["2xl40s", "mi300x", "cpu"])
def test_compose(engine: str, gpu: str, tmp_path: Path) -> None:
    try:
        one = made(engine, gpu)
        text = text_in("compose", one.written, one.order)
    except (BadInput, AssertionError):
        assert gpu != "2xl40s"
        return
    file = yaml.safe_load(text)
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(file)
    (service,) = file["services"].values()
    plain = json.loads(json.dumps(service).replace("$$", "$"))
    inside = {
        at["target"]: file["configs"][at["source"]]["content"].replace("$$", "$")
        for at in service.get("configs", ())
    }
    environment = {name: value for name, value in plain["environment"].items() if name != "HF_TOKEN"}
    same(one, [*plain["entrypoint"], *plain["command"]], environment, inside, tmp_path)
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    if gpu == "2xl40s":
        assert devices == [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]
    if gpu == "mi300x":
        assert "/dev/kfd:/dev/kfd" in service["devices"]
    version = known_image(service["image"])[1]
    assert one.written is not None
    assert version == one.written.version


@pytest.mark.parametrize("engine", PROGRAMS)
def test_kubernetes(engine: str, tmp_path: Path) -> None:
    one = made(engine)
    documents = list(yaml.safe_load_all(text_in("kubernetes", one.written, one.order)))
    schema = json.loads((SCHEMAS / "kubernetes.json").read_text(encoding="utf-8"))
    for document in documents:
        at = {"$ref": schema["kinds"][document["kind"]], "definitions": schema["definitions"]}
        jsonschema.validate(document, at)
    by_kind = {document["kind"]: document for document in documents}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    files = {
        f"/etc/willfit/{name}": text for name, text in by_kind.get("ConfigMap", {}).get("data", {}).items()
    }
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    same(one, [*container["command"], *container["args"]], environment, files, tmp_path)
    # Everything that is mounted is there, and everything that is asked for by name has that name.
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    port = container["ports"][0]
    assert by_kind["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert by_kind["Service"]["spec"]["selector"].items() <= pod_labels(by_kind["Deployment"]).items()


@pytest.mark.parametrize("engine", ["vllm", "tgi", "llama.cpp", "ollama"])
def test_kubernetes_with_other_devices(engine: str) -> None:
    schema = json.loads((SCHEMAS / "kubernetes.json").read_text(encoding="utf-8"))
    one = made(engine, "2xmi300x")
    for document in yaml.safe_load_all(text_in("kubernetes", one.written, one.order)):
        at = {"$ref": schema["kinds"][document["kind"]], "definitions": schema["definitions"]}
        jsonschema.validate(document, at)
        if document["kind"] == "Deployment":
            resources = document["spec"]["template"]["spec"]["containers"][0]["resources"]
            assert resources["limits"] == {"amd.com/gpu": str(len(one.order.estimate.devices))}


def pod_labels(deployment: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("engine", PROGRAMS)
def test_shell_text(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is valid shell; its here-documents make the files, and what it starts is the command."""
    one = made(engine, kv_dtype="q8_0" if engine in ("ollama", "llama.cpp") else "auto")
    text = text_in("command", one.written, one.order, "two cards")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert one.written is not None
    # With the program replaced by one that says what it was given, a shell has the last word.
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in {one.written.start[0], "ollama"}:
        program = fake / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@" > "said.${1##*/}"\n')
        program.chmod(0o755)
    subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, env={"PATH": f"{fake}:/usr/bin:/bin"}, check=True, timeout=20
    )
    said = (tmp_path / f"said.{one.written.words[1].rpartition('/')[2]}").read_text().splitlines()
    assert said[1:] == list(one.written.words[1:])
    for name, content in one.written.files.items():
        assert (tmp_path / name).read_text() == content
    if not one.written.server:
        monkeypatch.chdir(tmp_path)
        plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        command = plain.rpartition("EOF\n")[2]
        ((_, words),) = [found for found in commands_of(command, "bash") if found[1]]
        assert words[-len(one.written.words) :] == list(one.written.words)


def test_names_cannot_break_out(tmp_path: Path) -> None:
    """A folder may be called anything; its name is one word everywhere, and starts nothing."""
    folder = tmp_path / 'it\'s "$(touch owned)" `touch owned`\ntouch owned #'
    folder.mkdir()
    entry = find("Qwen/Qwen3-0.6B")
    assert entry is not None
    (folder / "config.json").write_text(json.dumps(entry.config), encoding="utf-8")
    one = made("vllm", model=str(folder))
    assert one.written is not None
    text = text_in("command", one.written, one.order, f"about {folder}")
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\nprintf "%s" "$2" > said\n')
    program.chmod(0o755)
    subprocess.run(["bash", "-c", text], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    assert (tmp_path / "said").read_text() == str(folder)
    assert not list(tmp_path.rglob("owned"))
    compose = yaml.safe_load(text_in("compose", one.written, one.order))["services"]["vllm"]
    assert compose["command"][1].replace("$$", "$") == f"/models/{folder.name}"
    assert compose["volumes"][1]["source"].replace("$$", "$") == str(tmp_path)
    assert "$(" not in json.dumps(compose).replace("$$", "")


def test_one_form_alone() -> None:
    one = made("ollama")
    assert one.written is not None
    assert text_in("modelfile", one.written, one.order) == one.written.files["Modelfile"]
    with pytest.raises(BadInput, match="known: command, compose, kubernetes, modelfile"):
        text_in("json", one.written, one.order)
    trt = made("tensorrt-llm", kv_dtype="fp8")
    assert trt.written is not None
    assert yaml.safe_load(text_in("yaml", trt.written, trt.order)) == {
        "kv_cache_config": {"free_gpu_memory_fraction": 0.9, "dtype": "fp8"}
    }


@pytest.mark.parametrize(
    ("engine", "version", "vendor"),
    [
        ("sglang", "0.5.23", "AMD"),
        ("vllm", "0.9.0", "AMD"),
        ("tensorrt-llm", "1.4.0", "AMD"),
        ("tgi", "3.3.7", "Apple"),
    ],
)
def test_images_that_there_are_not(engine: str, version: str, vendor: str) -> None:
    with pytest.raises(BadInput, match="no image"):
        image_of(engine, version, vendor)


_LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_TEXT = st.text(st.characters(blacklist_categories=("Cs",))) | st.sampled_from(
    (
        "yes",
        "NO",
        "1e3",
        "0x1f",
        "~",
        "a: b",
        "- x",
        "# no",
        "line\n",
        "two\nlines\n",
        " \n",
        "\u2028",
        "12:30:00",
        "=",
        "<<",
    )
)
_TREE = st.recursive(
    _LEAF | _TEXT, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner), max_leaves=20
)


@given(_TREE)
def test_yaml_reads_back(tree: Any) -> None:
    assert yaml.safe_load(yaml_text(tree)) == tree


@given(st.dictionaries(_TEXT, st.tuples(_TREE, _TEXT)))
def test_comments_change_nothing(entries: dict[str, tuple[Any, str]]) -> None:
    said = {name: Said(value, comment) for name, (value, comment) in entries.items()}
    assert yaml.safe_load(yaml_text(said)) == {name: value for name, (value, _) in entries.items()}


def test_docker_agrees() -> None:
    """Docker's own reader, where there is one."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    one = made("tensorrt-llm")
    text = text_in("compose", one.written, one.order)
    found = subprocess.run(
        ["docker", "compose", "-f", "-", "config", "--quiet"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
