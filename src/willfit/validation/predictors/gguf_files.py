"""Sizes of GGUF files: what `llama-quantize` computes for stand-in files, and what logs print of real ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import Any

from willfit.architectures.build import build
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.mix import MixFacts, quantized
from willfit.conversion.predict import Prediction as File
from willfit.conversion.predict import predict
from willfit.conversion.record import Entry, header_of
from willfit.engines.base import Subject
from willfit.engines.gguf_files import counts_head
from willfit.file_types import Quantization, quantization
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import whole
from willfit.validation.scoring import Prediction, Unpredictable


def dry_run(case: Case) -> dict[str, Any]:
    """What `llama-quantize` computes for one model and many file types.

    Raises
    ------
    Unpredictable
        If no config of the model is known.
    """
    headers = {name: file_of(case, name).header for name in case.measured["tensor_bytes"]}
    one = next(iter(headers.values()))
    return {
        "tensor_bytes": {name: whole(float(_stored(header))) for name, header in headers.items()},
        "params_total": whole(float(_elements(one))),
        "n_tensors": whole(float(len(one.tensors))),
    }


def file_sizes(case: Case, subject: Subject) -> dict[str, Prediction]:
    """What a log says about the file as a whole, of what the case measured.

    Parameters
    ----------
    subject
        The case's model, with its header.
    """
    header = subject.gguf
    if header is None:
        return {}
    stored, elements = _stored(header), _elements(header)
    sizes = (stored, *(subject.bounds or (stored, stored)))
    found = {
        "file_size_gib": Prediction(*(size / GIB for size in sizes)),
        "bpw": Prediction(*(8 * size / elements for size in sizes)),
        "params_total": whole(float(elements)),
    }
    return {key: value for key, value in found.items() if key in case.measured}


def file_of(case: Case, file_type: str) -> File:
    """The GGUF file that a case is about.

    Raises
    ------
    Unpredictable
        If no config of the model is known.
    """
    name = case.fields.get("catalogue") or case.fields.get("model")
    entry = find(str(name)) if name else None
    if entry is None:
        raise Unpredictable(f"{case.fields.get('model')}: no config of this architecture is known")
    config = Config({**entry.config, **(case.fields.get("model_overrides") or {})}, entry.id)
    planned = case.fields.get("oracle") is not None
    quant = quantization(file_type)
    if planned:  # made without an importance matrix, of floats
        quant = Quantization(quant.label, quant.file_type, imatrix=False)
    architecture = build(config)
    head = not planned and counts_head(architecture, entry.facts.get("params_total"))
    made = predict(
        config,
        quant,
        architecture,
        drafts=_has_drafts(case, len(architecture.layers)),
        stored_head=head,
        fresh=planned,
    )
    if not planned:
        return made
    header = _stand_in(made.header, quant.file_type)
    return replace(made, header=header, bytes=(_stored(header), _stored(header)))


#: The month in which converters began to write modules that draft for the families that have them most.
_DRAFTS_SINCE = "2026-05"


def _has_drafts(case: Case, layers: int) -> bool:
    """Whether the file holds modules that draft: a log counts them as layers, and the output as one more."""
    if case.fields.get("oracle") is not None:
        return "nextn_predict_layers" in (case.fields.get("gguf_hparams") or {})
    if counted := case.settings.get("n_layers_total"):
        return int(counted) > layers + 1
    return bool(case.settings.get("mtp")) or str(case.fields.get("date") or "") >= _DRAFTS_SINCE


def _stand_in(header: GgufHeader, file_type: str) -> GgufHeader:
    """The header of a file that was made of a loader's questions and not by the converter.

    It holds each tensor for which the loader asks, those that a model need not have as well; the quantizer got small
    matrices in F16 that the converter writes in F32.
    """
    name = str(header.metadata["general.architecture"])
    entries = [Entry(tensor.name, tensor.ne, tensor.type) for tensor in header.tensors]
    shapes = {entry.name: entry.ne for entry in entries}
    extras = [
        Entry(extra, ne, "F16" if len(ne) > 1 else "F32") for extra, ne in _asked_for(name, shapes).items()
    ]
    halved = _IN_HALVES.get(name, ())
    entries = [entry._replace(type="F16") if entry.name.endswith(halved) else entry for entry in entries]
    if extras:
        entries += quantized(extras, MixFacts.of(header.metadata), file_type)
    return header_of(entries, header.metadata)


#: Ends of names that the quantizer got in F16.
_IN_HALVES: dict[str, tuple[str, ...]] = {
    "bert": ("position_embd.weight", "token_types.weight"),
    "lfm2": ("shortconv.conv.weight",),
}


def _asked_for(name: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Tensors that the loader takes where they are there, of architectures whose converted files have none."""
    width, vocabulary = shapes["token_embd.weight"]
    match name:
        case "qwen2":
            return {"output.bias": (vocabulary,)}
        case "qwen3":
            return {"cls.output.weight": (width,)}
        case "lfm2":
            return {"dense_2.weight": (width, width)}
        case "qwen35" | "qwen35moe":
            return dict(_biases(shapes))
        case "qwen3next":
            return {**dict(_biases(shapes)), **dict(_fused(shapes))}
    return {}


def _biases(shapes: dict[str, tuple[int, ...]]) -> Iterable[tuple[str, tuple[int, ...]]]:
    for name, ne in shapes.items():
        if name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight")):
            yield f"{name.removesuffix('weight')}bias", ne[1:]


def _fused(shapes: dict[str, tuple[int, ...]]) -> Iterable[tuple[str, tuple[int, ...]]]:
    """The projection of older files, in which the gate is not apart."""
    for name, ne in shapes.items():
        if name.endswith("attn_qkv.weight"):
            gate = shapes[name.replace("attn_qkv", "attn_gate")]
            yield name.replace("attn_qkv", "ssm_in"), (ne[0], ne[1] + gate[1])


def _stored(header: GgufHeader) -> int:
    return sum(tensor.bytes for tensor in header.tensors)


def _elements(header: GgufHeader) -> int:
    return sum(prod(tensor.ne) for tensor in header.tensors)
