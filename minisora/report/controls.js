"use strict";
// The controls: assumptions that move, results that follow. Needs the model, numbers.js and the JSON that page.py writes.

const PAGE = JSON.parse(document.getElementById("model-data").textContent);
const STEPS = 1000; // positions of a slider
const BY_NAME = Object.fromEntries(PAGE.assumptions.map((row) => [row.name, row]));
const BY_GPU = ["hardware.peak", "hardware.power", "hardware.price"];
const state = { preset: null, values: {}, reference: {} };

// How numbers look, beside numbers.js.

// 20e9 for 20000000000: every digit that the number has, so that Python reads the same number back.
function compact(value) {
  if (typeof value !== "number") return String(value);
  const [digits, power] = value.toExponential().split("e");
  const exponent = Math.floor(Number(power) / 3) * 3;
  if ((exponent >= 0 && exponent < 6) || exponent === -3) return String(value);
  const shift = Number(power) - exponent, [whole, rest = ""] = digits.split(".");
  const padded = rest.padEnd(shift, "0");
  const tail = padded.slice(shift);
  return `${whole}${padded.slice(0, shift)}${tail ? "." + tail : ""}e${exponent}`;
}

function ratio(now, before) {
  if (now === before) return "×1";
  if (!before || !Number.isFinite(now / before)) return "–";
  return "×" + human(now / before, "");
}

// Sliders: evenly on a log scale where the range is a factor; the left end is nothing where that is allowed.

function toPosition(row, value) {
  const [low, high] = row.ends;
  const share = row.kind === "linear" ? (value - low) / (high - low) : Math.log(value / low) / Math.log(high / low);
  return Math.round(Math.min(1, Math.max(0, share)) * STEPS);
}

function fromPosition(row, position) {
  const [low, high] = row.ends, share = position / STEPS;
  if (row.kind === "log" && row.zero && position === 0) return 0;
  const value = row.kind === "linear" ? low + share * (high - low) : low * (high / low) ** share;
  const rounded = Number(value.toPrecision(value >= 100 ? 3 : 2)); // 30.1e9, not 30127382104
  return Math.min(row.limits[1], Math.max(row.limits[0], rounded));
}

// One control per assumption: a slider and a box, a list of words, or a tick.

function control(name) {
  return document.querySelector(`[data-assumption="${name}"]`);
}

function show(name) {
  const row = BY_NAME[name], element = control(name), value = state.values[name];
  const box = element.querySelector("[data-box]"), slider = element.querySelector("[data-slider]");
  if (row.kind === "switch") box.checked = value !== 0;
  else if (box !== document.activeElement || row.kind === "choice") box.value = compact(value);
  if (slider) {
    slider.value = toPosition(row, value);
    slider.setAttribute("aria-valuetext", `${compact(value)} ${row.unit}`);
  }
  box.removeAttribute("aria-invalid");
  element.querySelector("[data-error]").textContent = "";
  element.classList.toggle("moved", value !== state.reference[name]);
}

function read(name, text) { // the value, or null if it cannot be one
  const row = BY_NAME[name], value = numberIn(text);
  return Number.isFinite(value) && value >= row.limits[0] && value <= row.limits[1] ? value : null;
}

function set(name, value) {
  state.values[name] = value;
  if (name === "hardware.gpu") for (const other of BY_GPU) set(other, PAGE.gpus[value][other]);
  show(name);
}

function bind(row) {
  const element = control(row.name), box = element.querySelector("[data-box]");
  const slider = element.querySelector("[data-slider]");
  box.addEventListener("input", () => {
    if (row.kind === "switch") set(row.name, box.checked ? 1 : 0);
    else if (row.kind === "choice") set(row.name, box.value);
    else {
      const value = read(row.name, box.value);
      if (value === null) {
        box.setAttribute("aria-invalid", "true");
        const [low, high] = row.limits.map(compact);
        element.querySelector("[data-error]").textContent = `a number from ${low} to ${high}`;
        return;
      }
      set(row.name, value);
    }
    update();
  });
  if (!slider) return;
  box.addEventListener("blur", () => show(row.name)); // what was refused gives way to what counts
  slider.addEventListener("input", () => {
    set(row.name, fromPosition(row, Number(slider.value)));
    update();
  });
}

// Results.

let announcement = 0;

function update() {
  const now = estimate(state.values), before = estimate(state.reference);
  for (const cell of document.querySelectorAll("[data-result]")) {
    const name = cell.dataset.result, unit = PAGE.units[name], of = cell.dataset.of;
    if (!(name in now)) continue;
    if (of === "ratio") {
      const same = now[name] === before[name];
      cell.textContent = same && cell.closest(".live") ? "" : ratio(now[name], before[name]);
      cell.classList.toggle("moved", !same);
    } else {
      const value = of === "now" ? now[name] : before[name];
      cell.textContent = human(value, unit, Number(cell.dataset.digits || 4));
      cell.dataset.value = String(value);
    }
  }
  const distance = document.getElementById("distance");
  if (distance) {
    const decades = Math.log10(now.sora_macs_per_step / PAGE.largest_macs);
    distance.dataset.value = String(decades);
    distance.textContent = `A pass of Sora with these assumptions: ${human(now.sora_macs_per_step, "MAC", 3)} MACs, `
      + (decades > 0 ? `${decades.toFixed(1)} decades beyond the largest pass measured.` : "within what was measured.");
  }
  document.getElementById("command").textContent = command();
  clearTimeout(announcement); // said once the reader has stopped moving
  announcement = setTimeout(() => {
    const told = [...document.querySelectorAll(".live [data-of=now]")];
    document.getElementById("announcement").textContent =
      told.map((cell) => `${cell.dataset.label}: ${cell.textContent}`).join("; ");
  }, 900);
}

// The command line that gives these settings in Python: the preset, and what differs from it.
function command() {
  const base = PAGE.presets.find((preset) => preset.name === state.base).values;
  const gpu = state.values["hardware.gpu"], parts = [`minisora report --preset ${state.base}`];
  for (const row of PAGE.assumptions) {
    // Another GPU brings its own peak, power and price along.
    const filled = gpu !== base["hardware.gpu"] && BY_GPU.includes(row.name);
    const value = state.values[row.name];
    if (value === (filled ? PAGE.gpus[gpu][row.name] : base[row.name])) continue;
    const item = `${row.name}=${compact(value)}`;
    parts.push(`--set ${item.includes(" ") ? `'${item}'` : item}`);
  }
  return parts.join(" ");
}

function load(name) {
  const preset = PAGE.presets.find((one) => one.name === name);
  Object.assign(state, { preset: name, base: preset.base, reference: preset.values, values: { ...preset.values } });
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.setAttribute("aria-pressed", String(button.dataset.preset === name));
  }
  for (const part of document.querySelectorAll("[data-preset-title]")) part.textContent = preset.title;
  for (const row of PAGE.assumptions) show(row.name);
  update();
}

function copyCommand() {
  const code = document.getElementById("command"), button = document.getElementById("copy");
  const said = (word) => {
    button.textContent = word;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  const select = () => { // where a page may not write to the clipboard, the text is at least selected
    getSelection().selectAllChildren(code);
    said("Selected");
  };
  if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => said("Copied"), select);
  else select();
}

for (const row of PAGE.assumptions) bind(row);
for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => load(button.dataset.preset));
}
document.getElementById("reset").addEventListener("click", () => load(state.preset));
document.getElementById("copy").addEventListener("click", copyCommand);
load(PAGE.start);
