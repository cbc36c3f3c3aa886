// Prompts of what follows: of a long video, or between keyframes.
import { h } from "./dom.js";

/** A text box for the prompt of a segment. */
export const segmentBox = (label, value = "") => {
  const box = h("textarea", { rows: 2, maxlength: 2000, spellcheck: "false", autocomplete: "off" });
  box.value = value;
  return h("label", { class: "field segment" }, h("span", {}, label), box);
};

/** What is written in them, the empty ones taken for the one before: none of them has to be filled in. */
export function prompts(boxes, first) {
  let before = first;
  return boxes.map((box) => {
    before = box.querySelector("textarea").value.trim().replace(/\s+/g, " ") || before;
    return before;
  });
}

/** Segments that are added and taken away; `prompts(first)` has their texts. */
export function segmentList(place, most, onChange) {
  const list = h("div", { class: "segments" });
  const add = h("button", { type: "button", onclick: () => { put(""); list.lastChild.querySelector("textarea").focus(); } }, "Add a segment");
  const remove = h("button", { type: "button", onclick: () => { list.lastChild.remove(); show(); } }, "Take the last away");
  place.append(list, h("div", { class: "actions" }, add, remove));

  function put(value) {
    list.append(segmentBox(`Segment ${list.children.length + 2}`, value));
    show();
  }
  function show() {
    add.disabled = list.children.length >= most;
    remove.hidden = list.children.length === 0;
    onChange();
  }
  list.addEventListener("input", onChange);
  remove.hidden = true;
  return {
    prompts: (first) => prompts([...list.children], first),
    fill: (values) => { list.replaceChildren(); values.forEach(put); show(); },
  };
}
