// A mask that is painted over a video: in its own pixels, by a brush, or by numbers for those who use no pointer.
import { h } from "./dom.js";

const COLOR = [255, 64, 129, 150];

/** A canvas to paint on; `rows()` has the mask, `onChange` hears of every stroke. */
export function maskPainter(width, height, onChange) {
  const canvas = h("canvas", { width, height, role: "img", "aria-label": "What is to change: paint with the pointer, or give a box in numbers" });
  const context = canvas.getContext("2d");
  const mask = new Uint8Array(width * height);
  let radius = Math.max(1, Math.round(width / 12));
  let erasing = false;
  let last = null;

  function draw() {
    const image = context.createImageData(width, height);
    mask.forEach((on, place) => { if (on) image.data.set(COLOR, 4 * place); });
    context.putImageData(image, 0, 0);
    onChange();
  }

  function dot(x, y) {
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(height - 1, y + radius); row += 1) {
      for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(width - 1, x + radius); column += 1) {
        if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) mask[row * width + column] = erasing ? 0 : 1;
      }
    }
  }

  function stroke(event) {
    const box = canvas.getBoundingClientRect();
    const to = { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
    const from = last ?? to;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, radius / 2)));
    for (let step = 0; step <= steps; step += 1) dot(from.x + ((to.x - from.x) * step) / steps, from.y + ((to.y - from.y) * step) / steps);
    last = to;
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = null;
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });

  const size = h("input", { type: "range", min: 1, max: Math.round(width / 3), value: radius, oninput: () => { radius = Number(size.value); } });
  const eraser = h("button", { type: "button", "aria-pressed": "false", onclick: () => { erasing = !erasing; eraser.setAttribute("aria-pressed", String(erasing)); } }, "Erase");
  const clear = h("button", { type: "button", onclick: () => { mask.fill(0); draw(); } }, "Clear");
  const numbers = [["Top", height - 1, Math.round(height / 4)], ["Left", width - 1, Math.round(width / 4)], ["Bottom", height, Math.round((3 * height) / 4)], ["Right", width, Math.round((3 * width) / 4)]]
    .map(([name, most, value]) => [name, h("input", { type: "number", min: 0, max: most, value })]);
  const mark = h("button", { type: "button", onclick: () => {
    const [top, left, bottom, right] = numbers.map(([, field]) => Number(field.value));
    for (let row = Math.max(0, top); row < Math.min(height, bottom); row += 1) mask.fill(1, row * width + Math.max(0, left), row * width + Math.min(width, right));
    draw();
  } }, "Mark");
  const tools = [
    h("label", { class: "slide" }, "Brush", size, h("span", {})),
    h("div", { class: "actions" }, eraser, clear),
    h("details", {}, h("summary", {}, "A box by numbers"), h("div", { class: "box" }, numbers.map(([name, field]) => h("label", {}, name, field)), mark)),
  ];

  /** As `pack_mask` of the server: bits row by row, base64. */
  function packed() {
    const bytes = new Uint8Array(Math.ceil(mask.length / 8));
    mask.forEach((on, place) => { if (on) bytes[place >> 3] |= 128 >> (place & 7); });
    return btoa(String.fromCharCode(...bytes));
  }

  return { canvas, tools, packed, isEmpty: () => !mask.includes(1) };
}
