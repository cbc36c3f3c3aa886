// Worlds that are played: which there are, and the way to the page that plays one.
import { ask } from "./server.js";
import { announce, byId, h, keep } from "./dom.js";
import { runningTraining } from "./runs.js";

const view = byId("view-worlds");
const ARENA = "arena";
const LEARN = "#train/world";
const list = h("div", { class: "worlds", role: "list", "aria-label": "Worlds" });
const playing = h("div", { class: "playing", role: "status" });
const line = h("p", { class: "error", role: "alert" });
const teach = h("section", { class: "teach", hidden: true, "aria-label": "How to learn a world" },
  h("h2", {}, "A world of your own"),
  h("p", {}, "A model learns a world from clips alone, without being told which button was pressed. It is listed here when it is learned, as every run is that has a world."),
  h("a", { class: "button", href: LEARN }, "Learn the arena in 20 minutes"),
  h("p", {}, "The same as commands:"),
  h("pre", { tabindex: "0" }, "minisora world record arena --clips 2400 --out worlds/arena\nminisora world train --config world_short --data worlds/arena/clips --minutes 20 --out runs/world"));
const another = h("p", { hidden: true }, h("a", { href: LEARN }, "Learn another world"));
view.append(playing, line, list, another, teach);
// What stands below the worlds waits until it is known how many there are.
let known = { worlds: [], playing: null, waits: true };
let starting = "";

const arena = { id: ARENA, name: "The arena", about: "A small game by exact rules: you, walls, a goal. It needs no model; a world is learned from clips of it." };
const aboutDream = (world) => [
  world.shipped ? "Dreamed by a model that came with minisora and learned the arena from clips alone" : "",
  world.size.length ? `${world.size[1]} × ${world.size[0]} pixels` : "it cannot be read",
  world.fps ? `${world.fps} frames a second` : "",
  world.steps ? `${world.steps} sampling ${world.steps === 1 ? "step" : "steps"} a frame` : "",
  world.named ? "" : "its codes have no names yet",
].filter(Boolean).join(" · ");

async function play(world, beside) {
  starting = world.id;
  line.textContent = "";
  show();
  announce("The world starts");
  try {
    await ask("/api/worlds", { world: world.id, beside });
    if (!view.hidden) location.assign("/world/");
  } catch (error) {
    line.textContent = error.message;
  }
  starting = "";
  await look();
}

function card(world) {
  const beside = h("input", { type: "checkbox" });
  const button = h("button", { type: "button", onclick: () => play(world, beside.checked) }, "Play");
  const about = h("p", { class: "note" });
  const element = h("div", { class: "world", role: "listitem" }, h("h2", {}, world.name), about,
    world.id === ARENA ? null : h("label", { class: "check-line" }, beside, "Show the true arena beside it"), button);
  element.update = (now) => {
    about.textContent = now.about ?? aboutDream(now);
    button.disabled = starting !== "";
    button.textContent = starting === now.id ? "Starting: some seconds" : "Play";
    button.setAttribute("aria-label", `${button.textContent}: ${now.name}`);
  };
  return element;
}

function show() {
  keep(list, [arena, ...known.worlds], (world) => world.id, card, (element, world) => element.update(world));
  const now = known.playing;
  const held = runningTraining();
  playing.replaceChildren(...[
    now ? h("p", {}, h("b", {}, now.name === ARENA ? "The arena" : now.name), " is being played.") : null,
    now ? h("a", { class: "button", href: "/world/" }, "Back to the game") : null,
    now ? h("button", { type: "button", onclick: end }, "End it") : null,
    held ? h("p", { class: "note" }, `${held.request.run} trains meanwhile: a world that dreams will be slow, and so will the training.`) : null,
  ].filter(Boolean));
  playing.hidden = !playing.children.length;
  const own = known.worlds.some((world) => !world.shipped);
  teach.hidden = own || known.waits;
  another.hidden = !own;
}

async function end() {
  await ask("/api/worlds", {}, "DELETE").catch((error) => { line.textContent = error.message; });
  await look();
  list.querySelector("button")?.focus();
}

async function look() {
  try {
    known = await ask("/api/worlds");
  } catch (error) {
    line.textContent = error.message;
  }
  show();
}

/** Called when the view is shown. */
export function showWorlds() {
  show();
  look();
}

// Back from the page of the world by the browser's own key: what is played may have ended.
window.addEventListener("pageshow", (event) => { if (event.persisted && !view.hidden) look(); });
