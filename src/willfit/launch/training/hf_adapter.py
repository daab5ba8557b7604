"""Adapters and quantized bases, as arguments of scripts ask for them."""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.launch.training.hf_values import any_flag, dtype, first_number, first_whole, names_of
from willfit.launch.training.keys import Keys
from willfit.launch.training.scripts import Script
from willfit.training.settings import AdapterSettings, QuantizationSettings

#: Arguments that turn an adapter on.
_ON = ("use_peft", "use_lora", "use_peft_lora", "use_qlora", "lora_enable", "lora", "q_lora")

#: Arguments that only an adapter has; in scripts of one's own they are enough.
_GIVEN = ("lora_r", "lora_rank", "lora_alpha", "lora_target_modules", "lora_modules", "lora_dim")

_RANKS = ("lora_r", "lora_rank", "lora_dim")

_FOUR = ("load_in_4bit", "use_4bit_quantization", "use_4bit_qunatization", "use_qlora")
_EIGHT = ("load_in_8bit", "use_8bit_quantization", "use_8bit_qunatization")
_DOUBLE = (
    "use_bnb_nested_quant", "use_nested_quant", "double_quant", "use_double_quant", "bnb_4bit_use_double_quant",
)  # fmt: skip


def adapter_of(keys: Keys, script: Script, half: str | None) -> tuple[AdapterSettings | None, list[str]]:
    """The adapter that is asked for, and notes.

    Parameters
    ----------
    keys
        What was given, with the script's defaults.
    script
        Whether it always has one, and its dtype.
    half
        The 16-bit dtype that is computed in; None if none is.
    """
    on = any_flag(keys, _ON)
    method = keys.word("peft_method")
    dim = keys.whole("lora_dim", 0)
    full = keys.flag("full_finetune")
    given = [name for name in _GIVEN if keys.get(name) is not None]
    notes = []
    if script.adapter == "always":
        on = not full
    elif script.adapter == "given" and on is None and given and dim != 0:
        on = True
        notes.append(f"{given[0]} is taken to mean that LoRA is used")
    elif on is None:
        on = bool(dim)
    kind = (method or "lora").lower()
    alone = keys.flag("only_optimize_lora")
    keys.see("lora_module_name")
    if script.framework == "deepspeed" and dim and not alone:
        # `only_optimize_lora` is off by default: the weights are trained beside what is added to them.
        return None, [*notes, f"LoRA of rank {dim} beside weights that are trained, too, is not counted"]
    values = _lora(keys)
    if script.adapter_dtype == "half" and half == "bf16":
        values["dtype"] = half
    if not on:
        return None, notes
    rank = first_whole(keys, _RANKS, 0) or None
    targets = names_of(keys, "lora_target_modules") or names_of(keys, "lora_modules")
    if keys.word("lora_module_name") is not None:
        # All linear layers whose names have it inside: those of the blocks (`convert_linear_layer_to_lora`).
        targets = ("all-linear",)
    return AdapterSettings(
        kind=kind,
        rank=rank,
        targets=("all-linear",) if targets == ("all",) else targets,
        **values,  # type: ignore[arg-type]
    ), notes


def _lora(keys: Keys) -> dict[str, object]:
    found: dict[str, object] = {
        "alpha": first_number(keys, ("lora_alpha",)),
        "dropout": first_number(keys, ("lora_dropout",)) or 0.0,
        "modules_to_save": names_of(keys, "lora_modules_to_save"),
        "use_dora": bool(keys.flag("use_dora")),
        "use_rslora": bool(keys.flag("use_rslora")),
        "bias": keys.word("lora_bias", ("none", "all", "lora_only")) or "none",
    }
    keys.see("lora_task_type")
    return found


def quantization_of(
    keys: Keys, script: Script, half: str | None
) -> tuple[QuantizationSettings | None, list[str]]:
    """How the base is stored, and notes.

    Raises
    ------
    BadInput
        If 4 and 8 bits are both asked for, or a number of bits is none that bitsandbytes has.
    """
    four, eight = bool(any_flag(keys, _FOUR)), bool(any_flag(keys, _EIGHT))
    kind = (
        keys.word("bnb_4bit_quant_type", ("nf4", "fp4")) or keys.word("quant_type", ("nf4", "fp4")) or "nf4"
    )
    double = any_flag(keys, _DOUBLE)
    storage = dtype(keys, "bnb_4bit_quant_storage") or dtype(keys, "bnb_4bit_quant_storage_dtype")
    keys.see("bnb_4bit_compute_dtype")
    bits = keys.whole("bits")
    text = (keys.word("quantization") or "").lower()
    if bits not in (None, 4, 8, 16, 32) or text not in ("", "4bit", "8bit", "none", "false"):
        raise BadInput(f"{keys.program}: {bits or text} bits are not known", "known: 4, 8, 16, 32")
    if keys.flag("full_finetune") and bits in (4, 8):
        raise BadInput(f"{keys.program}: full_finetune needs bits 16 or 32", "write --bits 16")
    four, eight = four or bits == 4 or text == "4bit", eight or bits == 8 or text == "8bit"
    if keys.flag("q_lora") and not four:
        if script.source.startswith("QwenLM"):
            # `GPTQConfig(bits=4)`: the checkpoint is quantized already.
            return None, ["q_lora loads a checkpoint that is quantized by GPTQ: it is counted as stored"]
        four, double = True, True
    if four and eight:
        if script.defaults.get("load_in_8bit"):
            eight = False
        else:
            raise BadInput(f"{keys.program}: 4 and 8 bits exclude each other", "give one of them")
    if four:
        stored = None if storage in (None, "uint8") else storage
        return QuantizationSettings(kind, double_quant=bool(double), storage=stored), []
    return (QuantizationSettings("int8") if eight else None), []
