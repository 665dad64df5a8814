"""What lies in deploy/: manifests against Kubernetes' schemas, metrics that dashboard and alerts name against ours."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from preshuffle.api.app import create_app
from preshuffle.api.settings import PREFIX, Settings
from preshuffle.api.store.rows import now_ms
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.liveness import update_liveness
from preshuffle.api.web.tokens import load_tokens
from preshuffle.registry import Registry
from support.service.server import REPORT, Client
from support.service.stores import silence

ROOT = Path(__file__).parents[3]
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


def console(section: str) -> list[str]:
    """Return the commands of a section's first console block, without comments."""
    page = (ROOT / "docs" / "service.md").read_text()
    block = page.split(f"\n## {section}\n")[1].split("```console\n")[1].split("```")[0]
    return [line.removeprefix("$ ").split("#")[0].strip() for line in block.splitlines()]


def documents(*files: Path) -> Iterator[Any]:
    for file in files:
        yield from yaml.safe_load_all(file.read_text())


class Cluster:
    """What a fresh cluster checks of the steps that a page names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: set[tuple[str, str]] = set()
        self.labels: dict[str, dict[str, str]] = {"default": {}, "monitoring": {}}

    def run(self, command: str) -> None:
        match command.split():
            case ["kubectl", "apply", "-f", file]:
                self.apply(ROOT / file if (ROOT / file).exists() else self.folder / file)
            case ["kubectl", "apply", "-k", folder]:
                self.apply(*(ROOT / folder / name for name in manifest("kustomization")["resources"]))
            case ["cp", source, target]:
                shutil.copy(ROOT / source, self.folder / target)
            case ["kubectl", "-n", "preshuffle", "rollout", "status", "deployment/preshuffle"]:
                self.start_pods()
            case ["kubectl", "label", "namespace", name, label]:
                self.labels[name] |= dict([label.split("=")])
            case other:
                assert other[:2] == ["preshuffle", "token"], f"no step of a fresh cluster: {command}"

    def apply(self, *files: Path) -> None:
        for one in documents(*files):
            if one["kind"] == "Namespace":
                self.labels[one["metadata"]["name"]] = one["metadata"]["labels"]
            else:
                assert one["metadata"]["namespace"] in self.labels, f"{one['kind']} before its namespace"
            self.made.add((one["kind"], one["metadata"]["name"]))

    def start_pods(self) -> None:
        pod = manifest("deployment")["spec"]["template"]["spec"]
        secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert {("Secret", name) for name in secrets} | {("ServiceAccount", pod["serviceAccountName"])} <= self.made


def test_the_pages_steps_can_be_followed_in_their_order_on_a_fresh_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    for command in console("Kubernetes"):
        cluster.run(command)
    assert ("Deployment", "preshuffle") in cluster.made
    engine = manifest("engine-probe.example")["metadata"]["namespace"]
    clients = manifest("networkpolicy")["spec"]["ingress"][0]["from"]
    selectors = [peer["namespaceSelector"]["matchLabels"].items() for peer in clients]
    assert any(selector <= cluster.labels[engine].items() for selector in selectors)


RESTRICTED = "pod-security.kubernetes.io/enforce"


def restricted_problems(spec: dict[str, Any]) -> list[str]:
    """Return what Kubernetes' Pod Security Standard `restricted` refuses in a pod."""
    pod, found = spec.get("securityContext", {}), []
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        wanted = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"],
            "runAsNonRoot": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        }
        found += [f"{container['name']}: {name}" for name, fine in wanted.items() if not fine]
    return [*found, *(f"volume {one['name']}" for one in spec.get("volumes", ()) if "hostPath" in one)]


def test_pods_are_what_their_namespace_admits() -> None:
    """A job whose pods are refused says so in its events alone."""
    everything = list(documents(*(file for file in KUBERNETES if file.stem != "kustomization")))
    levels = {
        one["metadata"]["name"]: one["metadata"]["labels"][RESTRICTED]
        for one in everything
        if one["kind"] == "Namespace"
    }
    assert levels == {"preshuffle": "restricted"}
    specs = {
        one["metadata"]["name"]: one["spec"].get("template", one)["spec"]
        for one in everything
        if one["metadata"]["namespace" if one["kind"] != "Namespace" else "name"] in levels
        and one["kind"] in ("Deployment", "Job", "Pod")
    }
    assert set(specs) == {"preshuffle", "preshuffle-apply"}
    assert {name: restricted_problems(spec) for name, spec in specs.items()} == {name: [] for name in specs}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder = tmp_path_factory.mktemp("store")
    client = Client(create_app(Settings(db=f"sqlite:///{folder}/store.db"), Registry.default()).state.front)
    client.put("/v1/deployments/d", json=REPORT)
    return client


@pytest.fixture(scope="module")
def ours(client: Client) -> set[str]:
    return set(METRIC.findall(client.get("/metrics").text))


def test_dashboard_and_alerts_name_metrics_that_there_are(ours: set[str]) -> None:
    for file in (ALERTS, DASHBOARD):
        named = set(METRIC.findall(file.read_text()))
        assert named
        assert named <= ours, named - ours


def series(text: str, name: str, matchers: str) -> list[dict[str, str]]:
    """Return the labels of a metric's series that a selector takes, as Prometheus does."""
    wanted = re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers)
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    found = [dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line)) for line in lines]
    return [
        labels
        for labels in found
        if all(
            re.fullmatch(value if operator == "=~" else re.escape(value), labels.get(label, ""))
            for label, operator, value in wanted
        )
    ]


def firing(text: str, alert: str) -> list[dict[str, str]]:
    """Return the deployments that an alert on the metric of names takes."""
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    (expression,) = [rule["expr"] for rule in rules if rule["alert"] == alert]
    ((name, matchers),) = re.findall(r"(preshuffle_deployment_info)\{(.*?)\}", expression)
    return series(text, name, matchers)


def test_alerts_name_deployments_and_their_runbooks_and_silence_ends_them(tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(REPORT))
    wrong["groups"][0]["observation"]["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    settings = Settings(public_url="https://p.example")
    client = Client(create_app(settings, Registry.default(), store).state.front)
    client.put("/v1/deployments/fine", json=REPORT)
    client.put("/v1/deployments/bad", json={**wrong, "ttl_s": 60})
    text = client.get("/metrics").text
    (labels,) = firing(text, "PreshuffleWrongAnswers")
    assert (labels["deployment"], labels["state"], labels["node"]) == ("bad", "mismatch", "node-1")
    assert labels["page"] == "https://p.example/deployments/bad"
    path = labels["runbook"].removeprefix("https://p.example")
    assert client.get(path).status_code == 200
    assert firing(text, "PreshuffleStale") == []
    assert 'preshuffle_paging_deployments{verdict="mismatch"} 1.0' in text

    silence(store, "bad")
    update_liveness(store)
    text = client.get("/metrics").text
    assert 'preshuffle_deployments{verdict="mismatch"} 1.0' in text  # lists still show what it was
    assert firing(text, "PreshuffleWrongAnswers") == []
    assert 'preshuffle_paging_deployments{verdict="mismatch"} 0.0' in text
    (labels,) = firing(text, "PreshuffleStale")
    assert (labels["deployment"], labels["silent"]) == ("bad", "true")
    (seen,) = re.findall(r'^preshuffle_deployment_seen_timestamp_seconds{deployment="bad"} (.*)', text, re.MULTILINE)
    assert time.time() - float(seen) > 86_000  # the alert's other half: it ends after a day
    store.close()


def test_nobody_is_called_for_what_an_operator_has_silenced_or_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = json.loads(json.dumps(REPORT))
    wrong["groups"][0]["observation"]["applied"]["tensors"]["w13_weight"]["layout"] = "gui16"
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    client = Client(create_app(Settings(), Registry.default(), store).state.front)
    path = "/v1/deployments/bad"

    def called() -> bool:
        text = client.get("/metrics").text
        paging = 'preshuffle_paging_deployments{verdict="mismatch"} 1.0' in text
        assert bool(firing(text, "PreshuffleWrongAnswers")) == paging
        (labels,) = series(text, "preshuffle_deployment_info", 'deployment="bad"')
        assert (labels["label_team"], labels["owner"], labels["muted"] == "true") == ("a", "ann", not paging)
        return paging

    assert client.put(path, json={**wrong, "labels": {"team": "a"}, "owner": "ann"}).status_code == 201
    assert called()
    until = {"until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}
    assert client.put(f"{path}/silence", json=until).status_code == 200
    assert not called()
    for module in ("notify.bad_deployments", "store.store"):
        monkeypatch.setattr(f"preshuffle.api.{module}.now_ms", lambda: now_ms() + 61_000)
    assert called()  # it has ended, and nothing was written since
    assert client.put(f"{path}/acknowledgement", json={"note": "known"}).status_code == 200
    assert not called()
    assert client.put(path, json=REPORT).status_code == 200
    assert client.put(path, json=wrong).status_code == 200
    assert called()  # broken anew
    store.close()


def test_every_runbook_that_an_alert_names_is_a_page(client: Client) -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    paths = [rule["annotations"]["runbook_url"] for rule in rules]
    for path in paths:
        assert path == "{{ $labels.runbook }}" or client.get(path).status_code == 200, path


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
