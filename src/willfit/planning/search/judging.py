"""Whether ways to serve fit: in columns where the engine has a `Budget`, one by one elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.budget import Budget, Runs, Sum
from willfit.engines.vllm import NAME as VLLM
from willfit.engines.vllm import settings_for
from willfit.engines.vllm.budgets import budget
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.kinds import kind_of
from willfit.engines.vllm.settings import Settings
from willfit.engines.vllm.shared import Shared
from willfit.hardware.device import Device
from willfit.planning.search.gathering import Rows
from willfit.planning.search.layouts import Layout, together
from willfit.planning.search.one_by_one import one_by_one
from willfit.planning.search.ways import Ways

#: Layouts of a server of a model over up to so many devices that work together, each with numbers of such servers.
Spread = Callable[[Subject, int], Sequence[tuple[Layout, Sequence[int]]]]


def judge(
    subjects: Sequence[Subject],
    engine: str,
    devices: Sequence[Device],
    question: Question,
    spread: Spread,
    kv_dtypes: Sequence[str] = ("auto",),
) -> Ways:
    """Judge every model on every device, however it is spread.

    Parameters
    ----------
    subjects
        A model in several formats, or several models.
    engine
        Its name.
    devices
        Kinds of devices.
    question
        What shall run on them.
    spread
        Over how many, and how.
    kv_dtypes
        Of the cache, as engines call them.
    """
    ways = _in_columns if engine == VLLM else one_by_one
    return ways(subjects, engine, devices, question, spread, kv_dtypes)


def _in_columns(
    subjects: Sequence[Subject],
    engine: str,
    devices: Sequence[Device],
    question: Question,
    spread: Spread,
    kv_dtypes: Sequence[str],
) -> Ways:
    """Many at once: devices of a kind have one budget."""
    import numpy as np

    usable = np.array([device.usable_bytes or 0 for device in devices], np.int64)
    members: dict[int, dict[Device, list[int]]] = {}
    for index, device in enumerate(devices):
        members.setdefault(together(device), {}).setdefault(kind_of(device), []).append(index)
    kinds = {
        most: [(kind, np.array(on), int(usable[on].max())) for kind, on in found.items()]
        for most, found in members.items()
    }
    rows, shared, version = Rows(), Shared(), ""
    for subject_at, subject in enumerate(subjects):
        least = int(subject.weight_bytes * subject.weight_sureness[0])
        base = settings_for(subject, Machine(()), question)
        version = base.version
        for most, of_reach in kinds.items():
            for layout, servers in spread(subject, most):
                each = least // layout.server_devices
                for kv_at, kv_dtype in enumerate(kv_dtypes):
                    settings = settled(subject, laid_out(base, layout, kv_dtype))
                    for kind, on, largest in of_reach:
                        is_over = each > largest
                        one = _weights_alone(each) if is_over else budget(subject, kind, settings, shared)
                        rows.add(subject_at, kv_at, layout, on, servers, one)
    return rows.judged(subjects, engine, version, devices, kv_dtypes, question.users, usable)


def laid_out(settings: Settings, layout: Layout, kv_dtype: str) -> Settings:
    """vLLM's settings of one server with a layout."""
    return replace(
        settings,
        kv_cache_dtype=kv_dtype,
        tensor_parallel=layout.tensor,
        pipeline_parallel=layout.pipeline,
        data_parallel=layout.data,
        expert_parallel=layout.experts > 1,
    )


def _weights_alone(size: int) -> Budget:
    """Of weights that are more than any device of a kind holds."""
    nothing = Sum(0, 0.0, 0.0)
    return Budget(1.0, nothing, Sum(size, 0.0, 0.0), (), 0, 0, 0, 0, 0, Runs())
