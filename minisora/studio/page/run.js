// One run: how far it is, what it makes, its curves, its plan, and what can be done with it.
import { ask } from "./server.js";
import { announce, byId, h, keep, still } from "./dom.js";
import { timeText } from "./cost.js";
import { curve, few } from "./curves.js";
import { reportOf } from "./doctor.js";
import { reportPart } from "./report.js";
import { lookAtRuns, onRuns, progressText, STAGES, stageText, STATES } from "./runs.js";

const CURVES = [["loss", "loss", true], ["psnr", "PSNR, dB", false], ["psnr_moving", "PSNR of what moves, dB", false], ["ssim", "SSIM", false]];
const SHOWN = {
  samples: ["What it makes", (step) => `For captions of clips that it never learned from${step === null ? "" : `, at step ${few(step)}`}. None is picked.`],
  reconstructions: ["What the VAE keeps", (step) => `A clip that it never learned from, its copy, and what moves: blue is kept, orange is lost${step === null ? "" : `. At step ${few(step)}`}.`],
};
const WHAT = {
  vae: "The VAE learns to keep what it sees in few numbers",
  dit: "The DiT learns to make what the captions say",
  actions: "Codes are found for what is done from one frame to the next",
  dynamics: "The DiT learns which frame follows from those before it and a code",
};
let place = null;
let shown = null;
let asked = 0;

/** Show a run in an element. */
export function showRun(element, id) {
  place = element;
  if (shown?.id !== id) {
    shown = { id, page: page(id) };
    place.replaceChildren(shown.page);
  }
  look();
}

export function hideRun() {
  place?.replaceChildren();
  shown = null;
}

async function look() {
  if (!shown) return;
  const { id, page: now } = shown;
  asked += 1;
  const mine = asked;
  try {
    const run = await ask(`/api/runs/${id}`);
    if (mine === asked && shown?.id === id) now.update(run);
  } catch (error) {
    if (mine === asked && shown?.id === id) now.fail(error.message);
  }
}

onRuns(() => { if (shown && !byId("view-train").hidden) look(); });

// Videos play while they are seen.
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !still.matches) target.play().catch(() => {});
    else target.pause();
  }
});

function page(id) {
  const act = async (path, change, words) => {
    try {
      await ask(path, change);
      announce(words);
    } catch (error) {
      line.textContent = error.message;
    }
    lookAtRuns();
  };
  const title = h("h2", {}, "A run");
  const badge = h("span", { class: "badge", role: "status" });
  const tools = h("div", { class: "actions" });
  const say = h("p", { class: "say" });
  const bar = h("progress", { class: "wide", "aria-label": "Time of the training that has passed" });
  const line = h("p", { class: "error", role: "alert" });
  const clips = h("div", { class: "shown" });
  const curves = h("div", { class: "curve-list" });
  const curveSection = h("section", { hidden: true }, h("h3", {}, "Curves"), curves);
  const plan = h("section", { hidden: true });
  const report = h("section", { hidden: true });
  const compute = reportPart(id, "The same counting at full size, with the compression of this run's VAE: a published estimate, audited and rerun.");
  compute.hidden = true;
  const log = h("pre", { tabindex: "0", "aria-label": "What the training said" });
  const logs = h("details", { hidden: true }, h("summary", {}, "What the training said"), log);
  const element = h("article", { class: "run" },
    h("p", { class: "back" }, h("a", { href: "#train" }, "All runs")),
    h("div", { class: "run-head" }, title, badge, tools), say, bar, line, clips, curveSection, plan, report, compute, logs);
  let stopping = false;

  element.fail = (text) => { say.textContent = text; };
  element.update = (run) => {
    title.textContent = run.name;
    if (run.state !== "running") stopping = false;
    badge.textContent = stopping ? "stops" : STATES[run.state];
    badge.className = `badge ${run.state}`;
    say.textContent = stopping ? "It ends its step and saves what it has learned." : wordsOf(run);
    bar.hidden = !run.seconds || !["running", "stopped"].includes(run.state);
    bar.max = run.seconds || 1;
    bar.value = Math.min(run.spent, run.seconds || 1);
    line.textContent = run.error && ["failed", "stopped"].includes(run.state) ? `${run.error[0].toUpperCase()}${run.error.slice(1)}.` : "";
    const wanted = JSON.stringify([run.state, run.goes_on, run.page, run.model, run.offered, run.world, run.job, stopping, Boolean(run.plan)]);
    if (tools.dataset.shown !== wanted) {
      tools.dataset.shown = wanted;
      const focused = tools.contains(document.activeElement);
      tools.replaceChildren(...[
        run.job !== null && !stopping ? h("button", { type: "button", onclick: () => { stopping = run.state === "running"; act(`/api/jobs/${run.job}/cancel`, {}, "It stops and saves"); } }, run.state === "running" ? "Stop and save" : "Take out of the queue") : null,
        ...(run.goes_on && run.state !== "elsewhere" ? goOn(run) : []),
        run.model && run.offered ? h("a", { class: "button", href: "#make", onclick: () => chooseModel(run.offered) }, "Make videos with it") : null,
        run.model && !run.offered ? h("button", { type: "button", onclick: () => act(`/api/runs/${id}/use`, {}, "Its model is read") }, "Use it in Make") : null,
        run.world ? h("a", { class: "button", href: "#worlds" }, "Play its world") : null,
        run.page ? h("a", { class: "button", href: `/runs/${id}/page`, target: "_blank", rel: "noopener" }, "Page of the run") : null,
      ].filter(Boolean));
      if (focused) tools.querySelector("button, a")?.focus();
    }
    showClips(run);
    showCurves(run);
    showPlan(run);
    if (run.checked && report.hidden) showReport();
    // Of a run that has its config.
    if (run.stage && compute.hidden) {
      compute.hidden = false;
      compute.look();
    }
    logs.hidden = !run.log;
    if (log.textContent !== run.log) {
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      log.textContent = run.log;
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
  };

  /** The way to go on; where no plan was made yet, with other minutes. */
  function goOn(run) {
    const words = run.state === "failed" ? "Try again" : "Go on";
    if (run.plan) return [h("button", { type: "button", onclick: () => act(`/api/runs/${id}/resume`, {}, "It goes on") }, words)];
    // As many as its error says would do.
    const enough = /--minutes (\d+)/.exec(run.error ?? "")?.[1];
    const minutes = h("input", { type: "number", inputmode: "numeric", min: 1, max: 10080, value: enough ?? Math.round(run.seconds / 60) });
    return [h("span", { class: "again" },
      h("button", { type: "button", onclick: () => act(`/api/runs/${id}/resume`, { minutes: Number(minutes.value) }, "It begins again") }, words), "for", h("label", {}, minutes, " minutes"))];
  }

  function showClips(run) {
    const kinds = Object.entries(SHOWN).filter(([kind]) => run.shown[kind].clips.length);
    keep(clips, kinds, ([kind]) => kind, ([kind, [words]]) => {
      const note = h("p", { class: "note" });
      const grid = h("div", { class: `shown-grid ${kind}` });
      const section = h("section", {}, h("h3", {}, words), note, grid);
      section.update = ({ step, clips: all }) => {
        note.textContent = SHOWN[kind][1](step) + (all.some((clip) => clip.nearest) ? " At the right of each is the clip nearest to it of those that it learned from." : "");
        grid.classList.toggle("pairs", all.some((clip) => clip.nearest));
        keep(grid, all, (clip) => `${clip.number}-${clip.made}`, (clip) => {
          const video = h("video", { src: `/runs/${id}/${kind}/${clip.number}.mp4?made=${clip.made}`, preload: "auto", playsinline: true, "aria-label": `${words}${clip.caption ? `: ${clip.caption}` : ""}` });
          Object.assign(video, { loop: true, muted: true });
          seen.observe(video);
          const beside = [clip.psnr === null ? "" : `${clip.psnr.toFixed(1)} dB`, clip.psnr_moving === null ? "" : `${clip.psnr_moving.toFixed(1)} dB of what moves`].filter(Boolean).join(", ");
          return h("figure", {}, video, h("figcaption", {}, clip.caption || "without a caption", beside ? h("span", { class: "soft" }, beside) : null));
        });
      };
      return section;
    }, (section, [kind]) => section.update(run.shown[kind]));
  }

  function showCurves(run) {
    const wanted = Object.entries(run.curves).flatMap(([stage, numbers]) => CURVES
      .filter(([name]) => numbers[name] || numbers[`val_${name}`])
      .map(([name, words, falls]) => ({ key: `${stage}-${name}`, title: `${STAGES[stage] ?? stage}: ${words}`, falls, training: numbers[name] ?? [], heldOut: numbers[`val_${name}`] ?? [] })));
    curveSection.hidden = !wanted.length;
    keep(curves, wanted, (each) => each.key, (each) => curve(each.title, each.falls), (figure, each) => figure.draw(each.training, each.heldOut));
  }

  function showPlan(run) {
    plan.hidden = !run.plan;
    const now = JSON.stringify([run.plan, run.device]);
    if (!run.plan || plan.dataset.shown === now) return;
    plan.dataset.shown = now;
    const { stages, size, encoding, minutes, expected_loss: loss } = run.plan;
    const rows = stages.map(({ name, steps, step_seconds: each, seconds }) => [STAGES[name] ?? name, few(steps), each === null ? "" : `${each.toFixed(3)} s`, seconds === null ? "" : timeText(seconds)]);
    // Before the last stage, which learns from the codes.
    if (encoding) rows.splice(-1, 0, ["coding the clips", "", "", timeText(encoding)]);
    plan.replaceChildren(h("h3", {}, `Plan of ${timeText(60 * minutes)}`),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Plan" }, h("table", {},
        h("thead", {}, h("tr", {}, ["stage", "steps", "a step", "time"].map((word) => h("th", { scope: "col" }, word)))),
        h("tbody", {}, rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", {}, cell))))))),
      h("p", { class: "note" }, [size.width ? `The DiT has width ${size.width}, depth ${size.depth}, ${size.heads} heads` : "", loss === null ? "" : `a loss of ${loss.toFixed(3)} on held-out clips is expected of it`, run.device ? `timed on ${run.device}` : ""].filter(Boolean).join("; ")));
  }

  async function showReport() {
    report.hidden = false;
    try {
      const found = await ask(`/api/runs/${id}/report`);
      report.replaceChildren(h("h3", {}, "The doctor's report"), h("div", { class: "doctor" }, ...reportOf(found, found.clip)));
    } catch {
      report.hidden = true;
    }
  }
  return element;
}

/** The model with which videos are asked for from now on. */
function chooseModel(name) {
  const model = byId("model");
  if (![...model.options].some((option) => option.value === name)) return;
  model.value = name;
  model.dispatchEvent(new Event("change", { bubbles: true }));
}

function wordsOf(run) {
  if (run.state === "queued") return "It waits in the queue: it begins when what is before it is done.";
  if (run.state === "running") {
    const first = run.learns === "world" ? "Clips are recorded where none were given, some steps are timed, and the plan is made" : "Some steps of several sizes are timed, and the plan is made";
    const what = WHAT[run.stage] ?? first;
    return `${what}: ${stageText(run)}. Videos wait meanwhile.`;
  }
  if (run.state === "stopped") return `Stopped: ${progressText(run)}.${run.goes_on ? " What it learned is saved; it goes on from there." : " Go on with the command that began it."}`;
  if (run.state === "elsewhere") return "Another command is at it: it is only shown here.";
  if (run.state === "done") return `Done: ${progressText(run)}.`;
  return "It failed.";
}
