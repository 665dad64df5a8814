"""Numbers without bound, odd versions, odd files: one clear answer each, at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preshuffle.registry import BookError, PreshuffleError
from preshuffle.registry.base.versions import InvalidVersionError, version_key
from preshuffle.registry.kernels import DispatchCall, KernelTables, TableError, dispatch, packaged_families
from preshuffle.registry.kernels.aiter_versions import dispatch_book
from preshuffle.registry.kernels.aiter_versions.behaviour import behaviour_of
from preshuffle.registry.kernels.dispatch.case import DispatchCase
from preshuffle.registry.kernels.dispatch.heuristics import k_split
from preshuffle.registry.kernels.tables.table_file import MAX_NAME
from preshuffle.registry.text.yaml_text import parse_yaml
from support.aiter.kernel_rows import table, tables
from support.computing import computed_within

CALL = {
    "gfx": "gfx950", "cu_num": 256, "tokens": 1, "model_dim": 4096, "inter_dim": 128, "expert": 8, "topk": 1,
    "activation": "Silu", "weight_dtype": "fp8", "quant_type": "per_1x128",
}  # fmt: skip


def case(cu_num: int, model_dim: int, inter_dim: int, topk: int) -> DispatchCase:
    fields = {**CALL, "model_dim": model_dim, "inter_dim": inter_dim, "topk": topk, "expert": 512}
    call = DispatchCall.model_validate(fields)
    return DispatchCase(
        call=call,
        families=packaged_families(),
        behaviour=behaviour_of(None),
        env={},
        gfx="gfx950",
        cu_num=cu_num,
        tokens=1,
        token=1,
        topk=topk,
        quant_type="per_1x128",
        activation_dtype="fp8",
    )


def as_aiter_writes_it(cu_num: int, model_dim: int, inter_dim: int, topk: int) -> int:
    tiles = -(-inter_dim // 128) * topk
    if topk > 512 or tiles >= cu_num:
        return 0
    for parts in range(-(-cu_num // tiles), 1, -1):
        if model_dim % parts == 0 and (model_dim // parts) % 256 == 0:
            return parts
    return 0


sizes = st.tuples(
    st.integers(1, 4096), st.integers(1, 80).map(lambda n: n * 128), st.integers(1, 4096), st.integers(1, 32)
)


@given(sizes)
def test_the_split_of_k_is_aiters(given_sizes: tuple[int, int, int, int]) -> None:
    assert k_split(case(*given_sizes)) == as_aiter_writes_it(*given_sizes)


def test_a_number_of_compute_units_from_the_environment_costs_no_time() -> None:
    call = DispatchCall.model_validate({**CALL, "model_dim": 4099, "env": {"CU_NUM": str(2**62)}})
    assert computed_within(0.5, lambda: dispatch(call)).ksplit == 0


@pytest.mark.parametrize(
    "wrong",
    [{"cu_num": 2**31}, {"tokens": 2**31 + 1}, {"model_dim": 2**22}, {"expert": 2**22}, {"topk": 2**22},
     {"hidden_pad": 2**22}, {"gfx": "gfx" + "9" * 400}, {"gfx": "gfx950\n"}, {"aiter": "9" * 5000}],
)  # fmt: skip
def test_sizes_of_a_call_are_bounded(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DispatchCall.model_validate(CALL | wrong)


@pytest.mark.parametrize("text", ["0.1.٤٠", "0.1.\u0967", "0.1.20+\u212a", "0.1.\u00b2", "0.1.20\u2003"])
def test_a_version_is_ascii(text: str) -> None:
    with pytest.raises(InvalidVersionError, match="is not a version"):
        version_key(text)


@pytest.mark.parametrize("text", ["9" * 5000, "1." * 3000 + "0", "0.1+" + "a" * 900])
def test_a_long_version_is_refused_in_our_own_words(text: str) -> None:
    with pytest.raises(InvalidVersionError, match=rf"\({len(text)} characters\) is not a version") as caught:
        version_key(text)
    assert len(str(caught.value)) < 120


def test_a_table_error_is_one_of_ours_and_knows_its_place() -> None:
    with pytest.raises(PreshuffleError) as caught:
        KernelTables.from_bytes({"model_configs/a_tuned_fmoe.csv": b"a,b\n"})
    error = caught.value
    assert isinstance(error, TableError)
    assert (error.file, error.line) == ("model_configs/a_tuned_fmoe.csv", 1)
    assert error.message.startswith("lacks the columns cu_num")
    with pytest.raises(TableError) as missing:
        KernelTables.load(["/no/such:place.csv"])
    assert (missing.value.file, missing.value.line) == ("/no/such:place.csv", None)


def test_a_variable_that_is_no_number_is_not_repeated_at_length() -> None:
    choice = dispatch(DispatchCall.model_validate({**CALL, "env": {"AITER_USE_NT": "x" * 9000}}))
    assert choice.error is not None
    assert len(choice.error) < 120


@pytest.mark.parametrize(
    ("name", "model", "old", "new", "place"),
    [
        (dispatch_book.DISPATCH, dispatch_book.DispatchBook, "newest_label:", "newest_labels:", "newest_label"),
        (dispatch_book.DISPATCH, dispatch_book.DispatchBook, 'since: "0.1.8"', "since: [0, 1, 8]", "timeline.1.since"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_kernel_book_is_located(
    name: str, model: type[dispatch_book.BookModel], old: str, new: str, place: str
) -> None:
    text = Path(dispatch_book.__file__).parents[2].joinpath("book", name).read_text(encoding="utf-8")
    document, problems = parse_yaml(text.replace(old, new, 1), name)
    value, wrong = dispatch_book.validated(model, document)
    assert (value, problems) == (None, [])
    assert place in str(wrong[0])
    assert wrong[0].line > 1
    assert str(BookError(wrong)).startswith(f"{name}:")


def test_the_kernel_book_loads_in_a_moment() -> None:
    def load() -> None:
        dispatch_book.dispatch_book.cache_clear()
        packaged_families.cache_clear()
        dispatch_book.dispatch_book()
        packaged_families()

    computed_within(0.1, load)  # 20 ms where nothing else runs


@pytest.mark.parametrize(
    "name",
    [
        "flydsl_moe2_layout_a" + "_w_t" * 59,
        "_ZN5aiter1fmoe_bf16_pertokenFp8_g1u1_" + "1x1_" * 54,
        "flydsl_mxmoe_g1_a4w4_1x1x1" + "_a" * 110 + "!",
        "opus_moe1_afp8_wfp4_bf16_t1x1_" + "a_" * 110,
        "moe_ck2stages_gemm1_1x1x1x1_1x1_" + "Shuffled" * 27,
    ],
    ids=lambda name: name[:20],
)  # fmt: skip
def test_no_name_keeps_a_grammar_busy(name: str) -> None:
    assert len(name) <= MAX_NAME
    assert computed_within(0.05, lambda: packaged_families().parse_name(name)) is None


def test_a_name_has_an_end() -> None:
    with pytest.raises(TableError, match=r"t0\.csv:2: column kernelName2: a name of 300 characters; valid: 256"):
        tables(table({"kernelName2": "x" * 300}))


MEMORY = {
    "many columns": b",".join(b"c%d" % n for n in range(300)) + b"\n",
    "a line without end": b"x," * (8 << 20),
    "a row over many lines": b'"\n",' * (1 << 20),
    "a text with a null byte": b"cu_num,token\x00\n",
}


@pytest.mark.parametrize("data", MEMORY.values(), ids=MEMORY)
def test_files_made_to_cost_memory_are_refused_early(data: bytes) -> None:
    def read() -> None:
        with pytest.raises(TableError, match=r"t\.csv:\d+: (is not CSV|has 300 columns|holds a null byte)"):
            KernelTables.from_bytes({"t.csv": data})

    computed_within(2, read)
