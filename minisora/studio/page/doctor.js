// What the doctor says of a folder of clips.
import { h } from "./dom.js";

const clipText = ({ frames, height, width, fps }) => (frames === 1 ? `pictures of ${width} × ${height}` : `${frames} frames of ${width} × ${height} at ${Number(fps.toPrecision(4))} fps`);

/** The clip of a part of the report, in words. */
export const clipOfReport = (part) => clipText(part.clip);

/** The part of a report that counts: by the suggested clip, or by the config's own. */
export const partOf = (report, clip) => (clip === "suggested" && report.suggested ? report.suggested : report.clips);

/** A report as elements: the verdict, numbers, what is left out and why, and all of it in the doctor's own words. */
export function reportOf(report, clip) {
  const part = partOf(report, clip);
  const { usable, kept, files, num_dropped: dropped } = part;
  const rows = [
    ["usable", `${usable.toLocaleString("en")} clips from ${kept.toLocaleString("en")} of ${files.toLocaleString("en")} files`],
    ["a clip", clipText(part.clip)],
    ...(part.seconds.length ? [["videos last", part.seconds[0] === part.seconds[1] ? `${part.seconds[0].toFixed(1)} s` : `${part.seconds[0].toFixed(1)} to ${part.seconds[1].toFixed(1)} s`]] : []),
    ["captions", part.without_caption === 0 ? "all have one" : `${part.without_caption.toLocaleString("en")} have none: learned without words`],
  ];
  return [
    h("p", { class: usable ? "verdict good" : "verdict bad" }, usable ? `Usable: ${usable.toLocaleString("en")} clips to learn from` : "Nothing is usable as it is"),
    h("table", {}, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))))),
    dropped ? h("div", {}, h("p", { class: "note" }, `Left out (${dropped.toLocaleString("en")})`), h("ul", { class: "dropped" }, part.dropped.map((line) => h("li", {}, line)), dropped > part.dropped.length ? h("li", {}, `and ${(dropped - part.dropped.length).toLocaleString("en")} more`) : null)) : null,
    h("details", {}, h("summary", {}, "In the doctor's own words"), h("pre", { tabindex: "0" }, part.words + (clip === "suggested" && report.reasons ? `\n${report.reasons}\n` : ""))),
  ].filter(Boolean);
}
