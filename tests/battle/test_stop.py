"""Ctrl-C and SIGTERM in commands that play many battles."""

import os
import signal

import pytest

from battle.stop import SIGNALS, listen


@pytest.fixture
def heard():
    """Signals that came through to whoever listened before, which else would end the tests."""
    heard = []
    before = {number: signal.signal(number, lambda which, _: heard.append(which)) for number in SIGNALS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_to_stop_and_any_second_has_its_own_effect(heard, number):
    with listen() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert (stop.asked, heard) == (True, [])
        for each in SIGNALS:
            os.kill(os.getpid(), each)
        assert heard == list(SIGNALS)


def test_a_second_ctrl_c_ends_at_once_in_a_line(heard, capsys):
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def twice():
        with listen():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as ended:
        twice()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped at once: the battles under way are lost\n"


def test_afterwards_they_are_heard_as_before(heard):
    with pytest.raises(RuntimeError), listen() as stop:
        raise RuntimeError
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    assert (stop.asked, heard) == (False, list(SIGNALS))
    with listen() as another:
        assert not another.asked


def test_nothing_further_begins_once_it_was_asked_for(heard):
    with listen() as stop:
        begun = []
        for thing in stop.upto(range(9)):
            begun.append(thing)
            if thing == 2:
                os.kill(os.getpid(), signal.SIGINT)
    assert begun == [0, 1, 2]
    assert list(stop.upto("ab")) == []
