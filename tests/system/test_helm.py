"""The Helm chart: its default values give the plain manifests, and every value does what it says."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from preshuffle.api.cli import main
from preshuffle.api.settings import Settings
from support.helm import ChartError, merged, parse, render
from support.real_helm import RealHelm
from support.tensors.laid_out import checkpoint_with_others

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "preshuffle"
PLAIN = ROOT / "deploy" / "kubernetes"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "SQLite": {"sqlite": {"enabled": True, "storageClass": "fast"}},
    "Ingress": {"ingress": {"enabled": True, "className": "nginx", "annotations": {"a/b": "c"}}},
    "root path": {"rootPath": "/preshuffle", "ingress": {"enabled": True}},
    "monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}}
    | yaml.safe_load(ALERTS.read_text()),
    "nodes": {"image": {"pullSecrets": ["s"]}, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
    "egress": {
        "networkPolicy": {
            "databasePeers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "egress": [{"ports": [{"port": 443}]}],
        }
    },
    "jobs": {
        "conformance": {"enabled": True, "image": "registry.example.com/your-aiter-image:1.0"},
        "engine": {"enabled": True, "image": "registry.example.com/your-engine:1.0", "args": ["serve"]},
    },
    "apply": {"apply": {"enabled": True}, "image": {"pullSecrets": ["s"]}},
    "numbers": {  # helm reads numbers as floating point
        "settings": {
            "LOG": "text",
            "HISTORY_ROWS": 2_000_000,
            "READS": "closed",
            "PUBLIC_URL": "https://a: b",
            "MAX_MIB": 0,
        },
        "apply": {"enabled": True, "shares": 7, "args": ["--arch", "gfx942", "--tp", 8, "--max-shard", 5_000_000_000]},
        "engine": {"enabled": True, "image": "r/e:1", "args": ["--tp", 8, "--max-model-len", 1_048_576]},
    },
    "nothing more": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "namespace": {"create": False},
    },
}


def by_name(documents: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def only(kind: str, **values: Any) -> dict[str, Any]:
    (found,) = [document for document in render(CHART, values) if document["kind"] == kind]
    return found


def test_the_default_values_give_the_plain_manifests() -> None:
    names = yaml.safe_load((PLAIN / "kustomization.yaml").read_text())["resources"]
    plain = [document for name in names for document in yaml.safe_load_all((PLAIN / name).read_text())]
    assert by_name(render(CHART)) == by_name(plain)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_it_renders_is_what_kubernetes_takes(values: dict[str, Any]) -> None:
    documents = render(CHART, values)
    assert len(by_name(documents)) == len(documents)
    for document in documents:
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # the operator's own kinds
        kubernetes_validate.validate(document, "1.33", strict=True)


def names_in(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the names that a schema knows, as nested as the values; None for what has no fixed names."""
    return {
        name: names_in(inner) if "properties" in inner else None
        for name, inner in schema["properties"].items()
        if name != "global"  # helm's own
    }


def test_the_schema_knows_each_value_and_nothing_else() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def matched(values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        return {name: matched(value, known[name]) if known.get(name) else None for name, value in values.items()}

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert matched(values, names_in(schema)) == names_in(schema)


@pytest.mark.parametrize(
    "values",
    [
        {"sqlite": {"enable": True}},
        {"replica": 3},
        {"replicas": 0},
        {"image": {"tag": "latest"}},
        {"apply": {"image": "r.example/a:latest"}},
        {"conformance": {"enabled": True}},
        {"engine": {"enabled": True}},
        {"engine": {"health": "/health"}},
        {"networkPolicy": {"clientLabel": ""}},
        {"rootPath": "preshuffle"},
        {"settings": {"PRESHUFFLE LOG": "json"}},
        {"settings": {"LOG": ["json"]}},
    ],
    ids=str,
)
def test_what_is_no_value_is_refused(values: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CHART / "values.schema.json").read_text())
    check = jsonschema.Draft7Validator(schema)
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    assert check.is_valid(given)
    assert all(check.is_valid(merged(given, fine)) for fine in VALUES.values())
    assert not check.is_valid(merged(given, values))


def test_it_is_of_the_projects_version_and_names_no_tag_that_moves() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for file in [*PLAIN.glob("*.yaml"), CHART / "values.yaml", *(CHART / "templates").iterdir()]:
        assert ":latest" not in file.read_text(), file.name
    (container,) = only("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/preshuffle/preshuffle:{version}"


def test_sqlite_is_one_replica_with_a_volume_and_no_database() -> None:
    pod = only("Deployment", **VALUES["SQLite"])["spec"]
    assert (pod["replicas"], pod["strategy"]) == (1, {"type": "Recreate"})
    spec = pod["template"]["spec"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "preshuffle"}} in spec["volumes"]
    assert "PRESHUFFLE_DB" not in {entry["name"] for entry in spec["containers"][0]["env"]}
    claim = only("PersistentVolumeClaim", **VALUES["SQLite"])["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "2Gi")
    egress = only("NetworkPolicy", **VALUES["SQLite"])["spec"]["egress"]
    assert [port["port"] for rule in egress for port in rule["ports"]] == [53, 53]


def test_alert_rules_are_those_of_the_file_word_by_word() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    assert only("PrometheusRule", groups=groups)["spec"]["groups"] == groups
    monitor = only("ServiceMonitor", serviceMonitor={"enabled": True})["spec"]
    service = only("Service", serviceMonitor={"enabled": True})
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_settings_become_environment_variables() -> None:
    (container,) = only("Deployment", **VALUES["numbers"])["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    given = {name: env[f"PRESHUFFLE_{name}"] for name in VALUES["numbers"]["settings"]}
    assert given == {
        "LOG": "text",
        "HISTORY_ROWS": "2000000",
        "READS": "closed",
        "PUBLIC_URL": "https://a: b",
        "MAX_MIB": "0",
    }


def test_a_root_path_is_the_ingresss_and_the_services_but_not_the_probes() -> None:
    ingress = only("Ingress", **VALUES["root path"])["spec"]["rules"][0]
    assert [(path["path"], path["pathType"]) for path in ingress["http"]["paths"]] == [("/preshuffle", "Prefix")]
    (container,) = only("Deployment", **VALUES["root path"])["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["PRESHUFFLE_ROOT_PATH"] == "/preshuffle"
    assert Settings.from_env({"PRESHUFFLE_ROOT_PATH": env["PRESHUFFLE_ROOT_PATH"]}).root == "/preshuffle"
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert [(probe["path"], probe["port"]) for probe in probes] == [
        ("/readyz", "management"),
        ("/readyz", "management"),
        ("/healthz", "management"),
    ]
    root = only("Ingress", **VALUES["Ingress"])["spec"]["rules"][0]["http"]["paths"][0]
    assert root["path"] == "/"


def test_the_ingress_controller_is_let_in_and_nobody_else_is() -> None:
    def peers(**values: Any) -> list[Any]:
        return [rule["from"] for rule in only("NetworkPolicy", **values)["spec"]["ingress"]]

    controller = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}}
    given = peers(ingress={"enabled": True, "controllerNamespace": "traefik"})
    (clients, monitoring), plain = given, peers()
    assert [peer for peer in clients if peer not in plain[0]] == [controller]
    assert monitoring == plain[1]


def test_the_conformance_job_is_the_example() -> None:
    example = yaml.safe_load((PLAIN / "conform.example.yaml").read_text())
    assert only("Job", **VALUES["jobs"]) == example


def test_the_indexed_job_is_the_example_and_one_number_says_its_shares() -> None:
    assert only("Job", apply={"enabled": True}) == yaml.safe_load((PLAIN / "apply.example.yaml").read_text())
    job = only("Job", apply={"enabled": True, "shares": 7, "args": ["--arch", "gfx942"]})["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 7, 7)
    assert container["args"] == ["checkpoint", "laid-out", "--of", "7", "--workers", "4", "--arch", "gfx942"]
    (container,) = only("Job", **VALUES["numbers"])["spec"]["template"]["spec"]["containers"]
    assert container["args"][6:] == ["--arch", "gfx942", "--tp", "8", "--max-shard", "5000000000"]


def test_the_indexed_jobs_command_is_one_that_apply_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = only("Job", apply={"enabled": True, "shares": 2})["spec"]["template"]["spec"]["containers"]
    checkpoint_with_others(tmp_path / container["args"][0])
    monkeypatch.chdir(tmp_path)
    command = [*container["command"][1:], *container["args"], "--activation-dtype", "fp4x2"]
    assert container["command"][0] == "preshuffle"
    for index in ("0", "1"):
        assert not (tmp_path / "laid-out" / "manifest.json").exists()
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
        assert main(command) == 0
    assert (tmp_path / "laid-out" / "manifest.json").exists()


def test_an_engines_pod_has_the_examples_gate_and_is_let_in() -> None:
    example = yaml.safe_load((PLAIN / "engine-probe.example.yaml").read_text())["spec"]["containers"][0]
    (container,) = only("Pod", **VALUES["jobs"])["spec"]["containers"]
    assert {**container, "args": None} == {**example, "args": None}
    assert container["args"] == ["serve"]
    assert container["resources"]["limits"] == {"amd.com/gpu": "8"}
    (numbers,) = only("Pod", **VALUES["numbers"])["spec"]["containers"]
    assert numbers["args"] == ["--tp", "8", "--max-model-len", "1048576"]


@pytest.mark.parametrize("part", ["engine", "conformance"])
def test_pods_in_other_namespaces_are_let_in(part: str) -> None:
    policy = only("NetworkPolicy", **{part: {"enabled": True, "namespace": "gpus"}})
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gpus"}}} in policy["spec"]["ingress"][
        0
    ]["from"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ .Values.nothing }}", "no such value"),
        ("{{ tpl .Values.name . }}", "not a function"),
        ("{{ if .Values.name }}", "has no end"),
        ("{{ end }}", "without a beginning"),
        ("{{ .Release.Name }}", "no such value"),
    ],
)
def test_a_template_that_needs_more_of_helm_is_an_error(template: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "values.yaml").write_text("name: x\n")
    (tmp_path / "templates" / "a.yaml").write_text(template)
    with pytest.raises(ChartError, match=message):
        render(tmp_path)


def test_spaces_are_cut_as_go_cuts_them() -> None:
    (block,) = parse("a:\n  {{- if .x }}\n  b\n  {{- end }}")[1:]
    assert block.inside[0].text == "\n  b"


def test_helm_renders_the_same_and_finds_nothing_to_complain_of() -> None:
    """Of helm itself: the command where it is installed, else Helm's own library in helm-python-sdk."""
    real = RealHelm.here(CHART)
    if real is None:
        pytest.skip("neither helm nor helm-python-sdk is installed; only the tests' own renderer was run")
    for name, (documents, complaints) in zip(VALUES, real.render(list(VALUES.values())), strict=True):
        assert complaints == [], name
        assert by_name(documents) == by_name(render(CHART, VALUES[name])), name
