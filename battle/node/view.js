'use strict';
// One player's first-person view of one battle.
//
// The protocol is read by @pkmn/protocol and the battle kept by @pkmn/client; this file owns the translation to the
// battle file's words, and remembers beside the client the few things that the file speaks of and the client forgets:
// the order in which volatiles and side conditions came, the last move of each Pokémon, what was spent, tera types.
// The same view serves battles in this process and a live server: it eats protocol lines and requests, nothing else.

const { Battle, Pokemon, Side } = require('@pkmn/client');
const { Generations } = require('@pkmn/data');
const { Dex } = require('pokemon-showdown');
const { readRequest } = require('./request');
const { BOOSTS, NO_BOOSTS, NO_MOVE, Words, clean, float, letters, typeWord, typesWord } = require('./words');

const generations = new Generations(Dex, () => true);
const SPEND_NO_EXTRA_PP = new Set(['self', 'allies', 'allySide', 'adjacentAlly', 'adjacentAllyOrSelf', 'allyTeam']);
const EFFECT_LINES = new Set(['-start', '-activate', '-singleturn', '-singlemove', '-end']);
// Pseudo-moves of a request: the only choice there is, action 0, while the Pokémon keeps its own moves.
const LONE_CHOICES = new Set(['struggle', 'recharge', 'fight']);
const COPIED_PP = 5; // of each move that Transform copies
const TERRAIN = /terrain$/;

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

/** PP that a move slot of the client has spent; Grudge and the like take all. */
function used(slot) {
  const spent = Array.isArray(slot.ppUsed) ? slot.ppUsed[0] : slot.ppUsed;
  return Number.isFinite(spent) ? spent : Infinity;
}

function newClient() {
  const fighter = (side, details, set) => new Fighter(side, details, set);
  return new Client(generations, null, undefined, undefined, (battle, n, sets) => new Side(battle, n, sets, fighter));
}

class View {
  /** @param {(message: string) => void} warn called with what could not be understood; the battle goes on */
  constructor(warn) {
    this.warn = warn;
    this.client = newClient();
    this.words = Words.of(9);
    this.format = '';
    this.me = null; // 'p1' | 'p2', known from the first request
    this.request = null;
    this.effects = { p1: [], p2: [] };
    this.conditions = { p1: [], p2: [] };
    this.fields = [];
    this.weather = 'noweather';
    this.preview = { p1: [], p2: [] };
    this.teraUsed = { p1: false, p2: false };
    this.teraTypes = new Map(); // own Pokémon's ident → tera type
    this.ownMoves = new Map(); // own Pokémon's ident → move ids of the last request
    this.ownPp = new Map(); // own Pokémon's ident → {move id: [pp, max pp]}
    this.winner = null; // 'p1' | 'p2' | 'tie' once the battle is over
    this.turn = 0;
    this.told = 0; // entries of the bench that the reader has
  }

  /** @param {Line} line as this player's channel shows it */
  feed(line) {
    const { kind } = line;
    if (!kind) return;
    try {
      if (kind === 'switch' || kind === 'drag') {
        this.before(line);
        line.tell(this.client);
      } else if (kind === 'faint') {
        this.faint(line);
      } else {
        line.tell(this.client);
      }
      this.after(kind, line);
    } catch (error) {
      this.warn(`${error.message} at ${line.text}`);
    }
  }

  /** A switch empties the slot's list of effects, but for what Baton Pass and Shed Tail hand on. */
  before(line) {
    const side = line.parts[2].slice(0, 2);
    const passed = /\[from\] ?(?:move: ?)?(Baton Pass|Shed Tail)/i.test(line.text);
    this.passing = passed ? this.effects[side].slice() : [];
    this.effects[side] = [];
  }

  /** The client forgets a fainted Pokémon's boosts at once; the state of that very turn still shows them. */
  faint(line) {
    const active = this.client.getPokemon(line.parts[2]);
    const boosts = active && { ...active.boosts };
    line.tell(this.client);
    if (active) active.boosts = boosts;
  }

  /** What the client does not keep. */
  after(kind, line) {
    if (EFFECT_LINES.has(kind)) return void this.effect(kind, line.parts);
    switch (kind) {
      case 'move': return void this.moved(line.parts);
      case 'switch': case 'drag': return void this.switched(line.parts);
      case 'turn': this.turn = Number(line.text.slice(6)); return void this.endOfTurn();
      case '-boost': case '-unboost': return void this.clampBoost(line.parts);
      case '-weather': this.weather = letters(line.parts[2]) || 'noweather'; break;
      case '-sidestart': case '-sideend': return void this.sideCondition(kind, line.parts);
      case '-swapsideconditions': this.conditions = { p1: this.conditions.p2, p2: this.conditions.p1 }; break;
      case '-fieldstart': case '-fieldend': return void this.field(kind, line.parts);
      case '-terastallize': return void this.terastallized(line.parts);
      case 'poke': this.preview[line.text.slice(6, 8)].push(clean(line.parts[3].split(',')[0])); break;
      case 'gen': this.words = Words.of(Number(line.text.slice(5))); break;
      case 'win': this.winner = this.client.p1.name === line.text.slice(5) ? 'p1' : 'p2'; break;
      case 'tie': this.winner = 'tie'; break;
    }
    if (this.weather === 'none') this.weather = 'noweather';
  }

  /** Generation 1 announces rises that the limit of 6 swallows in part. */
  clampBoost(parts) {
    const boosts = this.client.getPokemon(parts[2])?.boosts;
    if (boosts && Math.abs(boosts[parts[3]]) > 6) boosts[parts[3]] = Math.sign(boosts[parts[3]]) * 6;
  }

  switched(parts) {
    const side = parts[2].slice(0, 2);
    const active = this.client[side].active[0];
    if (active && this.passing.length) {
      this.effects[side] = this.passing.filter((word) => active.volatiles[word] || active.volatiles[`${word}song`]);
    }
  }

  effect(kind, parts) {
    const side = parts[2].slice(0, 2);
    if (side !== 'p1' && side !== 'p2') return;
    const text = parts[3] ?? '';
    // An ability that goes off is no volatile; one that starts (Flash Fire, Slow Start) is.
    if (kind === '-activate' && text.startsWith('ability:')) return;
    const word = letters(text.replace(/^(move|item|ability):/, ''));
    // Roost's loss of Flying shows in the types while it lasts; the reference has no effect of that name.
    if (!word || word === 'roost') return;
    const list = this.effects[side];
    const at = list.findIndex((e) => e === word);
    if (kind === '-end') {
      if (at >= 0) list.splice(at, 1);
      return;
    }
    if (at >= 0) list.splice(at, 1);
    list.push(word);
    if (word === 'focuspunch') this.focus = { side, turn: this.turn };
  }

  endOfTurn() {
    if (!this.focus || this.turn <= this.focus.turn + 1) return;
    const list = this.effects[this.focus.side];
    const at = list.indexOf('focuspunch');
    if (at >= 0) list.splice(at, 1);
    this.focus = null;
  }

  sideCondition(kind, parts) {
    const list = this.conditions[parts[2].slice(0, 2)];
    const word = letters((parts[3] ?? '').replace(/^move:/, ''));
    const at = list.indexOf(word);
    if (kind === '-sidestart' && at < 0) list.push(word);
    if (kind === '-sideend' && at >= 0) list.splice(at, 1);
  }

  field(kind, parts) {
    const word = letters((parts[2] ?? '').replace(/^move:/, ''));
    this.fields = this.fields.filter((w) => w !== word && !(kind === '-fieldstart' && TERRAIN.test(w) && TERRAIN.test(word)));
    if (kind === '-fieldstart') this.fields.push(word);
  }

  terastallized(parts) {
    const side = parts[2].slice(0, 2);
    this.teraUsed[side] = true;
    const active = this.client[side].active[0];
    if (active) active.shownTera = parts[3];
  }

  /** Remembers the last move used by choice (not one that another move called), and what it cost. */
  moved(parts) {
    const side = parts[2].slice(0, 2);
    const active = this.client[side].active[0];
    if (!active) return;
    const from = parts.find((part) => part.startsWith('[from]')) ?? '';
    const locked = /lockedmove|locked move/i.test(from);
    if (from && !locked && !/pursuit/i.test(from)) return;
    const id = clean(parts[3]);
    active.lastUsed = id;
    if (side !== this.me || locked) return;
    const pp = this.ownPp.get(active.originalIdent);
    const key = pp && Object.keys(pp).find((k) => this.words.move(k).name === id);
    if (!key) return;
    const foe = this.client[side].foe.active[0];
    const pressed = foe && hasPressure(foe) && id !== 'stickyweb' && !SPEND_NO_EXTRA_PP.has(this.words.move(key).target);
    pp[key][0] = Math.max(0, pp[key][0] - (pressed ? 2 : 1));
  }

  /**
   * A request. Own Pokémon are known from it exactly; it comes after the lines it follows from.
   * @param {object} given as Showdown writes it; it stays as it is
   */
  ask(given) {
    const request = readRequest(given);
    if (!request.side) return;
    this.me = request.side.id;
    this.request = request;
    const side = this.client[this.me];
    const shown = side.active[0];
    const kept = shown?.moveSlots;
    const copied = shown?.volatiles.transform?.pokemon;
    const theirs = copied?.moveSlots;
    // The log writes the tera type into a Pokémon's details, the request does not: the client would take it for another.
    for (const pokemon of request.side.pokemon) {
      const suffix = `, tera:${pokemon.terastallized}`;
      if (!pokemon.terastallized || !side.team.some((p) => p.searchid === pokemon.searchid + suffix)) continue;
      pokemon.details += suffix;
      pokemon.searchid += suffix;
    }
    this.client.update(request);
    // The client adds a Pokémon that it hears of for the first time without its health: the second pass has it.
    if (side.team.some((pokemon) => pokemon.maxhp === 0)) this.client.update(request);
    if (copied) {
      // The client writes the copy's moves and PP over those of the Pokémon copied: its moves are known, its PP are its own.
      copied.moveSlots = [...theirs, ...copied.moveSlots.filter((m) => !theirs.some((t) => t.id === m.id)).map((m) => ({
        id: m.id, name: m.name, ppUsed: 0, virtual: false }))];
    }
    if (side.team.length !== request.side.pokemon.length) this.warn(`own team of ${side.team.length} in the client`);
    const active = side.team[0];
    if (shown === active && kept?.length > active.moveSlots.length) active.moveSlots = kept;
    // An Illusion: the log spoke of the Pokémon that it looked like, the request names the true one.
    if (shown && active && shown !== active && !active.fainted && request.side.pokemon[0].active) {
      active.boosts = shown.boosts;
      active.volatiles = shown.volatiles;
      shown.boosts = {};
      shown.volatiles = {};
      if (shown.lastUsed) active.lastUsed = shown.lastUsed;
    }
    this.learn(request, active);
  }

  learn(request, active) {
    for (const pokemon of request.side.pokemon) {
      this.ownMoves.set(pokemon.ident, pokemon.ids);
      if (pokemon.teraType) this.teraTypes.set(pokemon.ident, pokemon.teraType);
    }
    const moves = request.active?.[0]?.moves;
    if (!moves || !active) return;
    const ids = this.ownMoves.get(active.originalIdent) ?? [];
    const pp = this.ownPp.get(active.originalIdent) ?? {};
    for (const move of moves) {
      if (move.pp === undefined) continue;
      const id = ids.find((i) => this.words.move(i).name === this.words.move(move.id).name) ?? move.id;
      pp[id] = [move.pp, move.maxpp];
    }
    this.ownPp.set(active.originalIdent, pp);
  }

  /** The active Pokémon of a side, the fainted one too until another comes in. */
  active(side) {
    const known = this.client[side];
    if (side === this.me && this.request && !this.winner && known.team[0]) return known.active[0] ?? known.team[0];
    return known.active[0] ?? known.lastPokemon;
  }

  /** Own move ids in the order of the request, narrowed to the one move where the Pokémon is locked into it. */
  activeMoves(active) {
    const all = this.ownMoves.get(active.originalIdent) ?? active.moves;
    const asked = this.winner ? null : this.request?.active?.[0]?.moves;
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
    const reviving = !this.winner && this.request?.side.pokemon.some((pokemon) => pokemon.reviving);
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
      .map((slot) => (transformed ? this.words.moveJson(slot.id, Math.max(0, COPIED_PP - used(slot)), COPIED_PP)
        : this.words.moveJson(slot.id, this.leftPp(slot)))).join(',');
  }

  leftPp(slot) {
    return Math.max(0, this.words.move(slot.id).maxpp - used(slot));
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
    return mine || pokemon.lastItem || pokemon.volatiles.itemremoved ? 'noitem' : 'unknownitem';
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
    return Boolean(this.request && !this.request.wait && !this.request.teamPreview && !this.winner &&
      (this.request.active || this.request.forceSwitch));
  }

  get forced() {
    return Boolean(this.asked && this.request.forceSwitch?.[0]);
  }

  get canTera() {
    return Boolean(this.asked && this.request.active?.[0]?.canTerastallize) && !this.teraUsed[this.me];
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

  /** States as they might stand after team preview: for each own lead, against each of the opponent's. */
  previewStates() {
    const foe = this.me === 'p1' ? 'p2' : 'p1';
    return this.client[this.me].team.map((mine) => this.client[foe].team.map((theirs) => {
      const text = this.state(mine, theirs);
      return this.words.gen === 9 ? text.replace('"can_tera":false', '"can_tera":true') : text;
    }));
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
