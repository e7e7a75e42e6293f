'use strict';
// The simulator alone, for comparison: random against random inside Node, without states, without a pipe.
//   node battle/node/bare.js FORMAT BATTLES stock|uniform WARM < teams.json     → {"battles", "turns", "cpu_seconds"}
// stock: Showdown's RandomPlayerAI on player streams. uniform: what our random baseline does, uniform over the legal
// moves, terastallizations and switches. Reads a JSON list of packed teams (null: the format makes its own).

const { readFileSync } = require('fs');
const { BattleStream, getPlayerStreams } = require('pokemon-showdown');
const { RandomPlayerAI } = require('pokemon-showdown/dist/sim/tools/random-player-ai');

class UniformAI extends RandomPlayerAI {
  receiveRequest(request) {
    if (request.wait) return;
    if (request.teamPreview) return void this.choose('default');
    const team = request.side.pokemon;
    const bench = team.flatMap((p, i) => (!p.active && !p.condition.endsWith(' fnt') === !team[0].reviving ? [`switch ${i + 1}`] : []));
    if (request.forceSwitch) return void this.choose(bench.length ? this.prng.sample(bench) : 'default');
    const { moves, trapped, canTerastallize } = request.active[0];
    const usable = moves.flatMap((move, i) => (move.disabled || move.pp === 0 ? [] : [`move ${i + 1}`]));
    const all = [...usable, ...(canTerastallize ? usable.map((move) => `${move} terastallize`) : []), ...(trapped ? [] : bench)];
    this.choose(all.length ? this.prng.sample(all) : 'default');
  }

  receiveError(error) {
    if (!error.message.startsWith('[Unavailable choice]')) throw error;
  }
}

async function battle(format, seed, teams, Player) {
  const streams = getPlayerStreams(new BattleStream());
  const players = [streams.p1, streams.p2].map((stream, i) => new Player(stream, { seed: [seed, 7, i, 1].join(',') }));
  for (const player of players) void player.start();
  const start = { formatid: format, seed: [1, 2, 3, seed].join(',') };
  void streams.omniscient.write(`>start ${JSON.stringify(start)}\n` + ['p1', 'p2'].map((side, i) =>
    `>player ${side} ${JSON.stringify({ name: side, team: teams[(2 * seed + i) % teams.length] })}`).join('\n'));
  let turns = 0;
  for await (const chunk of streams.omniscient) turns += chunk.split('\n|turn|').length - 1;
  return turns;
}

async function main([format, battles, policy, warm]) {
  const teams = JSON.parse(readFileSync(0, 'utf8'));
  const Player = policy === 'stock' ? RandomPlayerAI : UniformAI;
  for (let seed = 0; seed < Number(warm); seed++) await battle(format, seed, teams, Player);
  const before = process.cpuUsage();
  let turns = 0;
  for (let seed = 0; seed < Number(battles); seed++) turns += await battle(format, seed + Number(warm), teams, Player);
  const used = process.cpuUsage(before);
  console.log(JSON.stringify({ battles: Number(battles), turns, cpu_seconds: (used.user + used.system) / 1e6 }));
}

void main(process.argv.slice(2));
