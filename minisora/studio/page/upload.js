// Files from elsewhere: sent as they are, looked into by the worker alone, then clips of the gallery as all others.
import { ask, onChange, state } from "./server.js";
import { byId, h } from "./dom.js";

const form = byId("upload");
const [file, caption, model, line] = ["upload-file", "upload-caption", "upload-model", "upload-line"].map(byId);
// Jobs of what was sent from this page.
const sent = new Map();

function say(text, isError = false) {
  line.textContent = text;
  line.classList.toggle("error", isError);
}

function showModels() {
  const names = Object.keys(state.models).filter((name) => !state.models[name].error);
  const before = model.value;
  byId("upload-model-field").hidden = names.length < 2;
  model.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  model.value = names.includes(before) ? before : names[0] ?? "";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [chosen] = file.files;
  if (!chosen) {
    say("Choose a video or a picture first.", true);
    return;
  }
  say(`${chosen.name} is sent …`);
  const query = new URLSearchParams({ model: model.value, name: chosen.name, prompt: caption.value });
  try {
    const { jobs } = await ask(`/api/uploads?${query}`, chosen);
    sent.set(jobs[0], chosen.name);
    say(`${chosen.name} is in the queue.`);
    form.reset();
    showModels();
  } catch (error) {
    say(error.message, true);
  }
});

// A file that is dropped anywhere on the page: never opened by the browser in its place.
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (!event.dataTransfer?.files.length) return;
  location.hash = "#gallery";
  byId("upload-open").open = true;
  file.files = event.dataTransfer.files;
  caption.focus();
});

onChange((changes) => {
  if (changes.anew || changes.worker) showModels();
  for (const job of changes.jobs ?? []) {
    if (!sent.has(job.id) || job.state === "queued" || job.state === "running") continue;
    const name = sent.get(job.id);
    sent.delete(job.id);
    if (job.state === "failed") say(job.error, true);
    else say(job.state === "done" ? `${name} is in the gallery.` : "");
  }
});
