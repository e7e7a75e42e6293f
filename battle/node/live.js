'use strict';
// A live server's battle: the same view, fed with the lines and requests that the websocket brought.

const { Line } = require('./line');
const { View } = require('./view');

class Live {
  constructor(lane, format, warn) {
    this.lane = lane;
    this.view = new View((message) => warn(`live ${lane}: ${message}`));
    this.view.format = format;
  }

  /**
   * @param {string[]} lines protocol lines since the last call
   * @param {string|null} request JSON of the request that follows from them, null where none came
   * @returns {string|object} a state with its legal bits and choices, or what else there is to say
   */
  feed(lines, request) {
    for (const text of lines) this.view.feed(new Line(text));
    if (request) this.view.ask(JSON.parse(request));
    const { view } = this;
    if (view.winner) {
      // Given up at team preview there is no state to tell of, nor where no request came: it ended while we were away.
      if (!view.stood) return { event: 'end', lane: this.lane, winner: -1, turns: view.turn, states: [] };
      view.request = null;
      const side = view.winner === 'tie' ? -1 : view.winner === view.me ? 0 : 1;
      return `{"event":"end","lane":${JSON.stringify(this.lane)},"winner":${side},"turns":${view.turn},"states":[${view.state()}]}`;
    }
    if (request && view.request?.teamPreview) {
      return `{"event":"preview","lane":${JSON.stringify(this.lane)},"views":${view.previewJson()}}`;
    }
    if (!request || !view.asked) return { event: 'quiet', lane: this.lane, turn: view.turn };
    const choices = view.choices();
    const legal = choices.reduce((bits, choice, action) => (choice ? bits | (1 << action) : bits), 0);
    return `{"event":"ask","lane":${JSON.stringify(this.lane)},"side":0,"turn":${view.turn},"legal":${legal},` +
      `"forced":${view.forced},"retry":false,"choices":${JSON.stringify(choices)},"state":${view.state()}}`;
  }

  destroy() {}
}

module.exports = { Live };
