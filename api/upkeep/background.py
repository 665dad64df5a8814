"""What the service does unasked, in one thread: it watches the book and the store, and has deployments judged again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from preshuffle.api.answers import Answers
from preshuffle.api.errors import StoreError
from preshuffle.api.fleet import judge_name
from preshuffle.api.store import Retention, Store, announce, announced_name, prune
from preshuffle.api.upkeep import worker_process
from preshuffle.api.upkeep.file_watch import Watching
from preshuffle.api.upkeep.kernel_library import KernelLibrary
from preshuffle.api.upkeep.liveness import update_liveness
from preshuffle.api.upkeep.recheck import is_due, recheck, recheck_in_child
from preshuffle.api.upkeep.worker_process import Aside, AsideError

log = logging.getLogger("preshuffle.api")

TICK_S: Final = 0.4
"""Between two looks at the store's counters."""
_LATER_S: Final = 30.0
_PRUNE_S: Final = 60.0
"""Between two looks at how much history there is."""
_SLOW_S: Final = 1.0
"""Between two looks at the files of the book and of kernel tables, and at who fell silent."""


class Keeper:
    """Keeps the service up to date with its files and with other processes on the same store."""

    def __init__(
        self, store: Store, answers: Answers, library: KernelLibrary, watching: Watching, retention: Retention
    ) -> None:
        """Prepare; ``start`` begins.

        Attributes:
            followers: called, from the keeper's thread, when something that is shown has changed, by whatever process.
        """
        self.followers: list[Callable[[], None]] = []
        self.watching = watching
        self._store = store
        self._answers = answers
        self._library = library
        self._seen: dict[str, int] = {}
        self._name = ""
        self._slow_at = 0.0
        self._retention = retention
        self._prune_at = 0.0
        self._look_again = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._checker: threading.Thread | None = None
        self._aside = Aside()

    def start(self) -> None:
        """Begin."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and whatever check is running with it; what it has written stays."""
        self._stopping.set()
        self._aside.stop()
        for thread in (self._thread, self._checker):
            if thread is not None:
                thread.join(timeout=5)

    @property
    def rechecking(self) -> bool:
        """Whether deployments are being judged again."""
        return self._checker is not None and self._checker.is_alive()

    def step(self) -> None:
        """Look at everything once.

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
            prune(self._store, self._retention)
        name = judge_name(self._answers.registry)
        if name != self._name:
            self._aside.stop()
            announce(self._store, self._answers.registry)
            self._name = name
            self._look_again = True
        if counters != self._seen or self._look_again:
            self._look_again = False
            self._recheck_where_due(name)
        if counters != self._seen or tried:
            self._seen = counters
            for follower in self.followers:
                follower()

    def _run(self) -> None:
        complaint = ""
        while not self._stopping.is_set():
            try:
                self.step()
                complaint = ""
            except StoreError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    log.error("%s", complaint)
            except Exception:
                log.exception("the keeper stumbled; it goes on")
            self._stopping.wait(TICK_S)

    def _recheck_where_due(self, name: str) -> None:
        if self.rechecking or not is_due(self._store, name):
            self._look_again = self.rechecking
            return
        if announced_name(self._store) != name:
            return  # another process runs a later registry; it judges
        self._checker = threading.Thread(target=self._recheck, name="recheck", daemon=True)
        self._checker.start()
        self._look_again = True

    def _recheck(self) -> None:
        registry = self._answers.registry
        try:
            with self._store.leadership() as leads:
                if leads and not self._store.has_more_than(worker_process.FEW):
                    recheck(self._store, registry, self._stopping.is_set)
                elif leads:
                    self._aside.run(recheck_in_child, self._store.url, registry, os.getpid())
                else:
                    self._stopping.wait(_SLOW_S)  # another process is at it
        except (AsideError, StoreError) as error:
            if registry is self._answers.registry and not self._stopping.is_set():
                log.error("deployments were not judged again, this is tried once more: %s", error)
                self._stopping.wait(_SLOW_S)
        except Exception:
            log.exception("deployments were not judged again; this is tried once more later")
            self._stopping.wait(_LATER_S)
