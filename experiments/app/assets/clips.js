// <clip-player frames fps high wide one="data:..." other="data:...">: a clip, or two in step with a line to drag between them.
// Each picture holds all frames below each other.
const SHARP = 720 // pixels to which small frames are enlarged, so that the line is thin

class ClipPlayer extends HTMLElement {
  connectedCallback() {
    if (this.canvas) return
    this.frames = +this.getAttribute("frames")
    this.wide = +this.getAttribute("wide")
    this.high = +this.getAttribute("high")
    this.frame = 0
    this.split = 0.5
    this.canvas = document.createElement("canvas")
    this.scale = Math.max(1, Math.round(SHARP / this.wide))
    this.canvas.width = this.wide * this.scale
    this.canvas.height = this.high * this.scale
    this.context = this.canvas.getContext("2d")
    this.context.imageSmoothingEnabled = false
    const controls = document.createElement("div")
    controls.className = "clip-controls"
    this.append(this.canvas, controls)
    this.button = controls.appendChild(document.createElement("button"))
    this.button.type = "button"
    this.button.onclick = () => this.play(!this.timer)
    this.slider = this.range(controls, "frame", 0, this.frames - 1, 1, 0, (value) => {
      this.play(false)
      this.show(value)
    })
    if (this.frames < 2) controls.hidden = true
    this.load()
  }

  disconnectedCallback() {
    clearInterval(this.timer)
  }

  range(where, name, min, max, step, value, change) {
    const input = where.appendChild(document.createElement("input"))
    Object.assign(input, { type: "range", min, max, step, value })
    input.setAttribute("aria-label", name)
    input.oninput = () => change(+input.value)
    return input
  }

  async load() {
    const names = ["one", "other"].filter((name) => this.hasAttribute(name))
    this.pictures = await Promise.all(names.map(async (name) => {
      const picture = new Image()
      picture.src = this.getAttribute(name)
      await picture.decode()
      return picture
    }))
    if (this.pictures.length > 1) this.compare()
    this.show(0)
    this.play(this.frames > 1)
    this.dataset.ready = ""
  }

  compare() {
    const divider = this.range(this, "compare", 0, 1, 0.01, this.split, (value) => {
      this.split = value
      this.show(this.frame)
    })
    divider.className = "clip-divider"
    this.insertBefore(divider, this.querySelector(".clip-controls"))
    const drag = (event) => {
      if (event.type === "pointermove" && !event.buttons) return
      const box = this.canvas.getBoundingClientRect()
      this.split = divider.value = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))
      this.show(this.frame)
    }
    this.canvas.onpointerdown = this.canvas.onpointermove = drag
  }

  play(on) {
    clearInterval(this.timer)
    const wait = 1000 / (+this.getAttribute("fps") || 8)
    this.timer = on ? setInterval(() => this.show((this.frame + 1) % this.frames), wait) : null
    this.button.textContent = on ? "❚❚" : "▶"
    this.button.setAttribute("aria-label", on ? "pause" : "play")
  }

  show(frame) {
    this.frame = frame
    this.slider.value = frame
    this.draw(this.pictures[0], 0, 1)
    if (this.pictures.length < 2) return
    this.draw(this.pictures[1], this.split, 1)
    const at = Math.round(this.split * this.canvas.width)
    this.context.fillStyle = "#ffffff"
    this.context.fillRect(at - 1, 0, 3, this.canvas.height)
  }

  draw(picture, from, to) {
    const left = from * this.wide, wide = (to - from) * this.wide, by = this.scale
    if (wide <= 0) return
    this.context.drawImage(picture, left, this.frame * this.high, wide, this.high, left * by, 0, wide * by, this.high * by)
  }
}

customElements.get("clip-player") || customElements.define("clip-player", ClipPlayer)
