'use strict';
// A battle's fingerprint: SHA-256 of the lines that say what happened, without their chat, chatter and order of targets.

const { createHash } = require('crypto');

const HASHED = new Set(['move', 'switch', 'drag', '-damage', '-heal', 'faint', 'turn', 'cant']);

class LineHash {
  constructor() {
    this.hash = createHash('sha256');
    this.lines = 0;
  }

  /** @param {string} line as the player whom it is about sees it */
  add(line) {
    const end = line.indexOf('|', 1);
    if (!HASHED.has(line.slice(1, end < 0 ? undefined : end))) return;
    const of = line.indexOf('|[of]');
    this.hash.update((this.lines++ ? '\n' : '') + (of < 0 ? line : line.slice(0, of)));
  }

  hex() {
    return this.hash.digest('hex');
  }
}

module.exports = { LineHash };
