"""Which keys of torchtune's configs cannot change the memory of a step."""

from __future__ import annotations

import re

#: Read in silence. Keys are those of the recipes' YAML files, with dots (torchtune 0.1 to 0.7).
QUIET = re.compile(
    r"""
    output_dir|seed|lr|shuffle|epochs|max_steps_per_epoch|num_steps|device|resume_from_checkpoint|log_.*|name|log_level
    |metric_logger\..*|profiler\..*|lr_scheduler\..*|save_.*|run_val_every_n_steps|batch_size_val|dataset_val\..*
    |enable_async_checkpointing|use_distributed_state_dict|cudnn_deterministic_mode|clip_grad_norm|debug.*
    |instruct_template|chat_format|base_model_path|apply_chat_template|collate_fn|resize_token_embeddings
    |(teacher_|ref_|ref_policy_|value_|reward_)?checkpointer\..*
    |tokenizer\.(?!max_seq_len).*
    |datasets|dataset\.(?!packed|max_seq_len).*|dataloader\.(?!packed).*
    |optimizer\.(lr|weight_decay|betas|eps|amsgrad|maximize|percentile_clipping|momentum_decay)
    |loss\.(beta|label_smoothing|loss_type|ignore_index|epsilon|value_.*|gamma|kl_coeff)
    |kd_ratio|quantizer|gamma|lmbda|kl_coeff|whiten_rewards|reward_penalty|penalise_no_eos|stop_token_ids
    |min_response_length|temperature|top_k|ppo_epochs|reward_functions.*|training\..*|orchestration\.(?!num_).*
    |(model|policy_model|teacher_model|reward_and_value_model)\.(attn_dropout|norm_eps|rope_base|image_size)
    |inference\..*|postprocessing\..*|tasks|limit|prompt.*|max_new_tokens|enable_kv_cache
    """,
    re.VERBOSE,
)
