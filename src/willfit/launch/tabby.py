"""Reading tabbyAPI: `python main.py --config config.yml`, its flags, `TABBY_...` variables and the file itself.

Settings stand in a YAML file in sections, and each is a flag and a variable as well (`common/config_models.py`,
`common/tabby_config.py`): the file counts least, then variables, then flags; flags beside `--config` count for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from pathlib import Path
from typing import Any

from willfit.engines import exllamav2, exllamav3
from willfit.errors import BadInput
from willfit.launch.base import DraftModel, Launch
from willfit.launch.config_files import read_settings
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted
from willfit.launch.scanning import Dialect, scan
from willfit.launch.values import whole

PROGRAM = "tabbyAPI"

#: It reads variables as well.
READS_VARIABLES = True

#: What it is started with, and a container's own command.
_SCRIPTS = re.compile(r"(main|start)\.py|start\.(sh|bat)")

#: Flags that no other `main.py` has.
_OWN = (
    "--model-name",
    "--cache-mode",
    "--cache-size",
    "--autosplit-reserve",
    "--gpu-split-auto",
    "--max-seq-len",
)

#: The file that is read where none is named.
_FILE = "config.yml"

#: Sections of the file, and which of their settings matter here.
_SECTIONS = {
    "model": (
        "model_name", "model_dir", "backend", "max_seq_len", "cache_size", "cache_mode", "chunk_size",
        "tensor_parallel", "autosplit_reserve", "gpu_split", "cpu_moe_offload_layers", "max_batch_size", "vision",
    ),
    "draft_model": ("draft_model_name", "draft_mode", "draft_cache_mode", "draft_num_tokens"),
    "memory": ("sysmem_kv_cache", "sysmem_recurrent_cache"),
}  # fmt: skip

#: A folder's name that says how its weights are stored: `Qwen3-8B-exl3_4.0bpw`, `Llama-3-8B-4.65bpw-h6-exl2`.
_STORED = (
    re.compile(r"[-_.](\d+(?:\.\d+)?)bpw(?:[-_]h\w*)?[-_.](exl[23])$", re.IGNORECASE),
    re.compile(r"[-_.](exl[23])(?:[-_.](\d+(?:\.\d+)?)(?:bpw)?(?:[-_]h\w*)?)?$", re.IGNORECASE),
)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts tabbyAPI."""
    for word in words[:4]:
        if basename(word).lower() == "tabbyapi":
            return True
        if _SCRIPTS.fullmatch(basename(word)):
            own = any(one.partition("=")[0] in _OWN for one in words)
            file = "--config" in words and any(one.endswith((".yml", ".yaml")) for one in words)
            # Without a word it reads the file that lies beside it.
            alone = words[-1] == word and Path(_FILE).is_file()
            return own or file or alone or "tabby" in word.lower()
    return False


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts tabbyAPI.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of the backend; None for the newest that is known.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        If no model is named, or a setting is wrong.
    """
    start = next(
        at
        for at, word in enumerate(words)
        if _SCRIPTS.fullmatch(basename(word)) or basename(word).lower() == "tabbyapi"
    )
    rest = list(words[start + 1 :])
    if rest and _SCRIPTS.fullmatch(basename(rest[0])):
        rest = rest[1:]  # its image is told what to start once more
    scanned = scan(rest, flag_table("tabby_flags.txt"), PROGRAM, Dialect(), None)
    if scanned.positionals:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model-name MODEL"
        )
    named = scanned.options.get("--config")
    given, notes = _from_file(str(named or _FILE), bool(named))
    given |= _from_variables(variables or {})
    if named is None:
        given |= {
            name: scanned.options["--" + name]
            for section in _SECTIONS.values()
            for name in section
            if "--" + name in scanned.options
        }
    return _launch(given, version, [*notes, *not_counted(scanned)])


def model_and_format(name: str) -> tuple[str, str | None]:
    """The model that a folder's name means, and how its weights are stored; None if the name does not say it."""
    last = name.rstrip("/").rpartition("/")[2]
    for index, form in enumerate(_STORED):
        found = form.search(last)
        if found is None:
            continue
        kind, bits = (found[2], found[1]) if index == 0 else (found[1], found[2])
        model = name.rstrip("/")[: -len(found[0])]
        return model, f"{kind.lower()}-{float(bits)}bpw" if bits else None
    return name, None


def _from_file(path: str, asked: bool) -> tuple[dict[str, Any], list[str]]:
    found = read_settings(Path(path).expanduser())
    if found is None:
        if asked:
            raise BadInput(
                f"{PROGRAM}: {path} is not here", "name the file where it lies, or write --model-name MODEL"
            )
        return {}, []
    settings: dict[str, Any] = {}
    for section, names in _SECTIONS.items():
        held = found.get(section) or {}
        if not isinstance(held, dict):
            raise BadInput(f"{path}: {section} does not hold names and values")
        settings |= {name: held[name] for name in names if held.get(name) is not None}
    return settings, [] if asked else [f"settings are taken from {path}"]


def _from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for section, names in _SECTIONS.items():
        for name in names:
            value = variables.get(f"TABBY_{section}_{name}".upper())
            if value is not None:
                found[name] = value
    return found


def _launch(given: Mapping[str, Any], version: str | None, notes: list[str]) -> Launch:
    name = given.get("model_name")
    if not name:
        raise BadInput(
            f"{PROGRAM}: no model is named", "write --model-name MODEL, or model_name in config.yml"
        )
    folder = Path(str(given.get("model_dir") or "models")) / str(name)
    model, stored = (str(folder), None) if folder.is_dir() else model_and_format(str(name))
    newer = _backend(given, str(name), version) == "exllamav3"
    engine, module = ("exllamav3", exllamav3) if newer else ("exllamav2", exllamav2)
    settings = _sizes(given)
    settings |= _spread(given)
    drafting = str(given.get("draft_mode") or "model")
    drafter = given.get("draft_model_name") if drafting == "model" else None
    if newer:
        mode = "disabled" if drafting == "model" and not drafter else drafting
        settings["draft_mode"] = mode
        for key, least in (
            ("cpu_moe_offload_layers", 0),
            ("max_batch_size", 1),
            ("draft_num_tokens", 0),
            ("sysmem_kv_cache", 0),
            ("sysmem_recurrent_cache", 0),
        ):
            if given.get(key) is not None:
                settings[key] = whole(PROGRAM, key, str(given[key]), least)
        if mode not in ("disabled", "model", "mtp", "ngram"):
            raise BadInput(
                f"{PROGRAM}: there is no draft_mode {mode[:40]}", "known: model, disabled, mtp, ngram"
            )
    else:
        settings["draft"] = bool(drafter)
    for key in ("cache_mode", "draft_cache_mode"):
        if given.get(key) is not None:
            mode = str(given[key])
            # The other backend's modes are set aside.
            settings[key] = mode if newer or mode in exllamav2.MODES else "FP16"
    if version is not None:
        settings["version"] = version
    return Launch(
        engine=engine,
        model=model,
        revision=None,
        settings=module.Settings(**settings),
        format_name=stored,
        other_files=stored is not None,
        notes=tuple(notes),
        draft=DraftModel(model_and_format(str(drafter))[0], "draft_model") if drafter else None,
    )


def _backend(given: Mapping[str, Any], name: str, version: str | None) -> str:
    """Which of the two loads a model: the one that is asked for, or by how the weights are stored."""
    asked = str(given.get("backend") or "").lower()
    if asked in ("exllamav2", "exllamav3"):
        return asked
    if asked:
        raise BadInput(f"{PROGRAM}: there is no backend {asked[:40]}", "known: exllamav2, exllamav3")
    return "exllamav2" if re.search(r"exl2|gptq", name, re.IGNORECASE) else "exllamav3"


def _sizes(given: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key in ("max_seq_len", "cache_size", "chunk_size"):
        value = given.get(key)
        # -1 is the model's own length.
        if value is not None and str(value) != "-1":
            settings[key] = whole(PROGRAM, key, str(value))
    return settings


def _spread(given: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key in ("tensor_parallel", "vision"):
        if given.get(key) is not None:
            settings[key] = _is_true(key, given[key])
    for key in ("gpu_split", "autosplit_reserve"):
        listed = given.get(key)
        if listed:
            settings[key] = _numbers(key, listed)
    return settings


def _is_true(key: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise BadInput(f"{PROGRAM}: {key} is {text[:40]!r}, expected true or false")
    return text in ("true", "1", "yes", "on")


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    words = value if isinstance(value, list) else re.split(r"[,\s]+", str(value).strip("[] "))
    try:
        found = tuple(float(word) for word in words)
    except (TypeError, ValueError):
        raise BadInput(f"{PROGRAM}: {key} is {str(value)[:40]!r}, expected numbers") from None
    if any(not 0 <= number < 1e6 for number in found):
        raise BadInput(f"{PROGRAM}: {key} is {str(value)[:40]!r}, expected sizes of cards")
    return found
