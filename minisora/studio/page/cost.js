// What it will cost: FLOPs as the ledger counts them, seconds as this machine has been measured by its last videos.
import { h } from "./dom.js";

const UNITS = [[1e18, "EFLOPs"], [1e15, "PFLOPs"], [1e12, "TFLOPs"], [1e9, "GFLOPs"], [1e6, "MFLOPs"]];

const three = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** A count in words: 251 GFLOPs. */
export function flopsText(flops) {
  const [size, unit] = UNITS.find(([each]) => flops >= each) ?? UNITS.at(-1);
  return `${three(flops / size)} ${unit}`;
}

/** Seconds in words. */
export function timeText(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** FLOPs of one video of a model. */
export function flopsOf(facts, size, steps, guidance) {
  const costs = facts.costs[size.join("x")];
  if (!costs) return null;
  const [fixed, each] = costs[guidance === 1 ? "plain" : "guided"];
  return fixed + steps * each;
}

/** Seconds that so many FLOPs take here, and of how many videos that was learnt; null: of none yet. */
export function secondsOf(speeds, size, flops) {
  const speed = speeds?.[size.join("x")] ?? speeds?.[""];
  return speed ? { seconds: flops / speed[0], videos: speed[1], same: Boolean(speeds[size.join("x")]) } : null;
}

/** The lines that a form shows of so many videos of `flops` each. */
export function costLines(speeds, size, many, flops) {
  const known = secondsOf(speeds, size, many * flops);
  return [
    h("p", {}, h("b", {}, flopsText(many * flops)), many > 1 ? h("span", { class: "soft" }, ` ${many} × ${flopsText(flops)}`) : null),
    h("p", {}, known
      ? [`About ${timeText(known.seconds)} here`, h("span", { class: "soft" }, `, by the last ${known.videos === 1 ? "video" : `${known.videos} videos`}${known.same ? " of this size" : " of other sizes"}`)]
      : h("span", { class: "soft" }, "Seconds are known once the first video was made here.")),
  ];
}
