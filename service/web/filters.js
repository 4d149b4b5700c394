/**
 * The row of filters: what the gallery's payloads have, one panel at a time, and what is in force as chips.
 * Which conditions hold is the address's business: this module draws them and reports changes through `onChange`.
 */
import { changed, conditionOf, nameOf, rangeName, valueName } from "./conditions.js";
import { byId, stamp } from "./views.js";

const SHOWN_FIELDS = 8; // the rest come by "More filters"
const SEARCHED_VALUES = 12; // a longer list of values gets a box to find one
const bar = byId("filters");
const panel = byId("filter-panel");
const row = bar.querySelector(".filter-fields");
let fields = []; // those that can be filtered by
let isKnown = false; // whether `fields` has come; until then its place is kept
let conditions = [];
let tell = () => {};
let opener = null; // the button whose panel is open

/** What a filter on the field could tell apart, and is not every item's own. */
function isUseful({ kind, filled, values, minimum, maximum }, items) {
  if (kind === "number" && minimum < maximum) return true;
  return values.length > 1 || (values.length === 1 && values[0].count < items && filled > 0);
}

const isRange = ({ kind, values, minimum, maximum }) =>
  kind === "number" && minimum < maximum && (values.length === 0 || values.length > SEARCHED_VALUES);

export function watchFilters(onChange) {
  tell = onChange;
  row.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.key !== undefined) openPanel(button);
    else if (button) showAll(button);
  });
  bar.querySelector(".filter-applied").addEventListener("click", ({ target }) => {
    const chip = target.closest("button");
    if (chip) remove(chip);
  });
  panel.addEventListener("toggle", ({ newState }) => {
    if (newState === "closed") opener?.setAttribute("aria-expanded", "false");
  });
  panel.addEventListener("focusout", ({ relatedTarget }) => {
    // Tab out of it: as a menu, it closes; a click on nothing (no relatedTarget) is the popover's own business.
    if (relatedTarget && !panel.contains(relatedTarget) && relatedTarget !== opener) panel.hidePopover();
  });
  addEventListener("resize", () => panel.matches(":popover-open") && place());
}

/** `answer` is that of /fields; null where it could not be had: filters in force are still shown. */
export function offerFilters(answer) {
  isKnown = true;
  fields = (answer?.fields ?? []).filter((field) => isUseful(field, answer.counted));
  row.replaceChildren(...fields.map(fieldButton));
  if (fields.length > SHOWN_FIELDS) {
    for (const button of [...row.children].slice(SHOWN_FIELDS)) button.hidden = true;
    const more = document.createElement("button");
    more.type = "button";
    more.className = "link";
    more.textContent = `${fields.length - SHOWN_FIELDS} more`;
    row.append(more);
  }
  drawFilters(conditions);
}

function fieldButton({ key }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "filter";
  button.dataset.key = key;
  button.dir = "auto";
  button.textContent = nameOf(key);
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-expanded", "false");
  return button;
}

function showAll(more) {
  const [first] = [...row.children].slice(SHOWN_FIELDS);
  for (const button of row.children) button.hidden = false;
  more.remove();
  first.focus();
}

export function drawFilters(next) {
  conditions = next;
  bar.classList.toggle("bare", isKnown && fields.length === 0 && conditions.length === 0);
  for (const button of row.querySelectorAll(".filter")) {
    button.classList.toggle("in-force", conditions.some(({ key }) => key === button.dataset.key));
  }
  const chips = conditions.flatMap(({ key, any, from, to }) => [
    ...any.map((value) => chip(key, valueName(value), { value })),
    ...(from !== null || to !== null ? [chip(key, rangeName({ from, to }), {})] : []),
  ]);
  if (chips.length > 1) chips.push(clearing());
  bar.querySelector(".filter-applied").replaceChildren(...chips);
}

function chip(key, words, { value }) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "chip";
  button.dataset.key = key;
  if (value !== undefined) button.dataset.value = JSON.stringify(value);
  const text = document.createElement("span");
  text.dir = "auto";
  text.textContent = `${nameOf(key)}: ${words}`;
  button.append(text);
  button.setAttribute("aria-label", `Remove the filter ${text.textContent}`);
  item.append(button);
  return item;
}

function clearing() {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "link";
  button.textContent = "Remove all";
  item.append(button);
  return item;
}

function remove({ dataset }) {
  const { key, value } = dataset;
  byId("query").focus({ preventScroll: true }); // the chip goes, and focus must not go with it
  if (key === undefined) tell([]);
  else if (value === undefined) tell(changed(conditions, key, { from: null, to: null }));
  else {
    const gone = JSON.parse(value);
    tell(changed(conditions, key, { any: conditionOf(conditions, key).any.filter((each) => each !== gone) }));
  }
}

function openPanel(button) {
  const isSame = opener === button && panel.matches(":popover-open");
  if (panel.matches(":popover-open")) panel.hidePopover();
  if (isSame) return;
  opener = button;
  const field = fields.find(({ key }) => key === button.dataset.key);
  panel.replaceChildren(isRange(field) ? rangeForm(field) : choicesForm(field));
  panel.setAttribute("aria-label", nameOf(field.key));
  button.setAttribute("aria-expanded", "true");
  panel.showPopover();
  place();
  const isTouch = matchMedia("(pointer: coarse)").matches; // where a focused box would bring up the keyboard
  (isTouch ? panel : panel.querySelector("input:not([hidden])")).focus({ preventScroll: true });
}

/** Below its button, within the window. On a phone the style sheet puts it at the bottom instead. */
function place() {
  const { left, bottom } = opener.getBoundingClientRect();
  const room = document.documentElement.clientWidth - panel.offsetWidth - 8;
  panel.style.left = `${Math.max(8, Math.min(left, room))}px`;
  panel.style.top = `${bottom + 6}px`;
  panel.style.maxHeight = `${Math.max(160, innerHeight - bottom - 16)}px`;
}

function choicesForm(field) {
  const form = stamp("choices");
  const { key, values, distinct } = field;
  form.querySelector("h2").textContent = nameOf(key);
  const own = conditionOf(conditions, key).any.filter((each) => !values.some(({ value }) => value === each));
  const list = form.querySelector("ul");
  list.append(...[...own.map((value) => ({ value })), ...values].map((each) => choice(key, each)));
  const find = form.querySelector("input[type=search]");
  const note = form.querySelector(".choices-note");
  const isPart = distinct > values.length && field.kind === "text";
  find.hidden = values.length <= SEARCHED_VALUES && !isPart;
  find.addEventListener("input", () => narrow(list, find.value));
  note.hidden = !isPart;
  note.textContent = "The most common ones are listed. Type another one in full, then press Enter.";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = find.value.trim();
    if (wanted) addTyped(field, wanted, list);
    find.value = "";
    narrow(list, "");
  });
  return form;
}

function narrow(list, typed) {
  const wanted = typed.trim().toLocaleLowerCase();
  for (const item of list.children) item.hidden = !item.textContent.toLocaleLowerCase().includes(wanted);
}

/** Enter takes the value that is called so, else the only one left in sight, else the words as a value. */
function addTyped({ key }, wanted, list) {
  const shown = [...list.children].filter((item) => !item.hidden);
  const named = shown.find((item) => item.querySelector(".choice-name").textContent.toLowerCase() === wanted.toLowerCase());
  const item = named ?? (shown.length === 1 ? shown[0] : null) ?? choice(key, { value: wanted });
  if (!item.isConnected) list.prepend(item);
  const box = item.querySelector("input");
  if (!box.checked) box.click();
}

function choice(key, { value, count }) {
  const item = stamp("choice");
  const box = item.querySelector("input");
  box.checked = conditionOf(conditions, key).any.includes(value);
  item.querySelector(".choice-name").textContent = valueName(value);
  item.querySelector(".choice-count").textContent = count?.toLocaleString("en") ?? "";
  box.addEventListener("change", () => {
    const others = conditionOf(conditions, key).any.filter((each) => each !== value);
    tell(changed(conditions, key, { any: box.checked ? [...others, value] : others }));
  });
  return item;
}

function rangeForm({ key, minimum, maximum }) {
  const form = stamp("range");
  const inForce = conditionOf(conditions, key);
  const [from, to] = form.querySelectorAll("input");
  form.querySelector("h2").textContent = nameOf(key);
  form.querySelector(".choices-note").textContent = `In this gallery from ${minimum} to ${maximum}.`;
  [from.placeholder, to.placeholder] = [minimum, maximum].map(String);
  [from.value, to.value] = [inForce.from ?? "", inForce.to ?? ""];
  const bound = ({ value }) => (value === "" ? null : Number(value));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [low, high] = [bound(from), bound(to)];
    const isTurned = low !== null && high !== null && low > high;
    panel.hidePopover();
    tell(changed(conditions, key, isTurned ? { from: high, to: low } : { from: low, to: high }));
  });
  form.addEventListener("reset", () => {
    panel.hidePopover();
    tell(changed(conditions, key, { from: null, to: null }));
  });
  return form;
}
