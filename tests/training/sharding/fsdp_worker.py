"""A rank of a small frozen model with adapters under FSDP1; prints the live activations when each layer runs again."""

import gc
import json
import sys
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import _or_policy, lambda_auto_wrap_policy, transformer_auto_wrap_policy
from torch.utils.checkpoint import checkpoint

LAYERS, WIDTH, TOKENS = 6, 32, 10_007


class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH, bias=False).requires_grad_(False)
        self.lora_a = nn.Linear(WIDTH, 4, bias=False)
        self.lora_b = nn.Linear(4, WIDTH, bias=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value + torch.tanh(self.base(value) + self.lora_b(self.lora_a(value)))


class Model(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Adapted() for _ in range(LAYERS))
        self.reentrant = reentrant

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = value.clone().requires_grad_(True)
        for layer in self.layers:
            value = checkpoint(layer, value, use_reentrant=self.reentrant)
        return value


def live() -> int:
    """Distinct storages of the shape of the residual stream."""
    gc.collect()
    # Nothing but a plain tensor of the very shape is touched: views of shards do not like to be asked.
    found = [
        item for item in gc.get_objects() if type(item) is torch.Tensor and item.shape == (TOKENS, WIDTH)
    ]
    found += [item.grad for item in found if item.is_leaf and item.grad is not None]
    return len({item.untyped_storage().data_ptr() for item in found})


def trains(module: nn.Module) -> bool:
    """PEFT's rule (`peft/utils/other.py: fsdp_auto_wrap_policy`)."""
    weight = getattr(module, "weight", None)
    return not list(module.named_children()) and weight is not None and weight.requires_grad


def main() -> None:
    rank, reentrant, store = int(sys.argv[1]), sys.argv[2] == "reentrant", sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    policies = [
        partial(lambda_auto_wrap_policy, lambda_fn=trains),
        partial(transformer_auto_wrap_policy, transformer_layer_cls={Adapted}),
    ]
    model = FullyShardedDataParallel(
        Model(reentrant),
        auto_wrap_policy=partial(_or_policy, policies=policies),
        device_id=torch.device("cpu"),
    )
    counts: list[int] = []

    def counted(module: nn.Module, given: object) -> None:
        if torch.is_grad_enabled():
            counts.append(live())

    for module in model.modules():
        if isinstance(module, Adapted):
            module.register_forward_pre_hook(counted)
    model(torch.randn(TOKENS, WIDTH)).square().mean().backward()
    if rank == 0:
        print(json.dumps(counts[-LAYERS:]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
