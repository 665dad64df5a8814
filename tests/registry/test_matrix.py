"""The matrix of models and GPUs says in each cell what the query of that cell is answered."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from preshuffle.registry import NoRecipeError, Query, QueryError, Registry, observation_of
from preshuffle.registry.matrix import Matrix, MatrixCell, first_words, matrix_of, matrix_query, narrowed

STEP = 23
OVERLAY = """
models:
  acme/moe:
    hidden_size: 4096
    intermediate_size: 1536
    num_experts: 64
    top_k: 4
    weight_dtype: bf16
    quant_type: "No"
    activation: Silu
    activation_dtype: bf16
    gate_up_order: GGUU
    bias: false
    evidence: [https://acme.example/moe]
  acme/unsaid:
    hidden_size: 4096
    evidence: [https://acme.example/unsaid]
rules:
  acme.not-there:
    when: {model: acme/moe, arch: gfx950}
    use: null
    because: "Acme's experts do not fit there: they are too wide; take another GPU"
    evidence: ["https://github.com/acme/moe/blob/v1.0/moe.py#Experts"]
"""
HEADER = (
    "gfx,cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,use_g1u1,"
    "doweight_stage1,block_m,ksplit,us,kernelName1,kernelName2,run_1stage"
)
ROW = (
    "gfx942,304,{tokens},4096,1536,64,4,ActivationType.Silu,torch.bfloat16,torch.bfloat16,torch.bfloat16,"
    "QuantType.No,1,0,32,0,50.0,,,0"
)


@pytest.fixture(scope="module", params=[(None, 1), ("sglang@0.5.23", 8)], ids=str)
def matrix(request: pytest.FixtureRequest) -> Matrix:
    engine, tp = request.param
    registry = Registry.default()
    return matrix_of(registry, matrix_query(registry, {"engine": engine, "tp": tp}))


def query_of(cell: MatrixCell) -> Query:
    return Query.parse(dict(parse_qsl(cell.query)))


def cell_of(matrix: Matrix, model: str, arch: str, cu_num: int | None = None) -> MatrixCell:
    row = next(row for row in matrix.models if row.model == model)
    return next(cell for cell in row.cells if (cell.arch, cell.cu_num) == (arch, cu_num))


def test_every_model_is_there_on_every_gpu(matrix: Matrix) -> None:
    book = Registry.default().book
    assert [row.model for row in matrix.models] == list(book.models)
    assert list(dict.fromkeys(gpu.arch for gpu in matrix.gpus)) == list(book.archs)
    assert {product for gpu in matrix.gpus for product in gpu.products} == {
        product for arch in book.archs.values() for product in arch.products
    }
    columns = [(gpu.arch, gpu.cu_num) for gpu in matrix.gpus]
    assert all([(cell.arch, cell.cu_num) for cell in row.cells] == columns for row in matrix.models)


def test_products_whose_kernels_may_differ_are_apart(matrix: Matrix) -> None:
    apart = [(gpu.cu_num, gpu.products) for gpu in matrix.gpus if gpu.arch == "gfx942"]
    assert apart == [(304, ("MI300X", "MI325X")), (228, ("MI300A",)), (80, ("MI308X",))]
    assert [gpu.products for gpu in matrix.gpus if gpu.arch == "gfx950"] == [("MI350X", "MI355X")]


def test_a_cell_says_what_its_query_is_answered(matrix: Matrix) -> None:
    registry = Registry.default()
    cells = [cell for row in matrix.models for cell in row.cells]
    assert {"resolved", "refused", "incomplete"} <= {cell.outcome for cell in cells}
    for cell in cells[::STEP]:
        query = query_of(cell)
        assert (query.arch, query.cu_num, query.tp) == (cell.arch, cell.cu_num, matrix.tp)
        assert (str(query.engine) if query.engine else None) == matrix.engine
        if cell.outcome != "resolved":
            with pytest.raises(NoRecipeError) as caught:
                registry.resolve(query)
            assert (cell.recipe, cell.verdict, cell.tuned) == (None, None, None)
            assert cell.reason
            assert cell.reason.rstrip("…") in caught.value.why
            assert (cell.outcome == "refused") == bool(caught.value.evidence)
            assert (cell.outcome == "incomplete") == bool(caught.value.missing)
            continue
        decision = registry.resolve(query)
        report = registry.check(observation_of(decision, query))
        assert (cell.recipe, cell.verdict) == (decision.recipe, report.verdict)
        assert set(cell.findings) == {finding.code for finding in report.findings}
        assert cell.known_bad == ("known_bad" in cell.findings)
        assert (cell.reason, cell.tuned) == (None, None)  # no tables are loaded


def test_what_an_overlay_adds_and_refuses_is_in_it(tmp_path: Path) -> None:
    overlay, table = tmp_path / "acme.yaml", tmp_path / "tuned_fmoe.csv"
    overlay.write_text(OVERLAY)
    table.write_text("\n".join([HEADER, *(ROW.format(tokens=tokens) for tokens in (1, 16, 64))]) + "\n")
    registry = Registry.load([overlay], [table])
    found = matrix_of(registry, matrix_query(registry, {}))
    assert registry.tables is not None
    assert found.kernel_tables == registry.tables.digest
    refused = cell_of(found, "acme/moe", "gfx950")
    assert (refused.outcome, refused.reason) == ("refused", "Acme's experts do not fit there")
    tuned = cell_of(found, "acme/moe", "gfx942", 304)
    buckets = registry.resolve(query_of(tuned)).kernels
    assert {bucket.tuned for bucket in buckets} == {True, False}
    assert (tuned.tuned, tuned.untuned_tokens) == ("some", tuple(at.tokens for at in buckets if not at.tuned))
    assert cell_of(found, "acme/moe", "gfx942", 80).tuned == "none"
    assert cell_of(found, "acme/unsaid", "gfx942", 304).outcome == "incomplete"


def test_a_matrix_is_narrowed_by_model_and_by_any_name_of_a_gpu(matrix: Matrix) -> None:
    registry = Registry.default()
    some = narrowed(matrix, registry, "GPT-OSS", "AMD Instinct MI308X")
    assert {row.model for row in some.models} == {model for model in registry.book.models if "gpt-oss" in model}
    assert [(gpu.arch, gpu.cu_num) for gpu in some.gpus] == [("gfx942", 80)]
    assert all([cell.cu_num for cell in row.cells] == [80] for row in some.models)
    assert [gpu.cu_num for gpu in narrowed(matrix, registry, arch="MI300").gpus] == [304, 228, 80]
    assert [gpu.arch for gpu in narrowed(matrix, registry, arch="gfx950:xnack-").gpus] == ["gfx950"]
    assert narrowed(matrix, registry, "no such model").models == ()
    assert narrowed(matrix, registry) == matrix


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "vlm"}, "did you mean vllm"),
        ({"engine": "vllm@"}, "version is missing"),
        ({"aiter": "newest"}, "version"),
        ({"tp": "0"}, "greater than or equal to 1"),
    ],
)
def test_what_no_query_can_have_is_refused(fields: dict[str, str], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        matrix_query(Registry.default(), dict(fields))


def test_an_unknown_gpu_is_refused_with_the_nearest(matrix: Matrix) -> None:
    with pytest.raises(QueryError, match="MI300X"):
        narrowed(matrix, Registry.default(), arch="MI300Y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one; two", "one"),
        ("gfx1250 has MXFP4 only: no fp8", "gfx1250 has MXFP4 only"),
        ("AITER 0.1.20 lacks it. Take another", "AITER 0.1.20 lacks it"),
        ("first\n  nearest: x", "first"),
        ("word " * 40, "word " * 18 + "word…"),
    ],
)
def test_first_words_are_the_first_clause(text: str, words: str) -> None:
    assert first_words(text) == words
    assert len(first_words(text)) <= 100
