// A column's cells by number, where they have one, else by their text; what is missing stays at the end.
const MISSING = "–";
function compareCells(a, b, sign) {
  const missing = (cell) => cell.textContent.trim() === MISSING;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const [x, y] = [a.dataset.value, b.dataset.value];
  if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
  if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;
  return sign * a.textContent.trim().localeCompare(b.textContent.trim(), "en", {numeric: true});
}
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of heads) other.setAttribute("aria-sort", other === head ? direction : "none");
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compareCells(a.cells[column], b.cells[column], sign));
    table.tBodies[0].append(...rows);
  }));
}
for (const button of document.querySelectorAll(".enlarge"))
  button.addEventListener("click", () => {
    const large = button.closest("figure").classList.toggle("large");
    button.setAttribute("aria-pressed", String(large));
  });
