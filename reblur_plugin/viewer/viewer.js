"use strict";
// One slider over pictures of the same size: zoom, pan, keys, touch, side by side. Names become text, never markup.
const ZOOM_MOST = 32;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Viewer {
  constructor(image) {
    this.image = image;
    this.layers = image.pictures; // [{ label, src }]
    this.position = this.layers.length > 1 ? 0.5 : 0; // half of the first, half of the second
    this.zoom = 1;
    this.x = 0; // of the picture's left edge, in widths of the pane
    this.y = 0;
    this.side = false;
    this.isMoved = false;
    this.pointers = new Map();
    this.root = element("div", { className: "viewer", tabIndex: 0 });
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", `Pictures of ${image.name}`);
    this.panes = element("div", { className: "panes" });
    this.slider = element("input", { type: "range", min: 0, step: 0.01 });
    this.slider.setAttribute("aria-label", "Which pictures");
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.slider.addEventListener("keydown", (event) => { // a hundredth, the mouse's step, is too little for keys
      const way = { ArrowLeft: -0.1, ArrowDown: -0.1, ArrowRight: 0.1, ArrowUp: 0.1 }[event.key];
      if (!way) return;
      event.preventDefault();
      this.go(Math.round(10 * (this.position + way)) / 10);
    });
    this.sideButton = this.tool("Side by side", () => this.setSide(!this.side));
    const zooms = [this.tool("+", () => this.zoomAt(1.5), "Zoom in"), this.tool("−", () => this.zoomAt(1 / 1.5), "Zoom out")];
    const tools = [...zooms, this.tool("1:1", () => this.pixels(), "Pixel by pixel"), this.tool("Fit", () => this.fit(), "The whole picture"), this.sideButton];
    this.root.title = "Arrows: next picture. +, -, 0: zoom. Shift and arrows: move. s: side by side.";
    this.buttons = [];
    this.controls = element("div", { className: "controls" }, this.slider, ...tools);
    this.root.append(this.panes);
    this.listen();
    this.build();
  }

  // Puts other pictures in the place of these. Zoom stays; the slider goes to a position unless somebody has moved it.
  show(pictures, position) {
    const isAsMany = pictures.length === this.layers.length;
    this.layers = pictures;
    this.position = Math.min(this.isMoved ? this.position : position, pictures.length - 1);
    if (!isAsMany) {
      this.build();
      return;
    }
    for (const one of this.shown) {
      const { label, src } = pictures[one.place];
      one.picture.alt = label;
      if (one.picture.getAttribute("src") && one.picture.getAttribute("src") !== src) one.picture.src = src;
    }
    this.buttons.forEach((button, place) => { button.textContent = pictures[place].label; });
    this.draw();
  }

  tool(text, act, spoken = "") {
    const button = element("button", { type: "button", textContent: text, title: spoken });
    if (spoken) button.setAttribute("aria-label", spoken);
    button.addEventListener("click", act);
    return button;
  }

  build() {
    const ratio = `${this.image.width} / ${this.image.height}`;
    this.panes.replaceChildren();
    this.shown = [];
    this.slider.max = String(this.layers.length - 1);
    for (const button of this.buttons.splice(this.layers.length)) button.remove();
    while (this.buttons.length < this.layers.length) { // those that are there may have the focus
      const place = this.buttons.length;
      const button = this.tool("", () => this.go(place));
      (this.buttons[place - 1] || this.slider).after(button);
      this.buttons.push(button);
    }
    this.buttons.forEach((button, place) => { button.textContent = this.layers[place].label; });
    this.slider.hidden = this.sideButton.hidden = this.layers.length < 2;
    const groups = this.side ? this.layers.map((_, place) => [place]) : [this.layers.map((_, place) => place)];
    for (const places of groups) {
      const pane = element("div", { className: "pane" });
      pane.style.aspectRatio = ratio;
      for (const place of places) {
        const picture = element("img", { alt: this.layers[place].label, decoding: "async", draggable: false });
        const layer = element("div", { className: "layer" }, picture);
        pane.append(layer);
        this.shown.push({ place, layer, picture });
      }
      if (this.side) pane.append(element("span", { className: "tag left", textContent: this.layers[places[0]].label }));
      this.panes.append(pane);
    }
    this.left = element("span", { className: "tag left" });
    this.right = element("span", { className: "tag right" });
    this.edge = element("div", { className: "edge" });
    if (!this.side) this.panes.firstChild.append(this.edge, this.left, this.right);
    this.root.classList.toggle("side", this.side);
    this.sideButton.setAttribute("aria-pressed", String(this.side));
    this.draw();
  }

  setSide(side) { this.side = side; this.build(); }

  go(position) {
    this.isMoved = true;
    this.position = Math.min(Math.max(position, 0), this.layers.length - 1);
    this.draw();
  }

  load(one) {
    if (!one.picture.getAttribute("src")) one.picture.src = this.layers[one.place].src;
  }

  draw() {
    const first = Math.min(Math.floor(this.position), Math.max(this.layers.length - 2, 0));
    const part = this.layers.length > 1 ? this.position - first : 0;
    for (const one of this.shown) {
      const visible = this.side || one.place === first || one.place === first + 1;
      if (visible) this.load(one);
      one.layer.style.visibility = visible ? "" : "hidden";
      // The next picture comes in from the right, over the one before.
      one.layer.style.clipPath = !this.side && one.place === first + 1 ? `inset(0 0 0 ${(1 - part) * 100}%)` : "";
      one.picture.style.transform = `translate(${this.x * 100}%, ${this.y * 100}%) scale(${this.zoom})`;
    }
    if (!this.side) {
      this.left.textContent = part < 1 ? this.layers[first].label : "";
      this.right.textContent = part > 0 ? this.layers[first + 1].label : "";
      this.edge.style.left = `${(1 - part) * 100}%`;
      this.edge.hidden = part === 0 || part === 1;
    }
    this.slider.value = String(this.position);
    this.slider.setAttribute("aria-valuetext", part === 0 ? this.layers[first].label : part === 1 ? this.layers[first + 1].label : `${this.layers[first].label} and, from the right, ${Math.round(100 * part)} % of ${this.layers[first + 1].label}`);
    this.buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === this.position)));
    this.root.classList.toggle("zoomed", this.zoom > 1);
    this.root.classList.toggle("sharp-pixels", this.paneWidth() * this.zoom > this.image.width * 1.5);
  }

  paneWidth() { return this.panes.firstChild.clientWidth || 1; }

  // Zooms by a factor; the point (in parts of the pane) stays where it is.
  zoomAt(factor, px = 0.5, py = 0.5) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), ZOOM_MOST);
    this.x = px - (px - this.x) * zoom / this.zoom;
    this.y = py - (py - this.y) * zoom / this.zoom;
    this.zoom = zoom;
    this.move(0, 0);
  }

  move(dx, dy) {
    this.x = Math.min(Math.max(this.x + dx, 1 - this.zoom), 0);
    this.y = Math.min(Math.max(this.y + dy, 1 - this.zoom), 0);
    this.draw();
  }

  fit() { this.zoom = 1; this.x = 0; this.y = 0; this.draw(); }

  pixels() { this.zoomAt(this.image.width / this.paneWidth() / (window.devicePixelRatio || 1) / this.zoom); }

  listen() {
    const at = (event) => {
      const pane = (event.target.closest && event.target.closest(".pane")) || this.panes.firstChild;
      const box = pane.getBoundingClientRect();
      return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, box };
    };
    this.root.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && this.zoom === 1 && !this.root.matches(":focus-visible")) return; // the page scrolls
      event.preventDefault();
      const { x, y } = at(event);
      this.zoomAt(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), x, y);
    }, { passive: false });
    this.root.addEventListener("dblclick", (event) => {
      const { x, y } = at(event);
      if (this.zoom > 1) this.fit(); else this.zoomAt(4, x, y);
    });
    this.root.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, event);
      this.root.setPointerCapture(event.pointerId);
    });
    const end = (event) => this.pointers.delete(event.pointerId);
    this.root.addEventListener("pointerup", end);
    this.root.addEventListener("pointercancel", end);
    this.root.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const pane = this.panes.firstChild.getBoundingClientRect();
      const others = [...this.pointers.values()].filter((one) => one.pointerId !== event.pointerId);
      const dx = (event.clientX - before.clientX) / pane.width;
      const dy = (event.clientY - before.clientY) / pane.height;
      this.pointers.set(event.pointerId, event);
      if (others.length === 1) { // two fingers
        const other = others[0];
        const was = Math.hypot(before.clientX - other.clientX, before.clientY - other.clientY);
        const is = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
        const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2, target: event.target };
        const { x, y } = at(middle);
        if (was > 0) this.zoomAt(is / was, x, y);
        this.move(dx / 2, dy / 2);
      } else if (this.zoom > 1) {
        this.move(dx, dy);
      } else if (!this.side) {
        this.go(this.position - dx);
      }
    });
    this.root.addEventListener("keydown", (event) => {
      const step = 0.1;
      const acts = event.shiftKey
        ? { ArrowLeft: () => this.move(step, 0), ArrowRight: () => this.move(-step, 0), ArrowUp: () => this.move(0, step), ArrowDown: () => this.move(0, -step), "+": () => this.zoomAt(1.5), S: () => this.setSide(!this.side) }
        : { ArrowLeft: () => this.go(Math.ceil(this.position) - 1), ArrowRight: () => this.go(Math.floor(this.position) + 1), "+": () => this.zoomAt(1.5), "=": () => this.zoomAt(1.5), "-": () => this.zoomAt(1 / 1.5), 0: () => this.fit(), s: () => this.setSide(!this.side) };
      const act = acts[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });
  }
}
