"""Chunks answered by the workers of a Ray cluster.

Texts go out and Parquet comes back, so that workers share nothing with this machine but the code. A task is repeated by
Ray if its worker or node is lost (`max_retries`), also where only the answer was lost with it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from willfit.errors import BadInput
from willfit.sweeping.identity import identity, ready
from willfit.sweeping.options import Run
from willfit.sweeping.tables import parquet_of

#: How often a chunk is given to another worker if one is lost with it.
_RETRIES = 8

#: What to do about a cluster that is not there, and about nodes that differ.
_START = "start one with ray start --head, and name it with --on ray://HOST:10001 or RAY_ADDRESS"
_SAME = "install the same willfit[ray] on every node"

#: Seconds that an address is given to answer.
_SECONDS = 10

#: Chunks under way for each processor: one that runs and one that waits beside it.
_DEPTH = 2


def run_on_ray(
    texts: Sequence[str], run: Run, address: str, workers: int | None
) -> Iterator[tuple[int, bytes]]:
    """Answers to chunks as Parquet, by their places in the list, as they come.

    Closing the iterator cancels what is under way.

    Parameters
    ----------
    address
        `ray://host:port` for a Ray client; `ray` for the cluster of `RAY_ADDRESS`, or the one of this machine.
    workers
        How many chunks are under way at most; None for twice the processors of the cluster.

    Raises
    ------
    BadInput
        If the cluster cannot be reached, a node has other code than this, or a chunk loses worker after worker.
    """
    ray = _connected(address)
    try:
        _require_same_code(ray, run)
        yield from _answers(ray, texts, workers)
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise BadInput("--on ray needs ray", "pip install 'willfit[ray]'") from None
    _require_listener(address)
    try:
        ray.init(
            address=address if address.startswith("ray://") else "auto",
            log_to_driver=False, logging_level=logging.ERROR, configure_logging=False,
        )  # fmt: skip
    except (ConnectionError, ValueError, ImportError, RuntimeError) as error:
        said = " ".join(str(error).split())[:160]
        raise BadInput(
            f"no Ray cluster answers at {address}: {said}",
            _START,
        ) from None
    return ray


def _require_listener(address: str) -> None:
    """Raise `BadInput` at once where nobody listens: Ray itself waits for half a minute, or for two."""
    place = address.partition("://")[2] or os.environ.get("RAY_ADDRESS", "").partition("://")[2]
    place = place or os.environ.get("RAY_ADDRESS", "")
    host, _, port = place.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except OSError as error:
        raise BadInput(f"no Ray cluster answers at {place}: {error.strerror or error}", _START) from None


def _require_same_code(ray: Any, run: Run) -> None:
    """Raise `BadInput` unless every node that can work has this willfit."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Strategy

    own = identity(run)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise BadInput(
            "the Ray cluster has no node with processors", "start one with ray start --address ..."
        )
    ask = ray.remote(num_cpus=0, max_retries=_RETRIES)(ready)
    asked = [  # by nodes, as several may be on one host
        (
            node,
            ask.options(scheduling_strategy=Strategy(node["NodeID"], soft=False)).remote(run),
        )
        for node in nodes
    ]
    for node, reference in asked:
        host = node["NodeManagerAddress"]
        try:
            has = ray.get(reference)
        except ray.exceptions.RayError as error:
            if not _is_alive(ray, node):
                continue  # lost since, or before and only noticed now: it will do nothing
            said = str(error).strip().splitlines()[-1][:200]
            raise BadInput(f"node {host} of the cluster cannot answer: {said}", _SAME) from None
        if has != own:
            raise BadInput(f"node {host} of the cluster has {has}, and this machine {own}", _SAME)


def _is_alive(ray: Any, node: Any) -> bool:
    return any(one["Alive"] for one in ray.nodes() if one["NodeID"] == node["NodeID"])


def _answers(ray: Any, texts: Sequence[str], workers: int | None) -> Iterator[tuple[int, bytes]]:
    most = workers or max(1, int(_DEPTH * ray.cluster_resources().get("CPU", 1)))
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(parquet_of)
    waiting = iter(enumerate(texts))
    running: dict[Any, int] = {}
    try:
        while True:
            while len(running) < most and (more := next(waiting, None)) is not None:
                running[task.remote(more[1])] = more[0]
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done)
            yield index, _fetched(ray, done)
    finally:
        for reference in running:
            ray.cancel(reference)


def _fetched(ray: Any, reference: Any) -> bytes:
    try:
        content: bytes = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, BadInput) else error) from None
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[0][:160]
        raise BadInput(f"a chunk was lost {_RETRIES} times: {said}", "what is done is kept") from None
    return content
