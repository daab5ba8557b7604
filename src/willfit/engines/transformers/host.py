"""Host RAM of loading and of what no device has room for.

Files in safetensors are mapped: their pages are the kernel's, which drops them where something else needs the room.
What is copied, converted or read by other means is the process's own. `modeling_utils.py: load_state_dict`,
`core_model_loading.py`, accelerate `utils/modeling.py: set_module_tensor_to_device`.
"""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.base import Machine
from willfit.engines.transformers.plan import Plan
from willfit.engines.transformers.sources import SOURCES
from willfit.estimate import DeviceEstimate, Term, between, exact
from willfit.quantities import DTYPE_BYTES, GB

#: How many tensors `core_model_loading.py` reads ahead.
_LOADERS = 4

#: The largest file that `save_pretrained` writes by default up to 4.57, which most checkpoints follow.
SHARD_BYTES = 5 * GB


def host_estimate(plan: Plan, machine: Machine) -> DeviceEstimate:
    """What the process takes of the host's RAM at most, and which files it maps."""
    run = plan.run
    loaded, settings, version = run.loaded, run.settings, run.settings.version
    process = constant("transformers.host_process")
    terms = [
        between(
            "process",
            int(process.value),
            int(process.low),
            int(process.high),
            f"{int(process.value)} B of Python, torch and the host's side of CUDA",
            process.reference,
        )
    ]
    mapped = settings.mapped_files or run.era.maps_torch_files
    files = run.subject.weight_bytes
    pages = [exact("files", files, f"{files} B of files, mapped", SOURCES.cite("state_dict", version))]
    if not plan.places or settings.device_map is None:
        terms += _built(plan, mapped)
    elif settings.loading:
        # A tensor that is copied to its device as it is comes straight from the mapped file.
        staged = 0 if mapped and _kept_as_stored(plan) else loaded.largest
        terms.append(
            between(
                "staging",
                staged,
                0,
                _LOADERS * loaded.largest,
                f"{staged} B of the largest tensor, if it is converted; up to {_LOADERS} are on their way",
                SOURCES.cite("staging", version),
            )
        )
        if not mapped:
            shard = min(files, SHARD_BYTES)
            terms.append(
                between(
                    "file",
                    shard,
                    0,
                    files,
                    f"{shard} B of one file of the checkpoint, read into RAM",
                    SOURCES.cite("state_dict", version),
                )
            )
    offloaded = plan.in_ram.weights(loaded)
    if offloaded and not (mapped and _kept_as_stored(plan)):
        # What is free, on the devices and in RAM, is not known to a layer.
        guessed = sum(place.guessed for place in plan.places)
        block = loaded.layer // max(loaded.layers, 1) if plan.on_disk.layers else 0
        terms.append(
            between(
                "offloaded_weights",
                offloaded,
                offloaded - block,
                offloaded + guessed,
                f"{offloaded} B of {plan.in_ram.layers} layers",
                "accelerate big_modeling.py: dispatch_model",
            )
        )
    if settings.cache.startswith("offloaded") and settings.phase == "generate":
        tokens = run.last_tokens
        if settings.cache == "offloaded_static":
            tokens = settings.cache_len or run.first_tokens + settings.output_len
        elements = settings.batch * settings.threads * run.kept(tokens, True).elements
        terms.append(
            exact(
                "offloaded_cache",
                elements * run.width,
                f"{elements} elements of all layers of the cache x {run.width} B",
                SOURCES.cite("cache", version),
            )
        )
    return DeviceEstimate(
        "host", 0, machine.host_bytes, tuple(terms), page_cache=tuple(pages) if mapped else ()
    )


def resident_files(plan: Plan) -> int:
    """Bytes of mapped files that count as the process's at most: the largest one, and what stays in RAM of them."""
    settings = plan.run.settings
    if not (settings.mapped_files or plan.run.era.maps_torch_files):
        return 0
    shard = min(plan.run.subject.weight_bytes, SHARD_BYTES)
    kept = plan.in_ram.weights(plan.run.loaded) if _kept_as_stored(plan) else 0
    return max(shard, kept)


def _kept_as_stored(plan: Plan) -> bool:
    """Whether parameters in RAM stay what the files have, so that no copy is made."""
    run = plan.run
    same = DTYPE_BYTES[run.subject.architecture.dtype] == DTYPE_BYTES[run.dtype]
    return same and not run.subject.recipe.named and not plan.dequantized


def _built(plan: Plan, mapped: bool) -> list[Term]:
    """A model that is loaded into RAM, and then moved to a device."""
    run = plan.run
    settings, era, total = run.settings, run.era, run.loaded.total
    cited = SOURCES.cite("weights", settings.version)
    built = era.builds_in_ram and settings.low_cpu_mem_usage is not True
    if not built and mapped and _kept_as_stored(plan):
        return [exact("weights", 0, "0 B: the parameters are views of mapped files", cited)]
    terms = [
        exact("weights", total, f"{total} B of the whole model in {run.dtype}, before it is moved", cited)
    ]
    if built and not mapped:
        size = run.subject.weight_bytes
        shard = min(size, SHARD_BYTES)
        text = f"{shard} B of one file of the checkpoint, beside the model that it is copied into"
        terms.append(between("file", shard, shard, size, text, SOURCES.cite("state_dict", settings.version)))
    return terms
