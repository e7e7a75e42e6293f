'use strict';
// Teams for formats in which nobody wrote any: six species of the format's own tier, each with a set that Showdown's
// generator of random battles gives it, at the format's level and passed by its validator.

const { Dex, PRNG, TeamValidator, Teams } = require('pokemon-showdown');

const SIZE = 6; // where the format allows as many
const BREADTH = 24; // species at least to choose among: four teams' worth
const TRIES = 20; // for each team: the generator's sets are made for other rules than the validator's
// Strongest first, as Smogon ranks them: a tier may use whatever stands below it.
const TIERS = ['AG', 'Uber', 'OU', 'UUBL', 'UU', 'RUBL', 'RU', 'NUBL', 'NU', 'PUBL', 'PU', 'ZUBL', 'ZU', 'NFE', 'LC'];

/** A place among the tiers; one that is not listed stands behind all. */
const rank = (species) => (TIERS.indexOf(species.tier.replace(/[()]/g, '')) + TIERS.length + 1) % (TIERS.length + 1);

/** The strongest species that a format allows and the generator knows: whole tiers, from the top, until there are enough. */
function strongest(format, listed) {
  const rules = Dex.formats.getRuleTable(Dex.formats.get(format));
  const allowed = Object.keys(listed).map((id) => Dex.forFormat(format).species.get(id))
    .filter((species) => species.exists && !species.battleOnly && !rules.isBannedSpecies(species))
    .sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1));
  const last = allowed[Math.min(BREADTH, allowed.length) - 1];
  return allowed.filter((species) => rank(species) <= rank(last));
}

/**
 * @param {string} format id
 * @param {number} count of teams
 * @param {string} seed of Showdown's PRNG: "1,2,3,4"
 * @returns {{teams: string[], problems: string[]}} packed teams of different line-ups, the same for the same seed; where
 *   they are fewer than `count`, what stood against more
 */
function assemble(format, count, seed) {
  const generator = Teams.getGenerator(`gen${Dex.forFormat(format).gen}randombattle`, seed);
  const prng = new PRNG(seed);
  const pool = strongest(format, generator.randomSets);
  const rules = Dex.formats.getRuleTable(Dex.formats.get(format));
  const level = rules.adjustLevel ?? rules.defaultLevel;
  const size = Math.min(SIZE, rules.maxTeamSize);
  const validator = new TeamValidator(format);
  const teams = new Map(); // by their species, none twice
  let problems = [`Showdown's generator knows ${pool.length} species that it allows`];
  for (let tries = 0; teams.size < count && tries < TRIES * (teams.size + 1); tries++) {
    const team = [];
    const taken = new Set();
    prng.shuffle(pool);
    for (const species of pool) {
      if (team.length === size) break;
      if (taken.has(species.num)) continue; // another form of one that is there
      const set = { ...generator.randomSet(species, {}, false), name: species.baseSpecies, level };
      const refused = validator.validateSet({ ...set, evs: { ...set.evs }, ivs: { ...set.ivs } }, {});
      if (refused) {
        problems = refused;
        continue;
      }
      taken.add(species.num);
      team.push(set);
    }
    const refused = team.length === size ? validator.validateTeam(team) : problems;
    if (refused) problems = refused;
    else teams.set(team.map((set) => set.species).sort().join(), Teams.pack(team));
  }
  return { teams: [...teams.values()], problems: teams.size < count ? problems : [] };
}

module.exports = { assemble };
