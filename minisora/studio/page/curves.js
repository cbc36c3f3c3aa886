// Curves of a training, as SVG that is drawn here: numbers only ever become coordinates and text.
import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const EDGE = { left: 48, right: 14, top: 10, bottom: 26 };
// A loss that falls by more than this is drawn on a logarithmic axis.
const STEEP = 20;

function s(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A number in few digits: 0.523, 28.1, 1,200. */
export function few(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1000 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : String(Number(value.toPrecision(3)));
}

/** About `count` round numbers that span [low, high]. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = power * ([1, 2, 5].find((each) => each * power >= rough) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / unit - 1e-9) * unit; at <= high + unit * 1e-9; at += unit) found.push(Number(at.toPrecision(12)));
  return found;
}

/** 1, 2 and 5 times the powers of ten in [low, high]; the powers alone where these are many. */
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) found.push(...[1, 2, 5].map((each) => each * 10 ** power));
  const inside = found.filter((each) => each >= low && each <= high);
  return inside.length > 6 ? inside.filter((each) => /^[-.0e+]*1/.test(each.toPrecision(1))) : inside;
}

/** A figure of one number of a stage; `draw(training, heldOut)` brings it up to date. */
export function curve(title, falls) {
  const box = h("div", { class: "curve-box" });
  const legend = h("span", { class: "legend" });
  const figure = h("figure", { class: "curve" }, h("figcaption", {}, h("b", {}, title), legend), box);
  let last = null;
  const paint = () => {
    const width = Math.round(box.clientWidth);
    if (last && width > 80) box.replaceChildren(plot(title, falls, width, ...last));
  };
  figure.draw = (training, heldOut) => {
    const now = JSON.stringify([training, heldOut]);
    if (figure.drawn === now) return;
    figure.drawn = now;
    last = [training, heldOut];
    const newest = heldOut.at(-1);
    legend.replaceChildren(
      ...(training.length ? [h("i", { class: "swatch training" }), `training ${few(training.at(-1)[1])}`] : []),
      ...(newest ? [h("i", { class: "swatch held" }), `held out ${few(newest[1])}`] : []));
    paint();
  };
  new ResizeObserver(paint).observe(box);
  return figure;
}

function plot(title, falls, width, training, heldOut) {
  const points = [...training, ...heldOut];
  const values = points.map(([, value]) => value);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const lastStep = Math.max(1, ...points.map(([step]) => step));
  const steep = falls && low > 0 && high > STEEP * low;
  if (!steep) {
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    [low, high] = [low - room, high + room];
    // A loss has a ground.
    if (falls && low < 0) low = 0;
  } else [low, high] = [low / 1.15, high * 1.15];
  const place = steep ? Math.log : (value) => value;
  const x = (step) => EDGE.left + ((width - EDGE.left - EDGE.right) * step) / lastStep;
  const y = (value) => HEIGHT - EDGE.bottom - ((HEIGHT - EDGE.top - EDGE.bottom) * (place(value) - place(low))) / (place(high) - place(low));
  const first = (heldOut.length ? heldOut : training)[0];
  const newest = (heldOut.length ? heldOut : training).at(-1);
  const about = `${title}${heldOut.length ? " on held-out clips" : ""}: ${few(first[1])} at step ${few(first[0])}, ${few(newest[1])} at step ${few(newest[0])}`;
  const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": about });
  for (const value of steep ? logTicks(low, high) : ticks(low, high, 4)) {
    svg.append(s("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(s("text", { x: EDGE.left - 7, y: y(value) + 4, "text-anchor": "end" }, few(value)));
  }
  for (const step of ticks(0, lastStep, Math.max(2, Math.floor(width / 110)))) {
    if (step !== Math.round(step)) continue;
    const end = x(step) > width - EDGE.right - 12;
    svg.append(s("text", { x: x(step), y: HEIGHT - 8, "text-anchor": step === 0 ? "start" : end ? "end" : "middle" }, step === 0 ? "step 0" : few(step)));
  }
  const line = (each) => each.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  if (training.length > 1) svg.append(s("polyline", { points: line(training), class: "training" }));
  if (heldOut.length > 1) svg.append(s("polyline", { points: line(heldOut), class: "held" }));
  if (training.length === 1) svg.append(s("circle", { cx: x(training[0][0]), cy: y(training[0][1]), r: 2.5, class: "training-dot" }));
  if (heldOut.length <= 40) for (const [step, value] of heldOut) svg.append(s("circle", { cx: x(step), cy: y(value), r: 3, class: "held-dot" }));
  return svg;
}
