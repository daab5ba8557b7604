"""The metadata of a predicted header: what llama.cpp reads for sizes.

Sources: `set_gguf_parameters` in `conversion/*.py` (what is written) and `load_arch_hparams` in `src/models/*.cpp`
(what is read) of llama.cpp 0.5.0.
"""

from __future__ import annotations

from willfit.conversion.keys.attention import attention_keys
from willfit.conversion.keys.experts import mlp_keys
from willfit.conversion.keys.recurrent import recurrent_keys
from willfit.conversion.keys.source import Keys, Source
from willfit.conversion.keys.special import special_keys
from willfit.file_types import NUMBERS

__all__ = ["Source", "metadata"]

#: A context that state-space models are written with: they have no limit of their own.
_NO_LIMIT = 2**20
_UNLIMITED = frozenset({"mamba", "mamba2", "nemotron_h", "nemotron_h_moe"})
#: Falcon's config has none.
_FALCON_CONTEXT = 2048


def metadata(source: Source, file_type: str) -> dict[str, object]:
    """The keys of a header that decide about memory."""
    architecture = source.architecture
    keys: Keys = {
        "block_count": len(source.written.layers),
        "context_length": _context(source),
        "embedding_length": architecture.hidden_size,
        "vocab_size": architecture.vocab_size,
        "attention.layer_norm_rms_epsilon": source.config.number("rms_norm_eps", "norm_eps", default=1e-6),
        "attention.layer_norm_epsilon": source.config.number(
            "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", default=1e-5
        ),
    }
    keys |= mlp_keys(source) | attention_keys(source) | recurrent_keys(source)
    if source.written.drafts:
        keys["nextn_predict_layers"] = source.written.drafts
    if source.config.raw("is_causal") is False:
        keys["attention.causal"] = False
    keys |= special_keys(source)
    general = {
        "general.architecture": source.name,
        "general.type": "model",
        "general.file_type": NUMBERS[file_type],
    }
    return general | {_full(source.name, key): value for key, value in keys.items()}


def _full(name: str, key: str) -> str:
    """The key under the architecture's name; activation parameters of xIELU stand without."""
    return key if key.startswith("xielu.") else f"{name}.{key}"


def _context(source: Source) -> int:
    if source.name in _UNLIMITED or (source.name == "granitehybrid" and not source.architecture.ropes):
        return _NO_LIMIT
    if source.name == "falcon":
        return _FALCON_CONTEXT
    table = source.outside("position_embd.weight")
    if source.name == "bert" and table is not None:
        return table.ne[1]
    return source.architecture.max_positions or _NO_LIMIT
