
"use strict";
const { report, sections, bars, run, gallery, sheet } = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#8a93a3", "#2f7ed8", "#e08a1e", "#8e5bd0", "#2a9d6f", "#c94f6d", "#4aa3b5", "#a58b2a", "#6b7f3a",
                 "#b06ab3", "#5566c9", "#c0703a"];
const systems = gallery.systems;
const at = id => document.getElementById(id);

function make(tag, text, name) {            // all text goes in as text, never as markup
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (name) element.className = name;
  return element;
}
function table(head, rows, name) {          // a cell is a text, or a text and what stands small beside it
  const out = make("table", null, name), top = out.createTHead().insertRow(), body = out.createTBody();
  for (const text of head) top.append(make("th", text));
  for (const row of rows) {
    const line = body.insertRow();
    for (const cell of row) {
      const [text, beside] = Array.isArray(cell) ? cell : [cell, ""];
      const box = line.insertCell();
      box.append(text);
      if (beside) box.append(make("small", beside));
    }
  }
  const frame = make("div", null, "scroll");
  frame.append(out);
  return frame;
}

at("run").append(
  table(["system", "what it does"], run.systems, "words"),
  table(["benchmark", "title", "samples here", "published", "right is", "licence"], run.tasks.map(
    ([name, title, count, expected, ...words]) => [name, title, String(count), expected === null ? "–" : String(expected), ...words]), "words"),
  table(["role", "model"], run.models, "words"),
  make("p", `Every sample was run ${run.repeats === 1 ? "once" : run.repeats + " times"}, at temperature ${run.temperature}.`));

if (sheet) {
  const figure = make("figure", null, "sheet"), image = make("img");
  image.src = sheet.file;
  image.alt = sheet.title;
  figure.append(image, make("figcaption", sheet.title + "."));
  at("sheet").append(figure);
}
sections.forEach((section, place) => {
  const into = at(place ? "rest" : "first");
  into.append(make(place ? "h3" : "h2", section.title));
  for (const text of section.about.split("\n\n")) if (text) into.append(make("p", text));
  for (const { head, rows } of section.tables) into.append(table(head, rows));
});

function node(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
systems.forEach((name, i) => {
  const item = make("span"), swatch = node("svg", { viewBox: "0 0 12 12" });
  swatch.append(node("rect", { width: 12, height: 12, rx: 2, fill: COLOURS[i % COLOURS.length] }));
  item.append(swatch, name);
  at("legend").append(item);
});
const show = value => value === null ? "–" : value.toFixed(1);
for (const { title, bars: values, chance } of bars) {
  const step = Math.max(22, Math.min(40, 260 / values.length)), wide = step * 0.7;
  const width = step * values.length + 34, y = percent => 110 - percent;
  const svg = node("svg", { viewBox: `0 0 ${width} 130`, role: "img", "aria-label": title });
  const line = (x1, x2, from, to, more) => svg.append(node("line", { x1, x2, y1: y(from), y2: y(to), stroke: "currentColor", ...more }));
  for (const tick of [0, 50, 100]) {
    line(26, width, tick, tick, { opacity: .15 });
    svg.append(node("text", { x: 22, y: y(tick) + 3, "font-size": 9, "text-anchor": "end", fill: "currentColor" }, tick));
  }
  values.forEach((value, i) => {
    if (value.value === null) return;
    const x = 30 + step * i, middle = x + wide / 2;
    const bar = node("rect", { x, width: wide, y: y(value.value), height: Math.max(value.value, .5),
                               fill: COLOURS[i % COLOURS.length], rx: 2 });
    bar.append(node("title", {}, `${systems[i]}: ${show(value.value)} (${show(value.low)} to ${show(value.high)})`));
    svg.append(bar);
    line(middle, middle, value.low, value.high, { "stroke-width": 1.4 });
    for (const end of [value.low, value.high]) line(middle - 4, middle + 4, end, end, { "stroke-width": 1.4 });
    svg.append(node("text", { x: middle, y: 122, "font-size": 8, "text-anchor": "middle", fill: "currentColor" }, show(value.value)));
  });
  if (chance) line(26, width, chance, chance, { "stroke-dasharray": "3 3", opacity: .6 });
  const figure = make("figure");
  figure.append(make("figcaption", title), svg);
  at("bars").append(figure);
}
