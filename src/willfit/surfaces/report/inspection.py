"""What a model is: parameters by part, layers by kind, what they keep."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.architectures.held import (
    cache_bytes_per_token,
    held_bytes,
    layer_cache_bytes,
    layer_state_bytes,
)
from willfit.architectures.model import Layer
from willfit.engines.base import Subject
from willfit.quantities import DTYPE_BYTES, format_bytes, format_count

#: Lengths at which the state that must be held is shown.
LENGTHS = (4096, 32768, 131072)


def as_json(subject: Subject, tensors: bool = False) -> dict[str, Any]:
    """The architecture as the published JSON has it."""
    architecture = subject.architecture
    dtype = _cache_dtype(subject)
    result: dict[str, Any] = {
        "model": subject.model,
        "model_type": architecture.model_type,
        "family": architecture.family,
        "dtype": architecture.dtype,
        "format": subject.recipe.name,
        "parameters": {
            "total": architecture.parameters,
            "active": architecture.active_parameters,
            "by_part": dict(architecture.parameters_by_part),
            "mtp": architecture.mtp_parameters,
        },
        "weight_bytes": subject.weight_bytes,
        "weight_bytes_from_headers": subject.from_headers,
        "hidden_size": architecture.hidden_size,
        "vocab_size": architecture.vocab_size,
        "max_positions": architecture.max_positions,
        "tied_embeddings": architecture.tied,
        "layers": [_layer_json(layer, dtype) for layer in architecture.layers],
        "encoder_layers": [_layer_json(layer, dtype) for layer in architecture.encoder],
        "kv_bytes_per_token": cache_bytes_per_token(architecture, DTYPE_BYTES[dtype]),
        "state_bytes_at": {str(length): int(held_bytes(architecture, length, dtype)) for length in LENGTHS},
        "notes": list(subject.notes) + list(subject.recipe.notes),
    }
    if tensors:
        result["tensors"] = [
            {
                "name": name,
                "shape": list(tensor.shape),
                "copies": tensor.copies,
                "part": tensor.part,
                "kind": tensor.kind,
                "format": subject.recipe.format_of(name, tensor).name,
            }
            for name, tensor in architecture.tensors()
        ]
    return result


def render(subject: Subject, console: Console, tensors: bool = False) -> None:
    """Print the architecture."""
    architecture = subject.architecture
    dtype = _cache_dtype(subject)
    title = Text.assemble(" ", (subject.model, "bold"), f"   {architecture.model_type}")
    title.append(f"   {format_count(architecture.parameters)} parameters", style="bold")
    if architecture.active_parameters != architecture.parameters:
        title.append(f", {format_count(architecture.active_parameters)} active for a token")
    console.print()
    console.print(title)
    console.print()
    parts = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (("part", "left"), ("parameters", "right"), ("share", "right")):
        parts.add_column(name, justify=justify)  # type: ignore[arg-type]
    for part, count in sorted(architecture.parameters_by_part.items(), key=lambda item: -item[1]):
        parts.add_row(part, f"{count:,}", f"{100 * count / architecture.parameters:.1f} %")
    parts.add_row(Text("total", style="bold"), Text(f"{architecture.parameters:,}", style="bold"), "")
    if architecture.mtp_parameters:
        parts.add_row(
            Text("mtp modules", style="dim"), Text(f"{architecture.mtp_parameters:,}", style="dim"), ""
        )
    console.print(Padding(parts, (0, 2)))
    console.print()
    layers = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (
        ("layers", "left"),
        ("", "right"),
        ("a token adds", "right"),
        ("fixed state", "right"),
    ):
        layers.add_column(name, justify=justify)  # type: ignore[arg-type]
    kinds: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], Layer] = {}
    for place, blocks in (("encoder: ", architecture.encoder_blocks), ("", architecture.blocks)):
        for layer, times in blocks:
            key = (place + layer.kind, _widths(layer))
            kinds[key] += times
            example[key] = layer
    for (kind, widths), times in kinds.items():
        layer = example[(kind, widths)]
        added = _token_bytes(layer, dtype)
        state = layer_state_bytes(layer, dtype)
        layers.add_row(
            Text.assemble(kind, (f"  {widths}", "dim")),
            f"× {times}",
            format_bytes(added) if added else "",
            format_bytes(state) if state else "",
        )
    console.print(Padding(layers, (0, 2)))
    console.print()
    facts = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    weights = f"{format_bytes(subject.weight_bytes)}   {subject.recipe.name}"
    facts.add_row("weights", weights + (", from the file headers" if subject.from_headers else ""))
    per_token = cache_bytes_per_token(architecture, DTYPE_BYTES[dtype])
    facts.add_row("a token adds", f"{format_bytes(per_token)} of cache ({dtype}) over all layers")
    held = ", ".join(
        f"{format_bytes(held_bytes(architecture, length, dtype))} at {length:,}"
        for length in LENGTHS
        if not architecture.max_positions or length <= architecture.max_positions
    )
    if held:
        facts.add_row("a sequence holds", f"{held} tokens")
    if architecture.max_positions:
        facts.add_row("longest sequence", f"{architecture.max_positions:,} tokens")
    console.print(Padding(facts, (0, 2)))
    if tensors:
        console.print()
        for name, tensor in architecture.tensors():
            copies = f" × {tensor.copies}" if tensor.copies > 1 else ""
            console.print(Padding(Text(f"{name}  {list(tensor.shape)}{copies}  {tensor.part}"), (0, 2)))
    for note in (*subject.notes, *subject.recipe.notes):
        console.print(Padding(Text(f"· {note}", style="dim"), (0, 2)))
    console.print()


def _cache_dtype(subject: Subject) -> str:
    dtype = subject.architecture.dtype
    return "bf16" if dtype == "fp32" else dtype


def _token_bytes(layer: Layer, dtype: str) -> int:
    size = DTYPE_BYTES[dtype]
    return int(layer_cache_bytes(layer, 2, size) - layer_cache_bytes(layer, 1, size))


def _layer_json(layer: Layer, dtype: str) -> dict[str, Any]:
    return {
        "kind": layer.kind,
        "bytes_per_token": _token_bytes(layer, dtype),
        "bytes_per_sequence": layer_state_bytes(layer, dtype),
        "bytes_at_32768": int(layer_cache_bytes(layer, 32768, DTYPE_BYTES[dtype]))
        + layer_state_bytes(layer, dtype),
    }


def _widths(layer: Layer) -> str:
    words = []
    for mixer in layer.mixers:
        heads, kv_heads = getattr(mixer, "heads", 0), getattr(mixer, "kv_heads", 0)
        if kv_heads:
            words.append(f"{heads}/{kv_heads} heads of {getattr(mixer, 'head_dim', 0)}")
    ffn = layer.feed_forward
    if ffn is not None and ffn.experts:
        words.append(f"{ffn.experts} experts of {ffn.expert_width:,}, {ffn.top_k} used")
        if ffn.width:
            words.append(f"shared {ffn.width:,}")
    elif ffn is not None:
        words.append(f"mlp {ffn.width:,}")
    return ", ".join(words)
