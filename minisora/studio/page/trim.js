// Trim: the part of a video between two frames, cut and not sampled.
import { ask, state, videoOf } from "./server.js";
import { announce, h } from "./dom.js";
import { titleOf } from "./tiles.js";

/** The form and the video of it. */
export function trimForm(clip, models) {
  const video = h("video", { src: videoOf(clip), preload: "auto", playsinline: true, "aria-label": titleOf(clip.recipe) });
  video.muted = true;
  // Its place is there before its pictures are.
  video.style.aspectRatio = `${clip.width} / ${clip.height}`;
  const last = clip.frames - 1;
  const slider = (value, label) => h("input", { type: "range", min: 0, max: last, step: 1, value, "aria-label": label });
  const [first, end] = [slider(0, "First frame"), slider(last, "Last frame")];
  const [firstText, endText] = [h("output", {}), h("output", {})];
  const go = h("button", { class: "main", type: "submit" });
  const error = h("p", { class: "error", role: "alert" });
  const cost = h("div", { class: "cost" }, h("p", {}, "Cut, not sampled: it costs no step of the model."));

  function show(moved) {
    // The one that is moved takes the other with it.
    if (Number(first.value) > Number(end.value)) (moved === first ? end : first).value = moved.value;
    const [from, to] = [Number(first.value), Number(end.value)];
    firstText.textContent = `${from + 1}`;
    endText.textContent = `${to + 1} of ${clip.frames}`;
    go.textContent = `Trim: ${to - from + 1} frame${to > from ? "s" : ""}, ${((to - from + 1) / clip.fps).toFixed(1)} s`;
    go.disabled = to - from === last;
    video.currentTime = (Number((moved ?? first).value) + 0.5) / clip.fps;
  }
  for (const each of [first, end]) each.addEventListener("input", () => show(each));
  video.addEventListener("loadeddata", () => show(first));

  const form = h("form", { "aria-label": "Trim", novalidate: true },
    h("label", { class: "field" }, "First frame ", firstText, first), h("label", { class: "field" }, "Last frame ", endText, end),
    h("div", { class: "send" }, cost, go, error));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const alike = models.find((name) => state.models[name].fps === clip.fps);
    const model = models.includes(clip.recipe.model) ? clip.recipe.model : alike ?? models[0];
    try {
      await ask("/api/jobs", { model, mode: "trim", parents: [clip.id], span: [Number(first.value), Number(end.value) + 1] });
      announce("1 in the queue");
      if (form.isConnected) location.hash = "#make";
    } catch (failure) {
      error.textContent = failure.message;
    }
  });
  show(first);
  return [form, h("div", { class: "stage" }, h("div", { class: "screen" }, video))];
}
