// Histograms and the scatter, drawn by uPlot when they come into view.

const BINS = 40;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(size, more = {}) {
  const line = { stroke: colour("--line"), width: 1 };
  return { stroke: colour("--text"), font: "11px system-ui", size, grid: { show: false }, ticks: { ...line, size: 4 }, border: { show: true, ...line }, ...more };
}

const charts = new Set();

// Draws something once it is near the screen, and again when its size or the colours change.
const inView = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const chart = entry.target.chart;
    chart.isVisible = entry.isIntersecting;
    if (entry.isIntersecting) chart.draw();
  }
}, { rootMargin: "300px" });

class Histogram {
  // name: of a column of numbers; lines: gives the thresholds.
  constructor(name, lines = () => []) {
    this.name = name;
    this.lines = lines;
    this.host = el("div", { className: "chart", role: "img", "aria-label": `Histogram of ${words(name)}` });
    this.host.chart = this;
    charts.add(this);
    inView.observe(this.host);
  }

  async prepare() {
    this.prepared ??= this.bin();
    return this.prepared;
  }

  async bin() {
    const values = await column(this.name);
    let least = Infinity, most = -Infinity, whole = true, known = 0;
    for (let i = 0; i < N; i++) {
      const value = values[i];
      if (!Number.isFinite(value)) continue;
      known++;
      if (value < least) least = value;
      if (value > most) most = value;
      if (whole && value !== Math.floor(value)) whole = false;
    }
    for (const line of this.lines()) {
      if (line.at !== Math.floor(line.at)) whole = false;
      if (known && line.at < least) least = line.at;
      if (known && line.at > most) most = line.at;
    }
    this.known = known;
    if (!known) { least = 0; most = 1; }
    let width;
    if (whole && most - least < BINS) { least -= 0.5; most += 0.5; width = 1; }
    else { const pad = (most - least) * 0.02 || Math.abs(most) * 0.05 || 0.5; least -= pad; most += pad; width = (most - least) / BINS; }
    const bins = Math.max(1, Math.round((most - least) / width));
    this.range = [least, most];
    // Between whole numbers the line stands beside the last one that is kept.
    this.beside = width === 1 && whole ? 0.5 : 0;
    this.middles = Array.from({ length: bins }, (_, b) => least + (b + 0.5) * width);
    this.binOf = new Uint8Array(N).fill(255);
    for (let i = 0; i < N; i++) {
      if (Number.isFinite(values[i])) this.binOf[i] = Math.min(bins - 1, Math.max(0, Math.floor((values[i] - least) / width)));
    }
  }

  counts() {
    const all = new Array(this.middles.length).fill(0), kept = new Array(this.middles.length).fill(0);
    for (let i = 0; i < N; i++) {
      const bin = this.binOf[i];
      if (bin === 255) continue;
      all[bin]++;
      if (verdicts.isKept(i)) kept[bin]++;
    }
    return [this.middles, all, kept];
  }

  async draw() {
    await this.prepare();
    const width = this.host.clientWidth;
    if (!width || !this.isVisible) return;
    const data = this.counts();
    if (this.plot && this.plot.width === width && this.theme === themeNow()) {
      this.plot.setData(data);
    } else {
      this.plot?.destroy();
      this.theme = themeNow();
      this.plot = new uPlot(this.options(width), data, this.host);
    }
    const kept = data[2].reduce((sum, value) => sum + value, 0);
    this.host.setAttribute("aria-label", `Histogram of ${words(this.name)}: ${count(this.known)} values from ${short(this.range[0])} to ${short(this.range[1])}, ${count(kept)} of them kept; ${count(N - this.known)} missing`);
  }

  options(width) {
    const bars = uPlot.paths.bars({ size: [0.9, 60], align: 0 });
    const series = (name) => ({ fill: colour(name), stroke: colour(name), width: 0, paths: bars, points: { show: false } });
    return {
      width, height: 120, legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
      scales: { x: { time: false, range: () => this.range }, y: { range: (_, least, most) => [0, most || 1] } },
      axes: [axis(24), axis(44, { values: (_, ticks) => ticks.map((t) => (t === Math.floor(t) ? String(t) : "")) })],
      series: [{}, series("--dropped-bar"), series("--kept-bar")],
      hooks: { draw: [(plot) => this.drawLines(plot)] },
    };
  }

  drawLines(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const line of this.lines()) {
      const x = Math.round(plot.valToPos(line.at + (line.bound === "min" ? -this.beside : this.beside), "x", true));
      ctx.fillStyle = colour("--threshold-shade");
      if (line.bound === "min") ctx.fillRect(bbox.left, bbox.top, Math.max(0, x - bbox.left), bbox.height);
      else ctx.fillRect(x, bbox.top, Math.max(0, bbox.left + bbox.width - x), bbox.height);
      ctx.strokeStyle = colour("--threshold");
      ctx.lineWidth = 2 * devicePixelRatio;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

class Scatter {
  constructor(host) {
    this.host = host;
    host.chart = this;
    charts.add(this);
    inView.observe(host);
    host.addEventListener("click", (event) => this.open(event));
  }

  async show(x, y) {
    this.names = [x, y];
    [this.x, this.y] = [await column(x), await column(y)];
    this.plot?.destroy();
    this.plot = null;
    await this.draw();
  }

  async draw() {
    const width = this.host.clientWidth;
    if (!this.x || !width || !this.isVisible) return;
    this.plot?.destroy();
    const bounds = (values) => {
      let least = Infinity, most = -Infinity;
      for (const value of values) {
        if (!Number.isFinite(value)) continue;
        if (value < least) least = value;
        if (value > most) most = value;
      }
      if (least > most) return [0, 1];
      const pad = (most - least) * 0.03 || 0.5;
      return [least - pad, most + pad];
    };
    const [rangeX, rangeY] = [bounds(this.x), bounds(this.y)];
    this.plot = new uPlot({
      width, height: Math.min(420, Math.max(260, width * 0.6)), legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false, range: () => rangeX }, y: { range: () => rangeY } },
      axes: [axis(44, { label: words(this.names[0]), labelSize: 20 }), axis(64, { label: words(this.names[1]), labelSize: 20 })],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [(plot) => this.points(plot)] },
    }, [rangeX, rangeY], this.host);
    let both = 0;
    for (let i = 0; i < N; i++) if (Number.isFinite(this.x[i]) && Number.isFinite(this.y[i])) both++;
    this.host.setAttribute("aria-label", `Scatter of ${words(this.names[0])} and ${words(this.names[1])}: ${count(both)} samples have both`);
  }

  points(plot) {
    const { ctx, bbox } = plot, size = (N > 5000 ? 2 : 5) * devicePixelRatio;
    const [dropped, kept, line] = [colour("--dropped"), colour("--kept"), colour("--threshold")];
    ctx.save();
    for (const pass of [false, true]) {
      ctx.fillStyle = pass ? kept : dropped;
      for (let i = 0; i < N; i++) {
        if (verdicts.isKept(i) !== pass || !Number.isFinite(this.x[i]) || !Number.isFinite(this.y[i])) continue;
        const x = plot.valToPos(this.x[i], "x", true), y = plot.valToPos(this.y[i], "y", true);
        // Shape as well as colour tells the verdict: squares are kept, upright bars dropped.
        if (pass) ctx.fillRect(x - size / 2, y - size / 2, size, size);
        else ctx.fillRect(x - size / 4, y - size / 2, size / 2, size);
      }
    }
    ctx.strokeStyle = line;
    ctx.lineWidth = devicePixelRatio;
    for (const [at, name] of this.names.entries()) {
      for (const { at: value } of linesOf(name)) {
        const position = plot.valToPos(value, at ? "y" : "x", true);
        ctx.beginPath();
        if (at) { ctx.moveTo(bbox.left, position); ctx.lineTo(bbox.left + bbox.width, position); }
        else { ctx.moveTo(position, bbox.top); ctx.lineTo(position, bbox.top + bbox.height); }
        ctx.stroke();
      }
    }
    ctx.restore();
  }

  // Open the sample nearest to a click.
  open(event) {
    if (!this.plot) return;
    const box = this.plot.over.getBoundingClientRect();
    const [atX, atY] = [event.clientX - box.left, event.clientY - box.top];
    let best = -1, least = 15 * 15;
    for (let i = 0; i < N; i++) {
      if (!Number.isFinite(this.x[i]) || !Number.isFinite(this.y[i])) continue;
      const dx = this.plot.valToPos(this.x[i], "x") - atX, dy = this.plot.valToPos(this.y[i], "y") - atY;
      if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = i; }
    }
    if (best >= 0) openClip(best);
  }
}

function linesOf(name) {
  const lines = [];
  for (const rule of rules) {
    if (rule.column !== name || !rule.on) continue;
    for (const bound of ["min", "max"]) if (rule[bound] !== null) lines.push({ at: rule[bound], bound });
  }
  return lines;
}

function themeNow() {
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function redraw() {
  for (const chart of charts) if (chart.isVisible) chart.draw();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw);
