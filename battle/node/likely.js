'use strict';
// What an opponent is likely to have: sets seen in teams that are known, and for other Pokémon those that Showdown's own
// generator gives them. Drawn to agree with what the battle has shown.

const { Dex, PRNG, Teams, toID } = require('pokemon-showdown');
const { assemble } = require('./assemble');

const MADE = 40; // teams where none are given
const MOVES = 4;

/** A move's id as the battle shows it. */
const plain = (id) => (id.startsWith('hiddenpower') ? 'hiddenpower' : id);

class Likely {
  /**
   * @param {string} format id
   * @param {string[]} teams in export or packed format; none: those that can be made of the format's own tier, or else
   *   as in the generation's random battles
   */
  constructor(format, teams) {
    this.dex = Dex.forFormat(format);
    const given = teams.length || Dex.formats.get(format).team ? teams : assemble(format, MADE, '1,2,3,7').teams;
    this.teams = given.length ? given.map((text) => Teams.import(text))
      : Array.from({ length: MADE }, (_, n) => this.generator(`team${n}`).getTeam());
    this.maker = this.generator('maker');
    this.picked = Dex.formats.getRuleTable(Dex.formats.get(format)).pickedTeamSize || Infinity;
    this.sets = new Map();
    for (const set of this.teams.flat()) {
      const key = this.key(set.species || set.name);
      if (!this.sets.has(key)) this.sets.set(key, []);
      this.sets.get(key).push(set);
    }
  }

  /** Showdown's maker of random sets, with dice of its own for each purpose, so that nothing hangs on what was asked before. */
  generator(purpose) {
    let word = 7;
    for (const letter of purpose) word = (word * 31 + letter.charCodeAt(0)) % 65521;
    return Teams.getGenerator(`gen${this.dex.gen}randombattle`, `1,2,3,${word}`);
  }

  key(species) {
    return toID(this.dex.species.get(species).baseSpecies);
  }

  /** Sets of a species, as it is known: never none. */
  of(species) {
    const key = this.key(species);
    if (!this.sets.has(key)) this.sets.set(key, this.imagined(species));
    return this.sets.get(key);
  }

  /** For a species that nobody in the known teams plays: the generator's sets, or its best hits where it has none. */
  imagined(species) {
    const kind = this.dex.species.get(species);
    const generator = this.generator(kind.id);
    const listed = generator.randomSets ?? generator.randomData;
    const known = [kind.id, toID(kind.baseSpecies)].find((id) => listed[id]);
    if (known) return Array.from({ length: 3 }, () => generator.randomSet(this.dex.species.get(known), {}, false));
    const worth = (id) => {
      const move = this.dex.moves.get(id);
      return move.basePower * (kind.types.includes(move.type) ? 1.5 : 1);
    };
    const now = this.dex.species.getMovePool(kind.id);
    const learned = now.size ? now : this.dex.species.getMovePool(kind.id, true); // of a generation before
    const pool = [...learned].sort((a, b) => worth(b) - worth(a) || (a < b ? -1 : 1));
    return [{ species: kind.name, ability: kind.abilities['0'], item: '', moves: pool.slice(0, MOVES) }];
  }

  /**
   * A set that agrees with what was shown of a Pokémon.
   * @param {{species: string, level: number, gender: string, moves: string[], item: string|null, ability: string,
   *   teraType: string}} shown item: '' where it has none any more, null where nobody knows; ability, teraType: '' unknown
   * @param {PRNG} prng
   */
  draw(shown, prng) {
    const sets = this.of(shown.species);
    const ids = (set) => set.moves.map(toID);
    const agree = (set) => {
      const own = ids(set).map(plain);
      return shown.moves.filter((move) => own.includes(move)).length +
        (shown.item && toID(set.item) === shown.item ? 1 : 0) + (shown.ability && toID(set.ability) === shown.ability ? 1 : 0);
    };
    const most = Math.max(...sets.map(agree));
    const set = prng.sample(sets.filter((each) => agree(each) === most));
    // The battle does not show of which type a Hidden Power is; the set does.
    const told = shown.moves.map((move) => ids(set).find((id) => plain(id) === move) ?? move);
    const moves = [...new Set([...told, ...ids(set)])].slice(0, MOVES);
    return { ...set, name: shown.species, species: shown.species, level: shown.level, gender: shown.gender, moves,
      item: shown.item ?? set.item ?? '', ability: shown.ability || set.ability || '', teraType: shown.teraType || set.teraType,
      evs: { ...set.evs }, ivs: { ...set.ivs } };
  }

  /** Species for those that have not been seen: of one known team, without those that are there already. */
  unseen(count, seen, prng) {
    const taken = new Set(seen.map((species) => this.key(species)));
    const found = [];
    for (let tries = 0; found.length < count && tries < 50; tries++) {
      for (const set of prng.sample(this.teams)) {
        const key = this.key(set.species || set.name);
        if (found.length === count || taken.has(key)) continue;
        taken.add(key);
        found.push(set.species || set.name);
      }
    }
    return found;
  }
}

module.exports = { Likely, PRNG };
