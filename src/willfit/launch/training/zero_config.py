"""DeepSpeed's settings, from a JSON file, a mapping, or a file that a training program brings along.

Names are those of `deepspeed/runtime/zero/config.py: DeepSpeedZeroConfig`. `auto` leaves a size to transformers
(`integrations/deepspeed.py: HfTrainerDeepSpeedConfig.trainer_config_finalize`), which is 0 in the settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from willfit.errors import BadInput
from willfit.launch.config_files import read_json_settings
from willfit.launch.training.keys import Keys, path_of

_FILE = Path(__file__).parents[1] / "data" / "zero_configs.jsonl"

#: Fields of `LayoutSettings`, and what DeepSpeed calls these sizes (elements).
_SIZES = {
    "reduce_bucket": ("reduce_bucket_size",),
    "allgather_bucket": ("allgather_bucket_size",),
    "prefetch_bucket": ("stage3_prefetch_bucket_size", "prefetch_bucket_size"),
    "max_live": ("stage3_max_live_parameters", "max_live_parameters"),
    "persistence": ("stage3_param_persistence_threshold", "param_persistence_threshold"),
}
_STAGES = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}


class Zero(NamedTuple):
    """What DeepSpeed is asked to do.

    Attributes
    ----------
    layout, offload, precision
        Fields of `LayoutSettings`, `OffloadSettings` and `PrecisionSettings`.
    notes
        What is not counted.
    """

    layout: dict[str, Any]
    offload: dict[str, Any]
    precision: dict[str, Any]
    notes: tuple[str, ...] = ()


def read(value: Any, program: str, folder: str) -> Zero:
    """Read DeepSpeed's settings.

    Parameters
    ----------
    value
        A path, a name, a JSON text or a mapping.
    program
        How to call the training program in an error.
    folder
        Whose own files are known by name: `llamafactory`, `axolotl` or `swift`.

    Raises
    ------
    BadInput
        If the file is not there, or a value is of the wrong kind.
    """
    if isinstance(value, Mapping):
        return _zero(value, program, ())
    text = str(value)
    if text.strip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{program}: deepspeed is not JSON: {error}") from error
        return _zero(found, program, ())
    path = path_of(text)
    settings = read_json_settings(path) if path.suffix == ".json" else None
    if settings is not None:
        return _zero(settings, program, ())
    name = path.name.removesuffix(".json").removeprefix("default-").replace("-", "_")
    known = _known().get(f"{folder}/{name}")
    if known is None:
        raise BadInput(f"{program}: {text[:80]} (deepspeed) is not here", "give the path of a file that is")
    notes = (f"{text[:80]} is not here: read as {program}'s own file of that name",) if path.suffix else ()
    return _zero(known, program, notes)


def _zero(settings: Mapping[str, Any], program: str, notes: tuple[str, ...]) -> Zero:
    keys = Keys(f"{program}: deepspeed", settings)
    where = "zero_optimization."
    stage = keys.whole(where + "stage", 0)
    if stage not in (None, *_STAGES):
        raise BadInput(f"{program}: deepspeed has no stage {stage}", "known: 0, 1, 2, 3")
    layout: dict[str, Any] = {"data": _STAGES[stage or 0]}
    for field, names in _SIZES.items():
        for name in names:
            if keys.get(where + name) is None:
                continue
            layout[field] = 0 if keys.get(where + name) == "auto" else keys.whole(where + name, 0)
            break
    overlap = keys.get(where + "overlap_comm")
    if isinstance(overlap, bool):
        layout["overlap"] = overlap
    shards = keys.whole(where + "zero_hpz_partition_size")
    if shards and shards > 1:
        layout["shards"] = shards
    tp = keys.whole("tensor_parallel.autotp_size")
    if tp and tp > 1:
        layout["tp"] = tp
    offload: dict[str, Any] = {}
    for part, field in (("offload_optimizer", "optimizer"), ("offload_param", "params")):
        device = keys.word(f"{where}{part}.device")
        if device in ("cpu", "nvme"):
            offload[field] = True
            offload |= {"nvme": True} if device == "nvme" else {}
            pinned = keys.flag(f"{where}{part}.pin_memory")
            offload |= {} if pinned is None else {"pinned": pinned}
    if offload.get("optimizer") and (stage or 0) >= 2:
        offload["gradients"] = True
    precision: dict[str, Any] = {}
    for name, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        if keys.get(f"{name}.enabled") is True:
            precision = {"weights": dtype}
    more = [
        f"deepspeed's {name} is not counted"
        for name in (
            where + "zero_quantized_weights",
            where + "zero_quantized_gradients",
            "compile.deepcompile",
        )
        if keys.get(name) is True
    ]
    return Zero(layout, offload, precision, (*notes, *more))


@cache
def _known() -> dict[str, dict[str, Any]]:
    found = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        found[values.pop("name")] = values
    return found
