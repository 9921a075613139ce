// The tables: funnel, reasons and their overlaps, groups, coverage, errors, time.

function table(head, rows, caption) {
  const body = el("tbody");
  for (const row of rows) {
    const tr = el("tr");
    for (const [at, cell] of row.entries()) {
      const isNumber = typeof cell === "string" && /^[≈\d–]/.test(cell) && at > 0;
      const made = at === 0 ? el("th", { scope: "row" }) : el("td", isNumber ? { className: "n" } : {});
      made.append(...(Array.isArray(cell) ? cell : [cell]));
      tr.append(made);
    }
    body.append(tr);
  }
  const isNumbers = (at) => rows.length > 0 && rows.every((row) => typeof row[at] === "string" && /^[≈\d–]/.test(row[at]));
  const top = el("tr", {}, ...head.map((name, at) => el("th", { scope: "col", className: at && isNumbers(at) ? "n" : "" }, name)));
  return el("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption }, el("table", {}, el("caption", { className: "hidden" }, caption), el("thead", {}, top), body));
}

function bar(share) {
  const inside = el("span", { className: "fill" });
  inside.style.width = `${Math.min(100, 100 * share)}%`;
  return el("span", { className: "bar", "aria-hidden": "true" }, inside);
}

function showFunnel() {
  const exact = !isMoved();
  const rows = [], idle = [];
  let before = facts.total;
  for (const [s, step] of facts.steps.entries()) {
    const left = exact ? step.left : counted.steps[s].left * SHARE, seconds = exact ? step.seconds : counted.steps[s].seconds * SHARE;
    const isRule = step.name.startsWith("not ") && s < facts.steps.length - 1 && s > 3;
    const row = [isRule ? `after “${words(step.name.slice(4))}”` : words(step.name), [bar(facts.total ? left / facts.total : 0)], exact ? count(left) : ofRun(counted.steps[s].left), percent(left, facts.total)];
    if (facts.has_seconds) row.push(hours(seconds));
    if (isRule && left === before) idle.push(words(step.name.slice(4)));
    else rows.push(row);
    before = left;
  }
  const head = ["step", "", "samples left", "of all"];
  if (facts.has_seconds) head.push("length");
  const nobody = idle.length ? el("p", { className: "muted" }, `No sample fell at these steps: ${idle.join(", ")}.`) : "";
  byId("funnel").replaceChildren(table(head, rows, "Samples left after each step"), nobody);
}

// Reason -> rules of it; those of the outcome (errors, stops) have none.
function showReasons() {
  const tally = new Map();
  for (let i = 0; i < N; i++) {
    for (const reason of verdicts.reasons(i)) {
      const found = tally.get(reason) ?? { all: 0, alone: 0 };
      found.all++;
      if (verdicts.onlyReason(i) === reason) found.alone++;
      tally.set(reason, found);
    }
  }
  const exact = new Map(facts.reasons);
  const seen = [...tally.entries()].sort((a, b) => b[1].all - a[1].all);
  const rows = seen.map(([reason, found]) => {
    const about = rules.filter((rule) => rule.reason === reason).map((rule) => `${rule.column} ${boundText(rule)}`).join("; ");
    // A null that a rule needs is a reason of its own in the manifest.
    const number = !isMoved() && exact.has(reason) && !hasMissing(reason) ? count(exact.get(reason)) : ofRun(found.all);
    return [words(reason), about || (reason === "stand_in" ? "made by a stand-in, which is no generator" : "dropped in review"),
      [bar(found.all / N)], number, found.alone ? [filterButton(ofRun(found.alone), { reason: `alone-of:${reason}` })] : "0", [filterButton("show", { reason })]];
  });
  for (const [reason, number] of facts.reasons) {
    // So rare that this page's sample has none of them.
    const isRare = !isMoved() && !tally.has(reason) && rules.some((rule) => rule.reason === reason);
    if (isRare) rows.push([words(reason), "", [bar(number / facts.total)], count(number), "–", ""]);
    const [kind, stage] = reason.split(":");
    if (stage !== undefined && (kind === "error" || kind === "stopped")) {
      rows.push([kind === "error" ? `error in ${stage}` : `stopped at ${stage}`, kind === "error" ? "see Errors" : "a gate ended the work early",
        [bar(number / facts.total)], count(number), "–", [filterButton("show", kind === "error" ? { verdict: "error" } : { reason: "stopped" })]]);
    }
  }
  byId("reasons").replaceChildren(rows.length ? table(["reason", "rule", "", "samples", "by it alone", ""], rows, "Why samples are dropped") : el("p", {}, "Nothing is dropped."));
  showOverlaps(seen.slice(0, MOST_OVERLAPS).map(([reason]) => reason), seen.length);
}

function hasMissing(reason) {
  return rules.some((rule) => rule.reason === reason && facts.reasons.some(([name]) => name === `missing:${rule.column}`));
}

const MOST_OVERLAPS = 12;

function showOverlaps(names, all) {
  const host = byId("overlaps");
  if (names.length < 2) return host.replaceChildren(el("p", { className: "muted" }, "No sample has two reasons."));
  const both = names.map(() => new Array(names.length).fill(0));
  for (let i = 0; i < N; i++) {
    const places = verdicts.reasons(i).map((reason) => names.indexOf(reason)).filter((place) => place >= 0);
    for (const a of places) for (const b of places) both[a][b]++;
  }
  const rows = names.map((name, a) => [words(name), ...names.map((_, b) => {
    const cell = el("span", { className: "heat" }, both[a][b] ? ofRun(both[a][b]) : "·");
    cell.style.setProperty("--heat", String(both[a][a] ? both[a][b] / both[a][a] : 0));
    return [cell];
  })]);
  const note = all > names.length ? el("p", { className: "muted" }, `The ${names.length} most frequent of ${all} reasons.`) : "";
  return host.replaceChildren(note, table(["and", ...names.map(words)], rows, "Samples that have both reasons"));
}

let groupColumn = "";

async function showGroups() {
  const host = byId("groups");
  if (!groupColumn) return;
  const name = groupColumn, values = await column(name), about = facts.columns[name];
  if (name !== groupColumn) return;
  const found = new Map();
  for (let i = 0; i < N; i++) {
    const value = about.kind === "bool" ? { 0: "no", 1: "yes" }[values[i]] ?? "–" : about.dictionary[values[i]] ?? "–";
    const row = found.get(value) ?? { kept: 0, dropped: 0, error: 0 };
    row[verdicts.verdict(i)]++;
    found.set(value, row);
  }
  const sum = (row) => row.kept + row.dropped + row.error;
  const rows = [...found.entries()].sort((a, b) => sum(b[1]) - sum(a[1])).slice(0, 100).map(([value, row]) =>
    [value, [bar(row.kept / sum(row))], percent(row.kept, sum(row)), ofRun(row.kept), ofRun(row.dropped), ofRun(row.error)]);
  host.replaceChildren(table([words(name), "", "kept share", "kept", "dropped", "errors"], rows, `Verdicts by ${words(name)}`));
}

function buildGroups() {
  const choice = byId("group-by");
  // Not what is another thing of every sample.
  const singular = ["sample_id", "parent_id", "source_uri", "media_uri", "content_hash", "caption"];
  const names = Object.keys(facts.columns).filter((name) => facts.columns[name].kind !== "number" && !singular.includes(name));
  const first = ["source", ...facts.own_columns, "interaction_type", "licence"].filter((name) => names.includes(name));
  const order = [...new Set([...first, ...names])];
  for (const name of order) choice.append(el("option", { value: name }, words(name)));
  groupColumn = order[0] ?? "";
  choice.addEventListener("change", () => { groupColumn = choice.value; showGroups(); });
}

function buildCoverage() {
  const host = byId("coverage-table");
  if (!facts.coverage.length) {
    byId("coverage").hidden = byId("to-coverage").hidden = true;
    return;
  }
  const regions = [...new Set(facts.coverage.map((one) => one.region))];
  const types = [...new Set(facts.coverage.map((one) => one.type))];
  const at = new Map(facts.coverage.map((one) => [`${one.region}\n${one.type}`, one]));
  const most = Math.max(...facts.coverage.map((one) => one.samples));
  const rows = regions.map((region) => [words(region), ...types.map((type) => {
    const one = at.get(`${region}\n${type}`);
    const cell = el("span", { className: "heat" }, one ? `${count(one.kept)} / ${count(one.samples)}` : "·");
    cell.style.setProperty("--heat", String(one ? one.samples / most : 0));
    return [cell];
  })]);
  host.append(table(["region", ...types.map(words)], rows, "Kept and all, of each region and type of touch"));
}

function buildErrors() {
  const host = byId("errors-table");
  if (!facts.errors.length) return host.append(el("p", {}, "No sample ended in an error."));
  const rows = facts.errors.map((error) => [count(error.count), error.stage, error.message, error.first]);
  return host.append(table(["samples", "stage", "message", "such as"], rows.map(([number, ...rest]) => [rest[0], number, rest[1], rest[2]]).map(([stage, number, message, first]) => [stage, number, message, [el("code", {}, first)]]), "Errors by stage and message"));
}

function buildTime() {
  const host = byId("time-table"), stages = facts.stages;
  if (!stages.length) return void host.append(el("p", {}, "The run has not finished a pass yet."));
  const total = stages.reduce((sum, stage) => sum + stage.seconds, facts.decode_seconds);
  const line = (name, computed, reused, errors, seconds) => [words(name), count(computed), count(reused), count(errors), hours(seconds), computed ? `${(1000 * seconds / computed).toFixed(1)} ms` : "–", [bar(total ? seconds / total : 0)]];
  const rows = [...stages].sort((a, b) => b.seconds - a.seconds).map((stage) => line(stage.name, stage.computed, stage.reused, stage.errors, stage.seconds));
  if (facts.decode_seconds) rows.unshift(["decoding, shared by all", "–", "–", "–", hours(facts.decode_seconds), "–", [bar(facts.decode_seconds / total)]]);
  host.append(table(["stage", "computed", "reused", "errors", "time", "a sample", ""], rows, "Time of each stage, summed over workers"));
  if (facts.cost) host.append(el("p", {}, facts.cost));
}

function buildScores() {
  const names = Object.keys(facts.columns).filter((name) => facts.columns[name].kind === "number");
  const host = byId("score-charts");
  for (const name of names) {
    const about = facts.columns[name];
    const missing = el("p", { className: "figures" });
    const chart = new Histogram(name, () => linesOf(name));
    host.append(el("article", { className: "score" }, el("h3", {}, words(name)), el("p", { className: "muted" }, [about.meaning.replace(/\.$/, ""), about.unit].filter(Boolean).join("; ")), chart.host, missing));
    missing.textContent = about.missing ? `${ofRun(about.missing)} missing (${percent(about.missing, N)})` : "none missing";
  }
  byId("find-score").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const [at, article] of [...host.children].entries()) {
      article.hidden = !`${names[at]} ${words(names[at])} ${facts.columns[names[at]].meaning ?? ""}`.toLowerCase().includes(wanted);
    }
  });
  const scatter = new Scatter(byId("scatter-plot"));
  // At first the two scores that drop most.
  const order = rules.map((_, r) => r).sort((a, b) => counted.broken[b] - counted.broken[a]);
  const judged = [...new Set(order.map((r) => rules[r].column))].filter((name) => names.includes(name));
  const [x, y] = [byId("scatter-x"), byId("scatter-y")];
  for (const name of names) {
    x.append(el("option", { value: name }, words(name)));
    y.append(el("option", { value: name }, words(name)));
  }
  x.value = judged[0] ?? names[0] ?? "";
  y.value = judged.find((name) => name !== x.value) ?? names[1] ?? x.value;
  const show = () => { if (names.length) scatter.show(x.value, y.value); };
  x.addEventListener("change", show);
  y.addEventListener("change", show);
  show();
}
