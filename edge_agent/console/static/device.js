// What can be asked of a device: who it is before it is added, what it can do, what a comparison would change.
import { $, $$, call, clean, t, toast, values } from "./console.js";

function pairs(list, entries) {
  list.replaceChildren(...entries.filter(([, v]) => v !== "" && v !== null && v !== undefined).flatMap(([k, v]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = k; dd.textContent = v; dd.className = "wrap"; return [dt, dd];
  }));
  $(".hint-ask", list.parentNode)?.remove();
  list.closest("[hidden]")?.removeAttribute("hidden"); list.hidden = false;
}
const count = (items, some = items) => items.length ? `${items.length}: ${some.slice(0, 20).join(", ")}${items.length > 20 ? " …" : ""}` : t("无", "none");

const probe = $("#probe");
probe?.addEventListener("click", async () => {
  const form = probe.closest("form"); clean(form);
  const { name, ...given } = values(form);
  probe.disabled = true;
  const found = await call("POST /api/v1/devices/probe", { ...given, name: name || "probe" }, {}, form);
  probe.disabled = false;
  if (!found) return;
  pairs($("#found"), [[t("厂商", "Vendor"), found.vendor], [t("型号", "Model"), found.model], [t("序列号", "Serial"), found.serial], [t("固件", "Firmware"), found.firmware]]);
  form.elements.serial.value ||= found.serial;
});

// who answers a broadcast, each to be added in place: the dialog opens with what is known filled in
const scan = $("#scan");
scan?.addEventListener("click", async () => {
  scan.disabled = true;
  const answered = await call("POST /api/v1/devices/scan");
  scan.disabled = false;
  if (!answered) return;
  const card = $("#on-network"), form = $("#add form"), labels = Object.fromEntries([...form.elements.kind.options].map(o => [o.value, o.text]));
  $("tbody", card).replaceChildren(...answered.map(found => {
    const tr = document.createElement("tr"), act = document.createElement(found.name ? "a" : "button");
    for (const [text, style] of [[`${labels[found.kind] ?? found.kind} · ${found.address}`, "full"], [[found.model, found.firmware].filter(Boolean).join(" ") || "—", ""], [found.serial, "mono"]]) { const td = document.createElement("td"); td.textContent = text; td.className = style; tr.append(td); }
    if (found.name) { act.href = `/devices/${encodeURIComponent(found.name)}`; act.textContent = found.name; }
    else {
      act.type = "button"; act.className = "btn sm"; act.textContent = t("添加…", "Add…"); act.setAttribute("aria-label", t(`添加 ${found.serial}`, `Add ${found.serial}`));
      act.addEventListener("click", () => { for (const k of ["kind", "address", "serial"]) form.elements[k].value = found[k]; form.elements.name.value = `${found.kind}-${found.serial}`.toLowerCase(); const d = $("#add"); d.returnFocus = act; d.showModal(); form.elements.name.focus(); });
    }
    const td = document.createElement("td"); td.append(act); tr.append(td); return tr;
  }));
  $("[data-none]", card).hidden = answered.length > 0; $(".tw", card).hidden = !answered.length; card.hidden = false; card.focus();
});

for (const b of $$("[data-ask]")) b.addEventListener("click", async () => {
  const url = `/api/v1/devices/${encodeURIComponent(b.dataset.device)}`, out = $(b.dataset.out);
  b.disabled = true;
  await {
    async capabilities() {
      const c = await call(`GET ${url}/capabilities`);
      if (c) pairs(out, [[t("能做", "Can do"), c.features.join(", ")], [t("用户", "Users"), c.max_users && `${c.users} / ${c.max_users}`], [t("记录", "Records"), c.max_records && `${c.records} / ${c.max_records}`], [t("门", "Doors"), c.doors], [t("指纹算法", "Finger algorithm"), c.finger_algorithm], [t("人脸算法", "Face algorithm"), c.face_algorithm]]);
    },
    async clock() {
      const c = await call(`POST ${url}/clock`);
      if (c) { toast(t(`已校时，现在差 ${c.result.clock_offset_s} 秒`, `Clock set; now ${c.result.clock_offset_s} s off`)); }
    },
    async retry() { if (await call(`POST ${url}/retry`)) toast(t("正在重试", "Trying now")); },
    async preview() {
      const p = await call(`GET ${url}/sync`); if (!p) return;
      pairs(out, [[t("将添加", "Would add"), count(p.add)], [t("将修改", "Would change"), count(p.change, p.change.map(c => `${c.key} (${c.fields.join(" ")})`))], [t("将删除", "Would remove"), count(p.remove)], [t("不变", "Unchanged"), p.unchanged], [t("别人放的，不动", "Put there by others, left alone"), count(p.foreign)], [t("设备不收", "The device refuses"), count(p.refused, p.refused.map(r => `${r.key}: ${r.reason}`))], [t("卡号未知", "Card number not known"), count(p.cards_unknown)]]);
      const apply = $("[data-ask=apply]"); if (apply) apply.hidden = !p.kept;
    },
    async apply() {
      const timer = setInterval(async () => { const s = await call(`GET ${url}/sync/progress`); if (s?.running) b.textContent = `${s.done} / ${s.total}`; }, 700), idle = b.textContent;
      const r = await call(`POST ${url}/sync`);
      clearInterval(timer); b.textContent = idle;
      if (r) pairs(out, [[t("已完成", "Done"), r.done], [t("没成", "Failed"), count(r.failed, r.failed.map(f => `${f.key}: ${f.reason}`))], [t("中断", "Interrupted"), r.interrupted]]);
    },
  }[b.dataset.ask]();
  b.disabled = false;
});
