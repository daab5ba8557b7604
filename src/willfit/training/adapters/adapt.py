"""A model with an adapter of PEFT: what is trained, what is kept beside it, and what the wrapped modules do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from willfit.architectures.model import Architecture, Kind
from willfit.errors import BadInput
from willfit.training.adapters import xlora
from willfit.training.adapters.dtypes import adapter_dtype
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.matching import matches, select
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module, find_modules
from willfit.training.adapters.moe import remap
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Adapted, Added, Held
from willfit.training.adapters.saved import saved_modules, trained_biases
from willfit.training.adapters.targets import default_targets
from willfit.training.parameters import Parameter
from willfit.training.settings import AdapterSettings

#: The newest version that was read.
NEWEST_PEFT = (0, 21, 2)
#: Dtype of the stream where what is not quantized is held in float32.
WIDE = "float32"
#: Routed experts are one parameter from this version of transformers.
FUSED_EXPERTS = (5, 0)

_MODULES = (
    "lora", "lycoris", "orthogonal", "rotations", "projections", "shared", "spectral", "vectors", "deltas", "low_rank",
    "subspaces",
)  # fmt: skip
#: Other names of methods.
ALIASES: dict[str, tuple[str, dict[str, object]]] = {
    "qlora": ("lora", {}), "dora": ("lora", {"use_dora": True}), "rslora": ("lora", {}),
    "lora_fa": ("lora", {"lora_fa": True}), "mica": ("lora", {"init_lora_weights": "mica"}),
    "bdlora": ("lora", {}), "qalora": ("lora", {"use_qalora": True}), "pissa": ("lora", {}),
    "prefix_tuning": ("prefix", {}), "prompt_tuning": ("prompt", {}), "llama_adapter": ("adaption_prompt", {}),
    "multitask_prompt_tuning": ("multitask_prompt", {}), "trainable-tokens": ("trainable_tokens", {}),
}  # fmt: skip


@cache
def methods() -> Mapping[str, Method]:
    """Every method that wraps modules, by PEFT's name in lower case."""
    package = __name__.rpartition(".")[0]
    found: dict[str, Method] = {}
    for name in _MODULES:
        for method in import_module(f"{package}.{name}").METHODS:
            found[method.kind] = method
    return found


def adapt(
    architecture: Architecture,
    settings: AdapterSettings,
    *,
    peft: tuple[int, ...] = NEWEST_PEFT,
    transformers: tuple[int, ...] = FUSED_EXPERTS,
    model_dtype: str = "bfloat16",
    quantized: bool = False,
    gptq: bool = False,
    autocast: str | None = None,
    forwards: bool = True,
) -> Adapted:
    """What an adapter adds to a model.

    Parameters
    ----------
    architecture
        The model.
    settings
        The adapter as asked for.
    peft, transformers
        Versions.
    model_dtype
        Dtype of what is not quantized, and of activations.
    quantized
        The adapted weights are stored in integers.
    gptq
        Those integers are GPTQ's.
    autocast
        Dtype that products are computed in under autocast; None without.
    forwards
        Whether to describe forwards too.

    Raises
    ------
    BadInput
        The method or an option is not known, nothing is targeted, or sizes do not fit.
    """
    kind, implied = ALIASES.get(settings.kind, (settings.kind, {}))
    dtype = adapter_dtype(model_dtype, quantized, peft, settings.dtype, kind)
    fused = transformers[: len(FUSED_EXPERTS)] >= FUSED_EXPERTS
    found = find_modules(architecture, fused)
    if kind == "xlora":
        mine = {name: value for name, value in settings.options.items() if name in xlora.DEFAULTS}
        rest = {name: value for name, value in settings.options.items() if name not in mine}
        single = adapt(
            architecture, replace(settings, kind="lora", options=rest), peft=peft, transformers=transformers,
            model_dtype=model_dtype, quantized=quantized, gptq=gptq, autocast=autocast, forwards=forwards,
        )  # fmt: skip
        return xlora.combine(single, {**xlora.DEFAULTS, **mine}, architecture.hidden_size)
    if kind not in methods():
        return _prompt(kind, architecture, settings, implied, peft, model_dtype, found)
    method = methods()[kind]
    options = _options(method, settings, implied)
    ask = Ask(architecture, settings, options, peft, (), model_dtype, quantized, gptq)
    targets = settings.targets or default_targets(method.targets, architecture.model_type, peft)
    exclude = tuple(str(name) for name in options.get("exclude_modules") or ())
    if fused and kind == "lora":
        targets, options, parameters = remap(architecture.model_type, targets, options, peft, transformers)
        exclude = (*exclude, *parameters)
        ask = replace(ask, options=options)
    kinds = method.kinds
    modules = select(
        found, targets, exclude=exclude, saved=settings.modules_to_save,
        layers=options.get("layers_to_transform"),
        kinds=tuple(one for one in kinds if one not in ("experts", "weight")),
    )  # fmt: skip
    named = options.get("target_parameters") or ()
    if named:
        modules = (*modules, *_by_parameter(found, tuple(named)))
    if not modules:
        raise BadInput(
            f"{settings.kind}: no module of {architecture.model_type} is named {', '.join(targets)}; "
            f"its modules are {', '.join(sorted({module.leaf for module in found}))}"
        )
    ask = replace(ask, modules=modules)
    return _assemble(method, ask, found, dtype, model_dtype, autocast, forwards)


def _assemble(
    method: Method,
    ask: Ask,
    found: tuple[Module, ...],
    dtype: str,
    model_dtype: str,
    autocast: str | None,
    forwards: bool,
) -> Adapted:
    trainable: list[Parameter] = []
    held: list[Held] = []
    if method.shared:
        common = method.shared(ask, ask.modules)
        trainable.extend(_parameters(common, "base_model.", None, 1))
        held.extend(common.held)
    described: dict[str, AdapterForward] = {}
    known: dict[tuple[object, ...], AdapterForward] = {}
    for module in ask.modules:
        added = method.added(ask, module)
        trainable.extend(_parameters(added, module.name + ".", module, module.copies))
        held.extend(
            Held(f"{module.name}.{own.name}", own.shape, own.dtype, own.copies * module.copies, own.place)
            for own in added.held
        )
        if forwards:
            alike = (module.kind, module.inputs, module.outputs, module.biased, *added.trained.values())
            if alike not in known:
                known[alike] = _forward(method, ask, module, model_dtype, dtype, autocast)
            described[module.name] = known[alike]
    own = (*saved_modules(ask, found), *trained_biases(ask, found))
    return Adapted(tuple(trainable), own, tuple(held), ask.modules, described, dtype)


def _forward(
    method: Method, ask: Ask, module: Module, model_dtype: str, dtype: str, autocast: str | None
) -> AdapterForward:
    """A module's forward. A quantized module returns the dtype of its input, which may be wider than the model's."""
    alike = ask.quantized and module.kind in LINEAR_AND_CONV1D
    written = [
        method.forward(ask, module, Recorder(module.inputs, module.outputs, given, dtype, autocast, alike))
        for given in ((model_dtype, WIDE) if ask.quantized and model_dtype != WIDE else (model_dtype,))
    ]
    return replace(written[0], wide=written[1]) if len(written) > 1 else written[0]


def _parameters(added: Added, prefix: str, module: Module | None, copies: int) -> Iterator[Parameter]:
    part = module.part if module else "mlp"
    for name, shape in added.trained.items():
        kind: Kind = "linear" if len(shape) > 1 else "other"
        yield Parameter(prefix + name, shape, part, kind, copies)


def _options(method: Method, settings: AdapterSettings, implied: Mapping[str, object]) -> dict[str, Any]:
    """Defaults, then what the record's own fields say, then its options."""
    options: dict[str, Any] = dict(method.defaults) | dict(implied)
    if settings.rank is not None and "r" in options:
        options["r"] = settings.rank
    if settings.use_dora:
        options["use_dora"] = True
    options |= settings.options
    return options


def _prompt(
    kind: str,
    architecture: Architecture,
    settings: AdapterSettings,
    implied: Mapping[str, object],
    peft: tuple[int, ...],
    model_dtype: str,
    found: tuple[Module, ...],
) -> Adapted:
    from willfit.training.adapters.prompts import PROMPT_OPTIONS, PROMPTS

    method = PROMPTS.get(kind)
    if method is None:
        from difflib import get_close_matches

        known = sorted({*methods(), *PROMPTS, *ALIASES, "xlora", "full"})
        near = get_close_matches(str(settings.kind), known, 3, 0.5) or ["full", "lora", "qlora"]
        raise BadInput(f"adapter {settings.kind!r} is not known", f"the closest names: {', '.join(near)}")
    options = {**PROMPT_OPTIONS, **implied, **settings.options}
    ask = Ask(architecture, settings, options, peft)
    made = method(ask)
    return replace(
        made, own=saved_modules(ask, found), dtype=model_dtype if made.dtype == "model" else made.dtype
    )


def _by_parameter(found: tuple[Module, ...], named: tuple[str, ...]) -> tuple[Module, ...]:
    """`target_parameters`: fused experts, or the weight of a module (`gate.weight`)."""
    hits = []
    for module in found:
        if module.kind == "experts" and matches(module.name, named):
            hits.append(module)
        elif module.kind in ("linear", "router") and matches(module.name + ".weight", named):
            hits.append(replace(module, kind="weight"))
    return tuple(hits)
