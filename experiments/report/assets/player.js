// Plays panels of one or several edits in step: one clock, and every canvas shows the same moment.
class Player {
  constructor() {
    this.loading = new Map();  // row -> promise of its Reel
    this.reels = new Map();  // row -> Reel, once it is there
    this.broken = new Map();  // row -> why it is not
    this.views = [];  // {canvas, reel, panel}
    this.frame = 0;
    this.playing = false;
    this.speed = 1;
    this.mode = "beside";
    this.cut = 50;
    this.pair = ["source", "edited"];
    this.stage = el("div", { class: "stage" });
    this.remark = el("p", { class: "quiet" });
    this.place = el("div", { class: "player" }, this.stage, this.#controls(), this.remark);
  }

  #controls() {
    const button = (text, hint, act) => el("button", { type: "button", title: hint, "aria-label": hint, on: { click: act } }, text);
    this.play = button("▶", "play or pause (space)", () => this.toggle());
    this.scrub = el("input", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "frame", on: { input: () => { this.pause(); this.seek(+this.scrub.value); } } });
    this.said = el("output", { class: "quiet" });
    this.how = button("Slider", "before and after in one picture (s)", () => this.setMode(this.mode === "beside" ? "slider" : "beside"));
    this.pairs = el("span", { class: "pairs" });
    const speed = el("select", { "aria-label": "speed", on: { change: () => { this.speed = +speed.value; } } },
      [0.25, 0.5, 1, 2].map((each) => el("option", { value: each, selected: each === 1 }, `${each}×`)));
    return el("div", { class: "controls" }, this.play, button("◂", "one frame back (,)", () => this.by(-1)),
      button("▸", "one frame on (.)", () => this.by(1)), this.scrub, this.said, speed, this.how, this.pairs);
  }

  // Shows these panels: [{row, panel, name, index}], loading what is not there yet.
  async show(wanted) {
    this.wanted = wanted;
    const rows = [...new Set(wanted.map(({ row }) => row))];
    for (const row of rows) {
      if (!this.loading.has(row)) this.loading.set(row, new Reel(row).load());
      await this.loading.get(row).then((reel) => this.reels.set(row, reel), (error) => this.broken.set(row, error.message));
      if (this.wanted !== wanted) return;
    }
    const there = rows.filter((row) => this.reels.has(row)).map((row) => this.reels.get(row));
    const broken = rows.filter((row) => this.broken.has(row)).map((row) => this.broken.get(row));
    this.remark.textContent = [...new Set([...broken, ...there.map((reel) => reel.remark),
      ...there.filter((reel) => reel.step > 1).map((reel) => `a long video: one of ${reel.step} frames is shown`)].filter(Boolean))].join("; ");
    this.build();
  }

  build() {
    const known = this.wanted.map((each) => ({ ...each, reel: this.reels.get(each.row) })).filter(({ reel }) => reel);
    // A video whose panels are not known is shown as it is.
    const whole = known.filter(({ reel }) => reel.panels.has("side by side")).filter((each, k, all) => all.findIndex(({ row }) => row === each.row) === k);
    this.shown = [...known.filter(({ reel, panel }) => reel.panels.has(panel)), ...whole.map((each) => ({ ...each, panel: "side by side" }))];
    this.count = Math.max(1, ...this.shown.map(({ reel }) => reel.count));
    this.fps = this.shown[0]?.reel.fps || 8;
    this.scrub.max = this.count - 1;
    if (this.mode === "slider" && this.shown.length > 1) this.#slider();
    else this.#beside();
    this.how.textContent = this.mode === "slider" ? "Side by side" : "Slider";
    this.how.hidden = this.shown.length < 2;
    this.seek(Math.min(this.frame, this.count - 1));
    document.documentElement.dataset.playing = `${this.shown.length}/${this.count}`;
  }

  #canvas({ reel, panel }) {
    const [width, height] = reel.size(panel);
    return el("canvas", { width, height, role: "img", "aria-label": panel, class: width < 400 ? "small" : null });
  }

  #beside() {
    this.views = this.shown.map((each) => ({ ...each, canvas: this.#canvas(each) }));
    this.stage.className = "stage";
    const [across, wide] = this.#across();
    this.stage.style.setProperty("--across", across);
    this.stage.style.setProperty("--wide", `${wide}px`);
    this.stage.replaceChildren(...this.views.map(({ row, canvas, panel, name, index }) => el("figure", {}, canvas,
      el("figcaption", {}, index === undefined ? null : swatch(index), shows(row, panel), name ? el("small", {}, ` ${name}`) : null))));
    this.pairs.replaceChildren();
  }

  // As many beside each other as makes them largest; one row where that is not much smaller.
  #across() {
    const many = this.views.length, wide = this.stage.clientWidth || 900, tall = innerHeight * 0.7;
    const aspect = Math.max(0.3, ...this.views.map(({ canvas }) => canvas.height / canvas.width));
    const width = (across) => Math.min(520, wide / across - 12, (tall / Math.ceil(many / across) - 30) / aspect);
    const ways = [...Array(Math.max(1, many)).keys()].map((k) => k + 1);
    const best = ways.reduce((one, each) => (width(each) > width(one) ? each : one)), row = width(many);
    const chosen = many && row > 200 && row * 1.4 > width(best) ? many : best;
    return [chosen, Math.max(120, Math.round(width(chosen)))];
  }

  #slider() {
    const titled = (each) => [each.panel, each.name].filter(Boolean).join(" · ");
    const find = (wish, other) => Math.max(0, this.shown.findIndex((each) => titled(each) === wish || each.panel === wish), other ?? 0);
    const picked = [find(this.pair[0]), find(this.pair[1], this.shown.length > 1 && !this.shown.some((each) => titled(each) === this.pair[1] || each.panel === this.pair[1]) ? 1 : 0)];
    this.views = picked.map((k) => ({ ...this.shown[k], canvas: this.#canvas(this.shown[k]) }));
    const cut = el("input", { type: "range", min: 0, max: 100, step: 0.5, value: this.cut, class: "cut", "aria-label": "where the left picture ends" });
    const stack = el("div", { class: "stack" }, this.views[1].canvas, this.views[0].canvas, el("i", { class: "edge" }), cut);
    const set = () => {
      this.cut = +cut.value;
      stack.style.setProperty("--cut", `${this.cut}%`);
    };
    cut.addEventListener("input", set);
    set();
    this.stage.className = "stage slider";
    this.stage.replaceChildren(stack);
    const choice = (side) => el("select", { "aria-label": ["left picture", "right picture"][side],
      on: { change: (event) => { this.pair[side] = event.target.value; this.build(); } } },
      this.shown.map((each, k) => el("option", { value: titled(each), selected: k === picked[side] }, titled(each))));
    this.pairs.replaceChildren(choice(0), " | ", choice(1));
  }

  setMode(mode) { this.mode = mode; this.build(); }
  toggle() { if (this.playing) this.pause(); else this.start(); }
  pause() { this.playing = false; this.play.textContent = "▶"; }
  by(step) { this.pause(); this.seek((this.frame + step + this.count) % this.count); }

  start() {
    if (this.playing || this.count < 2) return;
    this.playing = true;
    this.play.textContent = "❚❚";
    let last = performance.now(), rest = 0;
    const tick = (now) => {
      if (!this.playing || !this.place.isConnected) return;
      rest += ((now - last) / 1000) * this.fps * this.speed;
      last = now;
      const steps = Math.floor(rest);
      rest -= steps;
      if (steps) this.seek((this.frame + steps) % this.count);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  seek(frame) {
    this.frame = frame;
    this.scrub.value = frame;
    this.said.textContent = `${frame + 1} / ${this.count}`;
    for (const { reel, panel, canvas } of this.views) reel.draw(canvas, panel, (frame + 0.5) / this.count);
  }

  close() {
    this.pause();
    this.wanted = null;
    for (const each of this.loading.values()) each.then((reel) => reel.close(), () => null);
    this.loading.clear();
  }
}
