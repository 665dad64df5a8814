"""Misspelt environment variables of preshuffle are named, others are left alone."""

from __future__ import annotations

import pytest

from preshuffle.api.cli import main
from preshuffle.api.settings import Settings
from preshuffle.api.variables import SETTINGS, unknown_variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PRESHUFFLE_TOKNES", "TOKENS"),
        ("PRESHUFFLE_BD", "DB"),
        ("PRESHUFFLE_LOGLEVEL", "LOG_LEVEL"),
        ("PRESHUFFLE_DB_URL", "DB"),
        ("PRESHUFFLE_TABLE", "TABLES"),
        ("PRESHUFFLE_MANAGMENT_PORT", "MANAGEMENT_PORT"),
        ("PRESHUFLE_PORT", "PORT"),
        ("preshuffle_port", "PORT"),
        ("PRESHUFFLE_TOKEN_FILE", "TOKEN or PRESHUFFLE_TOKENS"),
    ],
)
def test_a_misspelt_variable_gets_the_nearest(name: str, meant: str) -> None:
    (found,) = unknown_variables({name: "1", "PRESHUFFLE_HOST": "::1"})
    assert str(found).endswith(f"; did you mean PRESHUFFLE_{meant}?")


def test_what_others_set_is_no_mistake() -> None:
    of_kubernetes = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    environment = dict.fromkeys([f"PRESHUFFLE_{name}" for name in of_kubernetes], "1")
    environment |= {"PRESHUFFLE_DB_PORT": "tcp://10.0.0.1:5432", "VLLM_ROCM_SHUFFLE_KV_CACHE_LAYOUT": "1"}
    assert list(unknown_variables(environment)) == []
    (far,) = unknown_variables({"PRESHUFFLE_COLOUR": "red"})
    assert far.meant == ()


def test_every_command_warns_and_only_the_service_of_variables_that_resemble_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESHUFFLE_BOOKS", "x")
    monkeypatch.setenv("PRESHUFFLE_COLOUR", "red")
    assert main(["layouts", "list", "--json"]) == 0
    expected = "nothing reads the environment variable PRESHUFFLE_BOOKS; did you mean PRESHUFFLE_BOOK?"
    assert capsys.readouterr().err == f"preshuffle: warning: {expected}\n"
    assert main(["serve", "--port", "x"]) == 2
    assert "PRESHUFFLE_COLOUR" in capsys.readouterr().err


def test_every_setting_has_its_variable() -> None:
    assert [name.lower() for name in SETTINGS] == list(Settings.model_fields)
