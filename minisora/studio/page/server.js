// What the server knows, here: asked for once, then kept by its events.

/** Ask the server; an answer that refuses becomes an Error with its line. */
export async function ask(path, change, method = "POST") {
  const asked = change === undefined ? {} : change instanceof Blob
    // A file, as it is.
    ? { method, headers: { "content-type": "application/octet-stream" }, body: change }
    : { method, headers: { "content-type": "application/json" }, body: JSON.stringify(change) };
  let answer;
  try {
    answer = await fetch(path, asked);
  } catch {
    throw new Error("the studio does not answer: is it still running in its terminal?");
  }
  const text = await answer.text();
  let value = {};
  try {
    value = JSON.parse(text);
  } catch {
    value = { error: text.trim() };
  }
  if (answer.status === 401) throw new Error("the studio was started anew: open the address that it printed");
  if (!answer.ok) throw new Error(value.error || `the studio refused (${answer.status})`);
  return value;
}

export const state = { version: 0, worker: "starting", models: {}, numModels: 1, speeds: {}, jobs: new Map(), clips: new Map(), total: 0 };
const listeners = new Set();

/** Be called after every change, with what changed. */
export function onChange(listener) {
  listeners.add(listener);
}

function tell(changes) {
  for (const listener of listeners) listener(changes);
}

let source = null;

/** Read all, and follow from there on. */
export async function begin() {
  const all = await ask("/api/state");
  Object.assign(state, { version: all.version, worker: all.worker, models: all.models, numModels: all.num_models, speeds: all.speeds, total: all.clips });
  state.jobs = new Map(all.jobs.map((job) => [job.id, job]));
  const latest = await ask("/api/clips?limit=48");
  // Anew: what was deleted meanwhile is not told of, so nothing of before stays.
  state.clips = new Map(latest.clips.map((clip) => [clip.id, clip]));
  tell({ anew: true });
  follow();
}

function follow() {
  source?.close();
  source = new EventSource(`/api/events?after=${state.version}`);
  source.addEventListener("open", () => tell({ connected: true }));
  source.addEventListener("error", () => lost());
  source.addEventListener("message", (event) => take(JSON.parse(event.data)));
  source.addEventListener("anew", () => begin().catch(() => tell({ connected: false })));
  source.addEventListener("worker", (event) => {
    Object.assign(state, JSON.parse(event.data));
    tell({ worker: true });
  });
}

/** The events have stopped: say why, and go on as soon as the studio answers again. */
async function lost() {
  const gave = source.readyState === EventSource.CLOSED;
  tell({ connected: false });
  // A browser tries again by itself unless it was refused, as it is by a studio that was started anew.
  if (!gave) return;
  try {
    await ask("/api/state");
    follow();
  } catch (error) {
    tell({ connected: false, why: error.message });
    setTimeout(lost, 3000);
  }
}

function take(changes) {
  state.version = changes.version;
  for (const job of changes.jobs) state.jobs.set(job.id, job);
  for (const clip of changes.clips) state.clips.set(clip.id, clip);
  for (const id of changes.gone) state.clips.delete(id);
  if (changes.total !== undefined) state.total = changes.total;
  if (changes.speeds) state.speeds = changes.speeds;
  tell(changes);
}

// A browser keeps six connections to one server for all of its tabs: one that is not looked at needs none.
document.addEventListener("visibilitychange", () => {
  if (!state.version && !source) return;
  if (document.hidden) source?.close();
  else follow();
});

export const videoOf = (clip) => `/clips/${clip.id}.mp4?made=${clip.made}`;
export const pictureOf = (clip) => `/clips/${clip.id}.png?made=${clip.made}`;

/** What a downloaded file is called: words and the seed. */
export function fileName(clip) {
  const words = (clip.recipe.prompt || clip.recipe.name || "").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60);
  return `${words || "video"}-${clip.recipe.mode === "upload" ? clip.id : clip.recipe.seed}.mp4`;
}

/** A promise of the clip, from memory or from the server. */
export async function clipOf(id) {
  return state.clips.get(id) ?? ask(`/api/clips/${id}`);
}

/** A promise of the clip with the numbers of its `parents` and `children`, as they are now. */
export const familyOf = (id) => ask(`/api/clips/${id}`);
