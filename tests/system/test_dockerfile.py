"""The Dockerfile, read as a program: its stages, what they copy, who runs them, what they install."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for word, text in self.steps if word == instruction]


def read() -> tuple[dict[str, str], dict[str, Stage]]:
    """Return the global arguments and the stages, in order."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert match, line
            current = stages[match[2]] = Stage(match[2], match[1])
        elif current is None:
            assert word == "ARG", line
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            current.steps.append((word, rest))
    return arguments, stages


ARGUMENTS, STAGES = read()


def test_the_targets_exist_and_the_service_is_what_a_plain_build_makes() -> None:
    assert set(STAGES) == {"wheel", "loader", "service"}
    assert list(STAGES)[-1] == "service"


def test_every_base_is_defined_so_that_no_other_target_breaks() -> None:
    for stage in STAGES.values():
        name = stage.base.removeprefix("${").removesuffix("}")
        assert ARGUMENTS[name]
    assert ARGUMENTS["ROCM_BASE"] == "scratch"


def test_the_service_runs_as_nobody_special_and_is_watched() -> None:
    service = STAGES["service"]
    assert service.all("USER") == ["10001:10001"]
    (health,) = service.all("HEALTHCHECK")
    command = json.loads(health[health.index("CMD ") + 4 :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "/healthz" in command[2]


def test_the_service_keeps_its_store_in_a_volume() -> None:
    service = STAGES["service"]
    assert service.all("VOLUME") == ["/data"]
    assert "PRESHUFFLE_DB=sqlite:////data/" in service.all("ENV")[0]
    assert json.loads(service.all("ENTRYPOINT")[0]) == ["preshuffle"]


def test_whatever_pip_installs_is_locked_with_hashes_or_the_wheel() -> None:
    for stage in STAGES.values():
        for step in stage.all("RUN"):
            for command in re.findall(r"pip install ([^&]*)", step):
                locked = re.search(r"--require-hashes -r \S*?(\w+\.txt)$", command.strip())
                wheel = re.search(r"--no-index --no-deps /tmp/wheel/\*\.whl$", command.strip())
                assert locked or wheel, command
                assert locked is None or (ROOT / "requirements" / locked[1]).is_file()


def test_the_service_has_the_pinned_web_packages_and_no_torch() -> None:
    (step,) = STAGES["service"].all("RUN")
    assert "--require-hashes -r /tmp/wheel/service.txt" in step
    assert "torch" not in step
    assert "layouts" not in step


def test_the_loader_leaves_the_base_images_torch_alone() -> None:
    (step,) = STAGES["loader"].all("RUN")
    assert "--require-hashes -r /tmp/wheel/loader.txt" in step
    assert re.search(r"--no-deps /tmp/wheel/\*\.whl", step)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = set(re.findall(r"(?m)^([\w.-]+)==", (ROOT / "requirements" / "loader.txt").read_text(encoding="utf-8")))
    assert not locked & {"torch", "triton", "amd-aiter"}
    for needed in [*project["dependencies"], *project["optional-dependencies"]["layouts"]]:
        name = re.split(r"[<>=\[]", needed)[0].lower()
        assert (name in locked) is (name != "torch")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for stage in STAGES.values():
        for copied in stage.all("COPY"):
            if copied.startswith("--from="):
                source = copied.split()[0].removeprefix("--from=")
                assert source in STAGES
                continue
            for path in copied.split()[:-1]:
                assert (ROOT / path).exists()
                assert path in kept


def test_nothing_takes_aiter_from_an_index() -> None:
    for stage in STAGES.values():
        for step in stage.all("RUN"):
            assert not re.search(r"pip install [^&]*aiter", step)


def test_the_loader_needs_aiter_in_its_base_and_runs_as_nobody() -> None:
    (step,) = STAGES["loader"].all("RUN")
    assert "m.version('amd-aiter')" in step
    assert STAGES["loader"].all("USER")[-1] == "10001:10001"
