'use strict';
// A protocol line, read once for all who follow the battle: both players' views hear most lines alike.

const { Protocol } = require('@pkmn/protocol');

const kinds = new Map();
/** Whether the client does anything at a line of this kind. */
function handled(client, kind) {
  let known = kinds.get(kind);
  if (known === undefined) kinds.set(kind, (known = `|${kind}|` in client.handler));
  return known;
}

class Line {
  /** @param {string} text one line; chat and blank ones, which do not start with |, have the kind '' */
  constructor(text) {
    this.text = text;
    this.kind = '';
    if (text.charCodeAt(0) === 124) {
      const end = text.indexOf('|', 1);
      this.kind = end < 0 ? text.slice(1) : text.slice(1, end);
    }
    this.known = null;
    this.cut = null;
  }

  /** Its parts between the bars, the first one empty. */
  get parts() {
    return (this.cut ??= this.text.split('|'));
  }

  /** Tells a client, which takes nothing of it away. Many a line is only for the eye, and is not even parsed. */
  tell(client) {
    if (!handled(client, this.kind)) return;
    this.known ??= Protocol.parseBattleLine(this.text);
    const key = Protocol.key(this.known.args); // kinds of old are read as today's
    if (key && key in client.handler) client.handler[key](this.known.args, this.known.kwArgs);
  }
}

module.exports = { Line };
