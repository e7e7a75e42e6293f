'use strict';
// The bridge: battles on request, over a pipe.
//
// One line in, one line out. In: {"do": [[verb, …], …]}. Out: {"events": […]} with everything that these commands
// brought about. Verbs:
//   ["start", lane, spec]           begins a battle (lanes.js says what a spec holds)
//   ["act", lane, [a1, a2]]         action ids, null for the player who was not asked
//   ["write", lane, text]           raw lines for the BattleStream (forfeits, ties)
//   ["drop", lane]                  forgets a battle
//   ["replay", lane, record]        plays a whole input log (replay.js)
//   ["validate", lane, format, team] team in export or packed format → {"event": "team", "packed", "problems"}
//   ["assemble", lane, format, count, seed] teams where nobody wrote any → {"event": "assembled", "teams", "problems"}
//   ["feed", lane, lines, request]  a live server's lines and request → a state (live.js)
//   ["search", lane, spec, lines, request] looks ahead for one player, who begins with a spec → {"event": "searched",
//                                   "action", "worth"} (search.js)
//   ["formats", lane, [ids]]        → which of them are ids of singles formats that this version knows, and which of
//                                   these make their teams themselves
// A lane in which JavaScript throws is reported ("void") and dropped; the others go on.

const readline = require('readline');
const { Dex, TeamValidator, Teams } = require('pokemon-showdown');
const { version } = require('pokemon-showdown/package.json');
const { assemble } = require('./assemble');
const { Lane } = require('./lanes');
const { Live } = require('./live');
const { replay } = require('./replay');
const { Mind } = require('./search');
const { isSingles } = require('./words');

const lanes = new Map();
const warnings = [];
const warn = (message) => { if (warnings.length < 100) warnings.push(message); };

function validate(format, text) {
  const team = Teams.import(text);
  const problems = team?.length ? new TeamValidator(format).validateTeam(team) ?? [] : ['there is no Pokémon in it'];
  return { packed: team?.length ? Teams.pack(team) : '', problems };
}

const verbs = {
  start(emit, lane, spec) {
    lanes.get(lane)?.destroy();
    const started = new Lane(lane, spec, emit, warn);
    lanes.set(lane, started);
    started.settle();
  },
  act(emit, lane, actions) {
    const found = lanes.get(lane);
    found.emit = emit;
    found.act(actions);
    if (found.done) verbs.drop(emit, lane);
  },
  write(emit, lane, text) {
    const found = lanes.get(lane);
    found.emit = emit;
    found.write(text);
    if (found.done) verbs.drop(emit, lane);
  },
  drop(emit, lane) {
    lanes.get(lane)?.destroy();
    lanes.delete(lane);
  },
  replay(emit, lane, record) {
    emit(replay(lane, record, warn));
  },
  validate(emit, lane, format, text) {
    emit({ event: 'team', lane, ...validate(format, text) });
  },
  assemble(emit, lane, format, count, seed) {
    emit({ event: 'assembled', lane, ...assemble(format, count, seed) });
  },
  feed(emit, lane, format, lines, request) {
    if (!lanes.has(lane)) lanes.set(lane, new Live(lane, format, warn));
    const live = lanes.get(lane);
    emit(live.feed(lines, request));
    if (live.view.winner) verbs.drop(emit, lane); // our side forgets it at its end
  },
  search(emit, lane, spec, lines, request) {
    if (spec) lanes.set(lane, new Mind(lane, spec, warn));
    emit({ event: 'searched', lane, ...lanes.get(lane).choose(lines, request) });
  },
  formats(emit, lane, ids) {
    const known = ids.filter(isSingles);
    emit({ event: 'formats', lane, known, generated: known.filter((name) => Dex.formats.get(name).team) });
  },
};

function answer(line) {
  const events = [];
  const emit = (event) => events.push(typeof event === 'string' ? event : JSON.stringify(event));
  for (const [verb, lane, ...rest] of JSON.parse(line).do) {
    try {
      verbs[verb](emit, lane, ...rest);
    } catch (error) {
      emit({ event: 'void', lane, message: String(error?.stack ?? error).split('\n').slice(0, 6).join(' | ') });
      lanes.delete(lane);
    }
  }
  for (const message of warnings.splice(0)) emit({ event: 'warning', message });
  return `{"events":[${events.join(',')}]}\n`;
}

function main() {
  // Showdown prints a caught crash of a battle to the console: standard output is the pipe's alone.
  console.log = console.error;
  process.stdout.write(`${JSON.stringify({ ready: true, version, node: process.version })}\n`);
  const input = readline.createInterface({ input: process.stdin, crlfDelay: Infinity });
  input.on('line', (line) => { if (line) process.stdout.write(answer(line)); });
  input.on('close', () => process.exit(0));
}

if (require.main === module) main();
module.exports = { answer };
