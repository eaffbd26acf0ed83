// The frames of one edit, decoded once and kept, so that everything that is shown beside each other is in step to
// the frame. A video that cannot be decoded is replaced by the frames of the contact sheet.
const LAYOUT = { gap: 6, line: 22 };  // of side-by-side videos, as experiments/jobs/pictures.py draws them
const BUDGET = 400e6;  // bytes of decoded frames; of longer videos only every second, third, ... frame is shown

class Reel {
  constructor(row) {
    this.row = row;
    this.panels = new Map();  // name -> {frames, box}
    this.fps = 8;
    this.count = 0;
    this.remark = "";
    this.step = 1;
  }

  async load() {
    const files = filesOf(this.row);
    try {
      if (files.video) await this.#sideBySide(files.video);
      else await this.#apart(files);
    } catch (error) {
      this.panels.clear();
      await this.#fromSheet(files, error);
    }
    this.count = Math.max(0, ...[...this.panels.values()].map(({ frames }) => frames.length));
    return this;
  }

  async #sideBySide(url) {
    const names = panelsOf(this.row), shape = db.core.shapes[db.rows.shape[this.row]];
    const { frames, wide, high, fps, step } = await decoded(url, shape[0]);
    Object.assign(this, { fps, step });
    const width = Math.floor((wide - LAYOUT.gap * (names.length - 1)) / names.length);
    const height = Math.round((width * shape[2]) / shape[3]);
    if (!names.length || !(Math.abs(height + LAYOUT.line - high) <= 2)) {
      this.panels.set("side by side", { frames, box: [0, 0, wide, high] });
      return;
    }
    names.forEach((name, k) => this.panels.set(name, { frames, box: [k * (width + LAYOUT.gap), LAYOUT.line, width, height] }));
  }

  // A file for each picture, as outside results have them.
  async #apart(files) {
    const known = Object.entries(files).filter(([kind, url]) => !["sheet", "frames"].includes(kind) && /\.(mp4|webm|mov|gif|png|jpe?g|webp)$/i.test(url));
    if (!known.length) throw new Error("no video was kept");
    for (const [name, url] of known) {
      const { frames, wide, high, fps, step } = await decoded(url, db.core.shapes[db.rows.shape[this.row]][0]);
      Object.assign(this, { fps, step });
      this.panels.set(name, { frames, box: [0, 0, wide, high] });
    }
  }

  async #fromSheet({ sheet: url }, error) {
    const sheet = sheetOf(this.row), names = panelsOf(this.row);
    if (!url || !sheet) throw error;
    const picture = await image(url);
    this.fps = 4;
    this.remark = `frames of the contact sheet are shown, for the video could not be: ${error.message}`;
    names.forEach((name, k) => this.panels.set(name, {
      frames: [...Array(sheet.columns).keys()].map((column) => ({ picture, x: sheet.x(column) })),
      box: [0, sheet.y(k), sheet.box.w, sheet.box.h] }));
  }

  size(panel) {
    const [, , width, height] = this.panels.get(panel).box;
    return [width, height];
  }

  // The frame at a share 0..1 of the clip.
  draw(canvas, panel, share) {
    const { frames, box: [x, y, width, height] } = this.panels.get(panel);
    const frame = frames[Math.min(frames.length - 1, Math.floor(share * frames.length))];
    if (!frame) return;
    canvas.getContext("2d").drawImage(frame.picture || frame, x + (frame.x || 0), y, width, height, 0, 0, canvas.width, canvas.height);
  }

  close() {
    const frames = new Set([...this.panels.values()].flatMap((each) => each.frames));
    frames.forEach((frame) => frame.close?.());
    this.panels.clear();
  }
}

const image = (url) => new Promise((resolve, reject) => {
  const picture = new Image();
  picture.onload = () => resolve(picture);
  picture.onerror = () => reject(new Error("the picture is not there"));
  picture.src = url;
});

async function decoded(url, count) {
  if (/\.(gif|png|jpe?g|webp)$/i.test(url)) {
    const picture = await image(url);
    return { frames: [picture], wide: picture.naturalWidth, high: picture.naturalHeight, fps: 1, step: 1 };
  }
  const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, preload: "auto" });
  try {
    const ready = happens(video, "loadeddata");
    video.src = url;
    await ready;
    const { videoWidth: wide, videoHeight: high, duration } = video, frames = [];
    const all = count || Math.max(1, Math.round(duration * 12));
    const step = Math.max(1, Math.ceil((all * wide * high * 4) / BUDGET));
    for (let k = 0; k < all; k += step) {
      const there = Promise.all([happens(video, "seeked"), presented(video)]);
      video.currentTime = ((k + 0.5) * duration) / all;
      await there;
      frames.push(await createImageBitmap(video));
    }
    return { frames, wide, high, fps: all / duration / step, step };
  } finally {
    video.removeAttribute("src");
    video.load();
  }
}

// A browser may say that it has sought before the new picture can be taken. Where a seek brings no new picture none
// is told of either: then it is waited for a little.
const presented = (video) => new Promise((resolve) => {
  if (!video.requestVideoFrameCallback) resolve();
  else {
    video.requestVideoFrameCallback(resolve);
    happens(video, "seeked").then(() => setTimeout(resolve, 250), resolve);
  }
});

const happens = (video, name) => new Promise((resolve, reject) => {
  const failed = () => reject(new Error(video.error?.message || "the video is not there, or this browser cannot play it"));
  const timer = setTimeout(() => reject(new Error("the video does not answer")), 20000);
  const end = (act) => (event) => { clearTimeout(timer); act(event); };
  video.addEventListener(name, end(resolve), { once: true });
  video.addEventListener("error", end(failed), { once: true });
});
