// A week on a grid of hours. The text beside each day is the truth ("08:00-18:00, 22:00-06:00+1"); the grid draws it and
// paints whole hours into it: arrows move, Space sets or clears an hour, Shift with an arrow paints on.
import { $, $$, say, t } from "./console.js";
const DAY = 1440, FORM = /^(\d\d):(\d\d)-(\d\d):(\d\d)(\+1)?$/;
const two = n => String(n).padStart(2, "0");

export function parse(text) {
  return text.split(/[,，、;\s]+/).filter(Boolean).map(part => {
    const m = FORM.exec(part); if (!m) return null;
    const start = m[1] * 60 + +m[2], end = m[3] * 60 + +m[4] + (m[5] ? DAY : 0);
    return start < DAY && end > start && end - start <= DAY && m[2] < 60 && m[4] < 60 ? [start, end] : null;
  });
}
export const format = spans => spans.map(([a, b]) => `${two(a / 60 | 0)}:${two(a % 60)}-${b > DAY ? `${two((b - DAY) / 60 | 0)}:${two(b % 60)}+1` : `${two(b / 60 | 0)}:${two(b % 60)}`}`).join(", ");
export function add(spans, from, to) {
  const out = [];
  for (const [a, b] of [...spans, [from, to]].sort((x, y) => x[0] - y[0])) { const last = out.at(-1); last && a <= last[1] ? last[1] = Math.max(last[1], b) : out.push([a, b]); }
  return out;
}
export const cut = (spans, from, to) => spans.flatMap(([a, b]) => b <= from || a >= to ? [[a, b]] : [[a, Math.min(b, from)], [Math.max(a, to), b]]).filter(([a, b]) => b > a && a < DAY);

for (const week of $$("[data-week]")) {
  const days = $$("[data-day]", week), grid = [];
  const spans = day => parse($("input", day).value).filter(Boolean);
  const draw = () => days.forEach((day, n) => {
    const own = spans(day), before = day.dataset.weekday ? spans(days[(n + 6) % 7]).filter(([, b]) => b > DAY).map(([, b]) => b - DAY) : [];
    grid[n].forEach((cell, h) => {
      const from = h * 60, to = from + 60, full = own.some(([a, b]) => a <= from && b >= to), some = own.some(([a, b]) => a < to && b > from);
      cell.className = full ? "on" : some ? "part" : before.some(b => b > from) ? "spill" : "";
      cell.setAttribute("aria-pressed", full ? "true" : some ? "mixed" : "false");
    });
  });
  const paint = (n, h, on) => {
    const input = $("input", days[n]), now = spans(days[n]);
    input.value = format(on ? add(now, h * 60, h * 60 + 60) : cut(now, h * 60, h * 60 + 60)); draw();
  };
  days.forEach((day, n) => {
    const bar = $(".hours", day), name = $("label", day).textContent;
    grid[n] = Array.from({ length: 24 }, (_, h) => {
      const cell = document.createElement("button");
      cell.type = "button"; cell.tabIndex = n || h ? -1 : 0;
      cell.setAttribute("aria-label", `${name} ${two(h)}:00–${two(h + 1)}:00`);
      cell.addEventListener("keydown", e => {
        const go = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -h], End: [0, 23 - h] }[e.key];
        if (!go) return;
        const next = grid[n + go[0]]?.[h + go[1]]; if (!next) return;
        e.preventDefault(); cell.tabIndex = -1; next.tabIndex = 0; next.focus();
        if (e.shiftKey) paint(n + go[0], h + go[1], cell.className === "on");
      });
      cell.addEventListener("click", () => paint(n, h, cell.className !== "on"));
      bar.append(cell); return cell;
    });
    let painting = null;
    bar.addEventListener("pointerdown", e => { if (e.pointerType === "mouse" && e.button === 0) painting = e.target.className !== "on"; });
    bar.addEventListener("pointerover", e => { const h = grid[n].indexOf(e.target); if (painting !== null && e.buttons === 1 && h >= 0) paint(n, h, painting); });
    addEventListener("pointerup", () => painting = null);
    $("input", day).addEventListener("input", draw);
    $("[data-copy]", day)?.addEventListener("click", () => { for (const other of days) if (other.dataset.weekday) $("input", other).value = $("input", day).value; draw(); });
  });
  draw();
  // into the form's own fields, before config.js reads them
  week.closest("form").addEventListener("submit", e => {
    const shape = { weekly: {}, holidays: {} };
    for (const day of days) {
      const input = $("input", day), found = parse(input.value), bad = found.includes(null);
      if (bad) { e.preventDefault(); e.stopImmediatePropagation(); for (const old of $$(".msg", day)) old.remove(); say(input, t("写成 08:00-18:00，跨夜写 22:00-06:00+1", "Write 08:00-18:00, overnight 22:00-06:00+1")); input.focus(); return; }
      if (found.length) shape[day.dataset.weekday ? "weekly" : "holidays"][day.dataset.day] = found.map(s => format([s]));
    }
    $("[name=weekly]", week).value = JSON.stringify(shape.weekly); $("[name=holidays]", week).value = JSON.stringify(shape.holidays);
  });
}
