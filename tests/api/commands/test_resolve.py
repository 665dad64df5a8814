"""``preshuffle resolve``: where a query comes from, what is printed, and how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from preshuffle.api.cli import main
from preshuffle.registry import Decision, Query, Registry

MODEL = "openai/gpt-oss-120b"
ASK = {"model": MODEL, "arch": "gfx950", "activation_dtype": "fp4x2"}
OPTIONS = ["--model", MODEL, "--arch", "gfx950", "--activation-dtype", "fp4x2"]
CONFIG = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "quantization_config": {"quant_method": "mxfp4"},
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESHUFFLE_BOOK", "PRESHUFFLE_TABLES", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Decision:
    assert main(["resolve", *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return Decision.model_validate_json(out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert main(["resolve", *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == code
    assert err.startswith("preshuffle: ")
    assert "Traceback" not in err
    return err


def test_json_is_the_decision_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, *OPTIONS, "--tp", "2") == Registry.default().resolve(Query(**{**ASK, "tp": 2}))


def test_the_table_shows_the_reason_and_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    decision = Registry.default().resolve(Query(**{**ASK, "tp": 2}))
    assert main(["resolve", *OPTIONS, "--tp", "2"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["reason", "kind", decision.reason_kind] in lines


def test_a_file_and_options_that_override_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "query.yaml"
    path.write_text(f"model: {MODEL}\narch: gfx950\nactivation_dtype: fp4x2\ntp: 8\n")
    assert ask(capsys, str(path)) == Registry.default().resolve(Query(**{**ASK, "tp": 8}))
    assert ask(capsys, str(path), "--tp", "2", "--activation-dtype", "bf16").recipe == "mxfp4.gui16"


def test_json_that_is_not_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "query.json"
    path.write_text(json.dumps({**ASK, "deployment": "\U0001f600"}, indent="\t"))
    assert ask(capsys, str(path)).recipe == "mxfp4.sep16"


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(ASK).encode())))
    assert ask(capsys, "-").recipe == "mxfp4.sep16"


def test_every_field_of_a_query_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resolve", "--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in Query.model_fields if f"--{name.replace('_', '-')} " not in out] == []


def test_options_are_read_as_their_fields_are(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*OPTIONS, "--engine", "atom@0.1.5", "--env", "ATOM_MOE_GU_ITLV=1", "--no-bias", "--tokens", "1,64"]
    options += ["--tokens", "8", "--aiter", "0.1.16", "--cu-num", "256", "--gated"]
    options += ["--router-weight-on-input", "--activation", "silu"]
    assert main(["explain", *options, "--json"]) == 0
    query = Query.model_validate(json.loads(capsys.readouterr().out)["query"])
    assert str(query.engine) == "atom@0.1.5"
    assert query.env == {"ATOM_MOE_GU_ITLV": "1"}
    assert (query.router_weight_on_input, query.activation) == (True, "Silu")
    assert (query.bias, query.gated, query.tokens, query.aiter, query.cu_num) == (
        False,
        True,
        (1, 64, 8),
        "0.1.16",
        256,
    )


def test_a_checkpoints_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = ["--hf-config", str(tmp_path)]
    decision = ask(capsys, *config, "--arch", "gfx950", "--activation-dtype", "fp4x2")
    assert decision.tensors["w13_weight"].logical_shape == (32, 5760, 2880)
    assert ask(capsys, *config, "--arch", "gfx950", "--activation-dtype", "fp4x2", "--num-experts", "64").tensors[
        "w13_weight"
    ].logical_shape == (64, 5760, 2880)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["no query given"]),
        (["--arch", "gfx950"], ["--model: missing"]),
        (["--model", MODEL], ["--arch: missing"]),
        ([*OPTIONS, "--arch", "mi"], ["--arch", "mi"]),
        ([*OPTIONS, "--activation-dtype", "fp3"], ["--activation-dtype", "'fp3'", "valid: bf16, fp16, fp8, fp4x2"]),
        ([*OPTIONS, "--tp", "0"], ["--tp", "greater than or equal to 1", "'0'"]),
        ([*OPTIONS, "--tp", "two"], ["--tp", "'two'"]),
        ([*OPTIONS, "--engine", "vllm@x.y"], ["--engine (version)", "'x.y' is not a version"]),
        ([*OPTIONS, "--env", "ATOM"], ["--env 'ATOM'", "NAME=VALUE"]),
        ([*OPTIONS, "--tokens", "1,,2"], ["--tokens (1)"]),
        ([*OPTIONS, "--tokens", ""], ["--tokens"]),
        ([*OPTIONS, "--engine", "atom", "--env", "ATOM_MOE_GU_ITLV=7"], ["ATOM_MOE_GU_ITLV", "'7'", "valid: 0"]),
        (["/no/such/query.yaml"], ["/no/such/query.yaml", "No such file"]),
        (["/"], ["Is a directory"]),
        (["x\0y"], ["cannot be read"]),
        ([*OPTIONS, "--hf-config", "/no/such"], ["/no/such", "cannot be read"]),
        ([*OPTIONS, "--book", "/no/such"], ["/no/such: ", "no such file or folder"]),
        ([*OPTIONS, "--tables", "/no/such.csv"], ["/no/such.csv"]),
        ([*OPTIONS, "--tables", "auto", "--tables", "x"], ["auto"]),
    ],
)
def test_bad_input_is_named(options: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, *options)
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: x\narch: gfx950\ntpp: 2\n", [":3:1: tpp: unknown field", "valid: model, arch"]),
        ("model: x\narch: gfx950\nengine:\n  name: vllm\n  version: [1]\n", [":5:3: engine.version"]),
        ("model: x\narch: gfx950\ntokens: [1, -4]\n", [":3:13: tokens.1", "-4"]),
        ("arch: gfx950\n", [":1:1: model: missing"]),
        ("model: x\nmodel: y\n", [":2:1: duplicate key 'model'"]),
        ('{"model": "x",\n "model": "y"}', [":2:2: duplicate key"]),
        ("model: [x\n", ["not valid YAML"]),
        ('{"model": }', ["missing"]),
        ("model: 2026-13-45\n", [":1:8: ", "2026-13-45"]),
        ("- 1\n", ["a mapping of query fields is needed, found list"]),
        ("", ["found nothing"]),
        ("model: &a x\narch: *a\n", ["aliases are not allowed"]),
    ],
)
def test_a_bad_file_is_named_with_its_place(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "query.yaml"
    path.write_text(text)
    err = refused(capsys, str(path))
    assert str(path) in err
    assert [word for word in words if word not in err] == []


def test_bytes_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "query.yaml"
    path.write_bytes(b"model: \xff\n")
    assert "not UTF-8 at byte 7" in refused(capsys, str(path))


def test_no_recipe_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--model", "openai/gpt-oss-120b", "--arch", "gfx950", "--activation-dtype", "i8", code=1)
    assert err.startswith("preshuffle: no rule for openai/gpt-oss-120b")
    assert "nearest: gpt-oss." in err
    assert "unknown arch 'mi35x'; did you mean MI355X, MI350X or MI325X?" in refused(
        capsys, "--model", "x", "--arch", "mi35x", code=1
    )
    assert "unknown arch 'gfx906'" in refused(capsys, "--model", "x", "--arch", "gfx906", code=1)


@pytest.mark.parametrize("option", [["--env", "--moe-backend=aiter"], ["--env=--moe-backend=aiter"]])
def test_an_engines_option_is_a_switch_like_any(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    code = main(["resolve", *OPTIONS, "--engine", "vllm", *option, "--json"])
    decision = json.loads(capsys.readouterr().out)
    assert (code, decision["rule"]) == (0, "gpt-oss.vllm")
    assert "the switch --moe-backend=aiter decided" in decision["reason"]


def test_books_come_from_options_else_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rule(name: str, value: str) -> Path:
        path = tmp_path / f"{name}.yaml"
        when = f"{{model: {MODEL}, arch: gfx950, activation_dtype: fp4x2, deployment: {value}}}"
        path.write_text(
            f"rules:\n  {name}:\n    when: {when}\n"
            "    use: mxfp4.gui16\n    because: we try it\n    evidence: [https://example.org]\n"
        )
        return path

    one, two = rule("one", "a"), rule("two", "b")
    monkeypatch.setenv("PRESHUFFLE_BOOK", f"{one}:{two}")
    assert ask(capsys, *OPTIONS, "--deployment", "a").rule == "one"
    assert ask(capsys, *OPTIONS, "--deployment", "b").rule == "two"
    assert ask(capsys, *OPTIONS, "--deployment", "b", "--book", str(one)).rule == "gpt-oss.a4w4.gfx950"


def test_error_findings_end_with_1_and_warnings_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    warned = ask(capsys, *OPTIONS, "--env", "ATOM_MOE_GU_ITLV=1")
    assert [finding.severity for finding in warned.findings] == ["warning"]
    options = [
        "--model",
        MODEL,
        "--arch",
        "gfx950",
        "--activation-dtype",
        "bf16",
        "--env",
        "AITER_BF16_FP8_MOE_BOUND=x",
    ]
    wrong = ask(capsys, *options, code=1)
    assert any(finding.severity == "error" for finding in wrong.findings)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_table_says_everything_and_keeps_to_the_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["resolve", *OPTIONS, "--tp", "2", "--env", "ATOM_MOE_GU_ITLV=1"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for word in (
        "mxfp4.sep16",
        "gpt-oss.a4w4.gfx950",
        "128×3072×3072",
        "96, 192",
        "gate_mode=separated",
        "cktile_moe_stage1",
    ):
        assert word in out
    for word in ("alternatives", "flag_unknown", "fix: unset", "sha256:"):
        assert word in out
    if width >= 80:
        assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize("arch", ["MI355X", "gfx950:sramecc+:xnack-"])
def test_a_gpu_by_another_name(capsys: pytest.CaptureFixture[str], arch: str) -> None:
    assert ask(capsys, *OPTIONS, "--arch", arch) == Registry.default().resolve(Query(**ASK))


def test_nobody_is_asked_for_compute_units_that_decide_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    engine = ["--engine", "vllm", "--env=--moe-backend=aiter_triton_mxfp4_bf16"]
    assert main(["resolve", "--model", MODEL, "--arch", "gfx942", *engine]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "can be predicted" in out
    assert "different numbers" not in out


def test_kernels_that_cannot_be_predicted_say_what_to_pass(capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry.default()
    several = [arch.id for arch in registry.book.archs.values() if arch.default_cu_num is None]
    sizes: dict[str, Any] = {**registry.book.models[MODEL].given(), "activation_dtype": "bf16"}
    for arch in several:
        options = [part for name, value in sizes.items() for part in _option(name, value)]
        code = main(["resolve", "--model", MODEL, "--arch", arch, *options])
        out = capsys.readouterr().out
        assert code == 1 or "--cu-num" in out


def _option(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def test_data_parallel_size_and_backend_decide_about_shared_experts(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "deepseek-ai/DeepSeek-R1-0528", "--arch", "gfx950", "--engine", "atom", "--ep", "8"]
    switches = ["--env", "--enable-dp-attention=1", "--env", "ATOM_FUSE_SHARED_EXPERT=0"]
    fused = ask(capsys, *options, "--dp", "8", *switches)
    assert fused.tensors["w13_weight"].logical_shape[0] == 33
    assert "all_to_all is not given and read as none" in fused.reason
    assert "all_to_all is not given" not in ask(capsys, *options, *switches).reason  # at dp 1 nothing rests on it
    apart = ask(capsys, *options, "--dp", "8", "--all-to-all", "mori", *switches)
    assert apart.tensors["w13_weight"].logical_shape[0] == 32
    assert "ATOM_FUSE_SHARED_EXPERT=0 keeps shared experts apart" in apart.reason
    assert "--all-to-all" in refused(capsys, *options, "--all-to-all", "MoRI EP")
    assert "dp" in refused(capsys, *options, "--dp", "0")


def test_the_table_shows_what_the_kernel_gets_in_another_shape(capsys: pytest.CaptureFixture[str]) -> None:
    main(["resolve", "--model", "amd/MiniMax-M3-MXFP4", "--arch", "gfx950", "--engine", "vllm", "--tp", "8"])
    out = " ".join(capsys.readouterr().out.split())
    assert "passed to the kernel in another shape over the same bytes: w13_weight_scale 98304×192 call" in out


def test_the_table_shows_pads_that_hold_two_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    switches = ["--env", "AITER_SITUV2_A8W4=1", "--env", "SGLANG_AITER_K3_OPT=1"]
    layer = ["--model", "moonshotai/Kimi-K3", "--arch", "gfx950", "--engine", "sglang", "--tp", "32"]
    main(["resolve", *layer, *switches])
    assert "pads that hold two bytes: w2_weight_scale 127 from K 4 on, 0 before" in capsys.readouterr().out


def test_the_table_shows_scales_that_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    kind = ["--weight-dtype", "fp8", "--quant-type", "per_Tensor", "--activation-dtype", "fp8", "--producer", "fp8"]
    main(["resolve", "--model", "mistralai/Mixtral-8x7B-v0.1", "--arch", "gfx950", "--engine", "sglang", *kind])
    out = " ".join(capsys.readouterr().out.split())
    assert "has only the scale of the whole tensor: w13_weight_scale 1, w2_weight_scale 1" in out


def test_the_table_says_nothing_of_shapes_that_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    main(["resolve", "--model", "Qwen/Qwen3-235B-A22B", "--arch", "gfx950"])
    out = capsys.readouterr().out
    assert not any(text in out for text in ("passed to the kernel", "two bytes", "made where"))
