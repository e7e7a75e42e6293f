'use strict';
// Preloaded into a Showdown server of ours (`node --require`): it ends when its input closes, as the bridge does, so
// that it does not outlive a command that was killed, on a port that the next one would then join.

process.stdin.on('end', () => process.exit(0)).resume();
