// The model's own words, offered as one types: the ones it knows best come first.
import { h } from "./dom.js";

// All of a large vocabulary would be a wall; those that are offered are the most frequent.
const MOST = 40;

const split = (text) => text.toLowerCase().match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) ?? [];

/** Offer words for a text box; returns a function that takes the words to offer from now on. */
export function offerWords(box, list, note) {
  let words = [];
  // Of these those that are offered: no commas.
  let offered = [];
  let chosen = -1;

  const unknown = (text) => (words.length ? [...new Set(split(text).filter((word) => !words.includes(word)))] : []);

  /** The word that is being typed, and where it stands. */
  function typed() {
    const before = box.value.slice(0, box.selectionEnd ?? box.value.length);
    const start = before.search(/[\p{L}\p{N}_]*$/u);
    return { start, end: before.length, text: before.slice(start).toLowerCase() };
  }

  function show() {
    const { text } = typed();
    const begun = text ? offered.filter((word) => word.startsWith(text) && word !== text) : [];
    name(null);
    list.replaceChildren(
      ...(begun.length ? begun : offered).slice(0, MOST).map((word, place) =>
        h("li", { id: `${list.id}-${place}`, role: "option", "aria-selected": "false", onpointerdown: (event) => event.preventDefault(), onclick: () => take(word) }, word),
      ),
    );
    list.hidden = offered.length === 0;
    // What is still being typed is not unknown yet.
    const done = box.value.slice(0, typed().start) + box.value.slice(typed().end);
    const strange = unknown(begun.length ? done : box.value);
    note.textContent = strange.length ? `The model never saw: ${strange.join(", ")}` : words.length ? "Words of this model" : "";
    note.classList.toggle("warn", strange.length > 0);
  }

  function take(word) {
    const { start, end, text } = typed();
    // A word that is offered for what is being typed replaces it; any other one follows.
    const replaces = word.startsWith(text) && text !== "";
    const head = replaces ? box.value.slice(0, start) : box.value.slice(0, end);
    const gap = head && !/\s$/.test(head) ? " " : "";
    const tail = box.value.slice(end).replace(/^\s*/, "");
    const place = head.length + gap.length + word.length + 1;
    box.value = `${head}${gap}${word} ${tail}`;
    box.focus();
    box.setSelectionRange(place, place);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function choose(place) {
    const options = [...list.children];
    chosen = (place + options.length + 1) % (options.length + 1);
    options.forEach((option, index) => option.setAttribute("aria-selected", String(index === chosen)));
    if (chosen < options.length) {
      options[chosen].scrollIntoView({ block: "nearest" });
      name(options[chosen].id);
    } else {
      name(null);
    }
  }

  /** Which word is chosen, for those who hear the page; null: none is. */
  function name(id) {
    if (id === null) chosen = -1;
    for (const element of [box, list]) {
      if (id === null) element.removeAttribute("aria-activedescendant");
      else element.setAttribute("aria-activedescendant", id);
    }
  }

  box.addEventListener("input", show);
  const press = (event) => {
    const options = list.children.length;
    if (event.key === "ArrowDown" && options) choose(chosen + 1);
    else if (event.key === "ArrowUp" && options) choose(chosen === -1 ? options - 1 : chosen - 1);
    else if (event.key === "Escape" && chosen !== -1) choose(options);
    else if (event.key === "Enter" && chosen !== -1) list.children[chosen].click();
    else if (event.key === "Enter" && !event.shiftKey && event.target === box) box.form.requestSubmit();
    else return;
    event.preventDefault();
  };
  box.addEventListener("keydown", press);
  // Of many words some are out of sight: who has no mouse gets there too.
  list.tabIndex = 0;
  list.addEventListener("keydown", press);

  return (known) => {
    words = known;
    offered = known.filter((word) => /[\p{L}\p{N}]/u.test(word));
    show();
  };
}
