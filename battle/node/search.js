'use strict';
// A player that looks ahead on the simulator: one or two turns of every pair of choices, in several battles that agree
// with what it has seen (position.js), judged by health, status, boosts and what the active Pokémon threaten.

const { Likely, PRNG } = require('./likely');
const { Line } = require('./line');
const { Position } = require('./position');
const { twin } = require('./twin');
const { View } = require('./view');

const SHARPNESS = 6; // of the opponent's choice among its answers: e^(sharpness · its gain)
const ANSWERS = 2; // switches of the opponent that are tried, those with the best matchups
const WON = 10;
const STATUS = { par: 0.12, brn: 0.12, psn: 0.08, tox: 0.16, slp: 0.22, frz: 0.35 };
const BOOST = { atk: 0.06, def: 0.04, spa: 0.06, spd: 0.04, spe: 0.05, accuracy: 0.03, evasion: 0.05 };
const VOLATILE = { substitute: 0.12, leechseed: -0.12, confusion: -0.08, curse: -0.25, taunt: -0.03, saltcure: -0.12, aquaring: 0.05,
  ingrain: 0.05, focusenergy: 0.02, mustrecharge: -0.15, yawn: -0.12, reflect: 0.08, lightscreen: 0.08 };
const CONDITION = { stealthrock: -0.09, spikes: -0.06, toxicspikes: -0.05, stickyweb: -0.06, reflect: 0.1, lightscreen: 0.1,
  auroraveil: 0.15, tailwind: 0.06 };

/** Expected share of the target's full health that an attacker's best move takes, accuracy counted in. */
function threat(attacker, target) {
  const { battle } = attacker;
  let best = 0;
  for (const slot of attacker.moveSlots) {
    const move = battle.dex.moves.get(slot.id);
    if (slot.pp <= 0 || !move.basePower && !move.damage) continue;
    if (!target.runImmunity(move, false)) continue;
    const accuracy = move.accuracy === true ? 1 : move.accuracy / 100;
    if (move.damage) {
      best = Math.max(best, accuracy * (move.damage === 'level' ? attacker.level : move.damage) / target.maxhp);
      continue;
    }
    const physical = battle.getCategory(move) === 'Physical';
    const stat = (pokemon, name) => {
      const stage = battle.gen === 1 ? 0 : pokemon.boosts[name]; // there the stats hold their boosts
      return (pokemon.modifiedStats ?? pokemon.storedStats)[name] * (stage >= 0 ? (2 + stage) / 2 : 2 / (2 - stage));
    };
    const attack = stat(attacker, physical ? 'atk' : 'spa') * (physical && attacker.status === 'brn' && battle.gen > 1 ? 0.5 : 1);
    const base = ((2 * attacker.level) / 5 + 2) * move.basePower * attack / stat(target, physical ? 'def' : 'spd') / 50 + 2;
    const hits = Array.isArray(move.multihit) ? 3 : move.multihit || 1;
    const own = attacker.hasType(move.type) ? 1.5 : 1;
    const factor = 2 ** battle.dex.getEffectiveness(move.type, target.getTypes());
    const whole = move.flags.recharge || move.selfdestruct ? 0.6 : move.flags.charge ? 0.5 : 1;
    best = Math.max(best, 0.93 * base * hits * own * factor * accuracy * whole / target.maxhp);
  }
  return best;
}

/** What a side holds, in Pokémon: about 1 for each at full health. */
function holds(side) {
  let sum = 0;
  for (const pokemon of side.pokemon) {
    if (!pokemon.hp) continue;
    sum += (0.4 + 0.6 * pokemon.hp / pokemon.maxhp) * (1 - (STATUS[pokemon.status] || 0));
  }
  const active = side.active[0];
  if (active?.hp) {
    let raised = 0;
    for (const stat in BOOST) raised += BOOST[stat] * Math.max(-3, Math.min(3, active.boosts[stat]));
    for (const id in active.volatiles) raised += VOLATILE[id] || 0;
    sum += raised * (0.3 + 0.7 * active.hp / active.maxhp);
  }
  for (const id in side.sideConditions) {
    const worth = CONDITION[id] || 0;
    sum += worth * (side.sideConditions[id].layers || 1) * (worth < 0 ? Math.max(0, side.pokemonLeft - 1) / 3 : 1);
  }
  return sum;
}

/** Worth of a battle at a choice of move, for a side: what it holds more than the other, and who threatens whom. */
function worth(battle, me) {
  const mine = battle.sides[me];
  const theirs = battle.sides[1 - me];
  if (battle.ended) return battle.winner === mine.name ? WON : battle.winner ? -WON : 0;
  let sum = holds(mine) - holds(theirs);
  const [own, foe] = [mine.active[0], theirs.active[0]];
  if (own?.hp && foe?.hp) sum += 0.3 * (Math.min(threat(own, foe), foe.hp / foe.maxhp) - Math.min(threat(foe, own), own.hp / own.maxhp));
  return sum;
}

const matchup = (pokemon, foe) => (foe?.hp ? threat(pokemon, foe) - threat(foe, pokemon) : 0);

/** Places (from 1) of those of a side that can come in, the best matchup against the opponent's active one first. */
function benched(side) {
  const foe = side.foe.active[0];
  return side.pokemon.map((pokemon, n) => ({ pokemon, place: n + 1 }))
    .filter(({ pokemon }) => pokemon.hp && !pokemon.isActive)
    .map((each) => ({ ...each, gain: matchup(each.pokemon, foe) }))
    .sort((a, b) => b.gain - a.gain || a.place - b.place)
    .map(({ place }) => place);
}

/** The moves of a side's request, as choices. */
function moves(side) {
  const asked = side.activeRequest?.active?.[0]?.moves ?? [];
  return asked.filter((move) => !move.disabled && move.pp !== 0).map((move) => `move ${move.id}`);
}

/** A side's choices: every move, and its best switches. */
function choices(side, switches) {
  const found = moves(side);
  if (!side.activeRequest?.active?.[0]?.trapped) found.push(...benched(side).slice(0, switches).map((place) => `switch ${place}`));
  return found.length ? found : ['default'];
}

/** Plays on until both sides choose a move again, or the battle is over: who must switch takes its best matchup. */
function settle(battle) {
  for (let rounds = 0; battle.requestState === 'switch' && !battle.ended && rounds < 10; rounds++) {
    for (const side of battle.sides) {
      if (side.isChoiceDone()) continue;
      const [place] = benched(side);
      if (!place || !side.choose(`switch ${place}`)) side.autoChoose();
    }
    battle.commitChoices();
  }
}

/** The battle after a turn of both choices; what the position refuses is left to its default. */
function after(battle, me, own, theirs) {
  const next = twin(battle);
  const take = (side, choice) => { if (!side.choose(choice)) { side.clearChoice(); side.autoChoose(); } };
  take(next.sides[me], own);
  take(next.sides[1 - me], theirs);
  next.commitChoices();
  settle(next);
  return next;
}

/** Worth of each own choice against an opponent who answers well, if not perfectly, to what we may do. */
function weigh(battle, me, own, plies, switches) {
  const theirs = choices(battle.sides[1 - me], switches);
  const table = own.map((choice) => theirs.map((answer) => {
    const next = after(battle, me, choice, answer);
    return plies > 1 && !next.ended ? Math.max(...weigh(next, me, moves(next.sides[me]).concat('default').slice(0, 4), plies - 1, 0))
      : worth(next, me);
  }));
  const soft = (gains) => {
    const top = Math.max(...gains);
    const weights = gains.map((gain) => Math.exp(SHARPNESS * (gain - top)));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  };
  const against = (answers) => table.map((row) => row.reduce((sum, value, n) => sum + value * answers[n], 0));
  const answering = (plan) => soft(theirs.map((_, n) => -table.reduce((sum, row, i) => sum + row[n] * plan[i], 0)));
  let answers = answering(own.map(() => 1 / own.length));
  answers = answering(soft(against(answers)));
  return against(answers);
}

const likelies = new Map();

/** One side of a battle, as a player who searches sees it. */
class Mind {
  /** @param {{format: string, teams: string[], seed: number[], plies: number, determinizations: number}} spec */
  constructor(lane, spec, warn) {
    this.spec = spec;
    this.warn = (message) => warn(`search ${lane}: ${message}`);
    this.view = new View(this.warn);
    this.view.format = spec.format;
    const key = [spec.format, ...spec.teams].join('\n');
    if (!likelies.has(key)) likelies.set(key, new Likely(spec.format, spec.teams));
    this.likely = likelies.get(key);
    this.asked = 0;
  }

  /**
   * @param {string[]} lines protocol lines since the last call
   * @param {object} request the request that follows from them
   * @returns {{action: number, worth: number[]}} worth: of every legal action, −∞ as null elsewhere
   */
  choose(lines, request) {
    for (const text of lines) this.view.feed(new Line(text));
    this.view.ask(request);
    const table = this.view.choices();
    const legal = [...table.keys()].filter((action) => table[action]);
    const worths = new Array(table.length).fill(null);
    if (legal.length > 1) {
      const sums = this.view.forced ? this.replace(request, legal, table) : this.turn(request, legal, table);
      legal.forEach((action, n) => { worths[action] = sums[n]; });
    }
    this.asked++;
    const action = legal.reduce((best, each) => (worths[each] > worths[best] ? each : best), legal[0] ?? 0);
    return { action, worth: worths };
  }

  /**
   * Sum over the determinizations of what `judge` says of each, drawn by the seed and the count of decisions. One that the
   * simulator cannot play on is said and left out; where all are, it throws.
   */
  over(request, judge) {
    const position = new Position(this.view, request, this.likely);
    let sums = null;
    let failed = null;
    for (let n = 0; n < this.spec.determinizations; n++) {
      const words = [...this.spec.seed, this.asked, n];
      const prng = new PRNG([words[0] % 65536, words[1] % 65536, (words[2] * 31 + 7) % 65536, (words[3] * 977 + 13) % 65536].join(','));
      for (let warm = 0; warm < 4; warm++) prng.random();
      try {
        const found = judge(position, prng);
        sums = sums ? sums.map((sum, i) => sum + found[i]) : found;
      } catch (error) {
        failed = error;
        this.warn(`a drawn battle could not be played: ${String(error?.stack ?? error).split('\n').slice(0, 3).join(' | ')}`);
      }
    }
    if (!sums) throw failed;
    return sums;
  }

  turn(request, legal, table) {
    const named = (choice) => {
      const [verb, place, ...rest] = choice.split(' ');
      return verb === 'move' ? ['move', request.active[0].moves[place - 1].id, ...rest].join(' ') : choice;
    };
    const own = legal.map((action) => named(table[action]));
    return this.over(request, (position, prng) => weigh(position.build(prng), position.me, own, this.spec.plies, ANSWERS));
  }

  /** Who comes in: each is put on the field, and judged by its best move against the opponent's moves. */
  replace(request, legal, table) {
    const places = legal.map((action) => Number(table[action].split(' ')[1]) - 1);
    if (request.side.pokemon.some((pokemon) => pokemon.reviving)) return legal.map((_, n) => -n);
    return this.over(request, (position, prng) => {
      const dice = prng.getSeed();
      return places.map((place) => {
        const battle = position.build(new PRNG(dice), place);
        return Math.max(...weigh(battle, position.me, moves(battle.sides[position.me]).concat('default').slice(0, 4), 1, 0));
      });
    });
  }

  destroy() {}
}

module.exports = { Mind, after, threat, worth };
