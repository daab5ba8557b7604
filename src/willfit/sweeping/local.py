"""Chunks answered by processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from types import FrameType

from willfit.errors import BadInput
from willfit.sweeping.tables import parquet_of

#: Seconds that a process is given to end what it started.
_GRACE = 5


def run_locally(texts: Sequence[str], workers: int) -> Iterator[tuple[int, bytes]]:
    """Answers to chunks as Parquet, by their places in the list, as they come.

    Closing the iterator ends the processes, and what these started.

    Parameters
    ----------
    workers
        How many processes.

    Raises
    ------
    BadInput
        If a process dies.
    """
    context = multiprocessing.get_context("spawn")  # threads of Arrow do not survive a fork
    executor = ProcessPoolExecutor(min(workers, len(texts)), context, initializer=_prepare)
    waiting = iter(enumerate(texts))
    running: dict[Future[bytes], int] = {}
    try:
        while True:
            while len(running) < 2 * workers and (more := next(waiting, None)) is not None:
                running[executor.submit(parquet_of, more[1])] = more[0]
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise BadInput(
            "a process of the sweep died, perhaps for want of memory",
            "what is done is kept; run the same command with fewer --workers",
        ) from None
    finally:
        _end(executor)


def _end(executor: ProcessPoolExecutor) -> None:
    executor.shutdown(wait=False, cancel_futures=True)
    processes = multiprocessing.active_children()
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()


def _prepare() -> None:
    """In a new process: leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that a trace ends its child


def _watch_parent() -> None:
    """End this process once its parent is gone, however that went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)
