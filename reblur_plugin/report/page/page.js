"use strict";
// The data are names and numbers from files of strangers: they become text and attributes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const cards = document.getElementById("cards");
const NEAR = "1200px"; // a card is built when it comes so near, and taken down when it has gone so far
const ZOOM_MOST = 32;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Tables: a click on a heading sorts by its column; a second one turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row, place) => ({ row, place, key: sortKey(row.cells[column]) }));
    rows.sort((a, b) => compare(a.key, b.key, turn) || a.place - b.place);
    table.tBodies[0].append(...rows.map((one) => one.row));
  }));
}

function sortKey(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text === "" ? null : text;
}

function compare(a, b, turn) { // what is missing comes last, either way
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return turn * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
}

// One card for each image: its pictures, one slider over all of them, its scores.
class Viewer {
  constructor(image) {
    this.image = image;
    this.layers = image.pictures; // [{ method, src }]
    this.position = this.layers.length > 1 ? 0.5 : 0; // half of the first, half of the second
    this.zoom = 1;
    this.x = 0; // of the picture's left edge, in widths of the pane
    this.y = 0;
    this.side = false;
    this.pointers = new Map();
    this.root = element("div", { className: "viewer", tabIndex: 0 });
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", `Pictures of ${image.name}`);
    this.panes = element("div", { className: "panes" });
    this.slider = element("input", { type: "range", min: 0, max: this.layers.length - 1, step: 0.01 });
    this.slider.setAttribute("aria-label", "Which pictures");
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.buttons = this.layers.map((layer, place) => {
      const button = element("button", { type: "button", textContent: layer.label });
      button.addEventListener("click", () => this.go(place));
      return button;
    });
    this.sideButton = this.tool("Side by side", () => this.setSide(!this.side));
    const tools = [this.tool("+", () => this.zoomAt(1.5)), this.tool("−", () => this.zoomAt(1 / 1.5)), this.tool("1:1", () => this.pixels()), this.tool("Fit", () => this.fit()), this.sideButton];
    this.controls = element("div", { className: "controls" }, this.slider, ...this.buttons, ...tools);
    this.root.append(this.panes);
    this.listen();
    this.build();
  }

  tool(text, act) {
    const button = element("button", { type: "button", textContent: text });
    button.addEventListener("click", act);
    return button;
  }

  build() {
    const ratio = `${this.image.width} / ${this.image.height}`;
    this.panes.replaceChildren();
    this.shown = [];
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
      if (!event.ctrlKey && this.zoom === 1 && document.activeElement !== this.root) return; // the page scrolls
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

function scoreTable(image) {
  const metrics = data.metrics.filter((metric, place) => data.methods.some((_, method) => value(image, method, place) !== null));
  if (metrics.length === 0) return element("div");
  const head = element("tr", {}, element("th"), ...metrics.map((metric) => element("th", { className: "number", textContent: `${metric.name} ${metric.better === "higher" ? "↑" : "↓"}`, title: metric.label })));
  const body = element("tbody");
  data.methods.forEach((method, number) => {
    if (!image.scores[number]) return;
    const row = element("tr", {}, element("td", { textContent: method.label }));
    for (const metric of metrics) {
      const place = data.metrics.indexOf(metric);
      const found = value(image, number, place);
      const cell = element("td", { className: "number", textContent: found === null ? "" : found.toFixed(metric.decimals) });
      const base = method.base === null ? null : value(image, method.base, place);
      if (found !== null && base !== null) {
        const change = found - base;
        const helps = metric.better === "higher" ? change > 0 : change < 0;
        const sign = change < 0 ? "−" : "+";
        cell.append(element("span", { className: change === 0 ? "" : helps ? "good" : "bad", textContent: ` ${sign}${Math.abs(change).toFixed(metric.decimals)}` }));
      }
      row.append(cell);
    }
    body.append(row);
  });
  return element("div", { className: "scroll" }, element("table", {}, element("thead", {}, head), body));
}

function value(image, method, metric) {
  const scores = image.scores[method];
  const found = scores ? scores[metric] : null;
  return typeof found === "number" ? found : null;
}

// How each metric goes over the steps of adaptation, one small curve a metric.
function curves(image) {
  const runs = new Map();
  data.methods.forEach((method, number) => {
    if (method.step !== null && image.scores[number]) runs.set(method.run, [...(runs.get(method.run) || []), { step: method.step, number }]);
  });
  const holder = element("div", { className: "curves" });
  for (const [run, steps] of runs) {
    if (steps.length < 3) continue;
    steps.sort((a, b) => a.step - b.step);
    data.metrics.forEach((metric, place) => {
      const points = steps.map((one) => [one.step, value(image, one.number, place)]).filter((point) => point[1] !== null);
      if (points.length > 2) holder.append(curve(points, `${metric.name}, ${run}`, metric));
    });
  }
  return holder;
}

function curve(points, title, metric) {
  const [width, height, edge] = [150, 70, 14];
  const low = Math.min(...points.map((point) => point[1]));
  const high = Math.max(...points.map((point) => point[1]));
  const last = points[points.length - 1][0] || 1;
  const x = (step) => edge + (width - 2 * edge) * step / last;
  const y = (found) => high === low ? height / 2 : height - edge - (height - 2 * edge) * (found - low) / (high - low);
  const space = "http://www.w3.org/2000/svg";
  const make = (tag, attributes, text = "") => {
    const made = document.createElementNS(space, tag);
    for (const [name, given] of Object.entries(attributes)) made.setAttribute(name, given);
    made.textContent = text;
    return made;
  };
  const drawn = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  drawn.append(make("title", {}, `${title}: ${points.map((point) => point[1].toFixed(metric.decimals)).join(", ")}`));
  drawn.append(make("polyline", { points: points.map((point) => `${x(point[0])},${y(point[1])}`).join(" "), fill: "none", stroke: "var(--accent)", "stroke-width": 1.5 }));
  for (const point of points) drawn.append(make("circle", { cx: x(point[0]), cy: y(point[1]), r: 2.2, fill: "var(--accent)" }));
  drawn.append(make("text", { x: 2, y: 10, "font-size": 9, fill: "currentColor" }, title));
  return drawn;
}

function build(card) {
  const image = card.image;
  const viewer = new Viewer(image);
  const note = image.note ? [element("p", { className: "note", textContent: image.note })] : [];
  card.holder.replaceChildren(viewer.root, viewer.controls, ...note, element("div", { className: "details" }, scoreTable(image), curves(image)));
  card.viewer = viewer;
  card.holder.style.minHeight = "";
  viewer.draw();
}

function takeDown(card) {
  card.holder.style.minHeight = `${card.holder.offsetHeight}px`; // nothing below jumps
  card.holder.replaceChildren();
  card.viewer = null;
}

if (cards) {
  const all = data.images.map((image) => {
    const holder = element("div", { className: "holder" });
    holder.style.minHeight = "420px";
    const root = element("article", { className: "card" }, element("h3", { textContent: image.name }), holder);
    return { image, root, holder, viewer: null };
  });
  const byHolder = new Map(all.map((card) => [card.root, card]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = byHolder.get(entry.target);
      if (entry.isIntersecting && !card.viewer) build(card);
      else if (!entry.isIntersecting && card.viewer) takeDown(card);
    }
  }, { rootMargin: NEAR });
  const order = document.getElementById("order");
  const filter = document.getElementById("filter");
  const orders = [{ text: "as named", key: null }];
  data.metrics.forEach((metric, place) => {
    data.methods.forEach((method, number) => {
      if (!data.images.some((image) => value(image, number, place) !== null)) return;
      const sign = metric.better === "higher" ? 1 : -1;
      orders.push({ text: `${metric.name} of ${method.label}, worst first`, key: (image) => sorted(value(image, number, place), sign) });
      if (method.base !== null) {
        const change = (image) => {
          const [base, found] = [value(image, method.base, place), value(image, number, place)];
          return base === null || found === null ? null : found - base;
        };
        orders.push({ text: `${metric.name}: where ${method.label} helps most`, key: (image) => sorted(change(image), -sign) });
        orders.push({ text: `${metric.name}: where ${method.label} harms most`, key: (image) => sorted(change(image), sign) });
      }
    });
  });
  orders.forEach((one, place) => order.append(element("option", { value: place, textContent: one.text })));
  const show = () => {
    const wanted = filter.value.toLowerCase();
    const found = all.filter((card) => card.image.name.toLowerCase().includes(wanted));
    const key = orders[Number(order.value)].key;
    if (key) found.sort((a, b) => compare(key(a.image), key(b.image), 1));
    for (const card of all) if (card.viewer) takeDown(card);
    observer.disconnect();
    cards.replaceChildren(...found.map((card) => card.root));
    for (const card of found) observer.observe(card.root);
    document.getElementById("count").textContent = `${found.length} of ${all.length}`;
  };
  order.addEventListener("change", show);
  filter.addEventListener("input", show);
  show();
}

function sorted(found, sign) { return found === null ? null : found * sign; }
