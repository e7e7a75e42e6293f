'use strict';
// A request of the simulator, in the shape in which @pkmn/client takes it in.
//
// What comes in is never written to: inside this process it is the simulator's own object, handed over without a way
// through JSON.

const { Protocol } = require('@pkmn/protocol');

const NONE = []; // the client need not go through own moves at each request: the view reads `ids`

const people = new Map();
/** What ident and details of a Pokémon say, parsed once. */
function detailed(ident, details) {
  let known = people.get(ident);
  if (known?.details !== details) {
    if (people.size > 20000) people.clear();
    people.set(ident, (known = Protocol.parseDetails(ident.slice(4), ident, details)));
  }
  return known;
}

function ownPokemon(given) {
  const { ident, details, condition } = given;
  const { name, speciesForme, level, shiny, gender, searchid } = detailed(ident, details);
  const space = condition.indexOf(' ');
  const slash = condition.indexOf('/');
  const status = space < 0 ? undefined : condition.slice(space + 1);
  const fainted = status === 'fnt';
  return {
    ident, details, name, speciesForme, level, shiny, gender, searchid,
    active: given.active,
    hp: fainted ? 0 : Number(condition.slice(0, slash)),
    maxhp: fainted ? 0 : Number(condition.slice(slash + 1, space < 0 ? undefined : space)),
    status: fainted ? undefined : status,
    fainted,
    ids: given.moves,
    moves: NONE,
    baseAbility: given.baseAbility,
    ability: given.ability || given.baseAbility,
    item: given.item,
    teraType: given.teraType,
    terastallized: given.terastallized,
    reviving: given.reviving,
  };
}

/**
 * @param {object} given a request as Showdown writes it
 * @returns {object} as @pkmn/protocol would read it, but for what nobody here needs; `given` itself where it has no side
 */
function readRequest(given) {
  if (!given.side) return given;
  const { active, side, teamPreview, forceSwitch, wait } = given;
  return {
    requestType: teamPreview ? 'team' : forceSwitch ? 'switch' : wait ? 'wait' : 'move',
    teamPreview,
    forceSwitch,
    wait,
    active: active?.map((each) => each && { ...each, moves: each.moves.map((move) => ({ ...move, name: move.move })) }),
    side: { name: side.name, id: side.id, pokemon: side.pokemon.map(ownPokemon) },
  };
}

module.exports = { readRequest };
