"""Settings of an engine: the environment, what is wrong in it, and where reports wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from preshuffle.api.client import ServiceSettings
from preshuffle.api.client.settings import default_spool
from preshuffle.api.variables import REPORTING, unknown_variables
from preshuffle.registry import QueryError


def test_the_environment_is_read_and_arguments_take_precedence() -> None:
    named = {"PRESHUFFLE_SERVICE_URL": "http://a:1", "PRESHUFFLE_SERVICE_TTL_S": "90", "PRESHUFFLE_SERVICE_NODE": ""}
    found = ServiceSettings.from_env({**named, "PRESHUFFLE_SERVICE_GOODBYE": "false"}, deployment="prod", replica=None)
    assert (found.url, found.ttl_s, found.node, found.deployment) == ("http://a:1", 90, None, "prod")
    assert (found.replica, found.goodbye) == (0, False)


def test_the_command_lines_variables_count_where_there_are_no_others() -> None:
    command = {"PRESHUFFLE_SERVER": "http://b:1", "PRESHUFFLE_TOKEN": "t"}
    assert ServiceSettings.from_env(command).url == "http://b:1"
    assert ServiceSettings.from_env(command).token == "t"
    assert ServiceSettings.from_env({**command, "PRESHUFFLE_SERVICE_URL": "http://a:1"}).url == "http://a:1"


def test_labels_are_pairs() -> None:
    found = ServiceSettings.from_env({"PRESHUFFLE_SERVICE_LABELS": "team=moe, tier=a=b"})
    assert found.labels == {"team": "moe", "tier": "a=b"}
    assert ServiceSettings.from_env({}, labels={"team": "moe"}).labels == {"team": "moe"}


def test_a_token_is_not_printed_with_the_settings() -> None:
    assert "psh_secret" not in repr(ServiceSettings(token="psh_secret"))


def test_what_kubernetes_sets_for_a_service_of_this_name_is_no_setting() -> None:
    cluster = {"HOST": "10.0.0.1", "PORT": "8080", "PORT_HTTP": "8080"}
    assert ServiceSettings.from_env({f"PRESHUFFLE_SERVICE_{name}": value for name, value in cluster.items()}) == (
        ServiceSettings()
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PRESHUFFLE_SERVICE_URL": "registry:8080"}, "PRESHUFFLE_SERVICE_URL.*valid: http://HOST:PORT"),
        ({"PRESHUFFLE_SERVER": "ftp://registry"}, "PRESHUFFLE_SERVER.*valid: http://HOST:PORT"),
        ({"PRESHUFFLE_SERVER": "http:///"}, "PRESHUFFLE_SERVER.*'http:///' is no address"),
        ({"PRESHUFFLE_SERVICE_REPLICA": "x"}, "PRESHUFFLE_SERVICE_REPLICA.*found 'x'"),
        ({"PRESHUFFLE_SERVICE_DEPLOYMENT": "../x"}, "PRESHUFFLE_SERVICE_DEPLOYMENT"),
        ({"PRESHUFFLE_SERVICE_TTL_S": "0"}, "PRESHUFFLE_SERVICE_TTL_S"),
        ({"PRESHUFFLE_SERVICE_LABELS": "team"}, "PRESHUFFLE_SERVICE_LABELS.*valid: team=a,tier=prod"),
    ],
)
def test_what_is_wrong_is_named_by_its_variable(environ: dict[str, str], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        ServiceSettings.from_env(environ)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/u"}, "/state/preshuffle/reports"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/preshuffle/reports"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/u"}, "/home/u/.local/state/preshuffle/reports"),
        ({}, None),
        ({"HOME": "relative"}, None),
    ],
)
def test_reports_wait_where_the_users_state_is(environ: dict[str, str], folder: str | None) -> None:
    assert default_spool(environ) == (Path(folder) if folder else None)


def test_each_deployment_and_replica_has_a_folder_of_its_own(tmp_path: Path) -> None:
    named = ServiceSettings(deployment="prod", replica=3, spool=str(tmp_path))
    assert named.spool_folder() == tmp_path / "prod@3"
    assert ServiceSettings(deployment="prod", spool="off").spool_folder() is None
    assert ServiceSettings(spool=str(tmp_path)).spool_folder() is None


def test_every_setting_has_its_variable() -> None:
    assert [name.lower() for name in REPORTING] == list(ServiceSettings.model_fields)
    named = dict.fromkeys([f"PRESHUFFLE_SERVICE_{name}" for name in REPORTING], "1")
    assert (
        list(unknown_variables({**named, "PRESHUFFLE_SERVICE_HOST": "10.0.0.1", "PRESHUFFLE_SERVICE_PORT": "80"})) == []
    )
