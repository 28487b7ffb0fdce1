"use strict";
document.documentElement.classList.add("scripted");
// Tables: a button in each column's head sorts the rows of every part of the table.
const key = (row, place) => {
  const cell = row.cells[place];
  return cell.hasAttribute("data-value") ? Number(cell.dataset.value) : cell.textContent.trim();
};
const compare = (a, b) => {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  return typeof a === "number" ? -1 : 1;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    const label = head.querySelector(".label");
    button.type = "button";
    button.title = "Sort by this column";
    label.before(button);
    button.append(label);
    button.addEventListener("click", () => {
      // The first click shows the largest numbers first, and names from A to Z.
      const cells = [...table.tBodies].flatMap((body) => [...body.rows]).map((row) => key(row, place));
      const first = cells.some((value) => typeof value === "number") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((own) => own.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      for (const body of table.tBodies) {
        if (body.classList.contains("fixed")) continue;
        const rows = [...body.rows];
        const known = rows.filter((row) => row.cells[place].textContent.trim() !== "\u2013");
        const sign = order === "ascending" ? 1 : -1;
        known.sort((a, b) => sign * compare(key(a, place), key(b, place)));
        body.append(...known, ...rows.filter((row) => !known.includes(row)));
      }
    });
  });
}
// Wide tables: a shadow and a line say that there is more to the right.
const cue = (wide) => {
  const scroll = wide.querySelector(".scroll");
  wide.classList.toggle("more", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
};
const watch = new ResizeObserver((entries) => entries.forEach((entry) => cue(entry.target.closest(".wide"))));
for (const wide of document.querySelectorAll(".wide")) {
  const scroll = wide.querySelector(".scroll");
  scroll.addEventListener("scroll", () => cue(wide), { passive: true });
  watch.observe(scroll);
  watch.observe(scroll.firstElementChild);
}
// Pictures: a dialog shows them as large as the window. Escape closes it, and the focus returns.
const dialog = document.getElementById("enlarged");
for (const figure of document.querySelectorAll("figure")) {
  const card = figure.querySelector(".card");
  const words = figure.querySelector("figcaption").textContent.trim();
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.textContent = "Enlarge";
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-label", `Enlarge: ${words}`);
  figure.nextElementSibling.prepend(button);
  const show = () => {
    dialog.querySelector(".enlarged").replaceChildren(card.cloneNode(true));
    dialog.querySelector("p").textContent = words;
    button.focus();
    dialog.showModal();
  };
  button.addEventListener("click", show);
  card.addEventListener("click", show);
}
dialog.querySelector("button").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
// Print: folded parts are opened, and folded again.
const folded = [];
addEventListener("beforeprint", () => {
  folded.push(...document.querySelectorAll("details:not([open])"));
  folded.forEach((own) => { own.open = true; });
});
addEventListener("afterprint", () => folded.splice(0).forEach((own) => { own.open = false; }));
