'use strict';
// An input log (seed, teams, every choice of both players) played again: both first-person views, with nothing guessed.

const { Lane, SIDES } = require('./lanes');
const { clean, isSingles } = require('./words');

// What a log may hold beside both players' choices. The simulator knows more: `eval` would run its text as a program, in a
// file that anybody wrote, and a line break would begin a command of its own.
const COMMANDS = /^(p[12]|forcewin|forcelose|forcetie|tiebreak|reseed|chat|chat-inputlogonly|show-openteamsheets)( [^\n]*)?$/;

/** The action id of a choice as a player wrote it, −1 where it is none of the 13 (a default, a custom rule's). */
function actionOf(view, table, text) {
  const [verb, ...rest] = text.trim().split(/\s+/);
  const tera = rest[rest.length - 1] === 'terastallize' || rest[rest.length - 1] === 'terastal';
  const words = tera ? rest.slice(0, -1) : rest;
  let wanted = null;
  if (verb === 'move') {
    const moves = view.request.active?.[0]?.moves ?? [];
    const id = clean(words.join(' ')).replace(/^hiddenpower.*/, 'hiddenpower');
    const index = /^\d+$/.test(words[0] ?? '') ? Number(words[0]) - 1 : moves.findIndex((move) => move.id === id);
    wanted = `move ${index + 1}${tera ? ' terastallize' : ''}`;
  } else if (verb === 'switch') {
    const team = view.request.side.pokemon;
    const name = words.join(' ');
    const index = /^\d+$/.test(name) ? Number(name) - 1
      : team.findIndex((p, i) => i > 0 && (p.name === name || clean(p.speciesForme) === clean(name)));
    wanted = `switch ${index + 1}`;
  }
  return wanted === null ? -1 : table.indexOf(wanted);
}

/**
 * @param {string} id name for the event
 * @param {{format: string, word: string, seed: string, teams?: string[], seeds?: string[], choices: string[]}} record
 * @returns {string} JSON of a "replayed" event: winner, turns, sha256 of the lines, for each side its states, actions
 *   and legal bits; `unknown` counts choices that are no action of ours
 */
function replay(id, record, warn) {
  // Showdown would play a format that it does not know by rules of its own.
  if (!isSingles(record.word)) {
    return JSON.stringify({ event: 'replayed', lane: id, problem: 'no singles format of this Showdown', message: record.format });
  }
  const foreign = record.choices.find((text) => !COMMANDS.test(text));
  if (foreign !== undefined) {
    return JSON.stringify({ event: 'replayed', lane: id, problem: 'a command that is none of a battle', message: String(foreign) });
  }
  const views = [{ states: [], actions: [], legal: [] }, { states: [], actions: [], legal: [] }];
  let unknown = 0;
  let ended = null;
  let refused = 0;
  const emit = (event) => {
    if (typeof event !== 'string') {
      if (event.event === 'refused') refused++;
      return;
    }
    // Events come as JSON text in a fixed order of keys; the state, the last of them, is kept as it stands.
    if (event.startsWith('{"event":"end"')) { ended = event; return; }
    const at = event.indexOf(',"state":');
    const head = JSON.parse(`${event.slice(0, at)}}`);
    const view = views[head.side];
    if (head.retry && view.states.length) { view.states.pop(); view.actions.pop(); view.legal.pop(); }
    view.states.push(event.slice(at + 9, -1));
    view.actions.push(-1);
    view.legal.push(head.legal);
  };
  const lane = new Lane(id, { ...record, names: ['Player 1', 'Player 2'], leads: null, strict: true, want: { hash: true } }, emit, warn);
  lane.settle();
  for (const text of record.choices) {
    if (lane.done) break;
    const side = SIDES.indexOf(text.slice(0, 2));
    if (side < 0) {
      lane.write(`>${text}`);
      continue;
    }
    const choice = text.slice(3);
    const view = views[side];
    const current = lane.views[side];
    if (view.states.length && current.asked) {
      const at = view.actions.length - 1;
      const action = actionOf(current, lane.choices[side] ?? [], choice);
      if (action < 0 && choice !== 'undo') unknown++;
      view.actions[at] = action;
    }
    lane.write(`>${text}`);
  }
  lane.destroy();
  if (!ended) return JSON.stringify({ event: 'replayed', lane: id, problem: 'the log ends before the battle does' });
  const end = JSON.parse(ended.slice(0, ended.indexOf(',"states":')) + '}');
  const finals = ended.slice(ended.indexOf(',"states":') + 10, -1);
  const sides = views.map((view) => `{"states":[${view.states.join(',')}],"actions":${JSON.stringify(view.actions)},` +
    `"legal":${JSON.stringify(view.legal)}}`);
  return `{"event":"replayed","lane":${JSON.stringify(id)},"winner":${end.winner},"turns":${end.turns},` +
    `"sha256":"${end.sha256}","unknown":${unknown},"refused":${refused},"views":[${sides.join(',')}],"finals":${finals}}`;
}

module.exports = { replay };
