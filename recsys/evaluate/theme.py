"""Style sheet and script of reports: everything inline, so that a file works offline and in a mail attachment."""

# Nothing outside the file may be loaded, not even by a mistake in this code.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, kind: str, body: str, *, css: str = "", script: str = "") -> str:
    """One self-contained HTML file; all arguments are trusted.

    Args:
        title: of the window.
        kind: what the page is, behind the title.
        body: of the page.
        css: beside the common one.
        script: behind the common one.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · {kind}</title><style>{CSS}{css}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT}{script}</script></body></html>\n"
    )


CSS = """
:root {
  color-scheme: light dark;
  --font: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  --page: #f4f5f7; --surface: #ffffff; --raised: #f7f8fa; --line: #e2e5ea;
  --ink: #16191f; --muted: #5c6673; --grid: #e4e7ec; --first: #2867b2; --second: #c2540a; --soft: #e8f0fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1216; --surface: #171b21; --raised: #1d2229; --line: #2a313a;
    --ink: #e8ebf0; --muted: #97a2b0; --grid: #2b323c; --first: #74aef0; --second: #f09a52; --soft: #1c2b3d;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1180px; margin: 0 auto; padding: 36px 28px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 14px; margin: 0 0 2px; }
p { margin: 0; max-width: 82ch; }
.kicker { color: var(--muted); font-size: 12px; font-weight: 600; letter-spacing: .08em; text-transform: uppercase; }
.lead { font-size: 16.5px; margin-top: 10px; }
.note { color: var(--muted); font-size: 13.5px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); margin: 24px 0 0;
  background: var(--surface); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { padding: 9px 14px; box-shadow: 0 0 0 .5px var(--line); }
.facts dt { color: var(--muted); font-size: 12px; }
.facts dd { margin: 0; font-size: 14px; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 16px; margin-top: 16px; }
.cards { grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); }
.halves { grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); }
.wide { grid-column: 1 / -1; }
.masonry { columns: 2 460px; column-gap: 16px; margin-top: 16px; }
.masonry .box { break-inside: avoid; margin-bottom: 16px; }
.box { background: var(--surface); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px;
  min-width: 0; }
.card .label { color: var(--muted); font-size: 13px; font-weight: 600; }
.card .number { font-size: 29px; line-height: 1.25; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.card .undefined { color: var(--muted); font-weight: 400; }
.card .note { font-size: 12.5px; line-height: 1.4; margin-top: 4px; }
.meter { height: 6px; border-radius: 3px; background: var(--soft); margin: 8px 0 2px; overflow: hidden; }
.meter i { display: block; height: 100%; border-radius: 3px; background: var(--first); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; margin-top: 10px; }
figcaption { color: var(--muted); font-size: 13px; }
.tall { max-height: 640px; }
.scroll { overflow: auto; }
td.how { max-width: 340px; color: var(--muted); font-size: 12.5px; white-space: normal; }
ul { margin: 8px 0 0; padding-left: 20px; max-width: 90ch; }
.finding { margin: 3px 0; }
.finding::marker { color: var(--second); content: "\\25b2  "; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th.text, td.text { text-align: left; }
td.text { max-width: 210px; overflow: hidden; text-overflow: ellipsis; }
thead th { position: sticky; top: 0; background: var(--surface); color: var(--muted); font-weight: 600;
  font-size: 12.5px; padding: 0; z-index: 1; }
thead th.plain { padding: 7px 8px; }
th button { all: unset; box-sizing: border-box; width: 100%; padding: 7px 8px; cursor: pointer; }
th button:hover { color: var(--ink); }
th button:focus-visible { outline: 2px solid var(--first); outline-offset: -3px; border-radius: 6px; }
th button::after { content: "\\2195"; opacity: .35; padding-left: 5px; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
th[aria-sort] { color: var(--ink); }
tbody tr:hover { background: var(--raised); }
tbody tr:last-child td { border-bottom: 0; }
.table { padding: 6px 6px 4px; }
.none { color: var(--muted); }
abbr { text-decoration: none; cursor: help; }
input[type=search] { font: inherit; font-size: 13.5px; color: inherit; background: var(--surface);
  width: min(320px, 100%); border: 1px solid var(--line); border-radius: 8px; padding: 6px 11px; margin-top: 12px; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--muted); font-size: 13px; }
.terms { display: grid; grid-template-columns: minmax(140px, 190px) 1fr; gap: 6px 20px; margin: 14px 0 0;
  font-size: 14px; }
.terms dt { font-weight: 600; }
.terms dd { margin: 0; color: var(--muted); }
@media (max-width: 560px) { main { padding: 22px 14px 48px; } .terms { grid-template-columns: 1fr; gap: 0; } }
@media print { body { background: #fff; } .box { break-inside: avoid; } input, th button::after { display: none; } }
"""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const text = head.classList.contains("text"), before = head.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : text;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");  // undefined stays at the end either way
      const order = text ? x.localeCompare(y, undefined, {numeric: true}) : x - y;
      return ascending ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
});
document.querySelectorAll("input[type=search]").forEach(input => input.addEventListener("input", () => {
  const wanted = input.value.toLowerCase();
  document.querySelectorAll("#slices tbody tr").forEach(row => {
    row.hidden = !(row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase().includes(wanted);
  });
}));
"""
