"""One simulator for the tests of this room; Node and the npm package must be there (`make` sees to that)."""

import pytest

from battle.simulator import Simulator


@pytest.fixture(scope="session")
def simulator():
    with Simulator() as sim:
        yield sim
