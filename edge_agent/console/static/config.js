// Forms that change one place of the configuration. The whole document is read, changed there, and put back under the
// version the page was made from. If somebody was first, their change is shown, and what was typed stays.
//   data-config="access/doors/south-gate"  where; names are URL-encoded, items of lists are found by name
//   data-mode   "merge" (the fields into what is there), "append" (one more item of a list, over data-base),
//               "key" (an entry of a mapping, named by the field "key"), "remove"
//   data-rows="name" data-shape="map|grants"  a list of rows that becomes one field
import { $, $$, ask, clean, fault, raise, refused, say, t, toastAfterLoad, values, waits, when } from "./console.js";

const read = async () => { const got = await ask("GET /api/v1/config"); return got?.[0].ok ? [got[1], +got[0].headers.get("etag").replaceAll('"', "")] : null; };
const parts = path => path.split("/").filter(Boolean).map(decodeURIComponent);
const step = (at, key) => Array.isArray(at) ? at.find(item => item.name === key) : (at[key] ??= {});

function rows(box) {
  const found = $$(".row", box).map(row => [$("[data-k]", row).value.trim(), $("[data-v]", row).value.trim()]).filter(([k]) => k);
  if (box.dataset.shape === "map") return Object.fromEntries(found);
  const times = new Map();
  for (const [door, when] of found) times.set(when, [...times.get(when) ?? [], door]);
  return [...times].map(([schedule, doors]) => ({ doors, schedule }));
}
function put(target, name, value) {
  const keys = name.split("."), last = keys.pop();
  let at = target;
  for (const key of keys) at = at[key] ??= {};
  at[last] = value;
}
function fields(form) {
  const flat = values(form); if (!flat) return null;
  const found = {};
  for (const [name, value] of Object.entries(flat)) put(found, name, value);
  for (const box of $$("[data-rows]", form)) put(found, box.dataset.rows, rows(box));
  return found;
}
const WHOLE = new Set(["weekly", "holidays", "yearly", "working_days"]);   // mappings that a form shows whole
const plain = v => v !== null && typeof v === "object" && !Array.isArray(v);
function merge(into, from) {
  for (const [k, v] of Object.entries(from)) plain(v) && plain(into[k]) && !WHOLE.has(k) ? merge(into[k], v) : into[k] = v;
  return into;
}

function change(doc, form, given) {
  const path = parts(form.dataset.config), mode = form.dataset.mode ?? "merge", last = path.at(-1);
  if (mode === "remove") {
    const list = path.slice(0, -1).reduce(step, doc);
    Array.isArray(list) ? list.splice(list.findIndex(item => item.name === last), 1) : delete list[last];
    return;
  }
  const at = path.reduce(step, doc);
  if (mode === "append") at.push(merge(JSON.parse(form.dataset.base ?? "{}"), given));
  else if (mode === "key") { const { key, ...value } = given; at[key] = value; }
  else merge(at, given);
}
async function submit(form) {
  clean(form);
  const given = fields(form); if (!given) return;
  const got = await read(); if (!got) return;
  const [doc, version] = got, based = +form.dataset.version;
  if (version !== based) return conflict(form, based, version, doc);
  if ((form.dataset.mode === "key" && parts(form.dataset.config).reduce(step, doc)[given.key]) || (form.dataset.mode === "append" && parts(form.dataset.config).reduce(step, doc).some(item => item.name === given.name))) {
    const input = form.elements.key ?? form.elements.name, words = t("这个名称已被使用", "this name is taken");
    say(input, words); return fault(t("没有完成，什么都没改", "Not done; nothing was changed"), "", [[input, words]]);
  }
  change(doc, form, given);
  await send(form, doc, version, form.dataset.reason ?? "");
}
async function send(form, doc, version, reason) {
  const button = $("[type=submit]", form); button.disabled = true;
  const answer = await ask(`PUT /api/v1/config?reason=${encodeURIComponent(reason)}`, doc, { "If-Match": `"${version}"` });
  button.disabled = false;
  if (!answer) return;
  if (answer[0].status === 412) { const now = await read(); return now && conflict(form, version, now[1], now[0]); }
  if (!answer[0].ok) return refused(answer[1], form);
  if (answer[0].status === 202) return waits(answer[1]);
  toastAfterLoad(answer[1].changes.length ? form.dataset.done : t("没有变化", "Nothing changed"));
  form.dataset.then ? location.href = form.dataset.then : location.reload();
}

// What differs between two documents, item by item; the same order as the server's own comparison.
export function differences(a, b, path = "") {
  const keyed = v => Array.isArray(v) && v.length && v.every(x => x && typeof x === "object" && "name" in x) ? Object.fromEntries(v.map(x => [x.name, x])) : v;
  a = keyed(a); b = keyed(b);
  if (plain(a) && plain(b)) return [...new Set([...Object.keys(a), ...Object.keys(b)])].flatMap(k => differences(a[k], b[k], path ? `${path}.${k}` : k));
  return JSON.stringify(a) === JSON.stringify(b) ? [] : [{ path, before: a ?? null, after: b ?? null }];
}
export function table(body, changes) {
  const words = v => v === null || v === undefined ? "—" : typeof v === "string" ? v : JSON.stringify(v);
  body.replaceChildren(...changes.map(c => {
    const tr = document.createElement("tr");
    for (const text of [c.path, words(c.before), words(c.after)]) { const td = document.createElement("td"); td.className = "mono wrap"; td.textContent = text; tr.append(td); }
    return tr;
  }));
}
async function conflict(form, based, version, doc) {
  const [old, versions] = [await ask(`GET /api/v1/config/versions/${based}`), await ask("GET /api/v1/config/versions")];
  const ban = $("#conflict"), theirs = (versions?.[1] ?? []).filter(v => v.version > based);
  $("span", ban).textContent = theirs.map(v => `${v.actor} · ${when(v.at, "toLocaleTimeString")} · ${v.reason}`).join("; ");
  table($("tbody", ban), old?.[0].ok ? differences(old[1], doc) : []);
  const mine = $("[data-mine]", ban), fresh = mine.cloneNode(true);
  mine.replaceWith(fresh);
  fresh.addEventListener("click", () => {
    ban.hidden = true;
    if (form.elements.document) { form.dataset.version = version; return form.elements.document.focus(); }
    form.dataset.version = version; form.requestSubmit();
  });
  raise(ban);
}

for (const form of $$("form[data-config]")) form.addEventListener("submit", e => {
  e.preventDefault();
  const where = $("[data-into=config]", form);   // a dialog that several buttons share says where by a field
  if (where) form.dataset.config = where.value;
  submit(form);
});
// the whole document: compare first, then apply
const whole = $("#whole");
if (whole) {
  const compared = async () => {
    clean(whole);
    const given = values(whole); if (!given) return;
    const got = await ask("PUT /api/v1/config?dry_run=true", given.document, { "If-Match": `"${whole.dataset.version}"` });
    if (!got) return;
    if (got[0].status === 412) { const now = await read(); return now && conflict(whole, +whole.dataset.version, now[1], now[0]); }
    if (!got[0].ok) return refused(got[1], whole);
    const card = $("#difference");
    table($("tbody", card), got[1].changes); card.hidden = false;
    $("[data-none]", card).hidden = got[1].changes.length > 0; card.scrollIntoView({ block: "nearest" });
    return got[1].changes;
  };
  $("[data-dry]").addEventListener("click", compared);
  whole.addEventListener("submit", async e => { e.preventDefault(); if (await compared()) { const given = values(whole); await send(whole, given.document, +whole.dataset.version, given.reason); } });
}
// lists of rows: one more, one less
document.addEventListener("click", e => {
  const more = e.target.closest("[data-more]"), less = e.target.closest("[data-less]");
  if (more) { const box = $("[data-rows]", more.closest("fieldset")), row = $("template", box).content.firstElementChild.cloneNode(true); box.append(row); $("input,select", row).focus(); }
  if (less) { const row = less.closest(".row"), next = row.nextElementSibling ?? row.previousElementSibling, box = row.closest("fieldset"); row.remove(); ($("[data-less]", next ?? box) ?? $("[data-more]", box)).focus(); }
});
