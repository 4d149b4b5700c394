/**
 * The API key that the visitor gave, where the service asks for one: kept for this tab and its reloads, until it is
 * closed or the key is forgotten. Knows neither the page nor the service.
 */

const KEPT_AS = "twinlens.key";
let inMemory = ""; // where storage is forbidden

export function keptKey() {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? inMemory;
  } catch {
    return inMemory;
  }
}

/** "" forgets it. */
export function keepKey(key) {
  inMemory = key;
  try {
    if (key) sessionStorage.setItem(KEPT_AS, key);
    else sessionStorage.removeItem(KEPT_AS);
  } catch {
    /* it lasts as long as the page */
  }
}
