"""``/v1/resolve``, answered before: the bytes that were sent, by the very text of the query string or the body."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from preshuffle.api.answers.answers import Answer, Answers
from preshuffle.api.web import Reply, Serialised, names
from preshuffle.registry import Registry

_MOST: Final = 1024
_LONGEST: Final = 2048


@dataclass(frozen=True, slots=True)
class _Kept:
    etag: str
    whole: Reply
    unchanged: Reply


class HotResolve:
    """Keeps what was answered last. Read on the event loop only; forgotten as one when the registry is another."""

    def __init__(self, answers: Answers) -> None:
        """Begin empty."""
        self._answers = answers
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._posted: OrderedDict[bytes, Answer] = OrderedDict()
        answers.followers.append(self._forget)

    def __call__(self, query: bytes, if_none_match: bytes | None) -> Reply | None:
        """Return the response to a query string, or None where it was not answered before."""
        kept = self._kept.get(query)
        if kept is None:
            return None
        known = if_none_match is not None and names(if_none_match.decode("latin-1"), kept.etag)
        return kept.unchanged if known else kept.whole

    def posted(self, body: bytes) -> Answer | None:
        """Return the answer to a body that was answered before."""
        return self._posted.get(body)

    def keep(self, query: bytes, decision: Serialised, registry: Registry) -> None:
        """Keep what was answered, unless another registry answers by now."""
        into = self._kept  # before the test: another registry brings another dictionary
        if len(query) > _LONGEST or registry is not self._answers.registry:
            return
        tag = ((b"etag", decision.etag.encode()), (b"cache-control", b"no-cache"))
        size = (b"content-length", str(len(decision.body)).encode())
        headers = ((b"content-type", b"application/json"), size, *tag, (b"x-content-type-options", b"nosniff"))
        into[query] = _Kept(decision.etag, Reply.of(200, headers, decision.body), Reply.of(304, tag))
        while len(into) > _MOST:
            into.popitem(last=False)

    def keep_posted(self, body: bytes, answer: Answer, registry: Registry) -> None:
        """Keep the answer to a body, unless another registry answers by now."""
        into = self._posted  # likewise
        if answer.problem is None and len(body) <= _LONGEST and registry is self._answers.registry:
            into[body] = answer
            while len(into) > _MOST:
                into.popitem(last=False)

    def _forget(self, _registry: Registry) -> None:
        self._kept = OrderedDict()
        self._posted = OrderedDict()


def etag_of(body: bytes) -> str:
    """Return the entity tag of a decision's bytes."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'
