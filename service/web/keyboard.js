/** Keys: `/` goes to the search box, down from it into the answers, the arrows among them as they lie on the screen. */
import { byId } from "./views.js";

const links = () => [...byId("grid").querySelectorAll("a.tile, a.line-text")];

export const focusAnswer = (id) => links().find((link) => link.dataset.id === id)?.focus();

export function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || byId("detail").open) return;
    const target = targetOf(event.key, document.activeElement);
    if (!target) return;
    event.preventDefault();
    target.focus();
    if (target === byId("query")) target.select();
  });
}

/** A field one writes in, where "/" is a letter: no box to tick, no choice of a file. */
const isTypedInto = (element) => element?.matches("input:not([type=radio], [type=checkbox], [type=file])");

function targetOf(key, from) {
  const query = byId("query");
  if (key === "/") return isTypedInto(from) ? undefined : query;
  if (from === query) return key === "ArrowDown" ? links()[0] : undefined;
  return neighbour(key, from);
}

function neighbour(key, from) {
  const all = links();
  const at = all.indexOf(from);
  if (at < 0) return undefined;
  const row = all[0].getBoundingClientRect().top;
  const columns = all.filter((each) => Math.abs(each.getBoundingClientRect().top - row) < 2).length;
  if (key === "ArrowUp" && at < columns) return byId("query");
  const to = {
    ArrowLeft: at - 1,
    ArrowRight: at + 1,
    ArrowUp: at - columns,
    ArrowDown: at + columns,
    Home: 0,
    End: all.length - 1,
  }[key];
  return to === undefined ? undefined : all[Math.min(Math.max(to, 0), all.length - 1)];
}
