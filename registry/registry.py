"""Registry: entry point that answers queries from a book."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from preshuffle.registry.base.collection import age_objects, collection_paused
from preshuffle.registry.base.errors import BookError, LayoutError, NoRecipeError, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.check import Checker
from preshuffle.registry.kernels import KernelChoice, KernelTables, dispatch
from preshuffle.registry.layer import Predictor, layer_of
from preshuffle.registry.lint import lint, lint_packaged
from preshuffle.registry.loading import Book, load_book
from preshuffle.registry.resolve import (
    LayoutDecision,
    LoaderCut,
    Resolver,
    call_of_decision,
    engine_notes_of,
    loader_cut,
    observed_kernels,
    why_not_predicted,
)
from preshuffle.registry.values.decision import Decision, KernelBucket
from preshuffle.registry.values.query import Query

if TYPE_CHECKING:
    from preshuffle.registry.resolve import Explanation
    from preshuffle.registry.values.observation import Observation
    from preshuffle.registry.values.report import Report


class Registry:
    """Immutable registry: answers queries from one book.

    A changed book is another registry.

    Example:
        >>> registry = Registry.load()
        >>> query = Query(model="openai/gpt-oss-120b", arch="gfx950", activation_dtype="fp4x2", tp=2)
        >>> registry.resolve(query).recipe
        'mxfp4.sep16'
    """

    def __init__(self, book: Book, tables: KernelTables | None = None) -> None:
        """Use a loaded book and, where there are any, kernel tables."""
        self.book = book
        self.tables = tables
        self._memo = Memo()

    def __reduce__(self) -> tuple[type[Registry], tuple[Book, KernelTables | None]]:
        """Copy and pickle without memoised results."""
        return Registry, (self.book, self.tables)

    @classmethod
    def load(
        cls,
        overlays: Iterable[Path | str] = (),
        kernel_tables: Literal["auto"] | Sequence[Path | str] | None = None,
    ) -> Registry:
        """Load the packaged book, overlays on top.

        Neither the environment nor ``/etc`` is read.

        Args:
            overlays: folders or files that add entries or replace them by id, later ones on top.
            kernel_tables: AITER's tuned tables: None, ``"auto"`` (the installed AITER's) or paths (a CSV, or a folder
                laid out as AITER's ``configs/``; ``path@version`` ties it to one AITER).

        Raises:
            BookError: names file, line and column of everything that is wrong.
            TableError: kernel tables do not load, with file and line; ``"auto"`` where no AITER is installed.
        """
        with collection_paused():
            book = load_book(overlays)
            problems = lint(book) if book.overlaid else lint_packaged(book)
        if problems:
            raise BookError(problems)
        book.build_indexes()  # with the book: the first query does not wait for them
        return cls(book, None if kernel_tables is None else KernelTables.named(kernel_tables))

    @classmethod
    @lru_cache(maxsize=1)
    def default(cls) -> Registry:
        """Return the packaged book's registry, loaded once per process."""
        registry = cls.load()
        age_objects()
        return registry

    @property
    def digest(self) -> str:
        """``sha256:…`` of the book; kernel tables have a digest of their own."""
        return self.book.digest

    def query_from_hf_config(
        self,
        config: Mapping[str, Any] | str | Path,
        *,
        layer: int | None = None,
        **fields: Any,
    ) -> Query:
        """Build a query from a Hugging Face ``config.json``.

        Args:
            config: the configuration as a mapping, its path, or the checkpoint's folder; how its fields are named is
                the book's ``model_types``.
            layer: index of the layer whose experts are meant; needed only where the layers' experts differ.
            fields: the rest of the query (``arch`` at least); they override what the configuration says.

        Raises:
            QueryError: the file cannot be read, the model type is unknown, or a field is missing or wrong.

        Example:
            >>> config = {"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
            ...           "num_local_experts": 32, "num_experts_per_tok": 4,
            ...           "quantization_config": {"quant_method": "mxfp4"}}
            >>> Registry.default().query_from_hf_config(config, arch="gfx950").weight_dtype
            'fp4x2'
        """
        from preshuffle.registry.hf import query_of

        return query_of(config, self.book, fields, layer)

    def resolve(self, query: Query, *, kernels: bool = True, nearest: bool = True) -> Decision:
        """Decide bytes, call and kernels for a query.

        Args:
            query: an equal query gets the same decision object again.
            kernels: without them only bytes and call are decided, several times faster: ``kernels`` is then empty, and
                no finding is about one. The digests are the same.
            nearest: name the nearest rules where one says that nothing works; without them that is told faster.

        Raises:
            NoRecipeError: no rule answers; the nearest matches and missing fields are named.
            QueryError: the query contradicts itself.
        """
        return self._resolver.resolve(query, kernels=kernels, nearest=nearest)

    def resolve_layout(self, query: Query) -> LayoutDecision:
        """Decide bytes and call alone, without findings.

        Its digest is the decision's: for those who compare digests, and whose time is short.

        Raises:
            NoRecipeError: no rule answers; the nearest matches and missing fields are named.
            QueryError: the query contradicts itself.
        """
        with collection_paused():  # the first query makes the book's index, which stays
            return self._resolver.resolve_layout(query)

    @cached_property
    def _resolver(self) -> Resolver:
        return Resolver(self.book, self._predictor, lambda: self._checker, self._memo)

    @cached_property
    def _checker(self) -> Checker:
        return Checker(self.book, self._predictor, self._memo)

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.tables, self._memo)

    def check(self, observation: Observation, *, decide: bool = False) -> Report:
        """Check a deployment: compare its bytes, call and kernels.

        They are compared with each other, never with one recipe.

        Args:
            observation: what was done; what it leaves out is unknown, and nothing is concluded from it.
            decide: also put into the report what the registry would do for the query.
        """
        report = self._checker.check(observation)
        if not decide:
            return report
        query = observation.query
        decision = self._memo.get("decisions or none", query, lambda: self._decision_or_none(query))
        return report.model_copy(update={"decision": decision})

    def _decision_or_none(self, query: Query) -> Decision | None:
        try:
            return self.resolve(query)
        except (NoRecipeError, QueryError, LayoutError):
            return None

    def kernels_of(self, observation: Observation) -> tuple[KernelBucket, ...]:
        """Predict the kernels of a reported call at the query's token counts.

        None where too little of the call was reported, or no kernel of AITER's dispatch runs.
        """
        layer = layer_of(observation.query, self.book, self._memo, observation.applied)
        return observed_kernels(layer, self._predictor)

    def loader_cut(self, query: Query) -> LoaderCut:
        """Return how a query's engine cuts the intermediate size between ranks.

        As the query's ``shard`` says, else as the rule that answers the query says, else in whole scale groups.
        """
        return loader_cut(layer_of(query, self.book, self._memo))

    def explain(self, query: Query) -> Explanation:
        """Explain a query: every rule considered, and its outcome.

        Raises:
            NoRecipeError: the arch is unknown.
            QueryError: a switch has a value that it cannot have.
        """
        from preshuffle.registry.resolve import explain

        return explain(query, self.book)

    def engine_notes(self, query: Query) -> tuple[str, ...]:
        """Return what any answer to a query must say of its engine.

        The release as which it is answered, where its version is missing or not known; the AITER it is written for,
        where that is newer than the newest known.
        """
        return engine_notes_of(layer_of(query, self.book, self._memo))

    def predict(self, query: Query, tokens: int) -> KernelChoice:
        """Predict the kernel that the decided call gets at one token count.

        Raises:
            NoRecipeError: no rule answers, or the GPU's number of compute units is not known.
            QueryError: the token count is none.
        """
        query = Query.parse({**dict(query), "tokens": (tokens,)})
        decision = self.resolve(query, kernels=False)
        call = call_of_decision(decision, query, self.book, tokens, self._memo)
        if call is None:
            text, missing = why_not_predicted(query, decision.call, self.book)
            raise NoRecipeError(text, missing=missing)
        return dispatch(call, self.tables, self.book.families)
