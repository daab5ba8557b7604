"""TRL's SFTTrainer with LoRA, on a dataset that is made here."""

import sys

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

rows = Dataset.from_dict({"input_ids": [list(range(1, 20 + index % 7)) for index in range(64)]})
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[2], pad_token="<pad>", eos_token="</s>")
trainer = SFTTrainer(
    model=sys.argv[1],
    args=SFTConfig(
        "out",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=5,
        bf16=True,
        logging_steps=1,
        max_length=64,
        model_init_kwargs={"dtype": "bfloat16"},
    ),
    train_dataset=rows,
    processing_class=tokenizer,
    peft_config=LoraConfig(r=4, target_modules="all-linear"),
)
trainer.train()
trainer.save_model()
