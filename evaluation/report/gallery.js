
"use strict";
// Every sample is a number; what the filters need of it stands in the page, the rest comes from report/samples-*.js.
const PAGE = 6, KEPT = 60;                  // samples shown at once; files of samples that are kept in memory
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const { outcomes, verdicts } = gallery, count = gallery.id.length;
const value = new Map([...gallery.letters].map((letter, i) => [letter, i]));
const outcome = (system, i) => outcomes[value.get(gallery.codes[system][i]) & 3];
const verdict = (system, i) => verdicts[value.get(gallery.codes[system][i]) >> 2 & 3];
const edit = (system, i) => ["not known", "right", "wrong"][value.get(gallery.codes[system][i]) >> 4];
const DIFFERENCES = ["gained: only the system is right", "lost: only the other one is right", "both right", "both wrong"];

// ---- filters: each is a select whose values are numbers or words; an empty value lets all pass

function choices(id, first, entries) {      // entries: [value, text]
  for (const [key, text] of [["", first], ...entries]) {
    const option = make("option", text);
    option.value = key;
    at(id).append(option);
  }
}
const numbered = names => names.map((name, i) => [i, name]), words = names => names.map(name => [name, name]);
choices("task", "all", numbered(gallery.tasks));
choices("category", "all", numbered(gallery.categories));
choices("repeat", "all", [...new Set(gallery.repeat)].sort((a, b) => a - b).map(n => [n, String(n + 1)]));
choices("system", "any", numbered(systems));
choices("outcome", "any", words(outcomes.filter(name => name !== "none")));
choices("verdict", "any", words(verdicts.filter(name => name !== "none")));
choices("edit", "any", words(["right", "wrong"]));
choices("other", "none", numbered(systems));
choices("difference", "any", DIFFERENCES.map((text, i) => [i, text]));
const SELECTS = ["task", "category", "repeat", "system", "outcome", "verdict", "edit", "other", "difference"];
for (const [id, needed] of [["category", gallery.categories.length], ["repeat", new Set(gallery.repeat).size > 1]])
  if (!needed) at(id).parentElement.hidden = true;

const chosen = id => at(id).value === "" ? null : Number(at(id).value);
function difference(one, other, i) {        // which of DIFFERENCES; null where one of the two has no score
  const pair = [outcome(one, i), outcome(other, i)];
  if (pair.some(each => each !== "right" && each !== "wrong")) return null;
  return pair[0] === "right" ? (pair[1] === "right" ? 2 : 0) : pair[1] === "right" ? 1 : 3;
}
const compared = () => {
  const pair = [chosen("system"), chosen("other")];
  return pair.includes(null) || pair[0] === pair[1] ? null : pair;
};
function filtered() {                       // the samples that pass, and how the two compared systems differ on them
  const [task, category, repeat, system, wanted] = ["task", "category", "repeat", "system", "difference"].map(chosen);
  const [result, said, drawn] = ["outcome", "verdict", "edit"].map(id => at(id).value);
  const text = at("search").value.toLowerCase(), pair = compared(), sums = [0, 0, 0, 0], found = [];
  const looked = system === null ? systems.map((_, i) => i) : [system];
  for (let i = 0; i < count; i++) {
    if (task !== null && gallery.task[i] !== task || category !== null && gallery.category[i] !== category ||
        repeat !== null && gallery.repeat[i] !== repeat || text && !gallery.id[i].toLowerCase().includes(text)) continue;
    if (!looked.some(s => (!result || outcome(s, i) === result) && (!said || verdict(s, i) === said) &&
                          (!drawn || edit(s, i) === drawn))) continue;
    const effect = pair ? difference(...pair, i) : null;
    if (effect !== null) sums[effect]++;
    if (pair && wanted !== null && effect !== wanted) continue;
    found.push(i);
  }
  return { found, sums };
}

// ---- details: files of samples, loaded as scripts, which works for a page that is opened as a file too

const kept = new Map(), waiting = new Map();
window.etchrSamples = (number, text) => {   // what every such file calls
  kept.set(number, JSON.parse(text));
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
};
function load(number) {
  if (kept.has(number)) return Promise.resolve(kept.get(number));
  if (!waiting.has(number)) waiting.set(number, new Promise(done => {
    const script = make("script");
    script.src = `report/samples-${String(number).padStart(3, "0")}.js`;
    script.onload = script.onerror = () => { script.remove(); waiting.delete(number); done(kept.get(number)); };
    document.head.append(script);
  }));
  return waiting.get(number);
}
async function sample(i) {
  const number = Math.floor(i / gallery.chunk), items = await load(number), item = items && items[i % gallery.chunk];
  if (!items) return make("div", `report/samples-${String(number).padStart(3, "0")}.js is missing; it belongs beside this page`, "sample warning");
  if (!item || item.id !== gallery.id[i] || item.repeat !== gallery.repeat[i])
    return make("div", "this page is older than the samples beside it; load it again", "sample warning");
  return card(item, i);
}

// ---- one sample

function picture(links, title) {            // links: what is shown, and the larger picture if there is one
  const anchor = make("a"), image = make("img");
  anchor.href = links[links.length - 1];
  anchor.target = "_blank";
  anchor.rel = "noopener";
  image.loading = "lazy";
  image.alt = title;
  image.onload = () => { if (image.naturalWidth <= 128) image.className = "pixels"; };
  image.src = links[0];
  anchor.append(image);
  return anchor;
}
function pane(title, links, lines) {        // lines: [text, class]
  const out = make("div", null, "pane");
  if (links) out.append(picture(links, title));
  out.append(make("b", title));
  for (const [text, name] of lines || []) if (text) out.append(make("div", text, name || "text"));
  return out;
}
function steps(entries, describe) {         // attempts or turns, small
  const out = make("div");
  for (const entry of entries) {
    const step = make("div", null, entry.image ? "small" : "text");
    if (entry.image) step.append(picture(entry.image, describe(entry)));
    step.append(describe(entry));
    step.title = entry.prompt || entry.text || "";
    out.append(step);
  }
  return out;
}
const right = (known, text) => known === null || known === undefined ? [] : [[`${text} ${known ? "right" : "wrong"}`, known ? "right" : "wrong"]];
function runPane(name, run) {
  const state = run.unscored !== null ? "unscored" : run.correct ? "right" : "wrong";
  const drawn = !run.verdict && run.turns && run.turns.some(turn => turn.image);
  const from = run.used_edit ? "from the edit" : drawn ? "from its turns" : "from the source";
  const out = pane(name, run.image, [
    [state === "unscored" ? `unscored: ${run.unscored}` : `${run.answer === null ? "no answer" : run.answer}: ${state}, ${from}`, state],
    ...right(run.matches, "edit"), ...right(run.edit_judged, "edit judge: edit"),
    ...Object.entries(run.parts).map(([rule, fine]) => [`by ${rule}: ${fine ? "right" : "wrong"}`]),
    [run.routed && `routed to ${run.routed.family || "no family"} (${run.routed.confidence.toFixed(2)})`],
    [run.prompt && `prompt: ${run.prompt}`],
    [run.verdict && `${run.verdict}: ${run.verdict_text}`],
    [run.answer_text && `“${run.answer_text}”`],
    [run.judged && `judge: ${run.judged}`],
  ]);
  if (run.attempts) out.append(make("b", "attempts"), steps(run.attempts, a => `${a.verdict} (${a.score.toFixed(2)})`));
  if (run.turns) out.append(make("b", "turns"), steps(run.turns, turn => turn.text ? `${turn.role}: ${turn.text}` : turn.role));
  out.append(make("div", Object.entries(run.seconds).map(([step, s]) => `${step} ${s.toFixed(2)} s`).join(", "), "text"));
  return out;
}
function card(item, i) {
  const out = make("div", null, "sample"), row = make("div", null, "row");
  out.append(make("div", item.question, "question"));
  item.choices.forEach((choice, k) => out.append(make("div", `${LETTERS[k]}. ${choice}`, "soft")));
  const more = [item.category, item.path_length === null ? null : `path of ${item.path_length}`,
                item.repeat ? `try ${item.repeat + 1}` : null].filter(Boolean).map(text => `, ${text}`).join("");
  const link = make("a", `#${i + 1}`);
  link.href = `#sample=${i}`;
  const about = make("div", `answer: ${item.truth} · ${gallery.tasks[gallery.task[i]]}${more}: ${item.id} · `, "soft");
  about.append(link);
  out.append(about);
  item.sources.forEach((links, k) => row.append(pane(item.sources.length > 1 ? `image ${k + 1}` : "source", links)));
  if (item.target) row.append(pane("ground-truth edit", item.target));
  const wanted = at("only").checked ? [chosen("system"), chosen("other")].filter(s => s !== null) : [];
  systems.forEach((name, s) => {
    if (item.runs[s] && (!wanted.length || wanted.includes(s))) row.append(runPane(name, item.runs[s]));
  });
  out.append(row);
  return out;
}

// ---- pages of samples

let first = 0, found = [], turn = 0;
async function draw() {
  const mine = ++turn;
  first = Math.max(0, Math.min(first, Math.floor((found.length - 1) / PAGE) * PAGE));
  at("where").textContent = found.length ? `${first + 1} to ${Math.min(first + PAGE, found.length)} of ${found.length}` : "none";
  at("previous").disabled = first === 0;
  at("next").disabled = first + PAGE >= found.length;
  const cards = await Promise.all(found.slice(first, first + PAGE).map(sample));
  if (mine === turn) at("gallery").replaceChildren(...cards);  // unless the page was turned meanwhile
}
function filter() {
  const pair = compared(), result = filtered();
  at("difference").disabled = !pair;
  at("counts").textContent = pair
    ? `${systems[pair[0]]} against ${systems[pair[1]]}, of the samples that pass the other filters: gained ${result.sums[0]}, ` +
      `lost ${result.sums[1]}, both right ${result.sums[2]}, both wrong ${result.sums[3]}.` : "";
  found = result.found;
  first = 0;
  return draw();
}
function jump() {                           // report.html#sample=12 shows that one, whatever the filters
  const asked = /^#sample=(\d+)$/.exec(location.hash);
  if (!asked || Number(asked[1]) >= count) return false;
  found = [Number(asked[1])];
  first = 0;
  at("samples").scrollIntoView();
  draw();
  return true;
}
function reset() {
  for (const id of [...SELECTS, "search"]) at(id).value = "";
  at("only").checked = false;
  filter();
}
const move = step => { first += step * PAGE; draw(); };
const press = { ArrowRight: () => at("next").disabled || move(1), ArrowLeft: () => at("previous").disabled || move(-1),
                Home: () => { first = 0; draw(); }, End: () => { first = found.length; draw(); },
                "/": () => at("search").focus(), "0": reset };
["g", "l", "b", "n"].forEach((key, i) => {
  press[key] = () => { if (compared()) { at("difference").value = at("difference").value === String(i) ? "" : i; filter(); } };
});
addEventListener("keydown", event => {
  if (["SELECT", "INPUT"].includes(event.target.tagName)) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(press, event.key)) return;
  event.preventDefault();
  press[event.key]();
});
addEventListener("hashchange", jump);
at("previous").onclick = () => move(-1);
at("next").onclick = () => move(1);
at("reset").onclick = reset;
at("search").oninput = filter;
for (const id of SELECTS) at(id).onchange = filter;
at("only").onchange = draw;
at("shown").textContent = `${count} samples` + (new Set(gallery.repeat).size > 1 ? ", each try by itself" : "") +
  ". Filters on outcome, verdict and edit ask for one system, or any, that fits all of them. Keys: ← and → turn the page, " +
  "Home and End, / searches ids, 0 shows all; with two systems chosen g, l, b, n: gained, lost, both right, neither.";
if (!jump()) filter();
