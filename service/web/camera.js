/**
 * Taking a photo with the computer's camera: a dialog with what the camera sees. The camera is on only while the
 * dialog is open. On a phone the browser's own camera (`capture`) is better, and used instead.
 */
import { byId } from "./views.js";

const LONG_SIDE_PIXELS = 1600; // more than any encoder looks at
const WHY_NOT = {
  NotAllowedError: "The camera may not be used here. Allow it in the browser's address bar, or choose an image instead.",
  NotFoundError: "No camera was found. Choose an image instead.",
  NotReadableError: "The camera is busy in another program. Close it there, then try again.",
};
const dialog = byId("shoot");
const video = dialog.querySelector("video");
const button = dialog.querySelector("[data-shoot]");
const problem = dialog.querySelector("[role=alert]");
let stream = null;

/** Only where it may be asked for: on https or localhost, and with a mouse. */
const isOffered = () => Boolean(navigator.mediaDevices?.getUserMedia) && matchMedia("(pointer: fine)").matches;

export function watchCamera(onImage) {
  byId("live").hidden = !isOffered();
  byId("live").addEventListener("click", open);
  dialog.querySelector("[data-cancel]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
  button.addEventListener("click", async () => {
    const image = await frame();
    dialog.close();
    onImage(image);
  });
}

async function open() {
  problem.textContent = "";
  button.disabled = true;
  dialog.showModal();
  let mine = null;
  try {
    mine = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    stop(); // what an earlier asking started, of a dialog that was closed before its answer came
    stream = mine;
    if (!dialog.open) {
      stop(); // closed while the browser asked
      return;
    }
    video.srcObject = stream;
    await video.play();
    button.disabled = false;
    button.focus();
  } catch (error) {
    if (dialog.open && stream === mine) problem.textContent = WHY_NOT[error.name] ?? `The camera did not start (${error.message}). Choose an image instead.`;
  }
}

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
}

function frame() {
  const scale = Math.min(1, LONG_SIDE_PIXELS / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
