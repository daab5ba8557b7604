"""Why SGLang would not start, whatever the memory: formats and divisions that it does not have."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, Mixer
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.sglang.devices import device_refusal
from willfit.engines.sglang.models import support
from willfit.engines.sglang.settings import Settings
from willfit.engines.support import model_refusal, too_long
from willfit.hardware.device import Device

#: Quantization methods that it has no kernels for (`layers/quantization/__init__.py`, 0.4.6 to 0.5.23).
_NEVER = frozenset({"aqlm", "bitnet", "eetq", "exl2", "exl3", "fbgemm_fp8", "hqq", "mlc", "mlx", "quanto"})


def refusal(subject: Subject, settings: Settings, device: Device, length: int = 0) -> str:
    """Why it does not start with the model as it is stored on a device; empty if it does.

    Parameters
    ----------
    length
        Tokens of the longest sequence; 0 if that does not matter.
    """
    model, version = subject.architecture, settings.version
    if missing := model_refusal("sglang", model, version, support(model, version)):
        return missing
    if ended := too_long(model, length):
        return ended
    if subject.recipe.method in _NEVER:
        return f"SGLang does not load {subject.recipe.method} checkpoints; take one in fp8, awq or gptq"
    if refused := device_refusal(subject, settings, device):
        return refused
    if settings.tp_size % settings.attn_dp_size:
        return f"{settings.tp_size} ranks cannot be divided over {settings.attn_dp_size} attention replicas"
    return undivided(subject.architecture, settings)


def undivided(architecture: Architecture, settings: Settings) -> str:
    """What cannot be divided over the ranks; empty if everything can."""
    for layer, _ in architecture.blocks:
        for mixer in layer.mixers:
            if found := _undivided(mixer, settings.attention_ranks):
                return f"{found} cannot be divided over {settings.attention_ranks} tensor-parallel ranks"
            if layer.feed_forward and layer.feed_forward.experts % settings.ep_size:
                return f"{layer.feed_forward.experts} experts cannot be divided over {settings.ep_size} ranks"
    return ""


def _undivided(mixer: Mixer, ranks: int) -> str:
    """Heads must divide over ranks; KV heads may also be repeated (`layers/linear.py: QKVParallelLinear`)."""
    heads = getattr(mixer, "heads", 0)
    if heads % ranks:
        return f"{heads} heads"
    if isinstance(mixer, Attention) and mixer.kv_heads % ranks and ranks % mixer.kv_heads:
        return f"{mixer.kv_heads} key/value heads"
    return ""
