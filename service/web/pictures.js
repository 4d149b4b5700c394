/**
 * Ways for a picture to come in: chosen, taken, dropped, pasted. Each ends in `onPicture(file)` or
 * `onRefusal(why)`. Pictures live in this tab only; they are never put in the address.
 */

const KEPT = 12; // enough for going back; each may be several MB
const kept = new Map(); // token -> {blob, address}
let count = 0;

/** Keeps the picture for going back to it; answers the token that stands for it in the address. */
export function keepPicture(blob) {
  // Unique over reloads too, or an old address could show a newer picture.
  const token = `${Date.now().toString(36)}-${(count += 1)}`;
  kept.set(token, { blob, address: URL.createObjectURL(blob) });
  for (const [oldest, { address }] of kept) {
    if (kept.size <= KEPT) break;
    URL.revokeObjectURL(address);
    kept.delete(oldest);
  }
  return token;
}

/** {blob, address}, or undefined when the picture belongs to another tab, device or time. */
export const keptPicture = (token) => kept.get(token);

export function watchPictures({ file, camera, overlay, onPicture, onRefusal }) {
  const take = (transfer) => {
    const picture = [...(transfer?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (picture) onPicture(picture);
    return Boolean(picture);
  };
  const refuse = (transfer) => {
    const [first] = transfer.files;
    onRefusal(
      first
        ? `“${first.name}” is not a picture. PNG, JPEG, WebP and GIF files work.`
        : "That was a link or a text, not a picture file. Save the picture first, then drop the file.",
    );
  };

  for (const input of [file, camera]) {
    input.addEventListener("change", () => {
      if (input.files.length && !take(input)) refuse(input);
      input.value = ""; // so that choosing the same file again is a change
    });
  }
  document.addEventListener("paste", (event) => {
    if (take(event.clipboardData)) event.preventDefault();
  });
  watchDrops(overlay, (transfer) => take(transfer) || refuse(transfer));
}

function watchDrops(overlay, onDrop) {
  let depth = 0; // dragenter and dragleave come for every element crossed
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  const isOutside = (event) => isFile(event) || !event.target.closest?.("input[type=search]");
  const show = (change) => {
    depth = Math.max(0, depth + change);
    overlay.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => isFile(event) && show(+1));
  addEventListener("dragleave", (event) => isFile(event) && show(-1));
  addEventListener("dragover", (event) => isOutside(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    show(-depth);
    if (!isOutside(event)) return; // text dropped into the search box is typing
    event.preventDefault();
    onDrop(event.dataTransfer);
  });
}
