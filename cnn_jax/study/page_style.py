"""How `report.html` looks and sorts: one style sheet and one small script, the same for every report."""

from cnn_jax.study.drawing import PALETTE

DARK = {
    "ground": "#0f141a",
    "ink": "#e6edf3",
    "muted": "#9fabb8",
    "grid": "#2c3641",
    "band": "#1c2f42",
    "reference": "#7f8b98",
    "supported": "#58b1ec",
    "refuted": "#ff9b57",
    "inconclusive": "#a9b4c0",
    "depends": "#c9a2f2",
}
"""`drawing.PALETTE` on a dark ground."""


def _variables(palette: dict[str, str]) -> str:
    return " ".join(f"--{role}: {colour};" for role, colour in palette.items())


RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55; overflow-wrap: break-word;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
.over { margin: 0; color: var(--muted); font-size: .875rem; letter-spacing: .02em; }
h1 { margin: .25rem 0 1.25rem; font-size: clamp(1.6rem, 4.5vw, 2.3rem); line-height: 1.2; text-wrap: balance; }
h2 { margin: 3rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--grid); font-size: 1.3rem; }
p, ul { max-width: 46rem; margin: .6rem 0; }
ul { padding-left: 1.25rem; }
a { color: var(--supported); text-underline-offset: .15em; overflow-wrap: anywhere; }
blockquote { max-width: 46rem; margin: 0 0 1.5rem; padding: 0; font-family: Georgia, "Times New Roman", serif;
  font-size: 1.15rem; }
blockquote p { margin: 0; }
blockquote cite { display: block; margin-top: .3rem; color: var(--muted); font-style: normal; font-size: .9rem;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.card { margin: 1.25rem 0; padding: .9rem 1.1rem; background: var(--raised); border: 1px solid var(--grid);
  border-left: .3rem solid var(--colour, var(--reference)); border-radius: .4rem; }
.card > p { max-width: none; margin: 0; font-size: 1.08rem; }
.card > h2 { margin: 0 0 .25rem; padding: 0; border: 0; font-size: 1rem; }
.card > ul { max-width: none; margin: 0; }
.warning { --colour: var(--refuted); }
.supported { --colour: var(--supported); } .refuted { --colour: var(--refuted); }
.inconclusive { --colour: var(--inconclusive); } .depends { --colour: var(--depends); }
.verdict { color: var(--colour); font-weight: 650; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; max-width: none; margin: 1.25rem 0 0; padding: 0;
  list-style: none; font-size: .9rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .86em; }
code { overflow-wrap: anywhere; }
pre { margin: .75rem 0; padding: .8rem 1rem; background: var(--raised); border: 1px solid var(--grid);
  border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { max-width: 100%; margin: .9rem 0; overflow-x: auto; border: 1px solid var(--grid); border-radius: .4rem; }
.scroll:focus-visible, button:focus-visible, a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--supported); outline-offset: 2px; }
table { width: 100%; border-collapse: collapse; font-size: .875rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; border-bottom: 1px solid var(--grid); text-align: left; vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { min-width: 4.5rem; background: var(--raised); color: var(--muted); font-weight: 600;
  vertical-align: bottom; }
tbody th { position: sticky; left: 0; min-width: 15rem; max-width: 20rem; background: var(--ground); font-weight: 600; }
tbody td:not(.number) { min-width: 7.5rem; }
.number { text-align: right; } td.number { white-space: nowrap; }
.number button { text-align: right; }
thead button { all: unset; display: inline; cursor: pointer; }
thead button::after { content: "\\a0↕"; color: var(--reference); }
[aria-sort=ascending] button::after { content: "\\a0↑"; color: var(--ink); }
[aria-sort=descending] button::after { content: "\\a0↓"; color: var(--ink); }
figure { margin: 1.25rem 0; }
figure .scroll { padding: .75rem; }
figure svg { display: block; width: 100%; max-width: 50rem; min-width: 34rem; height: auto; margin: 0 auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif
  !important; }
figcaption { max-width: 46rem; color: var(--muted); font-size: .875rem; }
summary { cursor: pointer; font-weight: 600; }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  th, td { padding: .4rem .55rem; }
  tbody th { min-width: 8.5rem; max-width: 8.5rem; }
}
@media print {
  main { max-width: none; padding: 0; }
  nav, thead button::after { display: none; content: none; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: 7.5pt; } th, td { padding: .2rem .35rem; } td.number { white-space: normal; }
  tbody th, tbody td:not(.number), thead th { position: static; min-width: 0; }
  figure, .card, tr { break-inside: avoid; } h2 { break-after: avoid; }
  figure svg { min-width: 0; }
}
"""
STYLE = (
    f":root {{ color-scheme: light dark; {_variables(PALETTE)} --raised: #f5f7f9; }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} --raised: #161d25; }} }}" + RULES
)
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return "order" in cell.dataset ? Number(cell.dataset.order) : cell.textContent.trim();
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.title = "sort by this column";
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", next);
      const rows = [...original], sign = next === "descending" ? -1 : 1;
      // Cells without a number stay at the end, whichever way.
      const empty = (row) => row.cells[column].textContent.trim() === "–";
      if (next !== "none") rows.sort((a, b) => empty(a) - empty(b) || sign * compare(key(a, column), key(b, column)));
      body.append(...rows);
    });
  });
}
"""
