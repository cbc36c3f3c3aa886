// Plays a world: keys and fingers go to the server, its pictures come back. The form of both is told in play_app.py.
"use strict";
const $ = (id) => document.getElementById(id);
// Beside this page, which another server may have below an address of its own.
const socket = new WebSocket(new URL("play", location.href.replace(/^http/, "ws")));
socket.binaryType = "arraybuffer";
// Alone it is the first page of its server; the studio has it below an address of its own.
$("back").hidden = location.pathname === "/";

let facts = null; // of the world
let latest = null; // the picture that came last and is not drawn yet
let paused = true;
let seed = 0;
let curve = []; // pixels that the dream's player is off at each step
let presses = 0; // counted, so that the picture that answers one is known
const asked = new Map(); // by the number of a press: when it was made, milliseconds
const held = new Map(); // by button: what holds it down, keys and fingers

const send = (order) => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(order)); };

// ---- Buttons that are held

function hold(button, by, when) {
  const holders = held.get(button) ?? new Set();
  const first = holders.size === 0;
  holders.add(by);
  held.set(button, holders);
  if (!first) return;
  presses += 1;
  asked.set(presses, when);
  setPaused(false);
  send({ do: "press", button, number: presses });
  mark(button, true);
}

function letGo(button, by) {
  const holders = held.get(button);
  if (!holders?.delete(by) || holders.size) return;
  send({ do: "release", button });
  mark(button, false);
}

function letGoOfAll() {
  for (const button of held.keys()) mark(button, false);
  held.clear();
  send({ do: "release all" });
}

function mark(button, down) {
  for (const part of document.querySelectorAll("[data-button]")) {
    if (part.dataset.button === button) part.classList.toggle("held", down);
  }
}

// ---- The keyboard

const acts = { KeyP: () => pause(), Space: () => pause(), KeyR: () => begin(seed), KeyN: () => begin(seed + 1), KeyV: () => save() };
const typing = (event) => event.target.closest("input:not([type=checkbox]), select, textarea") !== null;

addEventListener("keydown", (event) => {
  if (!facts || event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
  // A button that has the focus is pressed by the space bar, as everywhere.
  if (event.code === "Space" && event.target.closest("button, summary, input")) return;
  const button = facts.keys[event.code];
  if (button !== undefined) {
    event.preventDefault();
    if (!event.repeat) hold(button, event.code, event.timeStamp);
  } else if (acts[event.code] && !event.repeat && !event.shiftKey) {
    event.preventDefault();
    acts[event.code]();
  }
});
addEventListener("keyup", (event) => {
  const button = facts?.keys[event.code];
  if (button !== undefined) letGo(button, event.code);
});
addEventListener("blur", letGoOfAll);
document.addEventListener("visibilitychange", () => { if (document.hidden) pause(true); });

// ---- Buttons on the screen

const arrows = { up: "↑", down: "↓", left: "←", right: "→" };

function makePad() {
  for (const button of facts.buttons) {
    if (button === facts.idle) continue;
    const part = document.createElement("button");
    part.type = "button";
    part.dataset.button = button;
    part.textContent = arrows[button] ?? button;
    part.setAttribute("aria-label", button);
    if (arrows[button]) part.classList.add("arrow", `to-${button}`);
    part.addEventListener("keydown", (event) => {
      if ((event.code === "Space" || event.code === "Enter") && !event.repeat) hold(button, "focus", event.timeStamp);
    });
    part.addEventListener("keyup", (event) => {
      if (event.code === "Space" || event.code === "Enter") letGo(button, "focus");
    });
    part.addEventListener("blur", () => letGo(button, "focus"));
    $("pad").append(part);
  }
}

// A finger holds the button below it, wherever it came from.
const fingers = new Map();
function touch(event) {
  const under = document.elementFromPoint(event.clientX, event.clientY)?.closest("#pad [data-button]");
  const [button, before] = [under?.dataset.button, fingers.get(event.pointerId)];
  if (button === before) return;
  if (before !== undefined) letGo(before, event.pointerId);
  if (button !== undefined) hold(button, event.pointerId, event.timeStamp);
  fingers.set(event.pointerId, button);
}
function lift(event) {
  const button = fingers.get(event.pointerId);
  if (button !== undefined) letGo(button, event.pointerId);
  fingers.delete(event.pointerId);
}
$("pad").addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  $("pad").setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, undefined);
  touch(event);
});
$("pad").addEventListener("pointermove", (event) => { if (fingers.has(event.pointerId)) touch(event); });
for (const end of ["pointerup", "pointercancel"]) $("pad").addEventListener(end, lift);
$("pad").addEventListener("contextmenu", (event) => event.preventDefault());

const keyNames = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" };
const keyName = (code) => keyNames[code] ?? code.replace(/^(Key|Digit)/, "");

function makeCodes() {
  facts.codes.forEach((name, code) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head, document.createElement("td"), document.createElement("td"));
    row.children[1].textContent = code;
    if (facts.button_codes[name] === code) {
      row.dataset.button = name;
      for (const [key, button] of Object.entries(facts.keys)) {
        if (button !== name) continue;
        const mark = document.createElement("kbd");
        mark.textContent = keyName(key);
        row.children[2].append(mark, " ");
      }
      if (name === facts.idle) row.children[2].append("no key");
    } else row.children[2].textContent = name in facts.button_codes ? "means the same" : "has no key";
    $("codes").append(row);
  });
}

// ---- What a person can do

function setPaused(value) {
  paused = value;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("start").hidden = !paused;
}
function pause(value = !paused) {
  letGoOfAll();
  setPaused(value);
  send({ do: "pause", paused });
}
// From the same picture, if one was chosen; anew: from the world's own.
function begin(number, anew = false) {
  letGoOfAll();
  setPaused(false);
  send({ do: "begin", seed: number % 4294967296, anew });
}
function save() {
  pause(true);
  say("saving");
  send({ do: "save" });
}
function say(text, video = "", name = "") {
  $("said").textContent = text;
  if (!video) return;
  const link = document.createElement("a");
  link.href = video;
  link.download = name;
  link.textContent = "download";
  $("said").append(" ", link);
}

$("start").addEventListener("click", () => pause(false));
$("pause").addEventListener("click", () => pause());
$("again").addEventListener("click", () => begin(seed));
$("next").addEventListener("click", () => begin(seed + 1));
$("save").addEventListener("click", save);
$("wait").addEventListener("change", () => send({ do: "wait", wait: $("wait").checked }));
$("pace").addEventListener("change", () => send({ do: "pace", fps: Number($("pace").value) }));
$("seed-form").addEventListener("submit", (event) => {
  event.preventDefault();
  begin(Number($("seed").value), true);
  $("seed").blur();
});
$("draw-form").addEventListener("submit", (event) => {
  event.preventDefault();
  say("drawing");
  send({ do: "draw", prompt: $("prompt").value });
  $("prompt").blur();
});
$("picture").addEventListener("change", async () => {
  const [file] = $("picture").files;
  if (!file) return;
  try {
    socket.send(await fitted(file));
    setPaused(false);
  } catch {
    say(`${file.name} is no picture that this browser reads`);
  }
  $("picture").value = "";
  $("picture").blur();
});

// A picture in the world's size, cropped at its centre: RGB bytes.
async function fitted(file) {
  const picture = await createImageBitmap(file);
  const { width, height } = facts;
  const scale = Math.max(width / picture.width, height / picture.height);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const [w, h] = [picture.width * scale, picture.height * scale];
  context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: 3 * width * height }, (_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
}

// ---- Pictures

function paint(canvas, bytes) {
  const { width, height } = facts;
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < bytes.length; from += 3, to += 4) {
    image.data[to] = bytes[from];
    image.data[to + 1] = bytes[from + 1];
    image.data[to + 2] = bytes[from + 2];
    image.data[to + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function show(message) {
  const length = new DataView(message).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length)));
  const size = 3 * facts.width * facts.height;
  const pixels = new Uint8Array(message, 4 + length);
  const beside = pixels.length > size;
  paint($("world"), pixels.subarray(0, size));
  if (beside) paint($("truth"), pixels.subarray(size));
  if ($("truth-figure").hidden === beside) {
    for (const id of ["truth-figure", "off-number", "drift-figure"]) $(id).hidden = !beside;
    fit();
  }
  if (about.number === 1 || about.step === 0) setPaused(about.paused && paused);
  if (about.step === 0) curve = [];
  if (about.seed !== seed || about.step === 0) $("seed").value = seed = about.seed;
  for (const [number, when] of asked) {
    if (number > about.press) continue;
    $("latency").textContent = `${Math.round(performance.now() - when)} ms`;
    asked.delete(number);
  }
  $("fps").textContent = about.fps === null ? "–" : about.fps.toFixed(1);
  $("took").textContent = about.step === 0 ? "–" : `${about.milliseconds.toFixed(about.milliseconds < 10 ? 1 : 0)} ms`;
  $("step").textContent = about.step;
  $("late").textContent = about.late;
  if (about.complaint) say(about.complaint);
  if (beside) {
    curve[about.step] = typeof about.off === "number" ? about.off : null;
    $("off").textContent = typeof about.off === "number" ? `${about.off.toFixed(1)} px` : about.off;
    $("drift").textContent = about.drift === "equal" ? "" : `, PSNR ${about.drift.toFixed(1)} dB`;
    drawCurve();
  }
  $("world").setAttribute("aria-label", `The world at step ${about.step}${about.button ? ` after ${about.button}` : ""}`);
  const name = facts.dream ? "What the model dreams" : "The true world";
  $("world-name").textContent = name + (about.words ? `, from ${about.words}` : "");
}

function drawCurve() {
  const canvas = $("curve");
  const scale = devicePixelRatio;
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  if (canvas.width !== Math.round(width)) canvas.width = width;
  if (canvas.height !== Math.round(height)) canvas.height = height;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const [edge, left] = [10 * scale, 34 * scale];
  const high = Math.max(facts.width, facts.height) / 2;
  const y = (value) => height - edge - ((height - 2 * edge) * Math.min(high, value)) / high;
  context.clearRect(0, 0, width, height);
  context.font = `${11 * scale}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const value of [0, high / 2, high]) {
    context.fillStyle = style.getPropertyValue("--soft");
    context.fillText(String(value), edge, y(value));
    context.fillStyle = style.getPropertyValue("--line");
    context.fillRect(left, y(value), width - left - edge, scale);
  }
  const room = Math.max(60, curve.length - 1);
  context.strokeStyle = style.getPropertyValue("--accent");
  context.lineWidth = 2 * scale;
  context.beginPath();
  let seen = false;
  curve.forEach((value, step) => {
    // A step that was never drawn here leaves no gap; one without a player does.
    if (value !== null) context[seen ? "lineTo" : "moveTo"](left + ((width - left - edge) * step) / room, y(value));
    seen = value !== null;
  });
  context.stroke();
}

// Whole screen pixels for each pixel of the world.
function fit() {
  for (const id of ["world", "truth"]) {
    const canvas = $(id);
    const room = canvas.closest("figure").clientWidth;
    if (!room || !facts) continue;
    const most = Math.min(room, 576, Math.max(192, innerHeight * 0.66) * (facts.width / facts.height));
    const pixel = Math.max(1, Math.floor((most * devicePixelRatio) / facts.width));
    canvas.style.width = `${(pixel * facts.width) / devicePixelRatio}px`;
  }
  if (curve.length) drawCurve();
}
addEventListener("resize", fit);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fit);

function draw() {
  const message = latest;
  if (message === null) return;
  latest = null;
  show(message);
  send({ do: "drawn" });
}

// ---- The server

socket.addEventListener("message", ({ data }) => {
  if (typeof data !== "string") {
    // Only the latest is drawn; a page that is not seen draws, and asks for, none.
    if (latest === null) requestAnimationFrame(draw);
    else send({ do: "drawn" });
    latest = data;
    return;
  }
  const told = JSON.parse(data);
  if (told.said !== undefined) say(told.said, told.video, told.name);
  else meet(told);
});
socket.addEventListener("close", ({ code, reason }) => {
  facts = null;
  say(`${reason || "the server has ended"}${code === 4000 ? ": load this page again to play here" : ""}`);
});

function meet(told) {
  facts = told;
  document.title = `minisora: ${facts.world}`;
  $("title").textContent = `Play ${facts.dream ? facts.world : `the ${facts.world}`}`;
  $("about").textContent = facts.dream
    ? `A world of ${facts.width}×${facts.height} pixels that a model learned by looking alone. It makes every frame from the last ones and the button.`
    : `A world of ${facts.width}×${facts.height} pixels by exact rules.`;
  for (const id of ["world", "truth"]) {
    $(id).width = facts.width;
    $(id).height = facts.height;
  }
  const paces = [...new Set([5, 10, 15, 20, 30, facts.fps])].sort((a, b) => a - b);
  for (const pace of paces) $("pace").append(new Option(String(pace), String(pace), pace === facts.fps, pace === facts.pace));
  $("draw-form").hidden = !facts.draws;
  $("picture-choice").hidden = !facts.pictures;
  makePad();
  makeCodes();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches || facts.idle === null) {
    $("wait").checked = true;
    $("wait").disabled = facts.idle === null;
    send({ do: "wait", wait: true });
  }
  $("game").hidden = false;
  fit();
}
