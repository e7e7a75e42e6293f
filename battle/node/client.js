'use strict';
// @pkmn/client, which keeps the battle as its lines tell it, on Showdown's own data.

const { Battle, Pokemon, Side } = require('@pkmn/client');
const { Generations } = require('@pkmn/data');
const { Dex } = require('pokemon-showdown');
const { Words } = require('./words');

const generations = new Generations(Dex, () => true);
const KINDS = { item: ['items', 'Item'], ability: ['abilities', 'Ability'], move: ['moves', 'Move'] };

/** @pkmn/client asks for "item: Leftovers" as a condition and for its kind: its own Dex knows both, Showdown's neither. */
class Client extends Battle {
  get(type, text) {
    const prefix = type === 'conditions' && text ? /^(item|ability|move): ?(.*)$/.exec(text) : null;
    if (!prefix) return super.get(type, text);
    const [table, kind] = KINDS[prefix[1]];
    const { name, id } = super.get(table, prefix[2]);
    return { name, id, kind };
  }
}

/** Pressure costs one more PP; the client looks for it under a name that its ability ids never have. */
class Fighter extends Pokemon {
  constructor(side, details, set) {
    super(side, details, set);
    // What the view notes on a Pokémon, there from the start so that all of them have one shape.
    this.lastUsed = '';
    this.shownTera = '';
    this.benched = null;
  }

  getPressurePP(pp, foes) {
    return foes.reduce((sum, foe) => sum + (hasPressure(foe) ? 1 : 0), pp);
  }
}

function hasPressure(pokemon) {
  const { ability, baseAbility, side } = pokemon;
  if (side.battle.gen.num < 3) return false; // requests name abilities there too
  const known = ability || baseAbility || Words.of(side.battle.gen.num).species(pokemon.speciesForme).onlyAbility;
  return known === 'pressure' && !pokemon.volatiles.gastroacid;
}

function newClient() {
  const fighter = (side, details, set) => new Fighter(side, details, set);
  return new Client(generations, null, undefined, undefined, (battle, n, sets) => new Side(battle, n, sets, fighter));
}

module.exports = { newClient, hasPressure };
