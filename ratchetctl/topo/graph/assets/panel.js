// What stands around the drawing: counts, legend, search, the panel of a node or a link, the hint under the pointer.

const NUMBERS = new Intl.NumberFormat("en");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") element.addEventListener("click", value);
    else if (name === "colour") element.style.backgroundColor = value;
    else if (value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const word = (state) => state === "up" ? state : looks.states[state].words;
const plural = (count, word) => `${NUMBERS.format(count)} ${word}${count === 1 ? "" : "s"}`;

function size(bytes) {
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= factor) return `${(bytes / factor).toFixed(1)} ${unit}`;
  }
  return `${Math.round(bytes)} B`;
}

// Counts and legend -----------------------------------------------------------------------------------------------------

function tally(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function showCounts() {
  const pods = nodes.filter((node) => node.role !== "outside").length;
  byId("name").textContent = drawing.name;
  byId("name").title = drawing.name;
  const states = tally(now.links.map((link) => link[1]));
  const told = now.is_live ? ["up", "waiting", "down", "error", "fault", "unknown"].filter((one) => states.get(one))
    .map((one) => `${NUMBERS.format(states.get(one))} ${word(one).replace("up, ", "")}`) : [];
  byId("counts").textContent = `${plural(pods, "node")}, ${plural(links.length, "link")}` +
    (told.length ? `: ${told.join(", ")}` : "");
  byId("counts").title = byId("counts").textContent;
  const live = byId("live");
  const at = new Date(now.at * 1000);
  live.className = lost || now.trouble ? "lost" : drawing.is_served ? "on" : "";
  live.textContent = lost ? `no answer since ${new Date(lost).toLocaleTimeString()}`
    : now.trouble ? now.trouble
    : drawing.is_served ? "live"
    : now.is_live ? `as it was on ${at.toLocaleDateString()}, ${at.toLocaleTimeString()}` : "";
}

function focusOn(what, name) {
  focus = focus?.what === what && focus.name === name ? null : {what, name};
  showLegend();
  redraw();
}

function sample(stroke, dashes) {
  const strip = make("canvas", {width: 56, height: 16});
  strip.style.width = "28px";
  strip.style.height = "8px";
  const brush = strip.getContext("2d");
  brush.scale(2, 2);
  brush.strokeStyle = stroke[tone()];
  brush.lineWidth = stroke.width;
  brush.setLineDash(dashes);
  brush.beginPath();
  brush.moveTo(0, 4);
  brush.lineTo(28, 4);
  brush.stroke();
  return strip;
}

let shownLegend = "";

function showLegend() {
  const machines = tally(nodes.map((_, node) => now.machines[machineOf(node)]));
  const kinds = tally(now.links.map((link) => link[0]));
  const states = tally(now.is_live ? now.links.map((link) => link[1]) : []);
  const wanted = JSON.stringify([[...machines], [...kinds], [...states], focus, tone(), now.colours]);
  if (wanted === shownLegend) return;
  shownLegend = wanted;
  const parts = [];
  const entry = (what, name, sign, words, count) => make("button", {type: "button", title: words,
    "aria-pressed": String(focus?.what === what && focus.name === name), on: () => focusOn(what, name)},
    sign, make("span", {class: "words"}, words), make("span", {class: "count"}, NUMBERS.format(count)));
  if (now.machines.length) {
    parts.push(make("h2", {}, "Machines"));
    now.machines.forEach((name, number) => parts.push(entry("machine", name,
      make("span", {class: "dot", colour: now.colours[number]}), name, machines.get(name) ?? 0)));
  }
  if (links.length) parts.push(make("h2", {}, "Links"));
  for (const [kind, stroke] of Object.entries(looks.strokes)) {
    const words = kind === "cable" && now.is_live ? looks.not_wired : stroke.words;
    if (kinds.has(kind)) parts.push(entry("kind", kind, sample(stroke, stroke.dashes), words, kinds.get(kind)));
  }
  for (const [state, stroke] of Object.entries(looks.states)) {
    if (states.has(state)) parts.push(entry("state", state, sample(stroke, []), stroke.words, states.get(state)));
  }
  byId("legend").replaceChildren(...parts);
  byId("legend").hidden = !parts.length;
}

// The panel -------------------------------------------------------------------------------------------------------------

function select(one) {
  selected = one;
  shownPanel = "";
  showPanel();
  redraw();
}

function facts(pairs) {
  const list = make("dl");
  for (const [name, ...values] of pairs) {
    if (values.some((value) => value != null && value !== "")) list.append(make("dt", {}, name), make("dd", {}, ...values));
  }
  return list;
}

const how = (link) => {
  const [kind, , vni] = now.links[link];
  return [kind === "cable" ? null : kind, kind === "vxlan" ? vni : null].filter((one) => one != null && one !== "").join(" ");
};

function traffic(link, end) {
  const seen = now.links[link][3][end];
  if (!seen || seen[2] == null) return null;
  const told = [[2, 3, "received"], [4, 5, "sent"]].map(([bytes, packets, word]) => {
    const speed = rate(link, end, bytes);
    return `${word} ${size(seen[bytes])} in ${plural(seen[packets], "packet")}` + (speed == null ? "" : ` (${size(speed)}/s)`);
  });
  return make("div", {class: "fine"}, ...told.map((one) => make("div", {}, one)));
}

function stateTag(link) {
  const state = now.links[link][1];
  return now.is_live ? make("span", {class: `state ${state}`}, word(state)) : null;
}

// Why a link is not up, as its two ends say; a reason that both have is told once.
function reasons(link) {
  const found = [...new Set(now.links[link][3].map((end) => end?.[1]).filter(Boolean))];
  return found.map((reason) => make("p", {class: "reason"}, reason));
}

function nodeButton(node) {
  return make("button", {type: "button", class: "far", title: nodes[node].title,
    on: () => { select({what: "node", number: node}); goTo(node); }}, nodes[node].title);
}

const urgency = (state) => !now.is_live ? "" : ["waiting", "fault"].includes(state) ? "warn" : ["down", "error"].includes(state) ? "bad" : "";

const kindWords = (node) => node.role === "outside" ? "outside of the pods" : node.kind;

function linkCard(link, node, side) {
  const own = links[link].ends[side], far = links[link].ends[1 - side];
  const farNode = side === 0 ? links[link].b : links[link].a;
  const fine = [own.address, how(link), links[link].mtu && `MTU ${links[link].mtu}`, own.does].filter(Boolean).join(", ");
  return make("div", {class: `card ${urgency(now.links[link][1])}`},
    make("div", {class: "row"}, make("span", {class: "ifname"}, own.ifname), "to", nodeButton(farNode),
      far ? make("span", {class: "fine"}, far.ifname) : null, stateTag(link)),
    fine ? make("div", {class: "fine"}, fine) : null, ...reasons(link), traffic(link, side));
}

function nodePanel(number) {
  const node = nodes[number];
  const [machine, , addresses, reason] = now.nodes[number];
  const own = linksOf[number].flatMap((link) => [links[link].a, links[link].b]
    .flatMap((end, side) => end === number && links[link].ends[side] ? [[link, side]] : []));
    return [
    make("h2", {}, node.title),
    make("p", {class: "of"}, [kindWords(node), node.image].filter(Boolean).join(", ")),
    reason ? make("p", {class: "reason"}, reason) : isAbsent(number) ? make("p", {class: "reason"}, "The pod is not there.") : null,
    facts([
      ["pod", node.title === node.name || node.role === "outside" ? null : node.name],
      machine < 0 ? ["machine"] : ["machine", make("span", {class: "dot", colour: colourOf(number)}), now.machines[machine]],
      ["address", addresses.join(", ")], ["loopback", node.loopbacks.join(", ")],
    ]),
    own.length ? make("h3", {}, plural(own.length, "link")) : null,
    ...own.map(([link, side]) => linkCard(link, number, side)),
  ];
}

function linkPanel(number) {
  const link = links[number];
  const ends = [link.a, link.b].map((node, side) => {
    const end = link.ends[side], seen = now.links[number][3][side];
    return make("div", {class: `card ${seen ? urgency(seen[0]) : ""}`},
      make("div", {class: "row"}, nodeButton(node), end ? make("span", {class: "ifname"}, end.ifname) : null,
        seen && now.is_live ? make("span", {class: `state ${seen[0]}`}, word(seen[0])) : null),
      end ? make("div", {class: "fine"}, [end.address, end.mac, end.does].filter(Boolean).join(", ")) : null,
      seen?.[1] ? make("p", {class: "reason"}, seen[1]) : null, end ? traffic(number, side) : null);
  });
  return [
    make("h2", {}, `${nodes[link.a].title} – ${nodes[link.b].title}`),
    make("p", {class: "of row"}, [how(number) || "link", link.mtu && `MTU ${link.mtu}`].filter(Boolean).join(", "), stateOf(number)),
    make("h3", {}, "Ends"), ...ends,
  ];
}

let shownPanel = "";

function showPanel() {
  const panel = byId("panel");
  panel.hidden = !selected;
  if (!selected) return;
  const parts = (selected.what === "node" ? nodePanel : linkPanel)(selected.number).filter(Boolean);
  const content = make("div", {}, ...parts);
  if (content.textContent === shownPanel) return;  // what is read is not pulled away
  shownPanel = content.textContent;
  const top = panel.scrollTop;
  panel.replaceChildren(make("button", {type: "button", class: "close", "aria-label": "Close", on: () => select(null)}, "×"),
    ...parts);
  panel.scrollTop = top;
}

// The hint under the pointer ----------------------------------------------------------------------------------------------

function hint({what, number}, x, y) {
  const box = byId("hint");
  let parts;
  if (what === "node") {
    const node = nodes[number];
    const ill = linksOf[number].filter((link) => stateOf(link) !== "up").length;
    const machine = machineOf(number) < 0 ? null : `on ${now.machines[machineOf(number)]}`;
    parts = [make("b", {}, node.title), make("span", {}, [kindWords(node), machine].filter(Boolean).join(", ")),
      make("span", {}, plural(linksOf[number].length, "link") + (ill ? `, ${ill} not up` : ""))];
  } else {
    const link = links[number];
    const ends = [link.a, link.b].map((node, side) => [nodes[node].title, link.ends[side]?.ifname].filter(Boolean).join(" "));
    const told = [how(number), now.is_live ? word(stateOf(number)) : null].filter(Boolean).join(", ");
    parts = [make("b", {}, ends.join(" – ")), told ? make("span", {}, told) : null, ...reasons(number)].filter(Boolean);
  }
  box.replaceChildren(...parts);
  box.hidden = false;
  box.style.left = `${Math.max(8, Math.min(x + 16, wide - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.max(8, Math.min(y + 16, high - box.offsetHeight - 8))}px`;
}

canvas.addEventListener("pointermove", (event) => {
  if (event.buttons) return;
  const hit = at(event.offsetX, event.offsetY);
  if (hit) hint(hit, event.offsetX, event.offsetY);
  else byId("hint").hidden = true;
  if (same(hit, hovered)) return;
  hovered = hit;
  canvas.style.cursor = hit ? "pointer" : "";
  redraw();
});
canvas.addEventListener("pointerleave", () => {
  byId("hint").hidden = true;
  hovered = null;
  redraw();
});
canvas.addEventListener("click", (event) => {
  byId("results").hidden = true;
  select(at(event.offsetX, event.offsetY));
  if (selected?.what === "node") uncover(selected.number);
});

// Search ------------------------------------------------------------------------------------------------------------------

const MOST_FOUND = 30;
const texts = nodes.map((node, number) => [node.title, node.name, node.kind, ...node.loopbacks,
  ...links.flatMap((link) => [link.a, link.b].flatMap((end, side) => end === number && link.ends[side] ? [link.ends[side].address] : []))]
  .filter(Boolean).map((text) => text.toLowerCase()));

// Names that begin with it first, then those that have it, then what has it elsewhere.
function find(query) {
  const ranked = [];
  texts.forEach((own, number) => {
    const all = [...own, ...now.nodes[number][2], now.machines[machineOf(number)] ?? ""];
    const hit = all.find((text) => text.toLowerCase().includes(query));
    if (hit === undefined) return;
    const title = own[0];
    ranked.push([title === query ? 0 : title.startsWith(query) ? 1 : title.includes(query) ? 2 : 3, number,
      title.includes(query) ? null : hit]);
  });
  return ranked.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
}

function search() {
  const query = byId("query").value.trim().toLowerCase();
  const results = byId("results");
  const hits = query ? find(query) : [];
  found = new Set(hits.map(([, number]) => number));
  redraw();
  results.hidden = !query;
  results.replaceChildren(...hits.slice(0, MOST_FOUND).map(([, number, hit]) => make("li", {},
    make("button", {type: "button", on: () => choose(number)}, make("span", {class: "dot", colour: colourOf(number)}),
      nodes[number].title, make("span", {class: "what"}, hit ?? nodes[number].kind)))));
  if (query && !hits.length) results.append(make("li", {}, make("p", {}, "Nothing has this name or address.")));
  if (hits.length > MOST_FOUND) results.append(make("li", {}, make("p", {}, `and ${plural(hits.length - MOST_FOUND, "other")}`)));
}

function choose(number) {
  byId("results").hidden = true;
  select({what: "node", number});
  goTo(number);
}

byId("query").addEventListener("input", search);
byId("query").addEventListener("focus", search);
byId("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter") byId("results").querySelector("button")?.click();
  if (event.key === "ArrowDown") byId("results").querySelector("button")?.focus();
});
byId("results").addEventListener("keydown", (event) => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...byId("results").querySelectorAll("button")];
  (buttons[buttons.indexOf(document.activeElement) + step] ?? byId("query")).focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    byId("query").value = "";
    search();
    byId("query").blur();
    select(null);
    if (focus) focusOn(focus.what, focus.name);
  }
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {"/": () => byId("query").focus(), "+": () => zoomBy(1.3), "-": () => zoomBy(1 / 1.3), 0: () => fit(calmly())}[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
byId("in").addEventListener("click", () => zoomBy(1.3));
byId("out").addEventListener("click", () => zoomBy(1 / 1.3));
byId("fit").addEventListener("click", () => fit(calmly()));

// What is heard while the page is served ------------------------------------------------------------------------------------

let before = null, lost = 0;

const rate = (link, end, field) => {
  const then = before?.links[link]?.[3][end]?.[field], value = now.links[link][3][end]?.[field];
  const seconds = before ? now.at - before.at : 0;
  return then == null || value == null || seconds <= 0 || value < then ? null : (value - then) / seconds;
};

function hear(next) {
  before = now;
  now = next;
  showLegend();
  showPanel();
  redraw();
}

async function listen() {
  for (;;) {
    await new Promise((done) => setTimeout(done, document.hidden ? 5 * drawing.poll_ms : drawing.poll_ms));
    try {
      const answer = await fetch("state.json", {cache: "no-store", signal: AbortSignal.timeout(10000)});
      if (!answer.ok) throw new Error(answer.statusText);
      const next = await answer.json();
      // Served anew, of another topology: what is drawn here is no longer what it tells of.
      if (next.nodes.length !== nodes.length || next.links.length !== links.length) return location.reload();
      lost = 0;
      if (next.at !== now.at) hear(next);
    } catch {
      lost = lost || Date.now();
    }
    showCounts();
  }
}

// Begin -------------------------------------------------------------------------------------------------------------------

byId("theme").addEventListener("click", () => {
  chosen = tone() === "dark" ? "light" : "dark";
  try { localStorage.setItem("ratchet-theme", chosen); } catch { /* then for this time only */ }
  repaint();
  showLegend();
});
prefersDark.addEventListener("change", () => { repaint(); showLegend(); });
addEventListener("resize", () => { resize(); fit(); redraw(); });
resize();
repaint();
showCounts();
showLegend();
fit();
// For whoever looks at the page by a script: where a node is on the screen, and when the first picture was there.
globalThis.ratchet = {
  ready: 0, now: () => now, view: () => view,
  place: (title) => {
    const node = nodes.find((one) => one.title === title), box = canvas.getBoundingClientRect();
    return {x: box.x + screenX(node.x), y: box.y + screenY(node.y)};
  },
};
requestAnimationFrame(() => requestAnimationFrame(() => { globalThis.ratchet.ready = performance.now(); }));
if (drawing.is_served) listen();
