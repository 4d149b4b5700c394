/**
 * Filters: what the visitor keeps to, as part of the address and as the service's filter. Pure; knows neither the
 * page nor requests.
 *
 * A condition is {key, any, from, to}: one of the values `any` (a list, may be empty), and a number not under
 * `from` nor over `to` (null: no bound). There is at most one for each key.
 */

const IS = "is.";
const FROM = "from.";
const TO = "to.";
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i;

/** Values as they stand in an address: 2010 is a number, true a truth value, all else text; "2010" is text too. */
export function readValue(written) {
  if (NUMBER.test(written)) return Number(written);
  if (written === "true" || written === "false") return written === "true";
  if (!written.startsWith('"')) return written;
  try {
    const value = JSON.parse(written);
    return typeof value === "string" ? value : written;
  } catch {
    return written;
  }
}

export function writeValue(value) {
  if (typeof value !== "string") return String(value);
  return readValue(value) === value ? value : JSON.stringify(value);
}

const isSet = ({ any, from, to }) => any.length > 0 || from !== null || to !== null;

export function readConditions(fields) {
  const found = new Map();
  const of = (key) => found.get(key) ?? found.set(key, { key, any: [], from: null, to: null }).get(key);
  for (const [name, written] of fields) {
    if (name.startsWith(IS)) {
      const { any } = of(name.slice(IS.length));
      const value = readValue(written);
      if (!any.includes(value)) any.push(value);
    } else if (NUMBER.test(written)) {
      if (name.startsWith(FROM)) of(name.slice(FROM.length)).from = Number(written);
      if (name.startsWith(TO)) of(name.slice(TO.length)).to = Number(written);
    }
  }
  return [...found.values()].filter(isSet);
}

export function writeConditions(conditions, fields) {
  for (const { key, any, from, to } of conditions) {
    for (const value of any) fields.append(IS + key, writeValue(value));
    if (from !== null) fields.append(FROM + key, String(from));
    if (to !== null) fields.append(TO + key, String(to));
  }
}

export const conditionOf = (conditions, key) =>
  conditions.find((each) => each.key === key) ?? { key, any: [], from: null, to: null };

/** The conditions with `change` made to that of `key`, which goes when nothing of it is left. */
export function changed(conditions, key, change) {
  const next = { ...conditionOf(conditions, key), ...change };
  const isNew = !conditions.some((each) => each.key === key);
  const all = isNew ? [...conditions, next] : conditions.map((each) => (each.key === key ? next : each));
  return all.filter(isSet);
}

/** As the service takes it (Qdrant's form); undefined without conditions. */
export function serviceFilter(conditions) {
  const must = conditions.flatMap(({ key, any, from, to }) => {
    const range = { ...(from !== null && { gte: from }), ...(to !== null && { lte: to }) };
    return [
      ...(any.length ? [{ key, match: { any } }] : []),
      ...(Object.keys(range).length ? [{ key, range }] : []),
    ];
  });
  return must.length ? { must } : undefined;
}

/** "maker.first_name" as people read it: "Maker first name". */
export function nameOf(key) {
  const words = key.replace(/[._]+/g, " ").trim() || key;
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export const valueName = (value) => (value === true ? "yes" : value === false ? "no" : String(value));

export function rangeName({ from, to }) {
  if (from === null) return `up to ${to}`;
  return to === null ? `from ${from}` : from === to ? String(from) : `${from} to ${to}`;
}
