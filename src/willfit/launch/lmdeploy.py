"""Reading `lmdeploy serve api_server MODEL ...`.

Flags as LMDeploy 0.18 has them (`lmdeploy/cli/serve.py`, `cli/utils.py`), with those of older versions
(`data/lmdeploy_flags.txt`). Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from willfit.engines.lmdeploy.eras import NEWEST
from willfit.engines.lmdeploy.settings import QUANT_POLICIES, Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.values import choice, whole

PROGRAM = "lmdeploy serve api_server"

READS_VARIABLES = True

DIALECT = Dialect(underscores=True, fields=True)

#: `--speculative-num-draft-tokens`, if nothing is said (`cli/utils.py`).
_DRAFT_TOKENS = 1

#: Names of `--quant-policy` (`messages.py: QuantPolicy`).
_POLICY_NAMES = {
    "none": 0, "int4": 4, "int8": 8, "fp8": 16, "fp8_e4m3": 16, "fp8_e5m2": 17, "turbo_quant": 42,
}  # fmt: skip


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts LMDeploy."""
    return words[0].rsplit("/", 1)[-1] == "lmdeploy" or (
        "-m" in words[:5] and list(words[words.index("-m") + 1 :][:1]) == ["lmdeploy"]
    )


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts LMDeploy's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of LMDeploy; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that LMDeploy does not have, a value that it would refuse, or a command without a model.
    """
    rest = list(words[words.index("-m") + 2 :] if "-m" in words[:6] else words[1:])
    if rest[:2] != ["serve", "api_server"]:
        given = " ".join(["lmdeploy", *rest[:2]])[:60]
        raise BadInput(f"{given}: only '{PROGRAM}' starts a server", f"write {PROGRAM} MODEL ...")
    if any(word in ("-h", "--help") for word in rest):
        raise BadInput(f"{PROGRAM}: help is asked for, nothing is started", "leave --help out")
    table = flag_table("lmdeploy_flags.txt")
    scanned = scan(rest[2:], table, PROGRAM, DIALECT, version)
    options = scanned.options
    if not scanned.positionals:
        raise BadInput(f"{PROGRAM}: no model is named", f"write {PROGRAM} MODEL ...")
    if len(scanned.positionals) > 1:
        raise BadInput(f"{PROGRAM}: {scanned.positionals[1][:60]!r} belongs to no flag")
    settings: dict[str, Any] = _numbers(options) | _words(options)
    if version:
        settings["version"] = version
    return Launch(
        engine="lmdeploy",
        model=scanned.positionals[0],
        revision=str(options["--revision"]) if "--revision" in options else None,
        settings=Settings(**settings),
        notes=(
            *of_other_versions(scanned, table, "LMDeploy", version or NEWEST),
            *not_counted(scanned),
            *_about_source(variables or {}),
        ),
    )


def _about_source(given: Mapping[str, str]) -> list[str]:
    """Where the model comes from, if it is not the Hub (`lmdeploy/utils.py: get_model`)."""
    names = {"LMDEPLOY_USE_MODELSCOPE": "ModelScope", "LMDEPLOY_USE_OPENMIND_HUB": "openMind Hub"}
    return [
        f"LMDeploy takes the model from {hub}; the one of that name on the Hub is read"
        for name, hub in names.items()
        if given.get(name, "").lower() in ("1", "true")
    ]


def _numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for flag, name, least in (
        ("--tp", "tp", 1),
        ("--dp", "dp", 1),
        ("--ep", "ep", 1),
        ("--cp", "cp", 1),
        ("--session-len", "session_len", 1),
        ("--max-batch-size", "max_batch_size", 1),
        ("--cache-block-seq-len", "cache_block_seq_len", 1),
        ("--max-prefill-token-num", "max_prefill_token_num", 1),
        ("--num-gpu-blocks", "num_gpu_blocks", 0),
        ("--prefix-cache-state-budget", "prefix_cache_state_budget", 0),
    ):
        if flag in options:
            settings[name] = whole(PROGRAM, flag, str(options[flag]), least)
    if options.get("--speculative-algorithm"):
        flag = "--speculative-num-draft-tokens"
        settings["num_draft_tokens"] = whole(PROGRAM, flag, str(options.get(flag, _DRAFT_TOKENS)))
    flag = "--cudagraph-capture-batch-sizes"
    if flag in options:
        given = options[flag] if isinstance(options[flag], list) else [options[flag]]
        settings["cudagraph_capture_batch_sizes"] = tuple(whole(PROGRAM, flag, str(size)) for size in given)
    if "--cache-max-entry-count" in options:
        settings["cache_max_entry_count"] = _entry_count(str(options["--cache-max-entry-count"]))
    return settings


def _words(options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if "--backend" in options:
        settings["backend"] = choice(
            PROGRAM, "--backend", str(options["--backend"]), ("pytorch", "turbomind")
        )
    if "--dtype" in options:
        settings["dtype"] = choice(
            PROGRAM, "--dtype", str(options["--dtype"]), ("auto", "float16", "bfloat16")
        )
    if "--quant-policy" in options:
        settings["quant_policy"] = _quant_policy(str(options["--quant-policy"]))
    for flag, name in (("--eager-mode", "eager_mode"), ("--language-model-only", "language_model_only")):
        if options.get(flag):
            settings[name] = True
    return settings


def _entry_count(text: str) -> float:
    """A share of memory, or a number of blocks."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise BadInput(
            f"{PROGRAM}: --cache-max-entry-count is {text[:40]!r}, expected a share above 0",
            "write it as 0.8",
        )
    return value


def _quant_policy(text: str) -> int:
    policy = _POLICY_NAMES.get(text.lower())
    if policy is None and text.isascii() and text.isdigit() and len(text) < 4:
        policy = int(text)
    if policy is None or (policy and policy not in QUANT_POLICIES):
        raise BadInput(
            f"{PROGRAM}: there is no --quant-policy {text[:40]}", f"known: {', '.join(_POLICY_NAMES)}"
        )
    return policy
