const { about, gammas, turns } = JSON.parse(document.getElementById("data").textContent);
const last = turns.length - 1;
let now = 0;
let shown = Math.max(0, gammas.findIndex((g) => g.calibrated && g.gamma === about.gamma));

function verdict(turn) {
  const find = (id) => turn.actions.find((action) => action.id === id);
  if (now === last) return make("div", "verdict", about.result === "no result" ? "The battle has no result." :
    `The battle is over: ${about.result}.`);
  if (!turn.actions.length) return make("div", "verdict", "Nothing can be chosen here.");
  if (turn.played < 0) return make("div", "verdict", "What was chosen here was never revealed. It would ",
    make("b", "", says(find(turn.best))), ".");
  if (turn.agrees === null) return make("div", "verdict", "The only choice: ", make("b", "", says(find(turn.played))), ".");
  if (turn.agrees) return make("div", "verdict same", "It agrees: ", make("b", "", says(find(turn.played))), ".");
  return make("div", "verdict differs", "It disagrees: the player chose to ", make("b", "", says(find(turn.played))),
    ", it would ", make("b", "", says(find(turn.best))), ".");
}

function drawMind(turn) {
  const rows = [...turn.actions].sort((a, b) => b.p - a.p || a.id - b.id).map((action) => {
    const gain = action.q - turn.value;
    const shade = make("div", "bar");
    shade.style.width = percent(action.p, 2);
    const row = make("div", `action ${action.id === turn.best ? "best" : ""} ${
      action.id === turn.played ? "played" : ""}`,
      shade,
      make("div", "what", ...action.types.map(typeTag),
        make("b", "", action.name), make("small", "", kindOf(action)),
        action.id === turn.played ? make("span", "flag", "played") : ""),
      make("div", "p", percent(action.p, action.p >= 0.9995 || action.p < 0.0005 ? 0 : 1)),
      make("div", `q ${gain > 0.5 ? "up" : gain < -0.5 ? "down" : ""}`, signed(action.q)));
    row.dataset.id = action.id;
    return row;
  });
  const { gamma, calibrated } = gammas[shown];
  byId("mind").replaceChildren(
    make("div", "head", make("h2", "", "What the agent thinks"),
      make("span", "chance", calibrated ? percent(turn.curve[shown]) : signed(turn.curve[shown]))),
    make("p", "", calibrated ? `chance to win, calibrated, γ = ${gamma}` : `expected return, γ = ${gamma}`),
    verdict(turn),
    ...(rows.length ? [make("div", "columns", make("span", "", "legal actions"),
      make("span", "", `probability · Q (γ = ${about.gamma}${about.beta ? `, β = ${about.beta}` : ""})`))] : []),
    ...rows,
    make("p", "note", "Bars: the policy's probability. Q: expected return if that is done now, ",
      "green above the state's value, red below. ",
      make("span", "keys", make("kbd", "", "←"), " ", make("kbd", "", "→"), " step, ", make("kbd", "", "N"), " ",
        make("kbd", "", "P"), " disagreements, ", make("kbd", "", "Home"), " ", make("kbd", "", "End"))));
}

// The curve is drawn once for each discount, in a box of `last` × 100; the place in it is moved by `drawPlace`.
let scale = null;
function drawCurve() {
  const { gamma, calibrated } = gammas[shown];
  const values = turns.map((turn) => turn.curve[shown]);
  const top = calibrated ? 1 : Math.max(...values, 1), bottom = calibrated ? 0 : Math.min(...values, -1);
  scale = (value) => 100 - (100 * (value - bottom)) / (top - bottom);
  const points = values.map((value, i) => `${last ? i : 0},${scale(value).toFixed(2)}`).join(" ");
  const middle = calibrated ? 0.5 : 0;
  const svg = byId("curve");
  svg.setAttribute("viewBox", `0 0 ${Math.max(last, 1)} 100`);
  const parts = [
    ...[top, middle, bottom].map((y) => ["line", { class: "grid", x1: 0, x2: Math.max(last, 1), y1: scale(y), y2: scale(y) }]),
    ["polygon", { class: "area", points: `0,${scale(middle)} ${points} ${last},${scale(middle)}` }],
    ["polyline", { class: "line", points }],
    ["line", { class: "now", y1: 0, y2: 100, id: "now" }],
  ];
  svg.replaceChildren(...parts.map(([tag, attributes]) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }));
  const plot = byId("plot");
  plot.querySelectorAll(".axis").forEach((label) => label.remove());
  for (const y of [top, middle, bottom]) {
    const label = make("span", "axis", calibrated ? percent(y) : y === 0 ? "0" : signed(y));
    label.style.top = `${scale(y)}%`;
    plot.append(label);
  }
  byId("curve-title").textContent = calibrated ? "Win chance over the battle" : `Value over the battle, γ = ${gamma}`;
  byId("tabs").querySelectorAll("button").forEach((tab, i) => tab.setAttribute("aria-selected", i === shown));
}

function drawPlace(turn) {
  byId("now").setAttribute("x1", now);
  byId("now").setAttribute("x2", now);
  byId("dot").style.left = percent(last ? now / last : 0, 3);
  byId("dot").style.top = `${scale(turn.curve[shown])}%`;
}

const misses = turns.flatMap((turn, i) => (turn.agrees === false ? [i] : []));

function go(to) {
  now = Math.min(last, Math.max(0, to));
  const turn = turns[now];
  byId("field").replaceChildren(...fieldOf(turn, about.players));
  drawMind(turn);
  drawPlace(turn);
  byId("scrub").value = now;
  byId("place").textContent = `${now + 1} / ${turns.length}`;
  byId("back").disabled = now === 0;
  byId("next").disabled = now === last;
  byId("back-miss").disabled = !misses.some((i) => i < now);
  byId("next-miss").disabled = !misses.some((i) => i > now);
  document.body.dataset.now = now;
}

const toNextMiss = () => go(misses.find((i) => i > now) ?? now);
const toLastMiss = () => go(misses.findLast((i) => i < now) ?? now);

function setUp() {
  document.title = `Turnwise: ${about.format}, ${about.result}`;
  byId("format").textContent = about.format;
  byId("result").textContent = about.result;
  byId("result").className = `pill ${about.result}`;
  byId("subtitle").textContent = [
    about.players.join(" against "), about.date, `seen by ${about.agent}`].filter(Boolean).join(" · ");
  const [same, all] = about.agreed;
  byId("agreement").querySelector("b").textContent = all ? percent(same / all) : "–";
  byId("agreement").querySelector("span").textContent = `agrees, ${same} of ${all} choices`;
  const plot = make("div", "plot");
  plot.id = "plot";
  byId("curve").replaceWith(plot);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.id = "curve";
  svg.setAttribute("preserveAspectRatio", "none");
  const dot = make("span", "dot");
  dot.id = "dot";
  plot.append(svg, dot);
  byId("tabs").append(...gammas.map(({ gamma, calibrated }, i) => {
    const tab = make("button", "", calibrated ? `win ${gamma}` : `value ${gamma}`);
    tab.setAttribute("role", "tab");
    tab.addEventListener("click", () => { shown = i; drawCurve(); go(now); });
    return tab;
  }));
  byId("marks").style.setProperty("--count", turns.length);
  byId("marks").append(...turns.flatMap((turn, i) => {
    if (turn.agrees === null) return [];
    const mark = make("i", turn.agrees ? "same" : "");
    mark.style.left = percent(last ? i / last : 0, 3);
    return [mark];
  }));
  byId("scrub").max = last;
  byId("scrub").addEventListener("input", (event) => go(Number(event.target.value)));
  const pointed = (event) => {
    const box = plot.getBoundingClientRect();
    go(Math.round(((event.clientX - box.left) / box.width) * last));
  };
  plot.addEventListener("pointerdown", pointed);
  plot.addEventListener("pointermove", (event) => { if (event.buttons) pointed(event); });
  byId("back").addEventListener("click", () => go(now - 1));
  byId("next").addEventListener("click", () => go(now + 1));
  byId("back-miss").addEventListener("click", toLastMiss);
  byId("next-miss").addEventListener("click", toNextMiss);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = {
      ArrowLeft: () => go(now - 1), ArrowRight: () => go(now + 1), Home: () => go(0), End: () => go(last),
      PageUp: () => go(now - 10), PageDown: () => go(now + 10), n: toNextMiss, p: toLastMiss,
    };
    const step = steps[event.key] ?? steps[event.key.toLowerCase()];
    if (step) { event.preventDefault(); step(); }
  });
  // A swipe to the left goes on, one to the right goes back.
  let from = null;
  const main = document.querySelector("main");
  main.addEventListener("touchstart", (event) => { from = event.touches.length === 1 ? event.touches[0] : null; },
    { passive: true });
  main.addEventListener("touchend", (event) => {
    if (!from) return;
    const to = event.changedTouches[0], across = to.clientX - from.clientX, down = to.clientY - from.clientY;
    from = null;
    if (Math.abs(across) > 40 && Math.abs(across) > 1.5 * Math.abs(down)) go(now + (across < 0 ? 1 : -1));
  }, { passive: true });
  drawCurve();
  const asked = /^#(\d+)$/.exec(location.hash);
  go(asked ? Number(asked[1]) - 1 : 0);
}

setUp();
document.body.dataset.ready = Math.round(performance.now());
