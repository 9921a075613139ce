// One sample: its pictures, why it is kept or not, and everything that is known of it.

let openRow = -1, openPlace = -1;
let drawn = null; // the sample that the dialog shows, once it does: {row, place, text}

async function openClip(row, place = shown.indexOf(row)) {
  const dialog = byId("clip");
  openRow = row;
  openPlace = place;
  byId("clip-previous").disabled = place <= 0;
  byId("clip-next").disabled = place < 0 || place >= shown.length - 1;
  drawn = null;
  byId("clip-review").replaceChildren();
  if (!dialog.open) {
    byId("clip-title").textContent = "";
    dialog.showModal();
  }
  // Not on a button: the keys are for the clip.
  if (!dialog.contains(document.activeElement) || document.activeElement.disabled) dialog.focus();
  const text = await texts(row), verdict = await verdictText(row, text);
  const [said, scores] = [await rulesOf(row), await scoresOf(row, text)];
  if (openRow !== row) return; // another one was opened meanwhile
  byId("clip-title").textContent = text.sample_id;
  byId("clip-view").replaceChildren(clipView(row, text));
  byId("clip-verdict").replaceChildren(badge(row), " ", verdict);
  byId("clip-said").replaceChildren(...saidOf(text));
  byId("clip-rules").replaceChildren(said);
  byId("clip-scores").replaceChildren(scores);
  drawn = { row, place, text };
  onClip?.(row, text);
}

// A video where the page is served by `interavatar review`, else the strip.
let clipView = (row) => {
  const frame = stripOf(row, Math.min(360, innerHeight * 0.4));
  const play = el("button", { type: "button", className: "plain" }, "Play");
  play.addEventListener("click", () => {
    if (frame.stop) { frame.stop(); play.textContent = "Play"; } else { frame.play?.(); play.textContent = "Stop"; }
  });
  const has = verdicts.outcome[row] & HAS_STRIP;
  return el("div", { className: "view" }, frame, has ? play : "");
};
let onClip = null;

async function verdictText(row, text) {
  if (text.error) return `${text.error.stage}: ${text.error.kind}: ${text.error.message}`;
  if (text.stopped) return `stopped at ${text.stopped.stage}: ${text.stopped.reason}`;
  const reasons = verdicts.reasons(row).map(words);
  if (verdicts.outcome[row] & REVIEWED_KEEP && verdicts.isKept(row)) return "by its reviewers, whatever the rules say";
  return reasons.length ? `because of ${reasons.join(", ")}` : "";
}

function saidOf(text) {
  const parts = [];
  const line = (name, value) => { if (value) parts.push(el("p", {}, el("strong", {}, `${name}: `), value)); };
  line("Caption", text.caption);
  line("Prompt", text.interaction_prompt);
  line("Reaction", [text.reaction_action, text.reaction_emotion, text.reaction_intensity].filter(Boolean).join("; "));
  line("Description", text.interaction_description);
  if (text.regions?.length) line("Visible regions", text.regions.map((one) => words(one.region)).join(", "));
  if (text.reactions?.length) {
    parts.push(table(["region", "touch", "action", "emotion"], text.reactions.map((one) => [words(one.region ?? "–"), words(one.interaction_type ?? "–"), one.action ?? "–", one.emotion ?? "–"]), "Reactions"));
  }
  line("File", text.source_uri);
  if (text.error?.traceback) parts.push(el("details", {}, el("summary", {}, "Traceback"), el("pre", {}, text.error.traceback)));
  return parts;
}

async function rulesOf(row) {
  const rows = [];
  for (const [r, rule] of rules.entries()) {
    const value = await valueOf(rule.column, row, await texts(row));
    const shownValue = typeof value === "number" ? short(value) : value === "" ? "–" : String(value);
    const said = !rule.on ? "switched off" : verdicts.failing[r][row] ? "dropped by it" : value === "" ? "not judged" : "passes";
    rows.push({ bad: verdicts.failing[r][row], cells: [words(rule.reason), [el("code", {}, rule.column)], [shownValue], [boundText(rule)], [said]] });
  }
  rows.sort((a, b) => b.bad - a.bad);
  const made = table(["rule", "column", "value", "keeps", ""], rows.map((one) => one.cells), "What the screen's rules say of this sample");
  [...made.querySelectorAll("tbody tr")].forEach((tr, at) => tr.classList.toggle("bad", Boolean(rows[at].bad)));
  return made;
}

async function scoresOf(row, text) {
  const list = el("dl");
  for (const [name, about] of Object.entries(facts.columns)) {
    const value = await valueOf(name, row, text);
    if (value === "") continue;
    list.append(el("dt", { title: about.meaning ?? "" }, words(name)), el("dd", {}, `${typeof value === "number" ? short(value) : value}${about.unit ? ` ${about.unit}` : ""}`));
  }
  return list;
}

function stepClip(by) {
  const place = openPlace + by;
  if (openPlace < 0 || place < 0 || place >= shown.length) return;
  openClip(shown[place], place);
}

function buildDialog() {
  const dialog = byId("clip");
  byId("clip-close").addEventListener("click", () => dialog.close());
  byId("clip-previous").addEventListener("click", () => stepClip(-1));
  byId("clip-next").addEventListener("click", () => stepClip(1));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { byId("clip-view").replaceChildren(); if (openPlace >= 0) grid.focus(openPlace); });
  document.addEventListener("keydown", (event) => {
    if (!dialog.open) return;
    // A button that still has the focus from a click must not take the key that plays.
    if (event.key === " " && onKey && event.target.closest("#clip") && !event.target.matches("input, video")) event.preventDefault();
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n" || event.key === "ArrowRight" && !event.target.matches("video")) stepClip(1);
    else if (event.key === "p" || event.key === "ArrowLeft" && !event.target.matches("video")) stepClip(-1);
    else onKey?.(event);
  });
}

let onKey = null;
