'use strict';
// A battle's twin: the whole object graph copied, so that a turn can be tried and thrown away. The simulator's own way,
// through JSON, takes fifteen times as long. What is frozen is the game's data and is shared; so are functions, and
// those that hold on to an original (how a Pokémon tells its health) are why a twin is for playing on, not for reading lines.

/** Silences a battle that nobody watches: no lines, no requests but what a choice is checked against. */
function quiet(battle) {
  const nothing = () => {};
  battle.add = battle.addMove = nothing; // what else there is to say goes through these, or onto a move's line
  battle.log = [];
  battle.inputLog = [];
  battle.messageLog = [];
  for (const side of battle.sides) {
    side.getRequestData = () => ({ name: side.name, id: side.id, pokemon: [] });
    side.emitRequest = nothing;
  }
  return battle;
}

/** @returns {Battle} a battle of its own that goes on exactly as the given one would */
function twin(battle) {
  const { dex, format, ruleTable } = battle;
  const made = new Map([[dex, dex], [format, format], [ruleTable, ruleTable]]);
  const copy = (value) => {
    if (value === null || typeof value !== 'object') return value;
    const known = made.get(value);
    if (known !== undefined) return known;
    if (Object.isFrozen(value)) return value;
    if (Array.isArray(value)) {
      const list = new Array(value.length);
      made.set(value, list);
      for (let i = 0; i < value.length; i++) list[i] = copy(value[i]);
      return list;
    }
    if (value instanceof Set) {
      const set = new Set();
      made.set(value, set);
      for (const entry of value) set.add(copy(entry));
      return set;
    }
    if (value instanceof Map) {
      const map = new Map();
      made.set(value, map);
      for (const [key, entry] of value) map.set(copy(key), copy(entry));
      return map;
    }
    const object = Object.assign(Object.create(Object.getPrototypeOf(value)), value);
    made.set(value, object);
    for (const key of Object.keys(object)) {
      const entry = object[key];
      if (entry !== null && typeof entry === 'object') object[key] = copy(entry);
    }
    return object;
  };
  return copy(battle);
}

module.exports = { quiet, twin };
