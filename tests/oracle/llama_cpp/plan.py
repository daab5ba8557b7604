"""One question to the library: load a header without its data, make a context, and read what it would allocate."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping, Sequence
from typing import Any

from .ggml import Ggml
from .graph import read_graph
from .library import MAX_DEVICES, BuftOverride, ContextParams, Library, LogCallback, ModelParams
from .logs import read_log

_FLASH_ATTENTION = {"auto": -1, False: 0, True: 1}
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_CONTEXT_TYPES = {"default": 0, "mtp": 1}
_POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}

#: Experts of a layer (`LLM_FFN_EXPS_REGEX` in common/common.h), as `--cpu-moe` and `--n-cpu-moe` match them.
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"

#: Settings that are fields of the model's parameters under the same name.
_MODEL_FIELDS = ("main_gpu", "use_extra_bufts", "no_host", "load_mtp")
#: Settings that are fields of the context's parameters: under which name.
_CONTEXT_FIELDS = {
    "n_ctx": "n_ctx",
    "n_batch": "n_batch",
    "n_ubatch": "n_ubatch",
    "n_parallel": "n_seq_max",
    "n_rs_seq": "n_rs_seq",
    "n_outputs_max": "n_outputs_max",
    "n_outputs_max_per_seq": "n_outputs_max_per_seq",
    "embeddings": "embeddings",
    "offload_kqv": "offload_kqv",
    "op_offload": "op_offload",
    "swa_full": "swa_full",
    "kv_unified": "kv_unified",
}
_OTHERS = frozenset({
    "n_gpu_layers", "split_mode", "tensor_split", "cpu_moe", "n_cpu_moe", "override_tensor", "flash_attn",
    "cache_type_k", "cache_type_v", "ctx_type", "pooling", "causal_attn",
})  # fmt: skip
SETTINGS = frozenset({*_MODEL_FIELDS, *_CONTEXT_FIELDS, *_OTHERS})

#: `swa_full` is off and a context is as long as the model's in llama.cpp's own programs, unlike in the library.
_PROGRAM_DEFAULTS: dict[str, Any] = {"n_ctx": 0, "swa_full": False}


class Refused(Exception):
    """The library did not load the model or make the context."""


class Plan:
    """A model and a context that exist in the library, with nothing allocated.

    Parameters
    ----------
    path
        The file that `write_gguf` wrote.
    settings
        Names of `SETTINGS`; what is absent is llama.cpp's default.
    devices
        Addresses of the devices to use.
    buffer_types
        Addresses of buffer types by name, for `override_tensor`.
    """

    def __init__(
        self,
        library: Library,
        path: str,
        settings: Mapping[str, Any],
        devices: Sequence[int] = (),
        buffer_types: Mapping[str, int] | None = None,
    ) -> None:
        if unknown := sorted(set(settings) - SETTINGS):
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        self.library = library
        self.settings = {**_PROGRAM_DEFAULTS, **settings}
        self.buffer_types = {"CPU": library.base.ggml_backend_cpu_buffer_type(), **(buffer_types or {})}
        self._lines: list[str] = []
        self._callback = LogCallback(
            lambda _level, text, _data: self._lines.append(text.decode(errors="replace"))
        )
        library.llama.llama_log_set(self._callback, None)
        self._kept: list[Any] = []
        model_params = self._model_params(devices)
        self.model = library.llama.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            raise Refused(self.log)
        self.context_params = self._context_params()
        self.context = library.llama.llama_init_from_model(self.model, self.context_params)
        if not self.context:
            raise Refused(self.log)

    @property
    def log(self) -> str:
        """All that the library has logged."""
        return "".join(self._lines)

    def _model_params(self, devices: Sequence[int]) -> ModelParams:
        params = self.library.llama.llama_model_default_params()
        params.no_alloc = True
        params.load_mode = 0  # a plan maps no file
        for name in _MODEL_FIELDS:
            if name in self.settings:
                setattr(params, name, self.settings[name])
        layers = self.settings.get("n_gpu_layers", "all")
        params.n_gpu_layers = -1 if layers == "all" else layers
        params.split_mode = _SPLIT_MODES[self.settings.get("split_mode", "layer")]
        params.devices = self._address((c.c_void_p * (len(devices) + 1))(*devices, None))
        if split := self.settings.get("tensor_split"):
            params.tensor_split = self._address((c.c_float * MAX_DEVICES)(*split))
        overrides = [
            BuftOverride(pattern.encode(), self.buffer_types[name]) for pattern, name in self._overrides()
        ]
        if overrides:
            array = (BuftOverride * (len(overrides) + 1))(*overrides, BuftOverride(None, None))
            params.tensor_buft_overrides = self._address(array)
        return params

    def _overrides(self) -> list[tuple[str, str]]:
        found = [(pattern, name) for pattern, name in self.settings.get("override_tensor", ())]
        if self.settings.get("cpu_moe"):
            found.append((_EXPERTS, "CPU"))
        found.extend((rf"blk\.{i}{_EXPERTS}", "CPU") for i in range(self.settings.get("n_cpu_moe", 0)))
        return found

    def _context_params(self) -> ContextParams:
        params = self.library.llama.llama_context_default_params()
        for name, field in _CONTEXT_FIELDS.items():
            if name in self.settings:
                setattr(params, field, self.settings[name])
        params.flash_attn_type = _FLASH_ATTENTION[self.settings.get("flash_attn", "auto")]
        params.type_k = self.library.type_number(self.settings.get("cache_type_k", "f16"))
        params.type_v = self.library.type_number(self.settings.get("cache_type_v", "f16"))
        params.ctx_type = _CONTEXT_TYPES[self.settings.get("ctx_type", "default")]
        if "pooling" in self.settings:
            params.pooling_type = _POOLING[self.settings["pooling"]]
        if "causal_attn" in self.settings:
            params.attention_type = 0 if self.settings["causal_attn"] else 1
        return params

    def _address(self, array: c.Array[Any]) -> int:
        self._kept.append(array)
        return c.addressof(array)

    @property
    def scheduler(self) -> int:
        """The context's `ggml_backend_sched`."""
        return int(self.library.scheduler_of(self.context))

    def answer(self) -> dict[str, Any]:
        """Everything as plain values: bytes by buffer type, sizes as logged, and what was settled."""
        llama, base = self.library.llama, self.library.base
        names = ("n_ctx", "n_ctx_seq", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")
        found = read_log(self.log)
        return {
            **self.library.breakdown(self.context),
            **found,
            **{name: getattr(llama, f"llama_{name}")(self.context) for name in names},
            "n_layer": llama.llama_model_n_layer(self.model),
            "n_swa": llama.llama_model_n_swa(self.model),
            "tensor_bytes": llama.llama_model_size(self.model),
            "parameters": llama.llama_model_n_params(self.model),
            "sched_copies": base.ggml_backend_sched_get_n_copies(self.scheduler),
            "flash_attn": self.context_params.flash_attn_type != 0 and not found["flash_attn_refused"],
        }

    def graph(self, ggml: Ggml, which: str | Sequence[int]) -> dict[str, Any]:
        """A graph with its memory planned; see `read_graph`.

        Parameters
        ----------
        which
            `prompt` and `token` are those of `llama_context::sched_reserve`; else tokens, sequences and outputs.
        """
        llama = self.library.llama
        sequences = llama.llama_n_seq_max(self.context)
        tokens = min(llama.llama_n_ctx(self.context), llama.llama_n_ubatch(self.context))
        outputs = self.settings.get("n_outputs_max") or llama.llama_n_batch(self.context)
        if which == "prompt":
            shape = (tokens, sequences, min(tokens, outputs))
        elif which == "token":
            shape = (sequences,) * 3
        else:
            shape = tuple(which)
        sizes = self.reserve(*shape)
        return {"shape": shape, "sizes": sizes, **read_graph(ggml, self.scheduler)}

    def reserve(self, tokens: int, sequences: int, outputs: int) -> list[int]:
        """Plan a graph's memory and return bytes by backend (`llama_context::graph_reserve`)."""
        memory = c.c_void_p()
        if cache := self.library.llama.llama_get_memory(self.context):
            # llama_memory_i::init_full: behind two destructors and init_batch in the table of virtual functions
            table = c.cast(c.c_void_p.from_address(cache).value or 0, c.POINTER(c.c_void_p))
            init_full = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_void_p)(table[3] or 0)
            init_full(c.addressof(memory), cache)
        sizes = (c.c_size_t * MAX_DEVICES)()
        if not self.library.graph_reserve(
            self.context, tokens, sequences, outputs, memory.value, True, c.addressof(sizes)
        ):
            raise Refused(self.log)
        return [size for size in sizes if size]
