// The views, by what stands behind the # of the address.
import { begin, onChange, state } from "./server.js";
import { byId } from "./dom.js";
import "./queue.js";
import "./make.js";
import "./upload.js";
import { showGallery } from "./gallery.js";
import { hideCompare, showCompare } from "./compare.js";
import { hideEdit, showEdit } from "./edit.js";
import { hideClip, showClip } from "./clip.js";
import { hideTrain, showTrain } from "./train.js";
import { showWorlds } from "./worlds.js";
import "./held.js";

const VIEWS = ["make", "gallery", "compare", "edit", "train", "worlds"];
let shown = "";
// The last view that was no single video.
let base = "#make";

function show() {
  const [name, ...parts] = location.hash.slice(1).split("/");
  const rest = parts.join("/");
  const ids = (parts.at(-1) ?? "").split(",").map(Number).filter((id) => Number.isSafeInteger(id) && id > 0);
  if (name === "clip") {
    if (!shown) open("gallery", []);
    showClip(ids[0], base);
    return;
  }
  hideClip();
  const view = VIEWS.includes(name) ? name : "make";
  const address = `#${view}${rest ? `/${rest}` : ""}`;
  if (address === base && shown) return;
  base = address;
  open(view, ids, parts[0]);
}

function open(view, ids, mode) {
  if (shown && shown !== view) {
    window.scrollTo(0, 0);
    // For those who hear the page: what follows is new.
    byId("content").focus({ preventScroll: true });
  }
  shown = view;
  for (const each of VIEWS) byId(`view-${each}`).hidden = each !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${{ make: "Make", gallery: "Gallery", compare: "Compare", edit: "Edit", train: "Train", worlds: "Worlds" }[view]} · minisora studio`;
  if (view === "compare") showCompare(ids);
  else hideCompare();
  if (view === "edit") showEdit(mode, ids);
  else hideEdit();
  if (view === "gallery") showGallery();
  if (view === "train") showTrain(mode);
  else hideTrain();
  if (view === "worlds") showWorlds();
}

onChange((changes) => {
  const line = byId("connection");
  if (changes.why) line.textContent = changes.why;
  else if (changes.connected === false) line.textContent = "The studio does not answer; trying again.";
  else if (changes.connected || changes.worker) line.textContent = state.worker === "ready" ? "" : state.worker === "starting" ? "The models are being read." : state.worker;
});
window.addEventListener("hashchange", show);
show();
begin().catch((error) => { byId("connection").textContent = error.message; });
