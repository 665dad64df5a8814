"""Commands and endpoints say as which release an engine's version is answered."""

import json
from pathlib import Path

import pytest

from preshuffle.api.app import create_app
from preshuffle.api.cli import main
from preshuffle.api.settings import Settings
from preshuffle.registry import Observation, Query, Registry, observation_of
from support.service.server import Client

OLD = "vllm 0.17.0 is answered as vllm 0.30.0: what it does before 0.30.0 is not known"
NEW = "vllm 99.0 is answered as vllm 0.33.0, the newest known"
AHEAD = "vllm 0.33.0 is written for AITER 0.1.24, newer than the newest known (0.1.20.post1)"
MIDDLE = "vllm 0.31.0 is written for AITER 0.1.21.post2, newer than the newest known (0.1.20.post1)"
EXPECTED = {
    "vllm@0.17.0": [OLD],
    "vllm@99.0": [NEW, AHEAD],
    "vllm@0.33.0": [AHEAD],
    "vllm@0.31.0": [MIDDLE],
    "atom@0.1.5": [],
}
ENGINES = pytest.mark.parametrize("engine", EXPECTED)


def fields_of(engine: str) -> dict[str, object]:
    return {"model": "openai/gpt-oss-120b", "arch": "gfx950", "engine": engine, "tokens": [1]}


def observed(engine: str) -> Observation:
    query = Query.parse(fields_of(engine))
    return observation_of(Registry.default().resolve(query), query)


@ENGINES
@pytest.mark.parametrize("command", ["resolve", "explain", "kernels predict", "kernels explain"])
def test_commands_say_it(capsys: pytest.CaptureFixture[str], command: str, engine: str) -> None:
    options = [
        f"--{name}={value[0] if isinstance(value, list) else value}" for name, value in fields_of(engine).items()
    ]
    main([*command.split(), *options])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(note in shown for note in EXPECTED[engine])
    assert ("is answered as" in shown) == ("is answered as" in "".join(EXPECTED[engine]))
    main([*command.split(), *options, "--json"])
    answer = json.loads(capsys.readouterr().out)
    if command == "resolve":
        assert all(note in answer["reason"] for note in EXPECTED[engine])
    else:
        assert answer["engine"] == EXPECTED[engine]


@ENGINES
def test_check_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(observed(engine).model_dump_json(exclude_unset=True))
    main(["check", str(path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(note in shown for note in EXPECTED[engine])
    main(["check", str(path), "--json"])
    answer = capsys.readouterr().out
    assert all(note in answer for note in EXPECTED[engine])


@ENGINES
def test_the_service_says_it(tmp_path: Path, engine: str) -> None:
    client = Client(create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default()))
    decision = client.post("/v1/resolve", json=fields_of(engine)).json()
    assert all(note in decision["reason"] for note in EXPECTED[engine])
    report = client.post("/v1/check", json=observed(engine).model_dump(mode="json", exclude_unset=True)).json()
    assert EXPECTED[engine] == report["notes"], report
    page = client.get("/resolve", params={"model": "openai/gpt-oss-120b", "arch": "gfx950", "engine": engine})
    assert all(note in page.text for note in EXPECTED[engine])
