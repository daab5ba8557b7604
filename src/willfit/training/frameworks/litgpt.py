"""LitGPT: its own model code, scripts and quantization plugin, by date.

What changed, with the commit's date (Lightning-AI/litgpt): RMS norms in float32 (2023-10-24), normed values cast before
the product with the weight (2024-02-23), the weight in float32 as well (2024-07-23); batches in the order of a loader,
no longer the longest first (2024-02-29); LoRA's padding in place (2024-05-06); queries, keys and values behind each
other in the fused matrix (2024-12-26).
"""

from __future__ import annotations

import re
from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.modelling.litgpt.code import PROMPT_FROM, PROMPT_LENGTH, Code
from willfit.training.modelling.roles import roles_of
from willfit.training.run import Habits, Run
from willfit.training.settings import AdapterSettings, PrecisionSettings, TrainingSettings

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
    own = _as_litgpt(architecture)
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
    habits = Habits(
        table_bytes=_ANGLE_BYTES * length * rotated + added * width,
        keeps_quantized_input=parse_version(library) < _KEEPS_NO_INPUT,
        # Lightning quantizes from float16, whatever the compute dtype (`plugins/precision/bitsandbytes.py: quantize`).
        expands_twice=settings.quantization is not None and settings.precision.compute != "fp16",
        quantizes_head=True,
        code=Code(
            norm=_since(_NORMS, date),
            interleaved=date < "2024-12-26",
            pads_by_copy=date < "2024-05-06",
            prompts=kind.startswith("adapter"),
            scales=kind == "adapter_v2",
            whole_loss=thunder,
            pretrains=pretrains,
            longest_first=date < "2024-02-29" and not pretrains,
        ),
    )
    defaults = Defaults(
        precision,
        implementation="fused" if pretrains else "foreach",
        checkpointing="full" if (settings.layout.data or "").startswith("fsdp") and not pretrains else "none",
        loss="chunked-head" if adapter is not None else "chunked",
        seq_len=own.max_positions,
        adapter_dtype=settings.precision.weights or "bf16",
        # Padding carries no mask: what is padded comes last, and its targets are ignored.
        padded=False,
        reentrant=False,
    )
    return replace(fill(settings, defaults, habits), architecture=own)


def _date(version: str | None) -> str:
    """The date of a version: the next release's where it lies between two of those known."""
    if not version:
        return _NEWEST
    if version[:7] in _COMMITS or version in _COMMITS:
        return _COMMITS.get(version) or _COMMITS[version[:7]]
    if re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", version):
        return version
    if not re.match(r"v?\d+\.\d+", version):
        raise BadInput(f"cannot tell how old LitGPT {version!r} is", "give a release (0.5.3) or a date (2024-04-26)")
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
    for target in targets:
        if target.startswith("qkv-fused:"):
            for part in target.partition(":")[2].split(","):
                if part not in ("q", "k", "v"):
                    raise BadInput(f"{target!r}: parts of the fused matrix are q, k and v, with commas between")
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


def _leaf(tensor: Tensor) -> str:
    return tensor.name.split(".")[-2]


def _as_litgpt(architecture: Architecture) -> Architecture:
    """The model as LitGPT has it: a head of its own, and matrices by what they make.

    `litgpt/scripts/convert_hf_checkpoint.py` copies a tied head; `LLaMAMLP` has two matrices inwards.
    """
    known: dict[int, Layer] = {}
    for layer in architecture.layers:
        known.setdefault(id(layer), _split(layer))
    head = architecture.head
    if architecture.tied:
        table = next(tensor for tensor in architecture.embeddings if tensor.kind == "embedding")
        head = (*head, replace(table, name="lm_head.weight", part="head", kind="linear"))
    return replace(
        architecture, layers=tuple(known[id(layer)] for layer in architecture.layers), head=head, tied=False
    )


def _split(layer: Layer) -> Layer:
    mixer = layer.mixers[0] if layer.mixers else None
    if not isinstance(mixer, Attention):
        return layer
    query, key = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    roles = roles_of(layer)
    inward = [tensor for tensor in roles.attention if tensor.kind == "linear"]
    mlp = [tensor for tensor in roles.mlp if tensor.kind == "linear"]
    gated = layer.feed_forward is not None and layer.feed_forward.gated
    found: list[Tensor] = []
    for tensor in layer.tensors:
        if len(inward) == 2 and tensor is inward[0]:
            found.extend(_parts(tensor, {"q_proj": query, "k_proj": key, "v_proj": key}))
        elif gated and len(mlp) == 2 and tensor is mlp[0]:
            half = tensor.shape[0] // 2
            found.extend(_parts(tensor, {"gate_proj": half, "up_proj": half}))
        else:
            found.append(tensor)
    return replace(layer, tensors=tuple(found))


def _parts(tensor: Tensor, rows: dict[str, int]) -> list[Tensor]:
    parent = tensor.name.rsplit(".", 2)[0]
    return [
        replace(tensor, name=f"{parent}.{name}.weight", shape=(count, *tensor.shape[1:]), split=None)
        for name, count in rows.items()
    ]
