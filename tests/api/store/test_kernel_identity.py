"""Identity of an AITER build in the store: the same for every spelling, and the same as earlier releases wrote."""

import pytest

from preshuffle.api.store.uploads.kernel_store import identity_text


@pytest.mark.parametrize(
    ("version", "stored"),
    [
        ("0.1.20", "((0, (0, 1, 20), (2, '', 0), (0, 0), (1, 0)), None)"),
        ("v0.1.20.0", "((0, (0, 1, 20), (2, '', 0), (0, 0), (1, 0)), None)"),
        ("0.1.7.post2.dev18", "((0, (0, 1, 7), (2, '', 0), (1, 2), (0, 18)), None)"),
        ("0.1.20.dev3+ge4048607a5.d20260822", "((0, (0, 1, 20), (0, '', 0), (0, 0), (0, 3)), 'e4048607a5')"),
        ("1!1.0-c1", "((1, (1,), (1, 'rc', 1), (0, 0), (1, 0)), None)"),
    ],
)
def test_identity_stays_what_the_rows_of_earlier_releases_hold(version: str, stored: str) -> None:
    assert identity_text(version) == stored
