"""The libraries themselves, under the names of `cases.py`'s operations, with kernels that do nothing.

bitsandbytes' Python for CUDA runs on the CPU, its native library replaced; Triton's launches, too, are skipped. What is
allocated is the libraries' own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from willfit.tracing.worker.tracer import Tracer


class Anything:
    """Has every attribute and may be called, indexed and used as a decorator; does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None

    def __getitem__(self, key: Any) -> Any:
        return self


def triton() -> None:
    """A package of this name whose kernels are never run."""

    class Kernel(Anything):
        def __init__(self, function: Any = None) -> None:
            self.function = function

    def decorator(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return Kernel(args[0])
        return lambda function: Kernel(function)

    package = types.ModuleType("triton")
    package.__version__ = "3.4.0"  # type: ignore[attr-defined]
    package.__path__ = []
    package.__spec__ = importlib.machinery.ModuleSpec("triton", None, is_package=True)
    names: dict[str, Any] = {
        "jit": decorator, "autotune": decorator, "heuristics": decorator, "cdiv": lambda a, b: -(-a // b),
        "next_power_of_2": lambda n: 1 << (n - 1).bit_length(), "Config": Anything(), "runtime": Anything(),
        "constexpr": _Constant,
    }  # fmt: skip
    package.__dict__.update(names)
    sys.modules["triton"] = package

    class Finder:
        """Submodules of the package."""

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if not name.startswith("triton."):
                return None
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

        def create_module(self, spec: Any) -> Any:
            made = _Module(spec.name)
            made.__path__ = []
            return made

        def exec_module(self, module: Any) -> None:
            """Nothing is in it."""

    sys.meta_path.insert(0, Finder())
    torch.cuda.device = lambda device: contextlib.nullcontext()
    torch.equal = lambda one, other: False  # gradients are scaled, in place


class _Constant(int):
    """`triton.language.constexpr`."""

    @property
    def value(self) -> int:
        return int(self)


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Constant if name == "constexpr" else Anything()


def bitsandbytes_for_cuda() -> Any:
    """The package, whose operations are its functions for CUDA."""
    import bitsandbytes
    from bitsandbytes import _ops, cextension, functional

    functions: dict[str, Callable[..., Any]] = {}

    def collected(name: str, device: str) -> Any:
        def keep(function: Any) -> Any:
            functions[name] = function
            return function

        return keep

    original, _ops.register_kernel = _ops.register_kernel, collected
    cextension.lib = Anything()
    functional.lib = Anything()
    torch._C._cuda_getCurrentRawStream = lambda index: 0  # type: ignore[attr-defined]
    importlib.reload(bitsandbytes.backends.default.ops)
    importlib.import_module("bitsandbytes.backends.cuda.ops")
    _ops.register_kernel = original
    functional.CUBLAS_Context.get_instance = classmethod(lambda kind: Anything())
    namespace = torch.ops.bitsandbytes
    for name, function in functions.items():
        short = name.split("::")[1]
        if "." in short:
            continue
        operation = types.SimpleNamespace(default=function, out=functions.get(f"{name}.out"))
        setattr(namespace, short, _Operation(operation))
    return bitsandbytes


class _Operation:
    def __init__(self, overloads: SimpleNamespace) -> None:
        self.default, self.out = overloads.default, overloads.out

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.default(*args, **kwargs)


def linear4bit(case: dict[str, Any]) -> Any:
    import bitsandbytes

    module = bitsandbytes.nn.Linear4bit(
        case["inputs"], case["outputs"], case["bias"], getattr(torch, case["compute"]), case["double"],
        case["quant_type"], getattr(torch, case["storage"]),
    ).to(getattr(torch, case["weights"]))  # fmt: skip
    module.requires_grad_(False)
    module.support_avx512bf16_for_cpu = False
    module = module.to("cpu")
    state = module.weight.quant_state
    held = [*module.parameters(), state.absmax, state.code]
    if state.nested:
        held += [state.state2.absmax, state.state2.code, state.offset]
    return module, held


def linear8bit(case: dict[str, Any]) -> Any:
    import bitsandbytes
    from bitsandbytes.autograd._functions import MatMul8bitLt

    module = bitsandbytes.nn.Linear8bitLt(
        case["inputs"], case["outputs"], case["bias"], has_fp16_weights=False, threshold=case["threshold"]
    ).to(getattr(torch, case["weights"]))
    module.requires_grad_(False)
    module.weight = module.weight._quantize("cpu")
    module.init_8bit_state()
    # On the CPU it would take another function.
    bitsandbytes.matmul = lambda rows, weight, bias=None, state=None: MatMul8bitLt.apply(
        rows, weight, None, bias, state
    )
    return module, [*module.parameters(), module.state.SCB]


def hqq(case: dict[str, Any]) -> Any:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    dtype = getattr(torch, case["weights"])
    plain = torch.nn.Linear(case["inputs"], case["outputs"], case["bias"], dtype=dtype)
    config = BaseQuantizeConfig(nbits=case["bits"], group_size=case["group"], axis=1)
    made = HQQLinear(plain, config, compute_dtype=dtype, device="cpu").requires_grad_(False)
    if made.bias is not None:
        made.bias = made.bias.detach()
    held = [made.W_q, made.meta["scale"], made.meta["zero"]]
    return made, held + ([] if made.bias is None else [made.bias])


def auto_gptq(case: dict[str, Any]) -> Any:
    _without_code("auto_gptq", "auto_gptq.nn_modules", "auto_gptq.nn_modules.qlinear")
    kind = importlib.import_module("auto_gptq.nn_modules.qlinear.qlinear_cuda_old").QuantLinear
    made = kind(case["bits"], case["group"], case["inputs"], case["outputs"], case["bias"], trainable=True)
    return made, [*made.buffers(), made.wf]


def autoawq(case: dict[str, Any]) -> Any:
    _without_code("awq", "awq.modules", "awq.modules.linear")
    gemm = importlib.import_module("awq.modules.linear.gemm")

    def unpacked(packed: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.empty(len(packed), case["outputs"], dtype=torch.float16)

    def multiplied(rows: torch.Tensor, packed: torch.Tensor, scales: Any, zeros: Any, parts: int) -> Any:
        return torch.empty(parts, len(rows), case["outputs"], dtype=torch.float16).sum(0)

    gemm.awq_ext = SimpleNamespace(dequantize_weights_cuda=unpacked, gemm_forward_cuda=multiplied)
    made = gemm.WQLinear_GEMM(
        case["bits"], case["group"], case["inputs"], case["outputs"], case["bias"], "cpu", training=True
    )
    return made, list(made.buffers())


def _without_code(*names: str) -> None:
    """Packages whose own code, which needs what is long gone, does not run; their modules are found."""
    for name in names:
        if name not in sys.modules:
            folder = importlib.machinery.PathFinder.find_spec(
                name.rpartition(".")[2], getattr(sys.modules.get(name.rpartition(".")[0]), "__path__", None)
            )
            assert folder is not None, name
            made = types.ModuleType(name)
            made.__path__ = list(folder.submodule_search_locations or ())
            sys.modules[name] = made


def bitsandbytes(case: dict[str, Any], parameters: list[torch.nn.Parameter]) -> Any:
    from bitsandbytes import optim
    from bitsandbytes.optim import optimizer

    optimizer.Optimizer8bit.fill_qmap = lambda self: self.name2qmap.update(dynamic=_Map(), udynamic=_Map())
    for kind in (optimizer.Optimizer8bit, optim.AdEMAMix):
        kind.get_state_buffer = _state_buffer
    optim.AdEMAMix._get_state_double_buffer = lambda self, p, dtype: _state_buffer(
        self, p, dtype, (2, *p.shape)
    )
    name = {
        "adam": "AdamW", "lion": "Lion", "ademamix": "AdEMAMix", "rmsprop": "RMSprop", "lamb": "LAMB", "sgd": "SGD",
        "adagrad": "Adagrad", "lars": "LARS",
    }[case["update"]]  # fmt: skip
    named: dict[str, Any] = {"lr": 1e-3, "optim_bits": case["optim_bits"]}
    if name in ("AdamW", "Lion", "AdEMAMix"):
        named["is_paged"] = case["paged"]
    if name in ("SGD", "LARS"):
        named["momentum"] = 0.9
    return getattr(optim, name)(parameters, **named)


def _state_buffer(self: Any, p: torch.Tensor, dtype: torch.dtype = torch.float32, shape: Any = None) -> Any:
    """`get_state_buffer` as it is for a GPU's parameters."""
    if not self.is_paged or p.numel() < 1e5:
        return torch.zeros(shape or p.shape, dtype=dtype)
    # Unified memory is made where the tracer does not look.
    found = torch.empty(shape or p.shape, dtype=dtype, device="meta")
    found.is_paged, found.page_deviceid = True, 0
    return found


class _Map:
    """A map from codes to values on the host, which is copied to the device when it is first needed."""

    def to(self, device: Any) -> torch.Tensor:
        return torch.empty(256, dtype=torch.float32, device=device)


def torchao(case: dict[str, Any], parameters: list[torch.nn.Parameter]) -> Any:
    from torchao import optim

    # What the compiled step writes is not compared.
    torch.compile = lambda function, **_: lambda *args: None
    name = {"8": "AdamW8bit", "4": "AdamW4bit", "fp8": "AdamWFp8"}[case["bits"]]
    return getattr(optim, name)(parameters, 1e-3)


def rms_norm(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    return lambda rows, weight: LigerRMSNormFunction.apply(
        rows, weight, 1e-6, 0.0, "llama", case["in_place"], None
    )


def layer_norm(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction

    return lambda rows, weight, bias: LigerLayerNormFunction.apply(rows, weight, bias, 1e-6)


def swiglu(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    return lambda gate, up: LigerSiLUMulFunction.apply(gate, up, 1.0, 1.0)


def geglu(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.geglu import LigerGELUMulFunction

    return LigerGELUMulFunction.apply


def rope(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.rope import LigerRopeFunction

    return LigerRopeFunction.apply


def cross_entropy(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction

    return lambda logits, target: LigerCrossEntropyFunction.apply(logits, target, None)[0]


def fused_linear(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    return lambda rows, weight, target: LigerFusedLinearCrossEntropyFunction.apply(rows, weight, target)[0]


def experts(case: dict[str, Any]) -> Any:
    from liger_kernel.ops.fused_moe import LigerFusedMoEFunction

    def call(rows: Any, gate_up: Any, down: Any, index: Any, weights: Any) -> Any:
        flat = rows.view(-1, rows.shape[-1])
        out = LigerFusedMoEFunction.apply(
            flat,
            gate_up,
            down,
            index.view(-1, index.shape[-1]).to(torch.int32),
            weights.view(-1, weights.shape[-1]),
        )
        return out.view(rows.shape)

    return call


def float8(case: dict[str, Any]) -> Any:
    from torchao.float8 import Float8LinearConfig
    from torchao.float8.float8_linear import Float8Linear

    module = torch.nn.Linear(
        case["inputs"], case["outputs"], case["bias"], dtype=getattr(torch, case["weights"])
    )
    made = Float8Linear.from_float(module, Float8LinearConfig.from_recipe_name(case["recipe"]))
    return made, list(made.parameters())


class TRACER(Tracer):
    """Lets torchao's tensors do what they mean to first, and sees that."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__module__.startswith("torchao.") for kind in types):
            return NotImplemented
        return super().__torch_dispatch__(func, types, args, kwargs)
