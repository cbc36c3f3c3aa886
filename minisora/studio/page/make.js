// Make: what is asked for, what it will cost, and what becomes of it.
import { ask, onChange, state } from "./server.js";
import { announce, byId, h, keep, still } from "./dom.js";
import { costLines, flopsOf } from "./cost.js";
import { clipTile, inStep, isShownFailure, jobTile, titleOf } from "./tiles.js";
import { choose, isChosen, onChosen } from "./chosen.js";
import { numberOfVariations, wrongNumber } from "./fields.js";
import { segmentList } from "./segments.js";
import { offerWords } from "./words.js";

const form = byId("make");
const [model, prompt, size, length, steps, guidance, seed, lock] = ["model", "prompt", "size", "length", "steps", "guidance", "seed", "lock"].map(byId);
const go = byId("go");
const SHOWN = 8;
const offer = offerWords(prompt, byId("words"), byId("prompt-note"));
let shownModel = null;
// How many models there were at the last visit: the choice has its place before the studio has answered.
const REMEMBERED = "models";
showChoice(Number(localStorage.getItem(REMEMBERED)));

function showChoice(many) {
  byId("model-field").hidden = many < 2;
}

byId("count").append(numberOfVariations("count", 4));
const count = () => Number(form.elements.count.value);
const MOST_LATER = 7;
const later = segmentList(byId("later"), MOST_LATER, () => showCost());
const facts = () => state.models[model.value];
const chosenSize = () => [Number(length.value), ...size.value.split("x").map(Number)];

function fill(select, entries, value) {
  select.replaceChildren(...entries.map(([key, text]) => h("option", { value: key }, text)));
  select.value = value;
}

/** Show a model: its sizes, its own settings and its words. */
function showModel(name) {
  if (!name) return;
  const now = state.models[name];
  // What was chosen for another model stays where this one has it too: so models are compared.
  const before = state.models[shownModel];
  const kept = { size: size.value, length: length.value };
  const isOwn = (field, key) => Boolean(before) && !before.error && field.value !== "" && Number(field.value) !== before[key];
  shownModel = name;
  byId("make-error").textContent = now.error ?? "";
  if (now.error) return;
  const [frames, height, width] = now.default_size;
  byId("size-note").textContent = `trained: ${width} × ${height}`;
  byId("length-note").textContent = `trained: ${(frames / now.fps).toFixed(1)} s`;
  fill(size, now.sizes.map(([tall, wide]) => [`${tall}x${wide}`, `${wide} × ${tall}`]), `${height}x${width}`);
  fill(length, now.lengths.map((each) => [each, each === 1 ? "a picture" : `${(each / now.fps).toFixed(1)} s, ${each} frames`]), frames);
  for (const [select, value] of [[size, kept.size], [length, kept.length]]) {
    if (before && [...select.options].some((option) => option.value === value)) select.value = value;
  }
  if (!isOwn(steps, "steps")) steps.value = now.steps;
  if (!isOwn(guidance, "guidance")) guidance.value = now.guidance;
  prompt.placeholder = now.example ? `Such as: ${now.example}` : "";
  byId("words").parentElement.hidden = now.words.length === 0;
  offer(now.words);
}

function showModels() {
  const names = Object.keys(state.models);
  // From the beginning on, not when the second one is read: nothing is to move under a hand.
  const many = Math.max(names.length, state.numModels);
  showChoice(many);
  localStorage.setItem(REMEMBERED, many);
  // The one that was shown, also where the worker was started anew meanwhile; else one that could be read.
  const first = names.find((name) => !state.models[name].error) ?? names[0] ?? "";
  fill(model, names.map((name) => [name, name]), names.includes(shownModel) && !state.models[shownModel].error ? shownModel : first);
  if (model.value !== shownModel) showModel(model.value);
}

/** What stands in the form, or the line that says what is wrong with it. */
function asked() {
  const now = facts();
  if (!now || now.error) return { error: now?.error ?? "" };
  const wrong = wrongNumber([[steps, "steps", true], [guidance, "guidance", false], ...(lock.checked ? [[seed, "the seed", true]] : [])]);
  if (wrong) return { error: wrong };
  const [frames, height, width] = chosenSize();
  const segments = later.prompts(prompt.value.trim());
  return {
    model: model.value, prompt: prompt.value.trim(), frames, height, width, steps: Number(steps.value),
    guidance: Number(guidance.value), seed: lock.checked ? Number(seed.value) : null, count: count(),
    ...(segments.length ? { mode: "long", later: segments } : {}),
  };
}

function showCost() {
  const wanted = asked();
  const cost = byId("cost");
  const many = count();
  go.textContent = many === 1 ? "Make 1 video" : `Make ${many} videos`;
  go.disabled = Boolean(wanted.error) || !facts();
  if (!facts()) {
    cost.replaceChildren(h("p", { class: "soft" }, state.worker === "starting" ? "The model is being read: some seconds." : state.worker));
    return;
  }
  if (wanted.error !== undefined) {
    cost.replaceChildren(h("p", { class: "error" }, wanted.error));
    return;
  }
  const [, ...sides] = chosenSize();
  const of = (frames) => flopsOf(facts(), [frames, ...sides], wanted.steps, wanted.guidance);
  // Each segment that follows is a clip of the length that the model was trained with.
  const each = of(wanted.frames) + (wanted.later?.length ?? 0) * of(facts().default_size[0]);
  cost.replaceChildren(...costLines(state.speeds[wanted.model], chosenSize(), many, each));
}

/** Fill the form with the settings of a clip. */
export function useSettings(recipe, keepSeed = true) {
  if (state.models[recipe.model]) model.value = recipe.model;
  showModel(model.value);
  prompt.value = recipe.prompt;
  later.fill(recipe.later ?? []);
  byId("later").open = Boolean(recipe.later);
  const [frames, height, width] = recipe.size;
  if ([...size.options].some((option) => option.value === `${height}x${width}`)) size.value = `${height}x${width}`;
  if ([...length.options].some((option) => option.value === String(frames))) length.value = frames;
  steps.value = recipe.steps;
  guidance.value = recipe.guidance;
  lock.checked = keepSeed;
  seed.disabled = !keepSeed;
  seed.value = recipe.seed;
  form.elements.count.value = keepSeed ? 1 : count();
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
  showCost();
}

form.addEventListener("input", showCost);
model.addEventListener("change", () => { showModel(model.value); showCost(); showLatest(); });
lock.addEventListener("change", () => {
  seed.disabled = !lock.checked;
  // The seed of what is seen, which is what one would want to keep.
  const newest = batches()[0]?.entries[0];
  if (lock.checked && seed.value === "") seed.value = newest?.recipe.seed ?? 0;
  showCost();
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const wanted = asked();
  const line = byId("make-error");
  line.textContent = wanted.error ?? "";
  if (wanted.error !== undefined) return;
  if (!wanted.prompt && facts().text) {
    line.textContent = `Say what to show${facts().example ? `, such as: ${facts().example}` : ""}`;
    prompt.focus();
    return;
  }
  go.disabled = true;
  try {
    await ask("/api/jobs", wanted);
    announce(`${wanted.count} in the queue`);
    // On a phone what forms is below the form.
    const place = byId("latest-section").getBoundingClientRect();
    if (place.top > window.innerHeight * 0.6) byId("latest-section").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
  } catch (error) {
    line.textContent = error.message;
  }
  showCost();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("view-make").hidden) form.requestSubmit();
});

/** What was asked for together, the newest first: its clips and its open jobs. */
function batches() {
  const found = new Map();
  const put = (batch, entry) => found.set(batch, [...(found.get(batch) ?? []), entry]);
  for (const clip of state.clips.values()) put(clip.batch, { id: clip.id, clip, recipe: clip.recipe });
  for (const job of state.jobs.values()) {
    // A training makes no video.
    if (job.request.kind) continue;
    if (job.state === "queued" || job.state === "running" || isShownFailure(job)) put(job.batch, { id: job.id, job, recipe: job.request });
  }
  return [...found].sort(([a], [b]) => b - a).slice(0, SHOWN).map(([batch, entries]) => ({ batch, entries: entries.sort((a, b) => a.id - b.id) }));
}

function makeBatch() {
  const title = h("h3", {});
  const about = h("p", {});
  const tools = h("div", { class: "tools" });
  const tiles = h("div", { class: "tiles" });
  const section = h("section", { class: "batch" }, h("div", { class: "batch-head" }, title, about, tools), tiles);
  section.update = ({ entries }) => {
    const { recipe } = entries[0];
    title.textContent = titleOf(recipe);
    const [sampled, height, width] = recipe.size;
    const frames = entries.find((entry) => entry.clip)?.clip.frames ?? sampled;
    about.textContent = `${recipe.mode && recipe.mode !== "sample" ? `${recipe.mode} · ` : ""}${Object.keys(state.models).length > 1 ? `${recipe.model} · ` : ""}${width} × ${height}, ${frames} frames${recipe.mode === "upload" || recipe.mode === "trim" ? "" : ` · ${recipe.steps} steps · guidance ${recipe.guidance}`}`;
    const ready = entries.filter((entry) => entry.clip);
    const open = entries.filter((entry) => entry.job && entry.job.state !== "failed");
    const shown = `${ready.map((entry) => entry.id)}|${open.map((entry) => entry.id)}`;
    if (section.shown !== shown) {
      section.shown = shown;
      tools.replaceChildren(
        ...(ready.length > 1 && !open.length ? [h("a", { class: "button", href: `#compare/${ready.slice(0, 4).map((entry) => entry.id).join(",")}` }, "Compare")] : []),
        ...(open.length > 1 ? [h("button", { type: "button", onclick: () => { for (const entry of open) ask(`/api/jobs/${entry.id}/cancel`, {}).catch(() => {}); } }, "Cancel all")] : []),
      );
    }
    keep(tiles, entries, (entry) => `${entry.id}${entry.clip ? "c" : entry.job.state === "failed" ? "f" : "j"}`,
      (entry) => (entry.clip ? clipTile(entry.clip, isChosen(entry.id), choose) : jobTile(entry.job, showLatest)),
      (tile, entry) => tile.update(entry.clip ?? entry.job));
    if (section.ready !== ready.length && !open.length) inStep([...tiles.children]);
    section.ready = ready.length;
  };
  return section;
}

function showLatest() {
  const latest = byId("latest");
  const found = batches();
  if (found.length) {
    latest.querySelector(":scope > .empty")?.remove();
    keep(latest, found, (batch) => batch.batch, makeBatch, (section, batch) => section.update(batch));
    return;
  }
  const example = facts()?.example ?? "";
  if (latest.querySelector(":scope > .empty")?.dataset.example === example) return;
  latest.replaceChildren(h("div", { class: "empty", "data-key": "empty", "data-example": example },
    h("p", {}, h("b", {}, "Nothing was made yet.")),
    h("p", {}, "Say in words what to show, and press Make. Several variations come from several seeds: compare them, keep the best."),
    example ? h("button", { type: "button", onclick: () => { prompt.value = example; prompt.dispatchEvent(new Event("input", { bubbles: true })); form.requestSubmit(); } }, `Make “${example}”`) : null));
}

onChosen(() => {
  for (const box of byId("latest").querySelectorAll(".tile")) {
    const input = box.querySelector(".pick input");
    if (!input) continue;
    input.checked = isChosen(Number.parseInt(box.dataset.key, 10));
    box.classList.toggle("picked", input.checked);
  }
});
onChange((changes) => {
  if (changes.anew || changes.worker) showModels();
  if (changes.anew || changes.worker || changes.speeds) showCost();
  showLatest();
});
showCost();
