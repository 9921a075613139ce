// The contact sheet: which samples are shown, in which order, and the cards of those near the screen.

const HIGHEST = 15e6; // px; browsers cannot make a page much higher

const filter = { verdict: "", reason: "", column: "", least: null, most: null, words: "", sort: "", down: true, values: {} };
let shown = []; // rows, in order
let grid = null;

function buildFilters() {
  const reasons = byId("filter-reason");
  for (const [r, rule] of rules.entries()) if (rules.findIndex((one) => one.reason === rule.reason) === r) reasons.append(el("option", { value: rule.reason }, words(rule.reason)));
  if (facts.columns.synthesis_by) reasons.append(el("option", { value: "stand_in" }, "stand in"));
  reasons.append(el("option", { value: "stopped" }, "stopped at a gate"), el("option", { value: "review" }, "dropped in review"));
  for (const [r, rule] of rules.entries()) reasons.append(el("option", { value: `alone:${r}` }, `${words(rule.reason)} alone (${rule.column})`));
  for (const [name, host] of [["source", "filter-source"], ["interaction_region", "filter-region"], ["interaction_type", "filter-type"]]) {
    const values = facts.columns[name]?.dictionary ?? [];
    byId(host).parentElement.hidden = values.length < 2 && !(name !== "source" && values.length);
    for (const value of [...values].sort()) byId(host).append(el("option", { value }, words(value)));
    byId(host).addEventListener("change", (event) => { filter.values[name] = event.target.value; select(); });
  }
  for (const id of ["filter-score", "sort"]) {
    for (const name of Object.keys(facts.columns)) if (facts.columns[name].kind === "number") byId(id).append(el("option", { value: name }, words(name)));
  }
  const on = (id, change) => byId(id).addEventListener("input", (event) => { change(event.target.value); select(); });
  on("filter-verdict", (value) => { filter.verdict = value; });
  on("filter-reason", (value) => { filter.reason = value; });
  on("filter-score", (value) => { filter.column = value; });
  on("filter-least", (value) => { filter.least = value === "" ? null : Number(value); });
  on("filter-most", (value) => { filter.most = value === "" ? null : Number(value); });
  on("filter-words", (value) => { filter.words = value.trim().toLowerCase(); });
  on("sort", (value) => { filter.sort = value; });
  on("sort-order", (value) => { filter.down = value === "down"; });
  byId("clear-filters").addEventListener("click", () => setFilter({}));
}

// Show what is wanted and nothing else.
function setFilter(wanted) {
  Object.assign(filter, { verdict: "", reason: "", column: "", least: null, most: null, words: "", values: {} }, wanted);
  byId("filter-verdict").value = filter.verdict;
  const reasons = byId("filter-reason");
  if (filter.reason && ![...reasons.options].some((option) => option.value === filter.reason)) {
    reasons.append(el("option", { value: filter.reason }, words(filter.reason.replace("alone-of:", "alone: "))));
  }
  reasons.value = filter.reason;
  for (const id of ["filter-score", "filter-least", "filter-most", "filter-words", "filter-source", "filter-region", "filter-type"]) byId(id).value = "";
  select();
}

function hasReason(i) {
  const [kind, number] = filter.reason.split(":");
  if (kind === "alone") return verdicts.isAlone(Number(number), i);
  if (kind === "alone-of") return verdicts.onlyReason(i) === number;
  if (kind === "stopped") return (verdicts.outcome[i] & 3) === STOPPED;
  return verdicts.reasons(i).includes(filter.reason);
}

let selecting = 0;

async function select() {
  const mine = ++selecting;
  const scores = filter.column ? await column(filter.column) : null;
  const order = filter.sort ? await column(filter.sort) : null;
  const hay = filter.words ? await searchable() : null;
  const names = filter.verdict.endsWith("reviewed") || filter.verdict === "flagged" ? await sampleNames() : null;
  const wanted = [];
  for (const [name, value] of Object.entries(filter.values)) {
    if (value) wanted.push([await column(name), facts.columns[name].dictionary.indexOf(value)]);
  }
  if (mine !== selecting) return; // something newer is wanted
  const found = [];
  for (let i = 0; i < N; i++) {
    if (filter.verdict === "enter" || filter.verdict === "leave") {
      if (verdicts.changed(i) !== (filter.verdict === "enter" ? 1 : -1)) continue;
    } else if (filter.verdict === "changed") {
      if (!verdicts.changed(i)) continue;
    } else if (["reviewed", "not-reviewed", "flagged"].includes(filter.verdict)) {
      const said = review.words.get(names[i]) ?? [];
      if (filter.verdict === "flagged" ? !said.some((word) => word.verdict === "flag") : (said.length > 0) !== (filter.verdict === "reviewed")) continue;
    } else if (filter.verdict && verdicts.verdict(i) !== filter.verdict) continue;
    if (filter.reason && !hasReason(i)) continue;
    if (scores && !((filter.least === null || scores[i] >= filter.least) && (filter.most === null || scores[i] <= filter.most) && !Number.isNaN(scores[i]))) continue;
    if (wanted.some(([codes, code]) => codes[i] !== code)) continue;
    if (hay && !hay[i].includes(filter.words)) continue;
    found.push(i);
  }
  if (order) {
    const sign = filter.down ? -1 : 1;
    found.sort((a, b) => {
      const [x, y] = [order[a], order[b]];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b; // missing ones last
      return sign * (x - y) || a - b;
    });
  }
  shown = found;
  byId("found").textContent = `${count(found.length)} of ${count(N)} samples${facts.is_sample ? " of this page" : ""}`;
  grid.show();
}

// Cards of one size; those that are near the screen are there.
class Grid {
  constructor(host) {
    this.host = host;
    this.cards = new Map();
    addEventListener("scroll", () => this.later(), { passive: true });
    addEventListener("resize", () => this.later());
    host.addEventListener("keydown", (event) => this.move(event));
  }

  measure() {
    const width = this.host.clientWidth;
    this.perRow = Math.max(1, Math.floor(width / (width < 480 ? 160 : 230)));
    this.width = width / this.perRow;
    this.height = width < 480 ? 270 : 290;
    this.lines = Math.min(Math.ceil(shown.length / this.perRow), Math.floor(HIGHEST / this.height));
    this.host.style.height = `${this.lines * this.height}px`;
    byId("too-many").hidden = this.lines * this.perRow >= shown.length;
  }

  show() {
    const focused = this.host.contains(document.activeElement) ? Number(document.activeElement.closest(".card").dataset.place) : -1;
    for (const card of this.cards.values()) card.remove();
    this.cards.clear();
    this.measure();
    this.render();
    if (focused >= 0) this.cards.get(focused)?.querySelector("button").focus();
  }

  later() {
    this.pending ??= requestAnimationFrame(() => { this.pending = null; this.measure(); this.render(); });
  }

  render() {
    const top = this.host.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((-top - 400) / this.height)), last = Math.min(this.lines, Math.ceil((innerHeight - top + 400) / this.height));
    const wanted = new Set();
    for (let place = first * this.perRow; place < Math.min(last * this.perRow, shown.length); place++) wanted.add(place);
    for (const [place, card] of this.cards) if (!wanted.has(place) && !card.contains(document.activeElement)) { card.remove(); this.cards.delete(place); }
    for (const place of [...wanted].sort((a, b) => a - b)) {
      let card = this.cards.get(place);
      if (!card) {
        card = clipCard(shown[place], place);
        this.cards.set(place, card);
        const after = [...this.cards.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
        this.host.insertBefore(card, after === undefined ? null : this.cards.get(after));
      }
      card.style.transform = `translate(${(place % this.perRow) * this.width}px, ${Math.floor(place / this.perRow) * this.height}px)`;
      card.style.width = `${this.width}px`;
      card.style.height = `${this.height}px`;
    }
  }

  // Arrow keys go from card to card.
  move(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.perRow, ArrowUp: -this.perRow };
    const card = event.target.closest(".card");
    if (!card || !(event.key in steps)) return;
    const place = Number(card.dataset.place) + steps[event.key];
    if (place < 0 || place >= shown.length) return;
    event.preventDefault();
    this.focus(place);
  }

  focus(place) {
    const at = this.host.getBoundingClientRect().top + Math.floor(place / this.perRow) * this.height;
    if (at < 120 || at + this.height > innerHeight) scrollBy(0, at - 140);
    this.render();
    this.cards.get(place)?.querySelector("button").focus();
  }
}

function verdictWord(i) {
  const word = verdicts.verdict(i), change = verdicts.changed(i);
  return change > 0 ? "would be kept" : change < 0 ? "would be dropped" : word;
}

function badge(i) {
  return el("span", { className: `badge ${verdicts.verdict(i)}` }, verdictWord(i));
}

function clipCard(row, place) {
  const button = el("button", { type: "button", className: "open" });
  const said = el("span", { className: "said" });
  button.append(stripOf(row, 120), el("span", { className: "line" }, badge(row), el("span", { className: "why" }, verdicts.reasons(row).map(words).join(", "))), said);
  button.addEventListener("click", () => openClip(row, place));
  const card = el("div", { className: "card", role: "listitem", "aria-setsize": shown.length, "aria-posinset": place + 1 }, button);
  card.dataset.place = place;
  texts(row).then((text) => fillCard(said, text, row));
  return card;
}

async function fillCard(said, text, row) {
  const touch = [await valueOf("interaction_type", row, text), await valueOf("interaction_region", row, text)].filter(Boolean).map(words).join(" · ");
  const reaction = [text.reaction_action, text.reaction_emotion].filter(Boolean).join("; ");
  const failed = text.error ? `${text.error.stage}: ${text.error.message}` : text.stopped ? `${text.stopped.stage}: ${text.stopped.reason}` : "";
  const broken = [];
  for (const [r, rule] of rules.entries()) {
    if (!verdicts.failing[r][row] || broken.length === 3) continue;
    const value = await valueOf(rule.column, row, text);
    broken.push(`${words(rule.column)} ${typeof value === "number" ? short(value) : value === "" ? "is missing" : value} (${boundText(rule)})`);
  }
  said.append(
    el("span", { className: "name" }, text.sample_id),
    ...broken.map((one) => el("span", { className: "broken" }, one)),
    failed ? el("span", { className: "failed" }, failed) : "",
    touch ? el("span", { className: "touch" }, touch) : "",
    reaction ? el("span", {}, reaction) : "",
    filter.sort ? el("span", { className: "sorted" }, `${words(filter.sort)} ${short((await column(filter.sort))[row])}`) : "",
    text.caption ? el("span", { className: "muted" }, text.caption) : "",
  );
}

// A column's value of a row for people; "" for null.
async function valueOf(name, row, text) {
  const about = facts.columns[name];
  if (!about) return text[name] === undefined ? "" : text[name];
  const value = (await column(name))[row];
  if (about.kind === "number") return Number.isNaN(value) ? "" : value;
  if (about.kind === "bool") return value === 255 ? "" : value === 1 ? "yes" : "no";
  return about.dictionary[value] ?? "";
}

const wantsCalm = matchMedia("(prefers-reduced-motion: reduce)");

// The strip of a sample with the point touched; the pointer moves through it, focus plays it.
function stripOf(row, height) {
  const frame = el("span", { className: "strip" });
  frame.style.height = `${height}px`;
  if (!(verdicts.outcome[row] & HAS_STRIP)) {
    frame.append(el("span", { className: "none" }, "no pictures"));
    return frame;
  }
  const image = el("img", { alt: "", decoding: "async" });
  const marker = el("span", { className: "marker", hidden: true });
  frame.append(image, marker);
  let pictures = 1, width = 0;
  const step = (number) => { image.style.transform = `translateX(${-width * Math.min(pictures - 1, Math.max(0, number))}px)`; frame.dataset.picture = number; };
  image.addEventListener("load", () => {
    const scale = Math.min(height / image.naturalHeight, (frame.parentElement?.clientWidth || 600) / (image.naturalWidth / pictures));
    width = image.naturalWidth / pictures * scale;
    image.style.width = `${width * pictures}px`;
    image.style.height = `${image.naturalHeight * scale}px`;
    frame.style.width = `${width}px`;
    frame.style.height = `${image.naturalHeight * scale}px`;
  });
  image.addEventListener("error", () => frame.replaceChildren(el("span", { className: "none" }, "the pictures are not beside this page")));
  frame.addEventListener("pointermove", (event) => step(Math.floor(pictures * (event.clientX - frame.getBoundingClientRect().left) / Math.max(1, width))));
  frame.addEventListener("pointerleave", () => step(0));
  frame.play = () => {
    let number = 0;
    frame.stop?.();
    const timer = setInterval(() => { number = (number + 1) % pictures; step(number); }, 180);
    frame.stop = () => { clearInterval(timer); frame.stop = null; step(0); };
  };
  queueMicrotask(() => {
    const button = frame.closest("button");
    if (!button) return;
    button.addEventListener("focus", () => { if (!wantsCalm.matches) frame.play(); });
    button.addEventListener("blur", () => frame.stop?.());
  });
  texts(row).then((text) => {
    pictures = Number(/-(\d+)\.webp$/.exec(text.strip)[1]);
    image.src = `report/${text.strip}`;
    placeMarker(marker, row, text);
  });
  return frame;
}

// Show the marker at the point touched, where there is one.
async function placeMarker(marker, row, text) {
  const [x, y] = [await valueOf("interaction_x", row, text), await valueOf("interaction_y", row, text)];
  if (x === "" || y === "") return;
  Object.assign(marker.style, { left: `${100 * x}%`, top: `${100 * y}%` });
  marker.hidden = false;
}
