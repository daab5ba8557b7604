"""Reading `text-generation-launcher --model-id MODEL ...`, and its settings in variables in front of it.

Flags as TGI 3.3.7 has them (`launcher/src/main.rs`), with those of versions since 1.4 (`data/tgi_flags.txt`); each
can be set by a variable of its name in capitals instead, and a flag wins. clap reads them: it takes no abbreviations,
and a flag once. Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from willfit.engines.tgi.eras import NEWEST
from willfit.engines.tgi.settings import BLOCKS, Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Scanned, scan
from willfit.launch.values import check, choice, share, whole

PROGRAM = "text-generation-launcher"

#: `parse` is given the variables in front of the command as well.
READS_VARIABLES = True

DIALECT = Dialect(abbreviations=False, once=True)

#: `--quantize` that turns a 16-bit checkpoint into this format while loading.
_ONLINE = {
    "fp8": "fp8",
    "eetq": "eetq",
    "bitsandbytes": "bnb-int8",
    "bitsandbytes-nf4": "nf4",
    "bitsandbytes-fp4": "fp4",
}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts TGI's launcher."""
    return words[0].rsplit("/", 1)[-1] == PROGRAM


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts TGI's launcher.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of TGI; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that the launcher does not have, a value that it would refuse, or a command without a model.
    """
    rest = words[1:]
    if any(word in ("-h", "--help", "-V", "--version") for word in rest):
        raise BadInput(f"{PROGRAM}: help is asked for, nothing is started", "leave --help out")
    table = flag_table("tgi_flags.txt")
    given = dict(variables or {})
    scanned = _with_variables(scan(rest, table, PROGRAM, DIALECT, version), given, table)
    if scanned.positionals:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model-id MODEL"
        )
    options = scanned.options
    model = options.get("--model-id")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{PROGRAM}: no model is named", "write --model-id MODEL")
    quantize = options.get("--quantize")
    settings = _numbers(options) | _graphs(options) | _environment(given)
    if version:
        settings["version"] = version
    notes = []
    shards = _shards(options, given)
    if shards is None:
        notes.append("one shard is assumed (--num-shard)")
    if options.get("--max-batch-total-tokens") is not None:
        notes.append("--max-batch-total-tokens is set aside: TGI takes what the cache holds")
    if options.get("--dtype") is not None:
        notes.append("--dtype is not counted: weights are taken as stored")
    if "--kv-cache-dtype" in options:
        settings["kv_cache_dtype"] = options["--kv-cache-dtype"]
    return Launch(
        engine="tgi",
        model=model,
        revision=str(options["--revision"]) if "--revision" in options else None,
        settings=Settings(num_shard=shards or 1, quantize=quantize, **settings),
        format_name=_ONLINE.get(quantize) if quantize else None,
        notes=(
            *of_other_versions(scanned, table, "TGI", version or NEWEST),
            *not_counted(scanned),
            *notes,
        ),
    )


def _with_variables(scanned: Scanned, variables: Mapping[str, str], table: FlagTable) -> Scanned:
    """The flags with those that variables stand for; of a switch they say `true` or `false`."""
    for flag in dict.fromkeys(table.flags.values()):
        name = flag.name[2:].replace("-", "_").upper()
        text = variables.get(name)
        if text is None or flag.name in scanned.options or flag.name == "--env":
            continue
        if flag.takes == "switch":
            if text.lower() not in ("true", "false"):
                raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected true or false")
            scanned.options[flag.name] = text.lower() == "true"
        else:
            check(PROGRAM, flag._replace(name=name), text)
            scanned.options[flag.name] = text
        scanned.flags[flag.name] = flag
    return scanned


def _numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if "--max-input-tokens" in options and "--max-input-length" in options:
        raise BadInput(
            f"{PROGRAM}: --max-input-tokens and --max-input-length are the same", "give one of them"
        )
    for flag, name, least in (
        ("--max-input-tokens", "max_input_tokens", 1),
        ("--max-input-length", "max_input_tokens", 1),
        ("--max-total-tokens", "max_total_tokens", 1),
        ("--max-batch-prefill-tokens", "max_batch_prefill_tokens", 1),
        ("--speculate", "speculate", 0),
    ):
        if flag in options:
            settings[name] = whole(PROGRAM, flag, str(options[flag]), least)
    if "--cuda-memory-fraction" in options:
        settings["cuda_memory_fraction"] = share(
            PROGRAM, "--cuda-memory-fraction", str(options["--cuda-memory-fraction"])
        )
    prompt, length = settings.get("max_input_tokens"), settings.get("max_total_tokens")
    if prompt and length and prompt >= length:
        raise BadInput(
            f"{PROGRAM}: --max-input-tokens {prompt} must be less than --max-total-tokens {length}"
        )
    return settings


def _graphs(options: Mapping[str, Any]) -> dict[str, Any]:
    """`--cuda-graphs 1,2,4`; 0 turns them off."""
    if "--cuda-graphs" not in options:
        return {}
    sizes = [
        whole(PROGRAM, "--cuda-graphs", text.strip(), 0) for text in str(options["--cuda-graphs"]).split(",")
    ]
    return {"cuda_graphs": tuple(size for size in sizes if size)}


def _environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """What only variables can set."""
    settings: dict[str, Any] = {}
    if "ATTENTION" in variables:
        settings["attention"] = choice(PROGRAM, "ATTENTION", variables["ATTENTION"], tuple(BLOCKS))
    if "TGI_WIGGLE_ROOM" in variables:
        settings["wiggle_room"] = share(PROGRAM, "TGI_WIGGLE_ROOM", variables["TGI_WIGGLE_ROOM"])
    return settings


def _shards(options: Mapping[str, Any], variables: Mapping[str, str]) -> int | None:
    """As many as are asked for, else the visible devices; None if neither is said (`find_num_shards`)."""
    sharded = str(options.get("--sharded", "")).lower()
    if sharded not in ("", "true", "false"):
        raise BadInput(f"{PROGRAM}: --sharded is {sharded[:40]!r}, expected true or false")
    if "--num-shard" in options:
        shards = whole(PROGRAM, "--num-shard", str(options["--num-shard"]))
        if sharded == "true" and shards == 1:
            raise BadInput(f"{PROGRAM}: --sharded true needs more than one shard", "raise --num-shard")
        return shards
    if sharded == "false":
        return 1
    visible = variables.get("CUDA_VISIBLE_DEVICES", variables.get("NVIDIA_VISIBLE_DEVICES", ""))
    return (
        len(visible.split(",")) if re.fullmatch(r"[\w-]+(,[\w-]+)*", visible) and visible != "all" else None
    )
