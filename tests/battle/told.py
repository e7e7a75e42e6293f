"""Commands of battles that are told rather than played: what a command asks of the simulator, and what it makes of
what came of it."""

import signal
from types import SimpleNamespace

from battle.play import Outcome, View
from battle.teams import Team


def tell(monkeypatch, module, *ends, refused=0, views=None):
    """Every battle of `module`'s command ends as the next of `ends` says, in turn: (kind, winner), or an error that is
    raised there. views: of its two players, the same of each battle. What the command asked for stands in the
    answer."""
    asked = SimpleNamespace(matches=[], loaded=[], checked=[], options=None, processes=None)

    class Simulator:
        version = "1.2"
        restarts = 0

        def __init__(self, processes=1):
            asked.processes = processes

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def check_formats(self, names):
            asked.checked += names

    def load_teams(sim, battle_format, folder, **options):
        asked.loaded.append((battle_format, folder, options))
        return [Team(f"team{n}", f"a|snorlax|{battle_format}{n}") for n in range(4)]

    def play(sim, matches, **options):
        asked.options = options
        for match in matches:
            end = ends[len(asked.matches) % len(ends)]
            asked.matches.append(match)
            if isinstance(end, Exception):
                raise end
            kind, winner = end
            seen = views or tuple(View([b"{}", b"{}"], [0, -1], [1, 0]) for _ in range(2))
            yield Outcome(match, kind, winner, 10 + len(asked.matches), seen, ["no"] * refused)

    for thing in (Simulator, load_teams, play):
        monkeypatch.setattr(module, thing.__name__, thing)
    return asked


def stop_after_each(monkeypatch, module):
    """Ctrl-C comes as each battle of `module`'s command ends."""
    play = module.play

    def stopped(sim, matches, **options):
        for outcome in play(sim, matches, **options):
            signal.raise_signal(signal.SIGINT)
            yield outcome

    monkeypatch.setattr(module, "play", stopped)
