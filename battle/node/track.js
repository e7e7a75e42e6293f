'use strict';
// What one player has been told of one battle, line by line and request by request.
//
// The protocol is read by @pkmn/protocol and the battle kept by @pkmn/client; this file remembers beside the client the
// few things that the battle file speaks of and the client forgets: the order in which volatiles and side conditions
// came, the last move of each Pokémon, what was spent, tera types.

const { hasPressure, newClient } = require('./client');
const { readRequest } = require('./request');
const { Words, clean, letters } = require('./words');

const EFFECT_LINES = new Set(['-start', '-activate', '-singleturn', '-singlemove', '-end']);
const TERRAIN = /terrain$/;

/** A battle as one player is told of it. */
class Track {
  /** @param {(message: string) => void} warn called with what could not be understood; the battle goes on */
  constructor(warn) {
    this.warn = warn;
    this.client = newClient();
    this.words = Words.of(9);
    this.format = '';
    this.me = null; // 'p1' | 'p2', known from the first request
    this.request = null;
    this.effects = { p1: [], p2: [] };
    this.focus = { p1: 0, p2: 0 }; // turns of their last Focus Punch
    this.conditions = { p1: [], p2: [] };
    this.fields = [];
    this.weather = 'noweather';
    this.preview = { p1: [], p2: [] };
    this.teraUsed = { p1: false, p2: false };
    this.teraTypes = new Map(); // own Pokémon's ident → tera type
    this.ownMoves = new Map(); // own Pokémon's ident → move ids of the last request
    this.ownPp = new Map(); // own Pokémon's ident → {move id: [pp, max pp]}
    // Of who stands on the field: the last move from before it came, and the last one since.
    this.stays = { p1: { before: '', since: '' }, p2: { before: '', since: '' } };
    this.winner = null; // 'p1' | 'p2' | 'tie' once the battle is over
    this.turn = 0;
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
      } else if (kind === '-transform') {
        this.copied(line);
        line.tell(this.client);
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
    const boosts = active?.boosts;
    line.tell(this.client);
    if (active) active.boosts = boosts;
  }

  /** The client copies the moves that were shown. Of an own Pokémon all are known, though it may just have come in. */
  copied(line) {
    const pokemon = this.client.getPokemon(line.parts[3]);
    const known = this.ownMoves.get(pokemon?.originalIdent);
    if (known) pokemon.moveSlots = known.map((id) => ({ id, name: id.replace(/(\d+|null)$/, ''), ppUsed: 0, virtual: false }));
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
      // The client has no ability then, as where none is known yet: Pressure would go on.
      case '-endability': this.client.getPokemon(line.parts[2])?.addVolatile('gastroacid'); break;
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
    this.stays[side] = { before: active?.lastUsed ?? '', since: '' };
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
    if (word === 'focuspunch') this.focus[side] = this.turn;
  }

  endOfTurn() {
    for (const [side, list] of Object.entries(this.effects)) {
      const at = list.indexOf('focuspunch');
      if (at >= 0 && this.turn > this.focus[side] + 1) list.splice(at, 1);
    }
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
    this.fields = this.fields.filter((w) => w !== word && !(TERRAIN.test(w) && TERRAIN.test(word)));
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
    const locked = /lockedmove/i.test(from);
    if (from && !locked && !/pursuit/i.test(from)) return;
    const id = clean(parts[3]);
    active.lastUsed = this.stays[side].since = id;
    if (side !== this.me || locked) return;
    const pp = this.ownPp.get(active.originalIdent);
    const key = pp && Object.keys(pp).find((k) => this.words.move(k).name === id);
    if (!key) return;
    const foe = this.client[side].foe.active[0];
    const pressed = foe && hasPressure(foe) && this.words.move(key).pressed;
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
    const copied = shown?.volatiles.transform?.pokemon;
    const theirs = copied?.moveSlots;
    const ability = shown?.ability;
    // The log writes the tera type into a Pokémon's details, the request does not: the client would take it for another.
    for (const pokemon of request.side.pokemon) {
      const suffix = `, tera:${pokemon.terastallized}`;
      if (!pokemon.terastallized || !side.team.some((p) => p.searchid === pokemon.searchid + suffix)) continue;
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
    // Up to generation 6 a request tells the base ability alone: one that was traced, swapped or given stays.
    if (shown === active && ability && !given.side.pokemon[0].ability) active.ability = ability;
    // An Illusion: the log spoke of the Pokémon that it looked like, the request names the true one.
    if (shown && shown !== active) {
      active.boosts = shown.boosts;
      active.volatiles = shown.volatiles;
      shown.boosts = {};
      shown.volatiles = {};
      const { before, since } = this.stays[this.me];
      shown.lastUsed = before;
      if (since) active.lastUsed = since;
    }
    this.learn(request, active);
  }

  learn(request, active) {
    for (const pokemon of request.side.pokemon) {
      this.ownMoves.set(pokemon.ident, pokemon.ids);
      this.teraTypes.set(pokemon.ident, pokemon.teraType);
    }
    const moves = request.active?.[0]?.moves;
    if (!moves) return;
    const ids = this.ownMoves.get(active.originalIdent) ?? [];
    const pp = this.ownPp.get(active.originalIdent) ?? {};
    for (const id of ids) {
      const move = moves.find((each) => this.words.move(each.id).name === this.words.move(id).name);
      if (move?.pp !== undefined) pp[id] = [move.pp, move.maxpp]; // locked into a move, it is named without
    }
    this.ownPp.set(active.originalIdent, pp);
  }
}

module.exports = { Track };
