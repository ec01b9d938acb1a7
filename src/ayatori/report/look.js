// The page around the map: choices, legend, what is under the pointer, the lasso, its list and its CSV.

const get = (id) => document.getElementById(id);
const dark = () => !printing && matchMedia("(prefers-color-scheme: dark)").matches;
const many = (size, one) => size.toLocaleString("en").replace(/,/g, "\u202f") + " " + one + (size === 1 ? "" : "s");
const LISTED = 60;
let printing = false;

function make(tag, more = {}, ...children) {
  const { data, style, ...rest } = more, element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(style || {})) element.style.setProperty(name, value);
  element.append(...children);
  return element;
}

function glyph(shape, colour) {  // a dot of the legend
  const radius = 6, side = 15, canvas = make("canvas", { width: 2 * side, height: 2 * side, className: "glyph" });
  const pen = canvas.getContext("2d"), { cells } = stamp(shape, 2 * radius);
  for (let s = 0; s < cells.length; s += 3) {
    pen.fillStyle = `rgb(${colour} / ${cells[s + 2] / 256})`;
    pen.fillRect(side + cells[s], side + cells[s + 1], 1, 1);
  }
  return canvas;
}

let canvas, box, tip, classed, groups, valueEnds;
const spot = new Map(), thumb = new Map();  // row number -> place in the table, in the sheet of thumbnails
const state = { map: "", dims: 2, colour: "", tool: "move", picked: [], pair: null, hover: -1, ringed: [], over: null, look: null };
const timing = { draw: 0, hover: 0 };

// ---- what a row is
const idOf = (i) => (data.ids ? data.ids[i] : String(A.row[i]));
const classOf = (i) => (A.class[i] < 0 ? (A.sealed[i] ? "sealed" : "no label") : data.classes[A.class[i]]);
const cellOf = (k, i) => (A["cell" + k] ? data.columns[k][1][A["cell" + k][i]] : data.columns[k][1][i]);

function makeGroups() {  // what can be toggled: classes, most frequent first, and what is sealed
  const names = classed ? [...data.classes, "sealed, labels not read"] : ["to learn from", "sealed"];
  const code = new Uint32Array(n), sizes = new Array(names.length).fill(0), last = names.length - 1;
  for (let i = 0; i < n; i++) {
    code[i] = classed ? (A.class[i] < 0 ? last : A.class[i]) : A.sealed[i];
    sizes[code[i]]++;
  }
  const ranked = names.map((_, k) => k).filter((k) => sizes[k] && !(classed && k === last));
  if (ranked.length > 56) ranked.sort((a, b) => sizes[b] - sizes[a] || a - b);
  const rank = new Map(ranked.map((k, at) => [k, at]));
  if (classed && sizes[last]) ranked.push(last);
  return { names, code, sizes, ranked, rank, last, on: new Uint8Array(names.length).fill(1) };
}

function styleOf(k) {  // colour and shape of a class
  const palette = COLOURS[dark() ? "dark" : "light"], at = groups.rank.get(k);
  if (at === undefined || at >= 56 || (classed && k === groups.last)) return [rgb(dark() ? "#7d8894" : "#8b95a0"), 7];
  return [rgb(palette[at % 12]), Math.floor(at / 8)];
}

function findEnds() {  // of the colours for values: all but the most extreme
  if (!A.value) return [0, 1];
  const known = Array.from(A.value).filter(Number.isFinite).sort((a, b) => a - b);
  const at = (share) => known[Math.round(share * (known.length - 1))];
  return known.length ? [at(0.01), at(0.99)] : [0, 1];
}

function dress() {  // colour and shape of every row
  const colours = new Uint8Array(3 * n), shapes = new Uint8Array(n), mode = dark() ? "dark" : "light";
  const grey = rgb(dark() ? "#5d6873" : "#a6afb8"), palette = COLOURS[mode];
  const styles = groups.names.map((_, k) => styleOf(k)), doubts = [], values = [];
  for (let k = 0; k <= 255; k++) { doubts.push(ramp(DOUBT[mode], k / 254)); values.push(ramp(RAMPS[mode], k / 255)); }
  for (let i = 0; i < n; i++) {
    let colour = grey, shape = 0;
    if (state.colour === "class") [colour, shape] = styles[groups.code[i]];
    else if (state.colour === "split") [colour, shape] = A.sealed[i] ? [rgb(palette[1]), 2] : [rgb(palette[0]), 0];
    else if (state.colour === "suspicion") { if (A.suspicion[i] !== UNKNOWN) colour = doubts[A.suspicion[i]]; else shape = 7; }
    else if (Number.isFinite(A.value[i])) colour = values[valueShare(A.value[i])];
    else shape = 7;
    colours.set(colour, 3 * i);
    shapes[i] = shape;
  }
  const size = Math.max(n, 1), radius = Math.min(Math.max(4.6 - Math.log10(size) * 0.75, 0.9), 4) * Math.min(1.2, 0.75 + view.width / 1600);
  const back = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
  state.look = { colours, shapes, pale: grey, back: printing ? [255, 255, 255] : back.slice(0, 3), radius, alpha: n > 30000 ? 0.7 : 0.85 };
  state.look.order = state.colour === "suspicion" ? doubted() : null;
}
// the most doubted on top; those of which nothing is known below
const doubted = () => order.slice().sort((a, b) => ((A.suspicion[a] + 1) & 255) - ((A.suspicion[b] + 1) & 255));
const valueShare = (v) => Math.round(Math.min(Math.max((v - valueEnds[0]) / (valueEnds[1] - valueEnds[0] || 1), 0), 1) * 255);

// ---- drawing
let waiting = 0, glide = null;  // rows on their way from another map: where they were, and since when
const GLIDE = 500;

function along() {  // X and Y between the map before and this one
  const t = Math.min((performance.now() - glide.from) / GLIDE, 1), share = t * t * (3 - 2 * t);
  for (let i = 0; i < n; i++) {
    if (glide.x[i] === glide.x[i]) { X[i] = glide.x[i] + (X[i] - glide.x[i]) * share; Y[i] = glide.y[i] + (Y[i] - glide.y[i]) * share; }
  }
  if (t === 1) glide = null;
}

const draw = () => { if (!waiting) waiting = requestAnimationFrame(drawNow); };

function drawNow() {
  cancelAnimationFrame(waiting);
  waiting = 0;
  const from = performance.now(), ratio = Math.min(devicePixelRatio || 1, 2);
  const width = Math.round(view.width * ratio), height = Math.round(view.height * ratio);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  place();
  if (glide) along();
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  paint(image, ratio, state.look);
  pen.putImageData(image, 0, 0);
  rings();
  timing.draw = performance.now() - from;
  if (glide) draw();
}

function rings() {  // around what is under the pointer, and what was asked for
  for (const old of get("look-over").querySelectorAll("circle")) old.remove();
  const shown = [...state.ringed, ...(state.hover >= 0 ? [state.hover] : [])];
  for (const i of shown) {
    if (!(X[i] === X[i])) continue;
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [name, value] of [["cx", X[i]], ["cy", Y[i]], ["r", Math.max(state.look.radius + 3, 6)]]) circle.setAttribute(name, value);
    get("look-over").append(circle);
  }
}

function weigh() {  // who is drawn, who is pale
  const picked = state.picked.length ? new Uint8Array(n) : null;
  for (const i of state.picked) picked[i] = 1;
  for (let i = 0; i < n; i++) {
    const on = groups.on[groups.code[i]];
    weight[i] = !on ? (state.pair ? 1 : 0) : picked ? (picked[i] ? 2 : 1) : state.over !== null && groups.code[i] !== state.over ? 1 : 2;
  }
  draw();
}

function resize() {
  const width = Math.max(box.clientWidth, 1), height = Math.round(Math.min(Math.max(width * (width < 500 ? 0.95 : 0.72), 260), innerHeight * 0.8, 620));
  if (width === view.width && height === view.height) return;
  [view.width, view.height] = [width, height];
  box.style.height = height + "px";
  dress();
  draw();
}

function whole() {
  Object.assign(view, { zoom: 1, x: 0, y: 0, yaw: 0.6, pitch: -0.4 });
  draw();
}

function zoom(factor, x = view.width / 2, y = view.height / 2) {
  const to = Math.min(Math.max(view.zoom * factor, 0.4), 400), by = to / view.zoom;
  view.x = (view.x + view.width / 2 - x) * by + x - view.width / 2;
  view.y = (view.y + view.height / 2 - y) * by + y - view.height / 2;
  view.zoom = to;
  draw();
}

function drag(dx, dy, pan) {
  if (flat() || pan) { view.x += dx; view.y += dy; }
  else { view.yaw += dx * 0.008; view.pitch = Math.min(Math.max(view.pitch + dy * 0.008, -1.55), 1.55); }
  hush();
  draw();
}

// ---- under the pointer
function hush() { state.hover = -1; tip.hidden = true; }

function hover(x, y, reach = 9) {
  const from = performance.now(), i = nearest(x, y, reach);
  if (i !== state.hover) {
    state.hover = i;
    if (i < 0) tip.hidden = true; else tell(i);
    rings();
  }
  timing.hover = performance.now() - from;
  return i < 0 ? -1 : A.row[i];
}

function picture(i, className) {
  const at = thumb.get(A.row[i]);
  if (at === undefined) return null;
  const { across, down } = data.sheet, x = (at % across) / (across - 1), y = Math.floor(at / across) / (down - 1);
  const element = make("span", { className: "thumb " + className, style: { "background-position": `${100 * x}% ${100 * y}%` } });
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", idOf(i));
  return element;
}

function words(i) {
  const found = [];
  if (classed) found.push(classOf(i));
  else if (A.value && Number.isFinite(A.value[i])) found.push(String(Number(A.value[i].toPrecision(5))));
  if (A.sealed[i] && !(classed && A.class[i] < 0)) found.push("sealed");
  if (data.likely[A.row[i]] !== undefined) found.push("rather " + data.likely[A.row[i]] + "?");
  else if (A.suspicion && A.suspicion[i] !== UNKNOWN && A.suspicion[i] > 127) found.push("suspect " + Math.round(A.suspicion[i] / 2.54) + " %");
  return found.join(" · ");
}

function tell(i) {
  const cells = make("dl");
  data.columns.forEach(([name], k) => cells.append(make("dt", { textContent: name }), make("dd", { textContent: cellOf(k, i) })));
  const id = idOf(i), title = make("b", { textContent: /^\d+$/.test(id) ? "row " + id : id });
  tip.replaceChildren(...[picture(i, "big"), title, make("span", { textContent: words(i) }), data.columns.length ? cells : null].filter(Boolean));
  tip.hidden = false;
  const x = X[i], y = Y[i], w = tip.offsetWidth, h = tip.offsetHeight;
  tip.style.left = Math.min(Math.max(x + 14 + w > view.width ? x - 14 - w : x + 14, 0), Math.max(view.width - w, 0)) + "px";
  tip.style.top = Math.min(Math.max(y - h / 2, 0), Math.max(view.height - h, 0)) + "px";
}

// ---- the pointer and the keys
const pointers = new Map();
let loop = null, pinch = 0, moved = 0, scrolled = 0;
const at = (event) => { const r = canvas.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
const apart = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };

function endLoop(take) {
  const found = take && loop && loop.length > 2 ? within(loop) : null;
  loop = null;
  get("look-loop").setAttribute("points", "");
  if (found) pick(found);
}

function listen() {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    moved = 0;
    if (pointers.size === 2) { pinch = apart(); endLoop(false); }
    else if (state.tool === "lasso" && event.button === 0) loop = [at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event), before = pointers.get(event.pointerId);
    if (!before) { hover(x, y); return; }
    const [dx, dy] = [x - before[0], y - before[1]];
    moved += Math.abs(dx) + Math.abs(dy);
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size === 2) {
      const now = apart(), [a, b] = [...pointers.values()];
      drag(dx / 2, dy / 2, true);
      zoom(now / Math.max(pinch, 1), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      pinch = now;
    } else if (loop) {
      loop.push([x, y]);
      get("look-loop").setAttribute("points", loop.map((p) => p.join(",")).join(" "));
    } else drag(dx, dy, event.shiftKey);
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (event.type === "pointercancel") endLoop(false);
    else if (loop) endLoop(moved > 12);
    if (moved < 6) hover(...at(event), event.pointerType === "touch" ? 22 : 9);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !pointers.size) { hush(); rings(); } });
  addEventListener("scroll", () => { scrolled = performance.now(); }, { passive: true });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && performance.now() - scrolled < 250) return;  // the page is being scrolled past
    event.preventDefault();
    hush();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...at(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, step = flat() ? -40 : 20;
    if (moves[event.key]) drag(moves[event.key][0] * step, moves[event.key][1] * step);
    else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") whole();
    else if (event.key === "Escape") { hush(); pick([]); }
    else return;
    event.preventDefault();
  });
}

// ---- choices
function options(group, values) {
  const field = document.querySelector(`input[name="look-${group}"]`)?.closest("fieldset") || get("look-tools").querySelectorAll("fieldset")[group === "map" ? 0 : 2];
  for (const [value, word] of values) field.append(make("label", {}, make("input", { type: "radio", name: "look-" + group, value }), make("span", { textContent: word })));
  field.hidden = values.length < 2;
}

function choose(group, value) {
  state[group] = group === "dims" ? Number(value) : value;
  if (group === "map" || group === "dims") {
    const there = (dims) => data.fit[state.map + dims];
    if (!there(state.dims)) state.dims = 5 - state.dims;
    for (const dims of [2, 3]) document.querySelector(`input[name="look-dims"][value="${dims}"]`).disabled = !there(dims);
    view.space = state.map + state.dims;
    const { beyond, drawn } = data.fit[view.space];
    get("look-belief").textContent = (data.maps[view.space] || many(drawn, "row") + " drawn.") + (beyond ? ` ${many(beyond, "row")} beyond the frame; zoom out to see them.` : "");
    hush();
    whole();
  }
  if (group === "colour") { dress(); legend(); draw(); }
  if (group === "tool") canvas.classList.toggle("lasso", value === "lasso");
  for (const name of ["map", "dims", "colour", "tool"]) {
    const input = document.querySelector(`input[name="look-${name}"][value="${state[name]}"]`);
    if (input) input.checked = true;
  }
}

const seek = () => get("look-section").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
const repaint = () => { dress(); legend(); drawNow(); };

const places = (rows) => rows.split(" ").map((row) => spot.get(Number(row))).filter((i) => i !== undefined);

function wire() {  // what the controls do
  get("look-tools").addEventListener("change", (event) => {
    const group = event.target.name.replace("look-", ""), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (group === "map" && !still) glide = { x: X.slice(), y: Y.slice(), from: performance.now() };
    choose(group, event.target.value);
  });
  get("look-reset").onclick = whole;
  get("look-in").onclick = () => zoom(1.4);
  get("look-out").onclick = () => zoom(1 / 1.4);
  for (const button of document.querySelectorAll("[data-pair]")) button.onclick = () => { only(button.dataset.pair.split(" ").map(Number)); seek(); };
  for (const button of document.querySelectorAll("[data-rows]")) button.onclick = () => { ring(places(button.dataset.rows)); seek(); };
  for (const button of document.querySelectorAll("[data-pick]")) button.onclick = () => { only(null); pick(places(button.dataset.pick)); seek(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("beforeprint", () => { printing = true; repaint(); });
  addEventListener("afterprint", () => { printing = false; repaint(); });
}

async function start() {
  settle(await unpack(get("look-data").textContent));
  [canvas, box, tip] = ["look-canvas", "look-box", "look-tip"].map(get);
  classed = Boolean(A.class && data.classes.length);
  A.row.forEach((row, i) => spot.set(row, i));
  (A.thumb || []).forEach((row, at) => thumb.set(row, at));
  [groups, valueEnds] = [makeGroups(), findEnds()];
  options("map", ["pca", "tsne", "umap", "learned"].filter((m) => data.fit[m + 2] || data.fit[m + 3]).map((m) => [m, data.titles[m] || m]));
  options("colour", [classed ? ["class", "class"] : A.value ? ["value", "value"] : null, A.sealed.includes(1) ? ["split", "split"] : null, A.suspicion && A.suspicion.some((v) => v !== UNKNOWN) ? ["suspicion", "suspicion"] : null].filter(Boolean));
  const maps = [...document.querySelectorAll('input[name="look-map"]')].map((input) => input.value);
  const colours = [...document.querySelectorAll('input[name="look-colour"]')].map((input) => input.value);
  if (!maps.length) { get("look-section").hidden = true; return; }
  listen();
  wire();
  choose("map", maps.filter((map) => map !== "learned").at(-1) || maps[0]);
  choose("colour", colours[0]);
  resize();
  new ResizeObserver(resize).observe(box);
  drawNow();
  window.ayatori = {
    data, state, view, timing, hover, choose, only, csv, pick, drawNow,
    at: (row) => { const i = spot.get(row); return X[i] === X[i] ? [X[i], Y[i]] : null; },
    picked: () => state.picked.map((i) => A.row[i]),
    shown: () => weight.reduce((sum, w) => sum + (w === 2), 0),
  };
}

start().catch((error) => {
  get("look-belief").textContent = typeof DecompressionStream === "undefined" ? "This browser is too old to draw the map; all else on this page holds." : "The map could not be drawn: " + error.message;
  if (typeof DecompressionStream !== "undefined") console.error(error);
});
