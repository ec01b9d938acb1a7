// Every table gets a button that saves it as CSV.

function cellsOf(table) {  // rows of texts; what a cell says in small letters goes into a column of its own
  const grid = [];
  [...table.rows].forEach((row, y) => {
    grid[y] ||= [];
    let x = 0;
    for (const cell of row.cells) {
      while (grid[y][x]) x++;
      for (let dy = 0; dy < cell.rowSpan; dy++) for (let dx = 0; dx < cell.colSpan; dx++) (grid[y + dy] ||= [])[x + dx] = cell;
      x += cell.colSpan;
    }
  });
  const small = (cell) => [...(cell?.querySelectorAll("small, .tick") || [])].map((part) => part.textContent.trim()).join(" ");
  const plain = (cell) => {
    if (!cell) return "";
    const copy = cell.cloneNode(true);
    for (const part of copy.querySelectorAll("small, .tick")) part.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const width = Math.max(...grid.map((row) => row.length)), head = table.tHead ? table.tHead.rows.length : 0;
  const split = Array.from({ length: width }, (_, x) => grid.slice(head).some((row) => small(row[x])));
  return grid.map((row, y) => split.flatMap((two, x) => (two ? [plain(row[x]), y < head ? `${plain(row[x])}, interval or note` : small(row[x])] : [plain(row[x])])));
}

function csvOf(table) {
  // a spreadsheet takes =, +, - and @ at the beginning for a formula; numbers may begin so
  const safe = (text) => (/^[=+\-@\t]/.test(text) && Number.isNaN(Number(text.replace(/[\u202f ,%]/g, ""))) ? "'" + text : text);
  const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  return cellsOf(table).map((row) => row.map((text) => quoted(safe(text))).join(",")).join("\r\n") + "\r\n";
}

function saveTable(region) {
  const name = (document.title.split(":")[0] + " " + region.getAttribute("aria-label")).replace(/[^\p{L}\p{N}.-]+/gu, "-").slice(0, 80);
  const url = URL.createObjectURL(new Blob(["\ufeff" + csvOf(region.querySelector("table"))], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: url, download: name + ".csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

for (const region of document.querySelectorAll(".wide")) {
  if (!region.querySelector("table")) continue;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "csv", textContent: "CSV" });
  button.setAttribute("aria-label", "Save as CSV: " + region.getAttribute("aria-label"));
  button.onclick = () => saveTable(region);
  region.after(button);
}
window.tables = { csvOf };
