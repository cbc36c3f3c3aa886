// Edit: what can be made from a video that is there, one mode after another.
import { ask, clipOf, state, videoOf } from "./server.js";
import { announce, byId, h, still } from "./dom.js";
import { costLines } from "./cost.js";
import { numberOfVariations, wrongNumber } from "./fields.js";
import { maskPainter } from "./mask.js";
import { prompts, segmentBox } from "./segments.js";
import { titleOf } from "./tiles.js";
import { trimForm } from "./trim.js";
import { offerWords } from "./words.js";

const KNOWN = "The model has to know it: one trained with known frames, as toy is.";

export const MODES = {
  extend: { name: "Extend", say: `What happens after its end. ${KNOWN}` },
  prepend: { name: "Prepend", say: `What happened before its start. ${KNOWN}` },
  loop: { name: "Loop", say: `A way back from its end to its start: played over and over, it has no seam. ${KNOWN}` },
  animate: { name: "Animate a frame", say: `A new video that begins with one of its frames. ${KNOWN}` },
  restyle: { name: "Restyle", say: "The same video under another prompt: say what it is to become." },
  inpaint: { name: "Inpaint", say: "A region is made anew, in every frame: paint over all that is to go. Everything else stays as it is." },
  trim: { name: "Trim", say: "A part of it, from one frame to another." },
  connect: { name: "Connect", say: `What happens between the end of the first and the start of the second. ${KNOWN}` },
  keyframes: { name: "Keyframes", say: `A video that goes through a frame of each, with words for every way between two; of two they are its first and last frame. ${KNOWN}` },
};
// Modes that are made from several videos, and from how many.
const SEVERAL = { connect: [2, 2], keyframes: [2, 5] };
export const isOfSeveral = (mode) => mode in SEVERAL;

const view = byId("view-edit");
let shown = 0;
// The recipe of a step that is taken again.
let again = null;

/** Open the form of a step with what it was made by. */
export function takeAgain(recipe, parents) {
  again = recipe;
  return `#edit/${recipe.mode}/${parents.join(",")}`;
}

export function hideEdit() {
  shown += 1;
  view.replaceChildren();
}

/** Why there is nothing to edit, and a way on. */
function empty(title, text) {
  view.replaceChildren(h("div", { class: "empty" }, h("p", {}, h("b", {}, title)), h("p", {}, text), h("a", { class: "button", href: "#gallery" }, "To the gallery")));
}

export async function showEdit(mode, ids) {
  hideEdit();
  const now = shown;
  const about = MODES[mode];
  // What it was made by, where this step is taken again, from the same videos.
  let old = again?.mode === mode ? again : null;
  again = null;
  const [least, most] = SEVERAL[mode] ?? [1, 1];
  const found = await Promise.allSettled(ids.slice(0, most).map(clipOf));
  const clips = found.filter((each) => each.status === "fulfilled").map((each) => each.value);
  if (now !== shown) return;
  if (clips.length !== ids.length) old = null;
  if (!about || clips.length < least) {
    empty("Nothing to edit.", isOfSeveral(mode) ? `Choose ${least === most ? "two" : "two to five"} videos in the gallery by their boxes, then press ${about.name}.` : "Open a video of the gallery and choose how to go on from it.");
    return;
  }
  // A model may still be being read.
  while (!usable().length && now === shown && state.worker === "starting") await new Promise((done) => setTimeout(done, 100));
  if (now !== shown) return;
  if (usable().length && mode === "trim") view.replaceChildren(h("div", { class: "edit" }, intro(about), ...trimForm(clips[0], usable())));
  else if (usable().length) build(mode, about, clips, old);
  else empty("No model can be used.", Object.values(state.models)[0]?.error ?? state.worker);
}

/** Names of the models that could be read. */
const usable = () => Object.keys(state.models).filter((name) => !state.models[name].error);

/** The longest length on offer that is no longer than the clip. */
const within = (facts, clip) => facts.lengths.filter((length) => length <= clip.frames).at(-1) ?? facts.lengths[0];

const intro = (about) => h("div", { class: "intro" }, h("h2", {}, about.name), h("p", { class: "say" }, about.say));

function build(mode, about, clips, old) {
  const [clip] = clips;
  const names = usable();
  const [, height, width] = clip.recipe.size;
  const field = (label, element, id) => { element.id = id; return h("div", { class: "field" }, h("label", { for: id }, label), element); };

  const model = h("select", {}, names.map((name) => h("option", { value: name }, name)));
  model.value = names.includes(clip.recipe.model) ? clip.recipe.model : names[0];
  const facts = () => state.models[model.value];
  const prompt = h("textarea", { id: "edit-prompt", rows: 2, maxlength: 2000, spellcheck: "false", autocomplete: "off", "aria-autocomplete": "list", "aria-controls": "edit-words", "aria-describedby": "edit-note" });
  prompt.value = (old ?? clip.recipe).prompt;
  const words = h("ul", { id: "edit-words", class: "words", role: "listbox", "aria-label": "Words of this model" });
  const note = h("p", { id: "edit-note", class: "note", "aria-live": "polite" });
  const steps = h("input", { type: "number", min: 1, max: 1000, inputmode: "numeric" });
  const guidance = h("input", { type: "number", min: 0, max: 1000, step: 0.5, inputmode: "decimal" });
  const seed = h("input", { type: "number", min: 0, max: 4294967295, placeholder: "fresh", disabled: true, inputmode: "numeric" });
  const lock = h("input", { type: "checkbox" });
  const keep = h("input", { type: "checkbox" });
  // What a video shows is known by its own prompt alone.
  keep.checked = Boolean(clip.recipe.prompt) && (!old || old.source !== undefined);
  keep.disabled = !clip.recipe.prompt;
  const strength = h("input", { type: "range", min: 0.05, max: 1, step: 0.05 });
  const cost = h("div", { class: "cost", "aria-live": "polite" });
  const go = h("button", { class: "main", type: "submit" });
  const error = h("p", { class: "error", role: "alert" });
  const number = h("output", {});

  // What is seen of the video, and on it the mask or the frame that is meant.
  const screens = clips.map((each) => {
    const video = h("video", { src: videoOf(each), preload: "auto", playsinline: true, "aria-label": titleOf(each.recipe) });
    Object.assign(video, { muted: true, loop: true, autoplay: !still.matches && !["animate", "inpaint", "keyframes"].includes(mode) });
    video.style.aspectRatio = `${each.width} / ${each.height}`;
    return h("div", { class: "screen" }, video);
  });
  const stage = h("div", { class: `stage${clips.length > 1 ? " two" : ""}` }, screens);
  // Of keyframes: which frame of each, and words for the ways after the first.
  const keys = mode !== "keyframes" ? [] : clips.map((each, place) => {
    const key = h("input", { type: "range", min: 0, max: each.frames - 1, step: 1, value: old?.keyframes?.[place] ?? (place === 0 ? each.frames - 1 : 0), "aria-label": `Frame of video ${place + 1}` });
    const text = h("output", {});
    const seekKey = () => {
      text.textContent = `${Number(key.value) + 1} of ${each.frames}`;
      screens[place].firstChild.currentTime = (Number(key.value) + 0.5) / each.fps;
    };
    key.addEventListener("input", seekKey);
    screens[place].firstChild.addEventListener("loadeddata", seekKey);
    screens[place].append(h("label", { class: "slide" }, `Keyframe ${place + 1}`, key, text));
    return key;
  });
  const ways = keys.slice(2).map((_, place) => segmentBox(`From ${place + 2} to ${place + 3}`, old?.later?.[place] ?? ""));
  const painter = mode === "inpaint" ? maskPainter(width, height, () => showCost()) : null;
  const used = mode === "restyle" || mode === "inpaint" ? Math.min(within(facts(), clip), clip.frames) : clip.frames;
  const frame = h("input", { type: "range", min: 0, max: used - 1, step: 1, value: mode === "animate" ? old?.frame ?? used - 1 : Math.floor(used / 2) });
  const frameText = h("output", {});
  const seek = () => {
    frameText.textContent = `${Number(frame.value) + 1} of ${used}`;
    screens[0].firstChild.currentTime = (Number(frame.value) + 0.5) / clip.fps;
    painter?.show(Number(frame.value));
  };
  if (painter) screens[0].append(painter.canvas);
  if (painter || mode === "animate") {
    frame.addEventListener("input", seek);
    screens[0].firstChild.addEventListener("loadeddata", seek);
    stage.append(h("label", { class: "slide" }, "Frame", frame, frameText));
  }
  if (painter) stage.append(...painter.tools);
  if (used < clip.frames) stage.append(h("p", { class: "note" }, `The first ${used} of its ${clip.frames} frames are used.`));

  const form = h("form", { "aria-label": about.name, novalidate: true },
    names.length > 1 ? field("Model", model, "edit-model") : null,
    h("div", { class: "field" }, h("label", { for: "edit-prompt" }, mode === "restyle" ? "What it is to become" : ways.length ? "From 1 to 2" : "What to show"), prompt, note, words),
    ways,
    mode === "restyle" ? h("label", { class: "check-line" }, keep, clip.recipe.prompt ? " Keep what both prompts say" : " Keep what both prompts say: this video has none") : null,
    mode === "restyle" ? h("div", { class: "field" }, h("label", { for: "edit-strength" }, "Strength ", number), Object.assign(strength, { id: "edit-strength" }), h("p", { class: "note" }, "Low keeps more of the video, 1 keeps nothing.")) : null,
    h("div", { class: "row" }, field("Steps", steps, "edit-steps"), field("Guidance", guidance, "edit-guidance")),
    h("div", { class: "row" }, field("Seed", seed, "edit-seed"), h("div", { class: "field check" }, h("label", {}, lock, " Keep the seed"))),
    h("fieldset", {}, h("legend", {}, "Variations"), numberOfVariations("edit-count", mode === "restyle" ? 1 : 2)),
    h("div", { class: "send" }, cost, go, error));
  const offer = offerWords(prompt, words, note);
  const count = () => Number(form.elements["edit-count"].value);

  function useModel() {
    const how = facts().modes[mode];
    steps.value = how.steps;
    guidance.value = how.guidance;
    useStrength();
    if (old) {
      steps.value = old.steps;
      guidance.value = old.guidance;
      strength.value = old.strength ?? strength.value;
    }
    offer(facts().words);
    showCost();
  }
  function useStrength() {
    if (mode !== "restyle") return;
    const how = facts().modes.restyle;
    strength.value = keep.checked ? how.strength : how.plain_strength;
    steps.value = keep.checked ? how.steps : facts().steps;
    guidance.value = keep.checked ? how.guidance : facts().guidance;
  }

  /** What is asked for, or the line that says what is wrong. */
  function asked() {
    const wrong = wrongNumber([[steps, "steps", true], [guidance, "guidance", false], ...(lock.checked ? [[seed, "the seed", true]] : [])]);
    if (wrong) return { error: wrong };
    if (painter?.isEmpty()) return { error: "Paint over what is to change." };
    if (mode === "restyle" && prompt.value.trim() === clip.recipe.prompt) return { error: "Change the prompt: it says what the video shows already." };
    const frames = mode === "restyle" || mode === "inpaint" ? within(facts(), clip) : facts().default_size[0];
    return {
      model: model.value, prompt: prompt.value.trim(), frames, height, width, steps: Number(steps.value), guidance: Number(guidance.value),
      seed: lock.checked ? Number(seed.value) : null, count: count(), mode, parents: clips.map((each) => each.id),
      ...(mode === "animate" ? { frame: Number(frame.value) } : {}),
      ...(mode === "restyle" ? { strength: Number(strength.value), keep: keep.checked } : {}),
      ...(painter ? painter.asked() : {}),
      ...(keys.length ? { keyframes: keys.map((key) => Number(key.value)), later: prompts(ways, prompt.value.trim()) } : {}),
    };
  }

  let asking = 0;
  async function showCost() {
    asking += 1;
    const own = asking;
    const many = count();
    number.textContent = Number(strength.value).toFixed(2);
    go.textContent = `${about.name}: ${many === 1 ? "1 video" : `${many} videos`}`;
    const wanted = asked();
    go.disabled = Boolean(wanted.error);
    if (wanted.error) {
      cost.replaceChildren(h("p", { class: "soft" }, wanted.error));
      return;
    }
    const size = [wanted.frames, height, width];
    const query = new URLSearchParams({ model: wanted.model, mode, size: size.join("x"), steps: wanted.steps, guidance: wanted.guidance, strength: wanted.strength ?? 1, keep: wanted.keep ? 1 : 0, segments: Math.max(1, keys.length - 1) });
    const found = await ask(`/api/plan?${query}`).catch((failure) => ({ failure }));
    if (own !== asking) return;
    if (found.failure || !found.flops) {
      cost.replaceChildren(h("p", { class: "error" }, found.failure?.message ?? `This model does not offer ${width} × ${height}.`));
      go.disabled = true;
      return;
    }
    cost.replaceChildren(...costLines(state.speeds[wanted.model], size, many, found.flops));
  }

  form.addEventListener("input", (event) => {
    if (event.target === keep) useStrength();
    showCost();
  });
  model.addEventListener("change", useModel);
  lock.addEventListener("change", () => {
    seed.disabled = !lock.checked;
    if (lock.checked && seed.value === "") seed.value = (old ?? clip.recipe).seed;
    showCost();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = asked();
    error.textContent = wanted.error ?? "";
    if (wanted.error) return;
    try {
      await ask("/api/jobs", wanted);
      announce(`${wanted.count} in the queue`);
      // Unless one has gone on meanwhile.
      if (form.isConnected) location.hash = "#make";
    } catch (failure) {
      error.textContent = failure.message;
    }
  });
  view.replaceChildren(h("div", { class: "edit" }, intro(about), form, stage));
  useModel();
}
