// The gallery: as many tiles as the window shows, however many videos there are.
import { ask, onChange, state } from "./server.js";
import { byId, h, still } from "./dom.js";
import { pickBox, starButton, still_or_playing, seedText, titleOf } from "./tiles.js";
import { choose, isChosen, onChosen } from "./chosen.js";

const PAGE = 60;
const GAP = 12;
const SMALLEST = 150;
const CAPTION = 66;
const grid = byId("grid");
const view = byId("view-gallery");
const search = byId("search");
const favourites = byId("favourites");
const playAll = byId("play-all");
let total = 0;
let asking = 0;
let pages = new Map();
let tiles = new Map();
// The tile that the Tab key reaches; arrows move it.
let current = 0;

const query = (page) => `/api/clips?offset=${page * PAGE}&limit=${PAGE}&search=${encodeURIComponent(search.value)}&favourites=${favourites.getAttribute("aria-pressed") === "true" ? 1 : 0}`;

/** The clip at a place, or null and it is asked for. */
function at(place) {
  const page = Math.floor(place / PAGE);
  if (!pages.has(page)) {
    pages.set(page, null);
    const asked = asking;
    ask(query(page)).then((found) => {
      if (asked !== asking) return;
      pages.set(page, found.clips);
      total = found.total;
      draw();
    }, (error) => { pages.delete(page); byId("found").textContent = error.message; });
  }
  return pages.get(page)?.[place % PAGE] ?? null;
}

/** Forget what was read, and read again what is seen. */
function anew(keepTiles = false) {
  asking += 1;
  pages = new Map();
  if (!keepTiles) {
    for (const tile of tiles.values()) tile.element.remove();
    tiles = new Map();
    current = 0;
  }
  if (!view.hidden) at(0);
}

function layout() {
  const width = grid.clientWidth;
  const columns = Math.max(2, Math.floor((width + GAP) / (SMALLEST + GAP)));
  const side = (width - GAP * (columns - 1)) / columns;
  return { columns, side, row: side + CAPTION + GAP };
}

function draw() {
  if (view.hidden) return;
  const { columns, side, row } = layout();
  const rows = Math.ceil(total / columns);
  grid.style.height = `${Math.max(0, rows * row - GAP)}px`;
  const top = window.scrollY - grid.offsetTop;
  const first = Math.max(0, Math.floor((top - 400) / row));
  const last = Math.min(rows - 1, Math.floor((top + window.innerHeight + 400) / row));
  const seen = new Map();
  for (let place = first * columns; place < Math.min(total, (last + 1) * columns); place += 1) {
    const clip = at(place);
    if (clip) seen.set(clip.id, { clip, place });
  }
  for (const [id, tile] of tiles) {
    // What has the focus stays, so that a key still finds it.
    if (!seen.has(id) && !tile.element.contains(document.activeElement)) {
      tile.element.remove();
      tiles.delete(id);
    }
  }
  let before = null;
  for (const [id, { clip, place }] of seen) {
    let tile = tiles.get(id);
    if (!tile) {
      tile = makeTile(clip);
      tiles.set(id, tile);
    }
    tile.place = place;
    tile.star.setAttribute("aria-pressed", String(state.clips.get(id)?.favourite ?? clip.favourite));
    tile.frame.tabIndex = place === current ? 0 : -1;
    Object.assign(tile.element.style, { width: `${side}px`, left: `${(place % columns) * (side + GAP)}px`, top: `${Math.floor(place / columns) * row}px` });
    tile.element.setAttribute("aria-posinset", String(place + 1));
    tile.element.setAttribute("aria-setsize", String(total));
    // In the order of reading, which keys and readers of the page follow.
    const after = before ? before.nextSibling : grid.firstChild;
    if (tile.element !== after) grid.insertBefore(tile.element, after);
    before = tile.element;
    play(tile);
  }
  const searching = search.value.trim() || favourites.getAttribute("aria-pressed") === "true";
  byId("found").textContent = total === 1 ? "1 video" : `${total.toLocaleString("en")} videos`;
  const empty = byId("gallery-empty");
  empty.hidden = total > 0 || pages.get(0) === null;
  if (!empty.hidden) {
    empty.replaceChildren(...(searching
      ? [h("p", {}, h("b", {}, "No video has all of that.")), h("p", {}, "A search looks in prompts, models and seeds: red circle, or a seed such as 7."), h("button", { type: "button", onclick: () => { search.value = ""; favourites.setAttribute("aria-pressed", "false"); anew(); } }, "Show all")]
      : [h("p", {}, h("b", {}, "Here is kept all that you make.")), h("p", {}, "Each file carries its whole recipe: minisora sample --recipe makes it again."), h("a", { class: "button", href: "#make" }, "Make the first")]));
  }
}

function play(tile) {
  if (playAll.getAttribute("aria-pressed") === "true") {
    tile.frame.dataset.playing = "1";
    tile.start();
  } else if (tile.frame.dataset.playing) {
    delete tile.frame.dataset.playing;
    tile.end();
  }
}

function makeTile(clip) {
  const frame = h("a", { class: "frame", href: `#clip/${clip.id}`, "aria-label": `Open: ${titleOf(clip.recipe)}, ${seedText(clip.recipe)}` });
  const moving = still_or_playing(clip, frame);
  const star = starButton(clip);
  const element = h("div", { class: "tile", role: "listitem" }, frame,
    h("div", { class: "caption" },
      h("span", { class: "text title", title: titleOf(clip.recipe) }, titleOf(clip.recipe)),
      pickBox(clip, isChosen(clip.id), choose), h("span", { class: "text" }, seedText(clip.recipe)), star));
  element.classList.toggle("picked", isChosen(clip.id));
  const tile = { element, frame, star, place: 0, ...moving };
  frame.addEventListener("focus", () => { current = tile.place; });
  return tile;
}

grid.addEventListener("keydown", (event) => {
  if (!event.target.classList.contains("frame")) return;
  const { columns, row } = layout();
  const page = Math.max(1, Math.floor(window.innerHeight / row)) * columns;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -total, End: total }[event.key];
  if (event.key === " ") {
    event.preventDefault();
    event.target.closest(".tile").querySelector(".pick input").click();
  }
  if (!by) return;
  event.preventDefault();
  const next = Math.max(0, Math.min(total - 1, current + by));
  const { offsetTop } = grid;
  const up = offsetTop + Math.floor(next / columns) * row;
  if (up < window.scrollY + 70) window.scrollTo(0, up - 70);
  else if (up + row > window.scrollY + window.innerHeight) window.scrollTo(0, up + row - window.innerHeight);
  current = next;
  focusCurrent(10);
});

/** Give the focus to the current tile, once it is there. */
function focusCurrent(tries) {
  draw();
  const clip = at(current);
  const tile = clip && tiles.get(clip.id);
  if (tile) tile.frame.focus({ preventScroll: true });
  else if (tries) setTimeout(() => focusCurrent(tries - 1), 50);
}

let waiting = 0;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => { window.scrollTo(0, 0); anew(); }, 150);
});
for (const button of [favourites, playAll]) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    if (button === favourites) anew();
    else for (const tile of tiles.values()) play(tile);
  });
}
let drawing = false;
for (const name of ["scroll", "resize"]) {
  window.addEventListener(name, () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; draw(); });
  }, { passive: true });
}
onChosen(() => {
  for (const [id, tile] of tiles) {
    tile.element.querySelector(".pick input").checked = isChosen(id);
    tile.element.classList.toggle("picked", isChosen(id));
  }
});
onChange((changes) => {
  byId("clip-count").textContent = state.total ? state.total.toLocaleString("en") : "";
  if (changes.anew) anew();
  else if (changes.clips?.length || changes.gone?.length) {
    if (!view.hidden) {
      clearTimeout(waiting);
      waiting = setTimeout(() => anew(true), 200);
    } else anew();
  }
});

/** Called when the view is shown. */
export function showGallery() {
  at(0);
  draw();
}

still.addEventListener("change", draw);
