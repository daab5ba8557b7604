"""mlx-lm on a Mac or an NVIDIA card as an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.mixers import Attention, LatentAttention, Recurrent
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.capability import capability_named, is_below
from willfit.engines.context import context_term
from willfit.engines.mlx.cache import Growth, Kept, reach
from willfit.engines.mlx.eras import NEWEST
from willfit.engines.mlx.models import support
from willfit.engines.mlx.moments import Moment, Run, bytes_of, limits_of, moments
from willfit.engines.mlx.settings import Settings
from willfit.engines.mlx.sources import EVALUATION, SOURCES
from willfit.engines.mlx.tape import described
from willfit.engines.mlx.weights import Held, held
from willfit.engines.solving import largest
from willfit.engines.support import model_note, model_refusal, too_long
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term, between, exact
from willfit.formats.ggml import Ggml
from willfit.hardware.device import Device
from willfit.quantities import format_bytes

NAME = "mlx"

#: Dtypes of a question's cache, and the bits of MLX's quantized caches.
_CACHE_BITS = {"int8": 8, "int4": 4}

#: Types whose weights in fp8 are turned into 16 bits while they are loaded (`sanitize` in their modules).
_EXPANDING = frozenset({
    "deepseek_v3", "deepseek_v32", "kimi_k2", "mimo_v2_flash", "minimax", "minimax_m2", "minimax_m3_vl", "ministral3",
    "mistral4",
})  # fmt: skip

#: First version for CUDA, and the lowest architecture with code in MLX's library for it (the wheel 0.32.4).
_CUDA_SINCE = (0, 28, 4)
_CUDA_FROM = 75

#: A suggested context is a multiple of this.
_CONTEXT_STEP = 256

#: More requests than this are not asked of the server.
_MOST_USERS = 1024


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """`mlx_lm.generate` for one user, `mlx_lm.server` for several, each with a prompt that nearly fills the context.

    Raises
    ------
    BadInput
        If the cache is asked for in a dtype that MLX has none in.
    """
    bits = _CACHE_BITS.get(question.kv_dtype)
    if bits is None and question.kv_dtype not in ("auto", subject.architecture.dtype):
        raise BadInput(
            f"MLX has no {question.kv_dtype} cache", f"its quantized caches are {' and '.join(_CACHE_BITS)}"
        )
    context = question.context_for(subject.architecture)
    settings = Settings(
        program="generate" if question.users == 1 else "server",
        version=question.version or NEWEST,
        prompt_tokens=max(1, context - 1),
        kv_bits=bits,
        draft=subject.draft is not None,
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What an mlx-lm process would allocate.

    Parameters
    ----------
    subject
        The model as stored, with the one that drafts for it.
    machine
        The first of its devices is used.
    settings
        Under the programs' own names.
    users
        Requests at once, each with such a prompt.

    Raises
    ------
    BadInput
        If no device is given.
    """
    if not machine.devices:
        raise BadInput("MLX needs a device", "name one with --gpu 'm4 max 64g'")
    if settings.prompt_tokens is None:
        context = Question().context_for(subject.architecture)
        settings = replace(settings, prompt_tokens=max(1, context - settings.max_tokens))
    process = Process(subject, machine.devices[0], settings)
    refusal = process.refusal
    shown = [
        DeviceEstimate(device.name, index, device.usable_bytes, ())
        for index, device in enumerate(machine.devices)
    ]
    if not refusal:
        shown[0] = replace(shown[0], terms=process.terms(users))
    fits = not refusal and process.device.usable_bytes is not None
    capacity = process.capacity(users) if fits else None
    stored = process.held.stored
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve" if settings.serves else "generate",
        devices=tuple(shown),
        host=DeviceEstimate(
            "host",
            0,
            None if process.device.unified_memory else machine.host_bytes,
            (),
            page_cache=(
                exact(
                    "model_files", stored, f"{stored} B of files", SOURCES.cite("weights", settings.version)
                ),
            ),
        ),
        capacity=capacity,
        notes=(*subject.notes, *subject.recipe.notes, *process.notes(users, len(machine.devices))),
        refusal=refusal,
        remedies=() if refusal else process.remedies(shown[0], capacity, users),
        details={
            "context": process.context,
            "users": users,
            "sequences": process.sequences(users),
            "moment": "" if refusal else process.worst(users).name,
            "prefill_step_size": settings.prefill_step_size or settings.era.chunk,
            "era": settings.era,
        },
    )


@dataclass(frozen=True, slots=True)
class Process:
    """One process on one device."""

    subject: Subject
    device: Device
    settings: Settings

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        return (self.settings.prompt_tokens or 1) + self.settings.max_tokens

    @property
    def held(self) -> Held:
        """The main model's weights."""
        return held(self.subject, self.settings.program == "vlm", _expands(self.subject))

    def sequences(self, users: int) -> int:
        """Requests that are computed together."""
        if self.settings.program == "benchmark":
            return self.settings.batch
        return min(users, self.settings.decode_concurrency) if self.settings.batched else 1

    def run(self, users: int, subject: Subject | None = None) -> Run:
        """The main model's passes, or those of a model that drafts."""
        found = subject or self.subject
        ratios = held(found, False, _expands(found)).ratios
        limits = limits_of(self.device, self.settings.era)
        return Run(found.architecture, self.settings, ratios, limits, self.sequences(users))

    def worst(self, users: int) -> Moment:
        """When memory peaks."""
        return max(moments(self.run(users)), key=lambda moment: moment.bytes)

    def terms(self, users: int) -> tuple[Term, ...]:
        """What is allocated at the peak."""
        version, moment = self.settings.version, self.worst(users)
        terms = [_weights(self.subject, self.held, "weights", version), *_caches(moment, version)]
        terms.append(
            between(
                "activations",
                moment.transient_bytes,
                moment.least,
                moment.most,
                f"{moment.name}: {described(moment.alive)}",
                f"{EVALUATION}; {SOURCES.cite('layers', version)}",
            )
        )
        if self.settings.draft and self.subject.draft is not None:
            terms += self._draft(self.subject.draft, users)
        kept = self.kept_prompts(users)
        if kept is not None:
            terms.append(kept)
        if self.device.vendor == "NVIDIA":
            terms.append(context_term(self.device))
        return tuple(term for term in terms if term.high_bytes)

    def kept_prompts(self, users: int) -> Term | None:
        """Caches of prompts that are finished: none at first, one for each user from the second turn on."""
        count = self.settings.kept_prompts
        if not count:
            return None
        run = self.run(users)
        growth = run.growth(run.last, 1)
        each = run.kept(growth, run.quantized(run.last))
        size = bytes_of(each)
        likely = min(users, count)
        most = count * size
        if self.settings.prompt_cache_bytes is not None:
            most = min(most, self.settings.prompt_cache_bytes)
            likely = min(likely, most // max(size, 1))
        formula = f"{likely} finished prompts x ({_joined(each)})"
        reference = SOURCES.cite("prompts", self.settings.version)
        return between("prompt_cache", likely * size, 0, most, formula, reference)

    def _draft(self, draft: Subject, users: int) -> list[Term]:
        version = self.settings.version
        run = self.run(users, draft)
        growth: Growth = run.growth(run.last, 1)
        each = run.kept(growth, run.quantized(run.last))
        size = bytes_of(each)
        return [
            _weights(draft, held(draft, False, _expands(draft)), "draft", version),
            exact("draft_cache", size, _joined(each), SOURCES.cite("drafts", version)),
        ]

    @property
    def refusal(self) -> str:
        """Why it would not start, or not go on."""
        architecture, settings = self.subject.architecture, self.settings
        version = settings.version
        if self.device.vendor not in ("Apple", "NVIDIA", ""):
            return f"MLX has no backend for {self.device.vendor}; llama.cpp does"
        if self.device.vendor == "NVIDIA" and parse_version(version) < _CUDA_SINCE:
            since = ".".join(map(str, _CUDA_SINCE))
            return f"mlx-lm {version} runs on Apple silicon only; with CUDA since {since}"
        if self.device.vendor == "NVIDIA" and is_below(self.device, _CUDA_FROM):
            return (
                f"MLX runs on cards of {capability_named(_CUDA_FROM)} and newer; llama.cpp runs on older ones"
            )
        if missing := model_refusal(NAME, architecture, version, support(architecture, version)):
            return missing
        if ended := too_long(architecture, self.context):
            return ended
        return self._format_refusal() or self._cache_refusal()

    def _format_refusal(self) -> str:
        recipe, era = self.subject.recipe, self.settings.era
        if isinstance(recipe.base, Ggml):
            return "mlx-lm does not load GGUF files; llama.cpp does"
        if recipe.rule is None or recipe.method in ("mlx", "") or recipe.method in era.loads:
            return ""
        if _expands(self.subject):
            return ""
        return (
            f"mlx-lm {self.settings.version} does not load {recipe.method} checkpoints; take one that was converted "
            "(--format mlx4)"
        )

    def _cache_refusal(self) -> str:
        settings = self.settings
        mixers = [mixer for layer, _ in self.subject.architecture.blocks for mixer in layer.mixers]
        if settings.draft and any(mixer.fixed_states for mixer in mixers):
            return "mlx-lm drafts only where caches can be shortened; recurrent states cannot"
        run = self.run(1)
        if not run.quantized(run.last):
            return ""
        if any(reach(mixer) for mixer in mixers) or run.growth(1, 1).limit:
            return (
                f"mlx-lm does not quantize caches with a window, and stops at {settings.quantized_kv_start:,} tokens "
                "(--kv-bits, --quantized-kv-start)"
            )
        latent = any(isinstance(mixer, LatentAttention) for mixer in mixers)
        if latent and settings.era.keeps_latent(self.subject.architecture.model_type):
            return "mlx-lm does not quantize caches of latents (--kv-bits)"
        widths = {mixer.head_dim for mixer in mixers if isinstance(mixer, Attention)}
        if uneven := [width for width in widths if width % settings.kv_group_size]:
            return f"heads of {uneven[0]} numbers cannot be quantized in groups of {settings.kv_group_size}"
        return ""

    def notes(self, users: int, devices: int) -> list[str]:
        """What a reader should know."""
        settings, architecture = self.settings, self.subject.architecture
        notes = [*model_note(NAME, architecture, settings.version, support(architecture, settings.version))]
        if devices > 1:
            notes.append(
                f"{devices - 1} of the devices are not used; mlx.launch spreads a model over several Macs"
            )
        if users > 1 and not settings.batched:
            notes.append("requests are computed one after the other")
        elif users > self.sequences(users):
            notes.append(f"{self.sequences(users)} requests are computed at once, the others wait")
        if not settings.serves and settings.era.kept_prompts:
            notes.append(
                f"mlx_lm.server also keeps the caches of up to {settings.era.kept_prompts} finished prompts"
            )
        if self.device.vendor == "Apple":
            notes.append(
                "memory that MLX has freed stays with it until 95 % of the working set are in use, and shows as used"
            )
        elif self.device.vendor == "NVIDIA":
            notes.append(
                "how far MLX runs ahead of a card is not established: anything from nothing to its limit"
            )
        if settings.program == "vlm":
            notes.append("what encoders of images and sound hold while they run is not counted")
        elif architecture.towers:
            notes.append("mlx-lm leaves out the encoders of images and sound; mlx-vlm loads them")
        rough = {mixer.kind for layer, _ in architecture.blocks for mixer in layer.mixers if _roughly(mixer)}
        if rough:
            notes.append(f"what layers of {', '.join(sorted(rough))} hold over a prompt is counted roughly")
        if _expands(self.subject):
            notes.append(f"weights in fp8 are turned into {architecture.dtype} while they are loaded")
        return notes

    def capacity(self, users: int) -> Capacity:
        """The longest prompt of one user, and how many users of the asked context fit."""
        usable = self.device.usable_bytes or 0

        def excess(context: int, many: int) -> float:
            prompt = max(1, context - self.settings.max_tokens)
            asked = replace(self, settings=replace(self.settings, prompt_tokens=prompt, batch=many))
            return sum(term.bytes for term in asked.terms(many)) - usable

        limit = self.subject.architecture.max_positions or self.context
        longest = largest(lambda context: excess(context, 1), limit)
        many = 1
        if self.settings.batched:
            many = min(self.settings.decode_concurrency, _MOST_USERS)
        fitting = largest(lambda count: excess(self.context, count), many)
        return Capacity(max(fitting * self.context, longest), longest, float(fitting))

    def remedies(self, place: DeviceEstimate, capacity: Capacity | None, users: int) -> tuple[str, ...]:
        """What would make it fit, if it does not."""
        if capacity is None or place.usable_bytes is None or place.peak_bytes <= place.usable_bytes:
            return ()
        settings, found = self.settings, []
        longest = capacity.max_context // _CONTEXT_STEP * _CONTEXT_STEP
        if 0 < longest < self.context:
            found.append(f"a context of {longest:,} tokens for one user")
        if 1 <= capacity.max_concurrency < users:
            found.append(f"{capacity.max_concurrency:.0f} users at {self.context:,} tokens")
        chunk = settings.prefill_step_size or settings.era.chunk
        if chunk > 512:
            found.append("parts of 512 tokens for the prompt (--prefill-step-size 512)")
        if settings.kv_bits is None and not replace(self, settings=replace(settings, kv_bits=8)).refusal:
            found.append("an 8-bit cache (--kv-bits 8)")
        if self.subject.recipe.rule is None:
            found.append("4-bit weights (--format mlx4)")
        short = place.peak_bytes - place.usable_bytes
        if self.device.vendor == "Apple":
            found.append(
                f"a working set of {format_bytes(short)} more (sudo sysctl iogpu.wired_limit_mb=...)"
            )
        return tuple(found)


def _weights(subject: Subject, found: Held, name: str, version: str) -> Term:
    less, more = subject.weight_sureness
    formula = f"{found.stored} B of tensors ({subject.recipe.name})"
    if found.bytes != found.stored:
        formula += f" + {found.bytes - found.stored} B to whole pages"
    reference = SOURCES.cite("weights", version)
    size = found.bytes
    return between(name, size, int(size * less), int(size * more), formula, reference)


def _caches(moment: Moment, version: str) -> list[Term]:
    """Keys and values, and states of a fixed size."""
    terms = []
    for name, rule, states in (("kv_cache", "cache", False), ("recurrent_state", "states", True)):
        size, parts = 0, []
        for count, kept in ((moment.sequences, moment.kept), moment.others):
            chosen = tuple(one for one in kept if (not one.tokens) == states)
            if count and chosen:
                size += count * bytes_of(chosen)
                parts.append(f"{count} sequences x ({_joined(chosen)})")
        if size:
            terms.append(exact(name, size, " + ".join(parts), SOURCES.cite(rule, version)))
    return terms


def _joined(kept: tuple[Kept, ...]) -> str:
    return " + ".join(one.formula for one in kept)


def _roughly(mixer: object) -> bool:
    return isinstance(mixer, Recurrent) and mixer.kind != "gated delta" and mixer.recurrent > 0


def _expands(subject: Subject) -> bool:
    return subject.recipe.method == "fp8" and subject.architecture.model_type in _EXPANDING
