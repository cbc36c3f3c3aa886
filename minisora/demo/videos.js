// Videos play while they are seen, unless their reader wants nothing to move or has paused them.
"use strict";
const still = matchMedia("(prefers-reduced-motion: reduce)");
const button = document.getElementById("pause");
const videos = [...document.querySelectorAll("video")];
const seen = new Set();
let paused = still.matches;
function settle() {
  for (const video of videos) {
    if (!paused && seen.has(video)) video.play().catch(() => {});
    else video.pause();
  }
  if (button) button.textContent = paused ? "Play videos" : "Pause videos";
}
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) seen.add(target);
    else seen.delete(target);
  }
  settle();
}, { rootMargin: "100px" });
for (const video of videos) watch.observe(video);
if (button) {
  button.hidden = videos.length === 0;
  button.addEventListener("click", () => { paused = !paused; settle(); });
}
still.addEventListener("change", () => { paused = still.matches; settle(); });
settle();
