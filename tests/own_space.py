"""An observation space of one's own, as docs/data.md has it added: the default's slots and one number more."""

from data import observation
from data.blocks import ONE_NUMBER
from data.observation import SPACES, NumberSlot, ObservationSpace
from data.token_cache import codes_of
from data.walk import Walk


def add_space(monkeypatch, formula, slots=("mean_hp",), name="mine"):
    """Give `SPACES` the default space with further slots, each of which holds `formula(state)`. Called again, or for a
    space that is there, it is an edit; what else the monkeypatch did is undone."""
    monkeypatch.undo()
    number_slots, add = observation._number_slots, Walk.add

    def with_own_slots(space):
        return number_slots(space) + [NumberSlot("field", 0, slot, 1.0) for slot in slots if space.name == name]

    def add_with_own_slots(self, state, words, numbers):
        add(self, state, words, numbers)
        if self._blocks.space.name == name:
            numbers += [ONE_NUMBER.pack(formula(state))] * len(slots)

    monkeypatch.setattr(observation, "_number_slots", with_own_slots)
    monkeypatch.setattr(Walk, "add", add_with_own_slots)
    monkeypatch.setitem(SPACES, name, ObservationSpace(name))
    codes_of.cache_clear()  # of the space before its edit


def mean_hp(state):
    return (state.player_active_pokemon.hp_pct + state.opponent_active_pokemon.hp_pct) / 2
