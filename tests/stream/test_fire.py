"""The run of fire.py, shorter: killed scorers and brokers, rebalances, versions that change."""

import pytest

import conftest
import fire


@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", fire.PROTOCOLS)
def test_exactly_once_under_fire(protocol):
    sound = fire.run(20_000, 200, 7, protocol, name="fire-test")
    if sound is None:
        conftest.missing("Java or Maven is not installed, so there is no broker")
    assert sound
