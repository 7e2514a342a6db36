// Guided enrolment: the person's yes, then samples until there are enough. Frames go to the gateway and nowhere else.
import { $, $$, ask, call, clean, fault, say, t, when } from "./console.js";
const form = $("#agree"), cue = $("#cue"), detail = $("#cue-d"), box = $(".cue"), video = $("#video");
const face = form.dataset.modality === "face", meters = $$("#checks li");
let enrolment = null, running = false, finished = false;

const step = name => { let past = true; for (const li of $$("[data-step]")) { const now = li.dataset.step === name; if (now) past = false; li.className = past ? "done" : ""; now ? li.setAttribute("aria-current", "step") : li.removeAttribute("aria-current"); } };
const hex = buffer => [...new Uint8Array(buffer)].map(b => b.toString(16).padStart(2, "0")).join("");
const tell = (tone, words, more = "") => { box.className = `cue ${tone}`; if (cue.textContent !== words) cue.textContent = words; detail.textContent = more; };

form.addEventListener("submit", async e => {
  e.preventDefault(); clean(form);
  const purposes = $$("[name=purpose]:checked", form).map(c => c.value), first = $("[name=purpose]", form);
  if (!purposes.length) return fault(t("没有勾选用途", "No purpose is ticked"), t("至少勾选一项，或改用卡片、密码。", "Tick at least one, or use a card or PIN."), [[first, t("去勾选", "Go to the choices")]]);
  if (form.sign.value.trim() !== form.sign.dataset.want) {
    const words = t("与资料上的姓名不符", "differs from the name on record");
    say(form.sign, words); return fault(t("签署的姓名不符", "The signature differs"), t("请本人输入资料上的姓名。", "Type the name as it is on record."), [[form.sign, words]]);
  }
  // The evidence is the act itself: who, what, when, on which notice. Its hash rests with the consent.
  const given = new Date().toISOString();
  const act = JSON.stringify({ subject: form.dataset.subject, modality: form.dataset.modality, purposes, notice: form.dataset.notice, signed: form.sign.value.trim(), given });
  const evidence = hex(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(act)));
  const body = {
    subject: form.dataset.subject, modality: form.dataset.modality, born: form.born.value, position: +(form.position?.value ?? 0),
    consents: purposes.map(purpose => ({ purpose, notice_version: form.dataset.notice, given_at: given, evidence_sha256: evidence })),
  };
  const state = await call("POST /api/v1/enrolments", body, {}, form);
  if (!state) return;
  enrolment = state.enrolment;
  $("#purposes").textContent = $$("[name=purpose]:checked", form).map(c => c.closest("label").textContent.trim()).join(t("、", ", "));
  $("#given").textContent = when(given, "toLocaleTimeString");
  $("#consent").hidden = true; $("#capture").hidden = false; $("#title").textContent = $("#title").dataset.capture; step("capture"); show(state);
  if (video) await list(); else tell("", t("选择指纹仪，开始采集", "Choose the sensor and begin"));
  ($("#begin") ?? $("#from-sensor"))?.focus();
});

const number = n => Math.abs(n) >= 10 ? n.toFixed(0) : String(+n.toFixed(2));
const limits = ({ low, high }) => low === high ? `= ${number(low)}` : high == null ? `≥ ${number(low)}` : low == null ? `≤ ${number(high)}` : `${number(low)}–${number(high)}`;
// 0 to 1: one half is at the limit, whichever side it lies on
function room({ value, low, high, ok }) {
  if (low === high) return ok ? 1 : 0;
  const share = low != null && high != null ? 1 - Math.abs(value - (low + high) / 2) / (high - low) : low != null ? .5 + (value - low) / (2 * Math.abs(low) || 1) : .5 + (high - value) / (2 * Math.abs(high) || 1);
  return Math.max(0, Math.min(1, share));
}
function show(state) {
  $("#left").textContent = state.have >= state.need ? t("够了", "enough") : t(`还差 ${state.need - state.have} 个`, `${state.need - state.have} to go`);
  $("#samples").replaceChildren(...Array.from({ length: state.need }, (_, n) => {
    const li = document.createElement("li"), b = document.createElement("b"), taken = n < state.have;
    b.textContent = taken ? "✓" : "…"; if (n === state.have) li.className = "now";
    li.append(t(`第 ${n + 1} 个`, `No. ${n + 1}`), b, taken ? t("已采集", "Taken") : t("等待", "Waiting"));
    return li;
  }));
  // A meter shows the one of its figures that has the least room to its limit.
  for (const li of meters) {
    const [worst] = (state.checks ?? []).filter(c => li.dataset.checks.split(" ").includes(c.check)).sort((a, b) => a.ok - b.ok || room(a) - room(b));
    li.className = !worst ? "" : worst.ok ? "yes" : "no"; $("progress", li).value = worst ? room(worst) : 0;
    $("use", li).setAttribute("href", !worst ? "#clock" : worst.ok ? "#check" : "#alarm");
    $(".say", li).textContent = !worst ? "—" : `${number(worst.value)} · ${limits(worst)}`;
  }
  const next = face ? t("合格后自动采集，不用按。", "It captures by itself.") : t("抬起手指，再放一次。", "Lift the finger and place it again.");
  if (state.fault) tell("warn", t(state.advice_zh, state.advice_en), (state.required != null ? t(`测得 ${number(+state.measured)}，需要 ${number(+state.required)}。`, `Measured ${number(+state.measured)}, needs ${number(+state.required)}. `) : "") + next);
  else if (state.ready) tell("ok", t("可以了", "Good"));
  else if (state.lift) tell("ok", t("请抬起手指", "Lift the finger"), t(`再放上去，还差 ${state.need - state.have} 个`, `Then place it again, ${state.need - state.have} to go`));
  else if (state.have && !face) tell("", t("请再放一次手指", "Place the finger again"), t(`还差 ${state.need - state.have} 个`, `${state.need - state.have} to go`));
  else if (state.have) tell("ok", t("采到了，保持不动", "Got it, hold still"), t(`还差 ${state.need - state.have} 个`, `${state.need - state.have} to go`));
  if (state.ready && !finished) finish();
}
async function offer(blob) {
  const data = new FormData(); data.append("file", blob, "frame.jpg");
  const state = await call(`POST /api/v1/enrolments/${enrolment}/photo`, data);
  if (state) show(state); else running = false;
}

// the browser's own camera
async function list() {
  tell("", t("选择摄像头，开始采集", "Choose the camera and begin"), t("画面只在内存里看，不保存。", "Pictures are looked at in memory and not kept."));
  const own = await navigator.mediaDevices?.enumerateDevices?.().catch(() => []) ?? [];
  if (!own.some(d => d.kind === "videoinput")) { $("#begin").disabled = true; tell("warn", t("这台电脑没有摄像头", "This computer has no camera"), t("用一张照片，或网关上的摄像头。", "Use a photograph, or a camera of the gateway.")); }
}
$("#begin")?.addEventListener("click", async e => {
  const begin = e.currentTarget;
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720, facingMode: "user" } }); }
  catch { tell("warn", t("浏览器没有得到摄像头", "The browser was given no camera"), t("在地址栏旁允许摄像头，或用照片、网关上的摄像头。", "Allow the camera beside the address, or use a photograph or a camera of the gateway.")); return; }
  begin.hidden = true; $("#oval").removeAttribute("hidden"); $(".rec").hidden = false; video.srcObject = stream; running = true;
  tell("", t("请看着前方，保持不动", "Look ahead and hold still"));
  const canvas = document.createElement("canvas");
  while (running && !finished) {
    await new Promise(r => setTimeout(r, 400));
    if (!video.videoWidth) continue;
    canvas.width = video.videoWidth; canvas.height = video.videoHeight; canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise(r => canvas.toBlob(r, "image/jpeg", .9));
    if (blob && running && !finished) await offer(blob);
  }
  for (const track of stream.getTracks()) track.stop();
  $(".rec").hidden = true; $("#oval").setAttribute("hidden", ""); begin.hidden = false;
});
// a camera or fingerprint sensor of the gateway: it takes samples until there are enough; the reasons are asked for meanwhile
$("#from-sensor")?.addEventListener("click", async e => {
  const b = e.currentTarget; b.disabled = true; running = false;
  tell("", face ? t("请看着网关的摄像头", "Look at the gateway's camera") : t("请把手指放到指纹仪上，抬起再放", "Place the finger on the sensor, lift it, place it again"));
  let busy = true;
  const watch = async () => { while (busy) { await new Promise(r => setTimeout(r, 500)); const got = busy && await ask(`GET /api/v1/enrolments/${enrolment}`); if (busy && got?.[0].ok) show({ ...got[1], ready: false }); } };
  watch();
  const state = await call(`POST /api/v1/enrolments/${enrolment}/capture`, { device: $("#sensor").value });
  busy = false; b.disabled = false;
  if (state) { show(state); if (!state.ready) tell("warn", t("时间到了，样本还不够", "Time is up, not enough samples yet"), t("再试一次，或换一种方式。", "Try again, or another way.")); }
});
$("#photo")?.addEventListener("change", async e => { running = false; for (const file of e.target.files) if (!finished) await offer(file); e.target.value = ""; });

async function finish() {
  finished = true; running = false;
  if (!await call(`POST /api/v1/enrolments/${enrolment}/finish`)) { enrolment = null; tell("warn", t("没有录入，样本已清除", "Not enrolled; the samples are gone"), t("原因写在页面上方。", "The reason stands above.")); return; }
  enrolment = null; $("#capture").hidden = true; $("#done").hidden = false; $("#stop").hidden = true; step("done"); $("#done h2").focus();
}
addEventListener("pagehide", () => { running = false; if (enrolment) fetch(`/api/v1/enrolments/${enrolment}`, { method: "DELETE", keepalive: true, headers: { "X-CSRF-Token": document.body.dataset.csrf } }); });
