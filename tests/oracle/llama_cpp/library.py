"""The pinned llama.cpp library through ctypes: struct layouts, and the functions that the planner calls.

The layouts are those of `include/llama.h`, `ggml/include/ggml.h`, `ggml/src/ggml-backend-impl.h` and, for the graph
dump, the private structs of `ggml/src/ggml-backend.cpp` and `ggml-alloc.c`, of llama.cpp 0.5.0. `check_layouts` holds
those of the parameters against the library's own defaults.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

#: Where `set_up.sh` puts the libraries.
HOME = Path(__file__).parents[3] / ".oracle-llama.cpp"
#: The release whose layouts these are.
RELEASE = "v0.5.0"

MAX_DEVICES = 16

LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


class ModelParams(c.Structure):
    """`llama_model_params`."""

    _fields_ = (
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int32),
        ("load_mode", c.c_int32),
        ("lazy_mode", c.c_int32),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", c.c_void_p),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("check_tensors", c.c_bool),
        ("use_extra_bufts", c.c_bool),
        ("no_host", c.c_bool),
        ("no_alloc", c.c_bool),
        ("load_mtp", c.c_bool),
    )


class ContextParams(c.Structure):
    """`llama_context_params`."""

    _fields_ = (
        ("n_ctx", c.c_uint32),
        ("n_batch", c.c_uint32),
        ("n_ubatch", c.c_uint32),
        ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32),
        ("n_outputs_max_per_seq", c.c_uint32),
        ("n_threads", c.c_int32),
        ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int32),
        ("rope_scaling_type", c.c_int32),
        ("pooling_type", c.c_int32),
        ("attention_type", c.c_int32),
        ("flash_attn_type", c.c_int32),
        ("rope_freq_base", c.c_float),
        ("rope_freq_scale", c.c_float),
        ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float),
        ("yarn_beta_fast", c.c_float),
        ("yarn_beta_slow", c.c_float),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", c.c_void_p),
        ("cb_eval_user_data", c.c_void_p),
        ("type_k", c.c_int32),
        ("type_v", c.c_int32),
        ("abort_callback", c.c_void_p),
        ("abort_callback_data", c.c_void_p),
        ("embeddings", c.c_bool),
        ("offload_kqv", c.c_bool),
        ("no_perf", c.c_bool),
        ("op_offload", c.c_bool),
        ("swa_full", c.c_bool),
        ("kv_unified", c.c_bool),
        ("samplers", c.c_void_p),
        ("n_samplers", c.c_size_t),
        ("ctx_other", c.c_void_p),
    )


class QuantizeParams(c.Structure):
    """`llama_model_quantize_params`."""

    _fields_ = (
        ("nthread", c.c_int32),
        ("ftype", c.c_int32),
        ("output_tensor_type", c.c_int32),
        ("token_embedding_type", c.c_int32),
        ("allow_requantize", c.c_bool),
        ("quantize_output_tensor", c.c_bool),
        ("only_copy", c.c_bool),
        ("pure", c.c_bool),
        ("keep_split", c.c_bool),
        ("dry_run", c.c_bool),
        ("imatrix", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("tt_overrides", c.c_void_p),
        ("prune_layers", c.c_void_p),
        ("max_buf_size", c.c_size_t),
    )


class BuftOverride(c.Structure):
    """`llama_model_tensor_buft_override`."""

    _fields_ = (("pattern", c.c_char_p), ("buft", c.c_void_p))


#: What the library's own defaults must read as, if the layouts are right (`llama_*_default_params`).
_DEFAULTS: dict[type[c.Structure], dict[str, Any]] = {
    ModelParams: {
        "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0, "vocab_only": False,
        "check_tensors": False, "use_extra_bufts": True, "no_host": False, "no_alloc": False, "load_mtp": False,
    },
    ContextParams: {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0,
        "n_outputs_max_per_seq": 1, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1,
        "flash_attn_type": -1, "yarn_orig_ctx": 0, "defrag_thold": -1.0, "type_k": 1, "type_v": 1,
        "embeddings": False, "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True,
        "kv_unified": False, "samplers": None, "n_samplers": 0, "ctx_other": None,
    },
    QuantizeParams: {
        "nthread": 0, "ftype": 7, "allow_requantize": False, "quantize_output_tensor": True, "only_copy": False,
        "pure": False, "keep_split": False, "dry_run": False, "imatrix": None, "prune_layers": None,
    },
}  # fmt: skip


def _load(folder: Path, *patterns: str) -> c.CDLL:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            return c.CDLL(str(path), mode=c.RTLD_GLOBAL)
    raise FileNotFoundError(f"{folder} has no {patterns[0]}")


class Library:
    """llama.cpp with its CPU backend loaded.

    Parameters
    ----------
    folder
        Where the shared libraries are.
    cpu
        The variant of the CPU backend (`haswell` has AVX2). Which weights are repacked depends on it, so it is fixed,
        not chosen for the machine at hand. A build with a single variant has it linked in.
    """

    def __init__(self, folder: Path = HOME / RELEASE, cpu: str = "haswell") -> None:
        if not folder.exists():
            raise FileNotFoundError(f"{folder} is missing: run tests/oracle/llama_cpp/set_up.sh")
        self.base = _load(folder, "libggml-base.so")
        self.ggml = _load(folder, "libggml.so", "libggml.v*.so")
        self.llama = _load(folder, "libllama.so", "libllama.v*.so")
        self._declare()
        self.ggml.ggml_backend_load.restype = c.c_void_p
        variant = folder / f"libggml-cpu-{cpu}.so"
        linked = (folder / "libggml-cpu.so").exists()
        if not linked and not self.ggml.ggml_backend_load(str(variant).encode()):
            raise OSError(f"the CPU backend {cpu} does not load on this machine")
        self.check_layouts()

    def _declare(self) -> None:
        llama, base, ggml = self.llama, self.base, self.ggml
        llama.llama_model_default_params.restype = ModelParams
        llama.llama_context_default_params.restype = ContextParams
        llama.llama_model_quantize_default_params.restype = QuantizeParams
        llama.llama_model_load_from_file.argtypes = [c.c_char_p, ModelParams]
        llama.llama_model_load_from_file.restype = c.c_void_p
        llama.llama_init_from_model.argtypes = [c.c_void_p, ContextParams]
        llama.llama_init_from_model.restype = c.c_void_p
        llama.llama_model_quantize.argtypes = [c.c_char_p, c.c_char_p, c.POINTER(QuantizeParams)]
        llama.llama_log_set.argtypes = [LogCallback, c.c_void_p]
        llama.llama_version.restype = c.c_char_p
        llama.llama_get_memory.argtypes = [c.c_void_p]
        llama.llama_get_memory.restype = c.c_void_p
        for name in ("n_ctx", "n_ctx_seq", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq"):
            getattr(llama, f"llama_{name}").argtypes = [c.c_void_p]
            getattr(llama, f"llama_{name}").restype = c.c_uint32
        for name in ("size", "n_params"):
            getattr(llama, f"llama_model_{name}").argtypes = [c.c_void_p]
            getattr(llama, f"llama_model_{name}").restype = c.c_uint64
        for name in ("n_layer", "n_layer_nextn", "n_ctx_train", "n_swa"):
            getattr(llama, f"llama_model_{name}").argtypes = [c.c_void_p]
        # C++ functions that return a std::map or a smart pointer take the address of the result first.
        self.breakdown_into = self.symbol("_Z26llama_get_memory_breakdownPK13llama_context", None, 2)
        self.scheduler_of = self.symbol("_ZNK13llama_context9get_schedEv", c.c_void_p, 1)
        self.graph_reserve = llama["_ZN13llama_context13graph_reserveEjjjPK22llama_memory_context_ibPm"]
        self.graph_reserve.argtypes = [
            c.c_void_p, c.c_uint32, c.c_uint32, c.c_uint32, c.c_void_p, c.c_bool, c.c_void_p,
        ]  # fmt: skip
        self.graph_reserve.restype = c.c_void_p
        for function in (
            base.ggml_backend_buft_name,
            base.ggml_op_name,
            base.ggml_type_name,
            base.ggml_backend_name,
            base.ggml_op_desc,
        ):
            function.restype = c.c_char_p
        base.ggml_backend_buft_name.argtypes = [c.c_void_p]
        base.ggml_backend_name.argtypes = [c.c_void_p]
        base.ggml_op_desc.argtypes = [c.c_void_p]
        base.ggml_backend_buft_is_host.argtypes = [c.c_void_p]
        base.ggml_backend_buft_is_host.restype = c.c_bool
        base.ggml_backend_sched_get_n_copies.argtypes = [c.c_void_p]
        base.ggml_backend_cpu_buffer_type.restype = c.c_void_p
        base.ggml_backend_dev_buffer_type.argtypes = [c.c_void_p]
        base.ggml_backend_dev_buffer_type.restype = c.c_void_p
        ggml.ggml_backend_register.argtypes = [c.c_void_p]

    def symbol(self, name: str, result: Any, pointers: int) -> Any:
        """A function of libllama by its mangled name, which takes so many pointers."""
        function = self.llama[name]
        function.argtypes = [c.c_void_p] * pointers
        function.restype = result
        return function

    def check_layouts(self) -> None:
        """Compare the structs written out here with the library's defaults.

        Raises
        ------
        OSError
            If a field does not read as the source says: the library is not of the pinned release.
        """
        made = (
            self.llama.llama_model_default_params(),
            self.llama.llama_context_default_params(),
            self.llama.llama_model_quantize_default_params(),
        )
        for params in made:
            for field, expected in _DEFAULTS[type(params)].items():
                if (found := getattr(params, field)) != expected:
                    raise OSError(f"{type(params).__name__}.{field} reads {found} instead of {expected}")

    @cache  # noqa: B019
    def op_name(self, op: int) -> str:
        """`MUL_MAT` for the number of an operation."""
        return self.base.ggml_op_name(op).decode()

    @cache  # noqa: B019
    def type_name(self, kind: int) -> str:
        """`q4_K` for the number of a type."""
        return self.base.ggml_type_name(kind).decode()

    @cache  # noqa: B019
    def type_number(self, name: str) -> int:
        """The number of a type by its name in either case."""
        for number in range(64):
            if (found := self.base.ggml_type_name(number)) and found.decode().lower() == name.lower():
                return number
        raise ValueError(f"ggml has no type {name}")

    def buft_name(self, buft: int) -> str:
        """`CUDA0`, `CUDA_Host`, `CPU`, `CPU_REPACK`."""
        return self.base.ggml_backend_buft_name(buft).decode()

    def breakdown(self, context: int) -> dict[str, dict[str, int]]:
        """Bytes of model, context and compute by buffer type (`llama_get_memory_breakdown`)."""
        tree = c.create_string_buffer(48)
        self.breakdown_into(c.addressof(tree), context)
        parts: dict[str, dict[str, int]] = {"model": {}, "context": {}, "compute": {}}
        for key, *sizes in _tree_entries(tree):
            name = self.buft_name(key)
            for part, size in zip(parts.values(), sizes, strict=True):
                if size:
                    part[name] = part.get(name, 0) + size
        return parts


class _TreeNode(c.Structure):
    """A node of libstdc++'s std::map<pointer, three sizes>."""


_TreeNode._fields_ = (
    ("color", c.c_int),
    ("parent", c.c_void_p),
    ("left", c.POINTER(_TreeNode)),
    ("right", c.POINTER(_TreeNode)),
    ("entry", c.c_size_t * 4),
)


def _tree_entries(tree: c.Array[c.c_char]) -> Iterator[list[int]]:
    """Entries of a std::map in order; its root hangs 16 bytes behind its start."""

    def walk(node: Any) -> Iterator[list[int]]:
        if node:
            yield from walk(node.contents.left)
            yield list(node.contents.entry)
            yield from walk(node.contents.right)

    yield from walk(c.cast(c.c_void_p.from_buffer(tree, 16), c.POINTER(_TreeNode)))
