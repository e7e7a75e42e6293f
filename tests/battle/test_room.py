"""What a live player does at each word of a room: no server and no simulator, their words are the test's."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from battle.interface import RESIGN
from battle.live import LivePlayer
from battle.recorder import Recorder
from battle.room import Room
from battle.simulator import Event
from data.replay_file import parse_name, read_json_bytes

TAG = "battle-gen9ou-7"
STATE = b'{"player_active_pokemon":"one","available_switches":[1,2,3],"opponent_teampreview":["two"]}'
CHOICES = ["move 1", "move 2", None, None, "switch 2"]


class Translator:
    """Says what the test has it say, a move to be made where it has nothing; `heard` is what it was told."""

    def __init__(self):
        self.home, self.heard, self.says = {}, [], []

    def command(self, verb, lane, battle_format, lines, request):
        self.heard.append((lane, battle_format, lines, request))
        self.home[lane] = self

    def step(self):
        lane = self.heard[-1][0]
        event = self.says.pop(0) if self.says else Event(event="ask", legal=0b10011, state=STATE, choices=CHOICES)
        event.lane = lane
        if event.event in ("void", "end"):
            self.home.pop(lane)
        return [Event(event="ask", lane="another's"), event]

    def drop(self, lane):
        self.home.pop(lane, None)


class Chooser:
    """Chooses what the test says, 0 at first; what cannot be chosen fails."""

    name = "chooser"
    wants_lines = False

    def __init__(self):
        self.action, self.seen, self.ended, self.noted = 0, [], [], []

    def choose(self, observations):
        self.seen += observations
        return [self.action]

    def end(self, lane):
        self.ended.append(lane)

    def note_action(self, lane, action):
        self.noted.append((lane, action))


class Player(LivePlayer):
    """One that is connected to nothing; `sent` is what it would have said."""

    username = "Me"

    def __init__(self, out=None):
        self.agent, self.sim, self.lead, self.replays = Chooser(), Translator(), "first", None
        self.recorder = Recorder(out, run="run", version="0") if out else None
        self.results, self.rooms, self.begun, self._battles, self.sent = [], {}, 0, {}, []
        self.ps_client = SimpleNamespace(send_message=self.send)
        self._battle_end_condition, self._battle_count_queue = asyncio.Condition(), asyncio.Queue()
        self.results_of_poke_env, self.timer = [], False

    async def send(self, message, room="", *more):
        self.sent.append((message, *more))

    async def _create_battle(self, split_message):
        tag = "-".join(split_message)[1:]
        if tag not in self._battles:
            self._battles[tag] = SimpleNamespace(
                won_by=self.results_of_poke_env.append, tied=lambda: self.results_of_poke_env.append("tied")
            )
            await self._battle_count_queue.put(None)

    def hear(self, *messages, tag=TAG):
        """Each message a text of lines, as the server sends it; what the player said to it."""
        before = len(self.sent)
        for message in messages:
            lines = [f">{tag}".split("|"), *(line.split("|") for line in message.split("\n"))]
            asyncio.run(self._handle_battle_message(lines))
        return self.sent[before:]


def request(number, **more):
    return "|request|" + json.dumps({"rqid": number, "side": {"name": "Me"}, **more})


@pytest.fixture
def player():
    """In a battle that has begun, before its first request."""
    player = Player()
    assert player.hear("|init|battle\n|title|Me vs. You", "|player|p1|Me|1|1234\n|player|p2|You|2|") == []
    return player


@pytest.fixture
def room(player):
    return player.rooms[TAG]


def test_a_request_is_answered_once_all_that_led_to_it_is_known(player):
    assert player.hear(request(3)) == []
    assert player.hear("|c|☆You|hello|turn|", "a word of the server's\n", "|request|") == []
    assert player.hear("|move|p2a: One|Tackle\n|upkeep\n|turn|1") == [("/choose move 1", "3")]
    assert [told[1:] for told in player.sim.heard] == [
        ("gen9ou", player.rooms[TAG].history, request(3).removeprefix("|request|"))
    ]
    assert "|move|p2a: One|Tackle" in player.rooms[TAG].history
    (seen,) = player.agent.seen
    assert (seen.raw, seen.request) == (STATE, None)
    assert seen.legal.tolist() == [True, True, False, False, True] + [False] * 8
    assert player.rooms[TAG].view.legal == [0b10011]
    player.agent.wants_requests = True
    assert player.hear("|inactive|Time left: 10", "|request|", "|turn|2") == []  # nobody is asked
    assert player.hear(request(5, active=[]) + "\n|upkeep") == [("/choose move 1", "5")]
    assert player.agent.seen[-1].request == {"rqid": 5, "side": {"name": "Me"}, "active": []}


def test_a_turn_is_asked_for_again_without_a_line(player, room):
    """The last choice was taken back: nothing has happened since, only chat and the timer have spoken."""
    player.hear(request(3) + "\n|turn|1")
    assert player.hear("|error|[Unavailable choice] Can't switch: trapped", "|inactive|Time left: 10") == []
    player.agent.action = 4
    assert player.hear(request(3)) == [("/choose switch 2", "3")]
    first, again = player.agent.seen
    assert [(seen.first, seen.retry) for seen in (first, again)] == [(True, False), (False, True)]
    assert (len(room.view.states), room.view.actions, room.retry, room.refused) == (1, [4], False, [])


@pytest.mark.parametrize("made", ["Sorry, too late to make a choice", "There's nothing to choose", "Can't undo: no"])
def test_a_word_on_a_choice_that_stands_is_no_refusal(player, room, made):
    player.hear(request(3) + "\n|turn|1")
    assert player.hear(f"|error|[Invalid choice] {made}", "|error|of another kind") == []
    assert (room.refused, room.view.actions, player.agent.noted) == ([], [0], [])


def test_a_choice_that_is_refused_gives_way_to_the_default_and_is_known_to(player, room):
    assert player.hear("|error|[Invalid choice] Bad team order") == [("/choose default",)]
    assert player.agent.noted == []  # it has decided nothing
    player.hear(request(3) + "\n|turn|1")
    assert player.hear("|error|[Invalid choice] No such move") == [("/choose default",)]
    assert (len(room.refused), room.view.actions, player.agent.noted) == (2, [-1], [("battle-gen9ou-7", -1)])


def test_an_agent_that_chooses_what_there_is_not_is_told_of_the_default(player, room):
    for number, action in enumerate((2, 7, -1)):
        player.agent.action = action
        assert player.hear(request(number) + f"\n|turn|{number}") == [("/choose default", str(number))]
    assert room.view.actions == [-1] * 3
    assert [action for _, action in player.agent.noted] == [-1] * 3
    assert room.refused == [f"action {action} is not legal here, the default is played" for action in (2, 7, -1)]
    player.agent.action = 0
    player.sim.says = [Event(event="ask", legal=0, state=STATE, choices=[None] * 13)]  # forced, with nobody left
    assert player.hear(request(9) + "\n|upkeep") == [("/choose default", "9")]
    assert len(room.refused) == 3


def test_an_agent_that_fails_is_told_the_battle_from_its_beginning(player, room):
    player.agent.wants_lines = True
    player.hear(request(1) + "\n|turn|1")
    player.agent.action = "no number"
    assert player.hear(request(2) + "\n|turn|2") == [("/choose default", "2")]
    assert player.agent.ended == ["battle-gen9ou-7"]
    player.agent.action = 1
    assert player.hear(request(3) + "\n|turn|3") == [("/choose move 2", "3")]
    first, failed, again = player.agent.seen
    assert [seen.first for seen in player.agent.seen] == [True, False, True]
    assert failed.lines == ["|turn|2"]
    assert again.lines == [*first.lines, "|turn|2", "|turn|3"]
    assert room.view.actions == [0, -1, 1]


def test_a_default_that_is_not_taken_either_is_nothing_to_an_agent_that_failed(player, room):
    player.agent.action = "no number"
    player.hear(request(1) + "\n|turn|1")
    assert player.hear("|error|[Invalid choice] No such move") == [("/choose default",)]
    player.hear("|error|[Unavailable choice] Trapped", request(2))
    assert player.agent.noted == player.agent.ended == []
    assert [(seen.first, seen.retry) for seen in player.agent.seen] == [(True, False)] * 2  # it knows of no choice
    assert len(room.view.states) == 1


def test_both_players_of_a_battle_and_all_battles_draw_by_numbers_of_their_own(player):
    other = Player()
    other.username = "You"
    for one, tag in ((player, TAG), (other, TAG), (player, "battle-gen9ou-8-passwordpw"), (other, "battle-gen9ou-8")):
        one.hear("|init|battle", request(1) + "\n|turn|1", tag=tag)
    seeds = [seen.seed for one in (player, other) for seen in one.agent.seen]
    assert len(set(seeds)) == 4
    same = Player()
    same.hear("|init|battle", request(1) + "\n|turn|1", tag="battle-gen9ou-8")
    assert same.agent.seen[0].seed == seeds[1]


@pytest.mark.parametrize("chair", ["p1", "p2"])
def test_the_timer_is_asked_for_once_where_the_opponent_leaves(player, chair):
    mine = {"p1": "p2", "p2": "p1"}[chair]
    player.hear(f"|player|{chair}|You|2|\n|player|{mine}|Me|1|")
    assert player.hear(f"|player|{mine}|") == []  # ourselves
    assert player.hear(f"|player|{chair}|\n|player|{chair}|You|2|") == []  # back at once
    assert player.hear(f"|player|{chair}|") == [("/timer on",)]
    assert player.hear("|c|☆Me|hello", f"|player|{chair}|You|2|", f"|player|{chair}|") == []


def test_the_timer_is_asked_for_at_the_beginning_where_strangers_play():
    player = Player()
    player.timer = True
    assert player.hear("|init|battle") == [("/timer on",)]
    assert player.hear("|player|p1|Me|1|\n|player|p2|You|2|", "|player|p2|") == []


def test_a_battle_that_ends_as_its_opponent_leaves_needs_no_timer(player):
    assert player.hear("|player|p2|\n|win|Me") == [("/leave battle-gen9ou-7",)]
    assert player.agent.ended == []  # it was never asked


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("said", "winner", "result", "kind"),
    [("|win|Me", 0, "WIN", "won"), ("|win|You", 1, "LOSS", "won"), ("|tie", -1, "LOSS", "tie")],
)
def test_a_hidden_battle_is_kept_by_its_players_and_its_number_alone(tmp_path, said, winner, result, kind, side):
    """Others may read the files: they tell no password."""
    player = Player(tmp_path)
    player.replays = tmp_path / "pages"
    mine, theirs = ("p1", "p2") if side == 0 else ("p2", "p1")
    player.hear("|init|battle", f"|player|{mine}|Me|1|1234\n|player|{theirs}|You|2|1700\n|player|{mine}|Me|1|")
    player.hear(request(3) + "\n|turn|1")
    hidden = f"{TAG}-passwordpw"
    player.hear(f"|noinit|rename|{hidden}|Me vs. You")
    player.rooms[hidden].lead, player.rooms[hidden].refused = 2, ["one"]
    player.sim.says = [Event(event="end", winner=winner, turns=12, states=[STATE])]
    assert player.hear(said, tag=hidden) == [(f"/leave {hidden}",)]
    (path,) = tmp_path.rglob("*.lz4")
    name = parse_name(path)
    assert (name.player, name.opponent, name.rating, name.result) == ("Me", "You", 1234, result)
    assert path.name.startswith("gen9ou-run-battle-gen9ou-7_")
    (page,) = player.replays.iterdir()
    assert "|turn|1" in page.read_text()
    assert "password" not in page.name + page.read_text()
    file = json.loads(read_json_bytes(path))
    assert (len(file["states"]), file["actions"]) == (2, [0, -1])
    meta = file["meta"]
    assert (meta["outcome"], meta["turns"], meta["refused"], meta["request_legal"]) == (kind, 12, 1, [0b10011, 0])
    assert (meta["side"], meta["lead"]) == (side, {"rule": "first", "place": 2})


@pytest.mark.parametrize(("said", "result"), [("|win|Me", "won"), ("|win|You", "lost"), ("|tie", "tie")])
def test_how_a_battle_ends_counts_and_is_all_that_stays_of_it(player, room, said, result):
    player.hear(request(3) + "\n|turn|1")
    player.sim.says = [Event(event="end", states=[STATE])]
    assert player.hear(request(4) + f"\n{said}") == [("/leave battle-gen9ou-7",)]
    assert (player.results, player.agent.ended, room.over) == ([result], ["battle-gen9ou-7"], True)
    assert player.results_of_poke_env == [said[5:] or "tied"]
    assert player.sim.heard[-1][2:] == ([said], None)
    assert (room.fed, room.view.states, player.sim.home) == ([], [], {})
    asyncio.run(asyncio.wait_for(player._battle_count_queue.join(), 1))  # nobody waits for it
    assert player.hear(request(5) + "\n|turn|2", "|win|You", "|deinit") == []
    assert player.results == [result]


@pytest.mark.parametrize("gone", ["|deinit", "|noinit|nonexistent|The room does not exist."])
def test_a_battle_that_is_gone_is_void_and_its_name_free_for_another(player, room, gone):
    player.hear(request(3) + "\n|turn|1")
    assert player.hear(f"{gone}\n|turn|2") == []
    assert (player.results, player.agent.ended, room.over) == (["void"], ["battle-gen9ou-7"], True)
    assert (player.rooms, player._battles, player.sim.home) == ({}, {}, {})
    assert player.hear("|init|battle", request(1) + "\n|turn|1") == [("/choose move 1", "1")]
    assert player.begun == 2
    assert player.agent.seen[-1].first


def test_a_translator_that_fails_is_told_all_again_once_and_then_plays_on_blind(player, room):
    player.hear(request(1) + "\n|turn|1")
    fails = Event(event="void", message="on purpose")
    player.sim.says = [fails]
    assert player.hear(request(2) + "\n|turn|2") == [("/choose move 1", "2")]
    lines = [told[2] for told in player.sim.heard]
    assert lines[2:] == lines[:2]
    assert not room.blind
    player.sim.says = [fails, fails]
    assert player.hear(request(3) + "\n|turn|3") == [("/choose default", "3")]
    assert len(player.sim.heard) == 6  # the rest would begin a view of its own
    player.sim.says = [fails]
    assert player.hear(request(4) + "\n|turn|4") == [("/choose default", "4")]
    assert len(player.sim.heard) == 7
    player.hear("|win|Me")  # whatever it says now
    assert (player.results, player.results_of_poke_env) == (["void"], [])


def test_a_battle_whose_end_the_translator_fails_is_void(player):
    player.hear(request(1) + "\n|turn|1")
    player.sim.says = [Event(event="void", message="on purpose")] * 2
    player.hear("|win|Me")
    assert (player.results, player.results_of_poke_env) == (["void"], [])


def test_a_view_that_was_lost_unnoticed_is_told_all_again(player, room):
    player.hear(request(1) + "\n|turn|1")
    player.sim.home.clear()
    player.hear(request(2) + "\n|turn|2")
    lines = [told[2] for told in player.sim.heard]
    assert lines[1:] == [lines[0], ["|turn|2"]]


def test_back_in_a_battle_the_answer_that_may_be_lost_is_sent_again(player, room):
    player.agent.action = 1
    player.hear(request(1) + "\n|turn|1")
    player.agent.action = 0
    room.lead, room.refused, room.blind = 3, ["one"], True
    again = "|init|battle", "|player|p1|Me|1|1234\n|player|p2|You|2|", request(1) + "\n|turn|1"
    assert player.hear(*again) == [("/choose move 2", "1")]
    assert player.hear(request(1) + "\n|turn|1") == [("/choose move 1", "1")]  # but once
    assert player.begun == 1
    assert [seen.first for seen in player.agent.seen] == [True, False]
    assert [seen.lane for seen in player.agent.seen] == ["battle-gen9ou-7"] * 2
    again = player.rooms[TAG]
    assert (again.view.actions, again.lead, again.refused, again.blind) == ([1, 0], 3, ["one"], True)
    assert player.agent.ended == []


def test_back_in_a_battle_an_agent_of_lines_begins_anew(player, room):
    player.agent.wants_lines = True
    player.hear(request(1) + "\n|turn|1")
    player.hear("|init|battle", "|player|p1|Me|1|1234\n|turn|1\n|turn|2\n" + request(2))
    assert player.agent.ended == ["battle-gen9ou-7"]
    assert player.agent.seen[-1].first
    assert player.agent.seen[-1].lines == player.rooms[TAG].history
    assert player.sim.home.keys() == {player.rooms[TAG].lane} != {room.lane}


def test_a_hidden_battle_is_answered_again_by_its_new_name(player, room):
    player.hear(request(1) + "\n|turn|1")
    new = f"{TAG}-passwordpw"
    assert player.hear(f"|noinit|rename|{new}|Me vs. You") == [("/choose move 1", "1")]
    assert (list(player.rooms), list(player._battles), room.tag) == ([new], [new], new)
    assert player.hear(request(2) + "\n|turn|2", tag=new) == [("/choose move 1", "2")]
    player.hear("|init|battle", request(3) + "\n|turn|2", tag=new)
    assert [seen.lane for seen in player.agent.seen] == [TAG] * 3


def test_a_battle_that_is_hidden_before_it_asked_is_told_nothing(player):
    assert player.hear(f"|noinit|rename|{TAG}-passwordpw|Me vs. You") == []


def preview(leads):
    views = [[{"lead": lead, "foe": foe} for foe in range(2)] for lead in range(leads)]
    return Event(event="preview", views=json.dumps(views).encode())


def test_a_lead_goes_first_and_the_others_follow_in_order(player, room):
    player.sim.says = [preview(3)]
    assert player.hear(request(1) + "\n|teampreview") == [("/choose team 123", "1")]
    player.lead, player.random = "random", SimpleNamespace(randrange=lambda count: count - 1)
    player.sim.says = [preview(4)]
    assert player.hear(request(1) + "\n|teampreview") == [("/choose team 4123", "1")]
    assert room.lead == 3
    player.lead = "chosen"
    player.agent.choose_lead = lambda previews: [[state["foe"] for state in row] for row in previews].index([0, 1]) + 1
    player.sim.says = [preview(3)]
    assert player.hear(request(1) + "\n|teampreview") == [("/choose team 213", "1")]
    for failing in (lambda previews: 3, lambda previews: RESIGN, lambda previews: previews[7]):
        player.agent.choose_lead, player.sim.says = failing, [preview(3)]
        assert player.hear(request(1) + "\n|teampreview") == [("/choose team 213", "1")]
    assert room.refused == ["the agent failed, the first leads"] * 3


def test_a_battles_views_have_one_name_wherever_they_were_recorded(player, room):
    assert room.begun == ""  # not told: its recorder's own name has to do
    player.hear("|t:|1700000000\n|gametype|singles", request(3) + "\n|t:|1700000009\n|turn|1")
    names = {
        Room(TAG, name, "lane", fed=[(["|j|Me"], None), ([f"|t:|{moment}", "|t:|1700000009"], None)]).begun
        for name, moment in ((TAG, 1700000000), (TAG, 1700000001), ("battle-gen9ou-8", 1700000000))
    }
    assert len(names) == 3  # a server that was started anew counts its battles from 1
    assert room.begun in names
