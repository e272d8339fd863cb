"use strict";
// Names and sentences come from strangers' files: they become text, never markup.
const facts = JSON.parse(document.body.dataset.facts);
const form = document.getElementById("wishes");
const list = document.getElementById("photographs");
const cards = new Map(); // by the photograph's id
let visit = ""; // this page's address at the server

function url(...parts) { return `${visit}/${parts.join("/")}`; }

// Asks the server; a refusal is shown as its sentence.
async function ask(path, options = {}) {
  try {
    const answer = await fetch(path, { method: "POST", ...options });
    if (!answer.ok) say(await sentence(answer));
    return answer;
  } catch (error) {
    say("the server doesn't answer; is it still running?");
    return null;
  }
}

async function sentence(answer) {
  const text = await answer.text();
  try { return JSON.parse(text).error; } catch (error) { return `${answer.status}: ${text}`; }
}

function say(text) {
  const notes = document.getElementById("notes");
  if ([...notes.children].some((note) => note.firstChild.textContent === text)) return;
  const close = element("button", { type: "button", textContent: "Close" });
  const note = element("li", {}, element("span", { textContent: text }), close);
  close.addEventListener("click", () => note.remove());
  notes.append(note);
}

// What is chosen
function wishes() {
  const given = Object.fromEntries(new FormData(form));
  return { ...given, steps: given.steps === "" ? null : Number(given.steps) };
}

function json(content) { return { headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) }; }

if (innerWidth < 600) document.getElementById("how").open = false;
let waiting = 0;
function wish() {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (visit) ask(url("wishes"), json(wishes())); }, 300);
}
form.addEventListener("input", (event) => { if (event.target.type !== "file") wish(); });
form.addEventListener("submit", (event) => event.preventDefault());

// Sending files, one after the other
let sent = Promise.resolve();
function send(path, file, name) {
  if (file.size > facts.maxUpload) {
    say(`${name}: expected at most ${facts.maxUpload / 2 ** 20} MiB, got ${(file.size / 2 ** 20).toFixed(1)}; use a smaller file, or start the page with a larger --max-upload`);
    return Promise.resolve(false);
  }
  const bar = element("progress", { max: 1, value: 0 });
  const line = element("li", { textContent: `${name} is being sent` }, bar);
  document.getElementById("sending").append(line);
  sent = sent.then(() => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${path}?name=${encodeURIComponent(name)}`);
    request.upload.addEventListener("progress", (event) => { bar.value = event.loaded / Math.max(event.total, 1); });
    request.addEventListener("loadend", () => {
      line.remove();
      if (request.status === 201) return resolve(true);
      let why = `${name}: can't be sent; is it a file, and is the server still running?`;
      try { why = JSON.parse(request.responseText).error; } catch (error) { /* no answer of the server's */ }
      say(why);
      resolve(false);
    });
    request.send(file);
  }));
  return sent;
}

function sendPhotographs(files) {
  for (const file of files) send(url("photographs"), file, file.name || "photograph.png");
}

const files = document.getElementById("files");
files.addEventListener("change", () => { sendPhotographs(files.files); files.value = ""; });
let depth = 0; // of elements that something is dragged over
addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; document.body.classList.add("over"); });
addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) document.body.classList.remove("over"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("over");
  sendPhotographs(event.dataTransfer.files);
});
addEventListener("paste", (event) => sendPhotographs([...event.clipboardData.files]));
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => ask(url("examples", button.dataset.example)));
}
const weightsFiles = document.getElementById("weights-files");
weightsFiles.addEventListener("change", async () => {
  const chosen = [...weightsFiles.files];
  const done = await Promise.all(chosen.map((file) => send(url("weights"), file, file.name)));
  const main = chosen.find((file, number) => done[number] && !file.name.startsWith("net_r"));
  if (main) wanted = main.name; // chosen once it is listed
  weightsFiles.value = "";
});

// The visitor's own weights in the lists
let wanted = null;
function listWeights(names) {
  for (const select of [form.elements.weights, form.elements.reblur_weights]) {
    for (const name of names) {
      if (![...select.options].some((option) => option.value === name)) select.append(new Option(name, name));
    }
  }
  document.getElementById("own-reblur").hidden = names.length === 0;
  if (wanted && names.includes(wanted)) {
    form.elements.weights.value = wanted;
    wanted = null;
    wish();
  }
}

function inWords(seconds) {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const DECIMALS = 1; // of grey levels
const levels = (number) => number.toFixed(number < 0.95 ? DECIMALS + 1 : DECIMALS);

// One photograph
class Card {
  constructor(photograph) {
    this.id = photograph.id;
    this.name = element("h2", { textContent: photograph.name });
    this.size = element("span", { className: "note" });
    this.status = element("p", { className: "status" });
    this.said = element("span"); // read aloud when it changes, unlike the time that is left
    this.said.setAttribute("role", "status");
    this.left = element("span");
    this.status.append(this.said, this.left);
    this.notes = element("p", { className: "note" });
    this.bar = element("progress", { max: 1 });
    this.bar.setAttribute("aria-label", `Progress of ${photograph.name}`);
    this.holder = element("div", { className: "holder" });
    this.steps = element("div", { className: "steps" });
    this.steps.setAttribute("role", "group");
    this.steps.setAttribute("aria-label", "Steps of adaptation");
    this.changed = element("p", { className: "note" });
    this.heat = this.button("Where M_R finds blur", () => { this.isHeat = !this.isHeat; this.show(this.photograph); });
    this.legend = element("span", { className: "legend" }, "0", element("i"), "16 grey levels that M_R changes");
    this.begin = this.button("Deblur", () => ask(url("photographs", this.id, "deblur"), json(wishes())));
    this.begin.classList.add("main");
    this.cancel = this.button("Cancel", () => ask(url("photographs", this.id, "cancel")));
    this.download = element("a", { className: "button main", textContent: "Download", href: url("photographs", this.id, "result"), download: photograph.name });
    this.download.addEventListener("click", () => { this.isTaken = true; });
    this.remove = this.button("Remove", () => ask(url("photographs", this.id), { method: "DELETE" }));
    const actions = element("div", { className: "actions" }, this.download, this.begin, this.cancel, this.heat, this.remove);
    this.root = element("article", { className: "card" }, element("header", {}, this.name, this.size), this.status, this.bar, this.notes, this.holder, this.steps, this.changed, this.legend, actions);
    this.root.setAttribute("aria-label", photograph.name);
    this.viewer = null;
    this.chosen = null; // the step that is shown, null for the newest
    this.isHeat = false;
    this.isTaken = false;
    this.ends = 0; // when it is expected to be done, in the page's time
  }

  button(text, act) {
    const made = element("button", { type: "button", textContent: text });
    made.addEventListener("click", act);
    return made;
  }

  get isBusy() { return ["waiting", "deblurring"].includes(this.photograph.state); }

  show(photograph) {
    if (this.photograph && this.photograph.state !== photograph.state && photograph.state === "deblurring") {
      this.chosen = null;
      this.isHeat = this.isTaken = false;
    }
    this.photograph = photograph;
    const { state, size } = photograph;
    this.size.textContent = size ? `${size[0]}x${size[1]}` : "";
    this.ends = photograph.left === null ? 0 : performance.now() + 1000 * photograph.left;
    this.tell();
    this.bar.hidden = !(this.isBusy || state === "looking");
    if (state === "deblurring" && photograph.part !== null) this.bar.value = photograph.part;
    else this.bar.removeAttribute("value");
    this.notes.textContent = photograph.told.join("; ");
    this.notes.hidden = photograph.told.length === 0;
    this.begin.hidden = this.isBusy || state === "looking" || state === "refused";
    this.begin.textContent = state === "done" || state === "failed" ? "Deblur again" : "Deblur";
    this.begin.classList.toggle("main", state !== "done");
    this.cancel.hidden = !this.isBusy;
    this.download.hidden = !photograph.result;
    this.heat.hidden = photograph.blur.length === 0;
    this.heat.setAttribute("aria-pressed", String(this.isHeat));
    this.legend.hidden = !this.isHeat;
    this.showSteps();
    this.showPictures();
  }

  // The status in words; once a second while something is expected
  tell() {
    const { state, said, problem, expects, before } = this.photograph;
    const left = this.ends ? (this.ends - performance.now()) / 1000 : 0;
    const texts = {
      looking: "It is being looked at ...",
      ready: expects ? `It will take ${expects}.` : problem ? "" : "How long will it take? ...",
      refused: "",
      waiting: before > 0 ? `It waits: ${before} before it.` : "It begins ...",
      deblurring: this.passes(),
      done: "Done.",
      failed: "",
    };
    const parts = [texts[state], said, problem].filter(Boolean);
    const text = parts.join(" ");
    if (this.said.textContent !== text) this.said.textContent = text;
    this.left.textContent = state !== "deblurring" ? "" : left > 0.5 ? `, about ${inWords(left)} left ...` : " ...";
    this.status.classList.toggle("problem", Boolean(problem) || state === "failed" || state === "refused");
  }

  passes() {
    const count = this.photograph.steps.length;
    return count === 0 ? "It is being deblurred" : count === 1 ? "Deblurred; it adapts" : `Adapted by ${count - 1} ${count === 2 ? "step" : "steps"}`;
  }

  showSteps() {
    const steps = this.photograph.steps.filter((step) => step.number > 0);
    const shown = this.step();
    if (this.steps.childElementCount !== steps.length) {
      const had = document.activeElement && this.steps.contains(document.activeElement) ? document.activeElement.textContent : null;
      this.steps.replaceChildren(...steps.map((step) => this.button(`Step ${step.number}`, () => { this.chosen = step.number; this.show(this.photograph); if (this.viewer) this.viewer.go(2); })));
      for (const button of this.steps.children) if (button.textContent === had) button.focus();
    }
    [...this.steps.children].forEach((button, place) => button.setAttribute("aria-pressed", String(steps[place] === shown)));
    this.steps.hidden = steps.length < 2;
    const first = this.photograph.steps.find((step) => step.number === 0);
    const parts = [];
    if (first) parts.push(`Deblurring changed it by ${levels(first.change)} of 255 grey levels on average`);
    if (shown) parts.push(`${shown.number} ${shown.number === 1 ? "step" : "steps"} of adaptation by ${levels(shown.change)}`);
    let text = parts.join(", ");
    if (this.isHeat) text += `${text && ". "}M_R changes ${this.photograph.blur.map((one) => `the ${one.number === 0 ? "deblurred" : "adapted"} one by ${levels(one.mean)}`).join(", ")}`;
    this.changed.textContent = text && `${text}.`;
  }

  // The step of adaptation that is shown
  step() {
    const steps = this.photograph.steps.filter((step) => step.number > 0);
    return steps.find((step) => step.number === this.chosen) || steps[steps.length - 1] || null;
  }

  pictures() {
    const { blurry, steps, blur, state } = this.photograph;
    const at = (src) => url("photographs", this.id, "pictures", src);
    const found = [];
    if (blurry) found.push({ label: "blurry", src: at(blurry) });
    const adapted = this.step();
    for (const step of [steps.find((one) => one.number === 0), adapted]) {
      if (!step) continue;
      const heat = this.isHeat && blur.find((one) => one.number === step.number);
      const last = state === "done" && step.number === steps[steps.length - 1].number;
      const name = step.number === 0 ? "deblurred" : last ? "adapted" : `adapted, step ${step.number}`;
      found.push({ label: heat ? `blur in ${name}` : name, src: at(heat ? heat.src : step.src) });
    }
    return found;
  }

  showPictures() {
    const pictures = this.pictures();
    if (pictures.length === 0) return;
    if (!this.viewer) {
      const [width, height] = this.photograph.size;
      this.viewer = new Viewer({ name: this.photograph.name, width, height, pictures });
      this.viewer.root.style.maxWidth = `min(${80 * width / height}vh, ${2 * width}px)`; // never higher than the window
      this.holder.append(this.viewer.root, this.viewer.controls);
      this.viewer.draw();
      return;
    }
    const isOver = this.photograph.state === "done";
    this.viewer.show(pictures, isOver ? pictures.length - 1 : Math.min(0.5, pictures.length - 1));
  }
}

function showAll(state) {
  listWeights(state.weights);
  const known = new Set(state.photographs.map((photograph) => photograph.id));
  for (const [id, card] of cards) {
    if (!known.has(id)) { card.root.remove(); cards.delete(id); }
  }
  for (const photograph of state.photographs) {
    let card = cards.get(photograph.id);
    if (!card) {
      card = new Card(photograph);
      cards.set(photograph.id, card);
      list.append(card.root);
    }
    card.show(photograph);
  }
  document.getElementById("all").hidden = cards.size < 2;
}

document.getElementById("deblur-all").addEventListener("click", async () => {
  for (const card of [...cards.values()]) if (!card.begin.hidden && card.photograph.state !== "done") await ask(url("photographs", card.id, "deblur"), json(wishes()));
});
document.getElementById("remove-all").addEventListener("click", () => {
  for (const card of [...cards.values()]) ask(url("photographs", card.id), { method: "DELETE" });
});
setInterval(() => { for (const card of cards.values()) if (card.ends) card.tell(); }, 1000);

async function begin() {
  const answer = await ask("visits");
  if (!answer || !answer.ok) return;
  visit = `visits/${(await answer.json()).token}`;
  wish();
  const events = new EventSource(url("events"));
  const lost = () => { events.close(); say("the server has forgotten this page; load it again"); };
  events.addEventListener("message", (event) => showAll(JSON.parse(event.data)));
  events.addEventListener("gone", lost);
  events.addEventListener("error", () => { if (events.readyState === EventSource.CLOSED) lost(); });
  addEventListener("pagehide", (event) => { if (!event.persisted) navigator.sendBeacon(url("leave")); });
  addEventListener("beforeunload", (event) => {
    const isLost = [...cards.values()].some((card) => card.isBusy || (card.photograph.result && !card.isTaken));
    if (isLost) event.preventDefault(); // the browser asks
  });
}
begin();
