/**
 * Ways for an image to come in: chosen, taken, dropped, pasted. Each ends in `onImage(file)` or
 * `onRefusal(why)`. Images live in this tab only; they are never put in the address.
 */

const KEPT = 12; // enough for going back; each may be several MB
const kept = new Map(); // token -> {blob, address}
let count = 0;

/** Keeps the image for going back to it; answers the token that stands for it in the address. */
export function keepImage(blob) {
  // Unique over reloads too, or an old address could show a newer image.
  const token = `${Date.now().toString(36)}-${(count += 1)}`;
  kept.set(token, { blob, address: URL.createObjectURL(blob) });
  for (const [oldest, { address }] of kept) {
    if (kept.size <= KEPT) break;
    URL.revokeObjectURL(address);
    kept.delete(oldest);
  }
  return token;
}

/** {blob, address}, or undefined when the image belongs to another tab, device or time. */
export const keptImage = (token) => kept.get(token);

export function watchImages({ file, camera, overlay, onImage, onRefusal }) {
  const take = (transfer) => {
    const image = [...(transfer?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (image) onImage(image);
    return Boolean(image);
  };
  const refuse = (transfer) => {
    const [first] = transfer.files;
    onRefusal(
      first
        ? `“${first.name}” is not an image. PNG, JPEG, WebP and GIF files work.`
        : "That was a link or a text, not an image file. Save the image first, then drop the file.",
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
