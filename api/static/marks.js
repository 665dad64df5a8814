// Silences, acknowledges and forgets a deployment by the API, with the token that is typed in.
"use strict";
const KEY = "preshuffle-token";
const HOME = new URL("..", document.currentScript.src); // this script lies in static/
const field = (name) => document.getElementById(`mark-${name}`);
const until = () => new Date(Date.now() + Number(field("hours").value) * 3600e3).toISOString();
const ACTIONS = {
  silence: (path) => ["PUT", `${path}/silence`, { until: until(), note: field("note").value }],
  unsilence: (path) => ["DELETE", `${path}/silence`],
  acknowledge: (path) => ["PUT", `${path}/acknowledgement`, { note: field("note").value }],
  unacknowledge: (path) => ["DELETE", `${path}/acknowledgement`],
  forget: (path) => ["DELETE", path],
};
const refuse = (words) => {
  const shown = field("problem");
  shown.textContent = words;
  shown.hidden = false;
};
const send = async (action, { path, page }) => {
  const [method, target, body] = ACTIONS[action](path);
  const token = field("token").value.trim() || sessionStorage.getItem(KEY);
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(target, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    if (answer.status === 401) sessionStorage.removeItem(KEY);
    return refuse(problem.detail || `The service answered ${answer.status}.`);
  }
  if (token) sessionStorage.setItem(KEY, token); // until this tab is closed
  return location.assign(action === "forget" ? HOME : page);
};
document.addEventListener("submit", (event) => event.target.id === "marks" && event.preventDefault());
document.addEventListener("click", (event) => {
  const action = event.target.dataset?.action;
  if (!action || (action === "forget" && !confirm("Forget this deployment?"))) return;
  send(action, event.target.closest("form").dataset).catch((error) => refuse(String(error)));
});
