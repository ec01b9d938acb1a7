// What was picked: its list and its CSV; and the legend.

// ---- what was picked
function pick(found) {
  state.picked = found;
  state.ringed = [];
  hush();
  weigh();
  listPicked();
}

function csv() {
  const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  const last = classed ? "class" : A.value ? "value" : "split";
  const of = (i) => (classed ? (A.class[i] < 0 ? "" : data.classes[A.class[i]]) : A.value ? (Number.isFinite(A.value[i]) ? String(A.value[i]) : "") : A.sealed[i] ? "sealed" : "development");
  return ["row,id," + last, ...state.picked.map((i) => [String(A.row[i]), quoted(idOf(i)), quoted(of(i))].join(","))].join("\r\n") + "\r\n";
}

function save() {
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  make("a", { href: url, download: data.name.replace(/[^\w.-]+/g, "_").slice(0, 60) + "-rows.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function listPicked() {
  const panel = get("look-picked"), rows = state.picked;
  panel.hidden = !rows.length;
  if (!rows.length) { panel.replaceChildren(); return; }
  const counts = new Map();
  for (const i of rows) counts.set(groups.code[i], (counts.get(groups.code[i]) || 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]), told = most.slice(0, 5).map(([k, size]) => `${groups.names[k]}: ${size}`).join(", ");
  const head = make("p", { className: "tools" }, make("b", { textContent: many(rows.length, "row") + " picked" }),
    make("span", { className: "tick", textContent: told + (most.length > 5 ? ", …" : "") }),
    make("button", { type: "button", className: "chip", id: "look-save", textContent: "Save ids as CSV", onclick: save }),
    make("button", { type: "button", className: "chip", textContent: "Clear", onclick: () => pick([]) }));
  const list = make("ol", { className: data.sheet ? "picked thumbs" : "picked" });
  const first = data.sheet ? [...rows.filter((i) => thumb.has(A.row[i])), ...rows.filter((i) => !thumb.has(A.row[i]))] : rows;
  for (const i of first.slice(0, LISTED)) {
    const held = data.columns.slice(0, 4).map(([name], k) => `${name} ${cellOf(k, i)}`).join(", "), id = idOf(i);
    const parts = [make("span", { className: "id", textContent: id.length > 26 ? "…" + id.slice(-25) : id })];
    if (data.sheet) parts.unshift(picture(i, "") || make("span", { className: "thumb" }));
    parts.push(make("span", { className: "tick", textContent: [words(i), held].filter(Boolean).join(" · ") }));
    list.append(make("li", {}, make("button", { type: "button", title: id, onclick: () => ring([i]) }, ...parts)));
  }
  panel.replaceChildren(head, list);
  if (rows.length > LISTED) panel.append(make("p", { className: "dim", textContent: many(rows.length - LISTED, "more row") + "; the CSV has all." }));
}

function ring(found) {  // show where rows are
  state.ringed = found;
  hush();
  for (const i of found) if (!weight[i]) groups.on[groups.code[i]] = 1;
  legend();
  weigh();
  drawNow();
  if (found.length === 1 && X[found[0]] === X[found[0]]) { state.hover = found[0]; tell(found[0]); }
}

// ---- the legend
function legend() {
  const target = get("look-legend"), typed = target.querySelector("input")?.value || "";
  const parts = [];
  if (state.colour === "suspicion") parts.push(scale(DOUBT, "no doubt of the label", "surely wrong"));
  if (state.colour === "value") parts.push(scale(RAMPS, ...valueEnds.map((v) => String(Number(v.toPrecision(4))))));
  if (state.colour === "split" && classed) {
    const palette = COLOURS[dark() ? "dark" : "light"];
    parts.push(make("p", { className: "tools tick" }, glyph("dot", rgb(palette[0]).join(" ")), "to learn from", glyph("up", rgb(palette[1]).join(" ")), "sealed"));
  }
  const list = make("div", { className: "keys" }), long = groups.ranked.length > 24;
  for (const k of groups.ranked) list.append(key(k));
  if (groups.ranked.length > 1) {
    const tools = make("p", { className: "tools" });  // below the keys, which must not move under a double click
    if (state.pair) tools.append(make("b", { textContent: "Only " + state.pair.map((k) => groups.names[k]).join(" and ") }));
    if (groups.on.includes(0)) tools.append(make("button", { type: "button", className: "chip", id: "look-all", textContent: "all", onclick: () => only(null) }));
    if (groups.on.includes(0) || state.picked.length) tools.append(make("button", { type: "button", className: "chip", id: "look-take", textContent: "pick what is shown", onclick: take }));
    if (long) parts.push(make("input", { type: "search", placeholder: "find a class", ariaLabel: "Find a class", value: typed, oninput: (event) => sift(event.target.value) }));
    parts.push(list);
    if (tools.childNodes.length) parts.push(tools);
  }
  target.replaceChildren(...parts);
  if (typed) sift(typed);
}

function take() {
  const found = [];
  for (let i = 0; i < n; i++) if (groups.on[groups.code[i]] && X[i] === X[i]) found.push(i);
  pick(found);
}

function key(k) {
  const [colour, shape] = styleOf(k), plain = state.colour !== "class";
  const mark = plain ? glyph("dot", "128 136 146") : glyph([...SHAPES, "ring"][shape], colour.join(" "));
  const button = make("button", { type: "button", className: "key", title: groups.names[k] + ": click hides or shows, double click shows it alone", data: { group: k } },
    mark, make("span", { textContent: groups.names[k] }), make("small", { textContent: groups.sizes[k].toLocaleString("en").replace(/,/g, "\u202f") }));
  button.setAttribute("aria-pressed", String(Boolean(groups.on[k])));
  button.onclick = () => { groups.on[k] ^= 1; state.pair = null; state.over = null; button.setAttribute("aria-pressed", String(Boolean(groups.on[k]))); legend(); weigh(); get("look-legend").querySelector(`[data-group="${k}"]`).focus(); };
  button.ondblclick = () => only([k]);
  button.onpointerenter = (event) => { if (event.pointerType === "mouse" && groups.on[k]) { state.over = k; weigh(); } };
  button.onpointerleave = () => { if (state.over !== null) { state.over = null; weigh(); } };
  return button;
}

function scale(stops, low, high) {
  const colours = stops[dark() ? "dark" : "light"];
  return make("p", { className: "scale tick" }, low, make("i", { style: { background: `linear-gradient(90deg,${colours.join(",")})` } }), high, make("span", {}, glyph("ring", rgb(dark() ? "#5d6873" : "#a6afb8").join(" ")), "not known"));
}

function sift(text) {
  for (const button of document.querySelectorAll(".key")) button.hidden = !groups.names[button.dataset.group].toLowerCase().includes(text.toLowerCase());
}

function only(keys) {  // some groups alone; all of them for null
  groups.on.fill(keys ? 0 : 1);
  for (const k of keys || []) groups.on[k] = 1;
  state.pair = keys && keys.length === 2 ? keys : null;
  state.picked = [];
  state.over = null;
  state.ringed = [];
  hush();
  listPicked();
  legend();
  weigh();
}
