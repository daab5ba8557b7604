"""Predictions for llama.cpp's logs, those of its forks, and what its own planner says."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from datetime import date
from typing import Any, get_args

from willfit.checkpoints.catalogue import find
from willfit.engines.base import Machine, Subject
from willfit.engines.gguf_files import subject_of_file
from willfit.engines.llama_cpp import Settings, estimate
from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_inside
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
from willfit.validation.predictors.stated_types import as_stated, mix_bounds
from willfit.validation.scoring import Prediction

#: Builds by the day on which they were published; others lie between.
_BUILDS = (
    ("2023-08-21", 1013), ("2023-09-01", 1149), ("2023-09-28", 1292), ("2023-10-08", 1354), ("2023-11-01", 1464),
    ("2023-11-13", 1513), ("2023-11-17", 1535), ("2023-12-01", 1601), ("2023-12-07", 1620), ("2023-12-13", 1634),
    ("2023-12-21", 1680), ("2024-01-12", 1848), ("2024-01-24", 1964), ("2024-01-26", 1983), ("2024-02-12", 2134),
    ("2024-02-15", 2158), ("2024-02-26", 2276), ("2024-03-13", 2416), ("2024-03-18", 2460), ("2024-03-26", 2541),
    ("2024-04-18", 2694), ("2024-04-30", 2775),
    ("2024-05-11", 2849), ("2024-06-21", 3194), ("2024-07-15", 3400), ("2024-08-18", 3600), ("2024-09-15", 3761),
    ("2024-10-31", 4000), ("2024-11-06", 4038), ("2024-12-30", 4400), ("2025-02-02", 4620), ("2025-03-15", 4897),
    ("2025-04-26", 5192), ("2025-06-10", 5622), ("2025-06-30", 5781), ("2025-08-30", 6325), ("2025-11-08", 6980),
    ("2025-12-15", 7410), ("2026-02-12", 8000), ("2026-04-10", 8672), ("2026-05-08", 9093), ("2026-05-25", 9294),
    ("2026-06-15", 9538), ("2026-07-20", 10068), ("2026-08-20", 10566), ("2026-09-20", 11063), ("2026-10-01", 11320),
    ("2026-10-08", 11500),
)  # fmt: skip

#: Lines that only some builds log, with the first and the last of these.
_LINES = (
    ("compute_total_mib", 0, 1842),
    ("input_buffer_mib", 1961, 2412),
    ("output_buffer_mib", 2413, NEWEST_BUILD),
)
#: Settings that only newer builds have, with the first of these.
_SINCE = (("fit", 7410), ("n_rs_seq", 9200), ("n_outputs_max", 9440))
#: A version of the Python bindings.
_BINDING = re.compile(r"llama-cpp-python (\d[\d.]*)")

#: Builds of ik_llama.cpp by day, which counts its own commits.
_IK_BUILDS = (
    ("2024-08-19", 3400), ("2024-08-31", 3405), ("2024-09-10", 3419), ("2024-09-25", 3434), ("2024-10-09", 3455),
    ("2024-10-19", 3467), ("2024-10-31", 3480), ("2024-11-21", 3482), ("2024-12-02", 3484), ("2024-12-12", 3501),
    ("2024-12-22", 3522), ("2025-01-10", 3527), ("2025-01-20", 3531), ("2025-01-30", 3541), ("2025-02-09", 3551),
    ("2025-02-19", 3561), ("2025-02-20", 3564), ("2025-02-21", 3565), ("2025-02-22", 3568), ("2025-02-23", 3571),
    ("2025-02-24", 3572), ("2025-02-25", 3573), ("2025-02-27", 3575), ("2025-03-01", 3577), ("2025-03-02", 3578),
    ("2025-03-03", 3579), ("2025-03-05", 3580), ("2025-03-07", 3582), ("2025-03-08", 3583), ("2025-03-09", 3584),
    ("2025-03-10", 3586), ("2025-03-12", 3587), ("2025-03-13", 3588), ("2025-03-17", 3589), ("2025-03-18", 3594),
    ("2025-03-19", 3597), ("2025-03-21", 3601), ("2025-03-22", 3604), ("2025-03-23", 3607), ("2025-03-25", 3610),
    ("2025-03-27", 3612), ("2025-03-29", 3613), ("2025-04-01", 3618), ("2025-04-03", 3621), ("2025-04-04", 3622),
    ("2025-04-05", 3623), ("2025-04-07", 3629), ("2025-04-08", 3630), ("2025-04-10", 3631), ("2025-04-11", 3632),
    ("2025-04-12", 3633), ("2025-04-13", 3634), ("2025-04-14", 3636), ("2025-04-15", 3638), ("2025-04-17", 3639),
    ("2025-04-21", 3640), ("2025-04-22", 3642), ("2025-04-24", 3644), ("2025-04-25", 3648), ("2025-04-26", 3651),
    ("2025-04-29", 3655), ("2025-04-30", 3657), ("2025-05-02", 3659), ("2025-05-03", 3661), ("2025-05-04", 3666),
    ("2025-05-05", 3667), ("2025-05-06", 3668), ("2025-05-07", 3673), ("2025-05-09", 3679), ("2025-05-10", 3680),
    ("2025-05-11", 3682), ("2025-05-12", 3688), ("2025-05-13", 3691), ("2025-05-14", 3693), ("2025-05-15", 3697),
    ("2025-05-16", 3698), ("2025-05-17", 3701), ("2025-05-18", 3702), ("2025-05-20", 3703), ("2025-05-22", 3705),
    ("2025-05-23", 3710), ("2025-05-24", 3712), ("2025-05-25", 3713), ("2025-05-26", 3714), ("2025-05-27", 3715),
    ("2025-05-28", 3716), ("2025-05-29", 3717), ("2025-05-30", 3718), ("2025-05-31", 3719), ("2025-06-01", 3722),
    ("2025-06-03", 3725), ("2025-06-05", 3729), ("2025-06-06", 3730), ("2025-06-07", 3732), ("2025-06-08", 3737),
    ("2025-06-09", 3738), ("2025-06-10", 3739), ("2025-06-11", 3742), ("2025-06-12", 3745), ("2025-06-13", 3748),
    ("2025-06-14", 3749), ("2025-06-17", 3751), ("2025-06-18", 3756), ("2025-06-19", 3761), ("2025-06-20", 3762),
    ("2025-06-21", 3764), ("2025-06-22", 3766), ("2025-06-23", 3768), ("2025-06-24", 3770), ("2025-06-26", 3772),
    ("2025-06-27", 3774), ("2025-07-02", 3779), ("2025-07-03", 3785), ("2025-07-04", 3787), ("2025-07-05", 3788),
    ("2025-07-06", 3790), ("2025-07-07", 3791), ("2025-07-08", 3792), ("2025-07-09", 3793), ("2025-07-10", 3795),
    ("2025-07-13", 3798), ("2025-07-14", 3800), ("2025-07-15", 3802), ("2025-07-16", 3804), ("2025-07-17", 3806),
    ("2025-07-18", 3808), ("2025-07-20", 3811), ("2025-07-22", 3815), ("2025-07-23", 3821), ("2025-07-24", 3822),
    ("2025-07-26", 3826), ("2025-08-07", 3830), ("2025-08-08", 3833), ("2025-08-09", 3835), ("2025-08-11", 3836),
    ("2025-08-13", 3837), ("2025-08-15", 3839), ("2025-08-16", 3840), ("2025-08-17", 3844), ("2025-08-18", 3845),
    ("2025-08-19", 3848), ("2025-08-20", 3849), ("2025-08-21", 3852), ("2025-08-22", 3855), ("2025-08-23", 3857),
    ("2025-08-24", 3858), ("2025-08-25", 3859), ("2025-08-26", 3860), ("2025-08-27", 3865), ("2025-08-28", 3866),
    ("2025-08-29", 3867), ("2025-08-30", 3868), ("2025-08-31", 3869), ("2025-09-01", 3871), ("2025-09-02", 3874),
    ("2025-09-04", 3877), ("2025-09-05", 3881), ("2025-09-09", 3882), ("2025-09-11", 3883), ("2025-09-13", 3884),
    ("2025-09-23", 3888), ("2025-09-24", 3892), ("2025-09-25", 3893), ("2025-09-26", 3895), ("2025-09-27", 3899),
    ("2025-09-30", 3900), ("2025-10-01", 3901), ("2025-10-05", 3902), ("2025-10-11", 3904), ("2025-10-13", 3908),
    ("2025-10-14", 3909), ("2025-10-15", 3910), ("2025-10-16", 3912), ("2025-10-17", 3913), ("2025-10-18", 3914),
    ("2025-10-19", 3916), ("2025-10-20", 3919), ("2025-10-21", 3923), ("2025-10-22", 3924), ("2025-10-23", 3925),
    ("2025-10-24", 3927), ("2025-10-25", 3928), ("2025-10-26", 3929), ("2025-10-27", 3934), ("2025-10-28", 3936),
    ("2025-10-29", 3939), ("2025-10-30", 3940), ("2025-10-31", 3944), ("2025-11-03", 3946), ("2025-11-04", 3950),
    ("2025-11-05", 3956), ("2025-11-06", 3960), ("2025-11-07", 3964), ("2025-11-08", 3966), ("2025-11-09", 3972),
    ("2025-11-10", 3978), ("2025-11-11", 3982), ("2025-11-12", 3983), ("2025-11-13", 3988), ("2025-11-14", 3995),
    ("2025-11-24", 4025), ("2025-12-04", 4042), ("2025-12-14", 4065), ("2025-12-24", 4077), ("2026-01-05", 4091),
    ("2026-01-17", 4122), ("2026-01-28", 4151), ("2026-02-07", 4189), ("2026-02-17", 4203), ("2026-02-27", 4242),
    ("2026-03-09", 4270), ("2026-03-19", 4326), ("2026-03-29", 4373), ("2026-04-08", 4394), ("2026-04-18", 4425),
    ("2026-04-28", 4444), ("2026-05-08", 4469), ("2026-05-18", 4509), ("2026-05-28", 4548), ("2026-06-08", 4567),
    ("2026-06-18", 4633), ("2026-06-29", 4672), ("2026-07-09", 4704), ("2026-07-22", 4738), ("2026-08-01", 4772),
    ("2026-08-11", 4819),
)  # fmt: skip

#: Vision encoders that are built as Qwen3-VL's, by the start of their types.
_ENCODERS = ("qwen3_vl", "qwen3_5", "qwen3_6", "qwen3_8")
#: Slots of a server that was not told how many.
_AUTO_SLOTS = 4
#: Tokens of one text of a measurement of perplexity that was not told how many.
_TEXT = 512
#: A commit instead of a build: the date has to say.
_COMMIT = re.compile(r"(?=.*[a-f])[0-9a-f]{7,40}|[0-9a-f]{8,40}")
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
        answer = estimate(subject, machine, replace(settings, flash_attn="auto"))
        if not answer.details["flash_attn"]:
            return answer
    return estimate(subject, machine, settings)


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


def builds_of(case: Case) -> tuple[str, str, str]:
    """The build of a case: stated, or the first, middle and last that its date allows."""
    stated = str(case.fields.get("engine_version") or "")
    if stated and not _COMMIT.fullmatch(stated):
        return (stated,) * 3
    binding = _BINDING.fullmatch(str(case.fields.get("framework") or ""))
    if binding is not None:
        return (f"b{build_inside('llama-cpp-python', binding[1])}",) * 3
    known = _IK_BUILDS if case.engine == "ik_llama.cpp" else _BUILDS
    found = [_build_on(day, known) for day in days_of(str(case.fields.get("date") or "2025"), known[-1][0])]
    if case.engine == "llama.cpp":
        for line, oldest, newest in _LINES:
            if line in case.measured:
                found = [min(max(build, oldest), newest) for build in found]
        for setting, oldest in _SINCE:
            if case.settings.get(setting):
                found = [max(build, oldest) for build in found]
    first, middle, last = (f"b{build}" for build in found)
    return first, middle, last


def days_of(stated: str, newest: str) -> tuple[str, str, str]:
    """First, middle and last day that a date allows (YYYY, YYYY-MM or a day), none after the newest that is known."""
    first = f"{stated}-01-01"[:10]
    last = f"{stated}{'-12-31' if len(stated) == 4 else '-28'}"[:10]
    last = max(first, min(last, newest))
    half = (date.fromisoformat(last) - date.fromisoformat(first)) // 2
    return first, (date.fromisoformat(first) + half).isoformat(), last


def _build_on(day: str, known: tuple[tuple[str, int], ...]) -> int:
    """The newest of the known builds on a day."""
    before = [build for published, build in known if published <= day]
    return before[-1] if before else known[0][1]


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
