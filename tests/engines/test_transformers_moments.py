"""What single rules of the moments say, by hand, and the versions at which they begin."""

from __future__ import annotations

from typing import Any

import pytest

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.transformers import Settings
from willfit.engines.transformers.moments import Moment
from willfit.engines.transformers.plan import plan
from willfit.formats.recognise import recipe_for
from willfit.formats.weights import weight_lines
from willfit.hardware.table import find_device

BATCH, PROMPT, NEW = 3, 50, 8
SMALL = {"num_hidden_layers": 2, "vocab_size": 331, "torch_dtype": "bfloat16"}
MIXTRAL = {
    "model_type": "mixtral", **SMALL, "hidden_size": 96, "intermediate_size": 200, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
DEEPSEEK = {
    "model_type": "deepseek_v2", **SMALL, "hidden_size": 256, "intermediate_size": 200, "num_attention_heads": 4,
    "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 6, "first_k_dense_replace": 0, "kv_lora_rank": 8, "q_lora_rank": None,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
MAMBA2 = {
    "model_type": "mamba2", **SMALL, "hidden_size": 96, "num_heads": 6, "head_dim": 32, "state_size": 24,
    "expand": 2, "n_groups": 1, "conv_kernel": 4,
}  # fmt: skip
FALCON = {
    "model_type": "falcon", **SMALL, "hidden_size": 128, "num_attention_heads": 8, "num_kv_heads": 2,
    "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False, "new_decoder_architecture": True,
}  # fmt: skip
T5 = {"model_type": "t5", **SMALL, "d_model": 96, "d_ff": 200, "d_kv": 16, "num_layers": 2, "num_heads": 4}


def moments(fields: dict[str, Any], gpu: str = "H100 SXM5", **settings: Any) -> dict[str, Moment]:
    config = Config(fields)
    architecture = build(config)
    recipe = recipe_for(config, architecture.dtype)
    subject = Subject("model", architecture, recipe, weight_lines(architecture, recipe))
    asked = Settings(
        **{"batch": BATCH, "input_len": PROMPT, "output_len": NEW, "dtype": "bfloat16", **settings}
    )
    found = plan(subject, Machine((find_device(gpu),)), asked).moments
    return {moment.name: moment for moment in found}


def decoded(fields: dict[str, Any], **settings: Any) -> int:
    return moments(fields, **settings)["decoding, last step"].activations


def test_decoding_copies_the_experts_of_each_token_from_5_0_on() -> None:
    copies = BATCH * 2 * 3 * 96 * 200 * 2  # 2 experts of 3 matrices in bf16
    beside = BATCH * (4 * 96 + 2 * (96 + 200)) * 2
    cache = BATCH * 2 * 24 * (PROMPT + NEW - 1) * 2  # one growing tensor
    ids_and_angles = BATCH * (32 + 2 * 24 * 2)
    assert decoded(MIXTRAL, version="5.0.0") == copies + beside + cache + ids_and_angles
    assert decoded(MIXTRAL, version="4.57.0") < copies
    quantized = {**MIXTRAL, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert decoded(quantized, version="5.0.0") < copies
    assert decoded(quantized, version="5.0.0", gpu="A100 SXM4 80GB") > copies  # expanded to bf16 on loading


def test_a_router_of_deepseek_v2_weights_in_fp32() -> None:
    """Rows on their way: chosen, from the experts, weighted in fp32, and that in order."""
    stage = moments(DEEPSEEK)["prefill, experts"].activations
    rows = BATCH * PROMPT * 6
    hidden = BATCH * PROMPT * 256 * 2
    assert stage == 4 * hidden + rows * (256 * (2 + 2 + 4 + 4) + 32) + BATCH * PROMPT * (32 + 2 * 8 * 2)


@pytest.mark.parametrize(("version", "width"), [("5.13.1", 2), ("5.14.0", 4)])
def test_recurrent_states_are_fp32_from_5_14_on(version: str, width: int) -> None:
    inputs, state = (6 * 32 + 2 * 24) * 4, 6 * 32 * 24
    found = moments(MAMBA2, version=version)
    assert found["prefill, logits"].kv_cache == 2 * BATCH * (inputs * 2 + state * width)


def test_falcon_caches_grouped_keys_for_all_heads() -> None:
    assert moments(FALCON)["prefill, mlp"].kv_cache == 2 * BATCH * PROMPT * 2 * 8 * 16 * 2


def test_scores_of_one_key_for_all_heads_are_there_twice_in_fp32() -> None:
    one = {**FALCON, "new_decoder_architecture": False}
    scores, products = BATCH * PROMPT * PROMPT * 8, BATCH * PROMPT * (8 + 1) * 16
    wide = moments(one)["prefill, attention"].activations
    narrow = moments(one, version="4.45.0")["prefill, attention"].activations
    assert wide > 2 * scores * 4
    # In fp32, queries and keys also before they are scaled; and there is a mask, of truth values.
    assert wide - narrow == 2 * scores * (4 - 2) + products * (2 * 4 - 2) + PROMPT * PROMPT


def test_an_encoder_runs_before_there_is_a_cache() -> None:
    found = moments(T5)
    assert all(not moment.kv_cache for name, moment in found.items() if name.startswith("encoding"))
    # The decoder has one token, its layers 4 heads of 16 for it and for the source.
    assert found["prefill, mlp"].kv_cache == 2 * BATCH * (1 + PROMPT) * 2 * 4 * 16 * 2
    pairs, tokens = PROMPT * PROMPT, BATCH * PROMPT
    assert found["encoding, positions"].activations == pairs * 49 + tokens * ((2 * 96 + 3 * 64) * 2 + 32)
