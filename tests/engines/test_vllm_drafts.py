"""vLLM's drafts: heads and models beside the target, by hand-computed bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from vllm_subjects import EAGLE3, LLAMA_3B, LLAMA_8B, names, sized, subject_of, term

from willfit.architectures.drafts import as_draft
from willfit.checkpoints.config import Config
from willfit.engines.base import Subject
from willfit.engines.subject import subject_from_config
from willfit.engines.vllm.features.drafts import falls_back
from willfit.engines.vllm.options import Draft
from willfit.engines.vllm.settings import Settings
from willfit.errors import BadInput

#: Elements of a Llama-3.1-8B layer without norms.
_ATTENTION = 4096 * (4096 + 1024 + 1024) + 4096 * 4096
_MLP = 3 * 4096 * 14336


def drafted(draft: dict[str, Any] | None, method: str, target: dict[str, Any] = LLAMA_8B) -> Subject:
    subject = subject_of(target)
    if draft is None:
        return subject
    head = subject_from_config("a draft", as_draft(Config(draft, "a draft"), method))
    return replace(subject, draft=head)


def asked(method: str, tokens: int = 3, **settings: Any) -> dict[str, Any]:
    return {
        "draft": Draft(method, "a draft"),
        "speculative_tokens": tokens,
        "max_model_len": 8192,
        **settings,
    }


def test_an_eagle3_head_by_hand() -> None:
    """One layer whose q, k and v take twice the width, a projection from three hidden states, four norms, a head of
    32,000 tokens and an int64 map of them; rotary table of 2048 positions; the token table is the target's.
    """
    subject = drafted(EAGLE3, "eagle3")
    found = term(sized(subject, version="0.20.0", **asked("eagle3")), "draft")
    layer = 2 * 4096 * (4096 + 1024 + 1024) + 4096 * 4096 + _MLP
    parameters = layer + 3 * 4096 * 4096 + 4 * 4096 + 32000 * 4096
    buffers = 2048 * 128 * 2 + 4 * 4 + 8 * 32000
    assert found.bytes == 2 * parameters + buffers


def test_an_eagle_head_shares_table_and_head() -> None:
    """A layer without its first norm, and a projection from twice the width."""
    config = {**EAGLE3, "architectures": ["LlamaForCausalLM"], "draft_vocab_size": None}
    found = term(sized(drafted(config, "eagle"), version="0.20.0", **asked("eagle")), "draft")
    assert found.bytes == 2 * (_ATTENTION + _MLP + 4096 + 2 * 4096 * 4096) + 2048 * 128 * 2 + 16


def test_a_whole_model_drafts_with_a_table_and_cache_of_its_own() -> None:
    """28 layers of 8 heads of 128 join the target's 32: 60 x 2 x 8 x 128 x 2 B x 16 tokens a block."""
    subject = drafted(LLAMA_3B, "draft_model")
    sizing = sized(subject, version="0.20.0", **asked("draft_model"))
    plain = sized(subject_of(LLAMA_3B), version="0.20.0", max_model_len=8192)
    alone = term(plain, "weights").bytes - plain.after_loading_bytes
    # Rotary tables of one dim, length and dtype exist once.
    assert term(sizing, "draft").bytes == alone - 131072 * 128 * 2
    assert sizing.plan.bytes_per_block == 60 * 16 * 2 * 8 * 128 * 2
    assert sizing.blocks < sized(subject_of(LLAMA_8B), version="0.20.0", max_model_len=8192).blocks


def test_an_eagle_head_adds_its_layers_to_the_cache() -> None:
    sizing = sized(drafted(EAGLE3, "eagle3"), version="0.20.0", **asked("eagle3"))
    assert sizing.plan.bytes_per_block == 33 * 16 * 2 * 8 * 128 * 2
    on_two = sized(drafted(EAGLE3, "eagle3"), version="0.20.0", tensor_parallel=2, **asked("eagle3"))
    assert 2 * on_two.plan.bytes_per_block == sizing.plan.bytes_per_block


def test_the_proposer_holds_states_for_each_token() -> None:
    """A hidden state and an embedding, outside the budget because they are allocated before its first reading; the
    V2 runner of 0.29 holds states alone, and that version counts all that is gone.
    """
    subject = drafted(EAGLE3, "eagle3")
    for version, tensors, counted in (("0.9.1", 1, False), ("0.22.0", 2, False), ("0.29.0", 1, True)):
        sizing = sized(subject, version=version, **asked("eagle3"))
        assert term(sizing, "draft_buffers").bytes == tensors * 8192 * 4096 * 2
        assert ("draft_buffers" in names(sizing.inside)) == counted


def test_the_drafts_distribution_is_kept_if_tokens_are_drawn_from_it() -> None:
    """1024 sequences x 3 tokens x 128,256 logits, in fp32 until 0.29 and then in 16 bits."""
    subject = drafted(EAGLE3, "eagle3")
    for version, each in (("0.26.0", 4), ("0.29.0", 2)):
        plain = term(sized(subject, version=version, **asked("eagle3")), "draft_buffers").bytes
        draft = Draft("eagle3", "a draft", probabilistic=True)
        drawn = sized(subject, version=version, **{**asked("eagle3"), "draft": draft})
        assert term(drawn, "draft_buffers").bytes - plain == 1024 * 3 * 128256 * each


@pytest.mark.parametrize(
    ("config", "method", "elements"),
    [
        # Three heads, each a residual layer and a vocabulary.
        (
            {
                "model_type": "medusa",
                "hidden_size": 4096,
                "vocab_size": 128256,
                "num_heads": 3,
                "num_hidden_layers": 1,
            },
            "medusa",
            3 * (4096 * 4096 + 128256 * 4096),
        ),
        # Two stages of a table, a projection, a norm's scale and shift and a head, 1024 wide.
        (
            {
                "model_type": "mlp_speculator",
                "vocab_size": 128256,
                "emb_dim": 4096,
                "inner_dim": 1024,
                "n_predict": 2,
            },
            "draft_model",
            2 * (2 * 128256 * 1024 + 2 * 1024) + 4096 * 1024 + 1024 * 1024,
        ),
    ],
)
def test_heads_for_several_tokens_keep_no_cache(config: dict[str, Any], method: str, elements: int) -> None:
    subject = drafted({**config, "torch_dtype": "bfloat16"}, method)
    sizing = sized(subject, version="0.9.1", generation="v0", **asked(method))
    assert term(sizing, "draft").bytes == 2 * elements
    assert sizing.plan.bytes_per_block == 32 * 16 * 2 * 8 * 128 * 2


def test_a_draft_that_is_not_known_widens_the_interval() -> None:
    plain = sized(subject_of(LLAMA_8B), version="0.20.0", max_model_len=8192)
    unknown = sized(drafted(None, "draft_model"), version="0.20.0", **asked("draft_model"))
    found = term(unknown, "draft")
    assert (found.low_bytes, found.high_bytes) == (0, term(plain, "weights").bytes // 2)
    assert unknown.pool_interval[0] < plain.pool_interval[0]
    # An unknown head is taken for one layer of the target.
    head = sized(drafted(None, "eagle3"), version="0.20.0", **asked("eagle3"))
    assert head.plan.bytes_per_block == 33 * 16 * 2 * 8 * 128 * 2


def test_words_of_the_prompt_draft_without_a_model() -> None:
    sizing = sized(subject_of(LLAMA_8B), version="0.20.0", **asked("ngram"))
    assert {"draft", "draft_buffers"}.isdisjoint(names((*sizing.inside, *sizing.outside)))


@pytest.mark.parametrize(
    ("version", "method", "generation", "words"),
    [
        ("0.14.0", "draft_model", "v1", "does not draft by draft_model"),
        ("0.15.0", "draft_model", "v1", ""),
        ("0.33.0", "medusa", "v1", "does not draft by medusa"),
        ("0.9.1", "draft_model", "v0", ""),
        ("0.9.1", "eagle3", "v1", ""),
    ],
)
def test_which_engine_drafts(version: str, method: str, generation: str, words: str) -> None:
    sizing = sized(drafted(None, method), version=version, **asked(method))
    assert sizing.resolved.era.generation == generation
    assert words in sizing.refusal if words else sizing.refusal == ""


def test_an_explicit_engine_is_not_left() -> None:
    settings = Settings(version="0.9.1", generation="v1", draft=Draft("draft_model", "a draft"))
    assert not falls_back(subject_of(LLAMA_8B), settings)


def test_draft_and_target_must_have_one_vocabulary() -> None:
    other = {**LLAMA_3B, "vocab_size": 32000}
    assert "vocabularies" in sized(drafted(other, "draft_model"), **asked("draft_model")).refusal


def test_modules_that_predict_several_tokens_use_the_models_table() -> None:
    """DeepSeek-V3 stores a table and a head in its module: 129,280 x 7168 each, of which 0.16 loads neither."""
    config = {
        "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 4, "first_k_dense_replace": 3, "num_attention_heads": 128, "num_key_value_heads": 128,
        "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 129280,
        "max_position_embeddings": 163840, "num_nextn_predict_layers": 1, "torch_dtype": "bfloat16",
    }  # fmt: skip
    subject = subject_of(config)
    drafts = {"mtp": True, "speculative_tokens": 1, "draft": Draft("mtp"), "tensor_parallel": 8}
    older, newer = (
        term(sized(subject, version=version, **drafts), "weights").bytes for version in ("0.15", "0.16")
    )
    assert older - newer == 2 * 129280 * 7168 // 8


def test_a_head_that_names_no_states_is_refused() -> None:
    with pytest.raises(BadInput, match="target_layer_ids"):
        drafted({**LLAMA_8B, "architectures": ["Qwen3ForCausalLM"], "dflash_config": {}}, "dflash")


def test_a_dflash_head_takes_the_states_of_the_layers_that_it_lists() -> None:
    config = {
        **EAGLE3,
        "architectures": ["DFlashDraftModel"],
        "dflash_config": {"target_layer_ids": [1, 8, 15, 22, 29]},
    }
    found = term(sized(drafted(config, "dflash"), version="0.25.0", **asked("dflash")), "draft")
    parameters = _ATTENTION + _MLP + 2 * 4096 + 5 * 4096 * 4096 + 2 * 4096
    assert found.bytes == 2 * parameters + 2048 * 128 * 2 + 16


def test_speculators_keep_the_decoders_fields_apart() -> None:
    wrapped = {
        "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3", "draft_vocab_size": 32000,
        "transformer_layer_config": {key: value for key, value in EAGLE3.items() if key != "draft_vocab_size"},
    }  # fmt: skip
    apart = drafted(wrapped, "eagle3").draft
    flat = drafted(EAGLE3, "eagle3").draft
    assert apart is not None
    assert flat is not None
    assert apart.weight_bytes == flat.weight_bytes
