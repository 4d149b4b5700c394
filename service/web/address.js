/**
 * What the visitor looks at, as the page's address, so that back, forward and a shared link work.
 * Knows nothing of the service or of what is drawn.
 *
 * A view is {q, like, image, in, filters, item}: at most one of q (words), like (an item's id) and image (the
 * token of an image kept in this tab) asks; `in` is what is searched, `filters` what the answers keep to (see
 * conditions.js); `item` is the answer held open.
 */
import { readConditions, writeConditions } from "./conditions.js";

export const EMPTY = Object.freeze({ q: "", like: "", image: "", in: "images", filters: [], item: "" });

export function readAddress(query) {
  const fields = new URLSearchParams(query);
  const field = (name) => (fields.get(name) || "").trim();
  const like = fields.get("like") || "";
  const image = like ? "" : field("image");
  return Object.freeze({
    q: like || image ? "" : field("q"),
    like,
    image,
    in: field("in") === "texts" ? "texts" : "images",
    filters: readConditions(fields),
    item: fields.get("item") || "",
  });
}

export function addressOf(view) {
  const fields = new URLSearchParams();
  for (const name of ["q", "like", "image"]) if (view[name]) fields.set(name, view[name]);
  if (view.in === "texts") fields.set("in", "texts");
  writeConditions(view.filters, fields);
  if (view.item) fields.set("item", view.item);
  const query = fields.toString();
  return query ? `?${query}` : "./";
}

export const asks = (view) => Boolean(view.q || view.like || view.image);

/** Equal for two views that show the same answers, whichever of them is held open. */
export const searchKey = (view) => JSON.stringify([view.q, view.like, view.image, view.in, view.filters]);
