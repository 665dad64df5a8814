"""Kernel tables: both schemas, AITER's merge, and every kind of file that is not a kernel table."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from preshuffle.registry.kernels import KernelTables, TableError, dispatch
from preshuffle.registry.kernels.tables.table_file import MAX_BYTES
from support.aiter.kernel_rows import CK1, NEW, OLD, ONE, call, table, tables

WHEEL = "0.1.7.post2.dev18"


def test_a_row_is_found_and_said_where() -> None:
    choice = dispatch(call(tokens=33), tables(table({})))
    assert choice.tuned is True
    assert choice.source == "t0.csv:2"
    assert choice.stage1 is not None
    assert (choice.stage1.kernel, choice.stage1.family) == (CK1, "ck_gemm1")
    assert choice.stage1.reads == {"w13_weight": "sep16"}


def test_without_tables_nothing_is_known_about_rows() -> None:
    choice = dispatch(call())
    assert choice.tuned is None
    assert choice.source is None
    assert any("no kernel tables" in note for note in choice.notes)
    assert dispatch(call(), tables()).tuned is None


def test_both_schema_generations_are_read_together() -> None:
    both = tables(table({"token": "64"}), table({"token": "128"}, header=OLD))
    assert dispatch(call(tokens=64), both).source == "t0.csv:2"
    assert dispatch(call(tokens=128), both).source == "t1.csv:2"
    assert {row.gfx for row in both.rows} == {"gfx942"}


def test_the_wheel_does_not_tell_architectures_apart() -> None:
    made = tables(table({"cu_num": "256", "gfx": "gfx950"}))
    other = {"gfx": "gfx1250", "cu_num": 256, "doweight_stage1": False}
    assert dispatch(call(**other, aiter=WHEEL, tokens=64), made).tuned is True
    assert dispatch(call(**other), made).tuned is False


@pytest.mark.parametrize(("aiter", "tuned"), [("0.1.13", False), ("0.1.14", True), ("0.1.19", True), (None, True)])
def test_another_activation_answers_by_version(aiter: str | None, tuned: bool) -> None:
    made = tables(table({"act_type": "ActivationType.Gelu"}))
    choice = dispatch(call(aiter=aiter), made)
    assert choice.tuned is tuned
    assert any("ActivationType.Gelu" in note for note in choice.notes) is tuned


@pytest.mark.parametrize(
    ("aiter", "looks_up"),
    [("0.1.13", 5), ("0.1.14", 5), ("0.1.15.post3", 5), ("0.1.16", 4), ("0.1.17", 4), ("0.1.20", 4), (None, 4)],
)
def test_the_masked_column_is_counted_until_aiter_takes_it_off(aiter: str | None, looks_up: int) -> None:
    """``topk -= int(is_ep)`` is in AITER's lookup from 0.1.16 on."""
    for topk in (4, 5):
        made = tables(table({"topk": str(topk)}))
        assert dispatch(call(aiter=aiter, ep=True, topk=5), made).tuned is (topk == looks_up)


def test_exact_then_any_prefers_the_right_activation() -> None:
    made = tables(table({"act_type": "ActivationType.Gelu", "block_m": "128"}, {"block_m": "64"}))
    assert dispatch(call(aiter="0.1.18"), made).block_m == 64
    assert dispatch(call(aiter="0.1.20"), made).block_m == 128
    assert [(hazard.code, hazard.source) for hazard in made.hazards] == [("ambiguous_key", "t0.csv:3")]


def test_the_second_token_tier_answers_for_the_largest() -> None:
    made = tables(table({"token": "32768"}))
    assert dispatch(call(tokens=200_000), made).tuned is True
    assert dispatch(call(tokens=200_000), made).padded_tokens == 131072


def test_contradicting_files_keep_the_faster_row_and_say_so() -> None:
    slow = table({"us": "9.0", "block_m": "64"})
    fast = table({"us": "3.0", "block_m": "128"})
    for files in ((slow, fast), (fast, slow)):
        made = tables(*files)
        assert dispatch(call(), made).block_m == 128
        (hazard,) = made.hazards
        assert (hazard.code, hazard.source) == ("ambiguous_key", "t1.csv:2")
        assert "t0.csv:2" in hazard.message


def test_equal_rows_are_no_contradiction() -> None:
    assert tables(table({}), table({"us": "1.0"})).hazards == ()


def test_rows_of_a_shared_number_of_compute_units_are_ambiguous_without_gfx() -> None:
    (hazard,) = tables(table({"cu_num": "256"}, {"cu_num": "256", "token": "1"}, header=OLD)).hazards
    assert (hazard.code, hazard.source) == ("ambiguous_key", "t0.csv:2")
    assert "gfx1250" in hazard.message


@pytest.mark.parametrize("gfx", ["MI355X", "gfx950:sramecc+:xnack-"])
def test_a_row_that_does_not_name_its_gpu_as_aiter_does_is_stale(gfx: str) -> None:
    made = tables(table({"gfx": gfx, "cu_num": "256"}))
    assert [(hazard.code, repr(gfx) in hazard.message) for hazard in made.hazards] == [("stale_row", True)]
    assert dispatch(call(gfx="gfx950", cu_num=256), made).tuned is False


def test_a_row_of_an_unknown_number_of_compute_units_counts_on_any_gpu() -> None:
    made = tables(table({"cu_num": "38"}, header=OLD))
    assert dispatch(call(cu_num=38), made).tuned is True
    assert [hazard.code for hazard in made.hazards] == ["ambiguous_key"]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "flydsl_moe1_afp4_wfp4_bf16_t32x", "my_kernel"])
def test_unknown_kernel_names_are_stale(name: str) -> None:
    (hazard,) = tables(table({"kernelName1": name})).hazards
    assert (hazard.code, hazard.source) == ("stale_row", "t0.csv:2")
    assert repr(name) in hazard.message


def test_unknown_columns_are_one_finding() -> None:
    header = NEW.replace("tflops", "verdict")
    data = table({}).decode().replace(NEW, header).encode()
    (hazard,) = tables(data).hazards
    assert (hazard.code, hazard.source) == ("stale_row", "t0.csv:1")
    assert "verdict" in hazard.message


@pytest.mark.parametrize("empty", ["", "NaN", "nan", "Null"])
def test_empty_names_are_no_names(empty: str) -> None:
    (row,) = tables(table({"kernelName1": ONE, "kernelName2": empty, "run_1stage": "1"})).rows
    assert row.kernel2 == ""
    assert row.run_1stage


def test_short_rows_and_shifted_columns_are_read_as_aiter_reads_them() -> None:
    line = table({}).decode().splitlines()[1]
    short = f"{NEW}\n{line.replace(',0,0,1,1,', ',0,49.07,1')}\n".encode()
    (row,) = tables(short).rows
    assert row.block_m == 32
    (shifted,) = tables(table({"run_1stage": "419"})).rows
    assert shifted.run_1stage


def test_rows_tagged_as_fallback_are_dropped() -> None:
    made = tables(table({"_tag": "flydsl_fallback"}))
    assert dispatch(call(), made).tuned is False
    assert dispatch(call(aiter=WHEEL), made).tuned is True


def broken(change: Callable[[bytes], bytes]) -> bytes:
    return change(table({}, {"token": "128"}))


BROKEN = {
    "empty": (b"", r"t0\.csv:1: is empty"),
    "blank": (b"\n\n", r"t0\.csv:1: is empty"),
    "another table": (b"a,b\n1,2\n", r"t0\.csv:1: lacks the columns cu_num"),
    "untuned": (table({}, header=NEW.replace("kernelName1,", "")), r"t0\.csv:1: lacks the columns kernelName1"),
    "cut in a row": (broken(lambda data: data[: len(data) - 220]), r"t0\.csv:3: has \d+ of \d+ columns"),
    "latin-1": (broken(lambda data: data.replace(b"Silu", b"Sil\xfc", 1)), r"t0\.csv:2: is not UTF-8 \(byte 0xfc\)"),
    "utf-16": (table({}).decode().encode("utf-16"), r"t0\.csv:1: is not UTF-8"),
    "nan in the key": (table({"token": "nan"}), r"t0\.csv:2: column token: 'nan' is not a whole number"),
    "formula": (table({"block_m": "=1+1"}), r"t0\.csv:2: column block_m: '=1\+1'"),
    "fraction": (table({"topk": "4.5"}), r"t0\.csv:2: column topk"),
    "infinite": (table({"expert": "inf"}), r"t0\.csv:2: column expert"),
    "nul": (table({"cu_num": "3\x0004"}), r"t0\.csv:2: holds a null byte"),
    "a column twice": (table({}, header=NEW.replace("bw", "us")), r"t0\.csv:1: names columns twice: us"),
    "too many columns": (broken(lambda data: data.rstrip() + b",1,2\n"), r"t0\.csv:3: has \d+ columns where"),
    "a huge cell": (table({"kernelName1": "x" * 200_000}), r"t0\.csv:2: is not CSV"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_give_one_located_error(data: bytes, message: str) -> None:
    with pytest.raises(TableError, match=message):
        tables(data)


def test_a_float_that_is_whole_and_a_byte_order_mark_are_fine() -> None:
    data = b"\xef\xbb\xbf" + table({"block_m": "64.0"}).replace(b"\n", b"\r\n")
    assert dispatch(call(), tables(data)).block_m == 64


def test_a_gigabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    huge = tmp_path / "tuned_fmoe.csv"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(TableError, match=str(MAX_BYTES)):
        KernelTables.load([huge])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("place", ["missing.csv", "missing"])
def test_missing_paths_are_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(TableError, match=place):
        KernelTables.load([tmp_path / place])
    with pytest.raises(TableError, match=r"no tuned_fmoe\.csv"):
        KernelTables.load([tmp_path])


def folder(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = root / f"{name.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_a_folder_is_read_in_order_and_named_relatively(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        tuned_fmoe=table({"act_type": "ActivationType.Gelu", "block_m": "16"}),
        model_configs__b_tuned_fmoe=table({"token": "1"}),
        model_configs__a_tuned_fmoe=table({"token": "2"}),
        model_configs__a_untuned_fmoe=b"token\n1\n",
    )
    loaded = KernelTables.load([root])
    files = ["tuned_fmoe.csv:2", "model_configs/a_tuned_fmoe.csv:2", "model_configs/b_tuned_fmoe.csv:2"]
    assert [row.source for row in loaded.rows] == files
    assert dispatch(call(), loaded).block_m == 16


def test_digest_depends_on_content_not_on_place(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", tuned_fmoe=table({})), folder(tmp_path / "two", tuned_fmoe=table({}))
    assert KernelTables.load([one]).digest == KernelTables.load(str(two)).digest
    assert KernelTables.load([one]).digest.startswith("sha256:")
    (two / "tuned_fmoe.csv").write_bytes(table({"block_m": "64"}))
    assert KernelTables.load([one]).digest != KernelTables.load([two]).digest


def test_a_path_can_be_tied_to_a_version(tmp_path: Path) -> None:
    old = folder(tmp_path / "old", tuned_fmoe=table({"block_m": "64"}))
    new = folder(tmp_path / "new", tuned_fmoe=table({"block_m": "128"}))
    tied = KernelTables.load([f"{old}@0.1.18", f"{new}@0.1.20.post1"])
    assert dispatch(call(aiter="0.1.18"), tied).block_m == 64
    assert dispatch(call(aiter="v0.1.20-1"), tied).block_m == 128
    assert dispatch(call(), tied).block_m == 128
    unknown = dispatch(call(aiter="0.1.19"), tied)
    assert unknown.tuned is None
    assert any("no kernel tables for this AITER version" in note for note in unknown.notes)
    with pytest.raises(TableError, match="is not a version"):
        KernelTables.load([f"{old}@main"])


def test_another_aiter_is_not_mistaken_for_amds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from preshuffle.registry.kernels.tables import installed

    (tmp_path / "aiter").mkdir()
    monkeypatch.setattr(installed, "DISTRIBUTION", "amd-aiter-that-is-not-there")
    monkeypatch.setattr(installed, "_package_folders", lambda: [tmp_path / "aiter"])
    with pytest.raises(TableError, match="not AMD's"):
        KernelTables.from_installed_aiter()
    monkeypatch.setattr(installed, "_package_folders", list)
    with pytest.raises(TableError, match="is not installed"):
        KernelTables.from_installed_aiter()
    root = tmp_path / "aiter"
    folder(root / "configs", tuned_fmoe=table({}))
    (root / "fused_moe.py").write_text("")
    monkeypatch.setattr(installed, "_package_folders", lambda: [root])
    assert len(KernelTables.from_installed_aiter().rows) == 1
