"""What vLLM takes of the host's RAM: weights and blocks moved there, caches of inputs, queues, copies while asleep.

Processes of their own (API servers, engine cores, workers) each also take what Python, torch and the driver take,
which no rule gives: a note says how many there are.
"""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.features.lora import adapter_bytes
from willfit.engines.vllm.features.offload import Offloaded
from willfit.engines.vllm.options import KvTransfer
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between, exact
from willfit.quantities import GIB

#: Rings of messages between the engine and its workers: chunks, and MiB of each before the variable
#: `VLLM_MQ_MAX_CHUNK_BYTES_MB` and with it (`distributed/device_communicators/shm_broadcast.py`).
_CHUNKS = 10
_CHUNK_BYTES = 16 * 2**20
_RESPONSE_BYTES = 10 * 2**20

#: Blocks that connectors keep in host RAM if nothing is said: vLLM's simple one over all ranks, LMCache on each
#: (`kv_connector/v1/simple_cpu_offload_connector.py`; LMCache's `max_local_cpu_size`).
_SIMPLE_DEFAULT = 8 * GIB
_LMCACHE_DEFAULT = 5 * GIB

#: Connectors that work with cache groups, and since when; all others join layers in one group
#: (`kv_connector/v1/base.py: SupportsHMA`).
_WITH_GROUPS: dict[str, Version] = {
    "DecodeBenchConnector": (0, 22),
    "ExampleHiddenStatesConnector": (0, 22),
    "MooncakeConnector": (0, 22),
    "MooncakeStoreConnector": (0, 22),
    "MultiConnector": (0, 22),
    "NixlConnector": (0, 22),
    "OffloadingConnector": (0, 22),
    "SimpleCPUOffloadConnector": (0, 22),
}

#: Replicas have an API server each by default since this version.
_SERVERS_FOR_REPLICAS: Version = (0, 15)

#: LMCache keeps blocks in a server of its own since this version.
_LMCACHE_SERVER: Version = (0, 23)

#: Processed inputs were first kept under this name of a variable, for two processes.
_PROCESSOR_CACHE: Version = (0, 8)

_COPIED_FORMATS = frozenset({"pt", "npcache", "bitsandbytes"})


def api_servers(settings: Settings) -> int:
    """API server processes: one, later one for each replica (`entrypoints/cli/serve.py`)."""
    if settings.api_servers is not None:
        return settings.api_servers
    return settings.local_replicas if parse_version(settings.version) >= _SERVERS_FOR_REPLICAS else 1


def offloading_connector(backend: str, version: str) -> str:
    """The connector that `--kv-offloading-size` names by itself (`config/vllm.py: _post_init_kv_transfer_config`)."""
    if backend != "lmcache":
        return "OffloadingConnector"
    return "LMCacheMPConnector" if parse_version(version) >= _LMCACHE_SERVER else "LMCacheConnectorV1"


def joins_groups(settings: Settings) -> bool:
    """Whether a connector makes vLLM keep all layers in one cache group."""
    if settings.kv_transfer is None:
        return False
    since = _WITH_GROUPS.get(settings.kv_transfer.connector)
    return since is None or parse_version(settings.version) < since


def host_terms(
    subject: Subject,
    settings: Settings,
    resolved: Resolved,
    dtype: str,
    moved: Offloaded,
    block_bytes: int,
    sleeping_bytes: int,
) -> tuple[Term, ...]:
    """Terms of the host, over all ranks on it.

    Parameters
    ----------
    moved
        Weights that each rank keeps in host RAM.
    block_bytes
        Bytes of one block of a rank's cache.
    sleeping_bytes
        What each rank copies when it falls asleep with its weights; 0 if it cannot sleep.
    """
    ranks = settings.replica_ranks * settings.local_replicas
    terms = [
        *_weights(ranks, moved, source("offload", settings.version, resolved.era)),
        *_swap(settings, resolved, ranks),
        *_blocks(settings, resolved, ranks, block_bytes),
        *_adapters(subject, settings, resolved, dtype, ranks),
        *_inputs(subject, settings, resolved),
        *_loading(subject, settings, resolved),
        *_queues(settings, resolved),
    ]
    if sleeping_bytes:
        formula = f"{ranks} ranks x {sleeping_bytes} B, while asleep at level 1"
        reference = source("sleep", settings.version, resolved.era)
        terms.append(
            between("sleeping_weights", ranks * sleeping_bytes, 0, ranks * sleeping_bytes, formula, reference)
        )
    return tuple(terms)


def process_note(settings: Settings) -> str:
    """How many processes there are, whose own memory is not counted."""
    replicas = settings.local_replicas
    workers = settings.replica_ranks * replicas if settings.replica_ranks > 1 else 0
    servers = api_servers(settings)
    count = servers + replicas + workers
    return (
        f"host RAM: what Python, torch and the driver take in each of {count} processes "
        f"({servers} API, {replicas} engine, {workers} workers) is not established and not counted"
    )


def _weights(ranks: int, moved: Offloaded, reference: str) -> list[Term]:
    if not moved.host_bytes:
        return []
    formula = f"{ranks} ranks x {moved.host_bytes} B, pinned"
    return [exact("weights", ranks * moved.host_bytes, formula, reference)]


def _swap(settings: Settings, resolved: Resolved, ranks: int) -> list[Term]:
    """V0 pins a cache in host RAM, whole blocks of it (`worker/cache_engine.py`)."""
    if resolved.era.generation != "v0" or not settings.swap_space:
        return []
    size = int(settings.swap_space * GIB)
    formula = f"{ranks} ranks x {size} B, pinned (--swap-space)"
    return [exact("swap", ranks * size, formula, source("swap v0", settings.version, resolved.era))]


def _blocks(settings: Settings, resolved: Resolved, ranks: int, block_bytes: int) -> list[Term]:
    transfer = settings.kv_transfer
    if transfer is None:
        return []
    size = _block_bytes(transfer, ranks // settings.local_replicas, block_bytes)
    if size is None:
        return []
    size *= settings.local_replicas
    formula = f"{size} B of blocks ({transfer.connector})"
    reference = source("connectors", settings.version, resolved.era)
    return [exact("kv_cache", size, formula, reference)]


def _block_bytes(transfer: KvTransfer, ranks: int, block_bytes: int) -> int | None:
    """Bytes of a replica's blocks in host RAM; None if a connector keeps none there, or in another program."""
    if transfer.cpu_bytes_per_rank is not None:
        return transfer.cpu_bytes_per_rank * ranks
    if transfer.cpu_blocks is not None:
        return transfer.cpu_blocks * block_bytes * ranks
    if transfer.cpu_bytes is not None:
        # Whole blocks of all ranks together.
        together = block_bytes * ranks
        return transfer.cpu_bytes // together * together if together else transfer.cpu_bytes
    if transfer.connector == "SimpleCPUOffloadConnector":
        return _SIMPLE_DEFAULT
    if transfer.connector == "LMCacheConnectorV1":
        return _LMCACHE_DEFAULT * ranks
    return None


def _adapters(subject: Subject, settings: Settings, resolved: Resolved, dtype: str, ranks: int) -> list[Term]:
    """Adapters in host RAM, each worker with all of each; at most as many as there is room for, at the largest rank."""
    lora = settings.lora
    if lora is None:
        return []
    count = lora.max_cpu_loras or lora.max_loras
    each = adapter_bytes(subject, settings, dtype)
    most = ranks * count * each
    formula = f"{ranks} ranks x {count} adapters at most x {each} B"
    return [between("lora", most, 0, most, formula, source("adapters", settings.version, resolved.era))]


def _inputs(subject: Subject, settings: Settings, resolved: Resolved) -> list[Term]:
    """Processed images and sounds, kept by each API server and each engine, or once for all of them."""
    size = int(settings.mm_processor_cache_gb * GIB)
    if not subject.architecture.towers or settings.language_model_only or not size:
        return []
    if parse_version(settings.version) < _PROCESSOR_CACHE:
        return []
    copies = 1 if settings.mm_processor_cache_shared else api_servers(settings) + settings.local_replicas
    formula = f"{copies} caches x {size} B at most"
    reference = source("inputs", settings.version, resolved.era)
    return [between("input_cache", copies * size, 0, copies * size, formula, reference)]


def _loading(subject: Subject, settings: Settings, resolved: Resolved) -> list[Term]:
    """What a loader holds in memory of its own, for a while; files that are mapped are page cache, which yields."""
    eager = settings.safetensors_load_strategy in ("eager", "torchao")
    if not eager and settings.load_format not in _COPIED_FORMATS:
        return []
    workers = settings.replica_ranks * settings.local_replicas
    most = subject.weight_bytes * workers
    formula = f"{subject.weight_bytes} B at most of files that {workers} ranks read one at a time"
    reference = source("loading", settings.version, resolved.era)
    return [between("loading", min(most, subject.weight_bytes), 0, most, formula, reference)]


def _queues(settings: Settings, resolved: Resolved) -> list[Term]:
    """Shared memory through which an engine talks to its workers; touched as it is used."""
    workers = settings.replica_ranks
    if workers == 1 or resolved.era.generation == "v0":
        return []
    size = settings.local_replicas * _CHUNKS * (_CHUNK_BYTES + workers * _RESPONSE_BYTES)
    formula = f"{settings.local_replicas} engines x {_CHUNKS} chunks x "
    formula += f"({_CHUNK_BYTES} B + {workers} workers x {_RESPONSE_BYTES} B)"
    reference = source("queues", settings.version, resolved.era)
    return [between("shared_memory", size, 0, size, formula, reference)]
