"use strict";
const zh = document.getElementById("zh"), tip = document.getElementById("tip");

function translate() {
  document.documentElement.lang = zh.checked ? "zh" : "en";
  document.title = document.querySelector(`h1 [lang=${document.documentElement.lang}]`).textContent;
  tip.hidden = true;
  for (const title of document.querySelectorAll(".mark title")) {
    title.dataset.en ??= title.textContent;
    title.textContent = zh.checked ? title.dataset.zh : title.dataset.en;
  }
}

if (document.body.dataset.language === "auto" && navigator.language.startsWith("zh")) zh.checked = true;
for (const choice of document.getElementsByName("language")) choice.addEventListener("change", translate);
translate();

// A mouse has the browser's own tips; a finger has this one.
document.addEventListener("click", (event) => {
  const mark = event.target.closest(".mark");
  tip.hidden = !mark;
  if (mark) tip.textContent = mark.querySelector("title").textContent;
});
