'use strict';
// The simulator asks every effect on the field for its handlers at each event, under names that it glues together anew
// each time, and a quarter of a battle's time goes there. Most of these names nobody has: no effect in the game's data
// listens to onAllyModifySpe. This search is the same, in the same order, but that it passes over such names, and that
// a battle is of two sides.

const { Pokemon, Side } = require('pokemon-showdown');

const HANDLER = /^on[A-Z]/;

const known = new WeakMap();
/** Names of all handlers in a generation's data: moves' conditions, items, abilities, species, rules and formats. */
function handlerNames(dex) {
  let names = known.get(dex);
  if (names) return names;
  names = new Set();
  const walk = (entry) => {
    if (entry === null || typeof entry !== 'object') return;
    for (const key of Object.keys(entry)) {
      if (HANDLER.test(key)) names.add(key);
      else walk(entry[key]);
    }
  };
  for (const [table, entries] of Object.entries(dex.data)) if (table !== 'Learnsets') walk(entries);
  known.set(dex, names);
  return names;
}

const tables = new WeakMap();
/** How an event's handlers are called: '' where nobody has one of that name. */
function namesOf(battle, event) {
  let table = tables.get(battle.dex);
  if (!table) tables.set(battle.dex, (table = new Map()));
  let names = table.get(event);
  if (!names) {
    const listened = handlerNames(battle.dex);
    const called = (prefix) => (listened.has(`on${prefix}${event}`) ? `on${prefix}${event}` : '');
    names = { full: `on${event}`, own: called(''), ally: called('Ally'), any: called('Any'), foe: called('Foe'),
      source: called('Source') };
    table.set(event, names);
  }
  return names;
}

function take(handlers, found) {
  for (const handler of found) handlers.push(handler);
}

/** In place of a battle's own `findEventHandlers`: the same handlers in the same order. */
function findEventHandlers(target, event, source) {
  // Of many targets each is asked in turn, which comes back here.
  if (Array.isArray(target)) return Object.getPrototypeOf(this).findEventHandlers.call(this, target, event, source);
  const { full, own, ally, any, foe, source: theirs } = namesOf(this, event);
  const handlers = [];
  const ofPokemon = (pokemon, name) => { if (name) take(handlers, this.findPokemonEventHandlers(pokemon, name)); };
  const ofSide = (side, name) => { if (name) take(handlers, this.findSideEventHandlers(side, name)); };
  const bubbles = target instanceof Side;
  if (target instanceof Pokemon && (target.isActive || source?.isActive)) {
    ofPokemon(target, own);
    if (ally || any) {
      for (const friend of target.alliesAndSelf()) {
        ofPokemon(friend, ally);
        ofPokemon(friend, any);
      }
    }
    if (foe || any) {
      for (const enemy of target.foes()) {
        ofPokemon(enemy, foe);
        ofPokemon(enemy, any);
      }
    }
    target = target.side;
  }
  if (source) ofPokemon(source, theirs);
  if (target instanceof Side) {
    for (const side of this.sides) {
      const name = side === target ? own : foe;
      if (bubbles) {
        for (const active of side.active) {
          ofPokemon(active, name);
          ofPokemon(active, any);
        }
      }
      ofSide(side, name);
      ofSide(side, any);
    }
  }
  if (own) take(handlers, this.findFieldEventHandlers(this.field, own));
  if (own || this.events) take(handlers, this.findBattleEventHandlers(full));
  return handlers;
}

module.exports = { findEventHandlers };
