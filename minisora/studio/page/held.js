// While a training holds the machine: it is said where videos are asked for, with the way to stop it.
import { ask, onChange } from "./server.js";
import { announce, byId, h } from "./dom.js";
import { timeText } from "./cost.js";
import { runningTraining } from "./runs.js";

const line = h("div", { class: "holds", hidden: true });
byId("queue").before(line);
let stopping = null;

function show() {
  const job = runningTraining();
  line.hidden = !job;
  if (!job) return;
  const left = Math.max(0, job.steps - job.step);
  const words = stopping === job.id ? "It stops and saves what it has learned." : `Videos wait until it is done${left > 5 ? `, in about ${timeText(left)}` : ""}. Stop it, and it can go on later.`;
  if (line.dataset.shown === `${job.id} ${words}`) return;
  line.dataset.shown = `${job.id} ${words}`;
  const focused = line.contains(document.activeElement);
  line.replaceChildren(h("p", {}, h("b", {}, `${job.request.run} trains. `), words),
    ...(stopping === job.id ? [] : [h("button", { type: "button", onclick: () => { stopping = job.id; ask(`/api/jobs/${job.id}/cancel`, {}).catch((error) => announce(error.message)); show(); } }, "Stop and save")]));
  if (focused) line.querySelector("button")?.focus();
}

onChange(show);
