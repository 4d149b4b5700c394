/**
 * What the visitor looks at, as the page's address, so that back, forward and a shared link work.
 * Knows nothing of the service or of what is drawn.
 *
 * A view is {q, like, picture, in, item}: at most one of q (words), like (an item's id) and picture (the
 * token of a picture kept in this tab) asks; `in` is what is searched; `item` is the answer held open.
 */

export const EMPTY = Object.freeze({ q: "", like: "", picture: "", in: "images", item: "" });

export function readAddress(query) {
  const fields = new URLSearchParams(query);
  const field = (name) => (fields.get(name) || "").trim();
  const like = fields.get("like") || "";
  const picture = like ? "" : field("picture");
  return Object.freeze({
    q: like || picture ? "" : field("q"),
    like,
    picture,
    in: field("in") === "texts" ? "texts" : "images",
    item: fields.get("item") || "",
  });
}

export function addressOf(view) {
  const fields = new URLSearchParams();
  for (const name of ["q", "like", "picture", "item"]) if (view[name]) fields.set(name, view[name]);
  if (view.in === "texts") fields.set("in", "texts");
  const query = fields.toString();
  return query ? `?${query}` : "./";
}

export const asks = (view) => Boolean(view.q || view.like || view.picture);

/** Equal for two views that show the same answers, whichever of them is held open. */
export const searchKey = (view) => JSON.stringify([view.q, view.like, view.picture, view.in]);
