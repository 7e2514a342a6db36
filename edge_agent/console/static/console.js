// Console behaviours. One module, no dependencies, no build. Pages are plain links, forms and <details>;
// this adds what a page cannot do alone: calls to the API, live rows, hold-to-open, table keys, dialogs, toasts.
const $ = (s, r = document) => r.querySelector(s), $$ = (s, r = document) => [...r.querySelectorAll(s)];
const zh = document.documentElement.lang.startsWith("zh"), t = (a, b) => zh ? a : b;

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
export function fault(title, text) {
  const ban = $("#fault");
  $("b", ban).textContent = title; $("span", ban).textContent = text; ban.hidden = false; ban.focus();
}

// calls to the API: "METHOD /path" in data-form (forms) or data-call (buttons); data-then is where to go after
export async function call(what, body, headers = {}) {
  const [method, url] = what.split(" ");
  const init = { method, headers: { Accept: "application/json", ...headers } };
  const csrf = document.body.dataset.csrf;
  if (csrf) init.headers["X-CSRF-Token"] = csrf;
  if (body instanceof FormData) init.body = body;
  else if (body !== undefined) { init.body = JSON.stringify(body); init.headers["Content-Type"] = "application/json"; }
  let answer;
  try { answer = await fetch(url, init); }
  catch { fault(t("网关没有回答", "The gateway did not answer"), t("没有任何改动。请检查网络后再试。", "Nothing was changed. Check the network and try again.")); return null; }
  const data = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (answer.ok) { const ban = $("#fault"); if (ban) ban.hidden = true; return data; }
  if (answer.status === 401 && csrf) { location.href = "/login"; return null; }
  const changed = answer.status === 412;
  fault(changed ? t("有人先改过了", "Somebody changed it first") : t("没有完成，什么都没改", "Not done; nothing was changed"),
    [data.detail, data.request_id && `${t("编号", "request")} ${data.request_id}`].filter(Boolean).join(" · "));
  for (const f of data.errors ?? []) {
    const input = document.getElementsByName(f.field.split(".").pop())[0];
    input?.setAttribute("aria-invalid", "true");
  }
  return null;
}
function values(form) {
  const body = {};
  for (const el of form.elements) {
    if (!el.name || el.disabled || (el.type === "radio" && !el.checked)) continue;
    let v = el.type === "checkbox" ? el.checked : el.value;
    if (el.type === "checkbox" && el.hasAttribute("value")) { (body[el.name] ??= []); if (el.checked) body[el.name].push(el.value); continue; }
    if (el.dataset.as === "number") v = v === "" ? null : +v;
    if (el.dataset.as === "json") { try { v = JSON.parse(v); } catch (e) { fault(t("不是有效的 JSON", "Not valid JSON"), e.message); return null; } }
    if (v === "" && el.dataset.empty === "omit") continue;
    body[el.name] = v;
  }
  return body;
}
function done(el, data) {
  if (el.dataset.then) { location.href = el.dataset.then.replace("{name}", encodeURIComponent(data.name ?? data.id ?? "")); return; }
  if (el.dataset.show) { const out = $(el.dataset.show); out.textContent = data.token ?? JSON.stringify(data, null, 2); out.closest("[hidden]")?.removeAttribute("hidden"); out.hidden = false; }
  if (el.dataset.qr) {
    const next = $(el.dataset.qr); next.hidden = false; el.hidden = true;
    $("[data-secret]", next).textContent = data.secret; $("[data-picture]", next).src = "data:image/svg+xml," + encodeURIComponent(data.svg); $("input", next).focus();
  }
  if (el.dataset.done) { sessionStorage.setItem("toast", el.dataset.done); location.reload(); }
}
{ const kept = sessionStorage.getItem("toast"); if (kept) { sessionStorage.removeItem("toast"); toast(kept); } }
for (const form of $$("form[data-form]")) form.addEventListener("submit", async e => {
  e.preventDefault();
  const body = form.dataset.raw ? undefined : values(form); if (body === null) return;
  const button = $("[type=submit]", form); if (button) button.disabled = true;
  const headers = form.dataset.etag ? { "If-Match": form.dataset.etag } : {};
  if (form.dataset.key) headers["Idempotency-Key"] = crypto.randomUUID();
  let what = form.dataset.form;
  for (const k of (form.dataset.path ?? "").split(" ").filter(Boolean)) { what = what.replace(`{${k}}`, encodeURIComponent(body[k])); delete body[k]; }
  const data = await call(what, form.dataset.whole ? body[form.dataset.whole] : form.enctype === "multipart/form-data" ? new FormData(form) : body, headers);
  if (button) button.disabled = false;
  if (data) { form.closest("dialog")?.close(); done(form, data); }
});
for (const b of $$("[data-call]")) b.addEventListener("click", async () => {
  b.disabled = true;
  const headers = b.dataset.etag ? { "If-Match": b.dataset.etag } : {};
  const data = await call(b.dataset.call, b.dataset.body ? JSON.parse(b.dataset.body) : undefined, headers);
  b.disabled = false;
  if (data) done(b, data);
});

// hold to open: pointer or Space/Enter kept down for 800 ms; letting go early does nothing
for (const b of $$(".hold[data-open]")) {
  const NEED = 800; let t0 = 0, raf = 0; const label = $("span", b), idle = label.textContent;
  const tick = now => { const p = Math.min(1, (now - t0) / NEED); b.style.setProperty("--p", p); p < 1 ? raf = requestAnimationFrame(tick) : fire(); };
  const start = () => { if (!t0 && !b.classList.contains("done")) { t0 = performance.now(); label.textContent = t("继续按住…", "Keep holding…"); raf = requestAnimationFrame(tick); } };
  const stop = () => { if (t0) { cancelAnimationFrame(raf); t0 = 0; b.style.setProperty("--p", 0); label.textContent = t("请按住 0.8 秒", "Hold for 0.8 s"); setTimeout(() => t0 || b.classList.contains("done") || (label.textContent = idle), 1500); } };
  const fire = async () => {
    t0 = 0; b.classList.add("done"); b.style.setProperty("--p", 0); label.textContent = t("正在开门…", "Opening…");
    const data = await call(`POST ${b.dataset.open}`, {}, { "Idempotency-Key": crypto.randomUUID() });
    if (!data || !["done", "accepted", "sent"].includes(data.state)) {
      b.classList.remove("done"); label.textContent = idle;
      if (data) fault(t("门没有打开", "The door did not open"), data.reason || data.state);
      return;
    }
    let left = Math.max(1, Math.round(data.seconds ?? 5)); navigator.vibrate?.(30);
    const say = () => label.textContent = t(`已开门，${left} 秒后上锁`, `Open, locks in ${left} s`);
    say();
    const iv = setInterval(() => { if (--left > 0) say(); else { clearInterval(iv); b.classList.remove("done"); label.textContent = idle; } }, 1000);
  };
  b.addEventListener("pointerdown", e => { if (e.button === 0) { b.setPointerCapture(e.pointerId); start(); } });
  for (const ev of ["pointerup", "pointercancel", "blur"]) b.addEventListener(ev, stop);
  b.addEventListener("keydown", e => { if (e.key === " " || e.key === "Enter") { e.preventDefault(); if (!e.repeat) start(); } });
  b.addEventListener("keyup", e => (e.key === " " || e.key === "Enter") && stop());
  b.addEventListener("contextmenu", e => e.preventDefault());
}

// dialogs: data-dialog="id"; a typed confirmation enables the button only on an exact match
for (const b of $$("[data-dialog]")) b.addEventListener("click", () => {
  const d = $("#" + b.dataset.dialog);
  for (const [k, v] of Object.entries(b.dataset)) if (k.startsWith("set")) for (const el of $$(`[data-from=${k.slice(3).toLowerCase()}]`, d)) "value" in el ? el.value = v : el.textContent = v;
  d.returnFocus = b; d.showModal();
});
for (const d of $$("dialog")) {
  const inp = $("input.typed", d), ok = $("[type=submit],[data-confirm]", d);
  inp?.addEventListener("input", () => ok.disabled = inp.value.trim() !== (d.dataset.type || inp.dataset.want));
  for (const c of $$("[data-close]", d)) c.addEventListener("click", () => d.close());
  d.addEventListener("close", () => d.returnFocus?.focus());
}

// tables: "/" finds, j/k or arrows walk, Enter opens, column heads sort; filters are real query strings on the server
for (const tb of $$("table[data-nav]")) {
  const body = tb.tBodies[0], rows = () => [...body.rows].filter(r => !r.hidden);
  rows().forEach((r, i) => r.tabIndex = i ? -1 : 0);
  tb.addEventListener("keydown", e => {
    const r = e.target.closest("tbody tr"); if (!r || e.target !== r) return;
    const all = rows(), i = all.indexOf(r), go = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[e.key];
    if (go) { e.preventDefault(); const n = all[i + go]; if (n) { r.tabIndex = -1; n.tabIndex = 0; n.focus(); } }
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
addEventListener("keydown", e => { if (e.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(e.target.tagName)) { const f = $("input[type=search]"); if (f) { e.preventDefault(); f.focus(); } } });

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
// one EventSource for the page: named "row" events fan out to the live lists, "figure" events to [data-figure]
const lists = $$("[data-live][data-src]");
if (lists.length) {
  const pushes = lists.map(l => [l.dataset.kind ?? "", live(l)]), es = new EventSource(lists[0].dataset.src), ban = $("#offline"); let late;
  es.addEventListener("row", e => { const row = JSON.parse(e.data); for (const [kind, push] of pushes) if (!kind || row.kind === kind) push(row); });
  es.addEventListener("figure", e => { for (const [k, v] of Object.entries(JSON.parse(e.data))) for (const el of $$(`[data-figure="${k}"]`)) if (el.textContent !== v) el.textContent = v; });
  es.onerror = () => late ??= setTimeout(() => ban.hidden = false, 3000);   // a blip is not news
  es.onopen = () => { clearTimeout(late); late = undefined; ban.hidden = true; };
  addEventListener("pagehide", () => es.close());
}
