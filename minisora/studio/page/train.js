// Train: what is to be learned, a folder of clips, what the doctor says of it, how many minutes; and the runs.
import { ask, state } from "./server.js";
import { announce, byId, h, keep } from "./dom.js";
import { timeText } from "./cost.js";
import { clipOfReport, partOf, reportOf } from "./doctor.js";
import { reportPart } from "./report.js";
import { hideRun, showRun } from "./run.js";
import { lookAtRuns, onRuns, progressText, shop, STATES, watchRuns } from "./runs.js";
import { waiting } from "./queue.js";

const view = byId("view-train");
// What can be learned; from what where no folder is chosen; and how the minutes are shared out.
const LEARNS = {
  videos: { name: "Videos by words", none: "shapes", noneName: "the shapes world, without files", about: "Moving shapes with captions: needs no files, and is the quickest to learn.",
    plan: (files) => `Some steps of several sizes are timed here, then the best run that the minutes hold is planned: about a ${files ? "third" : "sixth"} for the VAE, the rest for the DiT.` },
  world: { name: "A world to play", none: "arena", noneName: "the arena, recorded here first", about: "2,400 clips of a small game are recorded first, which the minutes do not count; how it was played names the buttons.",
    plan: () => "Some steps of each stage are timed here, then the minutes are shared out: about a sixth for the VAE, a fifth for finding what is done in the clips, the rest for what follows from it." },
};
const EXAMPLE_MINUTES = 10;
// Milliseconds between two questions to the doctor.
const ASKS = 500;

const kinds = h("fieldset", { class: "clip-choice" }, h("legend", {}, "What to learn"),
  Object.entries(LEARNS).map(([value, { name }]) => h("label", { class: "radio" }, h("input", { type: "radio", name: "train-learns", value, checked: value === "videos" }), h("span", {}, name))));
const data = h("select", { id: "train-data", "aria-describedby": "train-data-note" });
const dataNote = h("p", { class: "note", id: "train-data-note" });
const doctor = h("section", { class: "doctor", "aria-label": "The doctor's report", "aria-live": "polite" });
const clips = h("fieldset", { class: "clip-choice", hidden: true });
const minutes = h("input", { id: "train-minutes", type: "number", inputmode: "numeric", min: 1, max: 10080, step: 1, value: 20, required: true, "aria-describedby": "train-minutes-note" });
const minutesNote = h("p", { class: "note", id: "train-minutes-note" });
const go = h("button", { class: "main", type: "submit" }, "Train");
const error = h("p", { class: "error", role: "alert" });
const form = h("form", { "aria-label": "A new run", novalidate: true },
  kinds,
  h("div", { class: "field" }, h("label", { for: "train-data" }, "What to learn from"), data, dataNote),
  doctor, clips,
  h("div", { class: "field" }, h("label", { for: "train-minutes" }, "Minutes"), minutes, minutesNote),
  h("div", { class: "cost", id: "train-plan" }),
  // What stays in view hides what is above it, the minutes after a long report: so it is the button alone.
  h("div", { class: "send" }, go, error));
const list = h("div", { class: "runs", role: "list", "aria-labelledby": "runs-title" });
const empty = h("div", { class: "empty", hidden: true });
const ownReport = reportPart("own", "A published estimate of what a model of Sora's size costs, audited and rerun: every assumption can be moved.");
const overview = h("div", { class: "train" }, form, h("div", { class: "results" },
  h("section", { "aria-labelledby": "runs-title" }, h("h2", { id: "runs-title" }, "Runs"), list, empty), ownReport));
const detail = h("div", { hidden: true });
view.append(overview, detail);

const learns = () => form.querySelector("input[name=train-learns]:checked").value;
// Of each folder what the doctor said, for what is to be learned from it.
const reports = new Map();
const keyOf = (id = data.value) => `${id} ${learns()}`;
const chosenClip = () => form.querySelector("input[name=train-clip]:checked")?.value ?? "clips";
const folder = () => shop.data.find((each) => each.id === data.value);
const report = () => reports.get(keyOf()) ?? { state: "none" };

function fillData() {
  const before = data.value;
  const { none, noneName } = LEARNS[learns()];
  const shown = JSON.stringify([shop.data, none]);
  if (data.dataset.shown === shown) return;
  data.dataset.shown = shown;
  data.replaceChildren(
    ...shop.data.map((each) => h("option", { value: each.id }, `${each.name} · ${each.files >= shop.most_files ? `${shop.most_files.toLocaleString("en")} files or more` : `${each.files.toLocaleString("en")} ${each.files === 1 ? "file" : "files"}`}`)),
    h("option", { value: none }, noneName));
  data.value = [...data.options].some((option) => option.value === before) ? before : data.options[0].value;
  showFolder();
}

/** What belongs to the folder that is chosen. */
function showFolder() {
  const chosen = folder();
  dataNote.replaceChildren(...(shop.data.length ? [chosen ? "" : LEARNS[learns()].about]
    : [`${LEARNS[learns()].about} Start with `, h("code", {}, "minisora studio --data FOLDER"), " to learn from your own clips."]));
  showDoctor();
}

function showDoctor() {
  const now = report();
  doctor.hidden = !folder();
  if (!folder()) doctor.replaceChildren();
  else if (now.state === "none") {
    doctor.replaceChildren(
      h("p", {}, "The doctor decodes every file, says what cannot be used and why, and suggests a clip that suits."),
      h("button", { type: "button", onclick: check }, "Check the clips"));
  } else if (now.state === "running") {
    if (!doctor.querySelector("progress")) {
      doctor.replaceChildren(h("p", {}, ""), h("progress", { "aria-label": "Files checked" }), h("button", { type: "button", class: "plain", onclick: endCheck }, "Stop"));
    }
    doctor.querySelector("p").textContent = now.done ? `Checking: ${now.done.toLocaleString("en")} of ${now.total.toLocaleString("en")} files` : "The doctor is on the way";
    const bar = doctor.querySelector("progress");
    bar.max = now.total || 1;
    bar.value = now.done;
  } else if (now.state === "failed") {
    doctor.replaceChildren(h("p", { class: "error" }, now.error), h("button", { type: "button", onclick: check }, "Check again"));
  } else {
    doctor.replaceChildren(...reportOf(now, chosenClip()));
  }
  showPlan();
}

function showClips() {
  const now = report();
  const two = folder() && now.state === "done" && now.suggested;
  clips.hidden = !two;
  if (!two) {
    clips.replaceChildren();
    return;
  }
  const choice = (value, part, words) => h("label", { class: "radio" },
    h("input", { type: "radio", name: "train-clip", value, checked: value === "suggested", onchange: showDoctor }),
    h("span", {}, h("b", {}, words), h("span", { class: "soft" }, clipOfReport(part))));
  clips.replaceChildren(h("legend", {}, "Clip"), choice("suggested", now.suggested, "As the doctor suggests"), choice("clips", now.clips, "As usual"));
}

async function check() {
  const id = data.value;
  const what = learns();
  const key = keyOf();
  reports.set(key, { state: "running", done: 0, total: folder()?.files ?? 0 });
  showDoctor();
  try {
    reports.set(key, await ask(`/api/data/${id}/check`, { learns: what }));
    while (report().state === "running" && keyOf() === key) {
      showDoctor();
      await new Promise((done) => setTimeout(done, ASKS));
      reports.set(key, await ask(`/api/data/${id}/check?learns=${what}`));
    }
  } catch (failure) {
    reports.set(key, { state: "failed", error: failure.message });
  }
  if (keyOf() !== key) return;
  showClips();
  showDoctor();
  const now = report();
  if (now.state === "done") announce(partOf(now, chosenClip()).usable ? "The clips are checked" : "Nothing is usable");
}

async function endCheck() {
  const id = data.value;
  const key = keyOf();
  await ask(`/api/data/${id}/check`, {}, "DELETE").catch(() => {});
  reports.delete(key);
  showDoctor();
}

/** What pressing the button means. */
function showPlan() {
  const [least, most] = shop.minutes;
  const value = Number(minutes.value);
  const fits = minutes.value !== "" && Number.isInteger(value) && value >= least && value <= most;
  minutes.setAttribute("aria-invalid", String(!fits));
  minutesNote.textContent = fits ? "All of it: the plan, every stage, what is written at the end" : `a whole number from ${least} to ${most.toLocaleString("en")}`;
  const now = report();
  const unusable = folder() && now.state === "done" && !partOf(now, chosenClip()).usable;
  go.disabled = !fits || !shop.ready || unusable || (folder() && now.state === "running");
  go.textContent = fits ? `Train for ${timeText(60 * value)}` : "Train";
  const before = waiting().length + [...state.jobs.values()].filter((job) => job.state === "running").length;
  byId("train-plan")?.replaceChildren(
    h("p", {}, LEARNS[learns()].plan(Boolean(folder()))),
    h("p", { class: "soft" }, before ? `It begins after what is in the queue (${before}); videos asked for later wait for it.` : "It holds the machine: videos wait until it is done or you stop it."));
}

async function begin(wanted) {
  error.textContent = "";
  go.disabled = true;
  try {
    const { run } = await ask("/api/train", wanted);
    await lookAtRuns();
    location.hash = `#train/${run}`;
  } catch (failure) {
    error.textContent = failure.message;
  }
  showPlan();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  showPlan();
  if (!go.disabled) begin({ learns: learns(), data: data.value, minutes: Number(minutes.value), clip: chosenClip() });
});
minutes.addEventListener("input", showPlan);
/** Another folder, or something else to learn from it: what the doctor said of that. */
async function turn() {
  fillData();
  const key = keyOf();
  if (folder() && !reports.has(key)) {
    const known = await ask(`/api/data/${data.value}/check?learns=${learns()}`).catch(() => ({ state: "none" }));
    if (known.state !== "none") reports.set(key, known);
    if (keyOf() !== key) return;
  }
  showClips();
  showFolder();
}
data.addEventListener("change", turn);
kinds.addEventListener("change", turn);

function row() {
  const name = h("span", { class: "what" });
  const badge = h("span", { class: "badge" });
  const how = h("span", { class: "how" });
  const bar = h("progress", { "aria-hidden": "true" });
  const link = h("a", {}, name, badge, how, bar);
  const item = h("div", { role: "listitem", class: "run-row" }, link);
  item.update = (run) => {
    link.href = `#train/${run.id}`;
    name.textContent = run.name;
    badge.textContent = STATES[run.state];
    badge.className = `badge ${run.state}`;
    how.textContent = run.state === "failed" ? run.error : progressText(run);
    bar.hidden = !run.seconds || !["running", "stopped"].includes(run.state);
    bar.max = run.seconds || 1;
    bar.value = Math.min(run.spent, run.seconds || 1);
  };
  return item;
}

/** Once it is known what is in it: nothing jumps. */
function showOverview() {
  overview.hidden = !detail.hidden || !(shop.ready || shop.error);
}

function showRuns() {
  if (view.hidden) return;
  fillData();
  minutes.max = shop.minutes[1];
  if (shop.error) error.textContent = shop.error;
  keep(list, shop.runs, (run) => run.id, row, (item, run) => item.update(run));
  empty.hidden = !shop.ready || shop.runs.length > 0;
  if (!empty.hidden && !empty.children.length) {
    empty.replaceChildren(
      h("p", {}, h("b", {}, "Nothing was trained yet.")),
      h("p", {}, "A run learns from clips with captions. The curves and the first samples come within minutes; it can be stopped at any time and goes on where it was."),
      h("button", { type: "button", onclick: () => begin({ data: LEARNS.videos.none, minutes: EXAMPLE_MINUTES }) }, `Learn the shapes world in ${EXAMPLE_MINUTES} minutes`));
  }
  showPlan();
  showOverview();
}

/** Show the view: a run by its id, or the form and all runs; of "world" the form for what works without any clips. */
export function showTrain(wanted) {
  const isKind = Object.hasOwn(LEARNS, wanted ?? "");
  if (isKind) {
    kinds.querySelector(`input[value=${wanted}]`).checked = true;
    fillData();
    data.value = LEARNS[wanted].none;
    turn();
  }
  const id = isKind ? "" : wanted;
  detail.hidden = !id;
  showOverview();
  if (id) showRun(detail, id);
  else {
    hideRun();
    ownReport.look();
  }
  lookAtRuns();
}

export function hideTrain() {
  hideRun();
}

watchRuns(() => !view.hidden && !document.hidden);
onRuns(showRuns);
