"""Index of kernel families: from a kernel to the layouts it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.linear_pattern import LinearPattern, linear_pattern
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels.aiter_versions.behaviour import is_newest
from preshuffle.registry.kernels.choice import KernelChoice, Stage
from preshuffle.registry.kernels.families.evidence import EvidenceIndex, EvidenceRecord, packaged_evidence
from preshuffle.registry.kernels.families.family import Family, FamilyVariant, KernelTag
from preshuffle.registry.text import packaged_sections

if TYPE_CHECKING:
    from packaging.version import Version

FAMILIES: Final = "kernel_families.yaml"
_MEMO_SIZE = 16384
StagedReads = tuple[Stage, Stage | None, tuple[str, ...]]
Grammars = tuple[tuple[Family, LinearPattern], ...]


class RuntimeFacts(NamedTuple):
    """Facts of a call that may change which layouts a kernel reads.

    Every value is spelled as in the book.
    """

    activation_dtype: str
    weight_dtype: str
    quant_type: str
    gate_mode: str
    is_shuffled: str
    split_k: str
    post_activation_layout: str
    arch: str = ""
    activation: str = ""


class Families:
    """Index of kernel families by kernel name and launching function.

    Attributes:
        by_id: the families, in the order in which they are tried.
        memo: stores what dispatch derives from these families.
        outcomes: stores the outcomes of calls by kind, each kind with a memo of its own.

    Example:
        >>> packaged_families().parse_name("flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w2_gui")[1]["gui"]
        '_gui'
    """

    def __init__(
        self,
        families: Iterable[Family],
        tags: Iterable[KernelTag] = (),
        evidence: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
    ) -> None:
        """Take entries that are already read, in any order.

        Args:
            families: the families.
            tags: names in tables that stand for no kernel.
            evidence: returns the evidence of what they read, by id, as it is written; called when it is first needed.
        """
        self.by_id = {entry.id: entry for entry in sorted(families, key=lambda entry: (-entry.priority, entry.id))}
        self._tags = tuple(tags)
        self._load_evidence = evidence
        self.memo = Memo(_MEMO_SIZE)
        self.outcomes = Memo(256)

    def __iter__(self) -> Iterator[Family]:
        """Iterate over the families in the order in which they are tried."""
        return iter(self.by_id.values())

    @cached_property
    def _grammars(self) -> Grammars:
        return tuple((family, linear_pattern(family.grammar)) for family in self)

    @cached_property
    def _evidence(self) -> EvidenceIndex:
        return EvidenceIndex(self._load_evidence())

    @cached_property
    def _by_func(self) -> dict[str, Grammars]:
        funcs = {func for family in self for func in family.funcs}
        return {func: tuple(pair for pair in self._grammars if func in pair[0].funcs) for func in funcs}

    def parse_name(self, kernel: str) -> tuple[str, dict[str, str]] | None:
        """Parse a kernel name into family id and encoded values.

        None for a name of no family.

        Args:
            kernel: a name from a table or a log.
        """
        return self.memo.get("kernel names", kernel, lambda: self._parse_name(kernel))

    def _parse_name(self, kernel: str) -> tuple[str, dict[str, str]] | None:
        parsed = ((family.id, grammar.groups(kernel)) for family, grammar in self._grammars if kernel)
        return next(((id, groups) for id, groups in parsed if groups is not None), None)

    def is_known_name(self, kernel: str) -> bool:
        """Return whether a name in tables is known.

        It is a kernel of a known family, or a tag that stands for a heuristic.
        """
        return self.parse_name(kernel) is not None or any(
            linear_pattern(tag.pattern).matches(kernel) for tag in self._tags
        )

    def stages_of(self, func1: str, kernel1: str, func2: str | None, kernel2: str, facts: RuntimeFacts) -> StagedReads:
        """Return both stages with family and layouts read, and the notes.

        Args:
            func1: AITER's function of stage 1.
            kernel1: its kernel name, ``""`` where C++ picks one.
            func2: AITER's function of stage 2, None for a 1-stage kernel.
            kernel2: its kernel name.
            facts: of the call; a family's variants depend on them.
        """
        key = (func1, kernel1, func2, kernel2, facts)
        return self.memo.get("stages", key, lambda: self._stages(*key))

    def _stages(self, func1: str, kernel1: str, func2: str | None, kernel2: str, facts: RuntimeFacts) -> StagedReads:
        stage1, note1 = self._stage(func1, kernel1, 1, facts)
        stage2, note2 = (None, None) if func2 is None else self._stage(func2, kernel2, 2, facts)
        notes = dict.fromkeys(note for note in (note1, note2) if note is not None)
        return stage1, stage2, tuple(notes)

    def _stage(self, func: str, kernel: str, position: int, facts: RuntimeFacts) -> tuple[Stage, str | None]:
        other_stage = str(3 - position)
        for family, grammar in self._by_func.get(func, ()):
            groups = None if family.stage == other_stage else grammar.groups(kernel)
            if groups is None:
                continue
            values = facts._asdict()
            variant = next((v for v in family.variants if _fits(v, values, groups)), None)
            reads = {} if variant is None else variant.reads
            found = dict(self._evidence.of(("kernel_families", family.id), reads, kernel, values, groups))
            stage = Stage(
                func=func,
                kernel=kernel,
                family=family.id,
                reads=FrozenDict(reads),
                known=FrozenDict({role: record.kind for role, record in found.items()}),
                evidence=FrozenDict({role: record.id for role, record in found.items()}),
            )
            return stage, variant.note if variant is not None else None
        return Stage(func=func, kernel=kernel, family=None), f"{func} knows no kernel {kernel!r}"

    def evidence_of_backend(
        self, backend: str, reads: Mapping[str, str], facts: Mapping[str, str]
    ) -> Mapping[str, EvidenceRecord]:
        """Return by role the evidence that a backend reads a layout.

        Args:
            backend: its id.
            reads: layout by role.
            facts: ``arch``, ``weight_dtype`` and ``activation``, as far as they are known.
        """
        return dict(self._evidence.of(("backends", backend), reads, "", facts, {}))

    def exist_for(self, arch: str, ids: tuple[str, str]) -> bool:
        """Return whether the known families of both stages exist for a GPU."""
        for id in ids:
            family = self.by_id.get(id)
            if family is not None and family.archs and arch not in family.archs:
                return False
        return True

    def read_on(self, arch: str, role: str, layout: str) -> bool:
        """Return whether a GPU's kernels read a role in a layout."""
        return any(
            variant.reads.get(role) == layout
            for family in self.by_id.values()
            if not family.archs or arch in family.archs
            for variant in family.variants
        )

    def row_of_later(self, aiter: str | None, choice: KernelChoice) -> Family | None:
        """Return the family of a tuned kernel that an AITER lacks.

        None where no kernel is newer, or no row chose it.
        """
        names = (stage.kernel for stage in (choice.stage1, choice.stage2) if stage is not None)
        return self.begins_later(aiter, names) if choice.tuned else None

    def begins_later(self, aiter: str | None, names: Iterable[str]) -> Family | None:
        """Return the family of the first kernel newer than an AITER.

        None where there is none, or the version is not known.
        """
        if aiter is None or is_newest(aiter):
            return None
        parsed = (self.parse_name(name) for name in names if name)
        owners = (self.by_id[found[0]] for found in parsed if found is not None)
        return next((owner for owner in owners if _is_newer(owner, version_key(aiter))), None)


def _is_newer(family: Family, aiter: Version) -> bool:
    """Whether a family begins after a version, and no backport of it has that one."""
    if not family.since or aiter >= version_key(family.since):
        return False
    return not any(version_key(first) <= aiter < version_key(end) for first, end in family.backports)


def _fits(variant: FamilyVariant, facts: dict[str, Any], groups: dict[str, str]) -> bool:
    for name, allowed in variant.when.items():
        value = groups.get(name[5:], "") if name.startswith("name.") else facts[name]
        if value not in allowed:
            return False
    return True


@lru_cache(maxsize=1)
def packaged_families() -> Families:
    """Return the packaged book's families, read once per process.

    Raises:
        BookError: the file is not valid YAML.
    """
    families, tags = packaged_sections(FAMILIES, "kernel_families", "kernel_tags")
    return Families(
        map(Family.model_validate, families), map(KernelTag.model_validate, tags), lambda: packaged_evidence()[1]
    )
