// Comfort on top of pages that work without it: live parts that rest while nobody looks, times in the reader's zone, copy buttons.
"use strict";
const live = () => document.getElementById("live");
const lost = (is) => { const bar = document.getElementById("lost"); if (bar) bar.hidden = !is; };

// the part that asks again; a job that has ended asks no more
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden || !live()?.hasAttribute("hx-get")) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && live()?.hasAttribute("hx-get")) htmx.trigger(live(), "look");
});
document.addEventListener("htmx:error", () => lost(true));
document.addEventListener("htmx:after:swap", () => { lost(false); dress(); });
// what somebody opened stays open when the part is replaced
htmx.registerExtension("keep-open", { htmx_before_morph_attr: (element, detail) => detail.attrName !== "open" });

const zoned = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
function dress() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const text = zoned.format(new Date(time.dateTime));
    if (time.textContent !== text) { time.title = time.dateTime; time.textContent = text; }
  }
  for (const button of document.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
  const tab = live()?.dataset.tab;
  if (tab && document.title !== tab) document.title = tab;
}
async function copy(button) {
  const from = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(from);
    button.textContent = "Selected";
  }
}
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (button) copy(button);
});
document.addEventListener("submit", (event) => {
  const words = event.target.dataset.busy, button = event.submitter;
  if (words && button) { button.setAttribute("aria-busy", "true"); button.textContent = words; }
});
// back from a page that was kept: nothing is uploading any more
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

const zone = document.getElementById("zone");
if (zone) zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
dress();
