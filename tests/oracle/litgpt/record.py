"""Record what one block of LitGPT keeps and needs, with real tensors on the CPU.

    python tests/oracle/litgpt/record.py NAME=FOLDER >> tests/data/training/litgpt_blocks.jsonl

The folder holds the package (`lit_gpt` or `litgpt`) of one version, which `NAME` says; torch and what LitGPT imports
must be installed. Attention is replaced by a function that keeps and lays out what CUDA's flash kernel does
(`flash_api.cpp: mha_fwd`, `mha_bwd`), for the CPU's own lays its output out otherwise. There is no dropout: the CPU's
keeps a mask of another width.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TOKENS = 96

#: Shapes by name, as LitGPT's config has them.
SHAPES: dict[str, dict[str, Any]] = {
    "heads": {"n_head": 4, "n_query_groups": 4, "rotary_percentage": 1.0},
    "groups": {"n_head": 8, "n_query_groups": 2, "rotary_percentage": 1.0},
    "parallel": {
        "n_head": 4, "n_query_groups": 4, "rotary_percentage": 0.5, "bias": True, "parallel_residual": True,
        "shared_attention_norm": True, "_mlp_class": "GptNeoxMLP", "_norm_class": "LayerNorm",
    },
}  # fmt: skip

#: What is trained, by name: the module, and options of its config.
METHODS: dict[str, tuple[str, dict[str, bool | int]]] = {
    "full": ("model", {}),
    "lora-q-v": ("lora", {"r": 8, "query": True, "value": True}),
    "lora-all": (
        "lora",
        {"r": 4, "query": True, "key": True, "value": True, "projection": True, "mlp": True},
    ),
    "adapter": ("adapter", {}),
    "adapter_v2": ("adapter_v2", {}),
}


class Storages(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most there were.

    Watching a storage makes the engine believe that someone else has it: sums of gradients are new tensors here.
    """

    def __init__(self, ignored: list[torch.Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.watched: dict[int, Any] = {}
        self.ignored = {tensor.untyped_storage()._cdata for tensor in ignored}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it gives."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.ignored or key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.watched[key] = weakref.ref(storage, lambda _: self._drop(key))

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
        self.watched.pop(key, None)


class Flash(torch.autograd.Function):
    """CUDA's flash attention as far as memory goes: the output lies as the queries do."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)
        statistics = torch.empty(query.shape[:3], dtype=torch.float32)
        state = torch.empty(24, dtype=torch.uint8)
        ctx.save_for_backward(query, key, value, out, statistics, state)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        batch, heads, length, width = query.shape
        rows = -(-length // 128) * 128
        workspace = torch.empty(batch * heads * rows * (1 + -(-width // 32) * 32), dtype=torch.float32)
        made = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del workspace
        return made


class Masked(torch.autograd.Function):
    """The memory-efficient kernel with a prompt's mask: output with heads inside, the mask as padded numbers."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        batch, heads, length, width = query.shape
        out = torch.empty((batch, length, heads, width), dtype=query.dtype).transpose(1, 2)
        statistics = torch.empty((batch, heads, -(-length // 32) * 32), dtype=torch.float32)
        mask = torch.empty((length, 16), dtype=query.dtype)
        ctx.save_for_backward(query, key, value, out, statistics, mask)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        delta = torch.empty(query.shape[:3], dtype=torch.float32)
        made = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del delta
        return made


class Loss(torch.autograd.Function):
    """A loss whose gradient is new, so that nobody but the engine holds it."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        ctx.like = value.shape, value.dtype
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        shape, dtype = ctx.like
        return torch.ones(shape, dtype=dtype)


def attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> torch.Tensor:
    """What replaces `scaled_dot_product_attention`."""
    return (Flash if attn_mask is None else Masked).apply(query, key, value)


def record(package: str, shape: str, method: str, batch: int) -> dict[str, Any]:
    """One block, forward and back."""
    module_name, options = METHODS[method]
    module = importlib.import_module(f"{package}.{module_name}")
    config_class = getattr(module, "Config", None) or importlib.import_module(f"{package}.config").Config
    given = {
        "n_layer": 4, "n_embd": 128, "intermediate_size": 352, "vocab_size": 256, "padded_vocab_size": 256,
        "block_size": 128, "bias": False, "parallel_residual": False, "_mlp_class": "LLaMAMLP",
        "_norm_class": "RMSNorm", **SHAPES[shape],
    }  # fmt: skip
    config = _config(config_class, given, options)
    torch.set_default_dtype(torch.bfloat16)
    model = module.GPT(config).to(torch.bfloat16)
    torch.set_default_dtype(torch.float32)
    model.max_seq_length = TOKENS
    for name in (
        "mark_only_lora_as_trainable",
        "mark_only_adapter_as_trainable",
        "mark_only_adapter_v2_as_trainable",
    ):
        if hasattr(module, name) and name.split("_only_")[1].split("_as_")[0] in (method, module_name):
            getattr(module, name)(model)
    block = model.transformer.h[3]
    cosines, sines = model.cos, model.sin
    extra: tuple[Any, ...] = ()
    if package == "litgpt" and hasattr(model, "rope_cache_length"):
        cosines, sines, extra = cosines.unsqueeze(0), sines.unsqueeze(0), (None, None, None)
    value = torch.randn(batch, TOKENS, 128).to(torch.bfloat16).requires_grad_()
    # Whatever is made once and kept by the model is there before.
    block(value, cosines, sines, *extra)
    for part in block.modules():
        if hasattr(part, "adapter_kv_cache"):
            part.adapter_kv_cache = None
    fixed = [value, model.cos, model.sin, *model.parameters(), *model.buffers()]
    kept: dict[int, int] = {}
    own = {tensor.untyped_storage()._cdata for tensor in fixed[1:]}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    watch = Storages(fixed)
    with watch:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = block(value, cosines, sines, *extra)
        held = value.untyped_storage().nbytes() if value.untyped_storage()._cdata in kept else 0
        forward = watch.most + held
        loss = Loss.apply(result)
        del result
        for part in block.modules():
            if hasattr(part, "adapter_kv_cache"):
                part.adapter_kv_cache = None
        watch.most = watch.now
        loss.backward()
    return {
        "shape": shape,
        "method": method,
        "batch": batch,
        "kept": sum(kept.values()),
        "forward": forward,
        # The loss and its own gradient are no part of the block.
        "backward": watch.most + held - 2 * 4,
    }


def _config(config_class: Any, given: dict[str, Any], options: dict[str, Any]) -> Any:
    """LoRA's options are called `to_query` or `lora_query`, norms and MLPs with or without an underscore."""
    names = set(config_class.__dataclass_fields__)
    fields = {
        (name if name in names else name.removeprefix("_") + "_name"): size for name, size in given.items()
    }
    for name, on in options.items():
        fields[f"lora_{name}" if f"lora_{name}" in names else "r" if name == "r" else f"to_{name}"] = on
    return config_class(**{name: size for name, size in fields.items() if name in names})


def main() -> None:
    """Record every shape and method, a line each."""
    torch.nn.functional.scaled_dot_product_attention = attention
    version, _, folder = sys.argv[1].partition("=")
    sys.path.insert(0, folder)
    package = "lit_gpt" if importlib.util.find_spec("lit_gpt") else "litgpt"
    for shape in SHAPES:
        for method in METHODS:
            for batch in (1, 2):
                print(json.dumps({"version": version, **record(package, shape, method, batch)}))


if __name__ == "__main__":
    main()
