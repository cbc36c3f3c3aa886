// Clips that are chosen to be compared, on any view: 2 or 4 of them, or 3.
import { byId, h } from "./dom.js";

const MOST = 4;
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
    ids.length > 1
      ? h("a", { class: "button", href: `#compare/${ids.join(",")}` }, "Compare")
      : h("span", { class: "soft" }, "one more to compare"),
    ids.length === 2 ? h("a", { class: "button", href: `#edit/connect/${ids.join(",")}`, title: "What happens between the first and the second" }, "Connect") : null,
    h("button", { class: "plain", type: "button", onclick: chooseNone }, "Clear"),
  ].filter(Boolean));
  for (const listener of listeners) listener();
}
