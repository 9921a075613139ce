// What the page carries: facts as JSON, columns as deflated arrays, and texts in chunks. Columns are read when they are
// first asked for.

const facts = JSON.parse(document.getElementById("facts").textContent);
const N = facts.shown;
const ARRAYS = { Uint8: Uint8Array, Uint16: Uint16Array, Int16: Int16Array, Int32: Int32Array, Float32: Float32Array, Float64: Float64Array };
const NONE = { Uint8: 255, Uint16: 65535, Int16: -32768, Int32: -2147483648 };
// A page of many rows stands for more of them: what is counted here is multiplied by this.
const SHARE = N ? facts.total / N : 1;

async function inflated(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

const read = new Map();

// A column's values: numbers as floats with NaN for null, true and false as 1 and 0 with 255, texts as places in their
// dictionary with 65535.
function column(name) {
  if (!read.has(name)) read.set(name, readColumn(facts.columns[name]));
  return read.get(name);
}

async function readColumn(about) {
  const raw = new ARRAYS[about.type](await inflated(about.id));
  if (about.kind !== "number" || about.type.startsWith("Float")) return raw;
  const values = new Float64Array(N), none = NONE[about.type];
  for (let i = 0; i < N; i++) {
    const value = raw[i];
    values[i] = value === none ? NaN : value / about.scale;
  }
  return values;
}

const chunks = new Map();

// What is said of a sample: id, address, caption, errors, regions, reactions.
async function texts(row) {
  const number = Math.floor(row / facts.text_chunk);
  if (!chunks.has(number)) {
    chunks.set(number, inflated(`texts-${number}`).then((data) => JSON.parse(new TextDecoder().decode(data))));
  }
  return (await chunks.get(number))[row % facts.text_chunk];
}

let haystacks = null;

// Of each sample all texts in one, in small letters, for the search.
function searchable() {
  haystacks ??= (async () => {
    const found = [];
    for (let row = 0; row < N; row++) found.push(wordsOf(await texts(row)).toLowerCase());
    return found;
  })();
  return haystacks;
}

function wordsOf(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "object") return Object.values(value).map(wordsOf).join("\n");
  return String(value);
}

// A part of the page: el("p", {className: "muted"}, "text", other). Texts are never read as HTML.
function el(tag, properties = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...inside.filter((part) => part !== null && part !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

function count(number) {
  return Math.round(number).toLocaleString("en");
}

// A count of this page's rows as one of the run's.
function ofRun(rows) {
  return facts.is_sample ? `≈ ${count(rows * SHARE)}` : count(rows);
}

function hours(seconds) {
  if (seconds >= 36000) return `${count(seconds / 3600)} h`;
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
  if (seconds >= 60) return `${(seconds / 60).toFixed(1)} min`;
  return `${seconds.toFixed(1)} s`;
}

function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function percent(part, whole) {
  return whole ? `${(100 * part / whole).toFixed(part && part / whole < 0.1 ? 1 : 0)} %` : "–";
}

// The name of a column or reason in words.
function words(name) {
  return name.replaceAll("_", " ");
}
