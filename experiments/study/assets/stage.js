// Videos beside each other: they start together, loop together, and are stopped and moved together.
class Stage {
  constructor(shown) {
    this.videos = [];
    this.wanted = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.speed = 1;
    this.figures = shown.map((each) => this.#figure(each));
    this.grid = el("div", { className: "stage" }, this.figures);
    const count = shown.length, across = count <= 3 ? count : count === 4 ? 2 : Math.min(4, Math.ceil(count / 2));
    this.grid.style.setProperty("--across", across);
    this.grid.style.setProperty("--rows", Math.ceil(count / across));
    this.root = el("section", { ariaLabel: "Videos" }, this.grid, this.videos.length ? this.#controls() : null);
    this.ready = Promise.all(this.videos.map(loaded)).then(() => this.restart());
  }

  #figure({ label, file, original }) {
    const still = file.endsWith(".png");
    const shown = still ? el("img", { src: file, alt: label })
      : el("video", { src: file, muted: true, playsInline: true, preload: "auto", ariaLabel: label });
    const figure = el("figure", { className: original ? "original" : "" }, shown, el("figcaption", {}, label));
    shown.addEventListener("error", () => {
      shown.replaceWith(el("p", { className: "notice" }, "This video cannot be shown. Please tell whoever sent you this page."));
      this.videos = this.videos.filter((each) => each !== shown);
    });
    if (still) return figure;
    shown.addEventListener("click", () => this.toggle());
    shown.addEventListener("ended", () => { if (this.videos.every((each) => each.ended)) this.restart(); });
    this.videos.push(shown);
    return figure;
  }

  #controls() {
    this.button = el("button", { type: "button", className: "play", onclick: () => this.toggle() });
    this.slider = el("input", { type: "range", min: 0, max: 1000, value: 0, ariaLabel: "Place in the videos" });
    this.slider.addEventListener("input", () => { this.pause(); this.seek(this.slider.value / 1000); });
    const speed = el("select", { ariaLabel: "Speed" }, [[1, "normal speed"], [0.5, "half speed"], [0.25, "quarter speed"]]
      .map(([value, name]) => el("option", { value }, name)));
    speed.addEventListener("change", () => {
      this.speed = Number(speed.value);
      this.videos.forEach((each) => { each.playbackRate = this.speed; });
    });
    const large = el("button", { type: "button", onclick: () => this.enlarge() }, "Full screen");
    const follow = () => {
      if (!this.root.isConnected && this.seen) return;
      this.seen ||= this.root.isConnected;
      const first = this.videos[0];
      if (first?.duration && document.activeElement !== this.slider) this.slider.value = (1000 * first.currentTime) / first.duration;
      requestAnimationFrame(follow);
    };
    requestAnimationFrame(follow);
    this.#say();
    return el("div", { className: "controls" }, this.button, this.slider, speed, this.grid.requestFullscreen ? large : null);
  }

  #say() {
    if (this.button) this.button.textContent = this.wanted ? "❚❚ Pause" : "▶ Play";
  }

  async restart() {
    await this.seek(0);
    if (this.wanted) this.play();
  }

  seek(share) {
    return Promise.all(this.videos.map((each) => new Promise((done) => {
      const to = share * (each.duration || 0);
      if (Math.abs(each.currentTime - to) < 1e-3 && !each.ended) { done(); return; }
      each.addEventListener("seeked", done, { once: true });
      setTimeout(done, 1000);
      each.currentTime = to;
    })));
  }

  play() {
    this.wanted = true;
    this.#say();
    this.videos.forEach((each) => { each.playbackRate = this.speed; });
    return Promise.all(this.videos.map((each) => each.play())).catch(() => {});
  }

  pause() {
    this.wanted = false;
    this.#say();
    this.videos.forEach((each) => each.pause());
  }

  toggle() {
    if (this.wanted) this.pause();
    else if (this.videos.every((each) => each.ended)) { this.wanted = true; this.restart(); }
    else this.play();
  }

  enlarge() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.grid.requestFullscreen();
  }

  close() {
    this.pause();
    this.videos.forEach((each) => { each.removeAttribute("src"); each.load(); });
    this.videos = [];
  }
}

const loaded = (video) => new Promise((done) => {
  if (video.readyState >= 3) done();
  for (const name of ["canplay", "error"]) video.addEventListener(name, done, { once: true });
  setTimeout(done, 20000);
});
