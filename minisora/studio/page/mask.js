// A mask that is painted over a video: in its own pixels, by a brush, or by numbers for those who use no pointer.
// One mask holds for every frame; where it moves it is painted at several frames and goes from one to the next.
import { h } from "./dom.js";

const COLOR = [255, 64, 129, 150];
const MOST = 8;

/** [x, y] of the middle of a mask; null: it is empty. */
function middle(mask, width) {
  let [x, y, count] = [0, 0, 0];
  mask.forEach((on, place) => { if (on) { x += place % width; y += Math.floor(place / width); count += 1; } });
  return count ? [x / count, y / count] : null;
}

/** As `mask_path` of the server: the shape of the nearer one, its middle on the way from the one to the other. */
export function maskAt(masks, frame, width, height) {
  if (!masks.size) return new Uint8Array(width * height);
  const frames = [...masks.keys()].sort((a, b) => a - b);
  const before = frames.filter((each) => each <= frame).at(-1) ?? frames[0];
  const after = frames.find((each) => each >= frame) ?? frames.at(-1);
  const share = after > before ? (frame - before) / (after - before) : 0;
  const near = masks.get(share < 0.5 ? before : after);
  const [start, end] = [middle(masks.get(before), width), middle(masks.get(after), width)];
  if (!start || !end) return near;
  const own = middle(near, width);
  const [byX, byY] = [0, 1].map((axis) => Math.round(start[axis] + share * (end[axis] - start[axis]) - own[axis]));
  const moved = new Uint8Array(near.length);
  near.forEach((on, place) => {
    const [x, y] = [(place % width) + byX, Math.floor(place / width) + byY];
    if (on && x >= 0 && x < width && y >= 0 && y < height) moved[y * width + x] = 1;
  });
  return moved;
}

/** As `pack_mask` of the server: bits row by row, base64. */
function packed(mask) {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((on, place) => { if (on) bytes[place >> 3] |= 128 >> (place & 7); });
  return btoa(String.fromCharCode(...bytes));
}

/** A canvas to paint on; `asked()` has what the server takes, `onChange` hears of every stroke. */
export function maskPainter(width, height, onChange) {
  const canvas = h("canvas", { width, height, role: "img", "aria-label": "What is to change: paint with the pointer, or give a box in numbers" });
  const context = canvas.getContext("2d");
  // By the frame that each was painted at; where it stands still there is one, of whichever frame.
  let masks = new Map([[0, new Uint8Array(width * height)]]);
  let frame = 0;
  let radius = Math.max(1, Math.round(width / 12));
  let erasing = false;
  let last = null;
  const moves = h("input", { type: "checkbox", onchange: () => setMoves() });
  const where = h("span", { class: "soft", role: "status" });
  const forget = h("button", { type: "button", onclick: () => { masks.delete(frame); draw(); } }, "Forget this frame's");

  function setMoves() {
    const seen = maskAt(masks, frame, width, height);
    // What was painted before holds where it is seen; nothing, nowhere.
    masks = new Map(moves.checked ? (seen.includes(1) ? [[frame, seen]] : []) : [[0, seen]]);
    draw();
  }

  /** The mask of the frame that is seen, to be painted on. */
  function own() {
    if (!moves.checked) return masks.get(0);
    if (!masks.has(frame) && masks.size < MOST) masks.set(frame, Uint8Array.from(maskAt(masks, frame, width, height)));
    return masks.get(frame);
  }

  function draw() {
    const image = context.createImageData(width, height);
    maskAt(masks, frame, width, height).forEach((on, place) => { if (on) image.data.set(COLOR, 4 * place); });
    context.putImageData(image, 0, 0);
    const frames = [...masks.keys()].sort((a, b) => a - b).map((each) => each + 1);
    where.textContent = moves.checked ? (frames.length ? `Painted at frame ${frames.join(", ")}${masks.size === MOST ? ": no more can be" : ""}.` : "Nothing is painted yet.") : "";
    forget.hidden = !moves.checked || masks.size < 2 || !masks.has(frame);
    onChange();
  }

  function dot(mask, x, y) {
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(height - 1, y + radius); row += 1) {
      for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(width - 1, x + radius); column += 1) {
        if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) mask[row * width + column] = erasing ? 0 : 1;
      }
    }
  }

  function stroke(event) {
    const mask = own();
    if (!mask) return;
    const box = canvas.getBoundingClientRect();
    const to = { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
    const from = last ?? to;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, radius / 2)));
    for (let step = 0; step <= steps; step += 1) dot(mask, from.x + ((to.x - from.x) * step) / steps, from.y + ((to.y - from.y) * step) / steps);
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
  const clear = h("button", { type: "button", onclick: () => { own()?.fill(0); draw(); } }, "Clear");
  const numbers = [["Top", height - 1, Math.round(height / 4)], ["Left", width - 1, Math.round(width / 4)], ["Bottom", height, Math.round((3 * height) / 4)], ["Right", width, Math.round((3 * width) / 4)]]
    .map(([name, most, value]) => [name, h("input", { type: "number", min: 0, max: most, value })]);
  const mark = h("button", { type: "button", onclick: () => {
    const [top, left, bottom, right] = numbers.map(([, field]) => Number(field.value));
    for (let row = Math.max(0, top); row < Math.min(height, bottom); row += 1) own()?.fill(1, row * width + Math.max(0, left), row * width + Math.min(width, right));
    draw();
  } }, "Mark");
  const tools = [
    h("label", { class: "slide" }, "Brush", size, h("span", {})),
    h("div", { class: "actions" }, eraser, clear, forget),
    h("label", { class: "check-line" }, moves, " The mask moves: go to another frame and paint it there too"),
    where,
    h("details", {}, h("summary", {}, "A box by numbers"), h("div", { class: "box" }, numbers.map(([name, field]) => h("label", {}, name, field)), mark)),
  ];
  forget.hidden = true;

  return {
    canvas, tools,
    /** Show the mask of another frame. */
    show: (now) => { frame = now; draw(); },
    asked: () => (masks.size > 1 ? { masks: [...masks].sort(([a], [b]) => a - b).map(([at, mask]) => [at, packed(mask)]) } : { mask: packed(masks.values().next().value) }),
    isEmpty: () => ![...masks.values()].some((mask) => mask.includes(1)),
  };
}
