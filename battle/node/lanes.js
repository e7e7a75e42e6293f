'use strict';
// Lanes: battles in this process, each a BattleStream with a first-person view for both players.
//
// The stream is driven synchronously (its messages are taken as they are pushed), so that one batch of choices on the
// pipe gives one batch of states back, and a battle is a function of its seed, its teams and its choices alone.

const { BattleStream, Teams } = require('pokemon-showdown');
const { deepClone } = require('./clone');
const { findEventHandlers } = require('./events');
const { Line } = require('./line');
const { LineHash } = require('./linehash');
const { View } = require('./view');

const SIDES = ['p1', 'p2'];

class SyncStream extends BattleStream {
  /**
   * @param {string} opening the lines that begin a battle and seat its players
   * @param {(type: string, data: string|string[]) => void} sink takes what the battle says: "update" with its lines,
   *   "sideupdate", "end"
   * @param {(side: number, request: object|null) => void} ask takes the requests, as objects: the simulator would
   *   write each out as JSON, for its reader to parse at once
   */
  constructor(opening, sink, ask) {
    super({ noCatch: true });
    this._writeLines(opening);
    const { battle } = this;
    battle.send = sink;
    battle.dex.deepClone = deepClone;
    battle.findEventHandlers = findEventHandlers;
    for (const side of battle.sides) {
      side.emitRequest = () => ask(side.n, side.activeRequest);
    }
    battle.sendUpdates();
  }
}

class Lane {
  /**
   * @param {string} id the lane's name
   * @param {{format: string, seed: string, teams: (string|null)[], names: string[], leads: (number|null)[]|null,
   *   seeds?: string[], strict?: boolean, want: {requests?: boolean[], lines?: boolean[], hash?: boolean,
   *   told?: boolean, log?: boolean}}} spec
   *   seed: as Showdown writes it; teams: packed, or null where the format makes them (from `seeds`, if given); leads:
   *   place of each lead at team preview, null where its player is asked for it (no leads: the choices say); strict:
   *   a refused choice is only reported; want: what the events carry beside the states (told: a bench that stands still
   *   only once; hash, log: at the end, the fingerprint and the input log)
   * @param {(event: object|string) => void} emit
   * @param {(message: string) => void} warn
   */
  constructor(id, spec, emit, warn) {
    this.id = id;
    this.spec = spec;
    this.emit = emit;
    this.want = spec.want ?? {};
    this.views = SIDES.map((side) => new View((message) => warn(`lane ${id} ${side}: ${message}`)));
    for (const view of this.views) view.format = spec.word ?? spec.format;
    this.asked = [null, null]; // the request to answer
    this.retry = [false, false];
    this.choices = [null, null];
    this.lines = [[], []];
    this.hash = this.want.hash ? new LineHash() : null;
    this.over = null;
    this.refusals = [];
    const players = SIDES.map((side, i) => `>player ${side} ${JSON.stringify({
      name: spec.names[i], team: spec.teams?.[i] ?? null, ...(spec.seeds ? { seed: spec.seeds[i] } : {}) })}`);
    const start = { formatid: spec.format, seed: spec.seed };
    this.stream = new SyncStream([`>start ${JSON.stringify(start)}`, ...players].join('\n'),
      (type, data) => this.receive(type, data), (side, request) => { this.asked[side] = request; });
  }

  receive(type, data) {
    if (type === 'update') this.update(data);
    else if (type === 'sideupdate') this.sideUpdate(SIDES.indexOf(data.slice(0, 2)), data.slice(3));
    else if (type === 'end') this.over = JSON.parse(data);
  }

  update(texts) {
    for (let i = 0; i < texts.length; i++) {
      let text = texts[i];
      if (text.startsWith('|split|')) {
        const owner = SIDES.indexOf(text.slice(7));
        this.feed(owner, new Line(texts[i + 1]));
        this.feed(1 - owner, new Line(texts[i + 2]));
        text = texts[i + 1];
        i += 2;
      } else {
        const line = new Line(text);
        this.feed(0, line);
        this.feed(1, line);
      }
      this.hash?.add(text);
    }
  }

  feed(side, line) {
    this.views[side].feed(line);
    if (this.want.lines?.[side]) this.lines[side].push(line.text);
  }

  /** An error, or a hint for this player alone; requests come by themselves. */
  sideUpdate(side, line) {
    if (!line.startsWith('|error|')) return;
    const message = line.slice('|error|'.length);
    if (message.startsWith('[Unavailable choice]')) this.retry[side] = true; // a new request follows
    else this.refusals.push([side, message]);
  }

  /** Writes lines to the battle, then answers team previews and emits the states and previews that wait for an action. */
  write(text) {
    this.stream._write(text);
    this.settle();
  }

  settle() {
    for (;;) {
      for (const [side, message] of this.refusals.splice(0)) this.refused(side, message);
      const preview = this.takeRequests();
      if (!preview.length) break;
      this.stream._write(preview.join('\n'));
    }
    if (this.over) this.end();
  }

  takeRequests() {
    const preview = [];
    for (let side = 0; side < 2; side++) {
      const request = this.asked[side];
      if (!request) continue;
      this.asked[side] = null;
      const view = this.views[side];
      view.ask(request);
      if (this.over) continue;
      if (view.request.teamPreview) {
        const { pokemon } = view.request.side;
        const lead = this.spec.leads?.[side];
        if (lead === null) this.askForLead(side, view, pokemon.length);
        else if (lead !== undefined) preview.push(`>${SIDES[side]} team ${(lead % pokemon.length) + 1}`);
      } else if (view.asked) this.ask(side, view, request);
    }
    return preview;
  }

  /** Asks who shall lead: the action is a place in the team. */
  askForLead(side, view, size) {
    this.choices[side] = Array.from({ length: size }, (_, place) => `team ${place + 1}`);
    this.emit(`{"event":"preview","lane":${JSON.stringify(this.id)},"side":${side},"views":${view.previewJson()}}`);
  }

  ask(side, view, request) {
    const table = view.choices();
    this.choices[side] = table;
    const legal = table.reduce((bits, choice, action) => (choice ? bits | (1 << action) : bits), 0);
    const more = (this.want.requests?.[side] ? `,"request":${JSON.stringify(request)}` : '') +
      (this.want.lines?.[side] ? `,"lines":${JSON.stringify(this.lines[side].splice(0))}` : '');
    let bench;
    let numbered = '';
    if (this.want.told) {
      const { numbers, news } = view.benchTold();
      bench = '';
      numbered = `,"bench":[${numbers}]${news.length ? `,"news":[${news}]` : ''}`;
    }
    this.emit(`{"event":"ask","lane":${JSON.stringify(this.id)},"side":${side},"turn":${view.turn},"legal":${legal},` +
      `"forced":${view.forced},"retry":${this.retry[side]}${more}${numbered},"state":${view.state(undefined, undefined, bench)}}`);
    this.retry[side] = false;
  }

  /** A choice that the battle does not take: said, and answered by the battle's own default so that it goes on. */
  refused(side, message) {
    this.emit({ event: 'refused', lane: this.id, side, message, choice: this.lastChoice?.[side] ?? '' });
    if (!this.spec.strict) this.stream._write(`>${SIDES[side]} default`);
  }

  /** @param {(number|null)[]} actions action ids of p1 and p2, null for a player who was not asked */
  act(actions) {
    const lines = [];
    this.lastChoice = [null, null];
    actions.forEach((action, side) => {
      if (action === null || action === undefined) return;
      // An action without a Showdown choice (an empty legal set) is left to the battle's default.
      const choice = this.choices[side]?.[action];
      if (!choice) this.emit({ event: 'refused', lane: this.id, side, message: `no legal action ${action} here`, choice: '' });
      this.lastChoice[side] = choice ?? 'default';
      lines.push(`>${SIDES[side]} ${choice ?? 'default'}`);
    });
    this.write(lines.join('\n'));
  }

  end() {
    if (this.done) return;
    this.done = true;
    const winner = SIDES.findIndex((_, i) => this.over.winner === this.spec.names[i]);
    const states = this.views.every((view) => view.stood) ? this.views.map((view) => {
      view.request = null;
      return view.state();
    }) : [];
    const more = this.hash ? `,"sha256":"${this.hash.hex()}"` : '';
    const lines = this.want.lines ? `,"lines":${JSON.stringify(this.lines)}` : '';
    const log = this.want.log ? `,"log":${JSON.stringify(this.over.inputLog)}` : '';
    this.emit(`{"event":"end","lane":${JSON.stringify(this.id)},"winner":${winner},"turns":${this.over.turns ?? 0}${more}${lines}${log},` +
      `"states":[${states.join(',')}]}`);
  }

  destroy() {
    this.stream.destroy(); // the battle with it
  }
}

module.exports = { Lane, SIDES, Teams };
