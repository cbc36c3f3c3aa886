// The queue: what runs, what waits in which order, and how long that will take.
import { ask, onChange, state } from "./server.js";
import { announce, byId, h, icon, keep } from "./dom.js";
import { flopsOf, secondsOf, timeText } from "./cost.js";
import { seedText, titleOf } from "./tiles.js";

const list = byId("queue-list");
const note = byId("queue-note");

const act = (path, body = {}) => ask(path, body).catch((error) => announce(error.message));

/** Jobs that wait, the next one first. */
export const waiting = () => [...state.jobs.values()].filter((job) => job.state === "queued").sort((a, b) => a.place - b.place || a.id - b.id);

function make(job) {
  const what = h("span", { class: "what" });
  const how = h("span", { class: "how" });
  const up = h("button", { class: "plain", type: "button", "aria-label": "Move up", title: "Move up", onclick: () => move(job.id, -1) }, icon("up"));
  const down = h("button", { class: "plain", type: "button", "aria-label": "Move down", title: "Move down", onclick: () => move(job.id, 1) }, icon("down"));
  const cancel = h("button", { class: "plain", type: "button", "aria-label": "Cancel", title: "Cancel", onclick: () => act(`/api/jobs/${job.id}/cancel`) }, icon("close"));
  const bar = h("progress", { max: job.steps, value: 0, "aria-label": "Progress" });
  const row = h("li", {}, what, h("span", { class: "tools" }, up, down, cancel), how);
  row.update = (now, place, count) => {
    const trains = now.request.kind === "train";
    what.textContent = now.request.kind ? `${trains ? "Training" : "Model"} of ${now.request.run}` : `${titleOf(now.request)} · ${seedText(now.request)}`;
    what.title = what.textContent;
    up.hidden = now.state !== "queued" || place === 0;
    down.hidden = now.state !== "queued" || place === count - 1;
    bar.value = now.step;
    if (now.state === "running") how.replaceChildren(bar, trains ? `about ${timeText(Math.max(0, now.steps - now.step))} left` : `step ${now.step} of ${now.steps}`);
    else how.replaceChildren(place === 0 ? "next" : `${place + 1} in the queue`);
  };
  return row;
}

async function move(id, by) {
  const order = waiting().map((job) => job.id);
  const place = order.indexOf(id);
  const rest = order.filter((each) => each !== id);
  const row = list.querySelector(`[data-key="${id}"]`);
  const label = by < 0 ? "Move up" : "Move down";
  await act(`/api/jobs/${id}/move`, { before: rest[place + by] ?? null });
  announce(`now number ${place + by + 1}`);
  // The row moves with its button: whoever pressed it can press again.
  row?.querySelector(`[aria-label="${label}"]`)?.focus();
}

/** Seconds of what is left of these jobs; null where their speed is not known. */
function secondsLeft(jobs) {
  let seconds = 0;
  for (const { request, step, steps } of jobs) {
    if (request.kind) {
      seconds += request.kind === "train" ? Math.max(0, steps - step) : 0;
      continue;
    }
    const facts = state.models[request.model];
    // Of the other modes the steps alone are known here: taken for such of sampling.
    const flops = facts?.costs && flopsOf(facts, request.size, steps, request.guidance);
    const known = flops && secondsOf(state.speeds[request.model], request.size, flops);
    if (!known) return null;
    seconds += known.seconds * (1 - step / steps);
  }
  return seconds;
}

function show() {
  const queued = waiting();
  const shown = [...[...state.jobs.values()].filter((job) => job.state === "running"), ...queued];
  const seconds = secondsLeft(shown);
  const trainings = shown.filter((job) => job.request.kind === "train").length;
  const videos = shown.filter((job) => !job.request.kind).length;
  const count = (number, word) => (number ? [`${number} ${word}${number === 1 ? "" : "s"}`] : []);
  note.textContent = shown.length ? `${[...count(trainings, "training"), ...count(videos, "video")].join(", ") || "a model is read"}${seconds === null ? "" : `, about ${timeText(seconds)}`}` : "nothing waits";
  keep(list, shown, (job) => job.id, make, (row, job) => row.update(job, queued.indexOf(job), queued.length));
}

onChange(show);
