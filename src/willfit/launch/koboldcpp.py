"""Reading `koboldcpp --model FILE ...`, `python koboldcpp.py FILE` and settings in `.kcpps` files.

Flags as KoboldCpp 1.115 has them (`koboldcpp.py`), with those of versions since 1.40; what they become in its own
use of llama.cpp is in `gpttype_adapter.cpp: gpttype_load_model`. What is usual changed with the versions (`_ERAS`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from os.path import basename
from pathlib import Path
from typing import Any, Literal, NamedTuple

from willfit.engines.llama_cpp.builds import build_inside
from willfit.engines.llama_cpp.settings import Drafting, Settings
from willfit.engines.versions import Version, parse_version
from willfit.errors import BadInput
from willfit.launch.base import DraftModel, Launch
from willfit.launch.config_files import read_json_settings
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.llama_names import is_koboldcpp
from willfit.launch.llama_settings import Reading, encoder_at, tensor_bytes
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Scanned, scan

PROGRAM = "koboldcpp"

#: `parse` is given the variables in front of the command as well.
READS_VARIABLES = True

#: The newest version whose source was read.
NEWEST = "1.115.1"

#: What `--quantkv` names, by number (until 1.111) or by name.
_CACHE_TYPES = {
    "0": "f16", "1": "q8_0", "2": "q4_0", "3": "bf16", "f16": "f16", "bf16": "bf16", "q8_0": "q8_0", "q5_1": "q5_1",
    "q4_0": "q4_0",
}  # fmt: skip

#: All experts of all layers stay on the host where `--moecpu` has no number.
_ALL_LAYERS = 999

#: What `--contextsize` may be.
_SMALLEST_CONTEXT, _LARGEST_CONTEXT = 256, 262144


class _Era(NamedTuple):
    """What is usual since a version.

    Attributes
    ----------
    context
        Tokens where none are given.
    more
        Tokens that the context has beyond those that were asked for, and whether that hangs on context shifting.
    layers
        Layers on devices where none are given.
    fits
        `-1` layers are fitted by llama.cpp's own code, not by KoboldCpp's rule.
    flash, mapped, sliding
        Flash attention, mapped files and small caches of sliding layers are on where nothing is said.
    doubled
        The logical batch is twice the physical one.
    """

    since: Version
    context: int
    more: int
    shifts: bool
    layers: int
    fits: bool
    flash: bool
    mapped: bool
    sliding: bool
    doubled: bool


_ERAS = (
    _Era((1, 0), 2048, 80, True, 0, False, False, True, False, False),
    _Era((1, 70), 4096, 80, True, 0, False, False, True, False, False),
    _Era((1, 75), 4096, 80, True, -1, False, False, True, False, False),
    _Era((1, 78), 4096, 120, True, -1, False, False, True, False, False),
    _Era((1, 82), 4096, 120, True, -1, False, False, False, False, False),
    _Era((1, 96), 8192, 128, True, -1, False, False, False, False, False),
    _Era((1, 97), 8192, 128, False, -1, False, False, False, False, False),
    _Era((1, 107), 8192, 128, False, -1, False, True, False, False, False),
    _Era((1, 108), 8192, 128, False, -1, True, True, False, False, False),
    _Era((1, 111), 8192, 128, False, -1, True, True, False, False, True),
    _Era((1, 114), 8192, 128, False, -1, True, True, False, True, True),
    _Era((1, 115), 16384, 128, False, -1, True, True, False, True, True),
)


class _Encoders(NamedTuple):
    """How pictures are encoded since a version.

    Attributes
    ----------
    flash
        Whether attention is flash where the model's is: `off`, `on`, or `not cuda`.
    waits
        There are no compute buffers before the first picture.
    """

    since: Version
    flash: Literal["off", "on", "not cuda"]
    waits: bool


_ENCODERS = (
    _Encoders((0,), "off", False),
    _Encoders((1, 102, 1), "on", False),
    _Encoders((1, 102, 2), "off", False),
    _Encoders((1, 104), "off", True),
    _Encoders((1, 105, 1), "not cuda", True),
)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts KoboldCpp, by itself or with Python."""
    return _script(words) is not None


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts KoboldCpp.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of KoboldCpp, or a build of llama.cpp (`b6000`); None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that it does not have, a value that it would refuse, or a command without a model.
    """
    at = _script(words)
    assert at is not None
    given = dict(variables or {})
    rest = [*words[at + 1 :], *shlex.split(given.get("KCPP_ARGS", ""))]
    if any(word in ("-h", "--help", "--version", "--analyze", "--testmemory", "--unpack") for word in rest):
        raise BadInput(f"{PROGRAM}: no model is loaded", "leave --help, --version and --analyze out")
    table = flag_table("koboldcpp_flags.txt")
    scanned = scan(rest, table, PROGRAM, Dialect(), None)
    scanned = _with_config(rest, scanned, table)
    counted = version is not None and re.fullmatch(r"b\d+", version) is not None
    own = NEWEST if version is None or counted else version
    build = version if counted else f"b{build_inside('koboldcpp', own)}"
    reader = _Reader(scanned, own)
    settings = reader.settings()
    drafting, draft = reader.drafting(settings)
    if given.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1") and "devices" not in settings:
        settings["devices"] = ()
    return Launch(
        engine="llama.cpp",
        model=reader.model(given.get("KCPP_MODEL", "").split(",")[0]),
        revision=None,
        settings=Settings(program="api", version=build, drafting=drafting, **settings),
        notes=(
            *(() if counted else (f"KoboldCpp {own} has llama.cpp {build} inside",)),
            *(() if counted else of_other_versions(scanned, table, "KoboldCpp", own)),
            *not_counted(scanned),
            *reader.notes,
            *reader.reading.notes,
        ),
        draft=draft,
    )


def _script(words: Sequence[str]) -> int | None:
    """Where the word that names KoboldCpp stands."""
    if words and is_koboldcpp(words[0]):
        return 0
    if words and re.fullmatch(r"python(\d(\.\d+)?)?", basename(words[0])):
        return next((at for at in range(1, min(4, len(words))) if is_koboldcpp(words[at])), None)
    return None


def _era(version: str) -> _Era:
    asked = parse_version(version)
    return next((era for era in reversed(_ERAS) if era.since <= asked), _ERAS[0])


def _with_config(rest: list[str], scanned: Scanned, table: FlagTable) -> Scanned:
    """The command with the settings of its file in front, so that flags of the command win."""
    named = scanned.options.get("--config") or scanned.positionals[:1]
    path = str(named[0]) if named else ""
    if not path.lower().endswith((".kcpps", ".kcppt")) and "--config" not in scanned.options:
        return scanned
    settings = read_json_settings(Path(path).expanduser())
    if settings is None:
        raise BadInput(f"{PROGRAM}: {path[:120]} does not exist")
    words: list[str] = []
    for name, value in settings.items():
        flag = table.flags.get(f"--{name}")
        if name == "model_param" and isinstance(value, str) and value:
            words += ["--model", value]
        if flag is None or flag.quiet or value in (None, False, "", []):
            continue
        values = (
            [] if value is True else [str(one) for one in (value if isinstance(value, list) else [value])]
        )
        words += [f"--{name}", *values]
    if "--config" not in scanned.options:
        rest = [word for word in rest if word != path]
    return scan([*words, *rest], table, PROGRAM, Dialect(), None)


class _Reader:
    """From values by flag to settings."""

    def __init__(self, scanned: Scanned, version: str) -> None:
        self.options, self.positionals = scanned.options, scanned.positionals
        self.version, self.era = parse_version(version), _era(version)
        self.reading = Reading(PROGRAM, scanned.options, 0)
        self.notes: list[str] = []

    def model(self, downloaded: str) -> str:
        """The model; in its image the address of one to download can stand in a variable."""
        models = self.options.get("--model") or self.positionals or [downloaded]
        if not models or not models[0]:
            raise BadInput(f"{PROGRAM}: no model is named", f"write {PROGRAM} --model FILE")
        return str(models[0])

    def settings(self) -> dict[str, Any]:
        era, options = self.era, self.options
        context = self._number("--contextsize", era.context)
        if not _SMALLEST_CONTEXT <= context <= _LARGEST_CONTEXT:
            raise BadInput(
                f"{PROGRAM}: --contextsize is {context}, expected {_SMALLEST_CONTEXT} to {_LARGEST_CONTEXT}"
            )
        shifts = not options.get("--noshift")
        batch = max(1, self._number("--batchsize", 512))
        doubled = not options.get("--nopipelineparallel") and era.doubled
        flash = self._on("--flashattention", "--noflashattention", era.flash)
        mapped = self._on("--usemmap", "--nommap", era.mapped)
        sliding = self._on("--useswa", "--noswa", era.sliding)
        settings: dict[str, Any] = {
            "n_ctx": context + (era.more if shifts or not era.shifts else 0),
            "n_batch": batch * 2 if doubled else batch,
            "n_ubatch": batch,
            "flash_attn": "on" if flash else "off",
            "mmap": mapped,
            "mlock": bool(options.get("--usemlock")),
            "repack": not mapped,
            "swa_full": not sliding,
            "kv_unified": True,
        }
        slots = self._number("--parallelrequests", 1)
        if slots > 1:
            settings["n_parallel"] = slots + 1
        threads = [self._number(name, 0) for name in ("--threads", "--blasthreads")]
        if threads[0] > 0:
            settings["n_threads"] = max(threads)
        return settings | self._cache(flash) | self._placed(context) | self._files(flash)

    def _cache(self, flash: bool) -> dict[str, Any]:
        kind = _CACHE_TYPES[str(self.options.get("--quantkv", "f16"))]
        # Without flash attention the values are not quantized.
        return {"cache_type_k": kind, "cache_type_v": kind if flash or kind in ("f16", "bf16") else "f16"}

    def _placed(self, context: int) -> dict[str, Any]:
        """Which devices are used, and what goes to them."""
        options = self.options
        settings = self._devices()
        cuda = options.get("--usecuda") or ()
        if options.get("--lowvram") or "lowvram" in cuda:
            settings["kv_offload"] = False
        mode = str(options.get("--splitmode", "row" if "rowsplit" in cuda else "layer"))
        if mode != "layer":
            settings["split_mode"] = mode
        shares = options.get("--tensor_split")
        if shares:
            settings["tensor_split"] = self.reading.shares("--tensor_split", ",".join(map(str, shares)))
        autofit = bool(options.get("--autofit"))
        experts = self._number("--moecpu", 0, bare=_ALL_LAYERS)
        overrides = options.get("--overridetensors")
        if experts and not autofit:
            settings["n_cpu_moe"] = experts
        if overrides and not autofit:
            settings["override_tensor"] = tuple(self.reading.pairs(str(overrides), ","))
        layers = self._number("--gpulayers", self.era.layers, bare=1)
        padding = self._number("--autofitpadding", 1024)
        targets = str(options.get("--rpctargets", ""))
        if options.get("--rpcmode") == "connect" and targets:
            settings["rpc_servers"] = tuple(one for one in targets.split(",") if one)
        if settings.get("devices") == ():
            return {**settings, "n_gpu_layers": 0, "fit": False}
        if autofit or (layers < 0 and self.era.fits and not (shares or overrides or experts)):
            more = {"fit": True, "fit_target_mib": (padding,), "fit_ctx": context, "n_gpu_layers": "auto"}
            return settings | more
        if layers < 0:
            self.notes.append("KoboldCpp chooses the layers by a rule of its own; as many as fit are assumed")
            return {**settings, "n_gpu_layers": "auto", "fit": True}
        return {**settings, "n_gpu_layers": layers, "fit": False}

    def _devices(self) -> dict[str, Any]:
        options = self.options
        if options.get("--usecpu") or options.get("--noblas"):
            return {"devices": ()}
        named = options.get("--device")
        if named:
            devices, backend = self.reading.devices("--device", str(named))
            return {"devices": devices} | ({"backend": backend} if backend else {})
        if options.get("--useclblast"):
            self.notes.append("CLBlast is counted as any other device")
        main = self._number("--maingpu", -1)
        settings: dict[str, Any] = {"main_gpu": main} if main > 0 else {}
        if "--usevulkan" in options:
            settings["backend"] = "vulkan"
            if options["--usevulkan"]:
                settings["devices"] = tuple(int(one) for one in options["--usevulkan"])
            return settings
        picked = [int(one) for one in options.get("--usecuda") or () if str(one).isdigit()]
        if picked and not options.get("--tensor_split"):
            settings["devices"] = (picked[0],)
        elif picked:
            settings.setdefault("main_gpu", picked[0])
        return settings

    def _encoder(self, projector: str, flash: bool) -> dict[str, Any]:
        """How pictures are encoded (`gpttype_adapter.cpp: init_clip_ctx_params`)."""
        shape = encoder_at(projector)
        if shape is None:
            return {}
        era = next(era for era in reversed(_ENCODERS) if era.since <= self.version)
        # Builds for CUDA and HIP leave it off where scores must be in memory for some widths of heads.
        off = era.flash == "off" or (era.flash == "not cuda" and "--usecuda" in self.options)
        on_processor = bool(self.options.get("--mmprojcpu")) and era.flash == "not cuda"
        return {
            "mmproj_encoder": shape,
            "mmproj_flash": flash and (not off or on_processor),
            "mmproj_waits": era.waits,
        }

    def _files(self, flash: bool) -> dict[str, Any]:
        """What is loaded beside the model."""
        options, settings = self.options, dict[str, Any]()
        adapters = options.get("--lora")
        if adapters:
            size = tensor_bytes(str(adapters[0]))
            settings |= {"lora": (str(adapters[0]),), "lora_bytes": size or 0}
            if size is None:
                self.notes.append(f"adapters that are not here are not counted: {str(adapters[0])[:200]}")
        projector = options.get("--mmproj")
        if projector:
            size = tensor_bytes(str(projector))
            settings |= {"mmproj_bytes": size or 0, "mmproj_offload": not options.get("--mmprojcpu")}
            settings |= self._encoder(str(projector), flash)
            if size is None:
                self.notes.append(
                    f"the projector {str(projector)[:120]} cannot be read here; it is not counted"
                )
        tokens = self._number("--visionmaxtokens", -1)
        if tokens > 0:
            settings["image_tokens"] = tokens
        if options.get("--enableguidance"):
            self.notes.append("the second context of --enableguidance is not counted")
        if options.get("--smartcache"):
            self.notes.append("saved states in host RAM (--smartcache) are not counted")
        return settings

    def drafting(self, settings: Mapping[str, Any]) -> tuple[Drafting | None, DraftModel | None]:
        """How tokens are drafted; the draft has the model's context and types of the cache."""
        model, layers = self.options.get("--draftmodel"), self._number("--draftgpulayers", _ALL_LAYERS)
        amount = self._number("--draftamount", 8)
        if not model and not self.options.get("--usemtp"):
            return None, None
        drafting = Drafting(
            kind="draft" if model else "mtp",
            n_max=amount,
            n_gpu_layers="all" if layers >= _ALL_LAYERS else layers,
            cache_type_k=settings["cache_type_k"],
            cache_type_v=settings["cache_type_v"],
        )
        return drafting, DraftModel(str(model), "draft") if model else None

    def _on(self, flag: str, opposite: str, usual: bool) -> bool:
        """Whether something is on that one flag turns on and another off."""
        on, off = bool(self.options.get(flag)), bool(self.options.get(opposite))
        return on or (usual and not off)

    def _number(self, name: str, usual: int, bare: int = 1) -> int:
        value = self.options.get(name, usual)
        return bare if value is True else int(value)
