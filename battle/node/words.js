'use strict';
// The dictionary: Showdown's data turned into the words and numbers of the battle file, as ready-made JSON.
//
// A state repeats the same moves and species hundreds of times in a battle, so what never changes about them is
// written out once per generation and kept; only hp, pp, boosts and the like are filled in each time.

const { Dex } = require('pokemon-showdown');

const BOOSTS = ['atk', 'spa', 'def', 'spd', 'spe', 'accuracy', 'evasion'];
const BASE_STATS = ['atk', 'spa', 'def', 'spd', 'spe', 'hp'];

/** Lower-case letters and digits of a name; moves and species. */
const clean = (text) => String(text ?? '').toLowerCase().replace(/[^a-z0-9]+/g, '');
/** Lower-case letters of a name; items, abilities, statuses, effects, weathers, fields and conditions. */
const letters = (text) => String(text ?? '').toLowerCase().replace(/[^a-z]+/g, '');
/** A float as JSON that reads back as a float in every language (1 becomes 1.0). */
const float = (x) => (Number.isInteger(x) ? `${x}.0` : String(x));

/** Whether a name is the id of a singles format that this Showdown knows: other spellings would go into states and folders. */
function isSingles(name) {
  const { exists, id, gameType } = Dex.formats.get(name);
  return exists && id === name && gameType === 'singles';
}

const typeWord = (type) => (type === '???' ? 'threequestionmarks' : clean(type));

const pairs = new Map();
/** Two type words in alphabetical order. */
function typesWord(types) {
  const key = types.length > 1 ? `${types[0]}/${types[1]}` : types[0];
  let known = pairs.get(key);
  if (known === undefined) pairs.set(key, (known = joinTypes(types)));
  return known;
}

function joinTypes(types) {
  const words = types.slice(0, 2).map(typeWord).filter(Boolean);
  while (words.length < 2) words.push('notype');
  return words.sort().join(' ');
}

/** hiddenpowerice70 → hiddenpower, return102 → return (generation 2 writes returnnull); everything else stays. */
function moveName(id) {
  if (id.startsWith('hiddenpower')) return 'hiddenpower';
  return /^(return|frustration)/.test(id) ? id.replace(/(\d+|null)$/, '') : id;
}

const OWN_SIDE = new Set(['self', 'allies', 'allySide', 'adjacentAlly', 'adjacentAllyOrSelf', 'allyTeam']);
/** Whether Pressure makes a move cost one more PP, as the simulator has it (`getMoveTargets`). */
const pressed = ({ flags, target }) => Boolean(flags.mustpressure) || (target !== 'foeSide' && !OWN_SIDE.has(target));

class Words {
  /** @param {number} gen generation, 1–9 */
  constructor(gen) {
    this.gen = gen;
    this.dex = Dex.forGen(gen);
    this.moves = new Map();
    this.kinds = new Map();
  }

  static of(gen) {
    if (!Words.cache.has(gen)) Words.cache.set(gen, new Words(gen));
    return Words.cache.get(gen);
  }

  /** What is fixed about a move: its cleaned name, JSON up to current_pp, and the PP a full move has. */
  move(id) {
    let known = this.moves.get(id);
    if (known) return known;
    const typed = id.startsWith('hiddenpower') ? id.replace(/\d+$/, '') : moveName(id);
    const data = this.dex.moves.get(typed);
    const name = moveName(id);
    const category = data.category || 'Status'; // in generations 1–3 by the type: the simulator's data say so
    // The plain Hidden Power is one whose type nobody has seen; a typed one has 70 where power is not shown.
    const power = name === 'hiddenpower' ? (typed === 'hiddenpower' ? 0 : 70) : data.basePower || 0;
    const accuracy = typeof data.accuracy === 'number' ? data.accuracy / 100 : 1;
    const head = `{"name":"${name}","move_type":"${typeWord(data.type || 'Normal')}","category":"${clean(category)}",` +
      `"base_power":${power},"accuracy":${float(accuracy)},"priority":${data.priority || 0},"current_pp":`;
    const pp = data.pp || 0; // a move that this version does not know has none
    const full = data.noPPBoosts ? pp : Math.floor((pp * 8) / 5);
    known = { name, head, maxpp: this.gen <= 2 ? Math.min(full, 61) : full, pressed: pressed(data), exists: data.exists };
    this.moves.set(id, known);
    return known;
  }

  /** JSON of one move with its PP. */
  moveJson(id, pp, maxpp) {
    const move = this.move(id);
    const max = maxpp ?? move.maxpp;
    return `${move.head}${pp ?? max},"max_pp":${max}}`;
  }

  /** What is fixed about a species (with forme): words, base stats as JSON, its only ability if it has just one. */
  species(forme) {
    let known = this.kinds.get(forme);
    if (known) return known;
    const data = this.dex.species.get(forme);
    const abilities = this.gen < 3 ? [] : Object.values(data.abilities || {}).filter(Boolean);
    const stats = BASE_STATS.map((stat) => `"base_${stat}":${data.baseStats?.[stat] ?? 0}`).join(',');
    known = {
      name: clean(forme),
      base: clean(data.exists ? data.baseSpecies : forme),
      types: data.types,
      stats,
      onlyAbility: abilities.length === 1 ? letters(abilities[0]) : '',
      exists: data.exists,
    };
    this.kinds.set(forme, known);
    return known;
  }
}
Words.cache = new Map();

const NO_MOVE = '{"name":"nomove","move_type":"nomove","category":"nomove","base_power":0,"accuracy":1.0,"priority":0,' +
  '"current_pp":0,"max_pp":0}';
const NO_BOOSTS = BOOSTS.map((stat) => `"${stat}_boost":0`).join(',');

module.exports = { BOOSTS, NO_BOOSTS, NO_MOVE, Words, clean, float, isSingles, letters, typeWord, typesWord };
