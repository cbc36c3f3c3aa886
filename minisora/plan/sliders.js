"use strict";
// The controls: settings that move, answers that follow. Needs PLANS, fitFrames, numbers.js and the JSON
// that sliders.py writes.

const PAGE = JSON.parse(document.getElementById("plan-data").textContent);
const STEPS = 1000; // positions of a slider
const state = { ...PAGE.start };
const RANGES = { // ends of sliders; on a log scale but for those from 0
  seconds: [0.1, 60], height: [PAGE.stride[0], 2176], width: [PAGE.stride[1], 3840], fps: [4, 60], steps: [1, 250],
  batch: [1, 64], samples: [1e3, 1e10], budget: [100, 1e9], rank: [0, 512], under: [0.1, 36000], reused: [0, 0.9],
};
const WHOLE = ["height", "width", "steps", "batch", "rank"];

// Inputs of the arithmetic, as Question.inputs makes them.

function inputsOf(s) {
  const card = PAGE.cards[s.card], [weight, activation] = PAGE.bytes[s.precision];
  const place = PAGE.places.indexOf(s.place), unknown = (value) => (value === null ? NaN : value);
  return {
    "clip.frames": fitFrames({ frames: s.seconds * s.fps }).frames,
    "clip.height": s.height, "clip.width": s.width,
    "serve.steps": s.steps, "serve.passes": s.passes, "serve.reused": s.reused, "serve.batch": s.batch,
    "train.batch": s.batch,
    "cards.data": s.data, "cards.fsdp": s.fsdp, "cards.sequence": s.sequence, "cards.tensor": s.tensor,
    "card.peak": unknown(card.peaks[s.precision] ?? null), "card.link": card.link, "card.bandwidth": card.bandwidth ?? Infinity, "card.network": PAGE.network,
    "card.host": PAGE.host, "card.per_machine": PAGE.perMachine,
    "card.power": unknown(card.power) * PAGE.overhead, "card.price": unknown(card.price),
    "use.serve": card.use[0], "use.train": card.use[1], "use.alone": PAGE.alone,
    "attention.times": PAGE.attentionTimes, "products.eight_bits": PAGE.eightBits.includes(s.precision) ? 1 : 0,
    "bytes.weight": weight, "bytes.text": weight, "bytes.activation": activation, "bytes.vae": PAGE.decoderBytes || activation,
    "place.text": place, "place.denoiser": place, "place.vae": place,
    "decode.tiles": s.tiles ? 1 : 0,
    "checkpointing.full": s.checkpointing === "full" ? 1 : 0,
    "checkpointing.selective": s.checkpointing === "selective" ? 1 : 0,
    "train.rank": s.rank, "train.samples": s.samples, "train.budget": s.budget,
  };
}

// What fits where a plan does not, and the cheapest ways to a clip, as remedies.py looks for them.

function cardsOf(s) {
  return s.data * s.sequence * s.tensor;
}

function spent(s) {
  const numbers = PLANS[s.attention](inputsOf(s)), room = PAGE.cards[s.card].memory;
  const memory = s.train ? numbers.train_memory : numbers.serve_memory;
  return { s, numbers, memory, room, fits: room === null ? null : memory <= room - PAGE.keptFree };
}

function* gentleRemedies(s) {
  const peaks = PAGE.cards[s.card].peaks;
  if (s.train) {
    for (let batch = Math.floor(s.batch / 2); batch; batch = Math.floor(batch / 2)) yield ["batch", `--batch ${batch}, with accumulation`, { batch }];
    for (const kind of ["selective", "full"]) yield ["checkpointing", `--checkpointing ${kind}`, { checkpointing: kind }];
    const sharing = s.sequence * s.tensor;
    for (const cards of PAGE.numbers.filter((n) => n > cardsOf(s) && n % sharing === 0)) {
      const data = cards / sharing, fsdp = cards / s.tensor, text = `--cards ${cards} --data ${data} --fsdp ${fsdp}`;
      yield ["cards", text, { data, fsdp }];
      yield ["cards", `${text} --checkpointing full`, { data, fsdp, checkpointing: "full" }];
    }
    return;
  }
  yield ["tiles", "--tiles", { tiles: true }];
  yield ["place", "--place swapped", { place: "swapped" }];
  yield ["place", "--place swapped --tiles", { place: "swapped", tiles: true }];
  yield ["place", "--place streamed --tiles", { place: "streamed", tiles: true }];
  for (const precision of PAGE.eightBits.filter((each) => each in peaks && ["bfloat16", "float16"].includes(s.precision))) {
    yield ["precision", `--precision ${precision} --tiles`, { precision, tiles: true }];
  }
  const kept = s.data * s.tensor, heads = PAGE.heads / s.tensor;
  for (const cards of PAGE.numbers.filter((n) => n > cardsOf(s) && n % kept === 0 && heads % (n / kept) === 0)) {
    const sequence = cards / kept, fsdp = cards / s.tensor, text = `--cards ${cards} --sequence ${sequence}`;
    if (fsdp % s.fsdp === 0) yield ["cards", text, { sequence }];
    yield ["cards", `${text} --fsdp ${fsdp} --tiles`, { sequence, fsdp, tiles: true }];
  }
}

function* smallerClips(s) {
  const own = inputsOf(s)["clip.frames"], shorter = [], smaller = [];
  for (const share of PAGE.smaller) {
    const { frames } = fitFrames({ frames: share * own });
    const [height, width] = [s.height, s.width].map((side, i) => PAGE.stride[i] * Math.max(1, Math.floor(Math.floor(side * share) / PAGE.stride[i])));
    smaller.push(["clip", `--size ${height}x${width}`, { height, width }]);
    if (frames < own) shorter.push(["clip", `--frames ${frames}`, { seconds: frames / s.fps }]);
  }
  yield* shorter;
  yield* smaller;
  for (const [i, [, text, few]] of shorter.entries()) yield ["clip", `${text} ${smaller[i][1]}`, { ...few, ...smaller[i][2] }];
}

function thatFit(s, remedies, most) {
  const told = new Map();
  for (const [kind, text, changes] of remedies) {
    if (told.size === most) break;
    if (told.has(kind)) continue;
    const other = spent({ ...s, ...changes });
    if (other.fits) told.set(kind, [text, other.memory]);
  }
  return [...told.values()];
}

function fitting(s) {
  return [...thatFit(s, gentleRemedies(s), PAGE.told), ...thatFit(s, smallerClips(s), 1)];
}

function cheapest(s) {
  const found = [];
  for (const [name, card] of Object.entries(PAGE.cards)) {
    if (card.price === null || card.memory === null || !(s.precision in card.peaks)) continue;
    for (const n of PAGE.numbers.filter((each) => PAGE.heads % each === 0)) {
      const shared = { ...s, card: name, data: 1, fsdp: 1, sequence: n, tensor: 1 };
      const tries = [shared, { ...shared, tiles: true }].concat(n > 1 ? { ...shared, tiles: true, fsdp: n } : []);
      for (const each of tries) {
        const way = spent(each);
        if (!way.fits) continue;
        found.push(way);
        break;
      }
    }
  }
  const seconds = (way) => way.numbers.clip_seconds, dollars = (way) => way.numbers.clip_cost;
  const ways = found.filter((way) => seconds(way) <= s.under).sort((a, b) => dollars(a) - dollars(b) || seconds(a) - seconds(b));
  const fastest = found.length ? found.reduce((a, b) => (seconds(b) < seconds(a) ? b : a)) : null;
  return { ways, fastest };
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
  if (WHOLE.includes(name)) return Math.round(inside);
  return Number(inside.toPrecision(3));
}

function divisors(number) {
  const small = Array.from({ length: Math.floor(Math.sqrt(number)) }, (_, i) => i + 1).filter((n) => number % n === 0);
  return small.concat(small.map((n) => number / n).reverse()).filter((n, i, all) => n !== all[i - 1]);
}

function choices(name) {
  if (name === "tensor") return divisors(PAGE.heads);
  if (name === "sequence") return divisors(PAGE.heads / state.tensor);
  if (name === "data") return [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].concat(state.data).filter((n, i, all) => all.indexOf(n) === i).sort((a, b) => a - b);
  return divisors(state.data * state.sequence);
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
    element.hidden = { samples: !state.train, rank: !state.train, budget: !state.train, checkpointing: !state.train, steps: state.train,
      passes: state.train, reused: state.train, place: state.train, tiles: state.train, under: state.train }[name] || false;
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
  const cards = cardsOf(state);
  const needs = { text: numbers.text_flops > 0, full: state.checkpointing === "full", cache: numbers.serve_cache > 0, eight_bits: numbers.eight_bit_flops > 0, memory: PAGE.cards[state.card].bandwidth !== null, many: cards > 1 };
  return line.of.split(" ").includes(state.train ? "train" : "clip") && (needs[line.needs] ?? true);
}

function interval(value, factors, unit) {
  if (!factors || !Number.isFinite(value)) return "";
  if (unit === "FLOP") return `± ${(100 * (factors[1] - 1)).toFixed(1)} %`;
  return `${words(value * factors[0], unit)} to ${words(value * factors[1], unit)}`;
}

function update() {
  show();
  const inputs = inputsOf(state), { numbers, memory, room, fits } = spent(state);
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
  const cards = cardsOf(state), tiles = {
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
  showRemedies(fits);
  showWays();
  document.getElementById("clip").textContent = `${inputs["clip.frames"]} frames of ${state.height} × ${state.width} on ${cards} × ${state.card}`;
  document.getElementById("command").textContent = command(inputs, cards);
}

function showRemedies(fits) {
  const lines = fits === false ? fitting(state) : [], list = document.getElementById("remedies");
  document.getElementById("what-fits").hidden = fits !== false;
  if (!lines.length) lines.push(["nothing that was tried fits: a smaller picture, fewer seconds or a smaller model", null]);
  list.replaceChildren(...lines.map(([text, memory]) => {
    const item = document.createElement("li");
    item.textContent = memory === null ? text : `${text}: ${words(memory, "bytes")}`;
    return item;
  }));
}

function showWays() {
  document.getElementById("cheapest").hidden = state.train;
  if (state.train) return;
  const { ways, fastest } = cheapest(state), about = document.getElementById("ways-none");
  document.getElementById("ways").replaceChildren(...ways.slice(0, PAGE.shown).map((way) => {
    const row = document.createElement("tr"), s = way.s;
    const how = `${s.place}${s.tiles ? ", tiles" : ""}${s.fsdp > 1 ? ", fsdp" : ""}`;
    row.append(...[`${cardsOf(s)} × ${s.card}`, how, words(way.numbers.clip_seconds, "s"), words(way.numbers.clip_cost, "$"), words(way.memory, "bytes")].map((text, i) => {
      const cell = document.createElement(i ? "td" : "th");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
  document.getElementById("ways-table").hidden = !ways.length;
  about.hidden = ways.length > 0;
  about.textContent = fastest === null ? "None of the listed cards, up to 64 of them." :
    `None; the fastest takes ${words(fastest.numbers.clip_seconds, "s")}: ${cardsOf(fastest.s)} × ${fastest.s.card}. Fewer steps, a cache or a smaller clip would do it.`;
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
  if (s.train) parts.push(`--train --rank ${s.rank} --checkpointing ${s.checkpointing} --samples ${s.samples} --budget ${s.budget}`);
  else parts.push(`--steps ${s.steps} --passes ${s.passes} --reused ${s.reused} --place ${s.place}${s.tiles ? " --tiles" : ""} --under ${s.under}`);
  return parts.join(" ");
}

for (const element of document.querySelectorAll("[data-setting]")) bind(element);
document.getElementById("reset").addEventListener("click", () => {
  Object.assign(state, PAGE.start);
  update();
});
update();
