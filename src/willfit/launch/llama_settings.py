"""From flags of llama.cpp's programs to the engine's settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from willfit.checkpoints.checkpoint import Checkpoint
from willfit.engines.llama_cpp.graph.pictures import Encoder
from willfit.engines.llama_cpp.loading.projectors import encoder_of
from willfit.engines.llama_cpp.settings import Backend, Drafting
from willfit.errors import BadInput
from willfit.launch.base import DraftModel
from willfit.launch.llama_options import AUTO, FALSE, TRUE, number, truth
from willfit.launch.values import choice

#: Types of the cache (`common/arg.cpp: kv_cache_types`); the fork has two more.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_FORK_CACHE_TYPES = (*CACHE_TYPES, "q6_0", "q8_KV")

#: Builds from which `-ngl -1` leaves the choice to the program, and `-fa` takes a value.
_AUTO_LAYERS, FLASH_VALUE = 7600, 6325

#: How the names of devices and of their buffers begin.
_BACKENDS: dict[str, Backend | None] = {
    "CUDA": "cuda", "ROCm": "rocm", "HIP": "rocm", "Vulkan": "vulkan", "SYCL": "sycl", "Metal": "metal",
    "MTL": "metal", "MUSA": None, "CANN": "cann", "OPENCL": "opencl", "GPUOpenCL": "opencl", "HTP": "hexagon",
    "WebGPU": None, "BLAS": None,
}  # fmt: skip
_DEVICE = re.compile(rf"({'|'.join(_BACKENDS)})(\d*)", re.IGNORECASE)
_BUFFER = re.compile(rf"CPU|(?:{'|'.join(_BACKENDS)})\d*|RPC.*")

#: Ways of drafting that need memory, by their names over the years; look-ups in the text do not.
_DRAFTS = {
    "draft": "draft", "draft-simple": "draft", "draft-mtp": "mtp", "mtp": "mtp", "draft-eagle3": "eagle3",
    "eagle3": "eagle3", "draft-dflash": "dflash", "dflash": "dflash", "draft-dspark": "dflash",
}  # fmt: skip
_LOOKUPS = re.compile(r"none|ngram-(simple|map-k|map-k4v|mod|cache)|suffix")

LOADING = {
    "auto": {}, "mmap": {"mmap": True}, "none": {"mmap": False}, "mlock": {"mmap": False, "mlock": True},
    "mmap+mlock": {"mmap": True, "mlock": True}, "dio": {"mmap": False, "direct_io": True},
}  # fmt: skip


class Reading:
    """One command's flags on their way to settings.

    Parameters
    ----------
    program
        How to call the program in errors.
    options
        Values by flag.
    build
        The build of llama.cpp, which decides what some values mean.
    fork
        Whether it is ik_llama.cpp.

    Attributes
    ----------
    notes
        What a reader should know of values.
    """

    def __init__(self, program: str, options: Mapping[str, Any], build: int, fork: bool = False) -> None:
        self.program, self.options, self.build, self.fork = program, options, build, fork
        self.notes: list[str] = []

    def given(self, *names: str) -> Any:
        """The value of the first flag that is given, all of which are looked at; None without."""
        values = [self.options[name] for name in names if name in self.options]
        return values[0] if values else None

    def numbers(self) -> dict[str, Any]:
        """Sizes: context, batches, sequences, layers, threads, what the server keeps."""
        settings: dict[str, Any] = {}
        for names, field, least in (
            (("--ctx-size",), "n_ctx", 0),
            (("--batch-size",), "n_batch", 1),
            (("--ubatch-size",), "n_ubatch", 0),
            (("--main-gpu",), "main_gpu", 0),
            (("--n-cpu-moe",), "n_cpu_moe", 0),
            (("--ctx-checkpoints",), "ctx_checkpoints", 0),
            (("--cache-ram",), "cache_ram_mib", -1),
            (("--fit-ctx",), "fit_ctx", 0),
            (("--image-max-tokens",), "image_tokens", -1),
            (("--mla-use",), "mla", 0),
            (("--attention-max-batch",), "max_attention_mib", 0),
        ):
            text = self.given(*names)
            if text is not None:
                settings[field] = number(self.program, names[0], str(text), least, self.notes)
        if settings.get("n_ubatch") == 0:  # as large as the batch
            settings["n_ubatch"] = settings.get("n_batch")
        if settings.get("image_tokens", 1) < 1:
            del settings["image_tokens"]
        text = self.given("--gpu-layers")
        if text is not None:
            settings["n_gpu_layers"] = self.layers("--gpu-layers", str(text))
        threads = [
            number(self.program, name, str(text), -(2**31), self.notes)
            for name in ("--threads", "--threads-batch")
            if (text := self.given(name)) is not None
        ]
        if threads and min(threads) > 0 and "--threads" in self.options:
            settings["n_threads"] = max(threads)
        return settings

    def layers(self, flag: str, text: str) -> Any:
        """Layers on devices; None where the number leaves it to the program."""
        if text in ("auto", "all"):
            return text
        value = number(self.program, flag, text, -(2**31), self.notes)
        if value >= 0:
            return value
        if self.build >= _AUTO_LAYERS and not self.fork:
            return "auto" if value == -1 else "all"
        return None if value == -1 else "all"

    def switches(self) -> dict[str, Any]:
        """What is on or off, each where it differs from the usual."""
        settings: dict[str, Any] = {}
        for flag, usual, field, value in (
            ("--kv-offload", False, "kv_offload", False),
            ("--no-kv-offload", True, "kv_offload", False),
            ("--op-offload", False, "op_offload", False),
            ("--repack", False, "repack", False),
            ("--no-host", True, "no_host", True),
            ("--cpu-moe", True, "cpu_moe", True),
            ("--swa-full", True, "swa_full", True),
            ("--mmproj-offload", False, "mmproj_offload", False),
            ("--no-mmproj-offload", True, "mmproj_offload", False),
            ("--mlock", True, "mlock", True),
            ("--mmap", False, "mmap", False),
            ("--no-mmap", True, "mmap", False),
            ("--direct-io", True, "direct_io", True),
            ("--run-time-repack", True, "run_time_repack", True),
            ("--fused-moe", True, "fused_moe", True),
            ("--no-fused-moe", True, "fused_moe", False),
        ):
            if self.given(flag) is usual:
                settings[field] = value
        if self.given("--kv-unified") is not None:
            settings["kv_unified"] = self.options["--kv-unified"]
        embeds, pooling = self.given("--embedding") is True, self.given("--pooling")
        if self.given("--rerank") is True or (embeds and pooling == "rank"):
            settings |= {"embeddings": True, "reranking": True}
        elif embeds:
            settings["embeddings"] = True
        if settings.get("direct_io"):
            settings["mmap"] = False
        mode = self.given("--load-mode")
        if mode is not None:
            settings |= LOADING[mode]
        return settings

    def words(self) -> dict[str, Any]:
        """What is named: types, splits, devices, places of tensors."""
        settings: dict[str, Any] = {}
        for side in ("k", "v"):
            text = self.given(f"--cache-type-{side}")
            if text is not None:
                settings[f"cache_type_{side}"] = self.cache_type(f"--cache-type-{side}", str(text))
        if self.given("--memory-f32"):
            settings |= {"cache_type_k": "f32", "cache_type_v": "f32"}
        flash = self.given("--flash-attn")
        if flash is not None:
            settings["flash_attn"] = self._flash(flash)
        if self.given("--no-flash-attn"):
            settings["flash_attn"] = "off"
        mode = self.given("--split-mode")
        if mode is not None:
            settings["split_mode"] = self.split_mode(str(mode))
        shares = self.given("--tensor-split")
        if shares is not None:
            settings["tensor_split"] = self.shares("--tensor-split", str(shares))
        fit = self.given("--fit")
        if fit is not None:
            settings["fit"] = fit if isinstance(fit, bool) else truth(self.program, "--fit", str(fit))
        margin = self.given("--fit-target", "--fit-margin")
        if margin is not None:
            parts = re.split(r"[,/]+", str(margin))
            settings["fit_target_mib"] = tuple(
                number(self.program, "--fit-target", part, 0, self.notes) for part in parts
            )
        devices = self.given("--device")
        if devices is not None:
            settings["devices"], backend = self.devices("--device", str(devices))
            if backend is not None:
                settings["backend"] = backend
        servers = tuple(one for text in self.given("--rpc") or () for one in text.split(",") if one)
        if servers:
            settings["rpc_servers"] = servers
        overrides = self._overrides()
        if overrides:
            settings["override_tensor"] = overrides
        return settings

    def cache_type(self, flag: str, text: str) -> str:
        """A type of the cache, which the program knows in lower case alone."""
        return choice(self.program, flag, text, _FORK_CACHE_TYPES if self.fork else CACHE_TYPES).lower()

    def _flash(self, value: Any) -> str:
        if value is True:
            if self.build >= FLASH_VALUE and not self.fork:
                self.notes.append(f"-fa takes on, off or auto since b{FLASH_VALUE}; it is read as on")
            return "on"
        if value in TRUE:
            return "on"
        if value in FALSE:
            return "off"
        if value in AUTO:
            return "auto"
        raise BadInput(f"{self.program}: --flash-attn is {str(value)[:40]!r}, expected on, off or auto")

    def split_mode(self, text: str) -> str:
        """How the model is split over devices."""
        if self.fork and text in ("graph", "attn"):
            self.notes.append(f"--split-mode {text} is counted as layer")
            return "layer"
        return choice(self.program, "--split-mode", text, ("none", "layer", "row", "tensor"))

    def shares(self, flag: str, text: str) -> tuple[float, ...]:
        """Shares of devices: `3,1`, or `3/1`."""
        try:
            shares = tuple(float(part) for part in re.split(r"[,/;]+", text) if part.strip())
        except ValueError:
            shares = ()
        if not shares or min(shares) < 0 or not sum(shares):
            raise BadInput(f"{self.program}: {flag} is {text[:60]!r}, expected shares such as 3,1")
        return shares

    def devices(self, flag: str, text: str) -> tuple[tuple[int, ...], Backend | None]:
        """Indices of devices by their names (`CUDA0,CUDA1`), and the backend that these tell."""
        names = [name.strip() for name in text.split(",") if name.strip()]
        if names == ["none"]:
            return (), None
        indices, backend = [], None
        for name in names:
            found = _DEVICE.fullmatch(name)
            if found is None and not name.startswith("RPC"):
                raise BadInput(
                    f"{self.program}: {flag} names no device {name[:40]}", "write CUDA0,CUDA1 or none"
                )
            if found is None:
                self.notes.append(f"the device {name[:60]} of another machine is not counted")
                continue
            indices.append(int(found[2] or 0))
            kind = next(known for known in _BACKENDS if known.lower() == found[1].lower())
            backend = backend or _BACKENDS[kind]
        if not names:
            raise BadInput(f"{self.program}: {flag} names no devices")
        return tuple(indices), backend

    def _overrides(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a pattern and a buffer, in the order in which the loader tries them."""
        pairs = [pair for text in self.given("--override-tensor") or () for pair in self.pairs(text, ",")]
        text = self.given("--n-cpu-ffn")
        if text is not None:
            # `common.h: LLM_FFN_DENSE_REGEX`
            layers = number(self.program, "--n-cpu-ffn", str(text), 0, self.notes)
            pairs += [(rf"blk\.{layer}\.ffn_(up|down|gate)\.", "CPU") for layer in range(layers)]
        return tuple(pairs)

    def pairs(self, text: str, between: str) -> list[tuple[str, str]]:
        """`pattern=buffer` pairs of one value."""
        found = []
        for part in text.split(between):
            pattern, equals, buffer = part.partition("=")
            if not equals:
                raise BadInput(f"{self.program}: --override-tensor {part[:60]!r} is no PATTERN=BUFFER")
            if _BUFFER.fullmatch(buffer) is None:
                raise BadInput(
                    f"{self.program}: --override-tensor names no buffer {buffer[:40]}",
                    "known: CPU, CUDA0, Vulkan0, ...",
                )
            found.append((pattern, buffer))
        return found

    def adapters(self) -> dict[str, Any]:
        """LoRA adapters, with the bytes of those that can be read here."""
        names = [one for text in self.given("--lora") or () for one in text.split(",")]
        scaled = self.given("--lora-scaled") or []
        # `--lora-scaled FILE SCALE` until December 2025, `FILE:SCALE,...` since.
        names += [
            one.rpartition(":")[0] or one for text in scaled for one in text.split(",") if not _is_scale(one)
        ]
        if not names:
            return {}
        sizes = [tensor_bytes(name) for name in names]
        missing = [name for name, size in zip(names, sizes, strict=True) if size is None]
        if missing:
            self.notes.append(f"adapters that are not here are not counted: {', '.join(missing)[:200]}")
        return {"lora": tuple(names), "lora_bytes": sum(size or 0 for size in sizes)}

    def projector(self, from_hub: bool) -> dict[str, Any]:
        """The projector of a model that sees or hears."""
        path, url = self.given("--mmproj"), self.given("--mmproj-url")
        off = self.given("--mmproj-auto") is False
        device = self.given("--mmproj-device")
        settings: dict[str, Any] = {"mmproj_offload": False} if device == "none" else {}
        if device not in (None, "none"):
            self.notes.append(f"the projector is on {device[:40]} (--mmproj-device); that is not counted")
        if path is None and url is None:
            if from_hub and not off:
                self.notes.append(
                    "if the repository has a projector (mmproj), it is loaded too and is not counted; "
                    "--no-mmproj leaves it out"
                )
            return settings
        size = tensor_bytes(str(path)) if path is not None else None
        if size is None:
            self.notes.append(
                f"the projector {str(path or url)[:120]} cannot be read here; it is not counted"
            )
            return settings
        return {**settings, "mmproj_bytes": size, "mmproj_encoder": encoder_at(str(path))}

    def drafting(self) -> tuple[Drafting | None, DraftModel | None]:
        """How tokens are drafted, and the model that does."""
        path = self.given("--spec-draft-model", "--model-draft")
        repo = self.given("--spec-draft-hf")
        kinds = [one for text in self.given("--spec-type") or () for one in text.split(",")]
        for one in kinds:
            if one not in _DRAFTS and (_LOOKUPS.fullmatch(one) is None and not self.fork):
                raise BadInput(
                    f"{self.program}: there is no --spec-type {one[:40]}", f"known: {', '.join(_DRAFTS)}"
                )
        kind = next((_DRAFTS[one] for one in kinds if one in _DRAFTS), None)
        if self.given("--multi-token-prediction"):
            kind = kind or "mtp"
        settings = self._drafting_settings()
        if path is None and repo is None:
            if kind == "mtp":
                return Drafting(kind="mtp", **settings), None
            if kind is not None:
                self.notes.append(f"--spec-type {kind}: the draft model is not named and is not counted")
            return None, None
        kind = kind or "draft"
        model = f"{repo}:{path}" if repo and path else from_hub(str(repo)) if repo else str(path)
        return Drafting(kind=kind, **settings), DraftModel(model, kind)  # type: ignore[arg-type]

    def _drafting_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        text = self.given("--spec-draft-n-max", "--draft")
        if text is not None:
            settings["n_max"] = number(self.program, "--spec-draft-n-max", str(text), 0, self.notes)
        text = self.given("--spec-draft-ctx-size", "--ctx-size-draft")
        if text is not None and number(self.program, "--ctx-size-draft", str(text), 0, self.notes):
            settings["n_ctx"] = number(self.program, "--ctx-size-draft", str(text), 0, [])
        text = self.given("--spec-draft-ngl", "--gpu-layers-draft")
        if text is not None:
            settings["n_gpu_layers"] = self.layers("--gpu-layers-draft", str(text))
        for side in ("k", "v"):
            text = self.given(f"--spec-draft-type-{side}", f"--cache-type-{side}-draft")
            if text is not None:
                settings[f"cache_type_{side}"] = self.cache_type(f"--cache-type-{side}-draft", str(text))
        text = self.given("--spec-draft-device", "--device-draft")
        if text is not None:
            settings["devices"] = self.devices("--device-draft", str(text))[0]
        return settings


def from_hub(repo: str) -> str:
    """A repository of the Hub as `-hf` names it; without a quantization the program's own choice is meant."""
    return repo if ":" in repo else f"{repo}:latest"


def tensor_bytes(path: str) -> int | None:
    """Bytes of the tensors of a GGUF file on this machine; None if it cannot be read."""
    found = _file_at(path)
    return None if found is None else found.stored_bytes


def encoder_at(path: str) -> Encoder | None:
    """The encoder of a projector's file on this machine; None if it cannot be read or has none for pictures."""
    found = _file_at(path)
    return None if found is None or found.gguf is None else encoder_of(found.gguf)


def _file_at(path: str) -> Checkpoint | None:
    from willfit.checkpoints.folder import read_path

    if not os.path.isfile(os.path.expanduser(path)):
        return None
    try:
        return read_path(path)
    except BadInput:
        return None


def _is_scale(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
