"""Sentences of a battle, from the protocol's lines."""

from battle.story import Story


def told(*lines):
    story = Story()
    for line in lines:
        story.tell(line)
    story.close("")
    return story


def test_a_tie_is_told():
    """Its line has no second bar, as those that only steer the client have none."""
    story = told("|player|p1|Ann|", "|upkeep", "|", "|tie")
    assert story.result == "a tie"
    assert [said.text for said in story.turns[-1].said] == ["a tie"]


def test_a_turn_keeps_how_both_sides_stood_after_it():
    story = told(
        "|player|p1|Ann|", "|switch|p1a: Star|Starmie|100/100", "|switch|p2a: Bliss|Blissey, F|80/100", "|turn|1",
        "|move|p1a: Star|Surf|p2a: Bliss", "|-damage|p2a: Bliss|40/100 brn", "|faint|p1a: Star",
    )  # fmt: skip
    before, after = story.turns
    assert (before.heading, after.heading) == ("Start", "Turn 1")
    assert [(side.player, side.pokemon, side.percent) for side in before.sides] == [
        ("Ann", "Starmie", 100), ("Player 2", "Blissey", 80),
    ]  # fmt: skip
    assert [(side.percent, side.status) for side in after.sides] == [(0, "fnt"), (40, "brn")]
    assert after.said == [
        ("Ann's Star uses Surf.", False), ("Player 2's Bliss is at 40%", True), ("Ann's Star faints.", False),
    ]  # fmt: skip


def test_who_has_fallen_is_known_until_revived():
    story = told("|switch|p2a: Ghost|Gholdengo|50/100", "|faint|p2a: Ghost", "|switch|p2a: Wea|Weavile|100/100")
    assert story.sides["p2"].fallen == {"Gholdengo"}
    story.tell("|switch|p2a: Ghost|Gholdengo|50/100")
    assert not story.sides["p2"].fallen


def test_stats_are_called_by_their_names():
    """`spd` is no Speed."""
    story = told("|switch|p1a: Star|Starmie|100/100", "|-unboost|p1a: Star|spd|1", "|-boost|p1a: Star|evasion|2")
    assert [said.text for said in story.turns[0].said[1:]] == [
        "Player 1's Star: Special Defense falls by 1", "Player 1's Star: evasion rises by 2",
    ]  # fmt: skip


def test_one_who_fell_under_an_illusion_is_not_the_one_it_looked_like():
    story = told(
        "|switch|p2a: Wea|Weavile|100/100", "|replace|p2a: Zoe|Zoroark-Hisui, L80, F", "|faint|p2a: Zoe",
        "|switch|p2a: Met|Metagross|100/100", "|detailschange|p2a: Met|Metagross-Mega",
    )  # fmt: skip
    assert story.sides["p2"].fallen == {"Zoroark-Hisui"}
    assert [said.text for said in story.turns[0].said] == [
        "Player 2 sends out Weavile.", "Player 2's Zoe shows itself.", "Player 2's Zoe faints.",
        "Player 2 sends out Metagross.", "Player 2's Met is Metagross-Mega now.",
    ]  # fmt: skip
