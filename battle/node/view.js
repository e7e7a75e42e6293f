'use strict';
// One player's first-person view of one battle: the state as a battle file has it, and the choices there are.
//
// `track.js` knows what the player was told; this file owns the translation to the battle file's words. The same view
// serves battles in this process and a live server: it eats protocol lines and requests, nothing else.

const { Track } = require('./track');
const { BOOSTS, NO_BOOSTS, NO_MOVE, float, letters, typeWord, typesWord } = require('./words');

// Pseudo-moves of a request: the only choice there is, action 0, while the Pokémon keeps its own moves.
const LONE_CHOICES = new Set(['struggle', 'recharge', 'fight']);
const COPIED_PP = 5; // of each move that Transform copies

class View extends Track {
  told = 0; // entries of the bench that the reader has

  /** The active Pokémon of a side, the fainted one too until another comes in. */
  active(side) {
    const known = this.client[side];
    if (side === this.me && this.request && known.team[0]) return known.active[0] ?? known.team[0];
    return known.active[0] ?? known.lastPokemon;
  }

  /** Own move ids in the order of the request, narrowed to the one move where the Pokémon is locked into it. */
  activeMoves(active) {
    const all = this.ownMoves.get(active.originalIdent) ?? active.moves;
    const asked = this.request?.active?.[0]?.moves;
    if (asked?.length === 1 && !LONE_CHOICES.has(asked[0].id)) {
      const id = asked[0].id;
      const own = all.find((m) => m === id || this.words.move(m).name === id);
      return [own ?? id]; // one that Metronome or Copycat called is none of its own
    }
    return all.slice(0, 4);
  }

  /** Own benched Pokémon that can come in, with their places in the request, in alphabetical order. */
  bench(active) {
    const side = this.client[this.me];
    const reviving = this.request?.side.pokemon.some((pokemon) => pokemon.reviving);
    return side.team
      .map((pokemon, index) => ({ pokemon, index, name: this.words.species(pokemon.baseSpeciesForme).name }))
      .filter(({ pokemon }) => pokemon !== active && (pokemon.hp <= 0 || pokemon.fainted) === Boolean(reviving))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.index - b.index))
      .slice(0, 5);
  }

  movesJson(pokemon, ids) {
    const pp = this.ownPp.get(pokemon.originalIdent);
    return ids.map((id) => {
      const known = pp?.[id];
      return known ? this.words.moveJson(id, known[0], known[1]) : this.words.moveJson(id);
    }).join(',');
  }

  opponentMovesJson(pokemon) {
    const transformed = Boolean(pokemon.volatiles.transform);
    return pokemon.moveSlots.filter((slot) => Boolean(slot.virtual) === transformed).slice(0, 4)
      .map((slot) => (transformed ? this.words.moveJson(slot.id, Math.max(0, COPIED_PP - slot.ppUsed), COPIED_PP)
        : this.words.moveJson(slot.id, this.leftPp(slot)))).join(',');
  }

  leftPp(slot) {
    return Math.max(0, this.words.move(slot.id).maxpp - slot.ppUsed);
  }

  /** JSON of one Pokémon. `moves` is ready JSON. */
  pokemonJson(pokemon, moves, { mine, effect }) {
    const { words } = this;
    const forme = pokemon.volatiles.transform ? pokemon.baseSpeciesForme : pokemon.speciesForme;
    const kind = words.species(forme);
    const dead = pokemon.fainted || (pokemon.maxhp > 0 && pokemon.hp <= 0); // only seen at team preview: no health yet
    const hp = dead ? 0 : pokemon.maxhp ? Math.min(1, pokemon.hp / pokemon.maxhp) : 1;
    const types = pokemon.addedType ? [...pokemon.types.slice(0, 1), pokemon.addedType] : pokemon.types;
    const tera = mine ? this.teraTypes.get(pokemon.originalIdent) : pokemon.shownTera;
    let boosts = NO_BOOSTS;
    if (effect !== null) {
      const given = pokemon.boosts;
      // One Special in generation 1: its two boosts are one.
      const special = words.gen === 1 ? given.spa || 0 : null;
      boosts = BOOSTS.map((s) => `"${s}_boost":${special !== null && s === 'spd' ? special : given[s] || 0}`).join(',');
    }
    return `{"name":"${kind.name}","hp_pct":${float(hp)},"types":"${typesWord(types)}","item":"${this.item(pokemon, mine)}",` +
      `"ability":"${this.ability(pokemon, kind)}","lvl":${pokemon.level},"status":"${dead ? 'fnt' : pokemon.status || 'nostatus'}",` +
      `"effect":"${effect ?? 'noeffect'}","moves":[${moves}],${boosts},${kind.stats},` +
      `"tera_type":"${words.gen === 9 && tera ? typeWord(tera) : 'notype'}","base_species":"${kind.base}"}`;
  }

  /** A benched Pokémon stands still but for health, status, item and ability: its JSON is kept until it comes in. */
  benchEntries(mine) {
    if (mine) mine.benched = null;
    return this.bench(mine).map(({ pokemon }) => {
      const { hp, maxhp, status, item, ability, terastallized, fainted } = pokemon;
      const ids = (this.ownMoves.get(pokemon.originalIdent) ?? []).slice(0, 4);
      const key = `${hp}/${maxhp} ${status} ${item} ${ability} ${terastallized} ${fainted} ${ids}`;
      if (pokemon.benched?.key !== key) {
        const json = this.pokemonJson(pokemon, this.movesJson(pokemon, ids), { mine: true, effect: null });
        pokemon.benched = { key, json, number: -1 };
      }
      return pokemon.benched;
    });
  }

  /**
   * The bench by number, for a reader who keeps what it was told once: most of a state's text is a bench that stands still.
   * @returns {{numbers: number[], news: string[]}} numbers: places among all entries ever told; news: JSON of those that
   *   are told now, in order
   */
  benchTold(mine = this.active(this.me)) {
    const news = [];
    const numbers = this.benchEntries(mine).map((entry) => {
      if (entry.number < 0) {
        entry.number = this.told++;
        news.push(entry.json);
      }
      return entry.number;
    });
    return { numbers, news };
  }

  item(pokemon, mine) {
    if (pokemon.itemEffect === 'knocked off') return 'noitem';
    if (pokemon.item) return letters(pokemon.item);
    return mine || pokemon.lastItem ? 'noitem' : 'unknownitem';
  }

  ability(pokemon, kind) {
    if (this.words.gen < 3) return 'noability';
    if (kind.onlyAbility.startsWith('asone')) return kind.onlyAbility; // announced as the two that it joins
    return letters(pokemon.ability || pokemon.baseAbility) || kind.onlyAbility || 'unknownability';
  }

  prevMoveJson(pokemon, mine) {
    const id = pokemon?.lastUsed;
    if (!id) return NO_MOVE;
    if (!this.words.move(id).exists) return NO_MOVE;
    if (mine) {
      const key = (this.ownMoves.get(pokemon.originalIdent) ?? []).find((m) => this.words.move(m).name === id);
      const pp = key && this.ownPp.get(pokemon.originalIdent)?.[key];
      return pp ? this.words.moveJson(key, pp[0], pp[1]) : this.words.moveJson(id);
    }
    const slot = pokemon.moveSlots.find((s) => s.id === id);
    return this.words.moveJson(id, slot ? this.leftPp(slot) : undefined);
  }

  /** True where the newest request wants a choice of this player. */
  get asked() {
    return Boolean(this.request?.active || this.request?.forceSwitch);
  }

  get forced() {
    return Boolean(this.asked && this.request.forceSwitch?.[0]);
  }

  get canTera() {
    return Boolean(this.asked && this.request.active?.[0]?.canTerastallize);
  }

  /** JSON of the universal state at this moment, from this player's side. `bench`: JSON of those that can come in. */
  state(mine = this.active(this.me), theirs = this.active(this.me === 'p1' ? 'p2' : 'p1'),
    bench = this.benchEntries(mine).map((entry) => entry.json).join(',')) {
    const foe = this.me === 'p1' ? 'p2' : 'p1';
    const last = (list, none) => (list.length ? list[list.length - 1] : none);
    const fallen = this.client[foe].team.reduce((n, pokemon) => n + (pokemon.fainted || (pokemon.maxhp > 0 && pokemon.hp <= 0) ? 1 : 0), 0);
    const won = this.winner === this.me;
    const lost = this.winner === foe;
    return `{"format":"${this.format}","player_active_pokemon":` +
      this.pokemonJson(mine, this.movesJson(mine, this.activeMoves(mine)), { mine: true, effect: last(this.effects[this.me], 'noeffect') }) +
      ',"opponent_active_pokemon":' +
      this.pokemonJson(theirs, this.opponentMovesJson(theirs), { mine: false, effect: last(this.effects[foe], 'noeffect') }) +
      `,"available_switches":[${bench}],"player_prev_move":${this.prevMoveJson(mine, true)},` +
      `"opponent_prev_move":${this.prevMoveJson(theirs, false)},"opponents_remaining":${Math.max(0, 6 - fallen)},` +
      `"player_conditions":"${last(this.conditions[this.me], 'noconditions')}",` +
      `"opponent_conditions":"${last(this.conditions[foe], 'noconditions')}","weather":"${this.weather}",` +
      `"battle_field":"${last(this.fields, 'nofield')}","forced_switch":${this.forced},"battle_won":${won},` +
      `"battle_lost":${lost},"can_tera":${this.canTera},"opponent_teampreview":${JSON.stringify(this.preview[foe])}}`;
  }

  /** Whether both have a Pokémon on the field, as from the end of team preview on: before, there is no state to tell of. */
  get stood() {
    return Boolean(this.me) && ['p1', 'p2'].every((side) => this.active(side));
  }

  /** States as they might stand after team preview: for each own lead a row, in it one against each of the opponent's. */
  previewJson() {
    const foe = this.me === 'p1' ? 'p2' : 'p1';
    const rows = this.client[this.me].team.map((mine) => this.client[foe].team.map((theirs) => {
      const text = this.state(mine, theirs);
      return this.words.gen === 9 ? text.replace('"can_tera":false', '"can_tera":true') : text;
    }));
    return `[${rows.map((row) => `[${row}]`)}]`;
  }

  /**
   * The 13 actions as Showdown choices: null where the state has no such action or the request refuses it.
   * Moves stand in the alphabetical order of their cleaned names, switches in that of their species' names.
   */
  choices() {
    const table = new Array(13).fill(null);
    if (!this.asked) return table;
    const active = this.active(this.me);
    const asked = this.request.active?.[0];
    if (asked && !this.forced) this.moveChoices(table, active, asked);
    if (this.forced || !asked?.trapped) {
      this.bench(active).forEach(({ index }, place) => { table[4 + place] = `switch ${index + 1}`; });
    }
    return table;
  }

  moveChoices(table, active, asked) {
    if (asked.moves.length === 1 && LONE_CHOICES.has(asked.moves[0].id)) {
      table[0] = 'move 1';
      return;
    }
    const order = this.activeMoves(active).map((id) => this.words.move(id).name).sort();
    order.forEach((name, place) => {
      const index = asked.moves.findIndex((move) => this.words.move(move.id).name === name);
      if (index < 0 || asked.moves[index].disabled || asked.moves[index].pp === 0) return;
      table[place] = `move ${index + 1}`;
      if (this.canTera) table[9 + place] = `move ${index + 1} terastallize`;
    });
  }
}

module.exports = { View };
