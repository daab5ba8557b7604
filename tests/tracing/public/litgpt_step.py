"""Optimizer steps as LitGPT's scripts take them, in plain PyTorch around its own model code.

    python litgpt_step.py FOLDER MODEL --method lora --options '{"lora_r": 8}' --micro-batch 2 --length 512

FOLDER holds the package of one version (`lit_gpt`, since 2024-03 `litgpt`). It is meant to be traced, as `willfit trace
-- python ...`: there is no data and no checkpoint. Read in finetune/{full,lora,adapter,adapter_v2}.py (2023-10 to
2024-09), extensions/thunder/pretrain.py (2024-05), and in Lightning: fabric/plugins/precision/{half,bitsandbytes}.py,
fabric/wrappers.py: _FabricModule.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

#: Rows of the head's product at a time, where weights are frozen.
CHUNK = 128


def main() -> None:
    """Build the model, take the steps."""
    asked = arguments()
    sys.path.insert(0, asked.folder)
    package = "lit_gpt" if importlib.util.find_spec("lit_gpt") else "litgpt"
    module = importlib.import_module(f"{package}.{'model' if asked.method == 'full' else asked.method}")
    cross_entropy = importlib.import_module(f"{package}.utils").chunked_cross_entropy
    model = built(module, asked)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(trained, asked)
    if asked.longest_first:
        model.max_seq_length = asked.length
    elif asked.optimizer != "fused":
        model.max_seq_length = min(asked.length, model.max_seq_length)
    validate(model, cross_entropy, asked)
    micros = 1 if asked.accumulation == 1 else 2
    logits = None
    for iteration in range(2 * micros):
        # Where the longest sample comes first, the others are shorter: how much so, nothing says.
        length = asked.length if iteration == 0 or not asked.longest_first else asked.length // 2
        tokens, targets = batch(asked.micro_batch, length)
        if asked.optimizer == "fused":
            logits = float_outputs(model(tokens))
            loss = cross_entropy(logits, targets, chunk_size=0)
        elif asked.method == "full":
            logits = float_outputs(forward(model, tokens))
            loss = cross_entropy(logits[..., :-1, :], targets[..., 1:])
        else:
            logits = float_outputs(forward(model, tokens, lm_head_chunk_size=CHUNK))
            logits[-1] = logits[-1][..., :-1, :]
            loss = cross_entropy(logits, targets[..., 1:])
        (loss / asked.accumulation).backward()
        if (iteration + 1) % micros == 0:
            if asked.clip:
                torch.nn.utils.clip_grad_norm_(trained, asked.clip)
            optimizer.step()
            optimizer.zero_grad()
    del logits


@torch.no_grad()
def validate(model: Any, cross_entropy: Callable[..., torch.Tensor], asked: argparse.Namespace) -> None:
    """What scripts do before training. Adapters keep their prompt's keys and values from then on."""
    model.eval()
    tokens, targets = batch(asked.micro_batch, asked.length // 2 if asked.longest_first else asked.length)
    cross_entropy(float_outputs(forward(model, tokens))[..., :-1, :], targets[..., 1:], chunk_size=0)
    model.train()


def batch(size: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets."""
    tokens, targets = (torch.zeros((size, length), dtype=torch.int64, device="cuda") for _ in range(2))
    return tokens, targets


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("model", help="by LitGPT's name")
    parser.add_argument("--method", choices=("full", "lora", "adapter", "adapter_v2"), default="full")
    parser.add_argument("--options", type=json.loads, default={}, help="of the config")
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--longest-first", action="store_true")
    parser.add_argument("--quantize", choices=("nf4", "nf4-dq"))
    parser.add_argument("--optimizer", choices=("adamw", "paged", "fused"), default="adamw")
    parser.add_argument("--clip", type=float, default=0.0)
    return parser.parse_args()


def built(module: Any, asked: argparse.Namespace) -> Any:
    """The model as Fabric makes it: in bfloat16, on the device, linear layers in 4 bits if asked."""
    config = (module.Config if hasattr(module, "Config") else config_class(module)).from_name(
        asked.model, **asked.options
    )
    replaced = quantized(asked.quantize) if asked.quantize else contextlib.nullcontext()
    with default_dtype(torch.bfloat16), torch.device("cuda"), replaced:
        model = module.GPT(config)
    mark = getattr(module, f"mark_only_{asked.method}_as_trainable", None)
    if mark is not None:
        mark(model)
    if not asked.quantize:
        return model.to(torch.bfloat16)
    for part in model.modules():
        if hasattr(part, "load"):
            part.load()
    return model


def config_class(module: Any) -> Any:
    """Beside the plain model it is a module of its own."""
    return importlib.import_module(f"{module.__package__}.config").Config


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let new tensors be of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def quantized(method: str) -> Iterator[None]:
    """Linear layers in 4 bits, quantized from float16 whatever the compute dtype (`BitsandbytesPrecision`)."""
    from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit

    class Linear(Linear4bit):
        def __init__(self, inputs: int, outputs: int, bias: bool = True, **named: Any) -> None:
            # A whole matrix is there first (`_Linear4bit.__init__`): it decides where the packed one will lie.
            whole = torch.empty(outputs, inputs)
            half = whole.to(torch.float16)
            super().__init__(
                inputs, outputs, bias, torch.bfloat16, method.endswith("-dq"), dtype=half.dtype, device="cuda",
                keeps_input=True, unpacks=True,
            )  # fmt: skip
            if bias:
                self.bias.data = self.bias.data.to(torch.bfloat16)

        def load(self) -> None:
            """A checkpoint's matrix is quantized beside the one before (`_quantize_weight`)."""
            half = torch.empty(self.out_features, self.in_features, dtype=torch.float16, device="cuda")
            self.absmax = torch.empty_like(self.absmax)
            self.weight.data = torch.empty_like(self.weight)
            del half

        def reset_parameters(self) -> None:
            """Nothing is there to fill."""

    plain = torch.nn.Linear
    torch.nn.Linear = Linear
    try:
        yield
    finally:
        torch.nn.Linear = plain


def optimizer_of(trained: list[torch.nn.Parameter], asked: argparse.Namespace) -> torch.optim.Optimizer:
    """As the scripts choose it: bitsandbytes' paged one over a quantized base."""
    if asked.optimizer == "paged":
        from willfit.tracing.worker.stand_ins.bitsandbytes.optimizers import BitsAndBytes

        return BitsAndBytes(trained, {"optim_bits": 32, "paged": True})
    if asked.optimizer == "fused":
        return torch.optim.AdamW(trained, fused=True)
    return torch.optim.AdamW(trained, foreach=True)


def forward(model: Callable[..., Any], tokens: torch.Tensor, **named: Any) -> Any:
    """Constants that the forward pass makes are in bfloat16 (`forward_context`)."""
    with default_dtype(torch.bfloat16):
        return model(tokens, **named)


def float_outputs(found: Any) -> Any:
    """Outputs become float32 (`convert_output`)."""
    return [chunk.float() for chunk in found] if isinstance(found, list) else found.float()


main()
