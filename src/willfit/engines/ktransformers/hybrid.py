"""SGLang with kt-kernel: SGLang's own start-up without the experts that lie in RAM, and what kt-kernel adds."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Tensor
from willfit.engines import sglang
from willfit.engines.base import Machine, Subject
from willfit.engines.experts import expert_bytes, expert_layers, most_experts, with_experts
from willfit.engines.ktransformers.host import METHODS, experts_term, staging_term, workspace_term
from willfit.engines.ktransformers.models import sglang_ahead
from willfit.engines.ktransformers.settings import Settings
from willfit.engines.ktransformers.sources import SOURCES
from willfit.engines.sglang.defaults import resolve
from willfit.engines.sglang.eras import era_for as sglang_era
from willfit.engines.sglang.sizing import model_dtype, smallest_device
from willfit.engines.support import others
from willfit.errors import BadInput
from willfit.estimate import DeviceEstimate, Estimate, Term, between
from willfit.formats.ggml import Ggml
from willfit.formats.plain import Plain
from willfit.formats.weights import WeightLine
from willfit.quantities import DTYPE_BYTES, ceil_div

#: Which format of a checkpoint each method reads as it is; the others have files that were converted for them.
_READS = {
    "BF16": ("bf16", "fp16", "fp32"),
    "FP8": ("fp8 block",),
    "RAWINT4": ("w4a16 g32",),
    "MXFP4": ("mxfp4",),
    "MXFP8": ("mxfp8",),
    "FP8_PERCHANNEL": ("fp8",),
    "GPTQ_INT4": ("gptq", "int4"),
}


def own_method(subject: Subject, settings: Settings) -> str | None:
    """The method that reads the checkpoint's experts as they are; None if the version has none."""
    names = {line.format.name for line in subject.lines if line.tensor.part == "experts"}
    for method, prefixes in _READS.items():
        if method in settings.era.methods and names and all(name.startswith(prefixes) for name in names):
            return method
    return None


def estimate_hybrid(subject: Subject, machine: Machine, settings: Settings, users: int) -> Estimate:
    """What SGLang with kt-kernel would allocate.

    Raises
    ------
    BadInput
        If there is no such method, or SGLang's settings are wrong.
    """
    if settings.kt_method not in METHODS:
        raise BadInput(f"unknown --kt-method {settings.kt_method}", f"known: {', '.join(METHODS)}")
    ahead, version = sglang_ahead(subject.architecture, settings.version), settings.version
    serving = settings.serving if ahead is None else replace(settings.serving, version=ahead)
    device = smallest_device(machine, serving)
    resolved = resolve(serving, subject.architecture, device, sglang_era(serving.version))
    dtype = model_dtype(subject, serving, device)
    hidden, kept = subject.architecture.hidden_size, _on_cards(subject, settings)
    rows, width = resolved.chunk, DTYPE_BYTES[dtype]
    staged = _staged(with_experts(subject, kept), rows, dtype)
    found = sglang.estimate(staged, machine, serving, users)
    refusal = _refusal(subject, settings) or found.refusal
    beside = [] if refusal else _beside(subject, settings, resolved.context_length, rows, hidden, width)
    host = DeviceEstimate("host", 0, machine.host_bytes, ())
    if not refusal:
        longest = resolved.context_length
        host = replace(
            found.host,
            terms=(
                *found.host.terms,
                experts_term(subject, settings),
                workspace_term(subject, settings, rows, longest),
                staging_term(hidden, settings, rows, longest),
            ),
        )
    return replace(
        found,
        model=subject.model,
        engine="ktransformers",
        engine_version=version,
        devices=tuple(_with(place, beside if not refusal else []) for place in found.devices),
        host=host,
        notes=(*found.notes, *_notes(subject, settings, kept, serving.version)),
        refusal=refusal,
        remedies=_remedies(found, host, settings, kept),
        details={
            **found.details,
            "sglang": serving.version,
            "kt_method": settings.kt_method,
            "kt_num_gpu_experts": kept,
            "era": settings.era,
        },
    )


def _on_cards(subject: Subject, settings: Settings) -> int:
    """Experts of each layer that are on cards, on the average of all layers rounded up."""
    most = most_experts(subject)
    if settings.kt_gpu_experts_ratio is not None:
        layers = max(1, expert_layers(subject))
        return min(most, ceil_div(int(layers * most * settings.kt_gpu_experts_ratio), layers))
    return min(most, settings.kt_num_gpu_experts)


def _staged(subject: Subject, rows: int, dtype: str) -> Subject:
    """The model with the buffer that experts' inputs are put in, which is there before SGLang sizes its pools."""
    shape = (rows, subject.architecture.hidden_size)
    tensor, stored = Tensor("(experts' inputs)", shape, "mlp", "other"), Plain(dtype)
    line = WeightLine(tensor, 1, stored, stored.bytes(shape))
    return replace(subject, lines=(*subject.lines, line))


def _beside(
    subject: Subject, settings: Settings, longest: int, rows: int, hidden: int, width: int
) -> list[Term]:
    """What kt-kernel takes on a card after SGLang's pools."""
    version, count = settings.version, min(rows, longest)
    size = 2 * count * hidden * width
    reference = SOURCES.cite("staging", version)
    formula = f"2 buffers x {count} tokens x {hidden} x {width} B"
    terms = [between("expert_exchange", size, 0, 2 * size, formula, reference)]
    threshold = settings.kt_gpu_prefill_token_threshold
    if settings.era.layerwise and threshold and longest >= threshold:
        ranks = settings.serving.tp_size
        whole = ceil_div(expert_bytes(subject), max(1, expert_layers(subject)))
        each = ceil_div(whole, ranks)
        formula = f"{each} B of all experts of a layer" + (f" on one of {ranks} ranks" if ranks > 1 else "")
        reference = SOURCES.cite("layerwise", version)
        # Copies into the kernels' layout come and go.
        terms.append(between("prefill_experts", each, each, 2 * each, formula, reference))
    return terms


def _with(place: DeviceEstimate, beside: list[Term]) -> DeviceEstimate:
    interval = place.interval
    if interval is not None and beside:
        size = sum(term.bytes for term in beside)
        below = sum(term.bytes - term.low_bytes for term in beside)
        above = sum(term.high_bytes - term.bytes for term in beside)
        interval = interval[0] + size - below, interval[1] + size + above
    return replace(place, terms=(*place.terms, *beside), interval=interval)


def _refusal(subject: Subject, settings: Settings) -> str:
    era, version = settings.era, settings.version
    if "sglang" not in era.programs:
        return f"KTransformers {version} does not go with SGLang; 0.4 and later do"
    if not most_experts(subject):
        return f"KTransformers is for models with routed experts; {others(subject.architecture)}"
    if isinstance(subject.recipe.base, Ggml):
        return (
            "SGLang loads attention from the model's own files; GGUF files hold the experts alone "
            "(--kt-method LLAMAFILE)"
        )
    if settings.kt_method not in era.methods:
        return (
            f"KTransformers {version} has no --kt-method {settings.kt_method}; "
            f"it has {', '.join(sorted(era.methods))}"
        )
    return ""


def _notes(subject: Subject, settings: Settings, kept: int, release: str) -> list[str]:
    notes = [
        f"SGLang {release} serves, with {kept} of {most_experts(subject)} experts of a layer on cards",
        "kt-kernel holds all experts in RAM, those on cards as well",
        "what Python and CUDA take of RAM is not counted",
    ]
    method, prefixes = settings.kt_method, _READS.get(settings.kt_method)
    names = sorted({line.format.name for line in subject.lines if line.tensor.part == "experts"})
    if prefixes and not all(name.startswith(prefixes) for name in names):
        notes.append(f"--kt-method {method} reads other weights than {', '.join(names)} (--kt-weight-path)")
    if method.startswith("AMX"):
        notes.append(
            "experts come from files that were converted (--kt-weight-path); the processor needs AMX"
        )
    if method == "LLAMAFILE" and settings.kt_weight_format is None:
        notes.append("experts are taken to be Q4_K_M; their folder's name says otherwise")
    if method.startswith("MOE_"):
        notes.append("how the general kernels pad matrices is not established")
    if settings.kt_gpu_prefill_token_threshold and not settings.era.layerwise:
        notes.append("--kt-gpu-prefill-token-threshold came with 0.5.2; it is set aside")
    return notes


def _remedies(found: Estimate, host: DeviceEstimate, settings: Settings, kept: int) -> tuple[str, ...]:
    first = []
    short = any(place.verdict in ("does_not_fit", "tight") for place in found.devices)
    if settings.serving.max_total_tokens is None:
        short = short or any(demand.verdict != "fits" for demand in found.demands)
    if short and kept:
        first.append("fewer experts on cards (--kt-num-gpu-experts 0)")
    if host.verdict in ("does_not_fit", "tight") and settings.kt_method in (
        "BF16",
        "FP8",
        "AMXINT8",
        "MXFP8",
    ):
        first.append("experts in 4 bits (--kt-method AMXINT4)")
    return (*first, *found.remedies)
