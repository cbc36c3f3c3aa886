// A video on the page: while it waits, as it forms, and when it is there.
import { ask, fileName, pictureOf, videoOf } from "./server.js";
import { announce, h, icon, still } from "./dom.js";

/** A video that plays over and over without a sound. */
export function player(clip, playing = !still.matches, preload = "auto") {
  const video = h("video", { src: videoOf(clip), poster: pictureOf(clip), preload, playsinline: true, "aria-label": `Video: ${clip.recipe.prompt || "without a prompt"}` });
  // As properties: attributes alone do not count for what is made by a script.
  Object.assign(video, { loop: true, muted: true, autoplay: playing && preload === "auto" });
  return video;
}

// Only what is seen is read and plays.
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !still.matches) target.play().catch(() => {});
    else target.pause();
  }
});

/** A video that plays while it is seen. */
function playerWhileSeen(clip) {
  const video = player(clip, false, "none");
  seen.observe(video);
  return video;
}

/** The picture of a clip, which plays while it is pointed at or has the focus. */
export function still_or_playing(clip, frame) {
  const image = h("img", { src: pictureOf(clip), alt: "", loading: "lazy", decoding: "async" });
  let video = null;
  const start = () => {
    if (video) return;
    video = player(clip, true);
    frame.append(video);
  };
  const end = () => {
    if (frame.dataset.playing || frame.matches(":hover") || frame === document.activeElement) return;
    video?.remove();
    video = null;
  };
  for (const name of ["pointerenter", "focus"]) frame.addEventListener(name, start);
  for (const name of ["pointerleave", "blur"]) frame.addEventListener(name, () => setTimeout(end));
  frame.append(image);
  return { start, end };
}

export function starButton(clip) {
  const button = h("button", {
    class: "plain star", type: "button", "aria-pressed": String(clip.favourite), "aria-label": "Favourite", title: "Favourite",
    onclick: async () => {
      const now = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(now));
      try {
        await ask(`/api/clips/${clip.id}`, { favourite: now });
      } catch (error) {
        button.setAttribute("aria-pressed", String(!now));
        announce(error.message);
      }
    },
  }, icon("star", "star-shape"));
  return button;
}

/** The box by which a clip is chosen to be compared. */
export function pickBox(clip, chosen, onChange) {
  const box = h("input", { type: "checkbox", "aria-label": `Choose: ${clip.recipe.prompt}, ${seedText(clip.recipe)}`, onchange: () => onChange(clip.id, box.checked) });
  box.checked = chosen;
  return h("label", { class: "pick", title: "Choose to compare" }, box);
}

export const titleOf = (recipe) => recipe.prompt || recipe.name || "without a prompt";

/** What tells a video from others of its prompt. */
export const seedText = (recipe) => (recipe.mode === "upload" ? "upload" : `seed ${recipe.seed}`);

/** Draw what forms: the strip of frames comes as one picture, and is shown one after another. */
function forming(canvas) {
  const image = new Image();
  let frame = 0;
  const draw = () => {
    if (!image.naturalWidth) return;
    const { width, height } = canvas;
    const count = Math.max(1, Math.round(image.naturalWidth / width));
    canvas.getContext("2d").drawImage(image, (frame % count) * width, 0, width, height, 0, 0, width, height);
  };
  image.addEventListener("load", draw);
  const timer = setInterval(() => {
    if (!canvas.isConnected) return clearInterval(timer);
    if (!still.matches) frame += 1;
    draw();
  }, 350);
  return (source) => {
    if (image.src !== new URL(source, location.href).href) image.src = source;
  };
}

// Failures that were read, also by an earlier page.
const READ = "minisora-read-failures";
const dismissed = new Set(JSON.parse(localStorage.getItem(READ) ?? "[]"));

function dismiss(id) {
  dismissed.add(id);
  localStorage.setItem(READ, JSON.stringify([...dismissed].slice(-100)));
}

/** Whether a job failed and nobody has read of it yet. */
export const isShownFailure = (job) => job.state === "failed" && !dismissed.has(job.id);

/** A tile for a job that waits, runs or has failed; `onRead` is called when its failure was read. */
export function jobTile(job, onRead) {
  const which = seedText(job.request);
  const act = (path) => ask(`/api/jobs/${job.id}/${path}`, {}).catch((error) => announce(error.message));
  const frame = h("div", { class: "frame" });
  const text = h("span", { class: "text" }, which);
  const caption = h("div", { class: "caption" }, text);
  const tile = h("article", { class: "tile", "aria-label": `${titleOf(job.request)}, ${which}` }, frame, caption);
  if (job.state === "failed") {
    const read = () => { dismiss(job.id); onRead(); };
    frame.append(h("div", { class: "forming" }, h("p", { class: "why" }, job.error)));
    // Of a file that was sent nothing is kept.
    if (!job.request.file) caption.append(h("button", { class: "plain", type: "button", onclick: () => { read(); act("retry"); } }, "Try again"));
    caption.append(
      h("button", { class: "plain", type: "button", "aria-label": "Dismiss", title: "Dismiss", onclick: read }, icon("close")));
    tile.update = () => {};
    return tile;
  }
  const [, height, width] = job.request.size;
  const canvas = h("canvas", { width, height, "aria-hidden": "true" });
  const waits = h("span", { class: "state" }, "waits");
  const bar = h("progress", { max: job.steps, value: 0, "aria-label": `Progress of ${which}` });
  const show = forming(canvas);
  frame.append(h("div", { class: "forming" }, canvas, waits, bar));
  caption.append(h("button", { class: "plain", type: "button", "aria-label": `Cancel ${which}`, title: "Cancel", onclick: () => act("cancel") }, icon("close")));
  tile.update = (now) => {
    bar.value = now.step;
    // Beside the picture, never over what one wants to judge.
    const running = now.state === "running";
    waits.hidden = running;
    text.textContent = running ? `${which}, ${now.step}/${now.steps}` : which;
    if (now.forming && running) show(`/api/jobs/${now.id}/preview?step=${now.step}`);
  };
  tile.update(job);
  return tile;
}

/** A tile for a clip among those that were just made. */
export function clipTile(clip, chosen, onPick) {
  const star = starButton(clip);
  const tile = h("article", { class: "tile", "aria-label": `${titleOf(clip.recipe)}, ${seedText(clip.recipe)}` },
    h("a", { class: "frame", href: `#clip/${clip.id}`, "aria-label": `Open: ${titleOf(clip.recipe)}, ${seedText(clip.recipe)}` }, playerWhileSeen(clip)),
    h("div", { class: "caption" },
      pickBox(clip, chosen, (id, on) => { tile.classList.toggle("picked", on); onPick(id, on); }),
      h("span", { class: "text" }, seedText(clip.recipe)), star));
  tile.classList.toggle("picked", chosen);
  tile.update = (now) => star.setAttribute("aria-pressed", String(now.favourite));
  return tile;
}

export const download = (clip) => h("a", { class: "button", href: videoOf(clip), download: fileName(clip) }, "Download");

/** The newest of these in step: when one begins anew, all do. */
export function inStep(tiles) {
  const videos = tiles.flatMap((tile) => [...tile.querySelectorAll("video")]);
  if (videos.length < 2 || still.matches) return;
  for (const video of videos) {
    video.currentTime = 0;
    video.play().catch(() => {});
  }
}
