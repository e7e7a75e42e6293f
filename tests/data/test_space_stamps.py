"""A space's digest: the same as long as a state becomes the same, another after any edit."""

import pytest

from data.observation import SPACES, ObservationSpace, WordSlot
from data.space_stamps import space_digest, space_stamps
from data.walk import Walk
from tests.own_space import add_space, mean_hp


@pytest.mark.parametrize(
    ("space", "digest"),
    [
        ("default", "0762028a3529"),
        ("expanded", "a3866445cc81"),
        ("teampreview", "8979bfb0a55a"),
        ("opponentmove", "d04dd76f1703"),
    ],
)
def test_what_caches_and_models_are_stamped_with_stays(space, digest):
    """Who changes one refuses every cache and model of that space."""
    assert space_digest(SPACES[space]) == digest
    assert space_stamps(space)["n_words"] == SPACES[space].n_words


def test_any_edit_of_formulas_slots_or_words_gives_another_digest(monkeypatch):
    add_space(monkeypatch, mean_hp)
    digests = [space_digest(SPACES["mine"])]
    for formula, slots in (
        (lambda state: mean_hp(state) / 2, ["mean_hp"]),
        (lambda state: state.opponents_remaining, ["mean_hp"]),
        (lambda state: state.battle_field == "trickroom", ["mean_hp"]),  # which no space of ours reads
        (mean_hp, ["health"]),
        (mean_hp, ["mean_hp", "again"]),
        (mean_hp, []),
    ):
        add_space(monkeypatch, formula, slots)
        digests.append(space_digest(SPACES["mine"]))
    assert digests[-1] == space_digest(SPACES["default"])  # by another name the same
    add_space(monkeypatch, mean_hp)
    assert space_digest(SPACES["mine"]) == digests[0]
    add = Walk.add

    def with_another_word(self, state, words, numbers):
        add(self, state, words, numbers)
        words[-1] = self._blocks.word["<unheard>" if state.weather == "raindance" else "<of>"]

    monkeypatch.setattr(Walk, "add", with_another_word)
    digests.append(space_digest(SPACES["mine"]))
    space = ObservationSpace("mine")
    object.__setattr__(space, "word_slots", (*space.word_slots[:-1], WordSlot("field", 0, "renamed")))
    digests.append(space_digest(space))
    assert len(set(digests)) == len(digests)
