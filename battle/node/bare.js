'use strict';
// The simulator alone, for comparison: random against random inside Node, without states, without a pipe.
//   node battle/node/bare.js logged|stock WARM [hash] < logs.json     → {"battles", "turns", "cpu_seconds"[, "hashes"]}
// Reads a JSON list of input logs, as the simulator writes them, and plays each battle from the log's seed and teams on
// the simulator's own player streams; the first WARM of them before the clock starts.
// logged: players who read each request, list what it allows and draw one of it evenly, as our random baseline does, and
// then say what the log says: the very same battles. stock: Showdown's RandomPlayerAI, whose battles are its own.
// hash: fingerprints of the battles too.

const { readFileSync } = require('fs');
const { BattleStream, getPlayerStreams } = require('pokemon-showdown');
const { RandomPlayerAI } = require('pokemon-showdown/dist/sim/tools/random-player-ai');
const { LineHash } = require('./linehash');

class LoggedAI extends RandomPlayerAI {
  constructor(stream, options, choices) {
    super(stream, options);
    this.script = choices;
    this.said = 0;
  }

  receiveRequest(request) {
    if (request.wait) return;
    this.draw(request);
    if (this.said === this.script.length) throw new Error('the battle asks for more than its log says');
    const said = this.script[this.said++];
    this.choose(said === 'move fight' ? 'move 1' : said); // which the simulator writes and does not read
  }

  /** Uniform over the legal moves, terastallizations and switches. */
  draw(request) {
    if (request.teamPreview) return 'default';
    const team = request.side.pokemon;
    const bench = team.flatMap((p, i) => (!p.active && !p.condition.endsWith(' fnt') === !team[0].reviving ? [`switch ${i + 1}`] : []));
    if (request.forceSwitch) return bench.length ? this.prng.sample(bench) : 'default';
    const { moves, trapped, canTerastallize } = request.active[0];
    const usable = moves.flatMap((move, i) => (move.disabled || move.pp === 0 ? [] : [`move ${i + 1}`]));
    const all = [...usable, ...(canTerastallize ? usable.map((move) => `${move} terastallize`) : []), ...(trapped ? [] : bench)];
    return all.length ? this.prng.sample(all) : 'default';
  }
}

/** The lines that begin a battle, and what each player chose in it. */
function read(log) {
  const choices = (side) => log.filter((line) => line.startsWith(`>${side} `)).map((line) => line.slice(4));
  return { opening: log.filter((line) => /^>(start|player) /.test(line)), p1: choices('p1'), p2: choices('p2') };
}

async function battle(log, number, Player, hash) {
  const { opening, ...choices } = read(log);
  const streams = getPlayerStreams(new BattleStream());
  const players = ['p1', 'p2'].map((side, i) =>
    new Player(streams[side], { seed: [number, 7, i, 1].join(',') }, choices[side]));
  for (const player of players) void player.start();
  void streams.omniscient.write(opening.join('\n'));
  let turns = 0;
  for await (const chunk of streams.omniscient) {
    turns += chunk.split('\n|turn|').length - 1;
    if (hash) for (const line of chunk.split('\n')) hash.add(line);
  }
  return turns;
}

async function main([policy, warm, hashed]) {
  const logs = JSON.parse(readFileSync(0, 'utf8'));
  const Player = policy === 'stock' ? RandomPlayerAI : LoggedAI;
  const hashes = [];
  let before = process.cpuUsage();
  let turns = 0;
  for (let number = 0; number < logs.length; number++) {
    if (number === Number(warm)) {
      before = process.cpuUsage();
      turns = 0;
    }
    const hash = hashed ? new LineHash() : null;
    turns += await battle(logs[number], number, Player, hash);
    if (hash) hashes.push(hash.hex());
  }
  const used = process.cpuUsage(before);
  const found = { battles: logs.length - Number(warm), turns, cpu_seconds: (used.user + used.system) / 1e6 };
  console.log(JSON.stringify(hashed ? { ...found, hashes } : found));
}

void main(process.argv.slice(2));
