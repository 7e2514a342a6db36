// Lists that are the caller's own: what waits for a second person, and incidents. Made from <template>, one card an item.
import { $, ask, call, t, toastAfterLoad, when } from "./console.js";
const box = $("[data-list]"), noun = box.dataset.list, at = s => s ? when(s) : "—";
const STATES = { waiting: ["info", "等待批准", "Waiting"], approved: ["ok", "已批准", "Approved"], refused: ["off", "已拒绝", "Refused"], done: ["ok", "已执行", "Done"], failed: ["bad", "没有完成", "Failed"], expired: ["off", "已过期", "Expired"] };
const ACTS = { "door.open": ["开门", "Open a door"], "door.mode": ["改门的模式", "Change a door"], "doors.lockdown": ["封锁或解除", "Lockdown or its end"], "person.erase": ["擦除", "Erase"], "person.export": ["导出本人数据", "Export somebody's data"], "person.disclose": ["提供给第三方", "Disclose to somebody else"], "keys.rotate": ["轮换主密钥", "Rotate the master key"], "events.export": ["导出事件", "Export events"], "two_people.change": ["改双人规则", "Change which acts need two"], "gateway.decommission": ["停用网关", "Decommission"] };
const KINDS = { tamper: ["防拆", "Tamper"], intrusion: ["入侵", "Intrusion"], audit: ["审计链", "Audit chain"], loss: ["遗失", "Loss"], disclosure: ["泄露", "Disclosure"], other: ["其他", "Other"] };
const words = pair => pair && t(pair.at(-2), pair.at(-1));

const SHOW = {
  approvals: a => ({
    title: words(ACTS[a.name]) ?? a.name, state: STATES[a.state] ?? ["off", a.state, a.state],
    facts: [[t("谁提出", "Asked by"), a.person], [t("什么", "What"), Object.entries(a.asked).map(([k, v]) => `${k}: ${typeof v === "string" ? v : JSON.stringify(v)}`).join(", ") || "—"], [t("提出于", "Asked"), at(a.asked_at)], [t("有效到", "Until"), at(a.expires_at)], ...(a.decided_by ? [[t("谁决定", "Decided by"), `${a.decided_by} · ${at(a.decided_at)}`]] : []), ...(a.outcome ? [[t("结果", "Outcome"), a.outcome]] : [])],
    acts: a.state === "waiting" ? ["approve", "refuse"] : [], open: a.state === "waiting",
  }),
  incidents: i => ({
    title: `${words(KINDS[i.kind]) ?? i.kind} · ${i.id}`, state: i.closed_at ? ["off", "已关闭", "Closed"] : i.frozen ? ["warn", "采集已停", "Capture rests"] : ["bad", "进行中", "Open"],
    facts: [[t("说明", "Note"), i.note || "—"], [t("可能受影响自", "Affected since"), at(i.since)], [t("开立", "Opened"), `${at(i.opened_at)} · ${i.opened_by}`], [t("密钥更换", "Keys exchanged"), at(i.keys_at)], ...(i.closed_at ? [[t("关闭", "Closed"), `${at(i.closed_at)} · ${i.closed_by}`]] : [])],
    acts: i.closed_at ? [] : [i.frozen ? "thaw" : "freeze", "close"], open: !i.closed_at,
  }),
};
const LABELS = { approve: t("批准", "Approve"), refuse: t("拒绝", "Refuse"), freeze: t("停止采集和比对", "Stop capture and matching"), thaw: t("恢复采集", "Resume capture"), close: t("关闭", "Close") };

const got = await ask(`GET /api/v1/${noun}`);
if (got?.[0].ok) {
  const items = got[1].map(item => [item, SHOW[noun](item)]).sort((a, b) => b[1].open - a[1].open);
  const waiting = items.filter(([, s]) => s.open).length;
  $("h1").textContent = waiting ? $("h1").dataset.some.replace("%d", waiting) : $("h1").dataset.none;
  for (const [item, shown] of items) {
    const card = $("template", box).content.firstElementChild.cloneNode(true), pill = $(".pill", card), acts = $(".acts", card);
    $("h2", card).textContent = shown.title; pill.className = `pill ${shown.state[0]}`; pill.textContent = words(shown.state);
    for (const [k, v] of shown.facts) { const dt = document.createElement("dt"), dd = document.createElement("dd"); dt.textContent = k; dd.textContent = v; dd.className = "wrap"; $("dl", card).append(dt, dd); }
    for (const act of box.dataset.acts ? shown.acts : []) {
      const b = document.createElement("button"); b.type = "button"; b.className = act === "approve" ? "btn pri" : "btn"; b.textContent = LABELS[act]; b.setAttribute("aria-label", `${LABELS[act]}: ${shown.title}`);
      b.addEventListener("click", async () => { b.disabled = true; if (await call(`POST /api/v1/${noun}/${encodeURIComponent(item.id)}/${act}`)) { toastAfterLoad(LABELS[act]); location.reload(); } b.disabled = false; });
      acts.append(b);
    }
    if (!acts.children.length) acts.remove();
    box.append(card);
  }
  $("[data-empty]").hidden = items.length > 0;
}
