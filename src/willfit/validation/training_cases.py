"""A published training run as it would have been asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from willfit.asking import find_subject
from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB, dtype_name
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)
from willfit.validation.cases import Case
from willfit.validation.scoring import Unpredictable

#: Losses by the cases' names.
_LOSSES = {
    "hf": "hf", "fused_ce": "fused", "liger_fused": "liger", "chunked": "chunked", "chunked_lm_head": "chunked-head",
    "cut_ce": "cut",
}  # fmt: skip

#: Kernels by the cases' names.
_KERNELS = {"fast_rope": "rope", "fast_rmsnorm": "rms_norm", "fused_lora": "lora"}

#: Those of fms-acceleration, whose fused adapters are a variant of Unsloth's.
_FMS_KERNELS = {**_KERNELS, "fused_lora": "foak_lora"}

#: What cases say of an adapter that is no option of PEFT's by its name, or has a field of its own.
_NO_OPTIONS = ("rank", "targets", "alpha", "dropout", "num_virtual_tokens", "options")

#: When ms-swift 3 was released, which adapts all linear layers if nothing is said.
_SWIFT_3 = "2025"

#: A release: `2.4`, `0.41.1`, `2.1.0+cu121`; not a commit.
_RELEASE = re.compile(r"\d+\.\d")

#: When torchtitan's script began to set `expandable_segments` (pytorch/torchtitan a5e57e4).
_EXPANDABLE_SINCE = "2024-10-22"

#: Targets by the cases' names.
_TARGETS: dict[str, tuple[str, ...]] = {
    "default-qkv": ("c_attn", "q_proj", "k_proj", "v_proj", "query_key_value", "W_pack", "qkv_proj"),
    "all-linear": ("all-linear",),
}

#: Versions of what a Trainer stands on, by the date of a measurement: the release that was newest then.
_RELEASES = (
    ("2022-01", "4.15.0"), ("2023-10", "4.34.0"), ("2024-01", "4.36.0"), ("2024-03", "4.38.0"), ("2024-05", "4.40.0"),
    ("2024-07", "4.42.0"), ("2024-09", "4.44.0"), ("2024-11", "4.46.0"), ("2025-01", "4.48.0"), ("2025-04", "4.51.0"),
    ("2025-08", "4.55.0"), ("2025-11", "4.57.0"), ("2026-02", "5.0.0"), ("2026-06", "5.15.0"), ("2026-09", "5.23.0"),
)  # fmt: skip


#: Versions of PEFT by the date of a measurement, where what it does changed (`adapters/dtypes.py`, `targets.py`).
_PEFT_RELEASES = (
    ("2023-03", "0.2.0"), ("2023-09", "0.5.0"), ("2023-11-03", "0.6.0"), ("2024-02", "0.8.2"), ("2024-04", "0.10.0"),
    ("2024-06", "0.11.0"), ("2024-08", "0.12.0"), ("2024-10", "0.13.0"), ("2025-01", "0.14.0"), ("2025-04", "0.15.2"),
    ("2025-08", "0.17.1"), ("2025-12", "0.18.0"), ("2026-05", "0.20.0"), ("2026-09", "0.21.2"),
)  # fmt: skip

#: Versions of ms-swift by date.
_SWIFT_RELEASES = (("2023-08", "1.0"), ("2024-05", "2.0"), ("2025", "3.0"), ("2026-02", "4.0"))


def subject_of(case: Case) -> Subject:
    """The model of a case.

    Raises
    ------
    Unpredictable
        If it is not bundled.
    """
    try:
        name = case.fields.get("catalogue") or case.fields["model"]
        return find_subject(str(name), offline=True)[0]
    except BadInput as error:
        raise Unpredictable(str(error)) from None


def machine_of(case: Case) -> Machine:
    """The devices of a case; of an unnamed one the size alone is known, if that.

    Raises
    ------
    Unpredictable
        If the device is not in the table.
    """
    count = int(case.fields.get("n_gpus") or 1)
    name = case.fields.get("gpu")
    if name is None:
        size = case.fields.get("gpu_class_gb") or case.settings.get("capacity_gb")
        usable = int(float(size) * GIB) if size else None
        return Machine((Device("GPU", compute_capability="8.0", usable_bytes=usable),) * count)
    try:
        device = find_device(str(name).replace(" (per GPU)", ""))
    except BadInput as error:
        raise Unpredictable(str(error)) from None
    total = case.measured.get("gpu_total_gib")
    if total:
        device = replace(device, usable_bytes=int(float(total) * GIB))
    return Machine((device,) * count)


def settings_of(case: Case) -> TrainingSettings:
    """What was asked for, as far as the source says."""
    said = case.settings
    precision = dict(said.get("precision") or {})
    adapter = _adapter(said, precision, case)
    return TrainingSettings(
        framework=case.engine,
        version=case.fields.get("engine_version"),
        versions=_versions(case),
        micro_batch=int(said.get("micro_batch") or 1),
        seq_len=said.get("seq_len"),
        gradient_accumulation=_accumulation(case),
        packed=bool(said.get("packed")),
        adapter=adapter,
        quantization=_quantization(said, str(case.fields.get("framework") or "")),
        precision=_precision(precision, adapter is not None, said.get("float8")),
        optimizer=_optimizer(said),
        checkpointing=_checkpointing(said),
        loss=LossSettings(
            _LOSSES.get(str(said.get("loss"))), said.get("loss_chunks"), said.get("loss_chunk_tokens")
        ),
        layout=_layout(said),
        offload=_offload(said),
        attention=_attention(said),
        kernels=_kernels(said, str(case.fields.get("framework") or "")),
        compile=bool(said.get("compile")),
        empties_cache=int(said.get("empty_cache_steps") or 0),
        # Lengths that a source calls longest, or bounded, differ.
        varied_lengths=said.get("seq_len_kind") != "exact" if said.get("seq_len_kind") else None,
        expandable_segments=_expandable(case),
    )


def _kernels(said: dict[str, Any], framework: str) -> tuple[str, ...]:
    known = _FMS_KERNELS if framework.startswith("fms") else _KERNELS
    return tuple(known[name] for name in said.get("kernels") or () if name in known)


def _expandable(case: Case) -> bool | None:
    """Whether segments grow: torchtitan's script of the day says so, where the source does not."""
    if case.engine != "torchtitan":
        return None
    return str(case.fields.get("date") or _EXPANDABLE_SINCE) >= _EXPANDABLE_SINCE


def _versions(case: Case) -> dict[str, str]:
    stated = {str(name): str(text) for name, text in dict(case.fields.get("versions") or {}).items()}
    # A commit says nothing about the order of releases.
    versions = {name: text for name, text in stated.items() if _RELEASE.match(text)}
    date = str(case.fields.get("date") or "")
    if case.engine in ("litgpt", "torchtitan", "torchtune") and date:
        versions.setdefault(case.engine, date)
    if str(case.fields.get("framework") or "").startswith("fms") and date:
        versions.setdefault("fms_acceleration", date)
    for name, releases in (
        ("transformers", _RELEASES),
        ("peft", _PEFT_RELEASES),
        ("ms-swift", _SWIFT_RELEASES),
    ):
        if name not in versions:
            reached = [release for since, release in releases if since <= date]
            versions[name] = reached[-1] if reached else releases[0][1]
    return versions


def _accumulation(case: Case) -> int:
    said = case.settings
    if said.get("grad_accum"):
        return int(said["grad_accum"])
    parallel = dict(said.get("parallel") or {})
    micro = int(said.get("micro_batch") or 1) * int(parallel.get("dp") or 1)
    return max(1, int(said.get("global_batch") or micro) // micro)


def _dtype(name: Any) -> str | None:
    return dtype_name(str(name)) if name else None


def _precision(said: dict[str, Any], adapts: bool, float8: str | None) -> PrecisionSettings:
    weights, compute = _dtype(said.get("weights")), _dtype(said.get("compute"))
    states = said.get("optimizer_state")
    autocast = said.get("autocast")
    if autocast is None and weights is not None and compute is not None:
        autocast = weights == "fp32" and compute != "fp32"
    return PrecisionSettings(
        weights=weights,
        compute=compute,
        trainable=None if adapts else _dtype(said.get("trainable")),
        gradients=_dtype(said.get("grads")),
        states=None if states == "int8" else _dtype(states),
        master=_dtype(said.get("master")),
        reduce=_dtype(said.get("reduce")),
        float8=float8,
        autocast=autocast,
    )


def _adapter(said: dict[str, Any], precision: dict[str, Any], case: Case) -> AdapterSettings | None:
    method, low = str(said.get("method")), dict(said.get("lora") or {})
    other = dict(said.get("adapter") or {})
    if method in ("full", "galore", "lisa"):
        return None
    given = low or other
    targets = given.get("targets") or ()
    if (
        not targets
        and method in ("lora", "qlora")
        and case.engine == "ms-swift"
        and str(case.fields.get("date")) < _SWIFT_3
    ):
        # `--lora_target_modules DEFAULT`: the matrices of queries, keys and values.
        targets = "default-qkv"
    if isinstance(targets, str):
        targets = _TARGETS.get(targets, (targets,))
    return AdapterSettings(
        kind="lora" if method in ("lora", "qlora") else method,
        rank=int(given["rank"]) if given.get("rank") else None,
        alpha=given.get("alpha"),
        dropout=given.get("dropout"),
        targets=tuple(str(target) for target in targets),
        modules_to_save=tuple(low.get("modules_to_save") or ()),
        use_dora=method == "dora",
        use_rslora=bool(low.get("use_rslora")),
        dtype=_dtype(precision.get("trainable")),
        virtual_tokens=int(other.get("num_virtual_tokens") or 0),
        options={
            **{name: value for name, value in other.items() if name not in _NO_OPTIONS},
            **dict(given.get("options") or {}),
        },
    )


def _quantization(said: dict[str, Any], framework: str) -> QuantizationSettings | None:
    given = dict(said.get("quantization") or {})
    if not given:
        return None
    double = given.get("double_quant")
    if double is None:
        # fms-acceleration's plugins quantize block constants as well (`framework_plugin_bnb.py`).
        double = True if framework.startswith("fms") and given["method"] == "nf4" else None
    upcast = {True: "all", False: "none", None: None}[given.get("kbit_upcast")]
    method = str(given["method"])
    if method == "gptq" and given.get("bits") not in (None, 4):
        method = f"gptq-int{given['bits']}"
    return QuantizationSettings(method, double, given.get("storage"), upcast)


def _optimizer(said: dict[str, Any]) -> OptimizerSettings:
    name = str(said.get("optimizer") or "adamw")
    implementation = None
    for suffix in ("foreach", "fused"):
        if name.endswith(f"_{suffix}"):
            name, implementation = name.removesuffix(f"_{suffix}"), suffix
    galore, lisa = dict(said.get("galore") or {}), dict(said.get("lisa") or {})
    options: dict[str, object] = dict(galore)
    if lisa:
        name, options = "lisa", {"lisa_activated_layers": lisa["activated_layers"]}
    if galore.get("quantize"):
        name = "q_galore" if galore.get("proj_quant") else "galore_adamw_8bit"
    return OptimizerSettings(
        name,
        implementation,
        in_backward=bool(said.get("optimizer_in_backward")),
        rank=galore.get("rank"),
        options=options,
    )


def _checkpointing(said: dict[str, Any]) -> CheckpointingSettings:
    kind, every = said.get("activation_checkpointing"), 1
    if isinstance(kind, str) and kind.startswith("every-"):
        kind, every = "full", int(kind.removeprefix("every-"))
    return CheckpointingSettings(
        kind,
        every,
        reentrant=said.get("checkpoint_reentrant"),
        offload=bool(dict(said.get("offload") or {}).get("activations")),
    )


def _layout(said: dict[str, Any]) -> LayoutSettings:
    given = dict(said.get("parallel") or {})
    data = None
    if given.get("fsdp"):
        data = f"fsdp{given['fsdp']}"
    elif given.get("distributed_optimizer"):
        data = "distributed-optimizer"
    elif given.get("zero_stage"):
        data = f"zero{given['zero_stage']}"
    elif given.get("ddp"):
        data = "ddp"
    reshard = given.get("reshard_after_forward")
    return LayoutSettings(
        data=data,
        shards=given.get("state_shards"),
        tp=int(given.get("tp") or 1),
        sp=bool(given.get("sp")),
        pp=int(given.get("pp") or 1),
        cp=int(given.get("cp") or 1),
        ulysses=int(given.get("ulysses") or 1),
        ep=int(given.get("ep") or 1),
        schedule=given.get("pp_schedule"),
        device_map=bool(given.get("device_map")),
        strategy=given.get("fsdp_strategy"),
        reshard=False if reshard == "never" else None,
        prefetch=1 if given.get("backward_prefetch") == "BACKWARD_PRE" else None,
        reduce_bucket=given.get("reduce_bucket_size"),
        allgather_bucket=given.get("allgather_bucket_size"),
    )


def _offload(said: dict[str, Any]) -> OffloadSettings:
    given = dict(said.get("offload") or {})
    return OffloadSettings(
        params=bool(given.get("params")),
        gradients=bool(given.get("grads")),
        optimizer=bool(given.get("optimizer")),
    )


def _attention(said: dict[str, Any]) -> str | None:
    given = said.get("attn_impl")
    return "flash_attention_2" if given == "flash" else given
