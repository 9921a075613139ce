// Verdicts by moved thresholds: the same rules as manifests/screen.py, counted over the rows of this page.

const JUDGED = 0, STOPPED = 1, FAILED = 2; // the low bits of `outcome`
const STAND_IN = 4, REVIEWED_KEEP = 8, REVIEWED_DROP = 16, HAS_STRIP = 32, UNDECODABLE = 64;
const PASSES = 0, BREAKS = 1, MISSING = 2; // what a rule says of a row

const rules = facts.rules.map((rule) => ({ ...rule, on: true, was: { min: rule.min, max: rule.max } }));

const verdicts = {
  outcome: null, // of each row
  states: [], // of each rule, by the thresholds that the run was judged by
  now: [], // the same by the thresholds as they are now
  failing: [], // of each rule: 1 where it drops the row
  values: [], // of each rule whose thresholds were moved: its column
  fails: new Uint16Array(N), // how many rules drop the row
  before: new Uint8Array(N), // 1 where the row is kept by the run's own screen
  seconds: null,

  async start() {
    this.outcome = new Uint8Array(await inflated("outcome"));
    for (let r = 0; r < rules.length; r++) {
      this.states.push(new Uint8Array(await inflated(`rule-${r}`)));
      this.failing.push(new Uint8Array(N));
      this.fill(r, this.states[r]);
    }
    if (facts.columns.seconds) this.seconds = await column("seconds");
    for (let i = 0; i < N; i++) this.before[i] = this.isKept(i) ? 1 : 0;
  },

  fill(r, states) {
    this.now[r] = states;
    const { failing, fails, outcome } = this, dropsMissing = rules[r].missing === "drop";
    for (let i = 0; i < N; i++) {
      const state = states[i];
      const is = rules[r].on && !(outcome[i] & REVIEWED_KEEP) && (state === BREAKS || (state === MISSING && dropsMissing && (outcome[i] & 3) === JUDGED));
      fails[i] += (is ? 1 : 0) - failing[r][i];
      failing[r][i] = is ? 1 : 0;
    }
  },

  // Apply a rule as it is now.
  async change(r) {
    const rule = rules[r];
    if (rule.min === rule.was.min && rule.max === rule.was.max) return this.fill(r, this.states[r]);
    this.values[r] ??= await column(rule.column);
    const values = this.values[r], states = new Uint8Array(N);
    for (let i = 0; i < N; i++) {
      const value = values[i];
      if (Number.isNaN(value)) states[i] = MISSING;
      else if ((rule.min !== null && value < rule.min) || (rule.max !== null && value > rule.max)) states[i] = BREAKS;
    }
    return this.fill(r, states);
  },

  isKept(i) {
    const outcome = this.outcome[i];
    if ((outcome & 3) !== JUDGED || outcome & (STAND_IN | REVIEWED_DROP)) return false;
    return Boolean(outcome & REVIEWED_KEEP) || this.fails[i] === 0;
  },

  verdict(i) {
    return (this.outcome[i] & 3) === FAILED ? "error" : this.isKept(i) ? "kept" : "dropped";
  },

  // 1: would enter the kept ones, -1: would leave them.
  changed(i) {
    return (this.isKept(i) ? 1 : 0) - this.before[i];
  },

  // Why a row is dropped, each reason once; a missing value counts as its rule's reason. Errors and stops are texts.
  reasons(i) {
    const found = [];
    if (this.outcome[i] & STAND_IN) found.push("stand_in");
    if (this.outcome[i] & REVIEWED_DROP) found.push("review");
    for (let r = 0; r < rules.length; r++) if (this.failing[r][i]) found.push(rules[r].reason);
    return [...new Set(found)];
  },

  // The reason that alone keeps a row from being kept, "" where there is none.
  onlyReason(i) {
    const found = (this.outcome[i] & 3) === JUDGED ? this.reasons(i) : [];
    return found.length === 1 ? found[0] : "";
  },

  // As the manifest's drop_reasons has them.
  dropReasons(i, text) {
    const found = [];
    if (text.error) found.push(`error:${text.error.stage}`);
    if (text.stopped) found.push(`stopped:${text.stopped.stage}`);
    if (this.outcome[i] & STAND_IN) found.push("stand_in");
    if (this.outcome[i] & REVIEWED_DROP) found.push("review");
    for (let r = 0; r < rules.length; r++) {
      if (this.failing[r][i]) found.push(this.now[r][i] === MISSING ? `missing:${rules[r].column}` : rules[r].reason);
    }
    return [...new Set(found)];
  },

  // Whether this rule alone keeps a row from being kept.
  isAlone(r, i) {
    const hindered = this.outcome[i] & (3 | STAND_IN | REVIEWED_DROP | REVIEWED_KEEP);
    return this.failing[r][i] === 1 && this.fails[i] === 1 && !hindered;
  },

  // All that the page counts.
  count() {
    const steps = new Float64Array(facts.steps.length + 1), seconds = new Float64Array(facts.steps.length + 1);
    const found = { kept: 0, entered: 0, left: 0, seconds: 0, broken: [], alone: [], steps: [] };
    for (let r = 0; r < rules.length; r++) {
      let broken = 0, alone = 0;
      for (let i = 0; i < N; i++) {
        if (!this.failing[r][i]) continue;
        broken++;
        if (this.isAlone(r, i)) alone++;
      }
      found.broken.push(broken);
      found.alone.push(alone);
    }
    for (let i = 0; i < N; i++) {
      const is = this.isKept(i), length = this.seconds ? this.seconds[i] || 0 : 0;
      if (is) { found.kept++; found.seconds += length; }
      if (is && !this.before[i]) found.entered++;
      if (!is && this.before[i]) found.left++;
      const step = is ? facts.steps.length : this.step(i);
      steps[step]++;
      seconds[step] += length;
    }
    let left = N, length = this.seconds ? this.seconds.reduce((sum, value) => sum + (value || 0), 0) : 0;
    for (let s = 0; s < facts.steps.length; s++) {
      left -= steps[s];
      length -= seconds[s];
      found.steps.push({ left, seconds: length });
    }
    return found;
  },

  // At which step of the funnel a row falls that is not kept.
  step(i) {
    const outcome = this.outcome[i], at = facts.step_of;
    if ((outcome & 3) === FAILED) return outcome & UNDECODABLE ? at.decodable : at.error;
    if ((outcome & 3) === STOPPED) return at.stopped;
    if (outcome & STAND_IN) return at.stand_in;
    let first = at.review;
    if (!(outcome & REVIEWED_KEEP)) {
      for (let r = 0; r < rules.length; r++) {
        if (this.failing[r][i]) first = Math.min(first, rules[r].step);
      }
    }
    return first;
  },
};

function isMoved() {
  return rules.some((rule) => !rule.on || rule.min !== rule.was.min || rule.max !== rule.was.max);
}

// The screen as it is now, as a file that `interavatar screen --screen FILE` reads. JSON's texts are YAML's, too.
function screenYaml(name) {
  const lines = [`name: ${JSON.stringify(name)}`];
  lines.push(`description: ${JSON.stringify(`${facts.screen.name} with thresholds moved in the report of run ${facts.run.run_id}`)}`);
  const kept = screenRules();
  lines.push(kept.length ? "rules:" : "rules: []");
  for (const given of kept) {
    const parts = Object.entries(given).map(([key, value]) => `${key}: ${yamlValue(value)}`);
    lines.push(`  - {${parts.join(", ")}}`);
  }
  return `${lines.join("\n")}\n`;
}

function screenRules() {
  return rules.filter((rule) => rule.on).map((rule) => {
    const given = { reason: rule.reason, column: rule.column };
    if (rule.min !== null) given.min = rule.min;
    if (rule.max !== null) given.max = rule.max;
    Object.assign(given, rule.other);
    if (rule.missing === "pass") given.missing = "pass";
    const source = sourceOf(rule);
    if (source) given.source = source;
    return given;
  });
}

function sourceOf(rule) {
  if (rule.min === rule.was.min && rule.max === rule.was.max) return rule.source;
  const before = ["min", "max"].filter((bound) => rule.was[bound] !== null).map((bound) => `${bound} ${rule.was[bound]}`);
  return `Moved in a report; before ${before.join(", ")}${rule.source ? ` (${rule.source})` : ""}`;
}

function yamlValue(value) {
  if (typeof value !== "number") return JSON.stringify(value);
  const text = String(value);
  return /e/.test(text) && !text.includes(".") ? text.replace("e", ".0e") : text;
}
