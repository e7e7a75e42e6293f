"""SIGTERM, SIGUSR1, Ctrl-C and a terminal that goes: a request to save and end, heard from a process's first line to
its last."""

import os
import signal
import sys
import threading
from contextlib import contextmanager

STOPPED = 75  # exit code of a run that was told to stop and saved itself (EX_TEMPFAIL: start it again)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class StopRequest:
    """`asked` says whether a signal came while training; at start-up and at the very end, where there is nothing to
    save, one ends the process at once, with the same exit code. A second Ctrl-C does not wait for the save.

    Only this process listens. Children are forked with SIGTERM at its default, for a pool of index processes is ended
    by it, and deaf to the others: a terminal and some schedulers tell every process of a run, and loaders are needed
    to the step's end. One that arrives while such a child is being forked would be lost to a Python handler.
    What this process was started deaf to, as by nohup to a hangup, it stays deaf to.
    """

    def __init__(self):
        self.asked, self.training, self.listening = False, False, False
        self.signals = SIGNALS

    @contextmanager
    def listen(self):
        """Inside, the signals are heard; after it they have their default effect again."""
        self.listening = True
        self.signals = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
        self._install()
        os.register_at_fork(before=self._shield, after_in_parent=self._unshield, after_in_child=self._as_a_child)
        try:
            yield self
        finally:
            self.listening = False  # a hook of `register_at_fork` cannot be taken back
            self._default()

    def _default(self) -> None:
        for number in self.signals:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _install(self) -> None:
        for number in self.signals:
            signal.signal(number, self._note)

    def _note(self, number, frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        if not self.training:
            print("told to stop: nothing to save now; start again with the same command to go on", file=sys.stderr)
            raise SystemExit(STOPPED)

    # Around a fork signals wait, so that neither side loses one: the parent hears it after, the child dies of its own.
    def _shield(self) -> None:
        if not self._mine():
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
        self._default()

    def _unshield(self) -> None:
        if not self._mine():
            return
        self._install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.signals)

    def _as_a_child(self) -> None:
        if not self.listening:  # the run is over, and its process forks for something else
            return
        self.listening = False
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.signals)

    def _mine(self) -> bool:
        return self.listening and threading.current_thread() is threading.main_thread()
