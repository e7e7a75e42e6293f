"""Battles between agents: many lanes in lockstep, every agent asked once a round for all that wait for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from battle.interface import RESIGN, Agent, Observation, answers, bits_to_mask, decode, lead_of
from battle.simulator import BattleSpec, Event, Simulator

log = logging.getLogger(__name__)

TURN_LIMIT = 300


def four_words(seed: int | list[int]) -> str:
    """A seed as Showdown writes it: four 16-bit numbers."""
    words = np.random.SeedSequence(seed).generate_state(4, dtype=np.uint32) & 0xFFFF
    return ",".join(str(int(word)) for word in words)


@dataclass(slots=True)
class Match:
    """One battle to be played.

    id: unique in the run, also the battle's id in file names. agents: who plays p1 and p2. seed: fixes the battle's
    dice, the leads, and the agents' own draws. explore: share of decisions replaced by a random legal one, per side.
    leads: of p1 and p2, by their places in the team; None: the agent is asked. want_log: the outcome shall hold the
    battle's input log. names: of p1 and p2, as the protocol's lines have them; no two alike.
    """

    id: str
    format: str
    agents: tuple[Agent, Agent]
    seed: int
    teams: tuple[str | None, str | None] = (None, None)
    team_names: tuple[str, str] = ("", "")
    explore: tuple[float, float] = (0.0, 0.0)
    lead_rule: str = "first"
    leads: tuple[int | None, int | None] = (0, 0)
    want_log: bool = False
    names: tuple[str, str] = ("Player 1", "Player 2")

    @property
    def dice(self) -> str:
        """Showdown's seed: four 16-bit numbers."""
        return four_words(self.seed)

    @property
    def team_seeds(self) -> tuple[str, str]:
        """From which the random formats make the teams of p1 and p2."""
        return four_words([self.seed, 21]), four_words([self.seed, 22])


@dataclass(slots=True)
class View:
    """One player's side of a battle as it was played: raw state JSON, action ids, request-legal bits, all per state.

    explored: places of the states whose action was drawn at random. A choice that the battle took back is forgotten:
    its turn stands here once, with the choice made in the end, as an agent has it.
    """

    states: list[bytes] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    legal: list[int] = field(default_factory=list)
    explored: list[int] = field(default_factory=list)

    def add(self, state: bytes, legal: int, retry: bool) -> None:
        """A state that waits for its action; retry: in the place of the last one."""
        if retry and self.states:
            del self.states[-1], self.legal[-1], self.actions[-1]
            if self.explored[-1:] == [len(self.states)]:
                del self.explored[-1]
        self.states.append(state)
        self.legal.append(legal)
        self.actions.append(-1)

    def close(self, last: bytes | None) -> None:
        """The last action is a blank: nothing follows from it."""
        if last is not None:
            self.states.append(last)
            self.actions.append(-1)
            self.legal.append(0)
        elif self.actions:
            self.actions[-1] = -1


@dataclass(slots=True)
class Outcome:
    """How a battle went. kind: won, tie, cut (turn limit) or void (no result: the simulator was lost).

    winner: 0 or 1, −1 where nobody won. refused: choices that the battle did not take. unavailable: choices that turned
    out to be impossible (a hidden trap) and were made again. log, sha256: the simulator's input log and the
    fingerprint of its lines, where the match wants them and the battle was played to its end. lines: what each side was
    not told any more, of agents that want the protocol's lines. leads: places in their teams of those who lead where
    there is a team preview, None where its player was to be asked and was not.
    """

    match: Match
    kind: str
    winner: int
    turns: int
    views: tuple[View, View]
    refused: list[str] = field(default_factory=list)
    unavailable: int = 0
    message: str = ""
    log: list[str] = field(default_factory=list)
    sha256: str = ""
    lines: tuple[Sequence[str], Sequence[str]] = ((), ())
    leads: tuple[int | None, int | None] = (None, None)


def _place(lead: int | None, team: str | None, agent: Agent) -> int | None:
    """A lead's place in its team, which may be smaller than those that a rule draws from; None: the agent is asked."""
    if lead is None:
        return None if hasattr(agent, "choose_lead") else 0
    return lead % (team.count("]") + 1) if team else lead


class _Table:
    """A battle in play."""

    def __init__(self, match: Match):
        self.match = match
        self.views = (View(), View())
        self.refused: list[str] = []
        self.unavailable = 0
        self.turn = 0
        self.waiting: list[int | None] = [None, None]
        wants = lambda name: tuple(bool(getattr(agent, name, False)) for agent in match.agents)  # noqa: E731
        self.wants_requests, self.wants_lines = wants("wants_requests"), wants("wants_lines")
        self.lanes = (f"{match.id}/0", f"{match.id}/1")
        self.seated = [False, False]  # whether the side's agent has been asked at all
        self.leads = [
            _place(lead, team, agent) for lead, team, agent in zip(match.leads, match.teams, match.agents, strict=True)
        ]
        seeds = np.random.SeedSequence([match.seed, 7]).spawn(2)
        self.seeds = [int(s.generate_state(1, dtype=np.uint32)[0]) for s in seeds]
        self.rngs = [np.random.default_rng(s) for s in seeds] if any(match.explore) else None

    def spec(self) -> BattleSpec:
        match = self.match
        return BattleSpec(
            lane=match.id,
            format=match.format,
            seed=match.dice,
            teams=match.teams,
            names=match.names,
            leads=tuple(self.leads),
            team_seeds=match.team_seeds,
            want_requests=self.wants_requests,
            want_lines=self.wants_lines,
            want_log=match.want_log,
        )

    def observe(self, event: Event) -> Observation:
        """Takes a state in and makes it an observation."""
        view, side = self.views[event.side], event.side
        self.turn = event.turn
        raw = bytes(event.state)
        first = not view.states
        view.add(raw, event.legal, event.retry)
        self.unavailable += event.retry
        return Observation(
            lane=self.lanes[side],
            raw=raw,
            legal=bits_to_mask(event.legal),
            first=first,
            request=decode(event.request) if self.wants_requests[side] else None,
            lines=decode(event.lines) if self.wants_lines[side] else [],
            retry=event.retry,
            seed=self.seeds[side],
        )

    def ask_for_lead(self, event: Event) -> None:
        """Team preview: who comes to the field first is the agent's to say, or nobody: it may give up."""
        agent = self.match.agents[event.side]
        self.waiting[event.side] = self.leads[event.side] = lead_of(agent, event.views, may_resign=True)

    def take(self, side: int, action: int) -> None:
        """Notes an agent's action, or the random one that stands in its place; RESIGN stays what it is."""
        view = self.views[side]
        if action != RESIGN and self.rngs and self.rngs[side].random() < self.match.explore[side]:
            legal = [a for a in range(13) if view.legal[-1] >> a & 1]
            if legal:
                action = int(self.rngs[side].choice(legal))
                view.explored.append(len(view.states) - 1)
                self.correct(side, action)
        view.actions[-1] = action
        self.waiting[side] = action
        self.seated[side] = True

    def resigned(self) -> int | None:
        """The side that gives up now, if one does: nothing that was chosen for this turn is played."""
        if RESIGN not in self.waiting:
            return None
        for view, action in zip(self.views, self.waiting, strict=True):
            if action is not None and view.actions:  # none at team preview
                view.actions[-1] = -1
        return self.waiting.index(RESIGN)

    def correct(self, side: int, action: int) -> None:
        """Tells an agent that another action than its own was played, −1: nobody knows which. It sees it as its
        previous one from now on, as the battle's file has it."""
        agent = self.match.agents[side]
        if hasattr(agent, "note_action"):
            agent.note_action(self.lanes[side], action)

    def outcome(self, kind: str, winner: int, turns: int, last: list[bytes] | None, message: str = "") -> Outcome:
        for side, view in enumerate(self.views):
            view.close(last[side] if last else None)
            agent = self.match.agents[side]
            if self.seated[side] and hasattr(agent, "end"):
                agent.end(self.lanes[side])
        return Outcome(
            self.match, kind, winner, turns, self.views, self.refused, self.unavailable, message,
            leads=tuple(self.leads),
        )  # fmt: skip


def play(sim: Simulator, matches: Iterable[Match], lanes: int = 64, turn_limit: int = TURN_LIMIT) -> Iterator[Outcome]:
    """Plays all matches, `lanes` at a time, and yields each one's outcome as it ends.

    The same matches, agents, lanes and processes give the same outcomes in the same order.
    """
    upcoming = iter(matches)
    tables: dict[str, _Table] = {}
    exhausted = False
    while True:
        while not exhausted and len(tables) < lanes:
            match = next(upcoming, None)
            if match is None:
                exhausted = True
                break
            tables[match.id] = _Table(match)
            sim.start(tables[match.id].spec())
        if not tables:
            return
        yield from _round(sim, tables, turn_limit)


def _round(sim: Simulator, tables: dict[str, _Table], turn_limit: int) -> Iterator[Outcome]:
    asked: dict[int, list[tuple[_Table, int, Observation]]] = {}
    agents: dict[int, Agent] = {}
    for event in sim.step():
        table = tables.get(event.lane)
        if table is None:
            continue
        if event.event == "ask":
            agent = table.match.agents[event.side]
            agents[id(agent)] = agent
            asked.setdefault(id(agent), []).append((table, event.side, table.observe(event)))
        elif event.event == "preview":
            table.ask_for_lead(event)
        elif event.event == "refused":
            table.refused.append(f"{event.message} (chose {event.choice!r})")
            if table.seated[event.side]:  # else at team preview, of which its agent keeps nothing
                table.views[event.side].actions[-1] = -1
                table.correct(event.side, -1)
            log.warning("%s side %d: refused: %s (chose %r)", event.lane, event.side, event.message, event.choice)
        elif event.event == "end":
            del tables[event.lane]
            last = [bytes(state) for state in event.states]
            kind = "won" if event.winner >= 0 else "tie"
            outcome = table.outcome(kind, event.winner, event.turns, last)
            outcome.log, outcome.sha256 = event.log, event.sha256
            if any(table.wants_lines):
                outcome.lines = tuple(decode(event.lines))
            yield outcome
        elif event.event == "void":
            del tables[event.lane]
            log.error("%s is void: %s", event.lane, event.message)
            yield table.outcome("void", -1, table.turn, None, event.message)
    for key, waiting in asked.items():
        agent = agents[key]
        waiting = [entry for entry in waiting if entry[0].match.id in tables]
        if not waiting:
            continue
        actions = answers(agent, [observation for _, _, observation in waiting])
        for (table, side, _), action in zip(waiting, actions, strict=True):
            table.take(side, action)
    yield from _send(sim, tables, turn_limit)


def _send(sim: Simulator, tables: dict[str, _Table], turn_limit: int) -> Iterator[Outcome]:
    for lane, table in list(tables.items()):
        if table.turn > turn_limit:
            del tables[lane]
            sim.drop(lane)
            yield table.outcome("cut", -1, table.turn, None)
        elif table.waiting != [None, None]:
            side = table.resigned()
            if side is None:
                sim.act(lane, table.waiting)
            else:
                sim.write(lane, f">forcelose p{side + 1}")
            table.waiting = [None, None]
