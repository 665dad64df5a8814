"""What lies in deploy/: manifests against Kubernetes' schemas, metrics that dashboard and alerts name against ours."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from preshuffle.api.app import create_app
from preshuffle.api.settings import PREFIX, Settings
from preshuffle.api.web.tokens import load_tokens
from preshuffle.registry import Registry
from support.service.server import REPORT, Client

ROOT = Path(__file__).parents[2]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "preshuffle.json"
METRIC = re.compile(r"\bpreshuffle_\w+")


def manifest(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / "kubernetes" / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    "file", [file for file in KUBERNETES if file.stem != "kustomization"], ids=lambda file: file.stem
)
@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_manifests_are_what_kubernetes_takes(file: Path, version: str) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_kustomization_names_every_manifest_but_the_examples() -> None:
    named = set(manifest("kustomization")["resources"])
    assert named == {file.name for file in KUBERNETES} - {"kustomization.yaml"} - {
        file.name for file in KUBERNETES if ".example." in file.name
    }


def test_the_pod_is_what_the_image_is() -> None:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = {entry["name"].removeprefix(PREFIX).lower() for entry in container["env"]}
    assert settings <= set(Settings.model_fields)
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["terminationGracePeriodSeconds"] > 5
    text = (ROOT / "Dockerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in text
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"PRESHUFFLE_PORT={ports['http']}" in text
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {"/readyz", "/healthz"}


def test_the_example_of_the_secret_is_a_file_that_the_service_reads(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(manifest("secrets.example")["stringData"]["tokens.yaml"])
    load_tokens(str(file))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("store")
    client = Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.default()).state.front)
    client.put("/v1/deployments/d", json=REPORT)
    return set(METRIC.findall(client.get("/metrics").text))


def test_dashboard_and_alerts_name_metrics_that_there_are(ours: set[str]) -> None:
    for file in (ALERTS, DASHBOARD):
        named = set(METRIC.findall(file.read_text()))
        assert named
        assert named <= ours, named - ours


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_alerts_are_rules_that_prometheus_takes() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; the rules' shape was checked, their expressions were not")
    said = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
