// Reviewing, where `interavatar review` serves the page: the clip itself, a word on it by one key, and how the screen
// stands against what people say. A page from a file shows what was said when it was written.

const PICTURE = /\.(jpe?g|png|webp|bmp|tiff?|avif)$/i;
const review = { isLive: false, reviewer: "", words: new Map(), drafts: new Map(), figures: facts.review?.figures ?? null, queue: facts.review?.queue ?? [] };

async function startReview() {
  if (location.protocol.startsWith("http")) {
    const answer = await fetch("reviews").catch(() => null);
    review.isLive = Boolean(answer?.ok);
    if (review.isLive) await startLive(await answer.json());
  }
  if (review.isLive || review.figures) {
    byId("review").hidden = byId("to-review").hidden = false;
    showFigures();
  }
}

async function startLive(said) {
  review.reviewer = sessionStorage.getItem("reviewer") || said.reviewer;
  takeWords(said);
  clipView = liveView;
  onClip = showWords;
  onKey = reviewKey;
  const name = el("input", { id: "reviewer", value: review.reviewer, maxLength: 200 });
  name.addEventListener("change", () => {
    review.reviewer = name.value.trim() || said.reviewer;
    sessionStorage.setItem("reviewer", review.reviewer); // of this tab, until it is closed
    askFigures();
  });
  const begin = el("button", { type: "button" }, "Review what tells most");
  begin.addEventListener("click", openQueue);
  byId("review").prepend(el("div", { className: "buttons" }, el("label", {}, "Reviewer ", name), begin));
  for (const [value, text] of [["reviewed", "reviewed"], ["not-reviewed", "not reviewed"], ["flagged", "flagged"]]) byId("filter-verdict").append(el("option", { value }, text));
  await askFigures();
}

function takeWords(said) {
  review.words = new Map();
  for (const word of said.words) {
    if (!review.words.has(word.sample_id)) review.words.set(word.sample_id, []);
    review.words.get(word.sample_id).push(word);
  }
}

let asking = 0;

// Ask for the figures of the screen as it is now.
async function askFigures() {
  if (!review.isLive) return;
  const mine = ++asking;
  await new Promise((done) => setTimeout(done, 200)); // while a slider moves, once it rests
  if (mine !== asking) return;
  const body = JSON.stringify({ name: facts.screen.name, rules: screenRules() });
  const ask = (path) => fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body }).then((answer) => (answer.ok ? answer.json() : null));
  const [figures, queue] = await Promise.all([ask("figures"), ask(`queue?reviewer=${encodeURIComponent(review.reviewer)}`)]);
  if (mine !== asking) return;
  review.figures = figures ?? review.figures;
  review.queue = queue ?? review.queue;
  showFigures();
}

function shareText(share) {
  if (share.value === null) return "–";
  return `${percent(share.hits, share.of)} (${percent(share.low, 1)} to ${percent(share.high, 1)}; ${share.hits} of ${share.of})`;
}

function showFigures() {
  const host = byId("review-figures"), { figures, queue } = review;
  if (!figures) return host.replaceChildren();
  const moved = review.isLive || !isMoved() ? "" : " by the run's own thresholds: to see those of moved ones, open the page with interavatar review";
  const parts = [el("p", {}, `${count(figures.reviewed)} samples are decided by reviews. Intervals are of 95 %, of the reviewed samples alone${moved}.`)];
  parts.push(table(["the screen against the reviews", ""], [
    ["precision: of the reviewed samples it keeps, those that people keep", shareText(figures.precision)],
    ["recall: of the samples that people keep, those it keeps", shareText(figures.recall)],
  ], "Precision and recall"));
  const costly = figures.reasons.filter((one) => one.wanted.of).sort((a, b) => (b.lost ?? 0) - (a.lost ?? 0));
  if (costly.length) {
    parts.push(el("h3", {}, "Which rules cost most"), table(["reason", "drops", "alone", "of these reviewed, people keep", "wanted, lost by it"],
      costly.map((one) => [words(one.reason), count(one.dropped), count(one.alone), shareText(one.wanted), one.lost === null ? "–" : `≈ ${count(one.lost)}`]), "What each rule costs"));
  }
  if (figures.pairs.length) {
    parts.push(el("h3", {}, "Reviewers among each other"), table(["reviewers", "agreement", "Cohen's kappa"],
      figures.pairs.map((one) => [`${one.first}, ${one.second}`, shareText(one.agreement), one.kappa === null ? "–" : one.kappa.toFixed(2)]), "Agreement between reviewers"));
  }
  if (queue.length) {
    const rows = queue.slice(0, 10).map((one) => [one.sample_id, one.why]);
    parts.push(el("h3", {}, `What would tell most: ${count(queue.length)} samples`), table(["sample", "why"], rows, "What to review next"));
  }
  host.replaceChildren(...parts);
}

let allNames = null;

function sampleNames() {
  allNames ??= (async () => {
    const found = [];
    for (let row = 0; row < N; row++) found.push((await texts(row)).sample_id);
    return found;
  })();
  return allNames;
}

async function openQueue() {
  const names = await sampleNames();
  const rowOf = new Map(names.map((name, row) => [name, row]));
  const rows = review.queue.map((one) => rowOf.get(one.sample_id)).filter((row) => row !== undefined);
  if (!rows.length) return;
  shown = rows;
  byId("found").textContent = `${count(rows.length)} samples that would tell most`;
  grid.show();
  byId("clips").scrollIntoView();
  openClip(rows[0], 0);
}

function liveView(row, text) {
  const address = `clip/${encodeURIComponent(text.sample_id)}`;
  const frame = el("span", { className: "marked" });
  const marker = el("span", { className: "marker", hidden: true });
  if (PICTURE.test(text.media_uri ?? text.source_uri ?? "")) {
    frame.append(el("img", { src: address, alt: `Sample ${text.sample_id}` }), marker);
  } else {
    const video = el("video", { src: address, controls: true, loop: true, playsInline: true, "aria-label": `Clip ${text.sample_id}` });
    video.addEventListener("error", () => frame.replaceChildren(el("span", { className: "none" }, "this clip cannot be played; its row says what is known")));
    if (!wantsCalm.matches) video.autoplay = true;
    frame.append(video, marker);
  }
  placeMarker(marker, row, text);
  return el("div", { className: "view" }, frame);
}

async function showWords(row, text) {
  const host = byId("clip-review"), mine = (review.words.get(text.sample_id) ?? []).filter((word) => word.reviewer === review.reviewer);
  const button = (word, key) => {
    const made = el("button", { type: "button", "aria-pressed": String(mine.some((one) => one.verdict === word)) }, `${word[0].toUpperCase()}${word.slice(1)} (${key})`);
    made.addEventListener("click", () => say(word));
    return made;
  };
  const note = el("input", { id: "note", maxLength: 2000, value: review.drafts.get(text.sample_id) ?? mine[0]?.note ?? "", placeholder: "why (t)", "aria-label": "Note" });
  note.addEventListener("input", () => review.drafts.set(text.sample_id, note.value));
  // A note alone is kept for the word that follows; of a clip that has one it is saved with it.
  note.addEventListener("change", () => { if (mine.length && drawn?.row === row) save(mine[0].verdict, false); });
  note.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    byId("clip").focus();
  });
  // Who has not spoken yet does not see what others said.
  const said = mine.length ? review.words.get(text.sample_id) : [];
  const others = said.map((word) => `${word.reviewer}: ${word.verdict}${word.note ? ` (${word.note})` : ""}`).join("; ");
  host.replaceChildren(
    el("div", { className: "buttons" }, button("keep", "k"), button("drop", "d"), button("flag", "f"), button("clear", "c"), note),
    el("p", { id: "said", role: "status" }, others),
    el("p", { className: "muted" }, "Keep and drop go on to the next clip. Space plays and stops, comma and point step by a frame, l loops."));
}

// A word on the sample that is shown; after keep and drop comes the next one.
function say(verdict) {
  return save(verdict, verdict === "keep" || verdict === "drop");
}

// Save a word with what is shown of the sample.
async function save(verdict, goesOn) {
  if (!drawn) return;
  const { row, place, text } = drawn, moved = isMoved();
  const shownVerdict = { screen: moved ? `${facts.screen.name} (moved)` : facts.screen.name, screen_hash: moved ? null : facts.screen.hash, keep: verdicts.isKept(row), drop_reasons: verdicts.dropReasons(row, text) };
  const body = { sample_id: text.sample_id, verdict, note: byId("note").value, reviewer: review.reviewer, shown: shownVerdict };
  drawn = null; // until the next one is shown, no key counts
  const answer = await fetch("reviews", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }).catch(() => null);
  if (!answer?.ok) {
    const why = answer ? (await answer.json().catch(() => ({}))).detail : "the server does not answer";
    if (openRow === row) {
      drawn = { row, place, text };
      byId("said").textContent = `not saved: ${why ?? answer.status}`;
    }
    return;
  }
  review.words.set(text.sample_id, (await answer.json()).words);
  review.drafts.delete(text.sample_id);
  byId("clip-saved").textContent = `saved: ${verdict} ${text.sample_id}`;
  askFigures();
  if (openRow !== row) return;
  if (goesOn && place >= 0 && place < shown.length - 1) stepClip(1);
  else {
    drawn = { row, place, text };
    showWords(row, text);
  }
}

function reviewKey(event) {
  const keys = { k: "keep", d: "drop", f: "flag", c: "clear" };
  const video = byId("clip-view").querySelector("video");
  if (event.key in keys) say(keys[event.key]);
  else if (event.key === "t") byId("note")?.focus();
  else if (video && event.key === " " && !event.target.matches("video")) video.paused ? video.play() : video.pause();
  else if (video && (event.key === "," || event.key === ".")) stepFrame(video, event.key === "." ? 1 : -1);
  else if (video && event.key === "l") video.loop = !video.loop;
  else return;
  event.preventDefault();
}

async function stepFrame(video, by) {
  const fps = await valueOf("fps", openRow, {}) || 25;
  video.pause();
  video.currentTime = Math.max(0, video.currentTime + by / fps);
}
