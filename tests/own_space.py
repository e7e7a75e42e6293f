"""An observation space of one's own, as docs/data.md has it added: the default's slots and one number more."""

from data import observation
from data.blocks import ONE_NUMBER
from data.observation import SPACES, NumberSlot, ObservationSpace
from data.token_cache import codes_of
from data.walk import Walk


def add_space(monkeypatch, formula, slots=("mean_hp",)):
    """Give `SPACES` an entry "mine", whose last slots hold `formula(state)`; called again, the space is edited."""
    monkeypatch.undo()
    number_slots, add = observation._number_slots, Walk.add

    def with_own_slots(space):
        own = [NumberSlot("field", 0, name, 1.0) for name in slots] if space.name == "mine" else []
        return number_slots(space) + own

    def add_with_own_slots(self, state, words, numbers):
        add(self, state, words, numbers)
        if self._blocks.space.name == "mine":
            numbers += [ONE_NUMBER.pack(formula(state))] * len(slots)

    monkeypatch.setattr(observation, "_number_slots", with_own_slots)
    monkeypatch.setattr(Walk, "add", add_with_own_slots)
    monkeypatch.setitem(SPACES, "mine", ObservationSpace("mine"))
    codes_of.cache_clear()  # of the space before its edit


def mean_hp(state):
    return (state.player_active_pokemon.hp_pct + state.opponent_active_pokemon.hp_pct) / 2
