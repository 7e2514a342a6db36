// Where an identity provider is configured, one more way in; and why the last attempt through it failed.
import { $, ask, fault, t } from "./console.js";
const why = new URLSearchParams(location.search).get("sso");
const WHY = {
  state: t("这次登录不是在这个浏览器里开始的，或隔得太久。再试一次。", "This sign-in was not begun in this browser, or too long ago. Try again."),
  provider: t("身份提供方没有给出可用的回答。用密码登录，并告诉管理员。", "The identity provider gave no usable answer. Use a password and tell the administrator."),
  role: t("身份提供方没有给您这里的角色。请管理员分配。", "The identity provider gives you no role here. Ask the administrator for one."),
  disabled: t("您在这台网关上的账号已停用。", "Your account on this gateway is shut."),
};
if (why) fault(t("没有登录", "Not signed in"), WHY[why] ?? WHY.provider);
const got = await ask("GET /api/v1/session/ways"), link = $("#sign-on");
if (got?.[0].ok && got[1].oidc) { link.textContent = t(`用 ${got[1].oidc} 登录`, `Sign in with ${got[1].oidc}`); link.href = got[1].start; link.hidden = false; }
