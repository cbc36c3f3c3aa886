// The runs: what the server knows of them, kept up to date while somebody looks.
import { ask, onChange, state } from "./server.js";
import { timeText } from "./cost.js";

// Milliseconds between two looks at the folder.
const EVERY = 2000;
const listeners = new Set();
export const shop = { data: [], runs: [], minutes: [1, 10080], most_files: 10000, ready: false, error: "" };
let looking = null;
let due = null;
let lastLook = 0;
let watched = () => false;

export const onRuns = (listener) => listeners.add(listener);
/** Look at the runs after every change of theirs as long as `isWatched()`. */
export const watchRuns = (isWatched) => { watched = isWatched; };
const tell = () => { for (const listener of listeners) listener(); };

/** Ask for all runs and folders now. */
export function lookAtRuns() {
  looking ??= ask("/api/train").then((all) => {
    Object.assign(shop, all, { ready: true, error: "" });
  }, (error) => { shop.error = error.message; }).finally(() => {
    looking = null;
    lastLook = performance.now();
    tell();
  });
  return looking;
}

export const isTraining = (job) => job.request.kind === "train";
const isOfRun = (job) => Boolean(job.request.kind);
/** The training that holds the machine now, if one does. */
export const runningTraining = () => [...state.jobs.values()].find((job) => isTraining(job) && job.state === "running");

export const STATES = { queued: "waits", running: "trains", failed: "failed", done: "done", stopped: "stopped", elsewhere: "trained elsewhere" };
export const STAGES = { vae: "VAE", dit: "DiT", caption: "captioner", actions: "codes", dynamics: "dynamics" };

const stepsText = (run) => `step ${run.step.toLocaleString("en")}${run.steps ? ` of ${run.steps.toLocaleString("en")}` : ""}`;
const leftText = (run) => (run.seconds - run.spent < 5 ? "it is about to end" : `about ${timeText(run.seconds - run.spent)} left`);

/** How far the stage that runs is, in words. */
export const stageText = (run) => [run.stage ? stepsText(run) : "", leftText(run)].filter(Boolean).join(", ");

/** How far a run is, in words. */
export function progressText(run) {
  const stage = run.stage ? `${STAGES[run.stage] ?? run.stage}, ${stepsText(run)}` : "";
  if (run.state === "running") return `${stage || "the plan is made"} · ${leftText(run)}`;
  if (run.state === "queued") return "it begins when what is before it in the queue is done";
  if (run.state === "done") return run.seconds ? `${timeText(run.seconds)}${run.stage ? `, ${run.step.toLocaleString("en")} steps of the ${STAGES[run.stage] ?? run.stage}` : ""}` : stage || (run.world ? "a world to play" : "a model");
  return [stage, run.seconds && run.spent ? `${timeText(run.spent)} of ${timeText(run.seconds)}` : ""].filter(Boolean).join(" · ") || "before its first step";
}

function soon() {
  if (due || !watched()) return;
  due = setTimeout(() => { due = null; lookAtRuns(); }, Math.max(50, EVERY - (performance.now() - lastLook)));
}

onChange((changes) => {
  if (changes.anew || (changes.jobs ?? []).some(isOfRun)) soon();
});
