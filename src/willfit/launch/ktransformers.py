"""Reading KTransformers: SGLang's commands with `--kt-weight-path ...`, `kt run MODEL`, and those of its own programs
before: `ktransformers --model_path ... --gguf_path ...`, `python -m ktransformers.local_chat ...`.

Flags as SGLang with kt-kernel has them (`server_args.py` of `sglang-kt` 0.7.2), as kt-kernel's command line makes them
(`cli/commands/run.py`), and as the own programs had them up to 0.3.2 (`server/args.py`, `local_chat.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os.path import basename
from pathlib import Path
from typing import Any

from willfit.engines.ktransformers.settings import DEFAULT_FILE_TYPE, Settings
from willfit.engines.sglang.settings import Settings as Serving
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch import sglang
from willfit.launch.base import Launch
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.values import choice, whole

PROGRAM = "ktransformers"

READS_VARIABLES = True

#: The last version with programs of its own.
_LAST_OWN = "0.3.2"

_MODULES = ("ktransformers.local_chat", "ktransformers.server.main")
_SCRIPTS = re.compile(r"(.*/)?ktransformers/(local_chat|server/main)\.py")

#: What `kt run` fills in (`cli/commands/run.py: _run_impl`), and its names for SGLang's flags.
_RUN = {
    "--kt-gpu-prefill-token-threshold": "4096",
    "--kt-num-gpu-experts": "1",
    "--kt-method": "AMXINT4",
    "--max-total-tokens": "40000",
    "--max-running-requests": "32",
    "--chunked-prefill-size": "4096",
    "--mem-fraction-static": "0.98",
    "--attention-backend": "flashinfer",
}
_RUN_NAMES = {
    "--gpu-experts": "--kt-num-gpu-experts",
    "--cpu-threads": "--kt-cpuinfer",
    "--numa-nodes": "--kt-threadpool-count",
    "--weights-path": "--kt-weight-path",
    "--kt-gpu-prefill-threshold": "--kt-gpu-prefill-token-threshold",
    "--tensor-parallel-size": "--tp-size",
    "--tp": "--tp-size",
    "-p": "--port",
    "-H": "--host",
}
_RUN_SWITCHES = ("--quantize", "-q", "--advanced", "--dry-run", "--disable-shared-experts-fusion")

#: Tokens of the prompt that a chat's window has room for, and of its answer (`local_chat.py`).
_CHAT_PROMPT, _CHAT_ANSWER = 16384, 1000

#: File types of GGUF files, as their names have them.
_FILE_TYPE = re.compile(r"(?:^|[-_./])((?:iq|q)\d(?:_[a-z0-9]+)*|bf16|f16)(?=$|[-_./])", re.IGNORECASE)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts one of the programs."""
    name = basename(words[0])
    if name == "kt":
        return list(words[1:2]) == ["run"]
    if name == "ktransformers" or any(word in _MODULES or _SCRIPTS.fullmatch(word) for word in words[:4]):
        return True
    served = any(word.partition("=")[0] == "--kt-weight-path" for word in words)
    return served and sglang.recognises(words)


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts one of KTransformers' programs.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of KTransformers; None for the newest that has the program.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        If no model is named, or a setting is wrong.
    """
    if basename(words[0]) == "kt":
        return _served(_as_served(words[2:]), version, variables)
    if sglang.recognises(words):
        return _served(words, version, variables)
    return _own(words, version)


def _served(words: Sequence[str], version: str | None, variables: Mapping[str, str] | None) -> Launch:
    """SGLang's own settings, with kt-kernel's beside them."""
    table = flag_table("kt_flags.txt")
    rest, own = _apart(words, table)
    scanned = scan(own, table, PROGRAM, Dialect(), None)
    options = scanned.options
    settings: dict[str, Any] = {"version": version} if version else {}
    given = Settings(**settings)
    launch = sglang.parse(rest, given.era.sglang or None, variables)
    for flag, name in (
        ("--kt-num-gpu-experts", "kt_num_gpu_experts"),
        ("--kt-gpu-prefill-token-threshold", "kt_gpu_prefill_token_threshold"),
        ("--kt-threadpool-count", "kt_threadpool_count"),
    ):
        if flag in options:
            least = 1 if name == "kt_threadpool_count" else 0
            settings[name] = whole(PROGRAM, flag, str(options[flag]), least)
    if "--kt-gpu-experts-ratio" in options:
        settings["kt_gpu_experts_ratio"] = _share(str(options["--kt-gpu-experts-ratio"]))
    elif "--kt-num-gpu-experts" not in options:
        raise BadInput(
            f"{PROGRAM}: it is not said how many experts are on cards", "write --kt-num-gpu-experts 1"
        )
    if "--kt-method" in options:
        settings["kt_method"] = str(options["--kt-method"]).upper()
    stored = _file_type(str(options.get("--kt-weight-path") or ""))
    if stored is not None:
        settings["kt_weight_format"] = stored
    serving = launch.settings
    assert isinstance(serving, Serving)
    return replace(
        launch,
        engine="ktransformers",
        settings=Settings(**settings, sglang=serving),
        notes=(*launch.notes, *not_counted(scanned)),
    )


def _as_served(words: Sequence[str]) -> list[str]:
    """The command of SGLang that `kt run` makes of its own."""
    rest = list(words)
    model = rest.pop(0) if rest and not rest[0].startswith("-") else None
    given: dict[str, str] = {}
    others: list[str] = []
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if word in _RUN_SWITCHES:
            continue
        name = _RUN_NAMES.get(word, word)
        follows = bool(rest) and not rest[0].startswith("--")
        if equals or follows:
            value = value if equals else rest.pop(0)
            if name == "--model-path" and model is None:
                model = value
            elif name in _RUN or name in _RUN_NAMES.values():
                given[name] = value
            elif name != "--model-path":
                others += [name, value]
        else:
            others.append(name)
    if model is None:
        raise BadInput("kt run: no model is named", "write kt run MODEL ...")
    settings = {"--kt-weight-path": model, **_RUN, **given}
    flags = [word for pair in settings.items() for word in pair]
    return ["sglang", "serve", "--model-path", model, *flags, *others]


def _apart(words: Sequence[str], table: FlagTable) -> tuple[list[str], list[str]]:
    """SGLang's words, and kt-kernel's with their values."""
    rest, own, at = [], [], 0
    while at < len(words):
        name, equals, _ = words[at].partition("=")
        flag = table.flags.get(name)
        at += 1
        if flag is None:
            rest.append(words[at - 1])
            continue
        own.append(words[at - 1])
        many = {"switch": 0, "values": len(words)}.get(flag.takes, 1)
        while many and not equals and at < len(words) and not words[at].startswith("--"):
            own.append(words[at])
            at, many = at + 1, many - 1
    return rest, own


def _own(words: Sequence[str], version: str | None) -> Launch:
    """One of the own programs."""
    start = next(
        at
        for at, word in enumerate(words)
        if basename(word) == "ktransformers" or word in _MODULES or _SCRIPTS.fullmatch(word)
    )
    chat = "local_chat" in words[start]
    table = flag_table("ktransformers_flags.txt")
    version = version or _LAST_OWN
    if parse_version(version) > parse_version(_LAST_OWN):
        raise BadInput(
            f"KTransformers {version} has no program of its own; {_LAST_OWN} was the last that did",
            "write python -m sglang.launch_server ... --kt-weight-path ...",
        )
    scanned = scan(list(words[start + 1 :]), table, PROGRAM, Dialect(), None)
    options = scanned.options
    if scanned.positionals:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model_path MODEL"
        )
    named = str(options.get("--model_path") or options.get("--model_dir") or "")
    files = str(options.get("--gguf_path") or "")
    if not named:
        raise BadInput(f"{PROGRAM}: no model is named", "write --model_path MODEL --gguf_path FILES")
    settings: dict[str, Any] = {"version": version}
    for flag, name in (
        ("--cache_lens", "cache_lens"),
        ("--chunk_size", "chunk_size"),
        ("--max_batch_size", "max_batch_size"),
    ):
        if flag in options:
            settings[name] = whole(PROGRAM, flag, str(options[flag]))
    if chat:
        answer = str(options.get("--max_new_tokens", _CHAT_ANSWER))
        settings["cache_lens"] = _CHAT_PROMPT + whole(PROGRAM, "--max_new_tokens", answer)
        settings["backend_type"] = "ktransformers"
    elif "--backend_type" in options:
        known = ("ktransformers", "balance_serve")
        settings["backend_type"] = choice(PROGRAM, "--backend_type", str(options["--backend_type"]), known)
    options.get("--max_new_tokens")
    options.get("--use_cuda_graph")
    settings |= _rules(str(options.get("--optimize_config_path") or ""))
    local = bool(files) and Path(files).expanduser().exists()
    stored = _file_type(files)
    return Launch(
        engine="ktransformers",
        model=files if local else named,
        revision=None,
        settings=Settings(**settings),
        format_name=None if local else stored or DEFAULT_FILE_TYPE,
        other_files=not local,
        notes=(
            *([] if local or stored else ["the GGUF files are taken to be Q4_K_M"]),
            *of_other_versions(scanned, table, "KTransformers", version),
            *not_counted(scanned),
        ),
    )


def _rules(path: str) -> dict[str, Any]:
    """What the name of a file of rules says."""
    name, found = basename(path), {}
    cards = re.search(r"multi-gpu(?:-(\d+))?", name)
    if cards is not None:
        found["gpus"] = int(cards[1] or 2)
    if "multi-gpu-marlin" in name:
        raise BadInput(f"{name}: which experts it puts on cards is not worked out", "take other rules")
    settings: dict[str, Any] = dict(found)
    if "fp8-linear" in name:
        settings["linear"] = "fp8"
    if re.search(r"amx\b", name):
        settings["experts"] = "AMXInt8"
    return settings


def _file_type(path: str) -> str | None:
    """The file type that a path's last parts name."""
    found = [match[1].lower() for part in path.split("/")[-2:] for match in _FILE_TYPE.finditer(part)]
    return found[-1] if found else None


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadInput(f"{PROGRAM}: --kt-gpu-experts-ratio is {text[:40]!r}, expected a share from 0 to 1")
    return value
