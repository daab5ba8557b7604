"""Reading `mlx_lm.server --model MODEL ...` and its companions: `generate`, `chat`, `benchmark`, and mlx-vlm's.

Each is also `mlx_lm NAME` and `python -m mlx_lm.NAME`. Flags as mlx-lm 0.32 and mlx-vlm 0.7 have them, with those of
older versions (`data/mlx_*_flags.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.engines.mlx import NEWEST, Settings
from willfit.errors import BadInput
from willfit.launch.base import DraftModel, Launch
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Scanned, scan
from willfit.launch.values import whole

#: What a program is started with: `mlx_lm.server`, or `mlx_lm` and a word more.
PROGRAM = re.compile(r"(mlx_lm|mlx_vlm)(?:\.(\w+))?")

#: Commands that hold a model, with the program of the engine's settings and the flags' file.
_COMMANDS = {
    "mlx_lm": {
        "server": ("server", "mlx_server_flags.txt"),
        "generate": ("generate", "mlx_generate_flags.txt"),
        "chat": ("chat", "mlx_chat_flags.txt"),
        "benchmark": ("benchmark", "mlx_benchmark_flags.txt"),
    },
    "mlx_vlm": {"server": ("vlm", "mlx_vlm_flags.txt"), "generate": ("vlm", "mlx_vlm_flags.txt")},
}

#: What is loaded if no model is named (`generate.py: DEFAULT_MODEL`).
_DEFAULT_MODEL = "mlx-community/Llama-3.2-3B-Instruct-4bit"

#: Tokens of an answer, and of a benchmark's prompt and answer, if nothing is said.
_ANSWERS = {"server": 512, "generate": 100, "chat": 256, "vlm": 256}
_BENCHMARK = (512, 1024)

_UNITS = {"": 1, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts one of MLX's programs."""
    return _place(words) is not None


def _place(words: Sequence[str]) -> int | None:
    """Where the program's name stands."""
    for index, word in enumerate(words[:5]):
        named = index == 0 or words[index - 1] == "-m"
        if named and PROGRAM.fullmatch(basename(word)):
            return index
    return None


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that starts an MLX program.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of mlx-lm; None for the newest that is known.

    Raises
    ------
    BadInput
        For a command that loads no model to run it, a flag that it does not have, or a value that it would refuse.
    """
    index = _place(words) or 0
    found = PROGRAM.fullmatch(basename(words[index]))
    package, command = (found[1], found[2] or "") if found else ("mlx_lm", "")
    rest = list(words[index + 1 :])
    if not command:
        command, rest = (rest[0] if rest else ""), rest[1:]
    program = f"{package}.{command}"
    if command not in _COMMANDS[package]:
        known = ", ".join(f"{package}.{name}" for name in _COMMANDS[package])
        raise BadInput(f"{program}: no model is run", f"known: {known}")
    if any(word in ("-h", "--help") for word in rest):
        raise BadInput(f"{program}: help is asked for, nothing is started", "leave --help out")
    kind, file = _COMMANDS[package][command]
    table = flag_table(file)
    # Versions of mlx-vlm are its own.
    asked = version if package == "mlx_lm" else None
    scanned = scan(rest, table, program, Dialect(), asked)
    if scanned.positionals:
        raise BadInput(
            f"{program}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model MODEL"
        )
    options = scanned.options
    notes = [*_about_prompt(scanned, kind)]
    settings = _settings(program, kind, options)
    if asked:
        settings["version"] = asked
    if package == "mlx_vlm":
        notes.append("mlx-vlm's caches are taken to be those of mlx-lm")
    draft = options.get("--draft-model")
    if isinstance(draft, str):
        settings["draft"] = True
    model = options.get("--model") or _DEFAULT_MODEL
    return Launch(
        engine="mlx",
        model=str(model),
        revision=str(options["--revision"]) if "--revision" in options else None,
        settings=Settings(**settings),
        notes=(
            *of_other_versions(
                scanned, table, "mlx-lm", asked or NEWEST if package == "mlx_lm" else "0.7.10"
            ),
            *not_counted(scanned),
            *notes,
        ),
        draft=DraftModel(draft, str(options.get("--draft-kind", "draft_model")))
        if isinstance(draft, str)
        else None,
    )


def _about_prompt(scanned: Scanned, kind: str) -> list[str]:
    """What is taken where a command does not say how long its prompts are."""
    if scanned.options.get("--prompt"):
        return ["the prompt is not counted from its text: a default context is taken"]
    return [] if kind == "benchmark" else ["prompts are taken to fill a default context"]


def _settings(program: str, kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"program": kind}
    names = {
        "--max-tokens": "max_tokens",
        "--max-kv-size": "max_kv_size",
        "--kv-group-size": "kv_group_size",
        "--prefill-step-size": "prefill_step_size",
        "--decode-concurrency": "decode_concurrency",
        "--prompt-concurrency": "prompt_concurrency",
        "--max-num-seqs": "decode_concurrency",
    }
    for flag, name in names.items():
        if flag in options:
            settings[name] = whole(program, flag, str(options[flag]))
    for flag, name in (
        ("--quantized-kv-start", "quantized_kv_start"),
        ("--prompt-cache-size", "prompt_cache_size"),
    ):
        if flag in options:
            settings[name] = whole(program, flag, str(options[flag]), 0)
    if "--kv-bits" in options:
        settings["kv_bits"] = _bits(program, str(options["--kv-bits"]))
    if "--prompt-cache-bytes" in options:
        settings["prompt_cache_bytes"] = _size(program, str(options["--prompt-cache-bytes"]))
    if kind == "benchmark":
        prompt, answer = _BENCHMARK
        settings["prompt_tokens"] = whole(
            program, "--prompt-tokens", str(options.get("--prompt-tokens", prompt))
        )
        settings["max_tokens"] = whole(
            program, "--generation-tokens", str(options.get("--generation-tokens", answer))
        )
        settings["batch"] = whole(program, "--batch-size", str(options.get("--batch-size", 1)))
    else:
        settings.setdefault("max_tokens", _ANSWERS[kind])
    return settings


def _bits(program: str, text: str) -> int:
    """Bits of a cache; mlx-vlm takes them as `8.0`, and fractions for a scheme of its own."""
    number = float(text)
    if number != int(number):
        raise BadInput(f"{program}: caches of {text} bits are not known", "write --kv-bits 8 or 4")
    return int(number)


def _size(program: str, text: str) -> int:
    """Bytes as mlx-lm reads them: `10GB` is ten times 10^9."""
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise BadInput(
            f"{program}: --prompt-cache-bytes is {text[:40]!r}, expected a size", "write it as 10GB"
        )
    return int(float(found[1]) * unit)
