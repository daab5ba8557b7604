"""Dtype of an adapter's parameters, by PEFT's version.

PEFT: mapping_func.py: get_peft_model (autocast_adapter_dtype); tuners/*/layer.py: update_layer (0.5.0 to 0.21.2).
"""

from __future__ import annotations

#: PEFT turns adapters into float32 on a 16-bit model from this version (get_peft_model: autocast_adapter_dtype).
AUTOCAST_ADAPTER = (0, 12)
#: Up to this version adapters were float32 whatever the model (LoraLayer.update_layer: `.to(weight.device)`).
ALWAYS_FLOAT32 = (0, 5)
#: LN tuning keeps the norms' dtype from here on, OSF leaves the model's before this.
KEEPS_NORMS, CASTS_OSF = (0, 18), (0, 19)


def adapter_dtype(
    model: str, quantized: bool, peft: tuple[int, ...], asked: str | None = None, kind: str = "lora"
) -> str:
    """Dtype of an adapter's parameters.

    Parameters
    ----------
    model
        Dtype of the model's weights.
    quantized
        The adapted weights are stored in integers: adapters are made, and stay, in float32.
    peft
        PEFT's version.
    asked
        What was asked for; None for PEFT's rule.
    kind
        The method: some always had a dtype of their own.
    """
    if asked is not None:
        return asked
    if (kind == "ln_tuning" and peft[:2] >= KEEPS_NORMS) or (kind == "osf" and peft[:2] < CASTS_OSF):
        return model
    if kind in ("adalora", "ia3"):
        return "float32"
    if quantized or peft[:2] <= ALWAYS_FLOAT32 or peft[:2] >= AUTOCAST_ADAPTER:
        return "float32"
    return model
