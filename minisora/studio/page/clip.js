// One video: large, with its recipe, and what can be done with it.
import { ask, clipOf, familyOf, pictureOf, state } from "./server.js";
import { announce, byId, h, icon, still } from "./dom.js";
import { flopsText, timeText } from "./cost.js";
import { download, player, starButton, seedText, titleOf } from "./tiles.js";
import { useSettings } from "./make.js";
import { isOfSeveral, MODES, takeAgain } from "./edit.js";

const dialog = byId("clip");
// Where to go when it is closed.
let behind = "#gallery";

dialog.addEventListener("close", () => {
  dialog.replaceChildren();
  if (location.hash.startsWith("#clip/")) location.hash = behind;
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

export function hideClip() {
  if (dialog.open) dialog.close();
}

/** Pictures of the clips that one came from or that came from it, each a way there; filled as they are known. */
function family(title, ids) {
  if (!ids.length) return null;
  const row = h("div", { class: "family" });
  Promise.allSettled(ids.slice(-12).map(clipOf)).then((found) => row.replaceChildren(...found.filter((each) => each.status === "fulfilled").map(({ value }) =>
    h("a", { href: `#clip/${value.id}`, "aria-label": `${titleOf(value.recipe)}, ${value.recipe.mode}, ${seedText(value.recipe)}` }, h("img", { src: pictureOf(value), alt: "" }), h("span", {}, value.recipe.mode)))));
  return h("div", { class: "field" }, h("h3", {}, title), row);
}

/** Whether it needs a file that was sent. */
const isFromUpload = (recipe) => recipe.mode === "upload" || (recipe.parents ?? []).some(isFromUpload);

/** Show a clip above the view that was open. */
export async function showClip(id, from) {
  behind = from;
  let clip;
  try {
    clip = await familyOf(id);
  } catch {
    announce("this video is not there any more");
    location.hash = behind;
    return;
  }
  const { recipe } = clip;
  const [, height, width] = recipe.size;
  const sent = recipe.mode === "upload";
  const rows = [
    ...(recipe.later ?? []).map((text, place) => [recipe.mode === "long" ? `Segment ${place + 2}` : `From ${place + 2} to ${place + 3}`, text]),
    ...(recipe.mode === "sample" || sent ? [] : [["Made by", MODES[recipe.mode]?.name ?? recipe.mode]]),
    ...(sent ? [["File", recipe.name]] : [["Seed", recipe.seed]]), [sent ? "Fitted to" : "Model", recipe.model], ["Size", `${width} × ${height}, ${clip.frames} frames at ${clip.fps} per second`],
    ...(sent || recipe.mode === "trim" ? [] : [["Steps", recipe.steps], ["Guidance", recipe.guidance]]),
    ["Cost", `${clip.flops ? `${flopsText(clip.flops)}, ` : ""}${timeText(clip.seconds)} here`],
    ["Made", new Date(clip.made * 1000).toLocaleString()],
  ];
  const sampled = recipe.mode === "sample" || recipe.mode === "long";
  const use = (keepSeed) => {
    if (!sampled) {
      behind = takeAgain(recipe, clip.parents);
      dialog.close();
      return;
    }
    useSettings(recipe, keepSeed);
    behind = "#make";
    dialog.close();
    byId("prompt").focus();
  };
  let sure = false;
  const remove = h("button", { class: "bad", type: "button", onclick: async () => {
    if (!sure) {
      sure = true;
      remove.textContent = "Delete for good?";
      return;
    }
    try {
      await ask(`/api/clips/${clip.id}`, {}, "DELETE");
      state.clips.delete(clip.id);
      dialog.close();
    } catch (error) {
      announce(error.message);
    }
  }, onblur: () => { sure = false; remove.textContent = "Delete"; } }, "Delete");
  const video = player(clip);
  video.controls = still.matches;
  dialog.replaceChildren(
    h("div", { class: "clip" },
      video,
      h("div", { class: "about" },
        h("h2", { id: "clip-title" }, titleOf(recipe)),
        h("div", { class: "actions" },
          sent ? null : h("button", { class: "button main-action", type: "button", onclick: () => use(true) }, sampled ? "Use these settings" : "Take this step again"),
          sampled ? h("button", { type: "button", onclick: () => use(false) }, "With fresh seeds") : null),
        h("div", { class: "actions" }, download(clip), starButton(clip), remove),
        h("div", { class: "field" }, h("h3", {}, "Go on from here"), h("div", { class: "actions" }, Object.entries(MODES).filter(([mode]) => !isOfSeveral(mode)).map(([mode, { name }]) =>
          h("a", { class: "button", href: `#edit/${mode}/${clip.id}` }, name)))),
        family("Made from", [...new Set(clip.parents)]), family("Became", clip.children),
        h("table", {}, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, String(value)))))),
        h("p", { class: "note" }, "The file carries this recipe: ", h("code", {}, `minisora sample --recipe FILE ${isFromUpload(recipe) ? "--upload ORIGINAL " : ""}--out again.mp4`), " makes the same bytes again."))),
    h("button", { class: "plain close", type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")));
  if (!dialog.open) dialog.showModal();
}
