// Shows frames as they come, at the clip's rate or slower, and sends what is done to the avatar.
const element = (id) => document.getElementById(id);
const [canvas, status] = [element("picture"), element("status")];
const picture = canvas.getContext("2d");
const facts = await (await fetch("facts")).json();

let session = null; // number of the one that is watched
let ending = null; // AbortController of its frames
let begunAt = 0;
let waiting = []; // frames to be shown: [facts, ImageBitmap]
let isFirst = true;
let dueAt = 0;
let touched = null; // {number, at}: a touch whose reaction has not been seen
let cross = [0.5, 0.5];
let shownTimes = [];
let sound = null; // AudioBuffer of the recording that is heard
let audio = null; // AudioContext
let spoken = null; // what the microphone needs

function say(text, isWrong = false) {
  status.textContent = text;
  status.classList.toggle("wrong", isWrong);
}

const seconds = (value) => `${value.toFixed(2)} s`;

async function send(path, body, type) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": type }, body });
  if (!answer.ok) throw new Error((await answer.json()).detail ?? answer.statusText);
  return answer.status === 204 ? null : answer.json();
}

const tell = (path, values) => send(path, JSON.stringify({ session, ...values }), "application/json");

// --- frames

async function begin() {
  begunAt = performance.now();
  [isFirst, dueAt, touched, waiting, shownTimes] = [true, 0, null, [], []];
  element("begin").disabled = true;
  say("The avatar is getting ready.");
  ending = new AbortController();
  try {
    const answer = await fetch("begin", { method: "POST", signal: ending.signal });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    session = Number(answer.headers.get("X-Session"));
    watching(true);
    if (facts.has_sound) await play(await given());
    await read(answer.body.getReader());
    say("The server has ended.", true);
  } catch (error) {
    if (error.name === "AbortError") say("Ended.");
    else say(error.message, true);
  }
  session = null;
  watching(false);
}

async function read(reader) {
  let bytes = new Uint8Array(0);
  const enough = async (count) => {
    while (bytes.length < count) {
      const { done, value } = await reader.read();
      if (done) return false;
      const longer = new Uint8Array(bytes.length + value.length);
      longer.set(bytes);
      longer.set(value, bytes.length);
      bytes = longer;
    }
    return true;
  };
  const part = async () => {
    if (!(await enough(4))) return null;
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    if (!(await enough(4 + length))) return null;
    const found = bytes.slice(4, 4 + length);
    bytes = bytes.slice(4 + length);
    return found;
  };
  for (;;) {
    const [head, jpeg] = [await part(), await part()];
    if (head === null || jpeg === null) return;
    const frame = JSON.parse(new TextDecoder().decode(head));
    if (frame.error) throw new Error(frame.error);
    waiting.push([frame, await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }))]);
  }
}

function paint(now) {
  requestAnimationFrame(paint);
  if (session === null || !waiting.length || now < dueAt) return;
  dueAt = Math.max(dueAt + 1000 / facts.fps, now);
  const [frame, image] = waiting.shift();
  picture.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  const seen = {};
  if (isFirst) {
    isFirst = false;
    seen.first_ms = performance.now() - begunAt;
    element("first").textContent = `${Math.round(seen.first_ms)} ms`;
    say("Touch the avatar, or speak to it.");
  }
  if (touched && frame.touches >= touched.number) {
    [seen.touch, seen.reaction_ms] = [touched.number, performance.now() - touched.at];
    element("reaction").textContent = `${Math.round(seen.reaction_ms)} ms`;
    say("The avatar knows of the touch.");
    touched = null;
  }
  if (frame.sound && sound) hearBlock(frame.sound);
  figures(frame, now);
  if (frame.frame === frame.last || frame.frame % facts.every === 0 || seen.touch) {
    tell("seen", { frame: frame.frame, ...seen }).catch(() => {});
  }
}

function figures(frame, now) {
  element("frames").textContent = frame.last + 1;
  if (frame.frames_per_second) element("rate").textContent = frame.frames_per_second.toFixed(1);
  shownTimes = [...shownTimes, now].slice(-33);
  if (shownTimes.length > 8) {
    const apart = (now - shownTimes[0]) / (shownTimes.length - 1);
    element("shown").textContent = (1000 / apart).toFixed(1);
  }
}

// --- touches

function kind() {
  return document.querySelector("input[name=kind]:checked").value;
}

async function touch(x, y) {
  if (session === null) return;
  const at = performance.now();
  place(element("ring"), x, y);
  try {
    const { touch: number } = await tell("touch", { x, y, kind: kind() });
    touched = { number, at };
    say(`${kind()}: waiting for the next block.`);
  } catch (error) {
    say(error.message, true);
  }
}

function place(mark, x, y) {
  mark.hidden = false;
  mark.style.left = `${100 * x}%`;
  mark.style.top = `${100 * y}%`;
}

canvas.addEventListener("click", (event) => {
  const box = canvas.getBoundingClientRect();
  const share = (value, size) => Math.min(1, Math.max(0, value / size));
  cross = [share(event.clientX - box.left, box.width), share(event.clientY - box.top, box.height)];
  touch(...cross);
});

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const move = MOVES[event.key];
  if (move) cross = cross.map((value, axis) => Math.min(1, Math.max(0, value + 0.02 * move[axis])));
  else if (event.key === "Enter" || event.key === " ") touch(...cross);
  else return;
  event.preventDefault();
  place(element("cross"), ...cross);
});
canvas.addEventListener("blur", () => { element("cross").hidden = true; });

// --- sound

const context = () => (audio ??= new AudioContext({ sampleRate: facts.rate }));

async function given() {
  const samples = new Float32Array(await (await fetch("sound")).arrayBuffer());
  const buffer = context().createBuffer(1, Math.max(1, samples.length), facts.rate);
  buffer.copyToChannel(samples, 0);
  return buffer;
}

async function play(buffer) {
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((sample, i) => { mono[i] += sample / buffer.numberOfChannels; });
  }
  await quiet();
  await send(`hear?session=${session}`, mono, "application/octet-stream");
  sound = buffer;
}

// Each block's part of the recording, with its first frame: pictures that come late keep their sound.
function hearBlock([from, to]) {
  const source = context().createBufferSource();
  source.buffer = sound;
  source.connect(context().destination);
  source.start(0, from, to - from);
}

async function speak() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  await context().audioWorklet.addModule("microphone.js");
  const [source, node] = [context().createMediaStreamSource(stream), new AudioWorkletNode(context(), "microphone")];
  let sent = Promise.resolve();
  node.port.onmessage = ({ data }) => {
    // One after the other, so that they arrive in order.
    sent = sent.then(() => send(`hear?session=${session}&live=1`, data, "application/octet-stream")).catch(() => {});
  };
  source.connect(node);
  sound = null;
  spoken = { stream, source };
  element("microphone").setAttribute("aria-pressed", "true");
}

async function quiet() {
  spoken?.source.disconnect();
  spoken?.stream.getTracks().forEach((track) => track.stop());
  spoken = null;
  element("microphone").setAttribute("aria-pressed", "false");
}

// --- the page

function watching(is) {
  element("begin").disabled = is;
  element("end").disabled = !is;
  element("microphone").disabled = element("file").disabled = !is || !facts.hears;
  if (!is) {
    quiet();
    element("ring").hidden = true;
  }
}

const failing = (act) => (...given) => act(...given).catch((error) => say(error.message, true));
element("begin").addEventListener("click", begin);
element("end").addEventListener("click", () => ending.abort());
element("microphone").addEventListener("click", failing(() => (spoken ? quiet() : speak())));
element("file").addEventListener("change", failing(async ({ target }) => {
  if (target.files.length) await play(await context().decodeAudioData(await target.files[0].arrayBuffer()));
}));

for (const [number, { type, verb }] of facts.kinds.entries()) {
  const [label, input] = [document.createElement("label"), document.createElement("input")];
  Object.assign(input, { type: "radio", name: "kind", value: type, checked: !number });
  label.append(input, ` ${verb}`);
  element("kinds").append(label);
}
for (const note of facts.notes) {
  const item = document.createElement("li");
  item.textContent = note;
  element("notes").append(item);
}
[canvas.width, canvas.height] = [facts.width, facts.height];
element("view").style.maxWidth = `calc(80vh * ${facts.width / facts.height})`;
picture.drawImage(await createImageBitmap(await (await fetch("portrait.jpg")).blob()), 0, 0);
requestAnimationFrame(paint);
watching(false);
say("Begin starts the avatar.");
document.body.dataset.ready = "";
