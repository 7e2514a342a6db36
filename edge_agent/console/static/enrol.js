// Guided enrolment: the person's yes, then samples until there are enough. Frames go to the gateway and nowhere else.
import { call, fault } from "./console.js";
const $ = s => document.querySelector(s), zh = document.documentElement.lang.startsWith("zh"), t = (a, b) => zh ? a : b;
const form = $("#agree"), cue = $("#cue"), detail = $("#cue-d"), video = $("#video");
let enrolment = null, running = false, finished = false;

const step = name => { for (const li of document.querySelectorAll("[data-step]")) li.dataset.step === name ? li.setAttribute("aria-current", "step") : li.removeAttribute("aria-current"); };
const hex = buffer => [...new Uint8Array(buffer)].map(b => b.toString(16).padStart(2, "0")).join("");

form.addEventListener("submit", async e => {
  e.preventDefault();
  const purposes = [...form.querySelectorAll("[name=purpose]:checked")].map(c => c.value);
  if (!purposes.length) return fault(t("没有勾选用途", "No purpose is ticked"), t("至少勾选一项，或改用卡片、密码。", "Tick at least one, or use a card or PIN."));
  if (form.sign.value.trim() !== form.sign.dataset.want) return fault(t("签署的姓名不符", "The signature differs"), t("请本人输入资料上的姓名。", "Type the name as it is on record."));
  // The evidence is the act itself: who, what, when, on which notice. Its hash rests with the consent.
  const given = new Date().toISOString();
  const act = JSON.stringify({ subject: form.dataset.subject, modality: form.dataset.modality, purposes, notice: form.dataset.notice, signed: form.sign.value.trim(), given });
  const evidence = hex(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(act)));
  const body = {
    subject: form.dataset.subject, modality: form.dataset.modality, born: form.born.value, position: +(form.position?.value ?? 0),
    consents: purposes.map(purpose => ({ purpose, notice_version: form.dataset.notice, given_at: given, evidence_sha256: evidence })),
  };
  const state = await call("POST /api/v1/enrolments", body);
  if (!state) return;
  enrolment = state.enrolment;
  $("#consent").hidden = true; $("#capture").hidden = false; step("capture"); show(state);
  if (video) begin();
});

function show(state) {
  $("#left").textContent = state.have >= state.need ? t("够了", "enough") : t(`还差 ${state.need - state.have} 个`, `${state.need - state.have} to go`);
  const list = $("#samples"); list.replaceChildren();
  for (let n = 1; n <= state.need; n++) {
    const li = document.createElement("li"), b = document.createElement("b");
    li.append(t(`第 ${n} 个`, `No. ${n}`), b, n <= state.have ? t("已采集", "Taken") : t("等待", "Waiting"));
    b.textContent = n <= state.have ? "✓" : "…"; if (n === state.have + 1) li.className = "now"; list.append(li);
  }
  cue.textContent = state.fault ? t(state.advice_zh, state.advice_en) : state.ready ? t("可以了", "Good") : t("请看着前方，保持不动", "Look ahead and hold still");
  detail.textContent = state.fault && state.required != null ? t(`测得 ${(+state.measured).toFixed(2)}，需要 ${(+state.required).toFixed(2)}`, `measured ${(+state.measured).toFixed(2)}, needs ${(+state.required).toFixed(2)}`) : "";
  if (state.ready && !finished) finish();
}
async function offer(blob) {
  const data = new FormData(); data.append("file", blob, "frame.jpg");
  const state = await call(`POST /api/v1/enrolments/${enrolment}/photo`, data);
  if (state) show(state); else running = false;
}
async function begin() {
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720, facingMode: "user" } }); }
  catch { cue.textContent = t("没有可用的摄像头，请用照片或网关上的设备", "No camera here: use a photograph or a device of the gateway"); return; }
  video.srcObject = stream; running = true;
  const canvas = document.createElement("canvas");
  while (running && !finished) {
    await new Promise(r => setTimeout(r, 500));
    if (!video.videoWidth) continue;
    canvas.width = video.videoWidth; canvas.height = video.videoHeight; canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise(r => canvas.toBlob(r, "image/jpeg", .9));
    if (blob && running && !finished) await offer(blob);
  }
  for (const track of stream.getTracks()) track.stop();
}
async function finish() {
  finished = true; running = false;
  if (!await call(`POST /api/v1/enrolments/${enrolment}/finish`)) { cue.textContent = t("没有录入", "Not enrolled"); return; }
  enrolment = null; $("#capture").hidden = true; $("#done").hidden = false; step("done");
}
$("#photo")?.addEventListener("change", async e => { for (const file of e.target.files) if (!finished) await offer(file); e.target.value = ""; });
$("#from-sensor")?.addEventListener("click", async e => {
  e.target.disabled = true; cue.textContent = t("请看着设备", "Look at the device");
  const state = await call(`POST /api/v1/enrolments/${enrolment}/capture`, { device: $("#sensor").value });
  e.target.disabled = false; if (state) show(state);
});
addEventListener("pagehide", () => { running = false; if (enrolment) fetch(`/api/v1/enrolments/${enrolment}`, { method: "DELETE", keepalive: true, headers: { "X-CSRF-Token": document.body.dataset.csrf } }); });
