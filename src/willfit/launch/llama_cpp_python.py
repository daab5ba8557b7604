"""Reading `python -m llama_cpp.server --model FILE ...`: llama-cpp-python's server, with its own names and defaults.

Each setting is a flag, a variable of its name in capitals, or a field of a model in a file (`--config_file`); a flag
wins over a variable (`llama_cpp/server/settings.py`, `llama.py: Llama.__init__` of 0.3.36). The version says which
llama.cpp is inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from willfit.engines.llama_cpp.builds import build_inside
from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.versions import Version, parse_version
from willfit.errors import BadInput
from willfit.ggml_types import GGML_TYPES_BY_ID
from willfit.launch.base import Launch
from willfit.launch.config_files import read_json_settings, read_settings
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.llama_settings import encoder_at, from_hub, tensor_bytes
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Scanned, scan
from willfit.launch.values import check

PROGRAM = "python -m llama_cpp.server"
MODULE = "llama_cpp.server"

#: `parse` is given the variables in front of the command as well.
READS_VARIABLES = True

#: The newest version whose source was read.
NEWEST = "0.3.36"

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})
_SPLITS = ("none", "layer", "row", "tensor")

#: Since these versions a projector is loaded with the first picture, and attends as the model does.
_LOADED_LATE: Version = (0, 3, 10)
_FLASH_OF_MODEL: Version = (0, 3, 17)

#: Sizes where none are given (`settings.py: ModelSettings`).
_CONTEXT, _BATCH = 2048, 512
_CACHE_BYTES = 2 << 30


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts the server."""
    return "-m" in words[:5] and list(words[words.index("-m") + 1 :][:1]) == [MODULE]


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts llama-cpp-python's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of llama-cpp-python, or a build of llama.cpp (`b6000`); None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that it does not have, a value that it would refuse, or a command without a model.
    """
    rest = list(words[words.index("-m") + 2 :])
    if any(word in ("-h", "--help") for word in rest):
        raise BadInput(f"{PROGRAM}: help is asked for, nothing is started", "leave --help out")
    table = flag_table("llama_cpp_python_flags.txt")
    scanned = scan(rest, table, PROGRAM, Dialect(), None)
    if scanned.positionals:
        raise BadInput(f"{PROGRAM}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model FILE")
    given = dict(variables or {})
    notes = _with_file(scanned, table, given.get("CONFIG_FILE"))
    _with_variables(scanned, table, given)
    counted = version is not None and re.fullmatch(r"b\d+", version) is not None
    own = NEWEST if version is None or counted else version
    build = version if counted else f"b{build_inside('llama-cpp-python', own)}"
    reader = _Reader(scanned, own)
    settings = reader.settings()
    if given.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        settings["devices"] = ()
    return Launch(
        engine="llama.cpp",
        model=reader.model(),
        revision=None,
        settings=Settings(program="api", version=build, **settings),
        notes=(
            *(() if counted else (f"llama-cpp-python {own} has llama.cpp {build} inside",)),
            *(() if counted else of_other_versions(scanned, table, "llama-cpp-python", own)),
            *notes,
            *not_counted(scanned),
            *reader.notes,
        ),
    )


class _Reader:
    """From values by flag to settings."""

    def __init__(self, scanned: Scanned, version: str) -> None:
        self.options, self.version = scanned.options, parse_version(version)
        self.notes: list[str] = []

    def model(self) -> str:
        model, repo = self.options.get("--model"), self.options.get("--hf_model_repo_id")
        if not model:
            raise BadInput(f"{PROGRAM}: no model is named", "write --model FILE")
        if not repo:
            return str(model)
        # `Llama.from_pretrained` takes a pattern: `*Q4_K_M.gguf`
        tag = (
            re.sub(r"^\*[-._]?|\*", "", str(model).removesuffix(".gguf")) if "*" in str(model) else str(model)
        )
        return f"{repo}:{tag}" if tag else from_hub(str(repo))

    def settings(self) -> dict[str, Any]:
        context = self._number("--n_ctx", 0, _CONTEXT)
        batch = self._number("--n_batch", 1, _BATCH)
        batch = min(context, batch) if context else batch
        layers = self._number("--n_gpu_layers", -1, 0)
        settings: dict[str, Any] = {
            "n_ctx": context,
            "n_batch": batch,
            "n_ubatch": min(batch, self._number("--n_ubatch", 1, _BATCH)),
            "n_gpu_layers": "all" if layers < 0 else layers,
            "main_gpu": self._number("--main_gpu", 0, 0),
            "fit": False,
            # The library's own default; the server has no setting for it.
            "swa_full": True,
            "mmap": self._truth("--use_mmap", True),
            "mlock": self._truth("--use_mlock", True),
            "kv_offload": self._truth("--offload_kqv", True),
            "embeddings": self._truth("--embedding", False),
            "flash_attn": "on" if self._truth("--flash_attn", False) else "off",
        }
        if "--n_threads" in self.options or "--n_threads_batch" in self.options:
            threads = [self._number(name, -1, 0) for name in ("--n_threads", "--n_threads_batch")]
            settings["n_threads"] = max(threads) if min(threads) > 0 else None
        if not self._truth("--f16_kv", True):
            settings |= {"cache_type_k": "f32", "cache_type_v": "f32"}
        for side in ("k", "v"):
            if f"--type_{side}" in self.options:
                settings[f"cache_type_{side}"] = self._type(f"--type_{side}")
        mode = self._number("--split_mode", 0, 1)
        if mode >= len(_SPLITS):
            raise BadInput(f"{PROGRAM}: --split_mode is {mode}, expected 0 to {len(_SPLITS) - 1}")
        settings["split_mode"] = _SPLITS[mode]
        shares = self.options.get("--tensor_split")
        if shares:
            settings["tensor_split"] = tuple(float(share) for share in shares)
        servers = str(self.options.get("--rpc_servers", ""))
        if servers:
            settings["rpc_servers"] = tuple(one for one in servers.split(",") if one)
        return settings | self._files()

    def _encoder(self, projector: str) -> dict[str, Any]:
        """How pictures are encoded (`llama_chat_format.py: _init_mtmd_context`)."""
        shape = encoder_at(projector)
        if shape is None:
            return {}
        waits = self.version >= _LOADED_LATE
        if waits:
            self.notes.append("the projector is loaded for the first request that uses it")
        flash = self._truth("--flash_attn", False) if self.version >= _FLASH_OF_MODEL else None
        return {"mmproj_encoder": shape, "mmproj_flash": flash, "mmproj_waits": waits}

    def _files(self) -> dict[str, Any]:
        """What is loaded beside the model, and what is kept for it."""
        settings: dict[str, Any] = {}
        lora = self.options.get("--lora_path")
        if lora:
            size = tensor_bytes(str(lora))
            settings |= {"lora": (str(lora),), "lora_bytes": size or 0}
            if size is None:
                self.notes.append(f"adapters that are not here are not counted: {str(lora)[:200]}")
        projector = self.options.get("--clip_model_path")
        if projector:
            settings["mmproj_bytes"] = tensor_bytes(str(projector)) or 0
            settings |= self._encoder(str(projector))
            if not settings["mmproj_bytes"]:
                self.notes.append(
                    f"the projector {str(projector)[:120]} cannot be read here; it is not counted"
                )
        if self._truth("--logits_all", True):
            self.notes.append(
                "the logits of every token so far stay in host RAM (--logits_all), up to 4 bytes x vocabulary x n_ctx; "
                "they are not counted"
            )
        size = self._number("--cache_size", 0, _CACHE_BYTES)
        if self._truth("--cache", False) and self.options.get("--cache_type", "ram") == "ram":
            self.notes.append(
                f"saved states of up to {size / 2**30:.3g} GiB in host RAM (--cache) are not counted"
            )
        if self._truth("--vocab_only", False):
            raise BadInput(f"{PROGRAM}: --vocab_only loads no weights", "leave it out")
        return settings

    def _number(self, name: str, least: int, usual: int) -> int:
        if name not in self.options:
            return usual
        value = int(self.options[name])
        if value < least:
            raise BadInput(f"{PROGRAM}: {name} is {value}, expected at least {least}")
        return value

    def _truth(self, name: str, usual: bool) -> bool:
        if name not in self.options:
            return usual
        text = str(self.options[name]).lower().strip()
        if text not in _TRUE | _FALSE:
            raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected true or false")
        return text in _TRUE

    def _type(self, name: str) -> str:
        """The type of the cache that a number of ggml stands for."""
        kind = GGML_TYPES_BY_ID.get(int(self.options[name]))
        if kind is None:
            raise BadInput(
                f"{PROGRAM}: {name} {self.options[name]} is no type of ggml", "f16 is 1, q4_0 2, q8_0 8"
            )
        return kind.name.lower()


def _with_variables(scanned: Scanned, table: FlagTable, variables: Mapping[str, str]) -> None:
    """Add what variables set that have the name of a setting, in any case."""
    given = {name.lower(): text for name, text in variables.items()}
    for flag in table.flags.values():
        text = given.get(flag.name[2:])
        if (
            text is not None
            and flag.name not in scanned.options
            and not flag.quiet
            and flag.name != "--config_file"
        ):
            if flag.takes == "any":
                _put(scanned, table, flag.name, _json(flag.name, text))
            else:
                _put(scanned, table, flag.name, text)


def _with_file(scanned: Scanned, table: FlagTable, variable: str | None) -> list[str]:
    """Take the settings of the first model of a file in place of the flags; the others are loaded in its place."""
    path = variable or scanned.options.get("--config_file")
    if not path:
        return []
    file = Path(str(path)).expanduser()
    fields = read_settings(file) if file.suffix in (".yaml", ".yml") else read_json_settings(file)
    if fields is None:
        raise BadInput(f"{PROGRAM}: {str(path)[:120]} does not exist")
    models = fields.get("models")
    if not isinstance(models, list) or not models or not isinstance(models[0], dict):
        raise BadInput(f"{PROGRAM}: {str(path)[:120]} names no models")
    for name in [name for name in scanned.flags if name != "--config_file"]:
        scanned.options.pop(name, None)
        scanned.flags.pop(name)
    for name, value in models[0].items():
        if value is not None:
            _put(scanned, table, f"--{name}", value)
    return (
        [f"the first of {len(models)} models is read; the others are loaded in its place"]
        if models[1:]
        else []
    )


def _put(scanned: Scanned, table: FlagTable, name: str, value: Any) -> None:
    flag = table.flags.get(name)
    if flag is None:  # pydantic passes over what it does not know
        return
    values = value if isinstance(value, list) else [value]
    texts = [json.dumps(one) if isinstance(one, dict) else str(one) for one in values]
    for text in texts:
        check(PROGRAM, flag, text)
    scanned.options[name] = texts if flag.takes == "any" else texts[0]
    scanned.flags[name] = flag


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{PROGRAM}: {where[:120]} is not JSON: {error}") from None
