"""LitGPT: its own model code, scripts and quantization plugin, by date.

What changed, with the commit's date (Lightning-AI/litgpt): RMS norms in float32 (2023-10-24), normed values cast before
the product with the weight (2024-02-23), the weight in float32 as well (2024-07-23); batches in the order of a loader,
no longer the longest first (2024-02-29); LoRA's padding in place (2024-05-06); queries, keys and values behind each
other in the fused matrix (2024-12-26). Indices of adapted rows are made in each pass before 2024-04-29 and again from
2026-04-07; blocks name and add their parts otherwise from 2024-12-24.
"""

from __future__ import annotations

import re
from dataclasses import replace

from willfit.architectures.mixers import Attention, Recurrent
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.modelling.litgpt.code import PROMPT_FROM, PROMPT_LENGTH, Code
from willfit.training.modelling.litgpt.linear import INDEX_BYTES
from willfit.training.modelling.litgpt.model import as_litgpt, is_dense
from willfit.training.modelling.roles import roles_of
from willfit.training.run import Habits, Run
from willfit.training.settings import AdapterSettings, PrecisionSettings, TrainingSettings
from willfit.training.sharding.base import Wrapping

#: Dates of releases from which something changed, and of commits that are cited as versions.
_RELEASES = (
    ("0.3.1", "2024-05-08"), ("0.4.0", "2024-06-10"), ("0.4.7", "2024-08-01"), ("0.4.13", "2024-09-27"),
    ("0.5.3", "2024-10-29"), ("0.5.5", "2025-01-08"), ("0.5.13", "2026-06-29"),
)  # fmt: skip
_COMMITS = {"8641822": "2023-10-16", "0f021f3a": "2024-01-18"}
_NEWEST = "2026-06-29"

#: Norms by the date from which they are so written, the newest first.
_NORMS = (("2024-07-23", "float"), ("2024-02-23", "cast"), ("2023-10-24", "wide"), ("", "narrow"))

#: bitsandbytes as LitGPT requires it (`pyproject.toml`), the newest first.
_BITSANDBYTES = (("2024-12-28", "0.45.2"), ("2024-03-15", "0.42.0"), ("", "0.41.0"))

#: From this version on products with 4-bit matrices keep no input (`bitsandbytes/autograd/_functions.py: MatMul4Bit`).
_KEEPS_NO_INPUT = (0, 43, 2)

#: Bytes of cosine and sine: float32, for as many positions as the longest sample has.
_ANGLE_BYTES = 2 * 4

_DEFAULT_TARGETS = ("qkv-fused:q,v",)


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what LitGPT's scripts do.

    Parameters
    ----------
    settings
        What was asked. The version is a release, a date or a known commit; `versions["bitsandbytes"]` and
        `versions["lightning-thunder"]` (its pretraining script) count as well.
    architecture
        The model as its checkpoint has it.
    """
    date = _date(settings.version or settings.versions.get("litgpt"))
    if any(isinstance(mixer, Recurrent) for layer in architecture.layers for mixer in layer.mixers):
        raise BadInput(
            f"LitGPT has no models with recurrent layers, as {architecture.model_type} has",
            "name another framework: -e transformers",
        )
    own = as_litgpt(architecture)
    adapter, added = settings.adapter, 0
    if adapter is not None:
        adapter, added = _adapter(adapter, own)
        settings = replace(settings, adapter=adapter)
    library = settings.versions.get("bitsandbytes") or _since(_BITSANDBYTES, date)
    thunder = "lightning-thunder" in settings.versions
    pretrains = thunder or settings.objective == "pretrain"
    precision = PrecisionSettings(weights="bf16", compute="bf16", autocast=False, master="none")
    length = settings.seq_len or own.max_positions
    rotated = own.ropes[0].dim if own.ropes else 0
    width = DTYPE_BYTES[settings.precision.weights or "bf16"]
    kind = adapter.kind if adapter else ""
    new_indices = date < "2024-04-29" or date >= "2026-04-07"
    habits = Habits(
        table_bytes=_ANGLE_BYTES * length * rotated
        + added * width
        + (0 if new_indices or adapter is None else _index_bytes(adapter, own)),
        keeps_quantized_input=parse_version(library) < _KEEPS_NO_INPUT,
        # Lightning quantizes from float16, whatever the compute dtype (`plugins/precision/bitsandbytes.py: quantize`).
        expands_twice=settings.quantization is not None and settings.precision.compute != "fp16",
        quantizes_head=True,
        # `finetune/full.py, lora.py: fabric.no_backward_sync`; units are blocks (`auto_wrap_policy={Block}`).
        postpones_sharing=True,
        wrapping=Wrapping(mixed=True),
        code=Code(
            norm=_since(_NORMS, date),
            interleaved=date < "2024-12-26",
            adds_early=date < "2023-10-24" or date >= "2024-12-24",
            renames=date >= "2024-12-24",
            pads_by_copy=date < "2024-05-06",
            new_indices=new_indices,
            prompts=kind.startswith("adapter"),
            scales=kind == "adapter_v2",
            whole_loss=thunder,
            pretrains=pretrains,
            longest_first=date < "2024-02-29" and not pretrains,
        ),
    )
    if thunder and settings.compile:
        # Thunder's buckets are made and dropped in its own program (`thunder/distributed/__init__.py: ddp`).
        settings = replace(settings, layout=replace(settings.layout, bucket_view=True))
    defaults = Defaults(
        precision,
        implementation="fused" if pretrains else "foreach",
        checkpointing="full" if (settings.layout.data or "").startswith("fsdp") and not pretrains else "none",
        loss="chunked-head" if adapter is not None else "chunked",
        seq_len=own.max_positions,
        adapter_dtype=settings.precision.weights or "bf16",
        # Padding carries no mask: what is padded comes last, and its targets are ignored.
        padded=False,
        varied=not pretrains,
        reentrant=False,
    )
    if not is_dense(own):
        habits = replace(habits, code=None)
    run = replace(fill(settings, defaults, habits), architecture=own)
    if habits.code is None:
        note = "layers of this kind run as transformers would run them: LitGPT's own code for them is not described"
        run = replace(run, assumed=(*run.assumed, note))
    return run


def _date(version: str | None) -> str:
    """The date of a version: the next release's where it lies between two of those known."""
    if not version:
        return _NEWEST
    if version[:7] in _COMMITS or version in _COMMITS:
        return _COMMITS.get(version) or _COMMITS[version[:7]]
    if re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", version):
        return version
    if not re.match(r"v?\d+\.\d+", version):
        raise BadInput(
            f"cannot tell how old LitGPT {version!r} is", "give a release (0.5.3) or a date (2024-04-26)"
        )
    release = parse_version(version)
    return next((date for name, date in _RELEASES if release <= parse_version(name)), _NEWEST)


def _since(table: tuple[tuple[str, str], ...], date: str) -> str:
    return next(value for since, value in table if since <= date)


def _adapter(adapter: AdapterSettings, architecture: Architecture) -> tuple[AdapterSettings, int]:
    """Targets by the checkpoint's names, and elements of prompts, gates, scales and biases."""
    layer = architecture.layers[0]
    if adapter.kind == "lora":
        targets = tuple(_named(adapter.targets or _DEFAULT_TARGETS, layer))
        return replace(adapter, targets=targets), 0
    if adapter.kind not in ("adapter", "adapter_v2"):
        raise BadInput(f"LitGPT has no adapter {adapter.kind!r}", "known: lora, adapter, adapter_v2")
    mixer = layer.mixers[0]
    assert isinstance(mixer, Attention)
    prompted = max(0, len(architecture.layers) - PROMPT_FROM)
    added = prompted * (PROMPT_LENGTH * architecture.hidden_size + mixer.heads)
    if adapter.kind == "adapter":
        return adapter, added
    for one in architecture.layers:
        added += sum(2 * tensor.shape[0] for tensor in one.tensors if tensor.kind == "linear")
    added += sum(2 * tensor.shape[0] for tensor in architecture.head if tensor.kind == "linear")
    norms = [t for t in (*layer.tensors, *architecture.head) if t.part == "norm"]
    names = tuple(dict.fromkeys(tensor.name.split(".")[-2] for tensor in norms))
    return replace(adapter, modules_to_save=names), added


def _named(targets: tuple[str, ...], layer: Layer) -> list[str]:
    """Modules of the checkpoint that LitGPT's switches mean (`lora_query`, `lora_projection`, ...)."""
    roles = roles_of(layer)
    attention = [tensor for tensor in roles.attention if tensor.kind == "linear"]
    names: list[str] = []
    if "all-linear" in targets:
        targets = ("qkv-fused:q,k,v", "proj", "mlp")
    for target in targets:
        if target.startswith("qkv-fused:"):
            for part in target.partition(":")[2].split(","):
                if part not in ("q", "k", "v"):
                    raise BadInput(
                        f"{target!r}: parts of the fused matrix are q, k and v, with commas between"
                    )
                names.append(_leaf(attention["qkv".index(part)]))
        elif target == "proj":
            names.append(_leaf(attention[-1]))
        elif target == "mlp":
            names.extend(_leaf(tensor) for tensor in roles.mlp if tensor.kind == "linear")
        elif target == "head":
            names.append("lm_head")
        else:
            raise BadInput(f"LitGPT adapts qkv-fused:q,k,v, proj, mlp and head, not {target!r}")
    return names


def _index_bytes(adapter: AdapterSettings, architecture: Architecture) -> int:
    """Bytes of the indices of adapted rows, where some of queries, keys and values are (`lora.py: lora_ind`)."""
    found = 0
    for layer in architecture.layers:
        inward = [t for t in roles_of(layer).attention if t.kind == "linear"][:-1]
        adapted = [tensor for tensor in inward if _leaf(tensor) in adapter.targets]
        if len(adapted) < len(inward):
            found += INDEX_BYTES * sum(tensor.shape[0] for tensor in adapted)
    return found


def _leaf(tensor: Tensor) -> str:
    return tensor.name.split(".")[-2]
