"""Sweeps on a real Ray cluster of several nodes on this machine: the same file, also where a node is lost."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections import Counter
from pathlib import Path

import grids
import pytest

import willfit

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters of one machine are for Linux")


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no tasks, three nodes of one processor, and the port for Ray clients."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": port}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(3):
            found.add_node(num_cpus=1)
        yield found, port
    finally:
        found.shutdown()


def test_a_ray_client_gets_the_file_that_this_machine_makes(cluster, whole, tmp_path):
    out, grid = tmp_path / "out.parquet", grids.written(tmp_path, grids.MANY_CHUNKS)
    sweep = grids.started(grid, "-o", out, "--on", f"ray://127.0.0.1:{cluster[1]}")
    printed = grids.finished(sweep)
    assert printed["computed"] == printed["points"]
    assert out.read_bytes() == whole[0].read_bytes()


def test_a_node_that_is_lost_costs_only_its_chunks(cluster, whole, tmp_path):
    nodes, _ = cluster
    out, grid = tmp_path / "out.parquet", grids.written(tmp_path, grids.MANY_CHUNKS)
    sweep = grids.started(grid, "-o", out, "--on", "ray", RAY_ADDRESS=nodes.address)
    grids.wait_until(lambda: len(grids.parts_of(out)) >= 2)
    made = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in _paths(out)}
    nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    missed = Counter()
    while sweep.poll() is None and out.with_name("out.parquet.parts").exists():
        for path, known in made.items():
            try:
                missed["written twice"] += (path.stat().st_ino, path.stat().st_mtime_ns) != known
            except FileNotFoundError:
                break  # joined
    printed = grids.finished(sweep)
    assert not missed["written twice"]
    assert printed["verdicts"] == whole[1]["verdicts"]
    assert out.read_bytes() == whole[0].read_bytes()


def test_a_node_with_other_code_is_named(cluster, tmp_path):
    nodes, _ = cluster
    other = tmp_path / "other"
    shutil.copytree(Path(willfit.__file__).parent, other / "willfit", ignore=shutil.ignore_patterns("*.pyc"))
    (other / "willfit" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    node = nodes.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(other)})
    try:
        grid = grids.written(tmp_path, {"fixed": {"model": "Qwen/Qwen3-8B", "gpu": "rtx4090"}})
        sweep = grids.started(grid, "-o", tmp_path / "out.parquet", "--on", "ray", RAY_ADDRESS=nodes.address)
        printed, said = sweep.communicate(timeout=60)
    finally:
        nodes.remove_node(node)
    assert (sweep.returncode, printed) == (2, "")
    assert "of the cluster has willfit 0.0.1+" in said
    assert "install the same willfit[ray] on every node" in said


def test_a_cluster_that_is_not_there_is_said(tmp_path):
    grid = grids.written(tmp_path, {"fixed": {"model": "Qwen/Qwen3-8B", "gpu": "rtx4090"}})
    said = grids.started(grid, "-o", tmp_path / "out.parquet", "--on", "ray://127.0.0.1:9")
    out, error = said.communicate(timeout=90)
    assert (said.returncode, out) == (2, "")
    assert "no Ray cluster answers at 127.0.0.1:9" in error


def _paths(out: Path) -> list[Path]:
    return list(out.with_name(f"{out.name}.parts").glob("*.parquet"))
