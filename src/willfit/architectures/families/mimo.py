"""MiMo 7B: Qwen 2 with multi-token-prediction layers.

Source: `modeling_mimo.py` as published with XiaomiMiMo/MiMo-7B-Base. A prediction layer is a decoder layer
behind two norms and a projection of the token and of the hidden state, with a norm after it.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import bounded_count
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.families import llama
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a MiMo 7B config."""
    model = llama.build(Config({**config.fields, "model_type": "qwen2"}, config.where), prefix, head_name)
    hidden = model.hidden_size
    last = model.layers[-1]
    block = f"{prefix}.mtp_layers.{{layer}}"
    tensors = tuple(
        replace(tensor, name=tensor.name.replace(f"{prefix}.layers.{{layer}}", block))
        for tensor in last.tensors
    )
    module = replace(
        last,
        tensors=(
            *rms_norm(f"{block}.token_layernorm", hidden),
            *rms_norm(f"{block}.hidden_layernorm", hidden),
            *linear(f"{block}.input_proj", 2 * hidden, hidden, "mtp"),
            *tensors,
            *rms_norm(f"{block}.final_layernorm", hidden),
        ),
    )
    modules = (module,) * bounded_count(config, "num_nextn_predict_layers", default=0)
    return replace(model, model_type="mimo", family="mimo", **mtp_modules(modules))
