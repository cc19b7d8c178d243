// The drawing on its canvas: what is where, how it looks, and what the pointer and the wheel do.
// Everything that a file or a machine has named is drawn or put into the page as text, never as markup.

const byId = (id) => document.getElementById(id);
const drawing = JSON.parse(byId("drawing").textContent);
const {looks, nodes, links} = drawing;
let now = drawing.now;

const canvas = byId("graph"), context = canvas.getContext("2d", {alpha: false});
const FONT = 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif';
const FEW = 60;          // links: of so many, all interfaces are named
const FAR = .28;         // zoom: from so far away there are neither signs nor dashes
const MOST_NAMED = 250;  // nodes: there is no screen on which more names could be read
const NEAREST = 4, FARTHEST = .03;
const CATCH = 6;         // pixels: so near to a link is on it
let view = {x: 0, y: 0, k: 1};
let wide = 1, high = 1;

let hovered = null, selected = null, focus = null;   // {what, number}, {what, name}
let found = new Set();                               // nodes that the search has found

// What is known --------------------------------------------------------------------------------------------------------

const machineOf = (node) => now.nodes[node][0];
const colourOf = (node) => nodes[node].role === "outside" ? looks.outside
  : machineOf(node) < 0 ? looks.unplaced : now.colours[machineOf(node)];
const isAbsent = (node) => now.is_live && nodes[node].role !== "outside" && !now.nodes[node][1];
const isIll = (node) => Boolean(now.nodes[node][3]);
const kindOf = (link) => now.links[link][0];
const stateOf = (link) => now.is_live ? now.links[link][1] : "up";
const same = (one, other) => one?.what === other?.what && one?.number === other?.number;

const linksOf = nodes.map(() => []);
links.forEach((link, number) => {
  linksOf[link.a].push(number);
  if (link.b !== link.a) linksOf[link.b].push(number);
});
const byDegree = nodes.map((_, number) => number).sort((a, b) => linksOf[b].length - linksOf[a].length || a - b);

// Colours ----------------------------------------------------------------------------------------------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
try { chosen = localStorage.getItem("ratchet-theme"); } catch { /* a page from a file may have no storage */ }
const tone = () => chosen === "dark" || chosen === "light" ? chosen : prefersDark.matches ? "dark" : "light";
let paint = {};

function repaint() {
  document.documentElement.dataset.theme = tone();
  const css = getComputedStyle(document.documentElement);
  paint = Object.fromEntries(["page", "ink", "pale", "accent"].map((name) => [name, css.getPropertyValue(`--${name}`).trim()]));
  const strokes = {...looks.strokes, ...looks.states};
  for (const [name, stroke] of Object.entries(strokes)) paint[`of-${name}`] = stroke[tone()];
  redraw();
}

// Where things are ---------------------------------------------------------------------------------------------------------

let tree = d3.quadtree().x((node) => nodes[node].x).y((node) => nodes[node].y).addAll(d3.range(nodes.length));
const screenX = (x) => x * view.k + view.x, screenY = (y) => y * view.k + view.y;
const radius = () => Math.max(looks.mark / 2, Math.min(4.2 / view.k, looks.mark * .7));

// A link that is not the only one between its nodes is bent towards this point.
function middle({a, b, bend}) {
  const [first, second] = [nodes[a], nodes[b]];
  const dx = second.x - first.x, dy = second.y - first.y;
  const aside = bend / (Math.hypot(dx, dy) || 1);
  return [(first.x + second.x) / 2 - dy * aside, (first.y + second.y) / 2 + dx * aside];
}

function trace(path, link) {
  const first = nodes[link.a], second = nodes[link.b];
  if (link.a === link.b) {
    const reach = looks.mark * (.7 + Math.abs(link.bend) / 50);
    path.moveTo(first.x + reach, first.y - reach);
    path.arc(first.x, first.y - reach, reach, 0, 2 * Math.PI);
    return;
  }
  path.moveTo(first.x, first.y);
  if (link.bend) path.quadraticCurveTo(...middle(link), second.x, second.y);
  else path.lineTo(second.x, second.y);
}

function away(link, x, y) {
  const {a, b, bend} = links[link];
  if (a === b) return Math.abs(Math.hypot(x - nodes[a].x, y - nodes[a].y + looks.mark * .7) - looks.mark * .7);
  const points = bend ? d3.range(0, 1.01, .125).map((t) => {
    const [mx, my] = middle(links[link]), s = 1 - t;
    return [s * s * nodes[a].x + 2 * s * t * mx + t * t * nodes[b].x, s * s * nodes[a].y + 2 * s * t * my + t * t * nodes[b].y];
  }) : [[nodes[a].x, nodes[a].y], [nodes[b].x, nodes[b].y]];
  return d3.min(d3.pairs(points), ([[x1, y1], [x2, y2]]) => {
    const dx = x2 - x1, dy = y2 - y1, length = dx * dx + dy * dy || 1;
    const t = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / length));
    return Math.hypot(x1 + t * dx - x, y1 + t * dy - y);
  });
}

function at(px, py) {
  const x = (px - view.x) / view.k, y = (py - view.y) / view.k;
  const node = tree.find(x, y, radius() + 3 / view.k);
  if (node !== undefined) return {what: "node", number: node};
  let nearest = CATCH / view.k, hit = null;
  for (let link = 0; link < links.length; link++) {
    const {a, b, bend} = links[link];
    const slack = nearest + Math.abs(bend) + (a === b ? 3 * looks.mark : 0);
    if (Math.min(nodes[a].x, nodes[b].x) - slack > x || Math.max(nodes[a].x, nodes[b].x) + slack < x
      || Math.min(nodes[a].y, nodes[b].y) - slack > y || Math.max(nodes[a].y, nodes[b].y) + slack < y) continue;
    const distance = away(link, x, y);
    if (distance < nearest) [nearest, hit] = [distance, {what: "link", number: link}];
  }
  return hit;
}

// What is seen through the legend ---------------------------------------------------------------------------------------------

function isFaint(what, number) {
  if (!focus) return false;
  const {name} = focus;
  if (focus.what === "machine") {
    const place = now.machines.indexOf(name);
    if (what === "node") return machineOf(number) !== place;
    return machineOf(links[number].a) !== place && machineOf(links[number].b) !== place;
  }
  const of = focus.what === "kind" ? kindOf : stateOf;
  return what === "link" ? of(number) !== name : !linksOf[number].some((link) => of(link) === name);
}

const isNear = (link) => [hovered, selected].some((one) => one && (one.what === "node"
  ? links[link].a === one.number || links[link].b === one.number : one.number === link));

// Drawing ---------------------------------------------------------------------------------------------------------------------

const sprites = {};
for (const [role, sign] of Object.entries(looks.signs)) {
  const sprite = sprites[role] = document.createElement("canvas");
  sprite.width = sprite.height = 96;
  const brush = sprite.getContext("2d");
  brush.scale(4, 4);
  Object.assign(brush, {strokeStyle: "#fff", lineWidth: 2, lineCap: "round", lineJoin: "round"});
  brush.stroke(new Path2D(sign));
}

let pending = false;
function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

function draw() {
  const ratio = canvas.width / wide;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.globalAlpha = 1;
  context.fillStyle = paint.page;
  context.fillRect(0, 0, wide, high);
  context.setTransform(ratio * view.k, 0, 0, ratio * view.k, ratio * view.x, ratio * view.y);
  drawLinks();
  const visible = drawNodes();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const clear = room();
  drawLabels(visible, clear);
  drawIfnames(clear);
}

// Whether what lies between two points may be in the window: a canvas takes its time for what nobody sees, too.
function windowed() {
  const margin = 2 * looks.mark;
  const left = -view.x / view.k - margin, right = (wide - view.x) / view.k + margin;
  const top = -view.y / view.k - margin, bottom = (high - view.y) / view.k + margin;
  return (x1, y1, x2, y2, slack) => Math.max(x1, x2) + slack >= left && Math.min(x1, x2) - slack <= right
    && Math.max(y1, y2) + slack >= top && Math.min(y1, y2) - slack <= bottom;
}

// Links of one look are one path: a stroke costs more than a segment of it.
function drawLinks() {
  const paths = new Map(), isSeen = windowed();
  links.forEach((link, number) => {
    const first = nodes[link.a], second = nodes[link.b], slack = Math.abs(link.bend);
    if (!isSeen(first.x, first.y, second.x, second.y, slack)) return;
    const kind = kindOf(number), state = stateOf(number);
    const look = isFaint("link", number) ? 0 : same(selected, {what: "link", number}) ? 3 : isNear(number) ? 2 : 1;
    const key = `${look} ${state === "up" ? 0 : 1} ${kind} ${state}`;
    let path = paths.get(key);
    if (!path) paths.set(key, path = new Path2D());
    trace(path, link);
  });
  for (const key of [...paths.keys()].sort()) {
    const [look, , kind, state] = key.split(" ");
    const stroke = looks.strokes[kind], trouble = looks.states[state];
    const width = (trouble ?? stroke).width * (look > 1 ? 1.6 : 1);
    context.lineWidth = Math.max(width, (trouble ? 2 : look > 1 ? 2.2 : .9) / view.k);
    context.strokeStyle = look === "3" ? paint.accent : paint[`of-${trouble ? state : kind}`];
    context.globalAlpha = look === "0" ? .1 : view.k < FAR && look === "1" && !trouble ? .6 : 1;
    const stretch = Math.max(1, .6 / view.k);
    context.setLineDash(view.k < FAR && look < "2" ? [] : stroke.dashes.map((one) => one * stretch));
    context.stroke(paths.get(key));
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function drawNodes() {
  const r = radius(), isSeen = windowed();
  const visible = [], groups = new Map();
  for (const number of byDegree) {
    const {x, y} = nodes[number];
    if (!isSeen(x, y, x, y, 0)) continue;
    visible.push(number);
    const key = `${colourOf(number)} ${isFaint("node", number) ? .1 : isAbsent(number) ? .4 : 1}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(number);
  }
  // What lies below a mark does not shine through one that is faint, and lines end before it.
  circles(visible, r + 2, (path) => { context.fillStyle = paint.page; context.fill(path); });
  for (const [key, members] of groups) {
    const [colour, alpha] = key.split(" ");
    context.globalAlpha = Number(alpha);
    circles(members, r, (path) => { context.fillStyle = colour; context.fill(path); });
    if (view.k >= FAR) {
      const size = r * 1.24;
      for (const number of members) {
        context.drawImage(sprites[nodes[number].role], nodes[number].x - size / 2, nodes[number].y - size / 2, size, size);
      }
    }
  }
  context.globalAlpha = 1;
  ring(visible.filter((number) => isAbsent(number) && !isFaint("node", number)), r, 1.5, paint.pale, [4, 3]);
  ring(visible.filter((number) => isIll(number)), r + 2, 3, paint["of-error"]);
  ring(visible.filter((number) => found.has(number)), r + 3, 3, paint.accent);
  ring([hovered, selected].filter((one) => one?.what === "node").map((one) => one.number), r + 3, 3.5, paint.accent);
  return visible;
}

function circles(members, r, done) {
  const path = new Path2D();
  for (const number of members) {
    const {x, y, role} = nodes[number];
    path.moveTo(x + r, y);
    if (role === "outside") path.roundRect(x - r, y - r * .85, 2 * r, 1.7 * r, r * .4);
    else path.arc(x, y, r, 0, 2 * Math.PI);
  }
  done(path);
}

function ring(members, r, width, colour, dashes = []) {
  if (!members.length) return;
  context.lineWidth = Math.max(width, width * .6 / view.k);
  context.strokeStyle = colour;
  context.setLineDash(dashes);
  circles(members, r, (path) => context.stroke(path));
  context.setLineDash([]);
}

function write(text, x, y, colour) {
  context.strokeStyle = paint.page;
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// Give a place on the screen to who asks first: no text is written on another.
function room() {
  const taken = new Map(), cell = 64;
  return (x1, y1, x2, y2) => {
    const cells = [];
    for (let i = Math.floor(x1 / cell); i <= Math.floor(x2 / cell); i++) {
      for (let j = Math.floor(y1 / cell); j <= Math.floor(y2 / cell); j++) {
        const key = i * 4096 + j, boxes = taken.get(key) ?? [];
        if (boxes.some(([a, b, c, d]) => x1 < c && x2 > a && y1 < d && y2 > b)) return false;
        cells.push([key, boxes]);
      }
    }
    for (const [key, boxes] of cells) {
      boxes.push([x1, y1, x2, y2]);
      taken.set(key, boxes);
    }
    return true;
  };
}

// Names keep their size however far away the drawing is: the best linked nodes have theirs first, and more appear when
// there is room for them.
function drawLabels(visible, clear) {
  const size = Math.max(11, Math.min(12 * view.k, 15)), r = radius() * view.k;
  Object.assign(context, {font: `${size}px ${FONT}`, textAlign: "center", textBaseline: "top", lineWidth: 5, lineJoin: "round"});
  const wanted = [hovered, selected].filter((one) => one?.what === "node").map((one) => one.number);
  const order = new Set([...wanted, ...visible.filter((number) => found.has(number)), ...visible]);
  // Far away names would hide the drawing: so few have one that each has room round it.
  const gap = Math.max(1, Math.min(26, (FAR - view.k) * 160));
  let left = MOST_NAMED;
  for (const number of order) {
    const node = nodes[number];
    if (isFaint("node", number) && !wanted.includes(number)) continue;
    node.width ??= measure(node.label);
    const x = screenX(node.x), y = screenY(node.y) + r + 4, half = node.width * size / 24 + 2;
    if (!clear(x - half - gap, y - gap, x + half + gap, y + size + gap)) continue;
    write(node.label, x, y, isAbsent(number) ? paint.pale : paint.ink);
    if (!--left) return;
  }
}

function measure(text) {
  const before = context.font;
  context.font = `12px ${FONT}`;
  const {width} = context.measureText(text);
  context.font = before;
  return width;
}

// Each name near its own node, or a little further where another text is.
function drawIfnames(clear) {
  Object.assign(context, {font: `10px ${FONT}`, textAlign: "center", textBaseline: "middle", lineWidth: 3, lineJoin: "round"});
  links.forEach((link, number) => {
    const isWanted = isNear(number);
    if (link.a === link.b || !(isWanted || (links.length <= FEW && view.k > .6)) || isFaint("link", number)) return;
    const towards = link.bend ? middle(link) : null;
    [link.a, link.b].forEach((own, side) => {
      if (!link.ends[side]) return;
      const [x, y] = towards ?? [nodes[side ? link.a : link.b].x, nodes[side ? link.a : link.b].y];
      const dx = x - nodes[own].x, dy = y - nodes[own].y, length = Math.hypot(dx, dy) * view.k || 1;
      const text = link.ends[side].ifname, half = text.length * 3.2 + 1;
      for (let reach = radius() * view.k + 17; reach < length * (towards ? 1 : .48); reach += 9) {
        const px = screenX(nodes[own].x + dx * reach / length), py = screenY(nodes[own].y + dy * reach / length);
        if (!clear(px - half, py - 6, px + half, py + 6)) continue;
        write(text, px, py, paint.pale);
        break;
      }
    });
  });
}

// Moving ------------------------------------------------------------------------------------------------------------------------

const zoom = d3.zoom().scaleExtent([FARTHEST, NEAREST]).clickDistance(4)
  .on("start", () => { byId("hint").hidden = true; })
  .on("zoom", (event) => { view = event.transform; redraw(); });
const drag = d3.drag().container(canvas).clickDistance(4)
  .subject((event) => {
    const hit = at(event.x, event.y);
    if (hit?.what !== "node") return undefined;  // then the whole drawing is moved
    return {number: hit.number, x: screenX(nodes[hit.number].x), y: screenY(nodes[hit.number].y)};
  })
  .on("start", () => { byId("hint").hidden = true; })
  .on("drag", (event) => {
    const node = nodes[event.subject.number];
    node.x = (event.x - view.x) / view.k;
    node.y = (event.y - view.y) / view.k;
    redraw();
  })
  .on("end", () => { tree = d3.quadtree().x((node) => nodes[node].x).y((node) => nodes[node].y).addAll(d3.range(nodes.length)); });
const moved = d3.select(canvas).call(drag).call(zoom).on("dblclick.zoom", null);

const calmly = () => matchMedia("(prefers-reduced-motion: reduce)").matches ? moved : moved.transition().duration(260);
const zoomBy = (factor) => calmly().call(zoom.scaleBy, factor);

// Beside the legend, and below the header: the drawing is not hidden by what stands on the page.
function fit(how = moved) {
  if (!nodes.length) return;
  const [x1, x2] = d3.extent(nodes, (node) => node.x), [y1, y2] = d3.extent(nodes, (node) => node.y);
  const legend = byId("legend");
  const left = !legend.hidden && wide > 900 ? legend.offsetWidth + 28 : 12;
  const room = {x: wide - left - 40, y: high - 56};
  const box = {x: x2 - x1 + 70, y: y2 - y1 + 80};
  const k = Math.min(room.x / box.x, room.y / box.y, 1.4);
  how.call(zoom.transform, d3.zoomIdentity.translate(left + room.x / 2 + 12 - k * (x1 + x2) / 2, 24 + room.y / 2 - k * ((y1 + y2) / 2 + 8)).scale(k));
}

// Have a node come out from below the panel that tells of it.
function uncover(node) {
  const panel = byId("panel"), x = screenX(nodes[node].x), y = screenY(nodes[node].y);
  const left = panel.offsetLeft - 2 * looks.mark;
  if (left < 0 || x < left || y > panel.offsetTop + panel.offsetHeight + 2 * looks.mark) return;
  calmly().call(zoom.translateBy, (left - x) / view.k, 0);
}

function goTo(node) {
  const k = Math.max(view.k, 1), {x, y} = nodes[node];
  calmly().call(zoom.transform, d3.zoomIdentity.translate(wide / 2 - k * x, high / 2 - k * y).scale(k));
}

function resize() {
  const box = canvas.parentElement.getBoundingClientRect();
  const ratio = Math.min(devicePixelRatio || 1, 2);
  [wide, high] = [box.width, box.height];
  canvas.width = Math.round(wide * ratio);
  canvas.height = Math.round(high * ratio);
}
