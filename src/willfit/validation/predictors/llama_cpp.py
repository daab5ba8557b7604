"""Predictions for llama.cpp's logs, those of its forks, and what its own planner says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, get_args

from willfit.checkpoints.catalogue import find
from willfit.engines.base import Machine, Subject
from willfit.engines.gguf_files import subject_of_file
from willfit.engines.llama_cpp import Settings, estimate_alone
from willfit.engines.llama_cpp.eras import era_for
from willfit.engines.llama_cpp.graph.pictures import Encoder
from willfit.engines.llama_cpp.graph.tensor import OWN_BUFFERS
from willfit.engines.llama_cpp.loading.projectors import side_of
from willfit.engines.llama_cpp.settings import Backend, Drafting, Fork, Program
from willfit.estimate import Estimate, combined
from willfit.file_types import known_quantization
from willfit.hardware.device import Device
from willfit.hardware.processors import processor_kind
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
from willfit.validation.cases import Case
from willfit.validation.predictors.gguf_files import dry_run, file_of, file_sizes
from willfit.validation.predictors.llama_builds import builds_of
from willfit.validation.predictors.stated_types import as_stated, mix_bounds
from willfit.validation.scoring import Prediction

#: Vision encoders that are built as Qwen3-VL's, by the start of their types.
_ENCODERS = ("qwen3_vl", "qwen3_5", "qwen3_6", "qwen3_8")
#: Slots of a server that was not told how many.
_AUTO_SLOTS = 4
#: Tokens of one text of a measurement of perplexity that was not told how many.
_TEXT = 512
#: What must be known for compute buffers.
_SETTINGS = frozenset(("n_ubatch", "mmproj", "n_parallel"))
#: Terms of a device that are not buffers of the model and its context.
_BESIDE = ("context", "projector", "projector_compute", "draft")
#: Half of the last digit that logs print.
_HALF_DIGIT = 0.005

#: Names of the host's plain memory in logs; older ones do not tell mapped files apart.
_HOST = ("CPU", "CPU_Mapped", *OWN_BUFFERS)
_PROGRAMS: dict[str, Program] = {
    "llama-server": "server",
    "server": "server",
    "llama-cli": "cli",
    "main": "cli",
    "llama-bench": "bench",
}


def predict(case: Case) -> dict[str, Any]:
    """Buffers of a process, or sizes of files; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If the model is not known.
    """
    if "tensor_bytes" in case.measured:
        return dry_run(case)
    subject = subject_of(case)
    machine = machine_of(case)
    first, middle, last = builds_of(case)
    found: dict[str, Any] = {}
    for build in dict.fromkeys((middle, first, last)):
        for program, sequences in itertools.product(programs_of(case, build), sequences_of(case)):
            settings = settings_of(case, build, program)
            settings = settings if sequences is None else replace(settings, n_parallel=sequences)
            made = figures(case, subject, _answer(subject, machine, settings, case))
            if found:
                _spread(found, made)
            else:
                found = made
    return in_log(case, found)


def in_log(case: Case, found: dict[str, Any]) -> dict[str, Any]:
    """Figures with the digits that the case's log prints."""
    return _in_whole_mib(found) if _whole(case) else found


def _answer(subject: Subject, machine: Machine, settings: Settings, case: Case) -> Estimate:
    """The estimate, where attention turned out as the log says."""
    given = case.settings
    if given.get("flash_attn") == "auto" and given.get("flash_attn_resolved") is False:
        # Values are not transposed where it was open at first.
        answer = estimate_alone(subject, machine, replace(settings, flash_attn="auto"))
        if not answer.details["flash_attn"]:
            return answer
    return estimate_alone(subject, machine, settings)


def subject_of(case: Case) -> Subject:
    """The case's model, its GGUF file predicted from its config.

    Raises
    ------
    Unpredictable
        If no config of the architecture is known.
    """
    name = str(case.fields.get("gguf_type") or "Q4_K_M")
    if known_quantization(name) is None:
        name = "Q4_K_M"  # of a fork: sizes of weights are not predicted then
    made = file_of(case, name)
    stated = as_stated(made.header, case.fields.get("gguf_hparams") or {})
    found = subject_of_file(str(case.fields.get("model")), stated or made.header)
    found = replace(found, from_headers=False)  # nor does anyone know the order of its tensors
    if stated is not None:
        return found
    own = sum(line.bytes for line in found.lines)
    bounds = made.bytes
    if case.unknown_settings & {"gguf_type", "gguf_mix"}:
        bounds = mix_bounds(made.header, case.fields.get("gguf_hparams") or {}) or bounds
    return replace(found, bounds=None if bounds == (own, own) else bounds)


def machine_of(case: Case) -> Machine:
    """The case's devices and processor; devices that are not named have no known size."""
    count = case.fields.get("n_gpus")
    backend = str(case.settings.get("backend", "cpu"))
    if count is None:
        count = 0 if backend == "cpu" else 1
    count = int(case.settings.get("n_devices") or count)
    vendor = {"rocm": "AMD", "metal": "Apple", "cuda": "NVIDIA"}.get(backend, "")
    named = case.fields.get("gpu")
    names = named if isinstance(named, list) else [named] * count
    devices = [find_device(name) if isinstance(name, str) else Device("unknown", vendor) for name in names]
    free = case.settings.get("device_free_mib") or {}
    for index, device in enumerate(devices):
        known = free.get(f"CUDA{index}")
        if known:
            devices[index] = replace(device, usable_bytes=int(known) * MIB)
    stated = case.settings.get("cpu")
    return Machine(tuple(devices), processor=processor_kind(str(stated)) if stated else None)


def _whole(case: Case) -> bool:
    """Whether figures were printed in whole MiB, as tables at the end of a run are."""
    tables = [value for key, value in case.measured.items() if key.endswith("buffer_mib")]
    values = [size for table in tables if isinstance(table, dict) for size in table.values()]
    return len(values) > 2 and all(float(size).is_integer() for size in values)


def _in_whole_mib(found: dict[str, Any]) -> dict[str, Any]:
    """The same where what is behind the point was cut off."""
    return {
        key: _in_whole_mib(one) if isinstance(one, dict) else Prediction(one.value, one.low - 1, one.high)
        for key, one in found.items()
    }


def _spread(found: dict[str, Any], other: dict[str, Any]) -> None:
    """Widen intervals to what another build would take."""
    for key, one in found.items():
        if isinstance(one, dict):
            _spread(one, other.get(key, {}))
        elif key in other:
            low, high = min(one.low, other[key].low), max(one.high, other[key].high)
            found[key] = Prediction(one.value, low, high)


def programs_of(case: Case, build: str) -> tuple[Program, ...]:
    """The program of a case; most logs that do not name theirs are a server's, of 2024 a library's."""
    if case.fields.get("oracle") is not None:
        return ("api",)
    stated = case.settings.get("binary")
    if stated is None and (case.fields.get("framework") or era_for(build, _fork(case)).spare_sequence):
        return ("api", "server") if _fork(case) == "llama.cpp" else ("server", "api")
    return ("server", "api") if stated is None else (_PROGRAMS.get(str(stated), "api"),)


def sequences_of(case: Case) -> tuple[int | None, ...]:
    """Sequences that a measurement of perplexity computes at once, where it does not say; None for what is stated.

    It takes as many texts as fit into a batch; its log then shows the tokens of all as one context.
    """
    given = case.settings
    context, batch = int(given.get("n_ctx") or 0), int(given.get("n_batch") or 0)
    if given.get("binary") != "perplexity" or "n_parallel" in given or context != batch:
        return (None,)
    return max(1, batch // _TEXT), 1


def settings_of(case: Case, build: str, program: Program) -> Settings:
    """The case's settings under the programs' own names; what it leaves open is the program's choice."""
    given = case.settings
    oracle = case.fields.get("oracle") is not None
    flash = given.get("flash_attn")
    resolved = given.get("flash_attn_resolved")
    if resolved is not None and not oracle:
        flash = resolved
    layers = given.get("n_gpu_layers")
    backend = given.get("backend", "cpu") if _has_devices(case) else "cpu"
    unified = given.get("kv_unified")
    split = given.get("tensor_split")
    # A server without a word has four slots, which share one cache.
    automatic = program == "server" and given.get("n_parallel") == _AUTO_SLOTS and unified is not False
    automatic = automatic and era_for(build, _fork(case)).auto_slots
    name: Backend = next((one for one in get_args(Backend) if one == backend), "vulkan")
    return Settings(
        program=program,
        fork=_fork(case),
        version=build,
        backend=name,
        n_ctx=given.get("n_ctx"),
        n_parallel=None if automatic else given.get("n_parallel", None if program == "server" else 1),
        kv_unified=unified,
        n_batch=given.get("n_batch"),
        n_ubatch=given.get("n_ubatch"),
        flash_attn=None if flash is None else "auto" if flash == "auto" else "on" if flash else "off",
        cache_type_k=given.get("cache_type_k", "f16"),
        cache_type_v=given.get("cache_type_v", "f16"),
        n_gpu_layers="all" if layers is None and _on_devices(case) and not given.get("fit") else layers,
        split_mode=given.get("split_mode"),
        tensor_split=tuple(split) if split else (),
        override_tensor=_overrides(given.get("override_tensor") or ""),
        cpu_moe=bool(given.get("cpu_moe")),
        n_cpu_moe=int(given.get("n_cpu_moe") or 0),
        kv_offload=given.get("offload_kqv", True),
        mmap=False if oracle else given.get("mmap"),
        repack=given.get("use_extra_bufts", True),
        swa_full=bool(given.get("swa_full")),
        fit=bool(given.get("fit")),
        fusion=not oracle,
        no_alloc=oracle,
        drafting=Drafting("mtp", n_max=_drafted(given))
        if (given.get("n_rs_seq") or given.get("mtp")) and not oracle
        else None,
        embeddings=bool(given.get("embeddings")),
        n_outputs_max=given.get("n_outputs_max") or None,
        mmproj_encoder=_encoder(case),
        pipeline_copies=_copies(case),
        mla=given.get("mla_attn"),
        fused_moe=given.get("fused_moe"),
        max_attention_mib=given.get("attn_max_b"),
        run_time_repack=bool(given.get("run_time_repack")),
    )


def _drafted(given: dict[str, Any]) -> int | None:
    """Tokens that are drafted at once."""
    stated = given.get("n_rs_seq") or (given.get("speculative") or {}).get("num_tokens")
    return int(stated) if stated else None


def _fork(case: Case) -> Fork:
    return "ik_llama.cpp" if case.engine == "ik_llama.cpp" else "llama.cpp"


def _copies(case: Case) -> int | None:
    """Copies of a pipeline's inputs, which ik_llama.cpp logs where it pipelines at all."""
    stated = case.settings.get("pipeline_parallel_copies")
    if stated is None and _fork(case) == "ik_llama.cpp" and not case.settings.get("pipeline_parallel"):
        return 1
    return stated


def _has_devices(case: Case) -> bool:
    """Whether the program can use devices: else all that it computes is in plain memory."""
    return not (
        set(case.measured.get("compute_buffer_mib") or ())
        and set(case.measured["compute_buffer_mib"]) <= set(_HOST)
    )


def _on_devices(case: Case) -> bool:
    """Whether the log names buffers of devices: then layers are there, though it is not said how many."""
    keys = (
        "model_buffer_mib",
        *(("kv_buffer_mib", "rs_buffer_mib") if case.settings.get("offload_kqv", True) else ()),
    )
    names = {place for key in keys for place in (case.measured.get(key) or {})}
    return not names or any(name not in _HOST and not name.endswith(("_Host", "Host")) for name in names)


def _overrides(text: str) -> tuple[tuple[str, str], ...]:
    """`-ot` as the program parses it: pairs of a pattern and a buffer."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return tuple((pattern, place) for pattern, _, place in pairs)


def figures(case: Case, subject: Subject, answer: Estimate) -> dict[str, Any]:
    """What the case measured, as predicted; what depends on a setting that is not known is left out."""
    measured, unknown = case.measured, case.unknown_settings
    buffers = answer.details["buffers"]
    found: dict[str, Any] = {}
    several = len(answer.devices) > 1
    # Where a tensor is: without the pattern, or the shares of several devices, nobody knows.
    placed = not unknown & {"override_tensor", "n_gpu_layers"} and not (several and "tensor_split" in unknown)
    stated = case.fields.get("gguf_type")
    files = "types" in (case.fields.get("gguf_hparams") or {}) or (
        bool(stated)
        and known_quantization(str(stated)) is not None
        and not unknown & {"gguf_type", "gguf_mix"}
    )
    if files and placed:
        _table(found, measured, "model_buffer_mib", buffers["model"], _bounds(answer, "weights"))
    if placed:
        _table(found, measured, "kv_buffer_mib", buffers["kv"])
    if placed and "n_parallel" not in unknown:
        _table(found, measured, "rs_buffer_mib", buffers["rs"])
        _table(found, measured, "context_buffer_mib", _added(buffers["kv"], buffers["rs"]))
    # Devices that compute with weights of the host hold copies of them.
    copies = any(name.endswith("_Host") or name.startswith("CPU") for name in buffers["kv"]) or bool(
        case.settings.get("n_cpu_moe") or case.settings.get("cpu_moe")
    )
    sized = not (copies and "gguf_type" in unknown)
    if placed and sized and not unknown & _SETTINGS:
        _table(found, measured, "compute_buffer_mib", buffers["compute"], _bounds(answer, "compute"))
        if "compute_total_mib" in measured:
            found["compute_total_mib"] = _printed(_computed(answer) / MIB)
        _table(found, measured, "input_buffer_mib", buffers["input"])
    if "n_parallel" not in unknown:
        _table(found, measured, "output_buffer_mib", buffers["output"])
    if "kv_total_mib" in measured:
        found["kv_total_mib"] = _printed(sum(answer.details["kv"].values()) / MIB)
    for key in ("k", "v"):
        if f"kv_{key}_mib" in measured:
            found[f"kv_{key}_mib"] = _printed(answer.details["kv"][key] / MIB)
    _draft(case, found, answer)
    _projector(found, measured, answer)
    if placed and sized and bool(stated) and "gguf_type" not in unknown and not unknown & _SETTINGS:
        _devices(found, measured, answer)
    if files:
        for key, one in file_sizes(case, subject).items():
            found[key] = Prediction(one.value, one.low - _HALF_DIGIT, one.high + _HALF_DIGIT)
    return found


def _devices(found: dict[str, Any], measured: dict[str, Any], answer: Estimate) -> None:
    """What devices hold as a whole: by llama.cpp's own account, and with what the driver shows beside."""
    logged = measured.get("self_mib")
    if isinstance(logged, dict):
        sizes, bounds = {}, {}
        for place, device in zip(answer.details["places"], answer.devices, strict=False):
            own = combined(term for term in device.terms if term.name not in _BESIDE)
            sizes[place], bounds[place] = own[0], own[1:]
        _table(found, measured, "self_mib", sizes, bounds)
    for key in ("nvidia_smi_gib", "driver_delta_gib"):
        if len(answer.devices) == 1 and isinstance(measured.get(key), int | float):
            device = answer.devices[0]
            found[key] = Prediction(*(size / GIB for size in (device.peak_bytes, *device.interval_bytes)))


def _computed(answer: Estimate) -> int:
    """Bytes of compute buffers, as logs sum them up: without the device's where it is one with the host's."""
    compute = answer.details["buffers"]["compute"]
    if answer.engine == "llama.cpp" and era_for(answer.engine_version).one_buffer:
        return int(compute[answer.details["places"][-1]])
    return int(sum(compute.values()))


def _projector(found: dict[str, Any], measured: dict[str, Any], answer: Estimate) -> None:
    """The compute buffers of a projector's encoder."""
    sizes = answer.details["projector"]
    if sizes and isinstance(measured.get("mmproj_compute_mib"), dict):
        _table(found, measured, "mmproj_compute_mib", sizes)


def _encoder(case: Case) -> Encoder | None:
    """The encoder of a model whose config describes one that is built as Qwen3-VL's; None for others."""
    entry = find(str(case.fields.get("catalogue") or case.fields.get("model")))
    vision = (entry.config.get("vision_config") or {}) if entry is not None else {}
    stated = case.settings.get("mmproj")
    if "mmproj_compute_mib" not in case.measured or not str(vision.get("model_type")).startswith(_ENCODERS):
        return None
    patch, merge = int(vision["patch_size"]), int(vision["spatial_merge_size"])
    side = side_of("qwen3vl_merger", patch, merge, 0)
    if isinstance(stated, dict) and stated.get("warmup_image"):
        side = int(str(stated["warmup_image"]).partition("x")[0])
    return Encoder(
        int(vision["depth"]),
        int(vision["hidden_size"]),
        int(vision["intermediate_size"]),
        int(vision["num_heads"]),
        patch,
        merge,
        side,
        int(vision["out_hidden_size"]),
        known=not vision.get("deepstack_visual_indexes"),
    )


def _draft(case: Case, found: dict[str, Any], answer: Estimate) -> None:
    """The context of the model's own drafting layer."""
    measured = case.measured
    draft = answer.details["draft"]
    if not draft:
        return
    host = {
        name: size for name, size in draft["compute"].items() if name.startswith("CPU") or "_Host" in name
    }
    keys_values, host_bytes = sum(draft["kv"].values()), sum(host.values())
    compute = sum(draft["compute"].values()) - host_bytes
    typed = "draft_cache_type" not in case.unknown_settings
    for key, size in (
        ("mtp_kv_mib", keys_values if typed else None),
        ("mtp_compute_mib", compute),
        ("mtp_host_compute_mib", host_bytes),
        ("mtp_context_mib", keys_values + compute if typed else None),
    ):
        if key in measured and size is not None:
            found[key] = _printed(size / MIB)


def _printed(value: float) -> Prediction:
    """A figure that logs print with two digits."""
    return Prediction(value, value - _HALF_DIGIT, value + _HALF_DIGIT)


def _bounds(answer: Estimate, name: str) -> dict[str, tuple[int, int]]:
    """Intervals of a term by the buffer that it is."""
    found: dict[str, tuple[int, int]] = {}
    *devices, host = answer.details["places"]
    names = {name: host}
    if name == "weights":
        names = {"weights": "CPU", "pinned_weights": host, "mapped_weights": "CPU_Mapped"}
    for place, where in zip(devices, answer.devices, strict=True):
        for term in where.terms:
            if term.name == name:
                found[place] = term.low_bytes, term.high_bytes
    for term in (*answer.host.terms, *answer.host.page_cache):
        if term.name in names:
            found[names[term.name]] = (term.low_bytes, term.high_bytes)
    return found


def _added(*tables: dict[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for table in tables:
        for place, size in table.items():
            total[place] = total.get(place, 0) + size
    return total


def _table(
    found: dict[str, Any],
    measured: dict[str, Any],
    key: str,
    sizes: dict[str, int],
    bounds: dict[str, tuple[int, int]] | None = None,
) -> None:
    """Each buffer that was logged, by its name; `bounds` are those of some."""
    logged = measured.get(key)
    if not isinstance(logged, dict):
        return
    made = {}
    for place, value in logged.items():
        size = _named(place, sizes, logged)
        if size is None or not value:
            continue
        low = high = size
        for name, interval in (bounds or {}).items():
            if sizes.get(name) == size and (name == place or place not in (bounds or {})):
                low, high = interval
        made[place] = Prediction(size / MIB, low / MIB - _HALF_DIGIT, high / MIB + _HALF_DIGIT)
    if made:
        found[key] = made


def _named(place: str, sizes: dict[str, int], logged: dict[str, Any]) -> int | None:
    """Bytes of the buffer that a log calls so; None if it is another program's."""
    if place in sizes:
        beside = sizes.get("CPU_Mapped", 0) if place == "CPU" and "CPU_Mapped" not in logged else 0
        return sizes[place] + beside
    if place == "Host":
        return sum(size for name, size in sizes.items() if name.startswith("CPU") or name.endswith("_Host"))
    if place in _HOST:
        # What older logs call CPU may be mapped, and what they call CUDA_Host plain memory.
        found = [
            size for name, size in sizes.items() if name in _HOST and (name == place or name not in logged)
        ]
        pinned = [size for name, size in sizes.items() if name.endswith("_Host") and name not in logged]
        return sum(found or pinned)
    if place.endswith("_Host"):
        return sum(size for name, size in sizes.items() if name == "CPU")
    devices = [name for name in sizes if not name.startswith("CPU") and not name.endswith("_Host")]
    used = [name for name in logged if name not in (*_HOST, "Host") and not name.endswith("_Host")]
    if len(devices) == len(used) == 1:
        # A machine's second device is the first that is used.
        return sizes[devices[0]]
    if place.rstrip("0123456789") in {name.rstrip("0123456789") for name in devices}:
        return 0
    return sizes[devices[0]] if len(devices) == 1 else None
