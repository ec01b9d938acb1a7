// The map itself: unpacking, where each row lies on the screen, dots, the nearest row. No page elements here.

const NOWHERE = 65535, UNKNOWN = 255, CELL = 12;

const COLOURS = {  // far apart with any kind of colour blindness (a test says how far); from the ninth on, the shape tells too
  light: ["#0048e2", "#f8a423", "#17ce70", "#985271", "#7fa5c3", "#c85100", "#5f5530", "#243261", "#955bd5", "#5a2137", "#1c8f93", "#e77fa8"],
  dark: ["#1f6fe9", "#e4c25a", "#4bf4a8", "#c6768d", "#b7a2ff", "#d54927", "#e1f72e", "#afe1f3", "#be8bc0", "#da6c63", "#3fa7ab", "#a8874f"],
};
const RAMPS = {  // from little to much
  light: ["#1d3f7a", "#4a7fb0", "#8fb08f", "#d8a23a", "#b5451f"],
  dark: ["#35589c", "#5b93c9", "#9cc29a", "#e6b650", "#f07c4c"],
};
const DOUBT = { light: ["#c3cbd4", "#e0a868", "#d04a00"], dark: ["#47525e", "#b57b3f", "#ff7a3c"] };
const SHAPES = ["dot", "square", "up", "diamond", "down", "cross", "plus"];

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(stream).arrayBuffer();
  const size = new Uint32Array(raw, 0, 1)[0];
  const data = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, size)));
  const types = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array };
  for (const [name, [type, at, length]] of Object.entries(data.arrays)) {
    data.arrays[name] = new types[type](raw, 4 + size + at, length);
  }
  return data;
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function ramp(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
  const a = rgb(stops[low]), b = rgb(stops[low + 1]);
  return a.map((v, k) => Math.round(v + (b[k] - v) * (at - low)));
}

function inside(shape, x, y) {  // within a dot of radius 1
  switch (shape) {
    case "square": return Math.max(Math.abs(x), Math.abs(y)) <= 0.86;
    case "up": return y <= 0.8 && y >= -1 && Math.abs(x) <= (y + 1) * 0.58;
    case "down": return y >= -0.8 && y <= 1 && Math.abs(x) <= (1 - y) * 0.58;
    case "diamond": return Math.abs(x) + Math.abs(y) <= 1.15;
    case "cross": return Math.abs(Math.abs(x) - Math.abs(y)) <= 0.38 && Math.max(Math.abs(x), Math.abs(y)) <= 0.95;
    case "plus": return Math.min(Math.abs(x), Math.abs(y)) <= 0.3 && Math.max(Math.abs(x), Math.abs(y)) <= 1.1;
    case "ring": { const r = Math.hypot(x, y); return r <= 1.1 && r >= 0.62; }
    default: return Math.hypot(x, y) <= 1;
  }
}

function stamp(shape, radius) {  // pixels of a dot: dx, dy, how much of each is covered (0 to 256)
  const reach = Math.ceil(radius * 1.2), found = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      let hits = 0;
      for (let k = 0; k < 16; k++) {
        const x = dx - 0.375 + (k & 3) * 0.25, y = dy - 0.375 + (k >> 2) * 0.25;
        hits += inside(shape, x / radius, y / radius);
      }
      if (hits) found.push(dx, dy, hits * 16);
    }
  }
  return { reach, cells: Int16Array.from(found) };
}

function shuffled(size) {  // the same order every time, so that no class lies on top
  const order = Uint32Array.from({ length: size }, (_, k) => k);
  let seed = 20261123;
  for (let k = size - 1; k > 0; k--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const other = seed % (k + 1), kept = order[k];
    order[k] = order[other];
    order[other] = kept;
  }
  return order;
}

// ---- what is drawn, and from where; set once by `settle`, and by whoever turns the map
let data, n, A, order, sorted, X, Y, Z, weight, grid = null;  // weight of each row: 0 hidden, 1 pale, 2 drawn
const view = { space: "", width: 0, height: 0, zoom: 1, x: 0, y: 0, yaw: 0.6, pitch: -0.4 };

function settle(found) {
  data = found;
  n = data.n;
  A = data.arrays;
  [order, sorted] = [shuffled(n), new Uint32Array(n)];
  [X, Y, Z] = [new Float32Array(n), new Float32Array(n), new Float32Array(n)];
  weight = new Uint8Array(n).fill(2);
}

const flat = () => view.space.endsWith("2");

function place() {  // X, Y in pixels of the page; NaN where a row is not drawn
  grid = null;
  const fit = data.fit[view.space], x = A[view.space + "x"], y = A[view.space + "y"], z = A[view.space + "z"];
  const [mx, my, mz] = fit.middle, { width, height, zoom } = view;
  if (flat()) {
    const scale = Math.min(width / fit.half[0], height / fit.half[1]) / 2 * 0.96 * zoom;
    for (let i = 0; i < n; i++) {
      if (!weight[i] || x[i] === NOWHERE) { X[i] = NaN; continue; }
      X[i] = width / 2 + view.x + (x[i] - mx) * scale;
      Y[i] = height / 2 + view.y - (y[i] - my) * scale;
    }
    return;
  }
  const size = Math.hypot(...fit.half), scale = Math.min(width, height) / 2 * 1.35 * zoom;
  const ca = Math.cos(view.yaw), sa = Math.sin(view.yaw), cb = Math.cos(view.pitch), sb = Math.sin(view.pitch);
  for (let i = 0; i < n; i++) {
    if (!weight[i] || x[i] === NOWHERE) { X[i] = NaN; continue; }
    const px = (x[i] - mx) / size, py = (y[i] - my) / size, pz = (z[i] - mz) / size;
    const rx = ca * px + sa * pz, rz = ca * pz - sa * px;
    const ry = cb * py - sb * rz, depth = sb * py + cb * rz;
    const near = scale / Math.max(1 - 0.28 * depth, 0.2);
    X[i] = width / 2 + view.x + rx * near;
    Y[i] = height / 2 + view.y - ry * near;
    Z[i] = depth;
  }
}

function byDepth() {  // far ones first
  const bins = new Uint32Array(258), bin = (i) => Math.min(Math.max(((Z[i] + 1.5) * 85) | 0, 0), 255) + 1;
  for (let i = 0; i < n; i++) bins[bin(i) + 1 > 257 ? 257 : bin(i) + 1]++;
  for (let k = 1; k < 258; k++) bins[k] += bins[k - 1];
  for (let k = 0; k < n; k++) { const i = order[k]; sorted[bins[bin(i)]++] = i; }
  return sorted;
}

function paint(image, ratio, look) {  // look: colours (n * 3), shapes (n), pale [r, g, b], back [r, g, b], radius, alpha
  const { data: pixels, width, height } = image;
  new Uint32Array(pixels.buffer).fill((255 << 24) | (look.back[2] << 16) | (look.back[1] << 8) | look.back[0]);
  const stamps = [...SHAPES, "ring"].map((shape) => stamp(shape, look.radius * ratio));
  const small = stamp("dot", Math.max(look.radius * ratio * 0.75, 0.7));
  const rank = flat() ? look.order || order : byDepth();
  for (let pass = 1; pass <= 2; pass++) {
    const alpha = pass === 1 ? 0.35 : look.alpha;
    for (let k = 0; k < n; k++) {
      const i = rank[k];
      if (weight[i] !== pass || X[i] !== X[i]) continue;
      const colour = pass === 1 ? look.pale : look.colours, c = pass === 1 ? 0 : 3 * i;
      const { cells, reach } = pass === 1 ? small : stamps[look.shapes[i]];
      const cx = Math.round(X[i] * ratio), cy = Math.round(Y[i] * ratio);
      if (cx < reach || cy < reach || cx >= width - reach || cy >= height - reach) continue;
      for (let s = 0; s < cells.length; s += 3) {
        const at = ((cy + cells[s + 1]) * width + cx + cells[s]) * 4, a = cells[s + 2] * alpha / 256;
        pixels[at] += (colour[c] - pixels[at]) * a;
        pixels[at + 1] += (colour[c + 1] - pixels[at + 1]) * a;
        pixels[at + 2] += (colour[c + 2] - pixels[at + 2]) * a;
      }
    }
  }
}

function index() {  // rows by cells of the screen
  const across = Math.ceil(view.width / CELL) + 1, down = Math.ceil(view.height / CELL) + 1;
  const starts = new Uint32Array(across * down + 1), rows = new Uint32Array(n), cell = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    const cx = Math.floor(X[i] / CELL), cy = Math.floor(Y[i] / CELL);
    cell[i] = weight[i] === 2 && cx >= 0 && cy >= 0 && cx < across && cy < down ? cy * across + cx : -1;
    if (cell[i] >= 0) starts[cell[i] + 1]++;
  }
  for (let k = 1; k < starts.length; k++) starts[k] += starts[k - 1];
  const next = starts.slice();
  for (let i = 0; i < n; i++) if (cell[i] >= 0) rows[next[cell[i]]++] = i;
  return { across, down, starts, rows };
}

function nearest(x, y, reach) {  // of rows in full colour, within reach; in 3-D those in front win
  grid = grid || index();
  let best = -1, least = reach * reach;
  const r = Math.ceil(reach / CELL), cx = Math.floor(x / CELL), cy = Math.floor(y / CELL);
  for (let row = Math.max(cy - r, 0); row <= Math.min(cy + r, grid.down - 1); row++) {
    for (let col = Math.max(cx - r, 0); col <= Math.min(cx + r, grid.across - 1); col++) {
      const at = row * grid.across + col;
      for (let k = grid.starts[at]; k < grid.starts[at + 1]; k++) {
        const i = grid.rows[k], off = (X[i] - x) ** 2 + (Y[i] - y) ** 2 - (flat() ? 0 : Z[i] * 2);
        if (off < least) { least = off; best = i; }
      }
    }
  }
  return best;
}

function within(loop) {  // rows in full colour inside a loop of [x, y]
  const found = [], xs = loop.map((p) => p[0]), ys = loop.map((p) => p[1]);
  const [left, right, top, low] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  for (let i = 0; i < n; i++) {
    const x = X[i], y = Y[i];
    if (weight[i] !== 2 || !(x >= left && x <= right && y >= top && y <= low)) continue;
    let odd = false;
    for (let a = 0, b = loop.length - 1; a < loop.length; b = a++) {
      if ((ys[a] > y) !== (ys[b] > y) && x < (xs[b] - xs[a]) * (y - ys[a]) / (ys[b] - ys[a]) + xs[a]) odd = !odd;
    }
    if (odd) found.push(i);
  }
  return found;
}
