"""Background work: reload files, detect stale replicas, re-check deployments."""

from preshuffle.api.upkeep import worker_process
from preshuffle.api.upkeep.background import BackgroundLoop
from preshuffle.api.upkeep.change_feed import ChangeFeed, Listener
from preshuffle.api.upkeep.file_watch import Watcher, Watching, watch_book, watch_tables, watch_tokens
from preshuffle.api.upkeep.fleet_metrics import FleetMetrics
from preshuffle.api.upkeep.heartbeats import Heartbeats
from preshuffle.api.upkeep.kernel_library import MAX_BODY, ONE_FILE, KernelLibrary, Uploaded, read_version
from preshuffle.api.upkeep.recheck import recheck
from preshuffle.api.upkeep.worker_process import WorkerProcess, WorkerProcessError

__all__ = [
    "MAX_BODY",
    "ONE_FILE",
    "BackgroundLoop",
    "ChangeFeed",
    "FleetMetrics",
    "Heartbeats",
    "KernelLibrary",
    "Listener",
    "Uploaded",
    "Watcher",
    "Watching",
    "WorkerProcess",
    "WorkerProcessError",
    "read_version",
    "recheck",
    "watch_book",
    "watch_tables",
    "watch_tokens",
    "worker_process",
]
