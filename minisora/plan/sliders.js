"use strict";
// The controls: settings that move, answers that follow. Needs PLANS, fitFrames, numbers.js and the JSON
// that sliders.py writes.

const PAGE = JSON.parse(document.getElementById("plan-data").textContent);
const STEPS = 1000; // positions of a slider
const state = { ...PAGE.start };
const RANGES = { // ends of sliders; on a log scale but for the last two
  seconds: [0.1, 60], height: [PAGE.stride[0], 2176], width: [PAGE.stride[1], 3840], fps: [4, 60], steps: [1, 250],
  batch: [1, 64], samples: [1e3, 1e10], budget: [100, 1e9], reused: [0, 0.9],
};
const WHOLE = ["height", "width", "steps", "batch"];

// Inputs of the arithmetic, as Question.inputs makes them.

function inputsOf(s) {
  const card = PAGE.cards[s.card], [weight, activation] = PAGE.bytes[s.precision];
  const place = PAGE.places.indexOf(s.place), unknown = (value) => (value === null ? NaN : value);
  return {
    "clip.frames": Math.max(1, fitFrames({ frames: s.seconds * s.fps }).frames),
    "clip.height": s.height, "clip.width": s.width,
    "serve.steps": s.steps, "serve.passes": s.passes, "serve.reused": s.reused, "serve.batch": s.batch,
    "train.batch": s.batch,
    "cards.data": s.data, "cards.fsdp": s.fsdp, "cards.sequence": s.sequence, "cards.tensor": s.tensor,
    "card.peak": unknown(card.peaks[s.precision] ?? null), "card.link": card.link, "card.network": PAGE.network,
    "card.host": PAGE.host, "card.per_machine": PAGE.perMachine,
    "card.power": unknown(card.power) * PAGE.overhead, "card.price": unknown(card.price),
    "use.serve": card.use[0], "use.train": card.use[1], "use.alone": PAGE.alone,
    "bytes.weight": weight, "bytes.activation": activation, "bytes.vae": PAGE.decoderBytes || activation,
    "place.text": place, "place.denoiser": place, "place.vae": place,
    "decode.tiles": s.tiles ? 1 : 0,
    "checkpointing.full": s.checkpointing === "full" ? 1 : 0,
    "checkpointing.selective": s.checkpointing === "selective" ? 1 : 0,
    "train.samples": s.samples, "train.budget": s.budget,
  };
}

// How numbers look, as words.py and memory.py write them, to three digits.

function words(value, unit) {
  if (!Number.isFinite(value)) return "–";
  if (unit === "bytes") {
    const [size, name] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "bytes"]].find((pair) => value >= pair[0]) || [1, "bytes"];
    return `${(value / size).toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} ${name}`;
  }
  if (unit === "s") {
    const found = [[86400, "days"], [3600, "h"], [60, "min"]].find((pair) => value >= 2 * pair[0]) || [1, "s"];
    return `${human(value / found[0], "", 3)} ${found[1]}`;
  }
  if (unit === "share") return `${human(100 * value, "", 3)} %`;
  const text = human(value, unit, 3);
  return unit === "$" || unit === "" ? text : `${text} ${unit}`;
}

// Controls.

function part(name) {
  return document.querySelector(`[data-setting="${name}"]`);
}

function toPosition(name, value) {
  const [low, high] = RANGES[name];
  const share = low === 0 ? value / high : Math.log(value / low) / Math.log(high / low);
  return Math.round(Math.min(1, Math.max(0, share)) * STEPS);
}

function fromPosition(name, position) {
  const [low, high] = RANGES[name], share = position / STEPS;
  return rounded(name, low === 0 ? share * high : low * (high / low) ** share);
}

function rounded(name, value) {
  const [low, high] = RANGES[name], stride = { height: PAGE.stride[0], width: PAGE.stride[1] }[name];
  const inside = Math.min(high, Math.max(low, value));
  if (stride) return stride * Math.max(1, Math.round(inside / stride));
  if (WHOLE.includes(name)) return Math.max(1, Math.round(inside));
  return Number(inside.toPrecision(3));
}

function choices(name) {
  if (name === "tensor") return PAGE.ranks;
  if (name === "sequence") return PAGE.ranks.filter((n) => (PAGE.heads / state.tensor) % n === 0);
  if (name === "data") return [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].concat(state.data).filter((n, i, all) => all.indexOf(n) === i).sort((a, b) => a - b);
  const ranks = state.data * state.sequence;
  return Array.from({ length: Math.min(ranks, 4096) }, (_, i) => i + 1).filter((n) => ranks % n === 0);
}

// What does not divide any more becomes the largest that does.
function settle() {
  for (const name of ["sequence", "fsdp"]) {
    const able = choices(name);
    if (!able.includes(state[name])) state[name] = Math.max(...able.filter((n) => n <= state[name]), 1);
  }
  const peaks = Object.keys(PAGE.cards[state.card].peaks);
  if (!peaks.includes(state.precision)) state.precision = peaks[0];
}

function show() {
  for (const element of document.querySelectorAll("[data-setting]")) {
    const name = element.dataset.setting, value = state[name], box = element.querySelector("[data-box]");
    const slider = element.querySelector("[data-slider]");
    if (element.dataset.ranks !== undefined) {
      box.replaceChildren(...choices(name).map((n) => new Option(String(n), String(n))));
    }
    if (name === "precision") {
      for (const option of box.options) option.disabled = !(option.value in PAGE.cards[state.card].peaks);
    }
    if (box.type === "checkbox") box.checked = value;
    else if (box !== document.activeElement || box.tagName === "SELECT") box.value = String(value);
    if (slider) slider.value = toPosition(name, value);
    box.removeAttribute("aria-invalid");
    element.classList.toggle("moved", value !== PAGE.start[name]);
    element.hidden = { samples: !state.train, budget: !state.train, checkpointing: !state.train, steps: state.train,
      passes: state.train, reused: state.train, place: state.train, tiles: state.train }[name] || false;
  }
}

function set(name, value) {
  state[name] = value;
  settle();
  update();
}

function bind(element) {
  const name = element.dataset.setting, box = element.querySelector("[data-box]");
  const slider = element.querySelector("[data-slider]");
  box.addEventListener("input", () => {
    if (box.type === "checkbox") return set(name, box.checked);
    if (box.tagName === "SELECT") return set(name, typeof PAGE.start[name] === "number" ? Number(box.value) : box.value);
    const value = numberIn(box.value);
    const [low, high] = RANGES[name];
    if (!Number.isFinite(value) || value < low || value > high) return box.setAttribute("aria-invalid", "true");
    return set(name, WHOLE.includes(name) ? rounded(name, value) : value);
  });
  if (!slider) return;
  box.addEventListener("blur", show); // what was refused gives way to what counts
  slider.addEventListener("input", () => set(name, fromPosition(name, Number(slider.value))));
}

// Answers.

function told(line, numbers) {
  const cards = state.data * state.sequence * state.tensor;
  const needs = { text: numbers.text_flops > 0, full: state.checkpointing === "full", cache: numbers.serve_cache > 0, many: cards > 1 };
  return line.of !== (state.train ? "clip" : "train") && (needs[line.needs] ?? true);
}

function interval(value, factors, unit) {
  if (!factors || !Number.isFinite(value)) return "";
  if (unit === "FLOP") return `± ${(100 * (factors[1] - 1)).toFixed(1)} %`;
  return `${words(value * factors[0], unit)} to ${words(value * factors[1], unit)}`;
}

function update() {
  show();
  const inputs = inputsOf(state), numbers = PLANS[state.attention](inputs);
  const factors = PAGE.factors[state.train ? "train" : "clip"][state.card], rows = [];
  let group = "";
  for (const line of PAGE.lines.filter((each) => told(each, numbers))) {
    if (line.group !== group) {
      const head = document.createElement("tr"), cell = document.createElement("th");
      group = line.group;
      head.className = "group";
      cell.colSpan = 3;
      cell.textContent = group;
      head.append(cell);
      rows.push(head);
    }
    const row = document.createElement("tr"), value = numbers[line.name];
    const texts = [line.label, words(value, line.unit), interval(value, factors[line.error], line.unit)];
    row.append(...texts.map((text, i) => {
      const cell = document.createElement(i ? "td" : "th");
      cell.textContent = text;
      return cell;
    }));
    row.dataset.result = line.name;
    row.dataset.value = String(value);
    row.classList.toggle("headline", line.headline);
    rows.push(row);
  }
  document.getElementById("answers").replaceChildren(...rows);
  const cards = state.data * state.sequence * state.tensor;
  const memory = state.train ? numbers.train_memory : numbers.serve_memory, room = PAGE.cards[state.card].memory;
  const fits = room === null ? null : memory <= room - PAGE.keptFree, tiles = {
    time: words(state.train ? numbers.train_step_seconds : numbers.clip_seconds, "s"),
    money: state.train ? words(numbers.train_cost, "$") : words(numbers.clip_cost, "$"),
    memory: words(memory, "bytes"),
    tokens: words(numbers.tokens, ""),
  };
  for (const [name, text] of Object.entries(tiles)) document.getElementById(name).textContent = text;
  document.getElementById("time-of").textContent = state.train ? "a step" : "a clip";
  document.getElementById("money-of").textContent = state.train ? "all of the training" : "a clip";
  const verdict = document.getElementById("verdict"), left = room === null ? "" : words(room - PAGE.keptFree, "bytes");
  verdict.textContent = fits === null ? "a card; its memory is unknown" : fits ? `a card, of ${left}: fits` : `a card, of ${left}: does not fit`;
  verdict.className = fits === false ? "wrong" : "soft";
  document.getElementById("clip").textContent = `${inputs["clip.frames"]} frames of ${state.height} × ${state.width} on ${cards} × ${state.card}`;
  document.getElementById("command").textContent = command(inputs, cards);
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// The command line that gives the same answers.
function command(inputs, cards) {
  const s = state, parts = [PAGE.command, `--frames ${inputs["clip.frames"]} --fps ${s.fps} --size ${s.height}x${s.width}`];
  parts.push(`--card ${quoted(PAGE.cards[s.card].typed)} --cards ${cards} --data ${s.data} --fsdp ${s.fsdp} --sequence ${s.sequence} --tensor ${s.tensor}`);
  parts.push(`--precision ${s.precision} --batch ${s.batch}`);
  parts.push(`--attention ${s.attention}`);
  if (s.train) parts.push(`--train --checkpointing ${s.checkpointing} --samples ${s.samples} --budget ${s.budget}`);
  else parts.push(`--steps ${s.steps} --passes ${s.passes} --reused ${s.reused} --place ${s.place}${s.tiles ? " --tiles" : ""}`);
  return parts.join(" ");
}

for (const element of document.querySelectorAll("[data-setting]")) bind(element);
document.getElementById("reset").addEventListener("click", () => {
  Object.assign(state, PAGE.start);
  update();
});
update();
