// The thresholds: a card for each rule, what it drops, and what changes when it is moved.

const cards = [];
let counted = null; // by verdicts.count()

function boundText(rule) {
  const parts = [];
  if (rule.min !== null) parts.push(`at least ${short(rule.min)}`);
  if (rule.max !== null) parts.push(`at most ${short(rule.max)}`);
  for (const [key, value] of Object.entries(rule.other)) {
    if (key === "equals") parts.push(`is ${value === true ? "yes" : value === false ? "no" : value}`);
    if (key === "one_of") parts.push(`one of ${value.join(", ")}`);
    if (key === "none_of") parts.push(`none of ${value.join(", ")}`);
  }
  return parts.join(", ");
}

async function buildThresholds() {
  const host = byId("rules");
  for (const [r, rule] of rules.entries()) {
    const about = facts.columns[rule.column];
    const figures = el("p", { className: "figures" }), bounds = el("span", {}, ` ${boundText(rule)}`);
    const toggle = el("input", { type: "checkbox", checked: true, id: `on-${r}` });
    toggle.addEventListener("change", () => { rule.on = toggle.checked; moved(r); });
    const card = el("article", { className: "rule", id: `card-${r}` },
      el("h3", {}, toggle, el("label", { htmlFor: `on-${r}` }, words(rule.reason))),
      el("p", { className: "muted" }, el("code", {}, rule.column), bounds, about?.unit ? ` (${about.unit})` : "",
        rule.missing === "pass" ? "; passes without a value" : ""));
    // What bounds texts, too, can be switched off and not be moved.
    const isNumber = about?.kind === "number" && !Object.keys(rule.other).length && (rule.was.min !== null || rule.was.max !== null);
    if (isNumber) card.append(new Histogram(rule.column, () => linesOf(rule.column)).host);
    const inputs = [];
    for (const bound of ["min", "max"]) if (isNumber && rule.was[bound] !== null) inputs.push(...(await boundInputs(r, bound, card)));
    card.append(figures);
    if (rule.source) card.append(el("p", { className: "muted source" }, rule.source));
    cards.push({ card, figures, bounds, toggle, inputs });
    host.append(card);
  }
  if (!rules.length) host.append(el("p", {}, "The screen has no rules: every sample that ends without an error is kept."));
}

async function boundInputs(r, bound, card) {
  const rule = rules[r], values = await column(rule.column);
  let least = rule.was[bound], most = rule.was[bound], whole = Number.isInteger(rule.was[bound]);
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < least) least = value;
    if (value > most) most = value;
    if (whole && value !== Math.floor(value)) whole = false;
  }
  if (least === most) { least -= 1; most += 1; }
  const name = `${bound}-${r}`, label = bound === "min" ? "at least" : "at most";
  // A slider has 1,000 places; the threshold itself is the number beside it.
  const slider = el("input", { type: "range", min: 0, max: 1000, step: whole && most - least <= 1000 ? 1000 / (most - least) : 1, id: name });
  const number = el("input", { type: "number", step: "any", value: String(rule.was[bound]), "aria-label": `${words(rule.reason)}: ${rule.column} ${label}` });
  const place = (value) => { slider.value = String(1000 * (value - least) / (most - least)); slider.setAttribute("aria-valuetext", short(value)); };
  place(rule.was[bound]);
  const set = (value) => { rule[bound] = value; place(value); moved(r); };
  slider.addEventListener("input", () => {
    const value = least + (most - least) * Number(slider.value) / 1000;
    const rounded = whole ? Math.round(value) : Number(value.toPrecision(3));
    number.value = String(rounded);
    set(rounded);
  });
  number.addEventListener("change", () => {
    if (number.value === "" || !Number.isFinite(Number(number.value))) number.value = String(rule[bound]);
    else set(Number(number.value));
  });
  card.append(el("div", { className: "bound" }, el("label", { htmlFor: name }, label), slider, number));
  return [{ bound, number, place }];
}

let pending = null;
const movedRules = new Set();

// A rule was moved: everything that hangs on it is drawn again, at most once a frame.
function moved(r) {
  movedRules.add(r);
  pending ??= requestAnimationFrame(async () => {
    const now = [...movedRules];
    movedRules.clear();
    pending = null;
    for (const one of now) await verdicts.change(one);
    refresh();
  });
}

function refresh() {
  counted = verdicts.count();
  for (const [r, { card, figures, bounds }] of cards.entries()) {
    bounds.textContent = ` ${boundText(rules[r])}`;
    const broken = counted.broken[r], alone = counted.alone[r];
    figures.replaceChildren(
      el("strong", {}, ofRun(broken)), ` dropped by it (${percent(broken, N)}), `,
      el("strong", {}, ofRun(alone)), " by it alone ");
    if (alone) figures.append(filterButton("show these", { reason: `alone:${r}` }));
    card.classList.toggle("moved", !rules[r].on || rules[r].min !== rules[r].was.min || rules[r].max !== rules[r].was.max);
  }
  showSummary();
  showFunnel();
  showReasons();
  showGroups();
  redraw();
  select();
  showFigures();
  askFigures();
}

function filterButton(text, wanted) {
  const button = el("button", { type: "button", className: "link" }, text);
  button.addEventListener("click", () => { setFilter(wanted); byId("clips").scrollIntoView(); });
  return button;
}

function showSummary() {
  const kept = isMoved() ? ofRun(counted.kept) : count(facts.counts.kept);
  const length = facts.has_seconds ? `, ${hours(isMoved() ? counted.seconds * SHARE : facts.steps.at(-1).seconds)}` : "";
  const change = isMoved() ? ` (${ofRun(counted.entered)} would enter, ${ofRun(counted.left)} would leave)` : "";
  byId("now").textContent = `${kept} of ${count(facts.total)} kept${length}${change}`;
  for (const button of document.querySelectorAll(".when-moved")) button.hidden = !isMoved();
}

function resetThresholds() {
  for (const [r, rule] of rules.entries()) {
    Object.assign(rule, rule.was, { on: true });
    cards[r].toggle.checked = true;
    for (const { bound, number, place } of cards[r].inputs) { number.value = String(rule.was[bound]); place(rule.was[bound]); }
    verdicts.fill(r, verdicts.states[r]);
  }
  refresh();
}

function exportScreen() {
  const text = screenYaml(byId("screen-name").value || `${facts.screen.name}_moved`);
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "application/yaml" })), download: "screen.yaml" });
  link.click();
  URL.revokeObjectURL(link.href);
}
