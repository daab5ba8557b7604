"""Writing `llama-server -m FILE ...`."""

from __future__ import annotations

from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_of
from willfit.engines.llama_cpp.settings import Settings
from willfit.errors import BadInput
from willfit.launch.flags import flag_table, lacks
from willfit.launch.llama_settings import LOADING
from willfit.launch.writing.models import gguf_name
from willfit.launch.writing.rows import Row, checked, flags_of, require_written, term_bytes
from willfit.launch.writing.written import Flag, Order, Written
from willfit.quantities import format_bytes

#: Since this build `-ngl` takes `all` and `auto`; before, a number above that of the layers is all.
_WORDS_SINCE = 7600
_MANY = "999"

_PROGRAMS = {"server": "llama-server", "cli": "llama-cli"}

_ROWS = (
    Row("kv_unified", "-kvu", "whether all sequences share one cache", off="-no-kvu"),
    Row("n_batch", "-b", "at most {value} tokens in a batch"),
    Row("n_ubatch", "-ub", "{value} tokens are computed at once: the compute buffer grows with them"),
    Row("flash_attn", "-fa", "attention without a matrix of scores"),
    Row("cache_type_k", "-ctk", "keys in the cache as {value}"),
    Row("cache_type_v", "-ctv", "values in the cache as {value}"),
    Row("cpu_moe", "-cmoe", "the experts of all layers stay in host RAM"),
    Row("split_mode", "-sm", "how the model is divided over devices"),
    Row("main_gpu", "-mg", "the device with what is not divided"),
    Row("tensor_split", "-ts", "the devices' shares"),
    Row("kv_offload", "", "the cache stays in host RAM", off="-nkvo"),
    Row("op_offload", "", "large products with weights in RAM run on the processor", off="--no-op-offload"),
    Row("swa_full", "--swa-full", "window layers keep whole sequences"),
    Row("repack", "", "weights in RAM stay as they are", off="--no-repack"),
    Row("no_host", "--no-host", "weights in RAM are not pinned"),
    Row("fit_ctx", "-fitc", "the least context that may be made of what is open"),
    Row("embeddings", "--embedding", "vectors instead of text"),
    Row("reranking", "--rerank", "scores instead of text"),
    Row("ctx_checkpoints", "-ctxcp", "saved states of a slot"),
    Row("cache_ram_mib", "-cram", "MiB of host RAM for saved prompts"),
    Row("n_threads", "-t", "threads"),
)

_WRITTEN = {
    "program", "fork", "version", "backend", "n_ctx", "n_parallel", "n_gpu_layers", "n_cpu_moe", "override_tensor",
    "fit", "fit_target_mib", "mmap", "mlock", "direct_io", *(row.field for row in _ROWS),
}  # fmt: skip


def write(order: Order) -> Written:
    """The command that starts llama.cpp's server with such settings.

    Raises
    ------
    BadInput
        For settings that no flag of that build stands for.
    """
    settings: Settings = order.settings
    require_written(settings, Settings(), _WRITTEN, "llama.cpp")
    program = _PROGRAMS.get(settings.program)
    if program is None or settings.fork != "llama.cpp":
        raise BadInput(f"no command is written for llama.cpp's {settings.program}", "ask about its server")
    build = build_of(settings.version)
    named = gguf_name(order, "llama.cpp")
    model = ("-m", named.path) if named.path else ("-hf", f"{named.repository}:{named.tag}")
    flags = [*_places(order, build), *_sequences(order)]
    flags += flags_of(settings, Settings(), _ROWS, order.estimate)
    table = flag_table("llamacpp_flags.txt").of_program(settings.program)
    flags += _fitting(settings)
    flags += _loading(settings, not lacks(table.flags["--load-mode"], table.versions, f"b{build}"))
    projectors = not lacks(table.flags["--mmproj-auto"], table.versions, f"b{build}")
    if named.repository and projectors:
        flags.append(Flag(("--no-mmproj",), "an encoder of images in the repository is not counted"))
    return Written(
        "llama.cpp",
        settings.version or f"b{NEWEST_BUILD}",
        (program, *model),
        checked(flags, table, f"b{build}", "llama.cpp"),
        notes=named.notes,
    )


def _sequences(order: Order) -> list[Flag]:
    """The context of all slots, and how many there are."""
    settings: Settings = order.settings
    found = []
    slots = settings.n_parallel
    if settings.n_ctx is not None:
        cache = format_bytes(term_bytes(order.estimate, "kv_cache"))
        each = f"{slots} of {settings.n_ctx // slots:,} tokens each: " if slots and slots > 1 else ""
        reason = f"tokens of all slots together; {each}{cache} of cache on a device"
        found.append(Flag(("-c", str(settings.n_ctx)), reason))
    if slots is not None:
        found.append(
            Flag(
                ("-np", str(slots)),
                f"sequences at once: {slots} slots" if slots > 1 else "one sequence at a time",
            )
        )
    return found


def _places(order: Order, build: int) -> list[Flag]:
    """What lies on devices, and what stays in host RAM."""
    settings: Settings = order.settings
    found = []
    layers = settings.n_gpu_layers
    weights = format_bytes(term_bytes(order.estimate, "weights"))
    if layers is not None:
        whole = layers == "all" or (isinstance(layers, int) and layers < 0)
        text = str(layers)
        if layers == "auto" and build < _WORDS_SINCE:
            raise BadInput(f"llama.cpp b{build} does not choose the layers itself", "say how many")
        if whole:
            text = "all" if build >= _WORDS_SINCE else _MANY
        placed = "all layers" if whole else f"{layers} layers, from the last, with the output as one more,"
        found.append(Flag(("-ngl", text), f"{placed} on the devices: {weights} of weights on the fullest"))
    if settings.n_cpu_moe:
        held = f"the experts of the first {settings.n_cpu_moe} layers stay in host RAM"
        found.append(Flag(("--n-cpu-moe", str(settings.n_cpu_moe)), held))
    for pattern, buffer in settings.override_tensor:
        found.append(Flag(("-ot", f"{pattern}={buffer}"), f"tensors of that name in {buffer}"))
    return found


def _fitting(settings: Settings) -> list[Flag]:
    found = []
    if settings.fit is not None:
        found.append(Flag(("-fit", "on" if settings.fit else "off"), "whether what is open is made to fit"))
    if settings.fit_target_mib:
        left = ",".join(map(str, settings.fit_target_mib))
        found.append(Flag(("-fitt", left), "MiB that are left free on each device"))
    return found


def _loading(settings: Settings, modes: bool) -> list[Flag]:
    """How the file is read: a mode, or in older builds a flag for each of its parts."""
    asked = {"mmap": settings.mmap, "mlock": settings.mlock, "direct_io": settings.direct_io}
    reason = "how the file is read: mapped, pinned into RAM, or past the page cache"
    if asked == {"mmap": None, "mlock": False, "direct_io": False}:
        return []
    if modes:
        usual = {"mmap": None, "mlock": False, "direct_io": False}
        mode = next((name for name, one in LOADING.items() if {**usual, **one} == asked), None)
        if mode is None:
            raise BadInput("llama.cpp has no mode of loading for these settings", "leave mmap open")
        return [Flag(("-lm", mode), reason)]
    found = [] if settings.mmap is None else [Flag(("--mmap" if settings.mmap else "--no-mmap",), reason)]
    found += [Flag(("--mlock",), reason)] if settings.mlock else []
    return found + ([Flag(("--direct-io",), reason)] if settings.direct_io else [])
