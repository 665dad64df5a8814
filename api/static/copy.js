// A button that copies beside each text that is marked for it; without this script the text can be selected.
"use strict";
const SHOWN_MS = 2000;
const copyText = async (pre) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(pre.textContent);
  // Plain HTTP has no clipboard of its own.
  getSelection().selectAllChildren(pre);
  if (!document.execCommand("copy")) throw new Error("the browser refused");
  return undefined;
};
for (const pre of document.querySelectorAll("pre[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${pre.dataset.copy}`);
  const status = document.createElement("span");
  status.className = "quiet";
  status.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    try {
      await copyText(pre);
      status.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre);
      status.textContent = "Not copied: the text is selected";
    }
    setTimeout(() => { status.textContent = ""; }, SHOWN_MS);
  });
  const row = document.createElement("p");
  row.className = "copy-row";
  row.append(button, status);
  pre.before(row);
}
