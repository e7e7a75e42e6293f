"use strict";
// What all pages share: elements, and the field as they draw it.
const TYPES = {
  normal: "#9099a1", fire: "#f08030", water: "#4d90d5", electric: "#e5b70e", grass: "#5fbd58", ice: "#5cbfb4",
  fighting: "#ce4069", poison: "#ab6ac8", ground: "#cf7346", flying: "#7f9be0", psychic: "#f2627a", bug: "#8bb01f",
  rock: "#b5a26a", ghost: "#5a6bb4", dragon: "#3a72c4", dark: "#5a5366", steel: "#5f93a5", fairy: "#e07fdc",
  stellar: "#35ace7",
};
const STATS = { atk: "Atk", def: "Def", spa: "SpA", spd: "SpD", spe: "Spe", accuracy: "Acc", evasion: "Eva" };
const byId = (id) => document.getElementById(id);
const percent = (x, digits = 0) => `${(100 * x).toFixed(digits)}%`;
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(1)}`;

// An element with a class, text or children: nothing of the data is ever read as HTML.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function typed(element, type) {
  if (TYPES[type]) element.style.setProperty("--type", TYPES[type]);
  return element;
}

function bar(hp) {
  const inner = make("i");
  inner.style.width = percent(hp, 1);
  return make("div", `hp ${hp <= 0.2 ? "low" : hp <= 0.5 ? "fair" : ""}`, inner);
}

const typeTag = (type) => typed(make("span", "tag", type === "threequestionmarks" ? "???" : type), type);

function tags(pokemon) {
  const found = pokemon.types.map(typeTag);
  if (pokemon.status) found.push(make("span", `tag status ${pokemon.status}`, pokemon.status));
  return found;
}

function card(pokemon, who, moved) {
  const boosts = Object.entries(pokemon.boosts).map(([stat, stage]) =>
    make("span", `boost ${stage > 0 ? "up" : "down"}`, `${stage > 0 ? "+" : "−"}${Math.abs(stage)} ${STATS[stat]}`));
  const facts = [pokemon.item, pokemon.ability, pokemon.effect, pokemon.tera ? `Tera ${pokemon.tera}` : ""];
  return typed(make("div", "mon",
    make("div", "top", make("span", "name", pokemon.name), ...tags(pokemon), make("span", "who", who)),
    bar(pokemon.hp),
    make("div", "row", make("b", "", percent(pokemon.hp)), pokemon.level === 100 ? "" : make("span", "", `L${pokemon.level}`),
      ...boosts, make("span", "", [...facts, moved ? `did ${moved}` : ""].filter(Boolean).join(" · "))),
    pokemon.moves.length ? make("div", "row moves", pokemon.moves.join(" · ")) : "",
  ), pokemon.types[0]);
}

function mini(pokemon) {
  const box = make("div", `mini ${pokemon.out || pokemon.hp === 0 ? "out" : ""}`,
    make("span", "", pokemon.name + (pokemon.status ? ` · ${pokemon.status}` : "")), bar(pokemon.hp));
  box.title = `${pokemon.name} ${percent(pokemon.hp)}${pokemon.out ? ", cannot come in" : ""}`;
  return box;
}

// The elements of the field: the foe, what lies between, and the own side. players: their names, the own one first.
function fieldOf(turn, players) {
  const pips = make("span", "pips", ...Array.from({ length: 6 }, (_, i) => make("i", i < turn.left ? "" : "gone")));
  pips.title = `${turn.left} left`;
  const between = make("div", "between", pips, `the opponent has ${turn.left} left`,
    ...turn.field.map((word) => make("span", "chip", word)),
    turn.sides[1] ? make("span", "chip", `${turn.sides[1]} on the opponent's side`) : "",
    turn.sides[0] ? make("span", "chip", `${turn.sides[0]} on the player's side`) : "",
    turn.forced ? make("span", "chip warn", "must switch") : "");
  return [
    make("div", "side", make("div", "team", ...turn.foes.map(mini)), card(turn.foe, players[1], turn.moved[1])),
    between,
    make("div", "side", card(turn.me, players[0], turn.moved[0]), make("div", "team", ...turn.bench.map(mini)))];
}

function says(action) {
  if (!action) return "";
  if (action.kind === "switch") return `switch to ${action.name}`;
  if (action.kind === "other") return `play ${action.name}`;
  return action.kind === "tera" ? `terastallize and use ${action.name}` : `use ${action.name}`;
}

// What is known of an action, in few words.
function kindOf(action) {
  if (action.kind === "switch") return `switch · ${percent(action.hp)}`;
  if (action.kind === "other") return "not in this state";
  if (action.kind === "must") return "in place of its moves";
  if (action.kind === "lead") return "";
  return action.kind === "tera" ? "tera" : action.power ? `${action.power}` : action.category;
}
