"""Builds the vocabulary: every word that an observation can hold, from the game's own data.

Sources: poke-env's data of all nine generations (species and formes, moves, abilities, types, effects, fields, side
conditions, weathers, statuses); an installed `pokemon-showdown` package, which alone lists the items; the special words
and formats written here; and any battle files given. Words already in a vocabulary keep their ids: new ones go behind.
No player's name is ever read: only state fields are.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .observation import BLANK
from .replay_file import BadBattleFile, read_battle
from .schema import BattleRecord, Pokemon

log = logging.getLogger(__name__)

LITERALS = (
    BLANK,
    "<anychoice>",
    "<forcedswitch>",
    "<player>",
    "<move>",
    "<switch>",
    "<moveset>",
    "<opponent>",
    "<conditions>",
    "<player_prev>",
    "<opp_prev>",
)
ABSENT = (
    "nomove",
    "noitem",
    "unknownitem",
    "noability",
    "unknownability",
    "notype",
    "nostatus",
    "noeffect",
    "noweather",
    "nofield",
    "noconditions",
    "unknown",
    "physical",
    "special",
    "status",
    "struggle",
    "recharge",
    "fight",
    "fnt",
    "snow",  # snowscape, as older recorders wrote it
)
# fmt: off
TIERS = (
    "ou", "uu", "ru", "nu", "pu", "zu", "ubers", "ubersuu", "uubl", "nubl", "lc", "lcuu", "monotype",
    "anythinggoes", "nationaldex", "nationaldexuu", "nationaldexubers", "randombattle", "randombattleblitz",
    "unratedrandombattle", "hackmonscup", "challengecup1v1", "1v1", "cap", "nfe", "stadiumou", "stadium",
    "almostanyability", "balancedhackmons", "mixandmega", "godlygift", "stabmons", "metronomebattle",
    "customgame", "battlestadiumsingles", "bssreg", "purehackmons",
)
# fmt: on
GENERATIONS = range(1, 10)

_NOT_LETTER_OR_DIGIT = re.compile(r"[^a-z0-9]")
_DIGIT = re.compile(r"[0-9]")
_SHOWDOWN_DUMP = """
const {Dex} = require(process.argv[1]);
const words = new Set();
for (let gen = 1; gen <= 9; gen++) {
  const dex = Dex.forGen(gen);
  for (const table of [dex.items, dex.abilities, dex.moves, dex.species, dex.types])
    for (const entry of table.all()) words.add(entry.name);
  for (const id of Object.keys(dex.data.Conditions)) words.add(id);
}
process.stdout.write(JSON.stringify([...words]));
"""


def clean(name: str) -> str:
    """A name as the battle file format writes it: lower-case letters and digits only."""
    return _NOT_LETTER_OR_DIGIT.sub("", name.lower())


def without_digits(name: str) -> str:
    """A cleaned name as items, abilities, effects and conditions are written: without digits as well."""
    return _DIGIT.sub("", clean(name))


def special_words() -> list[str]:
    """Literal words, words for nothing and the formats, in a fixed order."""
    formats = [f"<gen{generation}{tier}>" for generation in GENERATIONS for tier in TIERS]
    return [*LITERALS, *ABSENT, *formats]


def poke_env_words() -> set[str]:
    """Every name of poke-env's data, all nine generations."""
    # Imported here: a heavy package that only building a vocabulary needs.
    from poke_env.battle import Effect, Field, PokemonType, SideCondition, Status, Weather
    from poke_env.data import GenData

    names: set[str] = set()
    for generation in GENERATIONS:
        data = GenData.from_gen(generation)
        names.update(data.moves)
        for species, entry in data.pokedex.items():
            names.add(species)
            names.update(entry["abilities"].values())
            for key in ("name", "baseSpecies", "requiredItem"):
                if isinstance(entry.get(key), str):
                    names.add(entry[key])
            for key in ("otherFormes", "cosmeticFormes", "requiredItems", "types"):
                names.update(entry.get(key, ()))
    for kinds in (Effect, Field, PokemonType, SideCondition, Status, Weather):
        names.update(kind.name for kind in kinds)
    return _both_ways(names)


def showdown_words(folder: str | os.PathLike[str]) -> set[str]:
    """Every name of an installed `pokemon-showdown` package (its folder in `node_modules`), by asking it in Node.

    Raises:
        ValueError: no Node, no such package, or an answer that isn't its data; the text says what to do.
    """
    package = Path(folder).resolve()
    if not (package / "package.json").is_file():
        raise ValueError(f"{folder}: is no installed package; run `npm install pokemon-showdown` and name its folder")
    try:
        done = subprocess.run(
            ["node", "-e", _SHOWDOWN_DUMP, str(package)], capture_output=True, timeout=120, check=True, text=True
        )
        names = json.loads(done.stdout)
    except FileNotFoundError as error:
        raise ValueError("node is not installed; install Node 20, or leave out --showdown") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{folder}: Node could not read it: {error.stderr[-500:]}") from error
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: gave no list of names ({error}); install the package again") from error
    return _both_ways(names)


def words_of_battle(battle: BattleRecord) -> set[str]:
    """Every word that any observation space takes from a battle's states; no name of a player."""
    words: set[str] = set()
    for state in battle.states:
        words.add(f"<{state.format}>")
        words.update(
            (state.weather, state.battle_field, state.player_conditions, state.opponent_conditions),
            (state.player_prev_move.name, state.opponent_prev_move.name),
            state.opponent_teampreview,
        )
        for pokemon in (state.player_active_pokemon, state.opponent_active_pokemon, *state.available_switches):
            words.update(_words_of_pokemon(pokemon))
    return {word for word in words if word and word.split() == [word]}


def words_of_files(paths: Sequence[str]) -> tuple[set[str], list[str]]:
    """The words of battle files together, and what was wrong with each that cannot be read."""
    words: set[str] = set()
    bad: list[str] = []
    for path in paths:
        try:
            words |= words_of_battle(read_battle(path))
        except BadBattleFile as error:
            bad.append(str(error))
    return words, bad


def build(base: Iterable[str], *sources: Iterable[str]) -> list[str]:
    """The vocabulary in id order: `base` (an older one) first and unchanged, then the special words, then the rest in
    alphabetical order."""
    words = list(dict.fromkeys(base))
    if not words:
        words = special_words()
    known = set(words)
    new = {word for source in (special_words(), *sources) for word in source} - known
    return [*words, *sorted(new)]


def _both_ways(names: Iterable[str]) -> set[str]:
    words = {form for name in names for form in (clean(name), without_digits(name))}
    words.discard("")
    return words


def _words_of_pokemon(pokemon: Pokemon) -> Iterable[str]:
    yield from (pokemon.name, pokemon.base_species, pokemon.item, pokemon.ability, pokemon.status, pokemon.effect)
    yield pokemon.tera_type
    yield from pokemon.types.split()
    for move in pokemon.moves:
        yield from (move.name, move.move_type, move.category)
