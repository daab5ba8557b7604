"""Allocations and frees of one operation, forward and backward, under whatever implements it.

An implementation has a function for each `op` of `cases.py`, which makes what is called. A stream is a list of bytes,
those of frees negative, without those of scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from willfit.tracing.question import Card
from willfit.tracing.trace import Trace
from willfit.tracing.worker.tracer import Tracer

#: Bytes up to which a storage counts as a scalar: counters, sums, flags.
SCALAR = 16

Stream = dict[str, list[int]]


def stream_of(case: dict[str, Any], implementation: Any, device: str) -> Stream:
    """What happens: `held` by modules or states, and events of `forward` and `backward`."""
    tracer = getattr(implementation, "TRACER", Tracer)(device, Card())
    events = tracer.trace.events

    def followed(action: Callable[[], Any]) -> tuple[list[int], Any]:
        since = len(events)
        with tracer:
            found = action()
        return sizes_of(tracer.trace, events[since:]), found

    if case["op"] in ("bitsandbytes", "torchao"):
        return _of_optimizer(case, implementation, device, tracer, followed)
    with torch.device(device):
        call, inputs, held = PREPARED[case["op"]](case, implementation)
    for tensor in (*held, *inputs):
        tracer.adopt(tensor, "input", "")
    context = (
        torch.autocast(torch.device(device).type, torch.bfloat16) if case.get("autocast") else nullcontext()
    )
    with context:
        forward, output = followed(lambda: call(*inputs))
    outputs = output if isinstance(output, tuple) else (output,)
    outputs = tuple(one for one in outputs if isinstance(one, torch.Tensor))
    found = {"held": sorted(tensor.untyped_storage().nbytes() for tensor in held), "forward": forward}
    if case.get("trains", True):
        scalar = outputs[0].dim() == 0
        gradients = [torch.ones((), device=device)] if scalar else [torch.empty_like(one) for one in outputs]
        for gradient in gradients:
            tracer.adopt(gradient, "gradient", "")
        differentiated = outputs[: len(gradients)]
        del output, outputs

        def backward() -> None:
            torch.autograd.backward(differentiated, gradients)

        found["backward"], _ = followed(backward)
    return found


def sizes_of(trace: Trace, events: list[int]) -> list[int]:
    """Bytes of events, those of frees negative, without scalars and what kernels take for themselves."""
    sizes = []
    for event in events:
        storage = trace.storages[event if event >= 0 else ~event]
        if storage.category != "workspace" and storage.nbytes > SCALAR:
            sizes.append(storage.nbytes if event >= 0 else -storage.nbytes)
    return _in_order(sizes)


def _in_order(sizes: list[int]) -> list[int]:
    """With what is freed at one point in the order of its size: that of names in a function means nothing."""
    found: list[int] = []
    freed: list[int] = []
    for size in [*sizes, 0]:
        if size < 0:
            freed.append(size)
            continue
        found += [*sorted(freed), size]
        freed = []
    return found[:-1]


def _of_optimizer(
    case: dict[str, Any], implementation: Any, device: str, tracer: Tracer, followed: Any
) -> Stream:
    dtype = getattr(torch, case["dtype"])
    parameters = [
        torch.nn.Parameter(torch.empty(shape, dtype=dtype, device=device)) for shape in case["shapes"]
    ]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
        tracer.adopt(parameter, "parameter", "")
        tracer.adopt(parameter.grad, "gradient", "")
    optimizer = getattr(implementation, case["op"])(case, parameters)
    events, _ = followed(optimizer.step)
    again, _ = followed(optimizer.step)
    held: list[int] = []
    for size in (*events, *again):
        if size > 0:
            held.append(size)
        else:
            held.remove(-size)
    return {"held": sorted(held)}


def _rows(case: dict[str, Any], *more: int, dtype: str | None = None, trains: bool = True) -> torch.Tensor:
    shape = (*case["rows"], *more) if isinstance(case["rows"], list) else (case["rows"], *more)
    found = torch.zeros(shape, dtype=getattr(torch, dtype or case["dtype"]))
    return found.requires_grad_(trains and case.get("trains", True))


def _linear(case: dict[str, Any], implementation: Any) -> Any:
    module, held = getattr(implementation, case["op"])(case)
    return module, (_rows(case, case["inputs"]),), held


def _norm(case: dict[str, Any], implementation: Any) -> Any:
    weights = [torch.zeros(case["width"], dtype=getattr(torch, case["weights"])) for _ in range(2)]
    for weight in weights:
        weight.requires_grad_(not case.get("frozen"))
    if case["op"] == "rms_norm":
        weights.pop()
    call = getattr(implementation, case["op"])(case)
    return lambda rows: call(rows, *weights), (_rows(case, case["width"]),), weights


def _gated(case: dict[str, Any], implementation: Any) -> Any:
    call = getattr(implementation, case["op"])(case)
    if case.get("halves"):
        return lambda both: call(*both.chunk(2, dim=-1)), (_rows(case, 2 * case["width"]),), ()
    return call, (_rows(case, case["width"]), _rows(case, case["width"])), ()


def _rope(case: dict[str, Any], implementation: Any) -> Any:
    length, width = case["rows"][1], case["width"]
    tables = [torch.zeros(1, length, width, dtype=getattr(torch, case["dtype"])) for _ in range(2)]
    products = [_rows(case, heads, width) for heads in case["heads"]]
    call = implementation.rope(case)

    def turned(*given: torch.Tensor) -> Any:
        views = [one * 1 for one in given]
        # As a model makes them: a view of a product, or (heads apart) laid out by heads.
        views = [
            one.transpose(1, 2).contiguous() if case.get("apart") else one.transpose(1, 2) for one in views
        ]
        return call(*views, *tables)

    return turned, tuple(products), tables


def _cross_entropy(case: dict[str, Any], implementation: Any) -> Any:
    target = torch.zeros(case["rows"], dtype=torch.int64)
    call = implementation.cross_entropy(case)
    return lambda given: call(given * 1, target), (_rows(case, case["vocabulary"]),), (target,)


def _fused(case: dict[str, Any], implementation: Any) -> Any:
    target = torch.zeros(case["rows"], dtype=torch.int64)
    weight = torch.zeros(case["vocabulary"], case["width"], dtype=getattr(torch, case["weights"]))
    weight.requires_grad_(not case.get("frozen"))
    call = implementation.fused_linear(case)
    return lambda rows: call(rows, weight, target), (_rows(case, case["width"]),), (target, weight)


def _experts(case: dict[str, Any], implementation: Any) -> Any:
    dtype = getattr(torch, case["dtype"])
    both = torch.zeros(case["experts"], 2 * case["inner"], case["width"], dtype=dtype, requires_grad=True)
    down = torch.zeros(case["experts"], case["width"], case["inner"], dtype=dtype, requires_grad=True)
    index = torch.zeros(*case["rows"], case["chosen"], dtype=torch.int64)
    weights = torch.zeros(*case["rows"], case["chosen"], dtype=dtype, requires_grad=True)
    call = implementation.experts(case)
    return (
        lambda rows: call(rows, both, down, index, weights),
        (_rows(case, case["width"]),),
        (both, down, index, weights),
    )


PREPARED = {
    "auto_gptq": _linear, "autoawq": _linear, "hqq": _linear,
    "linear4bit": _linear, "linear8bit": _linear, "float8": _linear, "rms_norm": _norm, "layer_norm": _norm,
    "swiglu": _gated, "geglu": _gated, "rope": _rope, "cross_entropy": _cross_entropy, "fused_linear": _fused,
    "experts": _experts,
}  # fmt: skip
