"""What LitGPT's fine-tuning scripts train: LoRA on its fused matrices, LLaMA-Adapter and its second version.

LitGPT: lora.py, adapter.py, adapter_v2.py, finetune/*.py (0.4.0 to 0.5.13; the same in commits of 2023). Parameters are
in the dtype of the model's weights: the whole model is built in one.
"""

from __future__ import annotations

from collections.abc import Iterator

from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.errors import BadInput
from willfit.training.adapters.modules import Module, find_modules
from willfit.training.adapters.prompts import attention_of
from willfit.training.adapters.records import Adapted
from willfit.training.parameters import Parameter
from willfit.training.settings import AdapterSettings

#: Which of the fused matrix are adapted, and other modules, unless the script says so (finetune/lora.py).
DEFAULT_RANK = 8
DEFAULT_TARGETS = ("qkv-fused:q,v",)
#: adapter.py: Config.
PROMPT_LENGTH, START_LAYER = 10, 2


def lora(architecture: Architecture, settings: AdapterSettings, dtype: str) -> Adapted:
    """LoRA: one A for the adapted parts of a fused matrix together, as high as the rank times their number.

    Targets are `qkv-fused:` with some of q, k and v, and LitGPT's `proj` (attention output), `mlp` and `head`.
    """
    rank = settings.rank or DEFAULT_RANK
    targets = settings.targets or DEFAULT_TARGETS
    added: list[Parameter] = []
    for target in targets:
        if target.startswith("qkv-fused:"):
            parts = [part.strip() for part in target.partition(":")[2].split(",") if part.strip()]
            if not parts or any(part not in ("q", "k", "v") for part in parts):
                raise BadInput(f"{target!r}: parts of the fused matrix are q, k and v, with commas between")
            added.extend(_fused(architecture, parts, rank))
        elif target in ("proj", "mlp", "head"):
            for module in _group(architecture, target):
                added.extend(_pair(module, rank))
        else:
            raise BadInput(f"LitGPT adapts qkv-fused:q,k,v, proj, mlp and head, not {target!r}")
    return Adapted(tuple(added), dtype=dtype)


def adapter(architecture: Architecture, dtype: str) -> Adapted:
    """A prompt and a gate for each head, from the third layer on."""
    layers = max(0, len(architecture.layers) - START_LAYER)
    heads = attention_of(architecture).heads
    name = "transformer.h.{layer}.attn."
    return Adapted(
        (
            Parameter(
                name + "adapter_wte.weight",
                (PROMPT_LENGTH, architecture.hidden_size),
                "attention",
                "embedding",
                layers,
            ),
            Parameter(name + "gating_factor", (1, 1, heads, 1), "attention", "other", layers),
        ),
        dtype=dtype,
    )


def adapter_v2(architecture: Architecture, dtype: str) -> Adapted:
    """As `adapter`, with a scale and a bias for every linear layer, and all norms trained."""
    own: list[Parameter] = []
    added = list(adapter(architecture, dtype).added)
    for module in find_modules(architecture, fuses_experts=False):
        if module.kind in ("linear", "conv1d"):
            width = module.outputs
            for leaf in ("adapter_bias", "adapter_scale"):
                added.append(
                    Parameter(f"{module.name}.{leaf}", (width,), module.part, "other", module.copies)
                )
        elif module.kind == "norm" and module.leaf not in ("q_norm", "k_norm"):
            own.extend(_norm(module))
    return Adapted(tuple(added), tuple(own), dtype=dtype)


def _norm(module: Module) -> Iterator[Parameter]:
    yield Parameter(f"{module.name}.weight", (module.outputs,), module.part, "norm", module.copies)
    if module.biased:
        yield Parameter(f"{module.name}.bias", (module.outputs,), module.part, "norm", module.copies)


def _fused(architecture: Architecture, parts: list[str], rank: int) -> Iterator[Parameter]:
    for layer, times in architecture.blocks:
        widths = _widths(layer)
        inputs = _attention_inputs(layer)
        outputs = sum(widths[part] for part in parts)
        name = "transformer.h.{layer}.attn.qkv."
        yield Parameter(name + "lora_A", (rank * len(parts), inputs), "attention", "linear", times)
        yield Parameter(name + "lora_B", (outputs, rank), "attention", "linear", times)


def _widths(layer: Layer) -> dict[str, int]:
    for mixer in layer.mixers:
        heads, kv_heads = getattr(mixer, "heads", 0), getattr(mixer, "kv_heads", 0)
        if heads and kv_heads:
            width = mixer.head_dim  # type: ignore[attr-defined]
            return {"q": heads * width, "k": kv_heads * width, "v": kv_heads * width}
    raise BadInput("a layer has no attention with queries, keys and values to adapt")


def _attention_inputs(layer: Layer) -> int:
    tensors: list[Tensor] = [
        tensor for tensor in layer.tensors if tensor.part == "attention" and tensor.kind == "linear"
    ]
    return tensors[0].shape[-1]


def _group(architecture: Architecture, target: str) -> Iterator[Module]:
    modules = find_modules(architecture, fuses_experts=False)
    for module in modules:
        if module.kind not in ("linear", "conv1d"):
            continue
        if (
            (target == "mlp" and module.part in ("mlp", "experts", "router"))
            or (target == "head" and module.part == "head")
            or (target == "proj" and module.part == "attention" and module.leaf in _OUTPUTS)
        ):
            yield module


_OUTPUTS = frozenset({"o_proj", "dense", "c_proj", "out_proj", "wo", "proj"})


def _pair(module: Module, rank: int) -> Iterator[Parameter]:
    outputs = module.outputs
    # a fused gate and up matrix is two linear layers in LitGPT
    halves = 2 if module.leaf in ("gate_up_proj",) else 1
    for half in range(halves):
        suffix = f".{half}" if halves > 1 else ""
        yield Parameter(
            f"{module.name}{suffix}.lora_A", (rank, module.inputs), module.part, "linear", module.copies
        )
        yield Parameter(
            f"{module.name}{suffix}.lora_B", (outputs // halves, rank), module.part, "linear", module.copies
        )
