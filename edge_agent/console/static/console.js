// Console behaviours. Modules without dependencies, no build. Pages are plain links, forms and <details>;
// this adds what a page cannot do alone: calls to the API, live rows, hold-to-open, table keys, dialogs, toasts.
export const $ = (s, r = document) => r.querySelector(s), $$ = (s, r = document) => [...r.querySelectorAll(s)];
const zh = document.documentElement.lang.startsWith("zh");
export const t = (a, b) => zh ? a : b;
// A moment on the site's clock, not on this computer's.
export const when = (moment, form = "toLocaleString") => new Date(moment)[form](document.documentElement.lang, { timeZone: document.body.dataset.zone, hour12: false });

$("#theme")?.addEventListener("click", () => {
  const r = document.documentElement, dark = r.dataset.theme ? r.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  r.dataset.theme = dark ? "light" : "dark";
  document.cookie = `theme=${r.dataset.theme};path=/;max-age=31536000;samesite=lax;secure`;
});

// A toast says that something you did worked. Errors and alarms are banners that stay.
export function toast(text) {
  const el = document.createElement("div");
  el.className = "toast"; el.textContent = text; $("#toasts").append(el);
  setTimeout(() => el.remove(), 6000);
}
export const toastAfterLoad = text => sessionStorage.setItem("toast", text);
{ const kept = sessionStorage.getItem("toast"); if (kept) { sessionStorage.removeItem("toast"); toast(kept); } }

// A banner stands at the top of what the person is in: the open dialog, else the page. Focus moves to it.
export function raise(ban) {
  const dialog = $("dialog[open] .pad"), home = dialog ?? $("#main");
  if (ban.parentNode !== home) home.prepend(ban);
  ban.hidden = false; ban.focus();
}
export function fault(title, text = "", fields = [], facts = "", link) {
  const ban = $("#fault"), list = $("ul", ban);
  $("b", ban).textContent = title; $("span", ban).textContent = text; $("small", ban).textContent = facts;
  list.replaceChildren(...fields.map(([input, words]) => {
    const li = document.createElement("li"), a = document.createElement("a");
    a.href = `#${input.id}`; a.textContent = words;
    a.addEventListener("click", e => { e.preventDefault(); input.focus(); });
    li.append(a); return li;
  }));
  if (link) { const li = document.createElement("li"), a = document.createElement("a"); [a.href, a.textContent] = link; li.append(a); list.append(li); }
  raise(ban);
}
// What a form refused: the summary on top, the words at each field, and the input kept.
function marked(form, name) {
  const key = name.split(/[.\]/]/).filter(Boolean).pop();
  return [...form.elements].find(el => el.name === key || el.name.split(".").pop() === key);
}
export function clean(form) {
  for (const el of $$(".msg", form)) el.remove();
  for (const el of $$("[aria-invalid]", form)) { el.removeAttribute("aria-invalid"); el.closest(".err")?.classList.remove("err"); }
}
export function say(input, words) {
  const p = document.createElement("p");
  input.id ||= `f${Math.random().toString(36).slice(2)}`;
  p.className = "msg"; p.id = `${input.id}-msg`; p.textContent = words;
  input.before(p); input.setAttribute("aria-invalid", "true"); input.setAttribute("aria-describedby", p.id);
  input.closest(".field")?.classList.add("err");
}
export async function refused(data, form) {
  const fields = [];
  for (const f of form ? data.errors ?? [] : []) {
    const input = marked(form, f.field);
    if (input) { say(input, f.problem); fields.push([input, `${f.field.replace(/^body\./, "")}: ${f.problem}`]); }
  }
  const title = data.code === "stale" ? t("有人先改过了", "Somebody changed it first") : t("没有完成，什么都没改", "Not done; nothing was changed");
  const link = data.code === "stale" && !form ? [location.href, t("看现在的样子", "See how it is now")] : undefined;
  const { PROBLEMS } = await import("./problems.js").catch(() => ({ PROBLEMS: {} }));   // only when something is refused
  const words = data.code !== "stale" && PROBLEMS[data.code] ? t(...PROBLEMS[data.code]) : "";
  fault(title, words, fields, [data.detail, data.request_id && `${t("编号", "request")} ${data.request_id}`].filter(Boolean).join(" · "), link);
}

// One call to the API: [status, body, headers], or null if nothing answered. Every change carries the CSRF token.
async function sent(what, body, headers = {}) {
  const [method, url] = what.split(" "), csrf = document.body.dataset.csrf;
  const init = { method, headers: { Accept: "application/json", ...headers } };
  if (csrf && method !== "GET") init.headers["X-CSRF-Token"] = csrf;
  if (body instanceof FormData) init.body = body;
  else if (body !== undefined) { init.body = JSON.stringify(body); init.headers["Content-Type"] = "application/json"; }
  let answer;
  try { answer = await fetch(url, init); }
  catch { fault(t("网关没有回答", "The gateway did not answer"), t("没有任何改动。请检查网络后再试。", "Nothing was changed. Check the network and try again.")); return null; }
  if (answer.status === 401 && csrf) { location.href = "/login"; return null; }
  return [answer];
}
export async function ask(what, body, headers) {
  const got = await sent(what, body, headers); if (!got) return null;
  return [got[0], got[0].status === 204 ? {} : await got[0].json().catch(() => ({}))];
}
export async function call(what, body, headers, form) {
  const got = await ask(what, body, headers);
  if (!got) return null;
  const [answer, data] = got;
  if (answer.status === 202 && data.state === "waiting") { waits(data); return null; }
  if (answer.ok) { $("#fault").hidden = true; return data; }
  if (answer.status === 412 && form?.dataset.now && !await unchanged(form)) return null;
  if (answer.status === 412 && !form) renew();
  await refused(data, form);
  return null;
}
// A form that names where it was read (data-now) and what stood there (data-base) is sent under the version that still
// holds that. If somebody was first, what stands there now is shown where it differs, and sending again means: mine.
async function unchanged(form) {
  const got = await ask(`GET ${form.dataset.now.replace(/\{(\w+)\}/g, (_, k) => encodeURIComponent(form.elements[k].value))}`);
  if (!got?.[0].ok) return got && refused(got[1], form);
  const [answer, now] = got, held = $("[data-into=base]", form), base = JSON.parse(held?.value ?? form.dataset.base);
  const moved = Object.keys(base).filter(k => JSON.stringify(base[k]) !== JSON.stringify(now[k]));
  if (!moved.length) return { "If-Match": answer.headers.get("etag") };
  const seen = JSON.stringify(Object.fromEntries(Object.keys(base).map(k => [k, now[k]])));
  if (held) held.value = seen; else form.dataset.base = seen;
  const lines = moved.map(k => `${marked(form, k)?.labels?.[0]?.textContent ?? NAMES[k] ?? k}${t("：", ": ")}${plainly(now[k])}`).join(t("；", "; "));
  fault(t("有人先改过了", "Somebody changed it first"), t(`现在是 ${lines}。您填的还在；再保存一次就以您的为准。`, `It is now ${lines}. What you typed is still here; save again to put yours in its place.`));
}
const NAMES = { cards: t("卡片", "cards"), has_pin: t("有密码", "has a PIN"), role: t("角色", "role"), second_factor: t("第二因素", "second factor"), disabled: t("停用", "shut") };
const plainly = v => v === null || v === "" || v?.length === 0 ? "—" : Array.isArray(v) ? v.join(", ") : typeof v === "boolean" ? v ? t("是", "yes") : t("否", "no") : /^\d{4}-\d\d-\d\dT/.test(v) ? when(v) : String(v);
// An act that needs a second person has been put down and waits; nothing has happened yet.
export function waits({ id, expires_at }) {
  $("dialog[open]")?.close();
  const until = when(expires_at);
  fault(t("等另一位批准", "Waits for a second person"), t(`已登记为 ${id}，现在什么都没发生。另一位有此权限的人在 ${until} 前批准才会执行。`, `Put down as ${id}; nothing has happened yet. It happens once another person with this right approves it by ${until}.`), [], "", [`/approvals#${id}`, t("看它到哪一步了", "See where it stands")]);
}
// A file is only what came with the right to it: an answer that waits for a second person is said, never saved.
async function save(b, body, form) {
  const got = await sent(b.dataset.save, body); if (!got) return;
  const [answer] = got, waiting = answer.status === 202;
  if (!answer.ok || waiting) { const data = await answer.json().catch(() => ({})); return waiting ? waits(data) : refused(data, form); }
  const a = document.createElement("a"); a.href = URL.createObjectURL(await answer.blob()); a.download = b.dataset.as; a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60000);
  form?.closest("dialog")?.close(); toast(t("已保存到您的电脑", "Saved to your computer"));
}

export function values(form) {
  const body = {};
  for (const el of form.elements) {
    if (!el.name || el.disabled || (el.type === "radio" && !el.checked)) continue;
    if ("changed" in el.dataset && el.value === el.defaultValue) continue;   // shown less exactly than it is kept
    let v = el.type === "checkbox" ? el.checked : el.value;
    if (el.type === "checkbox" && el.hasAttribute("value")) { (body[el.name] ??= []); if (el.checked) body[el.name].push(el.value); continue; }
    if (el.dataset.as === "number") v = v === "" ? null : +v;
    if (el.dataset.as === "list") v = v.split(/[,，、\n]/).map(s => s.trim()).filter(Boolean);
    if (el.dataset.as === "combos") v = v.split(/[,，、;]/).map(s => s.split("+").map(x => x.trim()).filter(Boolean)).filter(c => c.length);
    if (el.dataset.as === "json") { try { v = JSON.parse(v); } catch (e) { say(el, e.message); fault(t("不是有效的 JSON", "Not valid JSON"), e.message, [[el, e.message]]); return null; } }
    if (v === "" && el.dataset.empty === "omit") continue;
    if (v === "" && el.dataset.empty === "null") v = null;
    body[el.name] = v;
  }
  return body;
}
export function done(el, data) {
  const then = data.role === "security" && el.dataset.guard || el.dataset.then;
  if (then) { if (el.dataset.done) toastAfterLoad(el.dataset.done); location.href = then.replace("{name}", encodeURIComponent(data.name ?? data.id ?? "")); return; }
  if (el.dataset.show) { const out = $(el.dataset.show); out.textContent = data.token ?? JSON.stringify(data, null, 2); out.closest("[hidden]")?.removeAttribute("hidden"); out.hidden = false; }
  if (el.dataset.report) {
    const out = $(el.dataset.report);
    $("[data-sum]", out).textContent = t(`添加 ${data.added}，更新 ${data.changed}，没收 ${data.refused.length}`, `${data.added} added, ${data.changed} changed, ${data.refused.length} refused`);
    $("tbody", out).replaceChildren(...data.refused.map(r => { const tr = document.createElement("tr"); tr.append(...[r.line, r.column, r.problem].map((v, n) => { const td = document.createElement("td"); td.textContent = v; if (!n) td.className = "num mono"; return td; })); return tr; }));
    $("table", out).hidden = !data.refused.length; out.hidden = false; out.focus(); return;
  }
  if (el.dataset.qr) {
    const next = $(el.dataset.qr); next.hidden = false; el.hidden = true;
    $("[data-secret]", next).textContent = data.secret; $("[data-picture]", next).src = "data:image/svg+xml," + encodeURIComponent(data.svg); $("input", next).focus();
  }
  if (el.dataset.done && !el.dataset.show) { toastAfterLoad(el.dataset.done); location.reload(); }
}
// "METHOD /path" in data-form (forms) or data-call (buttons); data-then is where to go after
for (const form of $$("form[data-form],form[data-save]")) form.addEventListener("submit", async e => {
  e.preventDefault(); clean(form);
  const body = form.dataset.raw ? undefined : values(form); if (body === null) return;
  const button = e.submitter ?? $("[type=submit]", form); if (button) button.disabled = true;
  if (form.dataset.save) { await save(form, body, form); if (button) button.disabled = false; return; }
  const headers = form.dataset.now ? await unchanged(form) : {};
  if (!headers) { if (button) button.disabled = false; return; }
  if (form.dataset.key) headers["Idempotency-Key"] = crypto.randomUUID();
  let what = form.dataset.form;
  for (const k of (form.dataset.path ?? "").split(" ").filter(Boolean)) { what = what.replace(`{${k}}`, encodeURIComponent(body[k])); delete body[k]; }
  const data = await call(what, form.dataset.whole ? body[form.dataset.whole] : form.enctype === "multipart/form-data" ? new FormData(form) : body, headers, form);
  if (button) button.disabled = false;
  if (data && ["failed", "unknown"].includes(data.state)) return fault(t("设备没有完成", "The device did not do it"), data.reason || data.state);
  if (data) { if (!form.dataset.keep) form.closest("dialog")?.close(); done(form, data); }
});
document.addEventListener("click", async e => {
  const file = e.target.closest("button[data-save]");
  if (file) { file.disabled = true; await save(file, file.dataset.body && JSON.parse(file.dataset.body)); file.disabled = false; return; }
  const b = e.target.closest("[data-call]"); if (!b) return;
  b.disabled = true; if (b.closest("details.menu")) b.closest("details.menu").open = false;
  const headers = b.dataset.etag ? { "If-Match": b.dataset.etag } : {};
  const data = await call(b.dataset.call, b.dataset.body ? JSON.parse(b.dataset.body) : undefined, headers);
  b.disabled = false;
  if (data) { b.closest("dialog")?.close(); done(b, data); }
});

// hold to open: pointer or Space/Enter kept down for 800 ms; letting go early does nothing
function holdable(b) {
  const NEED = 800; let t0 = 0, raf = 0; const label = $("span", b), idle = label.textContent;
  const tick = now => { const p = Math.min(1, (now - t0) / NEED); b.style.setProperty("--p", p); p < 1 ? raf = requestAnimationFrame(tick) : fire(); };
  const start = () => { if (!t0 && !b.classList.contains("done")) { t0 = performance.now(); b.dataset.held = ""; label.textContent = t("继续按住…", "Keep holding…"); raf = requestAnimationFrame(tick); } };
  const stop = () => { if (t0) { cancelAnimationFrame(raf); t0 = 0; delete b.dataset.held; b.style.setProperty("--p", 0); label.textContent = t("请按住 0.8 秒", "Hold for 0.8 s"); setTimeout(() => t0 || b.classList.contains("done") || (label.textContent = idle), 1500); } };
  const rest = () => { b.classList.remove("done"); label.textContent = idle; };
  const fire = async () => {
    t0 = 0; delete b.dataset.held; b.classList.add("done"); b.style.setProperty("--p", 0); label.textContent = t("正在开门…", "Opening…");
    const data = await call(`POST ${b.dataset.open}`, {}, { "Idempotency-Key": crypto.randomUUID() });
    if (!data || !["done", "accepted", "sent"].includes(data.state)) {
      rest();
      if (data) fault(t("门没有打开", "The door did not open"), data.reason || data.state);
      return;
    }
    let left = Math.max(1, Math.round(data.seconds ?? 5)); navigator.vibrate?.(30);
    const tell = () => label.textContent = t(`已开门，${left} 秒后上锁`, `Open, locks in ${left} s`);
    tell();
    const iv = setInterval(() => { if (--left > 0) tell(); else { clearInterval(iv); rest(); } }, 1000);
  };
  b.addEventListener("pointerdown", e => { if (e.button === 0) { b.setPointerCapture(e.pointerId); start(); } });
  for (const ev of ["pointerup", "pointercancel", "blur"]) b.addEventListener(ev, stop);
  b.addEventListener("keydown", e => { if (e.key === " " || e.key === "Enter") { e.preventDefault(); if (!e.repeat) start(); } });
  b.addEventListener("keyup", e => (e.key === " " || e.key === "Enter") && stop());
  b.addEventListener("contextmenu", e => e.preventDefault());
}
for (const b of $$(".hold[data-open]")) holdable(b);

// dialogs: data-dialog="id"; a typed confirmation enables the button only on an exact match
document.addEventListener("click", e => {
  const b = e.target.closest("[data-dialog]"); if (!b) return;
  const d = $("#" + b.dataset.dialog);
  for (const [k, v] of Object.entries(b.dataset)) if (k.startsWith("set")) for (const el of $$(`[data-from=${k.slice(3).toLowerCase()}]`, d)) "value" in el ? el.value = v : el.textContent = v;
  d.returnFocus = b; d.showModal();
});
for (const d of $$("dialog")) {
  const inp = $("input.typed", d), ok = $("[type=submit],[data-confirm]", d);
  inp?.addEventListener("input", () => ok.disabled = inp.value.trim() !== (d.dataset.type || inp.dataset.want));
  for (const c of $$("[data-close]", d)) c.addEventListener("click", () => d.close());
  d.addEventListener("close", () => { for (const ban of $$(".ban", d)) { ban.hidden = true; $("#main").prepend(ban); } d.returnFocus?.isConnected && d.returnFocus.focus(); });
}
// an open menu closes on Escape and on a click elsewhere
const menus = () => $$("details.menu[open],details.who[open]");
addEventListener("keydown", e => { if (e.key === "Escape") for (const m of menus()) { m.open = false; $("summary", m).focus(); } });
addEventListener("click", e => { for (const m of menus()) if (!m.contains(e.target)) m.open = false; });

// tables: "/" finds, j/k or arrows walk, Enter opens, column heads sort; filters are real query strings on the server
for (const tb of $$("table[data-nav]")) {
  const body = tb.tBodies[0], rows = () => [...body.rows].filter(r => !r.hidden);
  rows().forEach((r, i) => r.tabIndex = i ? -1 : 0);
  tb.addEventListener("keydown", e => {
    const r = e.target.closest("tbody tr"); if (!r || e.target !== r) return;
    const all = rows(), i = all.indexOf(r), go = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[e.key];
    if (go) { e.preventDefault(); e.stopPropagation(); const n = all[i + go]; if (n) { r.tabIndex = -1; n.tabIndex = 0; n.focus(); } }
    if (e.key === "Enter") $("a", r)?.click();
  });
  $$("th button", tb).forEach(h => h.addEventListener("click", () => {
    const th = h.parentNode, up = th.ariaSort !== "ascending", n = th.cellIndex, col = new Intl.Collator(document.documentElement.lang, { numeric: true });
    $$("th", tb).forEach(x => x.removeAttribute("aria-sort")); th.ariaSort = up ? "ascending" : "descending";
    body.append(...rows().sort((a, b) => col.compare(a.cells[n].innerText, b.cells[n].innerText) * (up ? 1 : -1)));
  }));
  const card = tb.closest(".card"), find = $("input[type=search]:not([name])", card), count = $("[data-count]", card);
  find?.addEventListener("input", () => { const q = find.value.toLowerCase(); for (const r of body.rows) r.hidden = !r.textContent.toLowerCase().includes(q); if (count) count.textContent = rows().length; });
}
addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|TEXTAREA|SELECT/.test(e.target.tagName) || $("dialog[open]")) return;
  const to = e.key === "/" ? $("input[type=search]") : "jk".includes(e.key) ? $("table[data-nav] tbody tr[tabindex='0']") : null;
  if (to) { e.preventDefault(); to.focus(); }
});
for (const b of $$("[data-print]")) b.addEventListener("click", () => print());

// the gateway's clock goes on from where the page began
const clock = $("time[data-clock]"), began = performance.now();
if (clock) setInterval(() => { const s = (+clock.dataset.clock + Math.floor((performance.now() - began) / 1000)) % 86400, p = n => String(n).padStart(2, "0"); clock.textContent = `${p(s / 3600 | 0)}:${p((s / 60 | 0) % 60)}:${p(s % 60)}`; }, 1000);

// live rows: events queue, one flush per frame, a fixed pool of rows reused from the bottom
function live(list, max = +list.dataset.live || 10) {
  let q = [], raf = 0, paused = false; const tpl = $("template", list);
  const flush = () => {
    raf = 0; if (q.length > max) q = q.slice(-max);
    for (const ev of q) {
      const rows = $$(".lr", list), row = rows.length >= max ? rows.at(-1) : tpl.content.firstElementChild.cloneNode(true);
      for (const n of $$("[data-f]", row)) { const v = ev[n.dataset.f] ?? ""; if (n.textContent !== v) n.textContent = v; }
      $(".pill", row).className = "pill " + ev.tone; row.classList.remove("new"); list.prepend(row); if (q.length < 4) { void row.offsetWidth; row.classList.add("new"); }
    }
    q = [];
  };
  const pb = $("[data-pause]", list.closest(".card"));
  pb?.addEventListener("click", () => { paused = !paused; pb.setAttribute("aria-pressed", paused); pb.textContent = paused ? t("继续", "Resume") : t("暂停", "Pause"); if (!paused && q.length) flush(); });
  return ev => { q.push(ev); if (q.length > 500) q.shift(); if (!paused && !raf && !document.hidden) raf = requestAnimationFrame(flush); };
}
// What a page shows of the gateway's state (data-part, never a field somebody types in) is made again by the server when
// that has changed since the page was read.
const named = n => n.id || n.getAttribute("aria-label") || n.getAttribute("href") || n.dataset.call || n.textContent;
let shown = document.body.dataset.digest, fetching = false, begun = 0, waiting;
const later = ms => { waiting ??= setTimeout(() => { waiting = undefined; renew(); }, ms); };
async function renew() {
  if (fetching || document.hidden || $("dialog[open],details.menu[open],[data-held]")) return later(2000);
  fetching = true; begun = Date.now();
  try {
    const answer = await fetch(location.href);
    if (answer.redirected || (answer.status >= 400 && answer.status < 500)) return;
    if (!answer.ok) throw answer;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of $$("[data-part]")) {
      const made = $(`[data-part="${part.dataset.part}"]`, page), at = document.activeElement;
      if (!made || made.innerHTML === part.innerHTML) continue;
      const kept = part.contains(at) ? named(at) : undefined, next = document.importNode(made, true);
      for (const b of $$(".hold[data-open]", next)) holdable(b);
      for (const b of $$(".hold.done", part)) $(`.hold[data-open="${CSS.escape(b.dataset.open)}"]`, next)?.replaceWith(b);   // it is counting
      part.replaceChildren(...next.childNodes);
      if (kept !== undefined) ($$("a,button,summary", part).find(n => named(n) === kept) ?? $("#main")).focus({ preventScroll: true });
    }
    shown = page.body.dataset.digest;
  } catch { later(5000); } finally { fetching = false; }
}
function state({ lamps, worst, counts, digest }) {
  const plate = $$(".lamps:not(.m) .lamp");
  if (plate.length === lamps.length) plate.forEach((a, n) => { $(".led", a).className = "led " + lamps[n][0]; const b = $("b", a); if (b.textContent !== lamps[n][1]) b.textContent = lamps[n][1]; });
  const one = $(".lamps.m .lamp");
  if (one) { $(".led", one).className = "led " + worst[0]; $("span", one).textContent = worst[0] ? worst[1] : t("一切正常", "All normal"); }
  for (const [key, [count, tone]] of Object.entries(counts)) for (const n of $$(`[data-count-of="${key}"]`)) { n.textContent = count; n.hidden = !count; if (n.classList.contains("n")) n.className = "n " + tone; }
  if ($("[data-part]") && digest !== shown) renew();
}
// one EventSource for the page: "row" events fan out to the live lists, "figure" to [data-figure], "state" to lamps
const source = document.body.dataset.live;
if (source) {
  const pushes = $$("[data-live][data-kind]").map(l => [l.dataset.kind, live(l)]), ban = $("#offline");
  let es, late, since = "";
  const open = () => {
    es = new EventSource(source);
    es.addEventListener("row", e => { const row = JSON.parse(e.data); for (const [kind, push] of pushes) if (!kind || row.kind === kind) push(row); if ($("[data-part='chart']") && Date.now() - begun > 20000) renew(); });
    es.addEventListener("figure", e => { for (const [k, v] of Object.entries(JSON.parse(e.data))) for (const el of $$(`[data-figure="${k}"]`)) if (el.textContent !== v) el.textContent = v; });
    es.addEventListener("state", e => state(JSON.parse(e.data)));
    es.onopen = () => { clearTimeout(late); late = undefined; ban.hidden = true; };
    es.onerror = async () => {   // a blip is not news
      since ||= clock?.textContent; late ??= setTimeout(() => { $("[data-since]", ban).textContent = since; ban.hidden = false; }, 3000);
      if (es.readyState !== EventSource.CLOSED) return;
      const me = await fetch("/api/v1/session/me").catch(() => null);
      if (me?.status === 401) location.href = "/login"; else setTimeout(open, 5000);
    };
  };
  begun = Date.now(); open();
  addEventListener("pagehide", () => es.close());
}
