"use strict";
// Every text here was written by strangers: it becomes text nodes only, never markup.
const CHUNK = 60;
const MARKS = { r: ["✓", "right"], w: ["✗", "wrong"], u: ["?", "unreadable"], o: ["○", "open question"] };
const CRITERIA = ["type", "location", "logic"];
const SVG = "http://www.w3.org/2000/svg";

const by = (id) => document.getElementById(id);
const parsed = (id) => JSON.parse(by(id).textContent);
const index = parsed("index");
const FILTERS = ["input", "model", "verdict", "differs", "level", "category", "split"];
const state = { matches: [], at: 0, evidence: null, fact: null, showsDefects: true, showsPatches: true };

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const groups = new Map();
function group(number) {
  if (!groups.has(number)) groups.set(number, parsed(`group-${number}`));
  return groups.get(number);
}

function image(number, alt) {
  const picture = make("img", { alt, decoding: "async" });
  picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth <= 160));
  picture.src = by(`image-${number}`).textContent;
  return picture;
}

// --- filters: an item is [group, level, category, split, question, outcomes]

const value = (name) => by(name).value;
const isGraded = (outcome) => outcome !== "-" && outcome !== "o";

function matches([, level, category, split, , outcomes]) {
  const isWanted = (name, own) => value(name) === "" || Number(value(name)) === own;
  if (!isWanted("level", level) || !isWanted("category", category) || !isWanted("split", split)) return false;
  const count = index.models.length;
  const asked = [...outcomes.slice(Number(value("input")) * count, (Number(value("input")) + 1) * count)];
  const differs = value("differs");
  return asked.some((outcome, model) => {
    if (outcome === "-" || !isWanted("model", model)) return false;
    if (value("verdict") !== "" && !value("verdict").includes(outcome)) return false;
    return differs === "" || asked.some((other, rival) =>
      rival !== model && (differs === "any" || Number(differs) === rival) &&
      isGraded(outcome) && isGraded(other) && (outcome === "r") !== (other === "r"));
  });
}

function filter() {
  const before = index.items[state.matches[state.at]];
  state.matches = [];
  index.items.forEach((item, number) => { if (matches(item)) state.matches.push(number); });
  by("list").replaceChildren();
  state.at = Math.max(0, state.matches.findIndex((number) => index.items[number] === before));
  if (!state.matches.length) by("list").append(make("li", { class: "none" }, "No question matches."));
  show(state.at, { scroll: false });
}

// --- the list grows as it is scrolled

const watcher = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) grow();
}, { root: by("list"), rootMargin: "400px" });

function grow(least = 0) {
  const list = by("list");
  const start = list.querySelectorAll("button").length;
  const end = Math.min(state.matches.length, Math.max(start + CHUNK, least));
  for (let place = start; place < end; place += 1) list.append(row(place));
  watcher.disconnect();
  if (end < state.matches.length) watcher.observe(list.lastElementChild);
}

function row(place) {
  const [number, , , , question, outcomes] = index.items[state.matches[place]];
  const shown = group(number);
  const words = make("span", { class: "words" }, shown.questions[question].question);
  const body = make("span", {}, words, marks(outcomes));
  return make("li", {}, make("button", { type: "button", onclick: () => show(place) }, image(shown.test, ""), body));
}

function marks(outcomes) {
  const count = index.models.length;
  const all = make("span", { class: "marks" });
  [...outcomes.slice(Number(value("input")) * count, (Number(value("input")) + 1) * count)].forEach((outcome, model) => {
    if (outcome in MARKS) all.append(mark(outcome, `${index.models[model]}: ${MARKS[outcome][1]}`));
  });
  return all;
}

function mark(outcome, title) {
  return make("span", { class: outcome, title, "aria-label": title, role: "img" }, MARKS[outcome][0]);
}

// --- one case

function show(place, { scroll = true } = {}) {
  const total = state.matches.length;
  state.at = place;
  if (by("list").querySelectorAll("button").length <= place) grow(place + 1);
  by("previous").disabled = place <= 0;
  by("next").disabled = place >= total - 1;
  by("position").textContent = total ? `${(place + 1).toLocaleString("en")} of ${total.toLocaleString("en")}` : "0 of 0";
  by("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
  by("case").replaceChildren();
  if (!total) return;
  const current = by("list").querySelectorAll("button")[place];
  current.setAttribute("aria-current", "true");
  // Only the list may move, not the page.
  if (scroll) {
    const list = by("list");
    const [own, all] = [current.getBoundingClientRect(), list.getBoundingClientRect()];
    list.scrollTop += own.top - all.top - list.clientHeight / 3;
    list.scrollLeft += own.left - all.left - list.clientWidth / 3;
  }
  const [number, , , , asked] = index.items[state.matches[place]];
  const shown = group(number);
  const input = Number(value("input"));
  const model = value("model");
  state.fact = null;
  state.evidence =
    shown.evidence.find((one) => one.input === input && (model === "" || one.model === Number(model))) ??
    shown.evidence[0] ?? null;
  draw(number, shown, shown.questions[asked]);
}

function draw(number, shown, question) {
  const truth = question.truth === null ? "open question" : `the truth is ${question.truth}`;
  by("case").replaceChildren(
    make("p", { class: "where" }, `${shown.split} · ${shown.category} · ${shown.level} · ${shown.id} · ${truth}`),
    make("h3", { class: "question" }, question.question),
    pictures(shown),
    tools(shown),
    make("div", { id: "evidence" }),
    ...replies(question),
    make("h4", {}, "Ranked answers of the dataset"),
    make("ol", { class: "answers" }, ...question.answers.map((answer) =>
      make("li", {}, `${answer.text} `, answer.scores ? scores(answer.scores) : null))),
    ...siblings(number, question),
  );
  drawEvidence(shown);
}

function siblings(number, question) {
  const places = state.matches.map((item, place) => [index.items[item], place]).filter(([item]) => item[0] === number);
  if (places.length < 2) return [];
  const shown = group(number);
  return [make("h4", {}, "Questions on the same images"), make("div", { class: "siblings" }, ...places.map(([item, place]) => {
    const own = shown.questions[item[4]];
    return make("button", { type: "button", "aria-pressed": String(own === question), onclick: () => show(place) }, own.question);
  }))];
}

function pictures(shown) {
  const stage = make("div", { class: "stage", id: "stage" }, image(shown.test, "Test image"));
  const kinds = shown.defects.length ? shown.defects.map((defect) => defect.type).join(", ") : "no defect";
  const reference = shown.reference === null
    ? make("div", { class: "no-reference" }, "No reference image")
    : make("div", { class: "stage" }, image(shown.reference, "Reference image"));
  return make("div", { class: "pair" },
    make("figure", {}, stage, make("figcaption", {}, `Test: ${kinds}`)),
    make("figure", {}, reference, make("figcaption", {}, "Reference")));
}

function tools(shown) {
  const toggle = (id, label, key, swatch) => make("button", {
    id, type: "button", "aria-pressed": String(state[key]), style: `--swatch: var(--${swatch})`,
    onclick: () => { state[key] = !state[key]; by(id).setAttribute("aria-pressed", String(state[key])); overlay(shown); },
  }, label);
  const parts = [];
  if (shown.defects.length) parts.push(toggle("defects", "Defects", "showsDefects", "box"));
  if (shown.evidence.length) parts.push(toggle("patches", "Patches", "showsPatches", "patch"));
  if (shown.evidence.length > 1) {
    const select = make("select", { "aria-label": "Whose patches and attention" }, ...shown.evidence.map((one, place) =>
      make("option", { value: place, selected: one === state.evidence && "" }, nameOf(one))));
    select.addEventListener("change", () => { state.evidence = shown.evidence[select.value]; state.fact = null; drawEvidence(shown); });
    parts.push(select);
  }
  return make("div", { class: "tools" }, ...parts);
}

const nameOf = (one) => `${index.models[one.model]}, ${index.inputs[one.input]}`;
const digits = (number, places = 2) => (number === null ? "–" : number.toFixed(places));

function drawEvidence(shown) {
  const place = by("evidence");
  place.replaceChildren();
  const evidence = state.evidence;
  if (evidence?.patches.length) {
    const shownOf = evidence.attended > evidence.patches.length ? `; shown are the ${evidence.patches.length} with most attention` : "";
    const heading = evidence.selected
      ? "Most distinct patches, with their similarity to the reference"
      : `No reference, so no patch is selected: the facts attend to all ${evidence.attended.toLocaleString("en")}${shownOf}`;
    place.append(make("h4", {}, `${heading} (${nameOf(evidence)})`),
      make("ol", { class: "patches", hidden: !evidence.selected && "" }, ...evidence.patches.map((patch, rank) => {
        const button = make("button", { type: "button" }, `${rank + 1}: ${digits(patch.similarity)}`);
        for (const [event, lit] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) {
          button.addEventListener(event, () => by("stage").querySelectorAll("rect.patch")[rank]?.classList.toggle("lit", lit));
        }
        return make("li", {}, button);
      })));
  }
  if (evidence?.facts.length) place.append(make("h4", {}, "Facts; press one to see its attention over the patches"), attended(shown));
  else if (shown.facts.length) {
    place.append(make("h4", {}, `Facts, by ${shown.facts_by}`),
      make("ul", { class: "facts" }, ...shown.facts.map((text) => make("li", { class: "plain" }, text))));
  }
  overlay(shown);
}

function attended(shown) {
  const most = Math.max(...state.evidence.facts.flatMap((fact) => fact.attention), 1e-9);
  return make("ol", { class: "facts" }, ...state.evidence.facts.map((fact, number) => {
    const bars = fact.attention.map((share) => make("i", { style: `height: ${(100 * share / most).toFixed(1)}%` }));
    const button = make("button", { type: "button", "data-fact": number, "aria-pressed": "false", onclick: () => choose(shown, number) },
      make("span", {}, fact.text), make("span", { class: "spark", "aria-hidden": "true" }, ...bars));
    return make("li", {}, button);
  }));
}

function choose(shown, number) {
  state.fact = state.fact === number ? null : number;
  if (state.fact !== null && !state.showsPatches) by("patches").click();
  document.querySelectorAll("[data-fact]").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.fact) === state.fact)));
  overlay(shown);
}

function overlay(shown) {
  const stage = by("stage");
  stage.querySelectorAll("svg, .value").forEach((old) => old.remove());
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 1 1");
  drawing.setAttribute("preserveAspectRatio", "none");
  const labels = [];
  const add = ([x1, y1, x2, y2], kind, opacity) => {
    const box = document.createElementNS(SVG, "rect");
    Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: kind, "fill-opacity": opacity })
      .forEach(([name, number]) => box.setAttribute(name, number));
    drawing.append(box);
  };
  if (state.evidence && state.showsPatches) {
    const attention = state.fact === null ? null : state.evidence.facts[state.fact].attention;
    const most = attention === null ? 1 : Math.max(...attention, 1e-9);
    state.evidence.patches.forEach(({ box, similarity }, rank) => {
      add(box, "patch", attention === null ? 0.12 : (0.85 * attention[rank]) / most);
      const text = attention === null ? digits(similarity) : `${Math.round(100 * attention[rank])}%`;
      // Where patches are smaller than their number, the list below has it.
      if ((box[2] - box[0]) * stage.clientWidth < 34 || text === "–") return;
      labels.push(make("span", { class: "value", style: `left: ${50 * (box[0] + box[2])}%; top: ${50 * (box[1] + box[3])}%` }, text));
    });
  }
  if (state.showsDefects) shown.defects.forEach((defect) => add(defect.box, "defect", 0));
  stage.append(drawing, ...labels);
}

function replies(question) {
  const input = Number(value("input"));
  const own = question.replies.filter((reply) => reply.input === input).sort((a, b) => a.model - b.model);
  const others = question.replies.filter((reply) => reply.input !== input);
  const parts = [make("h4", {}, `Replies, ${index.inputs[input]}`), make("div", { class: "replies" }, ...own.map((reply) => card(reply, false)))];
  if (others.length) {
    parts.push(make("details", { class: "more" }, make("summary", {}, `${others.length} replies to other inputs`),
      make("div", { class: "replies" }, ...others.map((reply) => card(reply, true)))));
  }
  return parts;
}

function card(reply, isOther) {
  const [sign, words] = MARKS[reply.outcome];
  const edge = { r: "good", w: "bad", u: "bad", o: "soft" }[reply.outcome];
  const name = isOther ? nameOf(reply) : index.models[reply.model];
  return make("div", { class: "reply", style: `--edge: var(--${edge})` },
    make("div", {}, make("b", {}, name), " ", make("span", { class: reply.outcome }, `${sign} ${words}`),
      reply.yes === null ? null : make("small", {}, ` yes with ${Math.round(100 * reply.yes)}%`)),
    make("p", {}, reply.text || "(nothing)"),
    ...reply.judged.map((one) => make("p", { class: "rationale" }, `${one.judge}: `, scores(one.scores), one.rationale ? ` – ${one.rationale}` : "")));
}

function scores(found) {
  return make("small", {}, found.map((score, place) => `${CRITERIA[place]} ${score}`).join(" · "));
}

// --- keyboard and buttons

const step = (by_) => {
  const place = state.at + by_;
  if (place >= 0 && place < state.matches.length) show(place);
};
const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  d: () => by("defects")?.click(),
  p: () => by("patches")?.click(),
  Escape: () => { if (state.fact !== null) document.querySelector(`[data-fact="${state.fact}"]`).click(); },
  "?": () => by("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || by("help").open || event.target.closest("select, .scroll")) return;
  const fact = document.querySelector(`[data-fact="${Number(event.key) - 1}"]`);
  const action = /^[1-9]$/.test(event.key) ? fact && (() => fact.click()) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); action(); }
});
FILTERS.forEach((name) => by(name).addEventListener("change", filter));
document.querySelector(".filters").addEventListener("reset", () => setTimeout(filter));
by("previous").addEventListener("click", () => step(-1));
by("next").addEventListener("click", () => step(1));
by("help-button").addEventListener("click", () => by("help").showModal());
filter();
document.documentElement.dataset.ready = "true";
