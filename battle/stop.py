"""Ctrl-C and SIGTERM in commands that play many battles: those under way are played out, no further one begins."""

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """`asked` says whether a signal came; a second one has its default effect, and waits for nothing."""

    asked = False

    def upto(self, things: Iterable[T]) -> Iterator[T]:
        """The things, until a stop is asked for."""
        for thing in things:
            if self.asked:
                return
            yield thing


@contextmanager
def listen() -> Iterator[Stop]:
    """Inside, the signals are heard, and afterwards as they were before. A second Ctrl-C is SystemExit of 130, which
    a shell gives to whom it ended."""
    stop, before = Stop(), {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: object) -> None:
        stop.asked = True
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    except KeyboardInterrupt:
        print("stopped at once: the battles under way are lost", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
