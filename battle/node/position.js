'use strict';
// A first-person view turned into a battle that can be played on: the own side as the request tells it, the opponent's as
// far as it was shown and likely beyond that. Nothing else goes in: the true battle is never looked at.

const { Battle, toID } = require('pokemon-showdown');
const { deepClone } = require('./clone');
const { findEventHandlers } = require('./events');
const { quiet } = require('./twin');

const SIDES = ['p1', 'p2'];
const BOOSTS = ['atk', 'def', 'spa', 'spd', 'spe', 'accuracy', 'evasion'];
// What a Pokémon on the field may be under, of what the protocol shows: those that the simulator can put on by themselves.
const VOLATILES = new Set(['substitute', 'leechseed', 'confusion', 'taunt', 'focusenergy', 'mustrecharge', 'aquaring', 'ingrain',
  'curse', 'attract', 'torment', 'reflect', 'lightscreen', 'mist', 'yawn', 'saltcure', 'magnetrise', 'flashfire']);

/** One own Pokémon as a set, from a request's entry. */
function ownSet(given, read) {
  return {
    name: read.name, species: read.speciesForme, level: read.level, gender: read.gender ?? '', moves: [...given.moves],
    ability: given.baseAbility, item: given.item, teraType: given.teraType, nature: 'Serious',
  };
}

/** What the battle has shown of an opponent's Pokémon. */
function shownOf(view, pokemon) {
  const gone = pokemon.itemEffect === 'knocked off' || (!pokemon.item && pokemon.lastItem);
  return {
    species: pokemon.baseSpeciesForme,
    level: pokemon.level,
    gender: pokemon.gender ?? '',
    moves: pokemon.moveSlots.filter((slot) => !slot.virtual).map((slot) => slot.id).filter((id) => view.words.move(id).exists),
    item: gone ? '' : pokemon.item || null,
    ability: pokemon.baseAbility || '',
    teraType: pokemon.shownTera || '',
  };
}

class Position {
  /**
   * @param {View} view fed with all that its player was told
   * @param {object} request the newest one, as Showdown writes it
   * @param {Likely} likely
   */
  constructor(view, request, likely) {
    this.view = view;
    this.request = request;
    this.likely = likely;
    this.me = SIDES.indexOf(view.me);
  }

  /**
   * @param {PRNG} prng draws what is hidden, and the battle's dice
   * @param {number} lead which of the own Pokémon stands on the field, by its place in the request
   * @returns {Battle} quiet, at a choice of move, with the own side in the request's order but for the lead
   */
  build(prng, lead = 0) {
    const { view, likely } = this;
    const mine = view.client[view.me];
    const theirs = mine.foe;
    const given = this.request.side.pokemon;
    const order = [lead, ...given.keys()].filter((n, i, all) => all.indexOf(n) === i);
    const active = theirs.active[0] ?? theirs.lastPokemon;
    let seen = [active, ...theirs.team.filter((pokemon) => pokemon !== active)].filter(Boolean);
    // Where a few are picked of those that team preview shows, those who came to the field are among them.
    if (seen.length > likely.picked) seen = seen.sort((a, b) => Boolean(b.maxhp) - Boolean(a.maxhp)).slice(0, likely.picked);
    const size = Math.min(likely.picked, Math.max(theirs.totalPokemon || 6, seen.length));
    const shown = seen.map((pokemon) => shownOf(view, pokemon));
    const others = likely.unseen(size - seen.length, shown.map((each) => each.species), prng).map((species) => ({
      species, level: active.level, gender: '', moves: [], item: null, ability: '', teraType: '' }));
    const teams = [];
    teams[this.me] = order.map((n) => ownSet(given[n], view.request.side.pokemon[n]));
    teams[1 - this.me] = [...shown, ...others].map((each) => likely.draw(each, prng));
    const seed = Array.from({ length: 4 }, () => prng.random(1, 65536)).join(',');
    const battle = new Battle({ formatid: view.format, seed });
    battle.teamGenerator = likely.maker; // a factory's rules ask for it at the start
    SIDES.forEach((side, n) => battle.setPlayer(side, { name: `Player ${n + 1}`, team: teams[n] }));
    battle.teamGenerator = null;
    battle.dex.deepClone = deepClone;
    battle.findEventHandlers = findEventHandlers;
    quiet(battle);
    while (battle.requestState === 'teampreview') battle.makeChoices('default', 'default');
    const sides = [battle.sides[this.me], battle.sides[1 - this.me]];
    order.forEach((n, place) => this.own(sides[0].pokemon[place], given[n], mine.team[n]));
    seen.forEach((pokemon, place) => this.other(sides[1].pokemon[place], pokemon));
    this.field(battle, sides, [mine, theirs]);
    this.onField(sides[0].active[0], sides[1].active[0], lead === 0 ? mine.active[0] : null);
    this.onField(sides[1].active[0], sides[0].active[0], active);
    for (const side of battle.sides) if (view.teraUsed[side.id]) for (const pokemon of side.pokemon) pokemon.canTerastallize = null;
    battle.turn = Math.max(1, view.turn);
    battle.makeRequest('move');
    return battle;
  }

  own(pokemon, given, known) {
    const [health, status] = given.condition.split(' ');
    const [hp, maxhp] = health.split('/').map(Number);
    pokemon.baseStoredStats = { ...pokemon.baseStoredStats, ...given.stats };
    for (const stat of Object.keys(pokemon.storedStats)) pokemon.storedStats[stat] = given.stats[stat];
    if (pokemon.modifiedStats) pokemon.modifiedStats = { ...pokemon.storedStats };
    if (maxhp) pokemon.maxhp = pokemon.baseMaxhp = maxhp;
    if (given.terastallized) pokemon.terastallized = given.terastallized;
    this.health(pokemon, hp, status, known);
  }

  other(pokemon, known) {
    const share = known.maxhp ? known.hp / known.maxhp : 1; // only seen at team preview: no health yet
    if (known.shownTera) pokemon.terastallized = known.shownTera;
    this.health(pokemon, share <= 0 ? 0 : Math.max(1, Math.round(share * pokemon.maxhp)), known.status, known);
  }

  health(pokemon, hp, status, known) {
    const { battle } = pokemon;
    pokemon.hp = hp;
    if (!hp) {
      pokemon.fainted = true;
      pokemon.status = 'fnt';
      pokemon.side.pokemonLeft--;
      return;
    }
    pokemon.status = status || '';
    if (!pokemon.status) return;
    const effect = battle.dex.conditions.get(pokemon.status);
    pokemon.statusState = battle.initEffectState({ id: effect.id, target: pokemon });
    if (battle.gen === 1 && pokemon.status === 'par') pokemon.modifyStat('spe', 0.25); // until a boost sets the stat anew
    if (battle.gen === 1 && pokemon.status === 'brn') pokemon.modifyStat('atk', 0.5);
    // Generations 1 and 2 count Toxic's turns on the field alone.
    if (pokemon.status === 'slp' || (pokemon.status === 'tox' && battle.gen > 2)) {
      battle.singleEvent('Start', effect, pokemon.statusState, pokemon, pokemon, null);
      const { sleepTurns, toxicTurns } = known?.statusState ?? {};
      if (pokemon.statusState.time) pokemon.statusState.time = Math.max(1, pokemon.statusState.time - (sleepTurns || 0));
      if (pokemon.status === 'tox') pokemon.statusState.stage = toxicTurns || 0;
    }
  }

  /** Boosts and effects of a Pokémon that stands on the field. `known`: null for one that has just come in. */
  onField(pokemon, foe, known) {
    const { battle } = pokemon;
    if (!pokemon.hp) return;
    pokemon.activeTurns = known ? 1 : 0;
    pokemon.boosts = Object.fromEntries(BOOSTS.map((stat) => [stat, 0]));
    if (known) {
      pokemon.boostBy(Object.fromEntries(Object.entries(known.boosts).filter(([stat, by]) => BOOSTS.includes(stat) && by)));
      for (const id of Object.keys(known.volatiles)) if (VOLATILES.has(id)) pokemon.addVolatile(id, foe);
    }
    if (pokemon.status === 'tox' && battle.gen <= 2) {
      battle.singleEvent('Start', battle.dex.conditions.get(pokemon.status), pokemon.statusState, pokemon, foe, null);
      pokemon.volatiles.residualdmg.counter = known?.statusState.toxicTurns || 0;
    }
  }

  field(battle, sides, known) {
    const { view } = this;
    // What stands there from the start is the abilities' of those on the field, whose own may have ended long ago.
    if (view.weather === 'noweather') battle.field.clearWeather();
    else battle.field.setWeather(view.weather, sides[0].active[0]);
    battle.field.clearTerrain();
    for (const word of view.fields) {
      if (word.endsWith('terrain')) battle.field.setTerrain(word, sides[0].active[0]);
      else if (battle.dex.conditions.get(word).exists) battle.field.addPseudoWeather(word, sides[0].active[0]);
    }
    sides.forEach((side, n) => {
      for (const [id, { level }] of Object.entries(known[n].sideConditions)) {
        if (!battle.dex.conditions.get(id).exists) continue;
        for (let layer = 0; layer < level; layer++) side.addSideCondition(id, sides[1 - n].active[0]);
      }
    });
  }
}

module.exports = { Position, toID };
