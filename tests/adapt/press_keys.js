// Runs the script of a labelling page against the least of a browser: prints the CSV file after some keys.
"use strict";
const fs = require("fs");
const [, , path, keys] = process.argv;
const script = fs.readFileSync(path, "utf8").match(/<script>([\s\S]*)<\/script>/)[1];
class Element {
  constructor(tag) {
    Object.assign(this, { tagName: tag.toUpperCase(), children: [], value: "", textContent: "", classList: { toggle() {} } });
  }
  append(...added) { this.children.push(...added); }
  replaceChildren(...added) { this.children = added; }
  setAttribute() {}
  addEventListener() {}
  focus() { document.activeElement = this; }
  blur() { document.activeElement = null; }
}
const found = {}, kept = {};
global.document = {
  activeElement: null,
  getElementById: (id) => (found[id] ??= new Element("input")),
  createElement: (tag) => new Element(tag),
  addEventListener(kind, act) { this[kind] = act; },
};
global.localStorage = { getItem: (key) => kept[key] ?? null, setItem: (key, value) => { kept[key] = value; } };
const page = new Function(script + "; return { csvText };")();
for (const key of JSON.parse(keys)) {
  if (key.startsWith("filter:")) { found.filter.value = key.slice(7); found.filter.focus(); }
  else document.keydown({ key, preventDefault() {} });
}
process.stdout.write(page.csvText());
