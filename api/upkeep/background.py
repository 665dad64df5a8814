"""Background loop: reload files, expire silent replicas, trigger re-checks, prune the history."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from preshuffle.api.answers import Answers
from preshuffle.api.errors import StoreError
from preshuffle.api.fleet import judge_name
from preshuffle.api.store import Retention, Store, announce, announced_name, prune
from preshuffle.api.upkeep import worker_process
from preshuffle.api.upkeep.change_feed import ChangeFeed
from preshuffle.api.upkeep.file_watch import Watching
from preshuffle.api.upkeep.kernel_library import KernelLibrary
from preshuffle.api.upkeep.liveness import update_liveness
from preshuffle.api.upkeep.missing_facts import add_missing_facts
from preshuffle.api.upkeep.recheck import is_due, recheck, recheck_in_child
from preshuffle.api.upkeep.worker_process import WorkerProcess, WorkerProcessError

log = logging.getLogger("preshuffle.api")

TICK_S: Final = 0.4
"""Between two reads of the store's counters."""
_LATER_S: Final = 30.0
_PRUNE_S: Final = 60.0
"""Between two prunings of the history, and two looks for what older versions have stored."""
_SLOW_S: Final = 1.0
"""Between two checks of the files of book and kernel tables, and of silent replicas."""


class BackgroundLoop:
    """Thread that follows files, and other processes on the same store."""

    def __init__(
        self,
        store: Store,
        answers: Answers,
        library: KernelLibrary,
        watching: Watching,
        retention: Retention,
        feed: ChangeFeed,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            store: holds the deployments.
            answers: holds the current registry.
            library: holds the kernel tables.
            watching: the files.
            retention: how much history is stored.
            feed: passes state changes to its listeners.
            on_change: called from the loop's thread when any process has changed something that is shown.
        """
        self.watching = watching
        self._on_change = on_change
        self._feed = feed
        self._store = store
        self._answers = answers
        self._library = library
        self._seen: dict[str, int] = {}
        self._judge = ""
        self._slow_at = 0.0
        self._retention = retention
        self._prune_at = 0.0
        self._check_due = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._checker: threading.Thread | None = None
        self._worker = WorkerProcess()

    def start(self) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and a running re-check; what that has written stays."""
        self._stopping.set()
        self._worker.stop()
        for thread in (self._thread, self._checker):
            if thread is not None:
                thread.join(timeout=5)

    @property
    def rechecking(self) -> bool:
        """Whether a re-check runs in this process."""
        return self._checker is not None and self._checker.is_alive()

    def step(self) -> None:
        """Do one round.

        Raises:
            StoreError: the store does not answer.
        """
        counters = self._store.counters()
        if counters.get("tables") != self._seen.get("tables"):
            self._library.sync()
        tried = False
        if time.monotonic() >= self._slow_at:
            self._slow_at = time.monotonic() + _SLOW_S
            tried = self.watching.poll()
            update_liveness(self._store)
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + _PRUNE_S
            add_missing_facts(self._store)
            prune(self._store, self._retention)
            self._store.keep_reserve()
        name = judge_name(self._answers.registry)
        if name != self._judge:
            self._worker.stop()
            announce(self._store, self._answers.registry)
            self._judge = name
            self._check_due = True
        if counters != self._seen or self._check_due:
            self._check_due = False
            self._recheck_where_due(name)
        if counters != self._seen or tried:
            self._feed.publish()
            self._seen = counters
            self._on_change()

    def _run(self) -> None:
        last_error = ""
        while not self._stopping.is_set():
            try:
                self.step()
                last_error = ""
            except StoreError as error:
                if str(error) != last_error:
                    last_error = str(error)
                    log.error("%s", last_error)
            except Exception:
                log.exception("the background loop failed; it continues")
            self._stopping.wait(TICK_S)

    def _recheck_where_due(self, name: str) -> None:
        if self.rechecking or not is_due(self._store, name):
            self._check_due = self.rechecking
            return
        if announced_name(self._store) != name:
            return  # another process runs a later registry, and checks by it
        self._checker = threading.Thread(target=self._recheck, name="recheck", daemon=True)
        self._checker.start()
        self._check_due = True

    def _recheck(self) -> None:
        registry = self._answers.registry
        try:
            with self._store.leadership() as leads:
                if leads and not self._store.has_more_than(worker_process.FEW):
                    recheck(self._store, registry, self._stopping.is_set)
                elif leads:
                    self._worker.run(recheck_in_child, self._store.url, registry)
                else:
                    self._stopping.wait(_SLOW_S)  # another process re-checks
        except (WorkerProcessError, StoreError) as error:
            if registry is self._answers.registry and not self._stopping.is_set():
                log.error("the re-check of deployments failed and is repeated: %s", error)
                self._stopping.wait(_SLOW_S)
        except Exception:
            log.exception("the re-check of deployments failed and is repeated later")
            self._stopping.wait(_LATER_S)
