# ruff: noqa: E501 (a table: one case a line)
"""Messages → fields: what each line of the protocol, or each word of a request, does to the universal state.

A row: generations; protocol lines after the opening of a small standing battle (`tests/battle/table.py`: own Snorlax
"Mine" against a Starmie "Foe"), `(ask)` where a request was answered in between, `(ask CHANGE)` a changed one; changes to the request; what the state
then holds (`me`, `foe`, `sw0` … the bench in alphabetical order, `legal`, `choice0` … the Showdown choices).
"""

from __future__ import annotations

import json

import pytest

from tests.battle.table import look, run

OLD = (1, 2, 3, 4)
ALL = (1, 2, 3, 4, 9)
NEW = (9,)


def row(name, gens, lines, expected, *changes):
    split = [line.strip() for line in lines.split(" ; ")] if lines else []
    return [(f"{name}-gen{gen}", gen, split, list(changes), expected) for gen in gens]


def volatile(line, word, gens=ALL, side="foe"):
    ident = "p2a: Foe" if side == "foe" else "p1a: Mine"
    text = line.split("|")[2].split(": ")[-1].lower().replace(" ", "")
    return row(f"effect-{text}-{side}", gens, line.replace("@", ident), {f"{side}.effect": word})


SWITCH_FOE = "switch|p2a: Alakazam|Alakazam, M|100/100"
SWITCH_ME = "switch|p1a: Zapdos|Zapdos|400/400"
COPIED = json.dumps(
    [{"move": name, "id": name, "pp": 4, "maxpp": 5} for name in ("psychic", "surf", "icebeam", "thunder")]
)
CASES = [
    # The opening position.
    row("opening", ALL, "", {
        "me.name": "snorlax", "me.base_species": "snorlax", "me.hp_pct": 1.0, "me.types": "normal notype",
        "me.status": "nostatus", "me.effect": "noeffect", "me.lvl": 100, "foe.name": "starmie", "foe.hp_pct": 1.0,
        "foe.types": "psychic water", "foe.item": "unknownitem", "foe.moves": [], "foe.status": "nostatus",
        "player_prev_move.name": "nomove", "opponent_prev_move.name": "nomove", "opponents_remaining": 6,
        "weather": "noweather", "battle_field": "nofield", "player_conditions": "noconditions",
        "opponent_conditions": "noconditions", "forced_switch": False, "battle_won": False, "battle_lost": False,
        "sw0.name": "chansey", "sw1.name": "dragonite", "sw2.name": "gengar", "sw3.name": "tauros", "sw4.name": "zapdos",
        "choice0": "move 1", "choice1": "move 2", "choice2": "move 3", "choice3": "move 4", "choice4": "switch 6",
        "choice5": "switch 4", "choice6": "switch 2", "choice7": "switch 5", "choice8": "switch 3",
    }),
    row("abilities-before-gen3", (1, 2), "", {"me.ability": "noability", "foe.ability": "noability", "sw4.ability": "noability"}),
    row("abilities", (3, 4, 9), "", {"me.ability": "immunity", "foe.ability": "unknownability", "sw4.ability": "pressure"}),
    # Up to generation 6 the simulator's request tells the base ability alone.
    row("abilities-by-base", (3, 4), "", {"me.ability": "immunity", "sw4.ability": "pressure"}, "side.pokemon.0.ability-", "side.pokemon.2.ability-"),
    row("abilities-got-in-play", (3, 4), "-ability|p1a: Mine|Pressure|[from] ability: Trace|[of] p2a: Foe ; (ask side.pokemon.0.ability-) ; move|p2a: Foe|Surf|p1a: Mine",
        {"me.ability": "pressure", "foe.moves.0.current_pp": 22}, "side.pokemon.0.ability-"),
    row("abilities-got-in-play-stay-on-the-field", (3, 4), f"-ability|p1a: Mine|Pressure|[from] ability: Trace|[of] p2a: Foe ; (ask side.pokemon.0.ability-) ; {SWITCH_ME}",
        {"me.ability": "pressure", "sw3.name": "snorlax", "sw3.ability": "immunity"}, "active to 2", "side.pokemon.0.ability-", "side.pokemon.2.ability-"),
    row("items-gen1", (1,), "", {"me.item": "noitem", "sw4.item": "noitem", "foe.item": "unknownitem"}),
    row("items", (2, 3, 4, 9), "", {"me.item": "leftovers", "sw4.item": "lumberry", "sw2.item": "noitem"}),
    row("tera-words", NEW, "", {"me.tera_type": "ghost", "foe.tera_type": "notype", "sw4.tera_type": "steel", "can_tera": True,
                                "choice9": "move 1 terastallize", "choice12": "move 4 terastallize"}),
    row("no-tera", OLD, "", {"me.tera_type": "notype", "sw0.tera_type": "notype", "can_tera": False, "choice9": None}),
    row("preview", NEW, "", {"opponent_teampreview": ["starmie", "alakazam", "exeggutor", "lapras", "urshifu", "zoroark"]}),
    row("preview-is-not-the-field", NEW, "", {"opponents_remaining": 6, "foe.hp_pct": 1.0}),
    row("no-preview", OLD, "", {"opponent_teampreview": []}),
    row("gen1-stats", (1,), "", {"me.base_spa": 65, "me.base_spd": 65, "foe.base_spa": 100, "foe.base_spd": 100}),
    row("gen2-stats", (2, 3, 4, 9), "", {"me.base_spa": 65, "me.base_spd": 110, "me.base_hp": 160, "me.base_spe": 30}),
    # Health and fainting.
    row("hurt-foe", ALL, "-damage|p2a: Foe|43/100", {"foe.hp_pct": 0.43}),
    row("hurt-me", ALL, "-damage|p1a: Mine|100/400", {"me.hp_pct": 0.25}, 'side.pokemon.0.condition="100/400"'),
    row("hp-exact", ALL, "-damage|p1a: Mine|133/400", {"me.hp_pct": 0.3325}, 'side.pokemon.0.condition="133/400"'),
    row("more-than-all", ALL, "-heal|p2a: Foe|120/100", {"foe.hp_pct": 1.0}),
    row("heal-foe", ALL, "-damage|p2a: Foe|43/100 ; -heal|p2a: Foe|93/100", {"foe.hp_pct": 0.93}),
    row("sethp", ALL, "-sethp|p2a: Foe|21/100|[from] move: Pain Split", {"foe.hp_pct": 0.21}),
    row("foe-faints", ALL, "-damage|p2a: Foe|0 fnt ; faint|p2a: Foe", {"foe.hp_pct": 0.0, "foe.status": "fnt",
        "foe.name": "starmie", "opponents_remaining": 5}),
    row("foe-replaced", ALL, f"-damage|p2a: Foe|0 fnt ; faint|p2a: Foe ; {SWITCH_FOE}", {"foe.name": "alakazam",
        "foe.hp_pct": 1.0, "opponents_remaining": 5, "foe.status": "nostatus"}),
    row("foe-boosts-stay-on-the-fallen", ALL, "-boost|p2a: Foe|atk|2 ; faint|p2a: Foe", {"foe.atk_boost": 2}),
    row("me-faint", ALL, "-damage|p1a: Mine|0 fnt ; faint|p1a: Mine", {"me.hp_pct": 0.0, "me.status": "fnt", "me.name": "snorlax",
        "forced_switch": True, "choice0": None, "choice4": "switch 6", "choice8": "switch 3", "can_tera": False},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("bench-fainted", ALL, "", {"sw3.name": "zapdos", "choice7": "switch 3", "choice8": None},
        'side.pokemon.4.condition="0 fnt"'),
    row("nobody-left", ALL, "faint|p1a: Mine", {"available_switches": [], "forced_switch": True, "legal": 0},
        "active-", "forceSwitch=[true]", *[f'side.pokemon.{i}.condition="0 fnt"' for i in range(6)]),
    row("bench-hurt", ALL, "", {"sw4.hp_pct": 0.5, "sw4.status": "par"}, 'side.pokemon.2.condition="200/400 par"'),
    row("bench-poisoned", ALL, "", {"sw0.status": "tox"}, 'side.pokemon.5.condition="399/400 tox"'),
    # Status.
    *[row(f"foe-{s}", ALL, f"-status|p2a: Foe|{s}", {"foe.status": s}) for s in ("brn", "par", "psn", "tox", "slp", "frz")],
    *[row(f"me-{s}", ALL, f"-status|p1a: Mine|{s}", {"me.status": s}, f'side.pokemon.0.condition="400/400 {s}"')
      for s in ("brn", "par", "psn", "tox", "slp", "frz")],
    row("bench-changes-between-asks", ALL, "(ask)", {"sw4.hp_pct": 0.5, "sw0.hp_pct": 1.0}, 'side.pokemon.2.condition="400/800"'),
    row("bench-status-changes", ALL, "(ask)", {"sw4.status": "par", "sw4.hp_pct": 1.0}, 'side.pokemon.2.condition="400/400 par"'),
    row("bench-item-changes", (2, 3, 4, 9), "(ask)", {"sw4.item": "noitem"}, 'side.pokemon.2.item=""'),
    row("bench-ability-changes", (3, 4, 9), "(ask)", {"sw4.ability": "static"}, 'side.pokemon.2.ability="static"', 'side.pokemon.2.baseAbility="static"'),
    row("two-of-a-species-stand-in-the-team's-order", ALL, "", {"choice4": "switch 2", "choice5": "switch 6", "sw0.lvl": 50},
        'side.pokemon.1.details="Chansey, L50, F"'),
    row("foe-below-nothing", ALL, "-damage|p2a: Foe|0", {"foe.hp_pct": 0.0, "foe.status": "fnt", "opponents_remaining": 5}),
    row("status-in-damage", ALL, "-damage|p2a: Foe|80/100 tox", {"foe.status": "tox", "foe.hp_pct": 0.8}),
    row("cured", ALL, "-status|p2a: Foe|par ; -curestatus|p2a: Foe|par", {"foe.status": "nostatus"}),
    row("cureteam", (2, 3, 4), "-status|p2a: Foe|par ; -cureteam|p2a: Foe|[from] move: Heal Bell", {"foe.status": "nostatus"}),
    row("status-kept-on-the-bench", ALL, f"-status|p2a: Foe|par ; {SWITCH_FOE} ; switch|p2a: Foe|Starmie|100/100 par",
        {"foe.status": "par", "foe.name": "starmie"}),
    row("rest", ALL, "-status|p2a: Foe|slp|[from] move: Rest ; -heal|p2a: Foe|100/100 slp|[silent]", {"foe.status": "slp", "foe.hp_pct": 1.0}),
    # Boosts.
    *[row(f"boost-{s}", (2, 3, 4, 9), f"-boost|p2a: Foe|{s}|2", {f"foe.{s}_boost": 2})
      for s in ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion")],
    *[row(f"unboost-{s}", (2, 3, 4, 9), f"-unboost|p1a: Mine|{s}|1", {f"me.{s}_boost": -1})
      for s in ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion")],
    row("gen1-special", (1,), "-boost|p2a: Foe|spa|2 ; -boost|p2a: Foe|spd|2", {"foe.spa_boost": 2, "foe.spd_boost": 2}),
    row("gen1-over-six", (1,), "-boost|p2a: Foe|spa|5 ; -boost|p2a: Foe|spa|2 ; -unboost|p2a: Foe|spa|1", {"foe.spa_boost": 5}),
    row("gen1-under-six", (1,), "-unboost|p2a: Foe|atk|5 ; -unboost|p2a: Foe|atk|2 ; -boost|p2a: Foe|atk|1", {"foe.atk_boost": -5}),
    row("setboost", (2, 3, 4, 9), "-setboost|p2a: Foe|atk|6|[from] move: Belly Drum", {"foe.atk_boost": 6}),
    row("clearboost", ALL, "-boost|p2a: Foe|atk|2 ; -clearboost|p2a: Foe", {"foe.atk_boost": 0}),
    row("haze", ALL, "-boost|p2a: Foe|atk|2 ; -boost|p1a: Mine|def|1 ; -clearallboost", {"foe.atk_boost": 0, "me.def_boost": 0}),
    row("clearnegative", (3, 4, 9), "-unboost|p2a: Foe|atk|2 ; -boost|p2a: Foe|def|1 ; -clearnegativeboost|p2a: Foe|[silent]",
        {"foe.atk_boost": 0, "foe.def_boost": 1}),
    row("psychup", (2, 3, 4, 9), "-boost|p1a: Mine|atk|3 ; -copyboost|p2a: Foe|p1a: Mine|[from] move: Psych Up", {"foe.atk_boost": 3, "me.atk_boost": 3}),
    row("heartswap", (4,), "-boost|p1a: Mine|atk|3 ; -swapboost|p2a: Foe|p1a: Mine|[from] move: Heart Swap", {"foe.atk_boost": 3, "me.atk_boost": 0}),
    row("topsyturvy", NEW, "-boost|p2a: Foe|atk|3 ; -invertboost|p2a: Foe", {"foe.atk_boost": -3}),
    row("boosts-gone-on-switch", ALL, f"-boost|p2a: Foe|atk|2 ; {SWITCH_FOE}", {"foe.atk_boost": 0}),
    row("boosts-gone-on-return", ALL, f"-boost|p2a: Foe|atk|2 ; {SWITCH_FOE} ; switch|p2a: Foe|Starmie|100/100", {"foe.atk_boost": 0}),
    row("intimidate", (3, 4, 9), "-ability|p2a: Foe|Intimidate|boost ; -unboost|p1a: Mine|atk|1", {"me.atk_boost": -1, "foe.ability": "intimidate"}),
    # Volatiles: the most recent one.
    volatile("-start|@|Substitute", "substitute"), volatile("-start|@|confusion", "confusion"),
    volatile("-start|@|move: Leech Seed", "leechseed"), volatile("-start|@|Disable|Surf", "disable"),
    volatile("-start|@|Encore", "encore", (2, 3, 4, 9)), volatile("-start|@|move: Taunt", "taunt", (3, 4, 9)),
    volatile("-start|@|Reflect", "reflect", (1,)), volatile("-start|@|Light Screen", "lightscreen", (1,)),
    volatile("-start|@|Mist", "mist", (1,)), volatile("-start|@|move: Focus Energy", "focusenergy"),
    volatile("-start|@|Bide", "bide", (1, 2)), volatile("-start|@|Mimic|Psychic", "mimic", (1, 2, 3)),
    volatile("-start|@|Curse|[of] p1a: Mine", "curse", (2, 3, 4, 9)), volatile("-start|@|Attract", "attract", (2, 3, 4, 9)),
    volatile("-start|@|Nightmare", "nightmare", (2, 3, 4)), volatile("-start|@|Foresight", "foresight", (2, 3, 4)),
    volatile("-start|@|perish3", "perish", (2, 3, 4, 9)), volatile("-start|@|perish1", "perish", (2, 3, 4, 9)),
    volatile("-start|@|ability: Flash Fire", "flashfire", (3, 4, 9)), volatile("-start|@|ability: Slow Start", "slowstart", (4, 9)),
    volatile("-start|@|move: Yawn|[of] p1a: Mine", "yawn", (3, 4, 9)), volatile("-start|@|move: Imprison", "imprison", (3, 4, 9)),
    volatile("-start|@|move: Ingrain", "ingrain", (3, 4, 9)), volatile("-start|@|Aqua Ring", "aquaring", (4, 9)),
    volatile("-start|@|Magnet Rise", "magnetrise", (4, 9)), volatile("-start|@|move: Embargo", "embargo", (4,)),
    volatile("-start|@|move: Heal Block", "healblock", (4, 9)), volatile("-start|@|Torment", "torment", (3, 4, 9)),
    volatile("-start|@|stockpile1", "stockpile", (3, 4, 9)), volatile("-start|@|stockpile2", "stockpile", (3, 4, 9)),
    volatile("-start|@|Uproar", "uproar", (3, 4, 9)), volatile("-start|@|Charge", "charge", (3, 4, 9)),
    volatile("-start|@|Salt Cure", "saltcure", NEW), volatile("-start|@|Throat Chop|[silent]", "throatchop", NEW),
    volatile("-start|@|fallen2|[silent]", "fallen", NEW), volatile("-start|@|quarkdriveatk", "quarkdriveatk", NEW),
    volatile("-start|@|protosynthesisspe", "protosynthesisspe", NEW), volatile("-start|@|typechange|Grass", "typechange", NEW),
    volatile("-start|@|Smack Down", "smackdown", NEW), volatile("-start|@|Syrup Bomb", "syrupbomb", NEW),
    volatile("-singleturn|@|Protect", "protect", (2, 3, 4, 9)), volatile("-singleturn|@|move: Endure", "endure", (2, 3, 4, 9)),
    volatile("-singleturn|@|move: Focus Punch", "focuspunch", (3, 4, 9)), volatile("-singlemove|@|Destiny Bond", "destinybond", (2, 3, 4, 9)),
    volatile("-singlemove|@|Grudge", "grudge", (3, 4, 9)), volatile("-singlemove|@|Rage", "rage", (2, 3, 4)),
    volatile("-activate|@|trapped", "trapped", (2, 3, 4, 9)), volatile("-activate|@|move: Struggle", "struggle", (2, 3, 4, 9)),
    volatile("-activate|@|move: Wrap|[of] p1a: Mine", "wrap", (2, 3, 4, 9)), volatile("-activate|@|move: Trick|[of] p1a: Mine", "trick", (3, 4, 9)),
    volatile("-activate|@|move: Poltergeist|Leftovers", "poltergeist", NEW), volatile("-activate|@|move: Heal Bell", "healbell", (3, 4, 9)),
    volatile("-activate|@|item: Custap Berry|[consumed]", "custapberry", (4, 9)), volatile("-activate|@|move: Sticky Web", "stickyweb", NEW),
    volatile("-start|@|Substitute", "substitute", ALL, "me"), volatile("-start|@|confusion", "confusion", ALL, "me"),
    volatile("-start|@|move: Leech Seed", "leechseed", ALL, "me"), volatile("-start|@|Encore", "encore", (2, 3, 4, 9), "me"),
    volatile("-singleturn|@|Protect", "protect", (2, 3, 4, 9), "me"), volatile("-start|@|perish2", "perish", (2, 3, 4, 9), "me"),
    row("latest-volatile", ALL, "-start|p2a: Foe|confusion ; -start|p2a: Foe|Substitute", {"foe.effect": "substitute"}),
    row("volatile-told-again", ALL, "-start|p2a: Foe|confusion ; -start|p2a: Foe|Substitute ; -activate|p2a: Foe|confusion", {"foe.effect": "confusion"}),
    row("volatile-told-again-and-ended", ALL, "-start|p2a: Foe|confusion ; -start|p2a: Foe|Substitute ; -activate|p2a: Foe|confusion ; -end|p2a: Foe|confusion", {"foe.effect": "substitute"}),
    row("ended-volatile", ALL, "-start|p2a: Foe|Substitute ; -end|p2a: Foe|Substitute", {"foe.effect": "noeffect"}),
    row("older-volatile-after", ALL, "-start|p2a: Foe|confusion ; -start|p2a: Foe|Substitute ; -end|p2a: Foe|Substitute", {"foe.effect": "confusion"}),
    row("volatiles-end-on-switch", ALL, f"-start|p2a: Foe|confusion ; {SWITCH_FOE}", {"foe.effect": "noeffect"}),
    row("volatiles-end-on-drag", ALL, "-start|p2a: Foe|confusion ; drag|p2a: Alakazam|Alakazam, M|100/100", {"foe.effect": "noeffect"}),
    row("own-volatiles-apart", ALL, "-start|p1a: Mine|confusion", {"me.effect": "confusion", "foe.effect": "noeffect"}),
    row("abilities-are-no-volatiles", (3, 4, 9), "-activate|p2a: Foe|ability: Synchronize", {"foe.effect": "noeffect", "foe.ability": "synchronize"}),
    row("roost-is-no-volatile", (4, 9), "-singleturn|p2a: Foe|move: Roost", {"foe.effect": "noeffect"}),
    row("roost-grounds", (4, 9), "switch|p2a: Bird|Skarmory, M|100/100 ; -singleturn|p2a: Bird|move: Roost", {"foe.types": "notype steel"}),
    row("focuspunch-is-there-a-turn-later", (3, 4), "-singleturn|p2a: Foe|move: Focus Punch ; turn|2", {"foe.effect": "focuspunch"}),
    row("focuspunch-ends", (3, 4), "-singleturn|p2a: Foe|move: Focus Punch ; turn|2 ; turn|3", {"foe.effect": "noeffect"}),
    row("focuspunch-ends-for-both", (3, 4), "-singleturn|p1a: Mine|move: Focus Punch ; -singleturn|p2a: Foe|move: Focus Punch ; turn|2 ; turn|3", {"me.effect": "noeffect", "foe.effect": "noeffect"}),
    row("focuspunch-of-one-who-left", (3, 4), f"-singleturn|p2a: Foe|move: Focus Punch ; {SWITCH_FOE} ; -start|p2a: Alakazam|Substitute ; turn|2 ; turn|3", {"foe.effect": "substitute"}),
    row("taunt-ends", (3, 4, 9), "-start|p2a: Foe|move: Taunt ; -end|p2a: Foe|move: Taunt", {"foe.effect": "noeffect"}),
    row("wrap-ends", (2, 3, 4), "-activate|p2a: Foe|move: Wrap|[of] p1a: Mine ; -end|p2a: Foe|Wrap|[partiallytrapped]", {"foe.effect": "noeffect"}),
    # Baton Pass and Shed Tail.
    row("batonpass", (2, 3, 4, 9), "-boost|p2a: Foe|spa|2 ; -start|p2a: Foe|Substitute ; switch|p2a: Alakazam|Alakazam, M|100/100|[from] Baton Pass",
        {"foe.name": "alakazam", "foe.spa_boost": 2, "foe.effect": "substitute"}),
    row("batonpass-perish", (2, 3, 4, 9), "-start|p2a: Foe|perish3 ; switch|p2a: Alakazam|Alakazam, M|100/100|[from] Baton Pass", {"foe.effect": "perish"}),
    row("batonpass-hands-on-no-attraction", (2, 3, 4, 9), "-start|p2a: Foe|Attract ; switch|p2a: Alakazam|Alakazam, M|100/100|[from] Baton Pass", {"foe.effect": "noeffect"}),
    row("batonpass-me", (2, 3, 4, 9), "-boost|p1a: Mine|atk|2 ; switch|p1a: Zapdos|Zapdos|400/400|[from] Baton Pass",
        {"me.name": "zapdos", "me.atk_boost": 2}, "active to 2"),
    row("no-batonpass", (2, 3, 4, 9), f"-boost|p2a: Foe|spa|2 ; -start|p2a: Foe|Substitute ; {SWITCH_FOE}", {"foe.spa_boost": 0, "foe.effect": "noeffect"}),
    row("shedtail", NEW, "-start|p2a: Foe|Substitute|[from] move: Shed Tail ; switch|p2a: Alakazam|Alakazam, M|100/100|[from] Shed Tail", {"foe.effect": "substitute", "foe.name": "alakazam"}),
    # Moves: names, PP, what was revealed.
    row("foe-move", ALL, "move|p2a: Foe|Surf|p1a: Mine", {"foe.moves.0.name": "surf", "foe.moves.0.move_type": "water", "foe.moves.0.category": "special",
        "foe.moves.0.current_pp": 23, "foe.moves.0.max_pp": 24, "foe.moves.0.accuracy": 1.0, "opponent_prev_move.name": "surf", "opponent_prev_move.current_pp": 23}),
    row("foe-two-uses", ALL, "move|p2a: Foe|Surf|p1a: Mine ; move|p2a: Foe|Surf|p1a: Mine", {"foe.moves.0.current_pp": 22}),
    row("foe-two-moves", ALL, "move|p2a: Foe|Surf|p1a: Mine ; move|p2a: Foe|Blizzard|p1a: Mine", {"foe.moves.1.name": "blizzard", "opponent_prev_move.name": "blizzard"}),
    row("moves-kept-on-the-bench", ALL, f"move|p2a: Foe|Surf|p1a: Mine ; {SWITCH_FOE} ; switch|p2a: Foe|Starmie|100/100", {"foe.moves.0.name": "surf", "opponent_prev_move.name": "surf"}),
    row("new-foe-has-no-prev", ALL, f"move|p2a: Foe|Surf|p1a: Mine ; {SWITCH_FOE}", {"foe.moves": [], "opponent_prev_move.name": "nomove"}),
    row("my-move", ALL, "move|p1a: Mine|Body Slam|p2a: Foe", {"player_prev_move.name": "bodyslam", "player_prev_move.category": "physical"}),
    row("missed-move", ALL, "move|p2a: Foe|Surf|p1a: Mine|[miss] ; -miss|p2a: Foe|p1a: Mine", {"opponent_prev_move.name": "surf", "foe.moves.0.current_pp": 23}),
    row("blizzard-gen1", (1,), "move|p2a: Foe|Blizzard|p1a: Mine", {"foe.moves.0.accuracy": 0.9, "foe.moves.0.base_power": 120}),
    row("blizzard-gen2", (2, 3, 4), "move|p2a: Foe|Blizzard|p1a: Mine", {"foe.moves.0.accuracy": 0.7, "foe.moves.0.base_power": 120}),
    row("blizzard-gen9", NEW, "move|p2a: Foe|Blizzard|p1a: Mine", {"foe.moves.0.accuracy": 0.7, "foe.moves.0.base_power": 110}),
    row("forty-pp", (1, 2), "move|p2a: Foe|Growl|p1a: Mine", {"foe.moves.0.current_pp": 60, "foe.moves.0.max_pp": 61}),
    row("forty-pp-new", (3, 4, 9), "move|p2a: Foe|Growl|p1a: Mine", {"foe.moves.0.current_pp": 63, "foe.moves.0.max_pp": 64}),
    row("frustration", (3, 4), "", {"sw2.moves.0.name": "frustration"}, 'side.pokemon.1.moves.0="frustration102"'),
    row("called-and-locked-into", (2, 3, 4), "move|p2a: Foe|Metronome|p2a: Foe ; move|p2a: Foe|Outrage|p1a: Mine|[from] move: Metronome ; turn|2 ; move|p2a: Foe|Outrage|p1a: Mine|[from] lockedmove",
        {"opponent_prev_move.name": "outrage"}),
    row("pursuit-of-who-leaves", (2, 3, 4), "move|p2a: Foe|Pursuit|p1a: Mine|[from] Pursuit", {"opponent_prev_move.name": "pursuit"}),
    row("locked-spends-nothing", ALL, "(ask) ; move|p1a: Mine|Rest|p1a: Mine|[from] lockedmove ; faint|p1a: Mine", {"me.moves.2.current_pp": 10, "player_prev_move.name": "rest"},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("no-pressure-on-ones-own", (3,), "switch|p2a: Bird|Zapdos|100/100 ; (ask) ; move|p1a: Mine|Rest|p1a: Mine", {"me.moves.2.current_pp": 9},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("pressure-that-is-not-there-yet", (1, 2), '(ask side.pokemon.0.ability="pressure" & side.pokemon.0.baseAbility="pressure") ; move|p2a: Foe|Surf|p1a: Mine', {"foe.moves.0.current_pp": 23},
        'side.pokemon.0.ability="pressure"', 'side.pokemon.0.baseAbility="pressure"'),
    row("pressure-under-gastro-acid", (4, 9), "switch|p2a: Bird|Zapdos|100/100 ; -ability|p2a: Bird|Pressure ; -endability|p2a: Bird ; (ask) ; move|p1a: Mine|Body Slam|p2a: Bird",
        {"me.moves.0.current_pp": 9}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("spite", (2, 3, 4, 9), "move|p2a: Foe|Surf|p1a: Mine ; -activate|p2a: Foe|move: Spite|Surf|4", {"foe.moves.0.current_pp": 19}),
    row("grudge-takes-all", (3, 4), "move|p2a: Foe|Surf|p1a: Mine ; -activate|p2a: Foe|move: Grudge|Surf", {"foe.moves.0.current_pp": 0}),
    row("leppa-berry", (4, 9), "move|p2a: Foe|Surf|p1a: Mine ; move|p2a: Foe|Surf|p1a: Mine ; -activate|p2a: Foe|item: Leppa Berry|Surf", {"foe.moves.0.current_pp": 24}),
    row("priority", ALL, "move|p2a: Foe|Quick Attack|p1a: Mine", {"foe.moves.0.priority": 1}),
    row("crunch-special", (2, 3), "move|p2a: Foe|Crunch|p1a: Mine", {"foe.moves.0.category": "special"}),
    row("crunch-physical", (4, 9), "move|p2a: Foe|Crunch|p1a: Mine", {"foe.moves.0.category": "physical"}),
    row("sludgebomb-physical", (2, 3), "move|p2a: Foe|Sludge Bomb|p1a: Mine", {"foe.moves.0.category": "physical"}),
    row("curse-type", (2, 3, 4), "move|p2a: Foe|Curse|p2a: Foe", {"foe.moves.0.move_type": "threequestionmarks", "foe.moves.0.category": "status"}),
    row("curse-ghost", NEW, "move|p2a: Foe|Curse|p2a: Foe", {"foe.moves.0.move_type": "ghost"}),
    row("hiddenpower-foe", (2, 3, 4), "move|p2a: Foe|Hidden Power|p1a: Mine", {"foe.moves.0.name": "hiddenpower", "foe.moves.0.move_type": "normal", "foe.moves.0.base_power": 0}),
    row("hiddenpower-mine", (3,), "", {"sw2.moves.0.name": "hiddenpower", "sw2.moves.0.move_type": "ice", "sw2.moves.0.base_power": 70, "sw2.moves.0.category": "special"},
        'side.pokemon.1.moves.0="hiddenpowerice70"'),
    row("hiddenpower-bug", (3,), "", {"sw2.moves.0.move_type": "bug", "sw2.moves.0.category": "physical"}, 'side.pokemon.1.moves.0="hiddenpowerbug70"'),
    row("hiddenpower-gen4", (4,), "", {"sw2.moves.0.move_type": "bug", "sw2.moves.0.category": "special"}, 'side.pokemon.1.moves.0="hiddenpowerbug70"'),
    row("return", (2, 3, 4), "", {"sw2.moves.0.name": "return", "sw2.moves.0.base_power": 0}, 'side.pokemon.1.moves.0="return102"'),
    row("return-gen2", (2,), "", {"sw2.moves.0.name": "return"}, 'side.pokemon.1.moves.0="returnnull"'),
    row("struggle-foe", ALL, "move|p2a: Foe|Struggle|p1a: Mine", {"opponent_prev_move.name": "struggle", "foe.moves": []}),
    row("called-by-sleeptalk", (2, 3, 4, 9), "move|p2a: Foe|Sleep Talk|p2a: Foe ; move|p2a: Foe|Surf|p1a: Mine|[from] move: Sleep Talk",
        {"opponent_prev_move.name": "sleeptalk"}),
    row("called-by-metronome", (2, 3, 4), "move|p2a: Foe|Metronome|p2a: Foe ; move|p2a: Foe|Fly|p1a: Mine|[from] move: Metronome",
        {"opponent_prev_move.name": "metronome", "foe.moves.0.name": "metronome"}),
    row("cant", ALL, "move|p2a: Foe|Surf|p1a: Mine ; cant|p2a: Foe|par", {"opponent_prev_move.name": "surf"}),
    row("cant-asleep", (2, 3, 4, 9), "-status|p2a: Foe|slp ; cant|p2a: Foe|slp", {"foe.status": "slp", "opponent_prev_move.name": "nomove"}),
    row("flinch", ALL, "cant|p2a: Foe|flinch", {"foe.effect": "noeffect"}),
    row("pressure-known", (4, 9), "-ability|p1a: Mine|Pressure ; move|p2a: Foe|Surf|p1a: Mine", {"foe.moves.0.current_pp": 22},
        'side.pokemon.0.ability="pressure"', 'side.pokemon.0.baseAbility="pressure"'),
    row("pressure-gen3-by-species", (3,), "switch|p2a: Bird|Zapdos|100/100 ; (ask) ; move|p1a: Mine|Body Slam|p2a: Bird",
        {"foe.ability": "pressure", "me.moves.0.current_pp": 8}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("pressure-on-a-last-pp", (3,), "switch|p2a: Bird|Zapdos|100/100 ; (ask active.0.moves.0.pp=1) ; move|p1a: Mine|Body Slam|p2a: Bird",
        {"me.moves.0.current_pp": 0}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    *[row(f"pressure-on-{name}", NEW, f'switch|p2a: Bird|Zapdos|100/100 ; -ability|p2a: Bird|Pressure ; (ask active.0.moves=[{{"move":"{name}","id":"{name}","pp":10,"maxpp":16}}] & side.pokemon.0.moves.3="{name}") ; move|p1a: Mine|{name}|p2a: Bird',
        {"player_prev_move.current_pp": left}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"', f'side.pokemon.0.moves.3="{name}"')
      for name, left in (("spikes", 8), ("stickyweb", 9), ("imprison", 8), ("protect", 9), ("haze", 8), ("reflect", 9))],
    row("hiddenpower-spent", (2, 3, 4), '(ask active.0.moves.0={"move":"Hidden Power Ice","id":"hiddenpower","pp":10,"maxpp":24} & side.pokemon.0.moves.0="hiddenpowerice70") ; move|p1a: Mine|Hidden Power|p2a: Foe',
        {"player_prev_move.current_pp": 9, "player_prev_move.move_type": "ice"}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"', 'side.pokemon.0.moves.0="hiddenpowerice70"'),
    row("no-pressure-gen1", (1, 2), "switch|p2a: Bird|Zapdos|100/100 ; (ask) ; move|p1a: Mine|Body Slam|p2a: Bird",
        {"me.moves.0.current_pp": 9}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("spent-before-a-forced-switch", ALL, "(ask) ; move|p1a: Mine|Rest|p1a: Mine ; faint|p1a: Mine", {"me.moves.2.current_pp": 9, "me.moves.2.max_pp": 16},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("pp-of-the-request", ALL, "", {"me.moves.1.current_pp": 3, "me.moves.1.max_pp": 16}, "active.0.moves.1.pp=3"),
    row("pp-zero", ALL, "", {"me.moves.1.current_pp": 0, "choice1": None}, "active.0.moves.1.pp=0", "active.0.moves.1.disabled=true"),
    row("pp-zero-alone", ALL, "", {"me.moves.1.current_pp": 0, "choice1": None, "choice0": "move 1"}, "active.0.moves.1.pp=0"),
    row("recharge-among-others", ALL, "", {"choice0": None, "choice1": "move 2"}, 'active.0.moves.0={"move":"Recharge","id":"recharge"}'),
    row("my-move-has-the-requests-pp", ALL, "move|p1a: Mine|Earthquake|p2a: Foe", {"player_prev_move.current_pp": 3, "player_prev_move.max_pp": 16},
        "active.0.moves.1.pp=3"),
    row("bench-pp-full", ALL, "", {"sw4.moves.0.current_pp": 24, "sw4.moves.0.max_pp": 24}),
    # Disabled, locked and lone choices.
    row("disabled", ALL, "", {"choice0": None, "choice1": "move 2"}, "active.0.moves.0.disabled=true"),
    row("disabled-with-tera", NEW, "", {"choice9": None, "choice10": "move 2 terastallize"}, "active.0.moves.0.disabled=true"),
    row("encored", (2, 3, 4, 9), "-start|p1a: Mine|Encore", {"choice0": "move 1", "choice1": None, "choice2": None, "choice3": None, "me.effect": "encore"},
        *[f"active.0.moves.{i}.disabled=true" for i in (1, 2, 3)]),
    row("struggle", ALL, "", {"choice0": "move 1", "choice1": None, "choice4": "switch 6", "me.moves.3.name": "surf"},
        'active.0.moves=[{"move":"Struggle","id":"struggle","target":"randomNormal","disabled":false}]'),
    row("recharge", ALL, "", {"choice0": "move 1", "choice4": None, "legal": 1, "me.moves.3.name": "surf"},
        'active.0={"moves":[{"move":"Recharge","id":"recharge"}],"trapped":true}'),
    row("fight", (1,), "", {"choice0": "move 1", "choice4": "switch 6", "me.moves.3.name": "surf"}, 'active.0.moves=[{"move":"Fight","id":"fight"}]'),
    row("locked", (2, 3, 4, 9), "", {"choice0": "move 1", "choice1": None, "choice4": None, "legal": 1, "me.moves.0.name": "earthquake"},
        'active.0={"moves":[{"move":"Earthquake","id":"earthquake"}],"trapped":true}'),
    # Into a move that Metronome or Copycat called: the request names it, and the Pokémon has it not.
    row("locked-called", ALL, "", {"choice0": "move 1", "choice1": None, "choice4": None, "legal": 1, "me.moves.0.name": "petaldance"},
        'active.0={"moves":[{"move":"Petal Dance","id":"petaldance"}],"trapped":true}'),
    row("locked-called-of-one", ALL, "", {"choice0": "move 1", "legal": 1, "me.moves.0.name": "petaldance"},
        'side.pokemon.0.moves=["metronome"]', 'active.0={"moves":[{"move":"Petal Dance","id":"petaldance"}],"trapped":true}'),
    row("locked-keeps-what-was-spent", ALL, '(ask active.0.moves.1.pp=2 & active.0.moves.2.pp=3) ; (ask active.0={"moves":[{"move":"Earthquake","id":"earthquake"}],"trapped":true}) ; faint|p1a: Mine',
        {"me.moves.1.current_pp": 2, "me.moves.2.current_pp": 3}, "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"'),
    row("locked-hiddenpower", (3, 4), "", {"choice0": "move 1", "me.moves.0.move_type": "ice"}, 'side.pokemon.0.moves.0="hiddenpowerice70"',
        'active.0={"moves":[{"move":"Hidden Power","id":"hiddenpower"}],"trapped":true}'),
    row("one-move-pokemon", NEW, "", {"choice0": "move 1", "choice1": None, "choice9": "move 1 terastallize"}, 'side.pokemon.0.moves=["transform"]',
        'active.0.moves=[{"move":"Transform","id":"transform","pp":10,"maxpp":16,"target":"normal","disabled":false}]'),
    row("trapped", ALL, "", {"choice4": None, "choice8": None, "choice0": "move 1", "sw0.name": "chansey"}, "active.0.trapped=true"),
    row("forced-though-trapped", ALL, "", {"choice0": None, "choice4": "switch 6", "forced_switch": True}, "active.0.trapped=true", "forceSwitch=[true]"),
    row("not-forced", ALL, "", {"choice0": "move 1", "forced_switch": False}, "forceSwitch=[false]"),
    row("maybe-trapped", (3, 4, 9), "", {"choice4": "switch 6"}, "active.0.maybeTrapped=true"),
    row("order-of-moves", ALL, "", {"choice0": "move 3", "choice1": "move 4", "choice2": "move 1", "choice3": "move 2"},
        'side.pokemon.0.moves=["rest","surf","bodyslam","earthquake"]',
        'active.0.moves=[{"move":"Rest","id":"rest","pp":9,"maxpp":16},{"move":"Surf","id":"surf","pp":9,"maxpp":16},{"move":"Body Slam","id":"bodyslam","pp":9,"maxpp":16},{"move":"Earthquake","id":"earthquake","pp":9,"maxpp":16}]'),
    row("pivot", (4, 9), "move|p1a: Mine|U-turn|p2a: Foe", {"forced_switch": True, "choice0": None, "choice6": "switch 2", "me.hp_pct": 1.0, "player_prev_move.name": "uturn"},
        "active-", "forceSwitch=[true]"),
    # Items.
    row("item-shown", (2, 3, 4, 9), "-heal|p2a: Foe|100/100|[from] item: Leftovers", {"foe.item": "leftovers"}),
    row("item-eaten", (2, 3, 4, 9), "-enditem|p2a: Foe|Lum Berry|[eat]", {"foe.item": "noitem"}),
    row("item-gone", (4, 9), "-enditem|p2a: Foe|Focus Sash", {"foe.item": "noitem"}),
    row("item-knocked-off-unseen", (3, 4, 9), "-enditem|p2a: Foe|Sitrus Berry|[from] move: Knock Off|[of] p1a: Mine ; -item|p2a: Foe|Leftovers|[from] move: Trick", {"foe.item": "leftovers"}),
    row("item-knocked-off", (3, 4), "-enditem|p2a: Foe|Leftovers|[from] move: Knock Off|[of] p1a: Mine", {"foe.item": "noitem"}),
    row("item-knocked-off-new", NEW, "-enditem|p2a: Foe|Leftovers|[from] move: Knock Off|[of] p1a: Mine", {"foe.item": "noitem"}),
    row("trick", (3, 4, 9), "-activate|p1a: Mine|move: Trick|[of] p2a: Foe ; -item|p2a: Foe|Leftovers|[from] move: Trick ; -item|p1a: Mine|Choice Band|[from] move: Trick",
        {"foe.item": "leftovers", "me.item": "choiceband", "me.effect": "trick"}, 'side.pokemon.0.item="choiceband"'),
    row("trick-nothing", (3, 4, 9), "-enditem|p2a: Foe|Choice Band|[silent]|[from] move: Trick", {"foe.item": "noitem"}),
    row("frisk", (4, 9), "-item|p2a: Foe|Choice Scarf|[from] ability: Frisk|[of] p1a: Mine", {"foe.item": "choicescarf"}),
    row("lifeorb", (4, 9), "-damage|p2a: Foe|90/100|[from] item: Life Orb", {"foe.item": "lifeorb", "foe.hp_pct": 0.9}),
    row("rockyhelmet", NEW, "-damage|p1a: Mine|350/400|[from] item: Rocky Helmet|[of] p2a: Foe", {"foe.item": "rockyhelmet"}),
    row("airballoon", NEW, "-item|p2a: Foe|Air Balloon", {"foe.item": "airballoon"}),
    row("balloon-popped", NEW, "-item|p2a: Foe|Air Balloon ; -enditem|p2a: Foe|Air Balloon", {"foe.item": "noitem"}),
    row("thief", (2, 3, 4), "-item|p1a: Mine|Leftovers|[from] move: Thief|[of] p2a: Foe", {"foe.item": "noitem", "me.item": "leftovers"}),
    row("recycle", (3, 4), "-enditem|p2a: Foe|Lum Berry|[eat] ; -item|p2a: Foe|Lum Berry|[from] move: Recycle", {"foe.item": "lumberry"}),
    row("poltergeist-item", NEW, "-activate|p2a: Foe|move: Poltergeist|Leftovers", {"foe.effect": "poltergeist"}),
    row("item-seen-and-knocked-off", (3, 4, 9), "-heal|p2a: Foe|100/100|[from] item: Leftovers ; -enditem|p2a: Foe|Leftovers|[from] move: Knock Off|[of] p1a: Mine", {"foe.item": "noitem"}),
    *[row(f"item-gone-for-good-{how}", gens, f"-enditem|p2a: Foe|Lum Berry|{by} ; {SWITCH_FOE} ; switch|p2a: Foe|Starmie|100/100", {"foe.item": "noitem"})
      for how, by, gens in (("eaten", "[eat]", (2, 3, 4, 9)), ("knocked-off", "[from] move: Knock Off|[of] p1a: Mine", (3, 4, 9)))],
    row("item-of-the-new-one-unknown", (2, 3, 4, 9), f"-heal|p2a: Foe|100/100|[from] item: Leftovers ; {SWITCH_FOE}", {"foe.item": "unknownitem"}),
    row("mine-eaten", (2, 3, 4, 9), "-enditem|p1a: Mine|Leftovers|[eat]", {"me.item": "noitem"}, 'side.pokemon.0.item=""'),
    # Abilities.
    row("only-ability", (3, 4, 9), "switch|p2a: Bug|Shedinja|100/100", {"foe.ability": "wonderguard"}),
    row("levitate-gen3", (3, 4), "switch|p2a: Ghost|Gengar, M|100/100", {"foe.ability": "levitate"}),
    row("cursedbody", NEW, "switch|p2a: Ghost|Gengar, M|100/100", {"foe.ability": "cursedbody"}),
    row("ability-shown", (3, 4, 9), "-ability|p2a: Foe|Natural Cure", {"foe.ability": "naturalcure"}),
    row("ability-by-weather", (3, 4, 9), "switch|p2a: Rock|Tyranitar, M|100/100 ; -weather|Sandstorm|[from] ability: Sand Stream|[of] p2a: Rock",
        {"foe.ability": "sandstream", "weather": "sandstorm"}),
    row("ability-immune", (3, 4, 9), "-immune|p2a: Foe|[from] ability: Water Absorb", {"foe.ability": "waterabsorb"}),
    row("ability-heal", (3, 4, 9), "-heal|p2a: Foe|80/100|[from] ability: Volt Absorb|[of] p1a: Mine", {"foe.hp_pct": 0.8}),
    row("trace", (3, 4, 9), "-ability|p2a: Foe|Immunity|[from] ability: Trace|[of] p1a: Mine", {"foe.ability": "immunity"}),
    row("asone", NEW, "switch|p2a: King|Calyrex-Ice|100/100 ; -ability|p2a: King|As One ; -ability|p2a: King|Unnerve", {"foe.ability": "asoneglastrier"}),
    row("worryseed", (4, 9), "-endability|p2a: Foe ; -ability|p2a: Foe|Insomnia|[from] move: Worry Seed", {"foe.ability": "insomnia"}),
    # Types and formes.
    row("gastroacid", (4, 9), "-ability|p2a: Foe|Natural Cure ; -endability|p2a: Foe", {"foe.ability": "naturalcure"}),
    row("skillswap", NEW, "-ability|p2a: Foe|Natural Cure ; -activate|p2a: Foe|move: Skill Swap|Immunity|Natural Cure|[of] p1a: Mine", {"foe.ability": "immunity", "me.ability": "naturalcure"}, 'side.pokemon.0.ability="naturalcure"'),
    row("typechange-foe", (2, 3, 4, 9), "-start|p2a: Foe|typechange|Grass", {"foe.types": "grass notype"}),
    row("typechange-two", (3, 4, 9), "-start|p2a: Foe|typechange|Grass/Poison", {"foe.types": "grass poison"}),
    row("typechange-gone", (2, 3, 4, 9), f"-start|p2a: Foe|typechange|Grass ; {SWITCH_FOE} ; switch|p2a: Foe|Starmie|100/100", {"foe.types": "psychic water"}),
    row("burnup", NEW, "switch|p2a: Fire|Arcanine, M|100/100 ; -start|p2a: Fire|typechange|???", {"foe.types": "notype threequestionmarks"}),
    row("typeadd", NEW, "-start|p2a: Foe|typeadd|Grass|[from] move: Forest's Curse", {"foe.effect": "typeadd"}),
    row("typeadd-types", NEW, "-start|p2a: Foe|typeadd|Grass|[from] move: Forest's Curse", {"foe.types": "grass water"}),
    row("typeadd-to-one-type", NEW, "-start|p1a: Mine|typeadd|Ghost|[from] move: Trick-or-Treat", {"me.types": "ghost normal"}),
    row("a-digit-in-a-name", (2, 3, 4, 9), "switch|p2a: Duck|Porygon2|100/100", {"foe.name": "porygon2"}),
    row("gen1-types", (1,), "switch|p2a: Magnet|Magneton|100/100", {"foe.types": "electric notype"}),
    row("gen2-types", (2, 3, 4, 9), "switch|p2a: Magnet|Magneton|100/100", {"foe.types": "electric steel"}),
    row("clefable-before-fairy", (1, 2, 3, 4), "switch|p2a: Pink|Clefable, F|100/100", {"foe.types": "normal notype"}),
    row("clefable-fairy", NEW, "switch|p2a: Pink|Clefable, F|100/100", {"foe.types": "fairy notype"}),
    row("rotom", (4,), "switch|p2a: Oven|Rotom-Heat|100/100", {"foe.name": "rotomheat", "foe.base_species": "rotom", "foe.types": "electric ghost", "foe.ability": "levitate"}),
    row("rotom-new", NEW, "switch|p2a: Oven|Rotom-Heat|100/100", {"foe.name": "rotomheat", "foe.types": "electric fire"}),
    row("level", ALL, "switch|p2a: Small|Alakazam, L83, M|100/100", {"foe.lvl": 83}),
    row("shiny", ALL, "switch|p2a: Foe2|Alakazam, M, shiny|100/100", {"foe.name": "alakazam"}),
    row("formechange", NEW, "switch|p2a: Disguise|Mimikyu, F|100/100 ; detailschange|p2a: Disguise|Mimikyu-Busted, F", {"foe.name": "mimikyubusted", "foe.base_species": "mimikyu"}),
    row("aegislash", NEW, "switch|p2a: Sword|Aegislash, M|100/100 ; -formechange|p2a: Sword|Aegislash-Blade|[from] ability: Stance Change", {"foe.name": "aegislashblade", "foe.base_atk": 140}),
    row("forme-ends-on-switch", NEW, f"switch|p2a: Sword|Aegislash, M|100/100 ; -formechange|p2a: Sword|Aegislash-Blade ; {SWITCH_FOE} ; switch|p2a: Sword|Aegislash, M|100/100", {"foe.name": "aegislash"}),
    row("castform", (3, 4), "switch|p2a: Rain|Castform, M|100/100 ; -formechange|p2a: Rain|Castform-Rainy|[msg]|[from] ability: Forecast", {"foe.name": "castformrainy", "foe.types": "notype water"}),
    # Transform.
    row("ditto-foe", ALL, "switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Mine", {"foe.name": "ditto", "foe.types": "normal notype", "foe.base_atk": 48}),
    row("ditto-copies-boosts", ALL, "-boost|p1a: Mine|atk|2 ; switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Mine", {"foe.atk_boost": 2}),
    row("ditto-move-has-five-pp", (2, 3, 4, 9), "switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Mine ; move|p2a: Blob|Body Slam|p1a: Mine",
        {"opponent_prev_move.name": "bodyslam"}),
    row("ditto-shows-copied-moves-only", (2, 3, 4, 9), "switch|p2a: Blob|Ditto|100/100 ; move|p2a: Blob|Transform|p1a: Mine ; -transform|p2a: Blob|p1a: Mine ; move|p2a: Blob|Surf|p1a: Mine ; move|p2a: Blob|Surf|p1a: Mine",
        {"foe.moves.0.name": "bodyslam", "foe.moves.0.current_pp": 5, "foe.moves.3.name": "surf", "foe.moves.3.current_pp": 3, "foe.moves.3.max_pp": 5}),
    row("ditto-mine", NEW, "-transform|p1a: Mine|p2a: Foe", {"me.moves.0.name": "surf", "me.moves.0.current_pp": 5, "me.moves.0.max_pp": 5, "choice0": "move 2", "choice1": "move 1"},
        'side.pokemon.0.moves=["surf","psychic"]', 'active.0.moves=[{"move":"Surf","id":"surf","pp":5,"maxpp":5},{"move":"Psychic","id":"psychic","pp":5,"maxpp":5}]'),
    row("ditto-copies-one-that-has-just-come", ALL, "(ask) ; switch|p1a: Zapdos|Zapdos|400/400 ; switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Zapdos",
        {"foe.moves.0.name": "thunderbolt", "foe.moves.1.name": "drillpeck", "foe.moves.3.name": "agility", "foe.moves.3.current_pp": 5}, "active to 2"),
    row("ditto-copies-return", (2, 3, 4), '(ask side.pokemon.4.moves.0="return102") ; switch|p1a: Tauros|Tauros, M|400/400 ; switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Tauros ; move|p2a: Blob|Return|p1a: Zapdos',
        {"foe.moves.0.name": "return", "foe.moves.0.current_pp": 4, "foe.moves.3.name": "earthquake"}, "active to 4"),
    row("ditto-mine-learns-the-foe's-moves", ALL, f"move|p2a: Foe|Surf|p1a: Mine ; -transform|p1a: Mine|p2a: Foe ; (ask active.0.moves={COPIED})",
        {"foe.moves.0.name": "surf", "foe.moves.0.current_pp": 23, "foe.moves.1.name": "psychic", "foe.moves.1.current_pp": 16, "foe.moves.3.name": "thunder"},
        f"active.0.moves={COPIED}"),
    row("ditto-is-itself-again", ALL, f"switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Mine ; {SWITCH_FOE} ; switch|p2a: Blob|Ditto|100/100", {"foe.name": "ditto", "foe.moves": [], "foe.atk_boost": 0}),
    # Illusion.
    row("illusion-on", NEW, "switch|p2a: Alakazam|Alakazam, M|100/100 ; move|p2a: Alakazam|Psychic|p1a: Mine", {"foe.name": "alakazam", "foe.moves.0.name": "psychic"}),
    row("illusion-off", NEW, "switch|p2a: Alakazam|Alakazam, M|100/100 ; replace|p2a: Zoroark|Zoroark, M ; -end|p2a: Zoroark|Illusion", {"foe.name": "zoroark", "foe.ability": "illusion", "foe.types": "dark notype"}),
    row("illusion-mine-moved", NEW, "switch|p1a: Gengar|Gengar, F|400/400 ; move|p1a: Gengar|Earthquake|p2a: Foe", {"me.name": "snorlax", "player_prev_move.name": "earthquake"}),
    row("illusion-mine", NEW, "switch|p1a: Gengar|Gengar, F|400/400 ; -boost|p1a: Gengar|spa|2", {"me.name": "snorlax", "me.spa_boost": 2, "sw2.name": "gengar"}),
    row("illusion-mine-of-another-type", NEW, "switch|p1a: Gengar|Gengar, F|400/400 ; -start|p1a: Gengar|typechange|Grass", {"me.name": "snorlax", "me.types": "grass notype", "sw2.name": "gengar", "sw2.types": "ghost poison"}),
    row("illusion-mine-came-back", NEW, "move|p1a: Mine|Earthquake|p2a: Foe ; switch|p1a: Gengar|Gengar, F|400/400 ; move|p1a: Gengar|Psychic|p2a: Foe ; switch|p1a: Zapdos|Zapdos|400/400 ; (ask) ; switch|p1a: Gengar|Gengar, F|400/400",
        {"me.name": "snorlax", "player_prev_move.name": "earthquake"}),
    row("illusion-mine-leaves-nothing-behind", NEW, "switch|p1a: Gengar|Gengar, F|400/400 ; move|p1a: Gengar|Psychic|p2a: Foe ; switch|p1a: Zapdos|Zapdos|400/400 ; switch|p1a: Gengar|Gengar, F|400/400 ; move|p1a: Gengar|Earthquake|p2a: Foe ; (ask) ; switch|p1a: Gengar|Gengar, F|400/400",
        {"me.name": "gengar", "player_prev_move.name": "psychic"}, "active to 1"),
    # Terastallization.
    row("tera-foe", NEW, "-terastallize|p2a: Foe|Steel", {"foe.tera_type": "steel", "foe.types": "notype steel"}),
    row("tera-foe-bench", NEW, f"-terastallize|p2a: Foe|Steel ; {SWITCH_FOE} ; switch|p2a: Foe|Starmie, tera:Steel|100/100", {"foe.tera_type": "steel", "foe.types": "notype steel"}),
    row("tera-foe-others", NEW, f"-terastallize|p2a: Foe|Steel ; {SWITCH_FOE}", {"foe.tera_type": "notype", "foe.types": "notype psychic"}),
    row("tera-mine", NEW, "-terastallize|p1a: Mine|Ghost", {"me.tera_type": "ghost", "me.types": "ghost notype", "can_tera": False, "choice9": None, "choice0": "move 1"},
        "active.0.canTerastallize-", 'side.pokemon.0.terastallized="Ghost"'),
    row("tera-mine-keeps-boosts", NEW, "-boost|p1a: Mine|atk|2 ; -terastallize|p1a: Mine|Ghost", {"me.atk_boost": 2, "me.types": "ghost notype", "me.effect": "noeffect"},
        "active.0.canTerastallize-", 'side.pokemon.0.terastallized="Ghost"'),
    row("tera-stellar", NEW, "-terastallize|p2a: Foe|Stellar", {"foe.tera_type": "stellar", "foe.types": "psychic water"}),
    row("tera-not-now", NEW, "", {"can_tera": False, "choice9": None}, "active.0.canTerastallize-"),
    # Weather, field, side conditions.
    *[row(f"weather-{word}", ALL if word in ("raindance", "sunnyday", "sandstorm") else NEW, f"-weather|{text}", {"weather": word})
      for text, word in (("RainDance", "raindance"), ("SunnyDay", "sunnyday"), ("Sandstorm", "sandstorm"), ("Snowscape", "snowscape"),
                         ("DesolateLand", "desolateland"), ("PrimordialSea", "primordialsea"), ("DeltaStream", "deltastream"))],
    row("hail", (3, 4), "-weather|Hail", {"weather": "hail"}),
    row("weather-upkeep", (2, 3, 4, 9), "-weather|RainDance ; -weather|RainDance|[upkeep]", {"weather": "raindance"}),
    row("weather-none", (2, 3, 4, 9), "-weather|RainDance ; -weather|none", {"weather": "noweather"}),
    row("weather-replaced", (2, 3, 4, 9), "-weather|RainDance ; -weather|Sandstorm", {"weather": "sandstorm"}),
    *[row(f"field-{word}", gens, f"-fieldstart|move: {text}", {"battle_field": word})
      for text, word, gens in (("Electric Terrain", "electricterrain", NEW), ("Grassy Terrain", "grassyterrain", NEW), ("Misty Terrain", "mistyterrain", NEW),
                               ("Psychic Terrain", "psychicterrain", NEW), ("Trick Room", "trickroom", (4, 9)), ("Gravity", "gravity", (4, 9)),
                               ("Magic Room", "magicroom", NEW), ("Wonder Room", "wonderroom", NEW))],
    row("field-ends", (4, 9), "-fieldstart|move: Trick Room ; -fieldend|move: Trick Room", {"battle_field": "nofield"}),
    row("field-latest", NEW, "-fieldstart|move: Trick Room ; -fieldstart|move: Electric Terrain", {"battle_field": "electricterrain"}),
    row("terrain-replaced", NEW, "-fieldstart|move: Grassy Terrain ; -fieldstart|move: Electric Terrain ; -fieldend|move: Electric Terrain", {"battle_field": "nofield"}),
    *[row(f"side-{word}", gens, f"-sidestart|p2: B|{text}", {"opponent_conditions": word, "player_conditions": "noconditions"})
      for text, word, gens in (("Spikes", "spikes", (2, 3, 4, 9)), ("move: Stealth Rock", "stealthrock", (4, 9)), ("move: Toxic Spikes", "toxicspikes", (4, 9)),
                               ("move: Sticky Web", "stickyweb", NEW), ("Reflect", "reflect", (2, 3, 4, 9)), ("move: Light Screen", "lightscreen", (2, 3, 4, 9)),
                               ("Safeguard", "safeguard", (2, 3, 4, 9)), ("Mist", "mist", (3, 4, 9)), ("move: Tailwind", "tailwind", (4, 9)),
                               ("move: Aurora Veil", "auroraveil", NEW), ("move: Lucky Chant", "luckychant", (4,)))],
    row("side-mine", (2, 3, 4, 9), "-sidestart|p1: A|Spikes", {"player_conditions": "spikes", "opponent_conditions": "noconditions"}),
    row("side-ends", (2, 3, 4, 9), "-sidestart|p1: A|Spikes ; -sideend|p1: A|Spikes|[from] move: Rapid Spin", {"player_conditions": "noconditions"}),
    row("side-ends-with-all-layers", (2, 3, 4, 9), "-sidestart|p1: A|Spikes ; -sidestart|p1: A|Spikes ; -sideend|p1: A|Spikes", {"player_conditions": "noconditions"}),
    row("side-ends-that-was-not-there", (2, 3, 4, 9), "-sidestart|p1: A|Spikes ; -sideend|p1: A|Reflect", {"player_conditions": "spikes"}),
    row("side-latest", (4, 9), "-sidestart|p1: A|Spikes ; -sidestart|p1: A|move: Stealth Rock", {"player_conditions": "stealthrock"}),
    row("side-older-after", (2, 3, 4, 9), "-sidestart|p1: A|Spikes ; -sidestart|p1: A|Reflect ; -sideend|p1: A|Reflect", {"player_conditions": "spikes"}),
    row("courtchange", NEW, "-sidestart|p1: A|Spikes ; -swapsideconditions", {"player_conditions": "noconditions", "opponent_conditions": "spikes"}),
    # Revival Blessing.
    row("revival-choice", NEW, "", {"forced_switch": True, "choice4": "switch 6", "choice5": None, "available_switches.0.name": "chansey", "available_switches.0.hp_pct": 0.0},
        "active-", "forceSwitch=[true]", "side.pokemon.0.reviving=true", 'side.pokemon.5.condition="0 fnt"'),
    # Gen 1 oddities.
    row("gen1-bound", (1,), "move|p2a: Foe|Wrap|p1a: Mine ; cant|p1a: Mine|partiallytrapped", {"opponent_prev_move.name": "wrap"}),
    row("gen1-mustrecharge", (1,), "move|p2a: Foe|Hyper Beam|p1a: Mine ; -mustrecharge|p2a: Foe", {"opponent_prev_move.name": "hyperbeam", "foe.effect": "noeffect"}),
    # The end.
    row("won", ALL, "faint|p2a: Foe ; win|A", {"battle_won": True, "battle_lost": False, "foe.status": "fnt", "can_tera": False, "forced_switch": False}),
    row("lost", ALL, "-damage|p1a: Mine|0 fnt ; faint|p1a: Mine ; win|B", {"battle_won": False, "battle_lost": True, "me.status": "fnt", "me.hp_pct": 0.0, "me.name": "snorlax"}),
    row("tie", ALL, "tie", {"battle_won": False, "battle_lost": False}),
    # What nobody has seen yet is passed over.
    row("unknown-move", ALL, "move|p2a: Foe|Brand New Move|p1a: Mine", {"opponent_prev_move.name": "nomove", "foe.moves.0.name": "brandnewmove", "foe.moves.0.max_pp": 0}),
    row("unknown-message", ALL, "-somethingnew|p2a: Foe|What ; -start|p2a: Foe|Brand New Effect", {"foe.effect": "brandneweffect"}),
    row("garbage", ALL, "| ; -damage|p9z: Nobody|10/100 ; -weather ; -start|p2a: Foe|", {"foe.hp_pct": 1.0, "weather": "noweather", "foe.effect": "noeffect"}),
]  # fmt: skip
ROWS = [case for group in CASES for case in group]


@pytest.fixture(scope="module")
def events(simulator):
    return run(simulator, [(gen, lines, changes) for _, gen, lines, changes, _ in ROWS])


def test_an_end_says_who_won(events):
    winners = {name: event.winner for (name, *_), event in zip(ROWS, events, strict=True) if event.event == "end"}
    for gen in ALL:
        assert [winners[f"{name}-gen{gen}"] for name in ("won", "lost", "tie")] == [0, 1, -1]
    assert {event.turns for event in events if event.event == "end"} == {1}


def test_there_are_hundreds_of_cases_with_names_of_their_own():
    names = [name for name, *_ in ROWS]
    assert len(names) >= 400
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[name for name, *_ in ROWS])
def test_case(events, number):
    event, expected = events[number], ROWS[number][4]
    assert event.event in ("ask", "end"), event
    state = json.loads(bytes(event.state) if event.event == "ask" else bytes(event.states[0]))
    assert event.forced == state["forced_switch"]
    for path, value in expected.items():
        if path == "legal":
            assert event.legal == value
        elif path.startswith("choice"):
            assert event.choices[int(path[6:])] == value, path
        else:
            assert look(state, path) == value, path
