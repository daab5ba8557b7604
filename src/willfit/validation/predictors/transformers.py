"""Predictions for cases of kind `generate`: transformers, and LitGPT's loop over preallocated caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.transformers import Settings, estimate
from willfit.estimate import Estimate
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

#: A short prompt is a sentence: one to 64 tokens.
_SHORT_PROMPT = (1, 16, 64)

_QUANTIZED = {
    ("gptq", 4): "gptq-int4", ("gptq", 8): "gptq-int8", ("awq", 4): "awq", ("nf4", 4): "nf4",
    ("fp4", 4): "fp4", ("bitsandbytes", None): "fp4", ("int8", 8): "bnb-int8", ("bnb_4bit", 4): "nf4",
    ("fp8", 8): "fp8-block", ("chatglm_int", 8): "chatglm-int8", ("chatglm_int", 4): "chatglm-int4",
}  # fmt: skip


def predict(case: Case) -> dict[str, Any]:
    """Peak memory of a forward pass or a generate() call; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If the model, its format or the device is not known.
    """
    subject, machine = subject_of(case), machine_of(case)
    least = _least(case, subject)
    low, middle, high = (
        estimate(one, machine, settings)
        for one, settings in zip((least, subject, subject), settings_of(case), strict=True)
    )
    measured = case.measured
    summed = case.fields.get("measured_scope") == "sum_over_gpus"
    found: dict[str, Any] = {}
    for key, counter in (
        ("peak_allocated_gib", "allocated"),
        ("peak_reserved_gib", "reserved"),
        ("nvidia_smi_gib", "process"),
        ("peak_unknown_counter_gib", "reserved"),
    ):
        if key in measured:
            found[key] = _figure(low, middle, high, machine, counter, summed)
    for index in range(len(machine.devices)):
        if f"gpu{index}_gib" in measured:
            found[f"gpu{index}_gib"] = _of_device(low, middle, high, index, "allocated", 0)
    if "host_ram_gib" in measured:
        interval = middle.host.interval_bytes
        found["host_ram_gib"] = Prediction(middle.host.peak_bytes / GIB, interval[0] / GIB, interval[1] / GIB)
    if case.fields.get("ambiguous"):
        # Which counter was read is not known: most sources read what torch holds or the driver shows.
        reserved = _figure(low, middle, high, machine, "reserved", summed)
        process = _figure(low, middle, high, machine, "process", summed)
        found["ambiguous_gib"] = replace(reserved, high=max(reserved.high, process.high))
    if "fits" in measured:
        found["fits"] = 1.0 if middle.probability is None else middle.probability
    return found


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
    recipe = _recipe(case, config, architecture.dtype)
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


def _recipe(case: Case, config: Config, dtype: str) -> Recipe:
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
    return recipe_named(name, dtype)


def machine_of(case: Case) -> Machine:
    """The case's devices; one that is not named has no known size."""
    gpu, count = case.fields.get("gpu"), int(case.fields.get("n_gpus") or 1)
    device = find_device(gpu) if isinstance(gpu, str) else Device("unknown")
    if case.engine == "litgpt":
        count = 1
    return Machine((device,) * count)


def settings_of(case: Case) -> tuple[Settings, Settings, Settings]:
    """The case's settings with the shortest, the likely and the longest prompt."""
    given = case.settings
    litgpt = case.engine == "litgpt"
    prompts = _SHORT_PROMPT if given.get("short_prompt") else (int(given.get("input_len", 1)),) * 3
    dtype = given.get("dtype")
    settings = Settings(
        version=_PLAIN_LOOP if litgpt else str(case.fields.get("engine_version") or _release(case)),
        dtype=dtype_name(dtype) if dtype else "auto",
        batch=int(given.get("batch", 1)),
        input_len=prompts[1],
        output_len=_new_tokens(case),
        attn_impl=given.get("attn_impl"),
        cache="static" if litgpt else "dynamic",
        phase=given.get("phase", "generate"),
        tensor_parallel=int(given.get("tensor_parallel", 1)),
        offload=bool(given.get("offload")),
        device_map="sequential" if str(case.fields.get("date")) < _BALANCED_SINCE else "auto",
        quantization_kernel=(given.get("quantization") or {}).get("kernel") or _bitsandbytes(case),
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


def _bitsandbytes(case: Case) -> str | None:
    """The kernel of bitsandbytes up to 0.42, which LitGPT pinned."""
    return "bitsandbytes-0.42" if case.engine == "litgpt" else None


def _release(case: Case) -> str:
    date = str(case.fields.get("date", ""))
    return next((version for month, version in reversed(_RELEASES) if date >= month), "5.0.0")


def _figure(
    low: Estimate, middle: Estimate, high: Estimate, machine: Machine, counter: str, summed: bool
) -> Prediction:
    """The counter summed over devices, or of the fullest one."""
    hidden = [hidden_bytes(device) if counter == "process" else 0 for device in machine.devices]
    parts = [_of_device(low, middle, high, index, counter, extra) for index, extra in enumerate(hidden)]
    if not summed:
        return max(parts, key=lambda part: part.value)
    return Prediction(
        sum(part.value for part in parts), sum(part.low for part in parts), sum(part.high for part in parts)
    )


def hidden_bytes(device: Device) -> int:
    """What the driver keeps of the card, which its tool counts as used."""
    return max((device.reported_bytes or 0) - (device.usable_bytes or 0), 0) if device.reported_bytes else 0


def _of_device(
    low: Estimate, middle: Estimate, high: Estimate, index: int, counter: str, extra: int
) -> Prediction:
    figures = [one.details["devices"][index][counter] for one in (low, middle, high)]
    return Prediction(
        (figures[1][0] + extra) / GIB, (figures[0][1] + extra) / GIB, (figures[2][2] + extra) / GIB
    )
