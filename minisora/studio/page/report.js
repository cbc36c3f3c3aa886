// The compute report: made here on request, by itself or with what a run measured, and opened beside the studio.
import { ask } from "./server.js";
import { announce, h } from "./dom.js";

// Milliseconds between two looks at one that is being made.
const ASKS = 700;

/** A section about a report, of a run by its id or "own"; `look()` asks how it stands. */
export function reportPart(id, words) {
  const line = h("p", { class: "note", role: "status" });
  const link = h("a", { class: "button", href: `/reports/${id}`, target: "_blank", rel: "noopener", hidden: true }, "Open the report");
  const button = h("button", { type: "button", onclick: () => make() }, "Make the report");
  const section = h("section", { class: "report", "aria-label": "Compute report" }, h("h3", {}, "Compute report"),
    h("p", { class: "say" }, words), h("div", { class: "actions" }, link, button), line);

  function show({ state, made, error }) {
    link.hidden = state !== "done";
    button.disabled = state === "making";
    button.textContent = state === "done" ? "Make it again" : "Make the report";
    line.textContent = { making: "It is being made: some seconds.", failed: error, done: made ? `Made ${new Date(1000 * made).toLocaleString()}` : "" }[state] ?? "";
  }

  section.look = async () => {
    try {
      let now = await ask(`/api/reports/${id}`);
      show(now);
      while (now.state === "making" && section.isConnected) {
        await new Promise((done) => setTimeout(done, ASKS));
        now = await ask(`/api/reports/${id}`);
        show(now);
        if (now.state === "done") announce("The report is made");
      }
    } catch (failure) {
      show({ state: "failed", error: failure.message });
    }
  };

  async function make() {
    try {
      show(await ask(`/api/reports/${id}`, {}));
      await section.look();
      // The button that was pressed is still where the focus is.
      if (!link.hidden && document.activeElement === document.body) button.focus();
    } catch (failure) {
      show({ state: "failed", error: failure.message });
    }
  }
  return section;
}
