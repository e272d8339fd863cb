"use strict";
// Names and sentences come from strangers' files: they become text, never markup.
const facts = JSON.parse(document.body.dataset.facts);
const form = document.getElementById("wishes");
const list = document.getElementById("photographs");
const cards = new Map(); // by the photograph's id
let visit = ""; // this page's address at the server, once `ready` is fulfilled

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

// Shows a sentence that stays until it is closed; once more if it is there.
function say(text) {
  const notes = document.getElementById("notes");
  for (const note of [...notes.children]) if (note.firstChild.textContent === text) note.remove();
  const close = element("button", { type: "button", textContent: "Close" });
  const note = element("li", {}, element("span", { textContent: text }), close);
  close.addEventListener("click", () => note.remove());
  notes.append(note);
}

// Says something to those who hear this page.
function speak(text) { document.getElementById("spoken").textContent = text; }

// What is chosen
function wishes() {
  const given = Object.fromEntries(new FormData(form));
  return { ...given, steps: given.steps === "" ? null : Number(given.steps) };
}

function json(content) { return { headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) }; }

const how = document.getElementById("how");
if (innerWidth < 600) how.open = false;
let waiting = 0;
function wish() {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (visit && form.checkValidity()) ask(url("wishes"), json(wishes())); }, 300);
}

// Whether what is chosen is possible; else the browser shows what isn't.
function isPossible() {
  if (form.checkValidity()) return true;
  how.open = true;
  return form.reportValidity();
}
form.addEventListener("input", (event) => { if (event.target.type !== "file") wish(); });
form.addEventListener("submit", (event) => event.preventDefault());

// Sending files, one after the other
let sent = null;
function send(kind, file, name) {
  if (file.size > facts.maxUpload) {
    say(`${name}: expected at most ${facts.maxUpload / 2 ** 20} MiB, got ${(file.size / 2 ** 20).toFixed(1)}; use a smaller file, or start the page with a larger --max-upload`);
    return Promise.resolve(false);
  }
  const bar = element("progress", { max: 1, value: 0 });
  const line = element("li", { textContent: `${name} is being sent` }, bar);
  document.getElementById("sending").append(line);
  sent = (sent || ready).then(() => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${url(kind)}?name=${encodeURIComponent(name)}`);
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

function sendFiles(files) {
  const isWeights = (file) => facts.weights.some((suffix) => file.name.toLowerCase().endsWith(suffix));
  sendWeights([...files].filter(isWeights));
  for (const file of [...files].filter((file) => !isWeights(file))) {
    isNew = true;
    send("photographs", file, file.name || "photograph.png");
  }
}
let isNew = false; // whether a photograph that comes is to be scrolled to

const files = document.getElementById("files");
files.addEventListener("change", () => { sendFiles(files.files); files.value = ""; });
let depth = 0; // of elements that something is dragged over
const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
addEventListener("dragenter", (event) => { if (holdsFiles(event)) { depth += 1; document.body.classList.add("over"); } });
addEventListener("dragleave", (event) => { if (holdsFiles(event)) depth -= 1; if (depth <= 0) document.body.classList.remove("over"); });
addEventListener("dragover", (event) => { if (holdsFiles(event) || !event.target.matches("input")) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!holdsFiles(event) && event.target.matches("input")) return;
  event.preventDefault();
  if (!holdsFiles(event)) say("what was dropped is no file; save the picture first, then drop it");
  depth = 0;
  document.body.classList.remove("over");
  sendFiles(event.dataTransfer.files);
});
addEventListener("paste", (event) => sendFiles([...event.clipboardData.files]));
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    await ready;
    isNew = true;
    ask(url("examples", button.dataset.example));
  });
}
const weightsFiles = document.getElementById("weights-files");
weightsFiles.addEventListener("change", () => { sendWeights([...weightsFiles.files]); weightsFiles.value = ""; });
async function sendWeights(chosen) {
  const done = await Promise.all(chosen.map((file) => send("weights", file, file.name)));
  const main = chosen.find((file, number) => done[number] && !file.name.startsWith("net_r"));
  if (main) wanted = main.name; // chosen once it is listed
}

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

const levels = (number) => number === null ? "?" : number.toFixed(number < 0.95 ? 2 : 1);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// One photograph
class Card {
  constructor(photograph) {
    this.id = photograph.id;
    this.name = element("h2", { textContent: photograph.name });
    this.size = element("span", { className: "note" });
    this.status = element("p");
    this.problem = element("p", { className: "problem" });
    this.notes = element("p", { className: "note" });
    this.bar = element("progress", { max: 1 });
    this.bar.setAttribute("aria-label", `Progress of ${photograph.name}`);
    this.holder = element("div", { className: "holder" });
    this.steps = element("div", { className: "steps" });
    this.steps.setAttribute("role", "group");
    this.steps.setAttribute("aria-label", "Steps of adaptation");
    this.changed = element("p", { className: "note" });
    this.heat = this.button("Show where blur is left", () => { this.isHeat = !this.isHeat; this.chosen = null; this.show(this.photograph); });
    this.legend = element("p", { className: "legend" }, element("span", { textContent: "none" }), element("i"), element("span", { textContent: "much: what M_R would still change, 0 to 16 of 255 grey levels" }));
    this.begin = this.button("Deblur", () => this.deblur());
    this.cancel = this.button("Cancel", () => ask(url("photographs", this.id, "cancel")));
    this.download = element("a", { className: "button main", textContent: "Download", href: url("photographs", this.id, "result"), download: photograph.name });
    this.download.addEventListener("click", () => { this.isTaken = true; });
    this.remove = this.button("Remove", () => { if (!this.isLost() || confirm(`Remove ${photograph.name}? Its result was not downloaded.`)) ask(url("photographs", this.id), { method: "DELETE" }); });
    this.remove.classList.add("last");
    for (const one of [this.begin, this.cancel, this.download, this.remove]) one.setAttribute("aria-describedby", `name-${this.id}`);
    this.name.id = `name-${this.id}`;
    // Nothing moves to where a button was that is pressed twice.
    const actions = element("div", { className: "actions" }, this.begin, this.download, this.heat, this.remove);
    this.progress = element("div", { className: "progress" }, this.bar, this.cancel);
    this.root = element("article", { className: "card" }, element("header", {}, this.name, this.size), this.status, this.problem, this.notes, actions, this.progress, this.holder, this.steps, this.changed, this.legend);
    this.root.setAttribute("aria-label", photograph.name);
    this.viewer = null;
    this.chosen = null; // the step that is shown, null for the newest
    this.isHeat = false;
    this.isTaken = false;
    this.isWanted = false;
    this.ends = 0; // when it is expected to be done, in the page's time
  }

  button(text, act) {
    const made = element("button", { type: "button", textContent: text });
    made.addEventListener("click", act);
    return made;
  }

  // Whether something goes that nobody has taken away
  isLost() { return Boolean(this.photograph.result) && !this.isTaken; }

  async deblur() {
    const { state } = this.photograph;
    this.isWanted = state === "looking"; // begun as soon as it is checked
    if (this.isWanted || this.isBusy || state === "refused" || !isPossible()) return;
    await ask(url("photographs", this.id, "deblur"), json(wishes()));
  }

  get isBusy() { return ["waiting", "deblurring"].includes(this.photograph.state); }

  show(photograph) {
    const before = this.photograph ? this.photograph.state : null;
    if (before !== "deblurring" && photograph.state === "deblurring") {
      this.chosen = null;
      this.isHeat = this.isTaken = false;
      if (this.viewer) this.viewer.isMoved = false;
    }
    this.photograph = photograph;
    const { state, size, said, problem } = photograph;
    this.size.textContent = size ? `${size[0]}x${size[1]}` : "";
    this.ends = photograph.left === null ? 0 : performance.now() + 1000 * photograph.left;
    this.tell();
    this.problem.textContent = (problem || (["failed", "refused"].includes(state) ? said : ""));
    if (before && before !== state) this.speak();
    if (state === "deblurring" && photograph.part !== null) this.bar.value = photograph.part;
    else this.bar.removeAttribute("value");
    this.notes.textContent = photograph.told.join("; ");
    this.begin.setAttribute("aria-disabled", String(this.isBusy || state === "refused"));
    this.begin.textContent = ["done", "failed"].includes(state) ? "Deblur again" : "Deblur";
    this.begin.classList.toggle("main", state !== "done");
    if (!this.isBusy && this.cancel.contains(document.activeElement)) (photograph.result ? this.download : this.begin).focus();
    this.progress.hidden = !(this.isBusy || state === "looking");
    this.cancel.hidden = !this.isBusy;
    this.download.hidden = !photograph.result;
    this.heat.hidden = photograph.blur.length === 0;
    this.heat.setAttribute("aria-pressed", String(this.isHeat));
    this.legend.hidden = !this.isHeat;
    this.showSteps();
    this.showPictures();
    if (this.isWanted && state !== "looking") this.deblur();
  }

  // The status in words; once a second while something is expected
  tell() {
    const { state, said, problem, expects, before } = this.photograph;
    const left = this.ends ? (this.ends - performance.now()) / 1000 : 0;
    const texts = {
      looking: this.isWanted ? "Checking it, then it is deblurred ..." : "Checking it ...",
      ready: [said && `${capital(said)}.`, expects && `It will take ${expects} of memory.`, !expects && !problem && "How long will it take? ..."].filter(Boolean).join(" "),
      refused: "",
      waiting: before > 0 ? `Waiting: ${before} before it.` : "Beginning ...",
      deblurring: `${this.passes()}${left > 0.5 ? `, about ${inWords(left)} left` : ""} ...`,
      done: said ? `Done, but ${said}.` : "Done.",
      failed: "",
    };
    if (this.status.textContent !== texts[state]) this.status.textContent = texts[state];
  }

  speak() {
    const { name, state, said } = this.photograph;
    const texts = { ready: said || "ready", refused: this.problem.textContent, deblurring: "being deblurred", done: "done", failed: this.problem.textContent };
    if (texts[state]) speak(`${name}: ${texts[state]}`);
  }

  passes() {
    const count = this.photograph.steps.length;
    return count === 0 ? "Deblurring" : count === 1 ? "Deblurred, adapting to it" : `Adapted by ${count - 1} ${count === 2 ? "step" : "steps"}`;
  }

  showSteps() {
    const steps = this.photograph.steps.filter((step) => step.number > 0);
    const shown = this.step();
    if (this.steps.childElementCount !== steps.length) {
      const had = document.activeElement && this.steps.contains(document.activeElement) ? document.activeElement.textContent : null;
      this.steps.replaceChildren(...steps.map((step) => this.button(`Step ${step.number}`, () => this.choose(step.number))));
      for (const button of this.steps.children) if (button.textContent === had) button.focus();
    }
    [...this.steps.children].forEach((button, place) => button.setAttribute("aria-pressed", String(steps[place] === shown)));
    this.steps.hidden = steps.length < 2;
    const first = this.photograph.steps.find((step) => step.number === 0);
    const parts = [];
    if (first) parts.push(`Deblurring changed it by ${levels(first.change)} of 255 grey levels on average`);
    if (shown) parts.push(`${shown.number} ${shown.number === 1 ? "step" : "steps"} of adaptation by ${levels(shown.change)}`);
    let text = parts.join(", ");
    if (this.isHeat) text += `. M_R would change ${this.photograph.blur.map((one) => `the ${one.number === 0 ? "deblurred" : "adapted"} one by ${levels(one.mean)}`).join(", ")}`;
    this.changed.textContent = text && `${text}.`;
    const last = steps.length > 0 && shown !== steps[steps.length - 1];
    this.download.textContent = last ? `Download the result of ${steps.length} steps` : "Download";
  }

  choose(number) {
    this.chosen = number;
    this.isHeat = false; // of the last one alone there is a map
    this.show(this.photograph);
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
    // The best one is beside the blurry one, and what it was before it was adapted beside that.
    for (const step of [this.step(), steps.find((one) => one.number === 0)]) {
      if (!step) continue;
      const heat = this.isHeat && blur.find((one) => one.number === step.number);
      const isLast = state === "done" && step.number === steps[steps.length - 1].number;
      const name = step.number === 0 ? "deblurred" : isLast ? "adapted" : `adapted, step ${step.number}`;
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
      const most = `min(${80 * width / height}vh, ${Math.max(2 * width, 240)}px)`; // never higher than the window
      this.viewer.root.style.setProperty("--most", most);
      this.holder.append(this.viewer.root, this.viewer.controls);
      this.viewer.draw();
      return;
    }
    this.viewer.show(pictures, Math.min(0.5, pictures.length - 1));
  }
}

function showAll(state) {
  listWeights(state.weights);
  const known = new Set(state.photographs.map((photograph) => photograph.id));
  for (const [id, card] of cards) {
    if (known.has(id)) continue;
    const next = card.root.nextElementSibling || card.root.previousElementSibling;
    if (card.root.contains(document.activeElement)) (next ? next.querySelector(".last") : files).focus();
    card.root.remove();
    cards.delete(id);
  }
  for (const photograph of state.photographs) {
    let card = cards.get(photograph.id);
    if (!card) {
      card = new Card(photograph);
      cards.set(photograph.id, card);
      list.append(card.root);
      card.show(photograph);
      if (isNew) card.root.scrollIntoView({ block: "nearest" });
      isNew = false;
    }
    card.show(photograph);
  }
  document.getElementById("all").hidden = cards.size < 2;
}

document.getElementById("deblur-all").addEventListener("click", async () => {
  if (!isPossible()) return;
  for (const card of [...cards.values()]) if (card.photograph.state !== "done") await card.deblur();
});
document.getElementById("remove-all").addEventListener("click", () => {
  const lost = [...cards.values()].filter((card) => card.isLost()).length;
  if (lost && !confirm(`Remove all? ${lost} ${lost === 1 ? "result was" : "results were"} not downloaded.`)) return;
  for (const card of [...cards.values()]) ask(url("photographs", card.id), { method: "DELETE" });
});
const clock = setInterval(() => { for (const card of cards.values()) if (card.ends) card.tell(); }, 1000);

async function begin() {
  let answer = await ask("visits");
  while (!answer || !answer.ok) { // there is room again when others have left
    await new Promise((resolve) => { setTimeout(resolve, 10000); });
    answer = await ask("visits");
  }
  visit = `visits/${(await answer.json()).token}`;
  wish();
  const events = new EventSource(url("events"));
  const lost = () => {
    events.close();
    clearInterval(clock);
    document.body.classList.add("lost");
    for (const card of cards.values()) {
      card.progress.hidden = true;
      if (card.isBusy) card.status.textContent = "Lost: the server has ended.";
    }
    say("the server has ended, or has forgotten this page; start it and load this page again. What is shown can't be downloaded any more");
  };
  events.addEventListener("message", (event) => showAll(JSON.parse(event.data)));
  events.addEventListener("gone", lost);
  events.addEventListener("error", () => { if (events.readyState === EventSource.CLOSED) lost(); }); // else it tries again
  addEventListener("pagehide", (event) => { if (!event.persisted) navigator.sendBeacon(url("leave")); });
  addEventListener("beforeunload", (event) => {
    if ([...cards.values()].some((card) => card.isBusy || card.isLost())) event.preventDefault(); // the browser asks
  });
}
const ready = begin();
