// Two to four videos in step: one clock moves them all, frame by frame.
import { clipOf, videoOf } from "./server.js";
import { byId, h, icon, still } from "./dom.js";
import { seedText, titleOf } from "./tiles.js";
import { chooseNone } from "./chosen.js";

const view = byId("view-compare");
let timer = 0;
// Counts what was asked for: an answer to an earlier question is dropped.
let shown = 0;

const ROWS = [
  ["Prompt", (clip) => titleOf(clip.recipe)],
  ["Model", (clip) => clip.recipe.model],
  ["Seed", (clip) => clip.recipe.seed],
  ["Steps", (clip) => clip.recipe.steps],
  ["Guidance", (clip) => clip.recipe.guidance],
  ["Size", (clip) => `${clip.width} × ${clip.height}`],
  ["Frames", (clip) => clip.frames],
  ["Took", (clip) => `${clip.seconds.toFixed(1)} s`],
];

export function hideCompare() {
  shown += 1;
  clearInterval(timer);
  timer = 0;
  view.onkeydown = null;
  view.replaceChildren();
}

export async function showCompare(ids) {
  hideCompare();
  const now = shown;
  const found = await Promise.allSettled(ids.slice(0, 4).map(clipOf));
  const clips = found.filter((each) => each.status === "fulfilled").map((each) => each.value);
  if (now !== shown) return;
  if (clips.length < 2) {
    view.replaceChildren(h("div", { class: "empty" }, h("p", {}, h("b", {}, "Nothing to compare.")), h("p", {}, "Choose two to four videos by their boxes, then press Compare."), h("a", { class: "button", href: "#gallery" }, "To the gallery")));
    return;
  }
  chooseNone();
  const frames = Math.max(...clips.map((clip) => clip.frames));
  const fps = Math.max(...clips.map((clip) => clip.fps));
  const videos = clips.map((clip) => {
    const video = h("video", { src: videoOf(clip), preload: "auto", playsinline: true, "aria-label": `${titleOf(clip.recipe)}, ${seedText(clip.recipe)}` });
    video.muted = true;
    return video;
  });
  const slider = h("input", { type: "range", min: 0, max: Math.max(1, frames - 1), step: 1, value: 0, "aria-label": "Frame", oninput: () => { pause(); go(Number(slider.value)); } });
  const where = h("output", {});
  const toggle = h("button", { type: "button", onclick: () => (timer ? pause() : play()) });
  let frame = 0;

  function go(next) {
    frame = ((next % frames) + frames) % frames;
    slider.value = frame;
    where.textContent = `frame ${frame + 1} of ${frames}`;
    // The middle of a frame, which no rounding takes for another.
    clips.forEach((clip, place) => { videos[place].currentTime = (Math.min(frame, clip.frames - 1) + 0.5) / clip.fps; });
  }
  function play() {
    toggle.replaceChildren(icon("pause"), "Pause");
    timer = setInterval(() => go(frame + 1), 1000 / fps);
  }
  function pause() {
    clearInterval(timer);
    timer = 0;
    toggle.replaceChildren(icon("play"), "Play");
  }
  view.onkeydown = (event) => {
    if (event.target === slider || event.target.tagName === "BUTTON" || event.target.tagName === "A") return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") { pause(); go(frame + (event.key === "ArrowRight" ? 1 : -1)); }
    else if (event.key === " ") timer ? pause() : play();
    else return;
    event.preventDefault();
  };

  const table = h("table", {}, h("tbody", {}, ROWS.map(([name, value]) => {
    const values = clips.map((clip) => String(value(clip)));
    const differs = new Set(values).size > 1;
    return h("tr", {}, h("th", { scope: "row" }, name), values.map((each) => h("td", { class: differs ? "differs" : "" }, each)));
  })));
  const panels = h("div", { class: "compare-grid" }, clips.map((clip, place) =>
    h("figure", {}, videos[place], h("figcaption", {}, h("a", { href: `#clip/${clip.id}` }, `${titleOf(clip.recipe)}, ${seedText(clip.recipe)}`)))));
  panels.style.setProperty("--columns", clips.length);
  view.replaceChildren(h("div", { class: "compare" },
    h("h2", {}, "Compare, frame by frame"),
    panels,
    h("div", { class: "transport" },
      h("button", { type: "button", "aria-label": "One frame back", onclick: () => { pause(); go(frame - 1); } }, icon("previous")),
      toggle,
      h("button", { type: "button", "aria-label": "One frame on", onclick: () => { pause(); go(frame + 1); } }, icon("next")),
      slider, where),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings; what differs is bold" }, table)));
  go(0);
  if (still.matches) pause();
  else play();
}
