const about = JSON.parse(document.getElementById("data").textContent);
const TERA = 9; // between the id of a move and that of the same move with terastallizing
const [me, foe] = about.players;
let table = { version: -1 };
let answered = -1; // the version of the last table that was answered
let thoughts = null; // of the agent about the turn that is shown
let steered = false; // the last choice was made by a button that had the focus: the next turn's buttons get it back

async function post(path, content) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

// Sends what the person wants; what it is answered where that does not fit stands above the field.
async function send(path, content) {
  try {
    const said = await post(path, content);
    byId("note").textContent = "";
    return said;
  } catch (error) {
    byId("note").textContent = error.message;
    return null;
  }
}

// Once for what is shown: the second half of a double click would be refused.
async function choose(action) {
  const { version } = table;
  if (answered === version) return;
  answered = version;
  steered = byId("choices").contains(document.activeElement);
  if (!await send("/choose", { version, action })) answered = -1;
}

async function ask() {
  const version = table.version;
  const said = await send("/thoughts", { version });
  if (said && version === table.version) {
    thoughts = said;
    drawChoices();
  }
}

// A number for each action, and for a move that terastallizes the move's own, with Shift.
function keyFor(action, number) {
  if (action.kind !== "tera") return number < 10 ? `${number}` : "";
  return `⇧${1 + table.turn.actions.findIndex(({ id }) => id === action.id - TERA)}`;
}

function actionOf(event) {
  const number = event.code?.startsWith("Digit") ? event.code.slice(5) : event.key;
  const wanted = `${event.shiftKey ? "⇧" : ""}${number}`;
  return table.turn.actions.find((action, i) => keyFor(action, i + 1) === wanted);
}

// Whether it told a share for each action: of leads it has none by a discount too short for a chance to win.
function hasShares() {
  return thoughts !== null && Object.keys(thoughts.actions).length > 0;
}

function row(action, number) {
  const key = keyFor(action, number);
  const best = thoughts?.best === action.id;
  const share = hasShares() ? thoughts.actions[action.id] ?? 0 : Number(best);
  const shade = make("div", "bar");
  if (thoughts) shade.style.width = percent(share, 2);
  const button = make("button", `action ${best ? "best" : ""}`,
    thoughts ? shade : "",
    make("div", "what", ...action.types.map(typeTag), make("b", "", action.name),
      make("small", "", kindOf(action))),
    make("span", "pp", action.pp === undefined ? "" : `${percent(action.accuracy)} · ${action.pp} PP`),
    make("div", "p", hasShares() ? percent(share) : key ? make("kbd", "keys", key) : ""),
    action.moves ? make("div", "moves", [action.item, action.ability, ...action.moves].filter(Boolean).join(" · ")) : "");
  button.dataset.id = action.id;
  button.disabled = table.phase !== "asked";
  button.addEventListener("click", () => choose(action.id));
  return button;
}

function drawOver() {
  const said = { won: "You won.", lost: `${foe} won.`, tie: "A tie.", cut: "Cut at the limit of turns.",
    void: "This battle has no result." }[table.result];
  const link = (side, text) => {
    const found = make("a", "", text);
    found.href = `/review/${side}`;
    found.target = "_blank";
    return found;
  };
  byId("choices").replaceChildren(
    make("p", "big", said ?? "Choose a format and begin."),
    table.review ? make("div", "reviews", link(0, `Your choices, as ${foe} sees them`), link(1, "Its own side")) : "");
}

function drawChoices() {
  if (table.phase === "idle") return drawOver();
  const asked = table.phase === "asked";
  const hint = make("button", "", "What would it do?");
  hint.id = "hint";
  hint.disabled = !asked || thoughts !== null;
  hint.addEventListener("click", ask);
  const leave = make("button", "", "Give up");
  leave.id = "leave";
  leave.disabled = !asked;
  leave.addEventListener("click", () => {
    if (confirm("Give this battle up?")) send("/give-up", { version: table.version });
  });
  const chance = thoughts?.chance;
  const title = !asked ? `${foe} and the dice…` : table.turn.retry ? "That cannot be done. What else?" :
    table.turn.preview ? "Who leads?" : table.turn.forced ? "Who comes in?" : "What will you do?";
  byId("choices").replaceChildren(
    make("div", "head", make("h2", "", title), make("span", "", about.coach ? hint : "", leave)),
    ...(table.turn?.actions ?? []).map((action, i) => row(action, i + 1)),
    thoughts ? make("p", "note", `${foe} in your place`,
      table.turn.preview && hasShares() ? ": the chance to win with each in the lead." :
        typeof chance === "number" ? `: you win with ${percent(chance)}.` : ".") : "");
  if (asked && steered) byId("choices").querySelector(".action").focus();
}

// The opponent's team, as team preview shows it.
function previewOf(team) {
  return [make("p", "note", `${foe} brings`), ...team.map((pokemon) =>
    typed(make("div", "mon", make("div", "top", make("span", "name", pokemon.name), ...tags(pokemon))), pokemon.types[0]))];
}

function drawStory() {
  const box = byId("story");
  box.replaceChildren(...table.story.flatMap(({ heading, said }) => [
    make("h3", "", heading), ...said.map(([text, small]) => make("p", small ? "small" : "", text))]));
  box.scrollTop = box.scrollHeight;
}

function draw() {
  const idle = table.phase === "idle";
  byId("format").disabled = byId("begin").disabled = !idle;
  byId("result").hidden = !idle || !table.result;
  byId("result").textContent = table.result ?? "";
  byId("result").className = `pill ${table.result ?? ""}`;
  const [won, lost, tied] = table.tally ?? [0, 0, 0];
  byId("tally").textContent = `won ${won}, lost ${lost}${tied ? `, tied ${tied}` : ""}`;
  if (idle && table.note) byId("note").textContent = table.note;
  byId("field").replaceChildren(...(!table.turn ? [make("p", "", "No battle yet.")] :
    table.turn.preview ? previewOf(table.turn.preview) : fieldOf(table.turn, [me, foe])));
  drawChoices();
  drawStory();
  document.body.dataset.phase = table.phase;
  document.body.dataset.version = table.version;
}

// Waits for what is newer than what is shown, as long as the command runs.
async function watch() {
  for (let lost = false; ;) {
    try {
      const answer = await fetch(`/table?after=${lost ? -1 : table.version}`);
      const next = await answer.json();
      if (next.run !== about.run) return location.reload(); // another command by now: players and formats are its own
      if (lost) byId("note").textContent = "";
      lost = false;
      if (next.version !== table.version) {
        table = next;
        thoughts = null;
        draw();
      }
    } catch {
      lost = true;
      byId("note").textContent = "The command has ended, or does not answer.";
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
  }
}

function setUp() {
  byId("players").textContent = `${me} against ${foe}`;
  byId("format").append(...about.formats.map((name) => make("option", "", name)));
  byId("new").addEventListener("submit", (event) => {
    event.preventDefault();
    send("/battle", { format: byId("format").value });
  });
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || table.phase !== "asked") return;
    const action = actionOf(event);
    if (action && event.target.tagName !== "SELECT") choose(action.id);
    if (event.key === "h" && about.coach && !thoughts) ask();
  });
  watch();
}

setUp();
