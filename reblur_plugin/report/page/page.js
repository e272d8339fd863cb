"use strict";
// The data are names and numbers from files of strangers: they become text and attributes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const cards = document.getElementById("cards");
const NEAR = "1200px"; // a card is built when it comes so near, and taken down when it has gone so far

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
