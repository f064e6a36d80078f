// The review page. What the server has confirmed is on its disk; what it has not confirmed is kept here, in
// localStorage, and sent again: a killed server or a closed tab loses neither an action nor a half-written text.

const byId = (id) => document.getElementById(id);
const meta = (name) => document.querySelector(`meta[name="review-${name}"]`).content;
const LEVELS = {
  standard_comparison: "Standard comparison",
  defect_identification: "Defect identification",
  defect_diagnosis: "Defect diagnosis",
};
const SAID = { order: "Order", edit: "Text", accept: "Accepted,", reject: "Rejected,", reopen: "Reopened," };

let question = null; // as the server gives it
let statuses = "";
let saveEdit = null; // saves the text that is being edited; null where none is
let busy = 0; // jobs under way or waiting

// One job after the other: two quick moves of an answer are two moves.
let last = Promise.resolve();
function inTurn(job) {
  setBusy(busy + 1);
  last = last
    .then(job)
    .catch((error) => alertUser(String(error)))
    .finally(() => setBusy(busy - 1));
  return last;
}

function setBusy(jobs) {
  busy = jobs;
  byId("main").ariaBusy = String(jobs > 0);
}

// For what decides or goes elsewhere: a second click must not hit a question that nobody has seen yet.
const ifIdle = (job) => busy === 0 && inTurn(job);

// ---- Storage of what the server does not have yet

const stored = (name) => {
  const key = `sage-review:${meta("version")}:${name}`;
  return {
    get: () => JSON.parse(localStorage.getItem(key) ?? "null"),
    set: (value) => localStorage.setItem(key, JSON.stringify(value)),
    clear: () => localStorage.removeItem(key),
  };
};
const pending = stored("pending"); // an action without an answer
const draft = stored("draft"); // an edit that has not been sent

// ---- Server

async function fetchJson(path, options) {
  const response = await fetch(path, options);
  const body = await response.json().catch(() => ({ problem: `the server answered ${response.status}` }));
  return { ok: response.ok, status: response.status, body };
}

async function load(path) {
  const { ok, body } = await fetchJson(path);
  if (!ok) throw new Error(body.problem);
  return body;
}

// Resolves to true when the server has the action, and to false when it refused it or did not answer.
async function sendPending() {
  const action = pending.get();
  byId("saved").textContent = "saving …";
  let answer;
  try {
    answer = await fetchJson("/api/actions", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Review-Token": meta("token") },
      body: JSON.stringify(action),
    });
  } catch {
    return notSaved("The server does not answer. Start tools/review.py again and open the address that it prints; this action is kept here until then.");
  }
  if (answer.status >= 500 || answer.status === 403) return notSaved(answer.body.problem);
  pending.clear();
  if (!answer.ok) {
    byId("saved").textContent = "not saved";
    alertUser(answer.body.problem);
  } else {
    if (action.action === "edit") draft.clear();
    byId("saved").textContent = `${SAID[action.action]} saved at ${new Date().toLocaleTimeString()}`;
    alertUser(null);
  }
  return answer.ok;
}

function notSaved(problem) {
  byId("saved").textContent = "not saved";
  alertUser(`Not saved. ${problem}`, true);
  return false;
}

async function act(action) {
  if (pending.get()) {
    alertUser("The last action is not saved yet.", true);
    render();
    return false;
  }
  const { group, question_id, revision } = question;
  pending.set({ ...action, action_id: newId(), group_id: group.id, question_id, revision });
  const done = await sendPending();
  if (!pending.get()) await show(question.index); // also after a refusal, which shows what is there now
  else render();
  return done;
}

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function retry() {
  await sendPending();
  if (!pending.get()) await show(question ? question.index : 0);
}

// ---- Going about

async function show(index) {
  try {
    const [overview, loaded] = await Promise.all([load("/api/overview"), load(`/api/questions/${index}`)]);
    statuses = overview.statuses;
    question = loaded;
  } catch (error) {
    return alertUser(`This question cannot be loaded: ${error.message}`);
  }
  history.replaceState(null, "", `#${index + 1}`);
  render();
  prefetch(question.group.first + question.group.size);
}

async function go(index) {
  if (!(index >= 0 && index < statuses.length) || !(await finishEdit())) return;
  if (!pending.get()) alertUser(null);
  await show(index);
}

function nextOpen() {
  const from = question ? question.index + 1 : 0;
  const found = statuses.indexOf("o", from);
  return found >= 0 ? found : statuses.indexOf("o");
}

async function decide(action) {
  if (!(await finishEdit()) || !(await act({ action }))) return;
  const open = nextOpen();
  if (open >= 0) await show(open);
  else speak("Every question is reviewed.");
}

// The next part's test image; whether it has a reference is not known yet.
function prefetch(index) {
  if (index < statuses.length) new Image().src = imageAddress(index, "test");
}

// ---- Drawing

const imageAddress = (index, kind) => `/images/${index}/${kind}`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function render() {
  saveEdit = null;
  byId("main").hidden = false;
  renderProgress();
  renderImages();
  renderQuestion();
  byId("answers").replaceChildren(...question.order.map((place, rank) => answerCard(place, rank)));
  const kept = draft.get();
  if (kept && kept.group_id === question.group.id && kept.question_id === question.question_id) {
    openEditor(kept.answer, kept.text);
  }
}

function renderProgress() {
  const count = (letter) => statuses.split(letter).length - 1;
  const [accepted, rejected] = [count("a"), count("r")];
  byId("bar-accepted").style.width = `${(100 * accepted) / statuses.length}%`;
  byId("bar-rejected").style.width = `${(100 * rejected) / statuses.length}%`;
  byId("progress-text").textContent = `${accepted} accepted, ${rejected} rejected, ${statuses.length - accepted - rejected} open`;
  byId("position").value = question.index + 1;
  byId("total").textContent = statuses.length;
  byId("previous").disabled = question.index === 0;
  byId("next").disabled = question.index === statuses.length - 1;
  byId("next-open").disabled = !statuses.includes("o");
}

function renderImages() {
  for (const kind of ["test", "reference"]) {
    const figure = byId(kind);
    figure.classList.toggle("no-image", kind === "reference" && !question.has_reference);
    if (figure.classList.contains("no-image")) continue;
    const image = figure.querySelector("img");
    const address = imageAddress(question.group.first, kind);
    if (image.getAttribute("src") === address) continue;
    if (kind === "test") setZoom(false);
    image.onload = () => image.classList.toggle("small", image.naturalWidth < 256);
    image.onerror = () => alertUser(`The ${kind} image cannot be read.`);
    image.src = address;
  }
  const layer = byId("test").querySelector(".layer");
  layer.querySelectorAll(".box").forEach((box) => box.remove());
  for (const { type, box: [x1, y1, x2, y2] } of question.defects) {
    const box = element("div", { className: "box", title: type });
    const percent = { left: x1, top: y1, width: x2 - x1, height: y2 - y1 };
    for (const [name, share] of Object.entries(percent)) box.style[name] = `${100 * share}%`;
    layer.append(box);
  }
  const found = question.defects.map(({ type }) => element("li", { textContent: type.replaceAll("_", " ") }));
  byId("defects").replaceChildren(...(found.length ? found : [element("li", { className: "fine", textContent: "no defect" })]));
}

function renderQuestion() {
  const { category, split, level, group, index, verdict, status, changed, reviewer } = question;
  byId("where").textContent = `${category} · ${split} · ${LEVELS[level]}`;
  const steps = Array.from({ length: group.size }, (_, offset) => {
    const step = element("button", { textContent: offset + 1, onclick: () => ifIdle(() => go(group.first + offset)) });
    step.dataset.status = statuses[group.first + offset];
    step.ariaCurrent = String(group.first + offset === index);
    step.ariaLabel = `Question ${offset + 1} of this part`;
    return step;
  });
  byId("group").replaceChildren(...steps);
  byId("question").replaceChildren(words(question.text), editButton("Edit the question (Q)", () => edit()));
  byId("verdict").textContent = verdict === null ? "Open question" : `True answer: ${verdict ? "yes" : "no"}`;
  const decided = status === "open" ? "" : `${status} by ${reviewer}`;
  byId("status").textContent = [decided, changed ? "changed" : ""].filter(Boolean).join(", ");
  byId("status").dataset.status = status;
  byId("reopen").disabled = status === "open";
}

const words = (text) => element("div", { className: "words", textContent: text });

function editButton(label, onclick) {
  return element("button", { className: "quiet", textContent: "✎", title: label, ariaLabel: label, onclick });
}

function answerCard(place, rank) {
  const up = element("button", { className: "quiet", textContent: "↑", title: "Move up (Alt ↑)", onclick: () => inTurn(() => move(place, -1)) });
  const down = element("button", { className: "quiet", textContent: "↓", title: "Move down (Alt ↓)", onclick: () => inTurn(() => move(place, 1)) });
  up.ariaLabel = `Move answer ${rank + 1} up`;
  down.ariaLabel = `Move answer ${rank + 1} down`;
  up.disabled = rank === 0;
  down.disabled = rank === question.order.length - 1;
  const pencil = editButton(`Edit answer ${rank + 1} (E)`, () => edit(place));
  const handle = element("span", { className: "handle", textContent: "⠿", ariaHidden: "true" });
  const card = element("li", { tabIndex: 0 }, words(question.answers[place]), pencil, element("span", { className: "order" }, up, down), handle);
  card.dataset.place = place;
  card.addEventListener("pointerdown", (event) => startDrag(event, card));
  return card;
}

const cardOf = (place) => byId("answers").querySelector(`[data-place="${place}"]`);

function alertUser(text, canRetry = false) {
  byId("alert").hidden = text === null;
  byId("alert").firstElementChild.textContent = text ?? "";
  byId("retry").hidden = !canRetry;
}

function speak(text) {
  byId("spoken").textContent = text;
}

// ---- Editing

// One text at a time; leaving it for something else saves it.
function edit(answer) {
  const { index } = question;
  return inTurn(async () => question.index === index && (await finishEdit()) && openEditor(answer));
}
const finishEdit = async () => saveEdit === null || saveEdit();

// `answer`: its place in the dataset; undefined for the question itself.
function openEditor(answer, text) {
  const [target, before] = answer === undefined ? [byId("question"), question.text] : [cardOf(answer), question.answers[answer]];
  const area = element("textarea", { value: text ?? before, ariaLabel: "New text", maxLength: 10000 });
  const close = () => {
    draft.clear();
    render();
    (answer === undefined ? byId("question").querySelector("button") : cardOf(answer)).focus();
    return true;
  };
  saveEdit = () => {
    const wanted = area.value.trim();
    if (!wanted || wanted === before) return close();
    return act({ action: "edit", text: wanted, ...(answer === undefined ? {} : { answer }) });
  };
  const save = () => ifIdle(finishEdit);
  area.addEventListener("input", () =>
    draft.set({ index: question.index, group_id: question.group.id, question_id: question.question_id, answer, text: area.value }),
  );
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && busy === 0) close();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      save();
    }
  });
  const buttons = element(
    "div",
    {},
    element("button", { textContent: "Cancel", onclick: close }),
    element("button", { textContent: "Save", className: "good", onclick: save }),
  );
  target.replaceChildren(element("div", { className: "editor" }, area, buttons));
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

// ---- Ordering

const orderOnPage = () => Array.from(byId("answers").children, (card) => Number(card.dataset.place));

async function saveOrder(order, place) {
  if (order.every((value, rank) => value === question.order[rank])) return;
  await act({ action: "order", order });
  cardOf(place)?.focus();
  speak(`Answer is now at place ${question.order.indexOf(place) + 1}`);
}

function move(place, step) {
  const order = [...question.order];
  const rank = order.indexOf(place);
  if (rank < 0 || order[rank + step] === undefined) return;
  [order[rank], order[rank + step]] = [order[rank + step], order[rank]];
  return saveOrder(order, place);
}

function startDrag(event, card) {
  const onHandle = event.target.closest(".handle");
  const isTouch = event.pointerType !== "mouse";
  if (event.button !== 0 || busy || event.target.closest("button, textarea") || (isTouch && !onHandle)) return;
  event.preventDefault();
  card.focus();
  card.setPointerCapture(event.pointerId);
  let startY = event.clientY;

  const drag = ({ clientY }) => {
    card.classList.add("dragged");
    let distance = clientY - startY;
    for (const step of [-1, 1]) {
      let neighbour = step < 0 ? card.previousElementSibling : card.nextElementSibling;
      while (neighbour && step * distance > neighbour.offsetHeight / 2) {
        const before = card.offsetTop;
        if (step < 0) neighbour.before(card);
        else neighbour.after(card);
        startY += card.offsetTop - before;
        distance = clientY - startY;
        neighbour = step < 0 ? card.previousElementSibling : card.nextElementSibling;
      }
    }
    card.style.transform = `translateY(${distance}px)`;
  };
  const finish = ({ type }) => {
    for (const name of ["pointermove", "pointerup", "pointercancel"]) card.removeEventListener(name, name === "pointermove" ? drag : finish);
    card.classList.remove("dragged");
    card.style.transform = "";
    if (type === "pointerup") {
      const order = orderOnPage();
      inTurn(() => saveOrder(order, Number(card.dataset.place)));
    }
    if (type === "pointercancel") render();
  };
  card.addEventListener("pointermove", drag);
  card.addEventListener("pointerup", finish);
  card.addEventListener("pointercancel", finish);
}

// ---- Images

const stages = () => document.querySelectorAll(".stage");
const isZoomed = () => byId("zoom").ariaPressed === "true";

const CLICK_SCALE = 3;

// The point (x, y), in fractions of the image, stays where it is.
function setZoom(zoomed, x = 0.5, y = 0.5, scale = null) {
  byId("zoom").ariaPressed = String(zoomed);
  for (const stage of stages()) {
    stage.classList.toggle("zoomed", zoomed);
    const layer = stage.querySelector(".layer");
    layer.style.transformOrigin = `${100 * x}% ${100 * y}%`;
    if (scale) layer.style.setProperty("--scale", scale);
  }
}

// Brings the first defect to the middle, as large as fits.
function toggleZoom() {
  const [x1, y1, x2, y2] = question.defects[0]?.box ?? [0.25, 0.25, 0.75, 0.75];
  const scale = Math.min(Math.max(0.7 / Math.max(x2 - x1, y2 - y1), 1.2), 6);
  const fixed = (centre) => Math.min(Math.max((scale * centre - 0.5) / (scale - 1), 0), 1);
  setZoom(!isZoomed(), fixed((x1 + x2) / 2), fixed((y1 + y2) / 2), scale);
}

function toggleBoxes() {
  const shown = byId("boxes").ariaPressed !== "true";
  byId("boxes").ariaPressed = String(shown);
  byId("main").classList.toggle("hide-boxes", !shown);
}

function pointIn(stage, event) {
  const area = stage.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
}

for (const stage of stages()) {
  stage.addEventListener("click", (event) => setZoom(!isZoomed(), ...pointIn(stage, event), CLICK_SCALE));
  stage.addEventListener("pointermove", (event) => isZoomed() && setZoom(true, ...pointIn(stage, event)));
}

// ---- Controls

byId("accept").onclick = () => ifIdle(() => decide("accept"));
byId("reject").onclick = () => ifIdle(() => decide("reject"));
byId("reopen").onclick = () => ifIdle(() => act({ action: "reopen" }));
byId("previous").onclick = () => ifIdle(() => go(question.index - 1));
byId("next").onclick = () => ifIdle(() => go(question.index + 1));
byId("next-open").onclick = () => ifIdle(() => go(nextOpen()));
byId("position").onchange = (event) => {
  const wanted = Number(event.target.value);
  if (Number.isInteger(wanted) && wanted >= 1 && wanted <= statuses.length) ifIdle(() => go(wanted - 1));
  else event.target.value = question.index + 1;
};
byId("boxes").onclick = toggleBoxes;
byId("zoom").onclick = toggleZoom;
byId("help-button").onclick = () => byId("help").showModal();
byId("retry").onclick = () => ifIdle(retry);

const selected = () => document.activeElement.closest("#answers li") ?? byId("answers").firstElementChild;
const KEYS = {
  a: () => ifIdle(() => decide("accept")),
  r: () => ifIdle(() => decide("reject")),
  u: () => question.status !== "open" && ifIdle(() => act({ action: "reopen" })),
  e: () => edit(Number(selected().dataset.place)),
  q: () => edit(),
  n: () => ifIdle(() => go(nextOpen())),
  b: toggleBoxes,
  z: toggleZoom,
  "?": () => byId("help").showModal(),
  ArrowLeft: () => ifIdle(() => go(question.index - 1)),
  ArrowRight: () => ifIdle(() => go(question.index + 1)),
};

document.addEventListener("keydown", (event) => {
  if (!question || byId("help").open || event.target.matches("textarea, input")) return;
  if (event.ctrlKey || event.metaKey || (event.repeat && "aru".includes(event.key))) return;
  if (event.altKey) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const place = Number(selected().dataset.place);
    inTurn(() => move(place, step));
  } else if (/^[1-9]$/.test(event.key)) {
    byId("answers").children[Number(event.key) - 1]?.focus();
  } else {
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
});

// ---- Start: what was not saved comes first

const inAddress = () => Number(location.hash.slice(1)) - 1;
addEventListener("hashchange", () => inTurn(() => go(inAddress())));
inTurn(async () => {
  if (pending.get()) await sendPending();
  statuses = (await load("/api/overview")).statuses;
  const asked = inAddress();
  const start = draft.get()?.index ?? (asked >= 0 ? asked : nextOpen());
  await show(Math.min(Math.max(start, 0), statuses.length - 1));
});
