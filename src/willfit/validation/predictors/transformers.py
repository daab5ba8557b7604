"""Predictions for cases of kind `generate`: transformers, and LitGPT's loop over preallocated caches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Tensor
from willfit.calibration import constant
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.transformers import Settings, estimate
from willfit.engines.transformers.host import resident_files
from willfit.engines.transformers.plan import plan
from willfit.engines.transformers.readings import Reading, readings
from willfit.estimate import Estimate, combined
from willfit.formats.base import Format
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.formats.weights import weight_lines
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB, dtype_name
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Unpredictable

#: Version that a source most likely used, by the year and month in which it was published: the newest then.
_RELEASES = (
    ("2022-12", "4.25.1"), ("2023-06", "4.30.2"), ("2023-09", "4.33.3"), ("2023-12", "4.36.2"),
    ("2024-03", "4.38.2"), ("2024-06", "4.41.2"), ("2024-09", "4.44.2"), ("2024-12", "4.47.1"),
    ("2025-04", "4.51.3"), ("2025-08", "4.55.4"), ("2025-12", "4.57.3"),
)  # fmt: skip

#: accelerate 0.9 (2022-05) brought balanced device maps; tables of the year it came out are older.
_BALANCED_SINCE = "2023"

#: LitGPT neither warms up the allocator nor keeps tables or prompt logits: a version that does neither.
_PLAIN_LOOP = "4.49.0"

#: Figures that need the allocator's replay.
_READ = frozenset(("peak_reserved_gib", "nvidia_smi_gib", "peak_unknown_counter_gib"))

#: AutoAWQ 0.2 and with it kernels that expand (2024-01); fused layers of a benchmark have room for the answer alone.
_AUTOAWQ_EXPANDS = "2024-01"

#: Checkpoints in safetensors were usual from this month on.
_SAFETENSORS_SINCE = "2023-03"

#: A short prompt is a sentence: one to 64 tokens.
_SHORT_PROMPT = (1, 16, 64)

_QUANTIZED = {
    ("gptq", 4): "gptq-int4", ("gptq", 8): "gptq-int8", ("awq", 4): "awq", ("nf4", 4): "nf4",
    ("fp4", 4): "fp4", ("bitsandbytes", None): "fp4", ("int8", 8): "bnb-int8", ("bnb_4bit", 4): "nf4",
    ("fp8", 8): "fp8-block", ("fbgemm_fp8", 8): "fbgemm-fp8", ("torchao", 4): "torchao-int4", ("aqlm", 2): "aqlm",
    ("gptq", 2): "gptq-int2", ("chatglm_int", 8): "chatglm-int8", ("chatglm_int", 4): "chatglm-int4",
}  # fmt: skip


def predict(case: Case) -> dict[str, Any]:
    """Peak memory of a forward pass or a generate() call; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If the model, its format or the device is not known.
    """
    subject, machine = subject_of(case), machine_of(case)
    asked = settings_of(case)
    measured = case.measured
    summed = case.fields.get("measured_scope") == "sum_over_gpus"
    smallest = _least(case, subject)
    least, middle, most = (
        estimate(one, machine, each) for one, each in zip((smallest, subject, subject), asked, strict=True)
    )
    found: dict[str, Any] = {}
    if "peak_allocated_gib" in measured:
        found["peak_allocated_gib"] = _allocated(least, middle, most, summed)
    if _READ & measured.keys() or case.fields.get("ambiguous"):
        likely = readings(subject, machine, asked[1])
        shown = _Shown(
            likely if smallest is subject and asked[0] == asked[1] else readings(smallest, machine, asked[0]),
            likely,
            likely if asked[2] == asked[1] else readings(subject, machine, asked[2]),
        )
        for key, counter in _counters(case).items():
            if key in measured:
                found[key] = _raised(shown.figure(counter, summed), _earlier_pass(case, middle))
        if case.fields.get("ambiguous"):
            found["ambiguous_gib"] = _ambiguous(case, shown, summed)
    for index in range(len(machine.devices)):
        if f"gpu{index}_gib" in measured:
            found[f"gpu{index}_gib"] = _hull(
                [one.details["devices"][index]["allocated"] for one in (least, middle, most)]
            )
    if "host_ram_gib" in measured:
        found["host_ram_gib"] = _host(case, subject, machine, asked[1], middle)
    if "fits" in measured:
        found["fits"] = 1.0 if middle.probability is None else middle.probability
    return found


@dataclass(frozen=True, slots=True)
class _Shown:
    """Counters with the shortest, the likely and the longest prompt."""

    low: tuple[Reading, ...]
    middle: tuple[Reading, ...]
    high: tuple[Reading, ...]

    def figure(self, counter: str, summed: bool) -> Prediction:
        """A counter summed over devices, or of the fullest one."""
        parts = [
            _hull([_counted(one, counter) for one in each])
            for each in zip(self.low, self.middle, self.high, strict=True)
        ]
        return _together(parts, summed)


def shown_gib(case: Case, seen: tuple[Reading, ...]) -> float:
    """What a case's figure of the driver is expected to be, in GiB, if these are the counters."""
    summed = case.fields.get("measured_scope") == "sum_over_gpus"
    figure = _Shown(seen, seen, seen).figure(_counters(case)["nvidia_smi_gib"], summed)
    middle = estimate(subject_of(case), machine_of(case), settings_of(case)[1])
    return figure.value + _earlier_pass(case, middle)


def _raised(figure: Prediction, by: float) -> Prediction:
    return Prediction(figure.value + by, figure.low + by, figure.high + by)


def _earlier_pass(case: Case, middle: Estimate) -> float:
    """GiB of the output of the pass before, which optimum-benchmark's first script held while the next one ran.

    That script printed the driver's figure alone. The output is the cache and the logits of the whole prompt.
    """
    first = case.fields.get("framework") == "optimum-benchmark" and "peak_reserved_gib" not in case.measured
    if not first or case.settings.get("phase") != "prefill":
        return 0.0
    terms = {term.name: term.bytes for term in middle.devices[0].terms}
    rows = int(case.settings["batch"]) * int(case.settings["input_len"])
    logits = rows * int(middle.details["logits_per_row"]) * 4
    return (terms.get("kv_cache", 0) + logits) / GIB


def _counters(case: Case) -> dict[str, str]:
    """Which counter each figure is of, by how the framework's script measures.

    optimum's `benchmark_gptq.py` adds what the driver shows beyond torch's reserved peak to the allocated peak;
    optimum-benchmark asks the driver once the call is over.
    """
    driver = {"optimum": "allocated_outside", "optimum-benchmark": "process_after"}
    return {
        "peak_reserved_gib": "reserved",
        "nvidia_smi_gib": driver.get(str(case.fields.get("framework")), "process"),
        "peak_unknown_counter_gib": "allocated",
    }


def _ambiguous(case: Case, shown: _Shown, summed: bool) -> Prediction:
    """A figure whose counter the source does not name: from torch's allocated peak to what the driver shows.

    Most sources read what torch holds or the driver shows. AutoAWQ's script reads the allocated peak, as Qwen's later
    tables do, and what is needed at least is what is allocated.
    """
    allocated, process = shown.figure("allocated", summed), shown.figure("process", summed)
    source, what = str(case.fields.get("source")), case.fields["ambiguous"].get("what")
    inside = (
        case.fields.get("framework") == "autoawq"
        or source.startswith("QwenLM/")
        or what == "minimum_required"
    )
    likely = allocated if inside else shown.figure("reserved", summed)
    least = allocated.value * constant("transformers.allocated_ratio").low
    return replace(likely, low=min(likely.low, allocated.low, least), high=max(likely.high, process.high))


def _counted(reading: Reading, counter: str) -> tuple[int, int, int]:
    if counter != "allocated_outside":
        interval: tuple[int, int, int] = getattr(reading, counter)
        return interval
    inside, outside = reading.allocated, reading.outside
    return inside[0] + outside[0], inside[1] + outside[1], inside[2] + outside[2]


def _allocated(low: Estimate, middle: Estimate, high: Estimate, summed: bool) -> Prediction:
    """torch's allocated peak summed over devices, or of the fullest one."""
    details = [[device["allocated"] for device in one.details["devices"]] for one in (low, middle, high)]
    return _together([_hull(list(each)) for each in zip(*details, strict=True)], summed)


def _together(parts: list[Prediction], summed: bool) -> Prediction:
    if not summed:
        return max(parts, key=lambda part: part.value)
    return Prediction(
        sum(part.value for part in parts), sum(part.low for part in parts), sum(part.high for part in parts)
    )


def _hull(figures: list[tuple[int, int, int]]) -> Prediction:
    """The likely one of three figures, from the least end of the first to the greatest of the last, in GiB."""
    return Prediction(figures[1][0] / GIB, figures[0][1] / GIB, figures[2][2] / GIB)


def _host(case: Case, subject: Subject, machine: Machine, settings: Settings, middle: Estimate) -> Prediction:
    """Host RAM: what a device map leaves there, or all that the process holds, pages of mapped files included."""
    if case.settings.get("offload"):
        placed = [term for term in middle.host.terms if term.name == "offloaded_weights"]
        placed = placed or [term for term in middle.host.page_cache if term.name == "files"]
        size, low, high = combined(placed)
        return Prediction(size / GIB, low / GIB, high / GIB)
    pages = resident_files(plan(subject, machine, settings)) if settings.phase == "load" else 0
    low, high = middle.host.interval_bytes
    return Prediction((middle.host.peak_bytes + pages) / GIB, low / GIB, (high + pages) / GIB)


def subject_of(case: Case) -> Subject:
    """The case's model with its weights as they were stored.

    Raises
    ------
    Unpredictable
        If the catalogue does not have it, or its format is not known.
    """
    name = case.fields.get("catalogue")
    entry = find(name) if name else None
    if entry is None:
        raise Unpredictable(f"{case.fields.get('model')}: no config of this architecture is known")
    fields = {**entry.config, **(case.fields.get("model_overrides") or {})}
    config = Config(fields, entry.id)
    architecture = build(config)
    recipe = _recipe(case, config, architecture)
    if case.engine == "litgpt":
        architecture, recipe = _as_litgpt(case, architecture, recipe)
    return Subject(str(case.fields.get("model")), architecture, recipe, weight_lines(architecture, recipe))


def _as_litgpt(case: Case, architecture: Architecture, recipe: Recipe) -> tuple[Architecture, Recipe]:
    """What LitGPT does otherwise: the first device has embedding, head and its even share of the layers
    (`litgpt/generate/sequentially.py`), tensor parallelism leaves embedding and head whole
    (`generate/tp.py`), the head is quantized too and never shared.
    """
    stages = int(case.settings.get("pipeline_parallel", 1))
    layers = architecture.layers[: -(-len(architecture.layers) // stages)]
    head = architecture.head
    if architecture.tied:
        table = architecture.embeddings[0]
        head = (*head, replace(table, name="lm_head.weight", part="head", kind="linear"))
    whole = [
        tuple(replace(tensor, split=None) for tensor in part) for part in (architecture.embeddings, head)
    ]
    architecture = replace(architecture, layers=layers, embeddings=whole[0], head=whole[1], tied=False)
    rule = recipe.rule
    if rule is None:
        return architecture, recipe

    def with_head(name: str, tensor: Tensor) -> Format | None:
        if tensor.part == "head" and tensor.kind == "linear":
            name, tensor = "model.layers.0.mlp.up_proj.weight", replace(tensor, part="mlp")
        return rule(name, tensor)

    return architecture, replace(recipe, rule=with_head)


def _least(case: Case, subject: Subject) -> Subject:
    """The subject in the smallest format that the case leaves possible: GPTQ without groups."""
    quantization = case.settings.get("quantization") or {}
    entry = find(str(case.fields.get("catalogue")))
    stated = "group_size" in quantization or (entry is not None and "quantization_config" in entry.config)
    if quantization.get("method") != "gptq" or stated:
        return subject
    fields = {"quant_method": "gptq", "bits": quantization.get("bits"), "group_size": -1}
    config = Config({"quantization_config": fields}, case.id)
    recipe = recipe_for(config, subject.architecture.dtype)
    return replace(subject, recipe=recipe, lines=weight_lines(subject.architecture, recipe))


def _recipe(case: Case, config: Config, architecture: Architecture) -> Recipe:
    dtype = architecture.dtype
    quantization = case.settings.get("quantization")
    if not quantization:
        return Recipe(dtype, Plain(dtype))
    stored = config.section("quantization_config")
    if stored is not None:
        return recipe_for(config, dtype)
    method, bits = quantization.get("method"), quantization.get("bits")
    name = _QUANTIZED.get((method, bits))
    if name is None:
        raise Unpredictable(f"the format of {method} with {bits} bits is not known")
    if name == "nf4" and quantization.get("double_quant"):
        name = "nf4-double"
    return recipe_named(name, dtype, architecture)


def machine_of(case: Case) -> Machine:
    """The case's devices; one that is not named has no known size."""
    gpu, count = case.fields.get("gpu"), int(case.fields.get("n_gpus") or 1)
    device = find_device(gpu) if isinstance(gpu, str) else Device("unknown")
    if case.engine == "litgpt":
        count = 1
    ram = case.settings.get("host_total_gib")
    return Machine((device,) * count, int(ram * GIB) if ram else None)


def settings_of(case: Case) -> tuple[Settings, Settings, Settings]:
    """The case's settings with the shortest, the likely and the longest prompt."""
    given = case.settings
    litgpt, autoawq = case.engine == "litgpt", case.fields.get("framework") == "autoawq"
    prompts = _SHORT_PROMPT if given.get("short_prompt") else (int(given.get("input_len", 1)),) * 3
    dtype = given.get("dtype")
    settings = Settings(
        version=_PLAIN_LOOP if litgpt else str(case.fields.get("engine_version") or _release(case)),
        dtype=dtype_name(dtype) if dtype else "auto",
        batch=int(given.get("batch", 1)),
        input_len=prompts[1],
        output_len=_new_tokens(case),
        attn_impl=given.get("attn_impl"),
        cache="static" if litgpt else given.get("cache_implementation", "dynamic"),
        cache_len=_new_tokens(case) if autoawq and given.get("fused_modules") else None,
        phase=given.get("phase", "generate"),
        loading=case.fields.get("framework") != "optimum-benchmark",
        tensor_parallel=int(given.get("tensor_parallel", 1)),
        offload=bool(given.get("offload")),
        device_map="sequential" if str(case.fields.get("date")) < _BALANCED_SINCE else "auto",
        quantization_kernel=_kernel(case),
        mapped_files=str(case.fields.get("date")) >= _SAFETENSORS_SINCE,
        fused_modules=bool(given.get("fused_modules")),
        autocast="autocast" in given,
    )
    low, middle, high = (replace(settings, input_len=length) for length in prompts)
    return low, middle, high


def _new_tokens(case: Case) -> int:
    """New tokens, or as many as LitGPT's pipeline has cache for: the whole context (`sequentially.py`)."""
    given = case.settings
    entry = find(str(case.fields.get("catalogue"))) if "pipeline_parallel" in given else None
    if entry is not None and case.engine == "litgpt":
        return int(entry.config["max_position_embeddings"]) - _SHORT_PROMPT[-1]
    return int(given.get("output_len", 50 if given.get("short_prompt") else 1))


def _kernel(case: Case) -> str | None:
    """The kernel that a case names; else bitsandbytes up to 0.42, which LitGPT pinned, or AutoAWQ's of the time."""
    quantization = case.settings.get("quantization") or {}
    if case.engine == "litgpt":
        return "bitsandbytes-0.42"
    early = quantization.get("method") == "awq" and str(case.fields.get("date")) < _AUTOAWQ_EXPANDS
    named: str | None = quantization.get("kernel")
    return "autoawq-0.1" if early else named


def _release(case: Case) -> str:
    date = str(case.fields.get("date", ""))
    return next((version for month, version in reversed(_RELEASES) if date >= month), _RELEASES[0][1])
