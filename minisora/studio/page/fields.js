// Fields that both forms have.
import { h } from "./dom.js";

const MOST = 8;

/** Buttons for one to eight variations; the value is that of the radio group. */
export function numberOfVariations(name, chosen) {
  return h("div", { class: "choices" }, Array.from({ length: MOST }, (_, place) =>
    h("label", {}, h("input", { type: "radio", name, value: place + 1, checked: place + 1 === chosen, "aria-label": `${place + 1} variation${place ? "s" : ""}` }), h("span", { "aria-hidden": "true" }, String(place + 1)))));
}

/** The line that says which number is wrong; empty: none is. Takes [field, name, whole] each. */
export function wrongNumber(numbers) {
  for (const [field, name, whole] of numbers) {
    const value = Number(field.value);
    const fits = field.value !== "" && Number.isFinite(value) && value >= Number(field.min) && value <= Number(field.max) && (!whole || Number.isInteger(value));
    field.setAttribute("aria-invalid", String(!fits));
    if (!fits) return `${name} must be ${whole ? "a whole number" : "a number"} from ${field.min} to ${field.max}`;
  }
  return "";
}
