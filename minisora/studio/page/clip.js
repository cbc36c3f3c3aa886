// One video: large, with its recipe, and what can be done with it.
import { ask, clipOf, state } from "./server.js";
import { announce, byId, h, icon, still } from "./dom.js";
import { flopsText, timeText } from "./cost.js";
import { download, player, starButton, titleOf } from "./tiles.js";
import { useSettings } from "./make.js";

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

/** Show a clip above the view that was open. */
export async function showClip(id, from) {
  behind = from;
  let clip;
  try {
    clip = await clipOf(id);
  } catch {
    announce("this video is not there any more");
    location.hash = behind;
    return;
  }
  const { recipe } = clip;
  const [, height, width] = recipe.size;
  const rows = [
    ["Seed", recipe.seed], ["Model", recipe.model], ["Size", `${width} × ${height}, ${clip.frames} frames at ${clip.fps} per second`],
    ["Steps", recipe.steps], ["Guidance", recipe.guidance],
    ["Cost", `${clip.flops ? `${flopsText(clip.flops)}, ` : ""}${timeText(clip.seconds)} here`],
    ["Made", new Date(clip.made * 1000).toLocaleString()],
  ];
  const use = (keepSeed) => {
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
          h("button", { class: "button main-action", type: "button", onclick: () => use(true) }, "Use these settings"),
          h("button", { type: "button", onclick: () => use(false) }, "With fresh seeds")),
        h("div", { class: "actions" }, download(clip), starButton(clip), remove),
        h("table", {}, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, String(value)))))),
        h("p", { class: "note" }, "The file carries this recipe: ", h("code", {}, `minisora sample --recipe FILE --out again.mp4`), " makes the same bytes again."))),
    h("button", { class: "plain close", type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")));
  if (!dialog.open) dialog.showModal();
}
