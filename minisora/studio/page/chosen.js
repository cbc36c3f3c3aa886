// Clips that are chosen on any view: two to four to be compared, two to be connected, two to five for keyframes.
import { byId, h } from "./dom.js";

const MOST = 5;
const COMPARED = 4;
const chosen = new Set();
const bar = byId("chosen");
const listeners = new Set();

export const isChosen = (id) => chosen.has(id);

export function onChosen(listener) {
  listeners.add(listener);
}

export function choose(id, on) {
  if (on) chosen.add(id);
  else chosen.delete(id);
  // The one chosen first gives way.
  if (chosen.size > MOST) chosen.delete(chosen.values().next().value);
  show();
}

export function chooseNone() {
  chosen.clear();
  show();
}

function show() {
  const ids = [...chosen];
  bar.hidden = ids.length === 0;
  bar.replaceChildren(...[
    h("span", {}, `${ids.length} chosen`),
    ids.length > 1 && ids.length <= COMPARED ? h("a", { class: "button", href: `#compare/${ids.join(",")}` }, "Compare") : null,
    ids.length === 1 ? h("span", { class: "soft" }, "one more to compare") : null,
    ids.length > 1 ? h("a", { class: "button", href: `#edit/keyframes/${ids.join(",")}`, title: "A video that goes through a frame of each" }, "Keyframes") : null,
    ids.length === 2 ? h("a", { class: "button", href: `#edit/connect/${ids.join(",")}`, title: "What happens between the first and the second" }, "Connect") : null,
    h("button", { class: "plain", type: "button", onclick: chooseNone }, "Clear"),
  ].filter(Boolean));
  for (const listener of listeners) listener();
}
