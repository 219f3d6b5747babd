"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const table = document.querySelector("table"), heads = [...table.tHead.rows[0].cells].slice(2);
  const rows = [...table.tBodies[0].rows], detail = $("detail"), hot = $("hot");
  const texts = rows.map((r) => (r.cells[0].textContent + " " + r.cells[1].innerText).toLowerCase());
  let focus = -1, picked = null; // the column whose permissions are shown; the cell

  const words = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);

  function filter() {
    const want = words($("rows")), who = words($("columns"));
    const shown = heads.map((h, i) => i === focus || !who.length || who.some((w) => data.subjects[i].toLowerCase().includes(w)));
    let count = 0, last = null;
    rows.forEach((row, n) => {
      const cells = [...row.cells].slice(2);
      const visible = want.every((w) => texts[n].includes(w)) &&
        (focus < 0 || /^[ai]$/.test(cells[focus].classList[0])) &&
        (!hot || !hot.checked || cells.some((c, i) => shown[i] && c.dataset.h));
      row.hidden = !visible;
      if (!visible) return;
      count++;
      const path = row.cells[0].firstChild.textContent;
      row.classList.toggle("again", path === last);
      last = path;
    });
    shown.forEach((visible, i) => {
      if (heads[i].hidden === !visible) return;
      heads[i].hidden = !visible;
      rows.forEach((row) => { row.cells[i + 2].hidden = !visible; });
    });
    heads.forEach((h, i) => h.firstChild.setAttribute("aria-pressed", String(i === focus)));
    $("count").textContent = count === rows.length ? "" : count + " of " + rows.length + " rows";
    $("nothing").hidden = count > 0;
  }

  const isCell = (e) => e && e.tagName === "TD" && e.cellIndex > 1;
  const words2 = { a: "is allowed", i: "is allowed", d: "is denied", n: "is denied" };

  // add appends an element with a text, which is never taken for markup.
  function add(to, tag, text, name) {
    const e = document.createElement(tag);
    e.textContent = text;
    if (name) e.className = name;
    to.append(e);
    return e;
  }

  const quote = (s) => (/^[\w\/.:@%+-]+$/.test(s) ? s : "'" + s.replaceAll("'", "'\\''") + "'");

  function command(who, method, path) {
    const caller = who === "anonymous" ? "--anonymous " : who.startsWith("role:") ? "--role " + quote(who.slice(5)) + " " : "";
    return "gateway policy explain " + caller + quote(method) + " " + quote(encodeURI(path));
  }

  function show(cell) {
    if (picked) picked.classList.remove("picked");
    picked = cell;
    cell.classList.add("picked");
    const row = cell.parentElement, who = data.subjects[cell.cellIndex - 2], kind = cell.classList[0];
    const [title, body] = [detail.querySelector("h2"), detail.querySelector("div")];
    title.textContent = "";
    body.textContent = "";
    add(title, "code", who);
    title.append(" ");
    add(title, "b", words2[kind], kind === "a" || kind === "i" ? "yes" : "no");
    title.append(" ");
    add(title, "code", [...row.cells[1].querySelectorAll("b")].map((b) => b.textContent).join("|") + " " + row.cells[0].firstChild.textContent);
    const except = row.cells[1].querySelector("small");
    if (except) title.append(" " + except.title);
    if (cell.dataset.r === undefined) {
      add(body, "p", "No rule is for it, and what no rule allows is denied.");
    } else {
      const [rule, file, line] = data.rules[cell.dataset.r];
      add(body, "p", file + ":" + line);
      add(body, "pre", rule);
      const via = data.vias[cell.dataset.v] || [];
      if (via.length) add(body, "p", "because it inherits, by");
      via.forEach((v) => add(body, "pre", v));
      if (!via.length && kind !== "n" && rule.split(", ")[1] !== who) add(body, "p", "because everybody" + (rule.startsWith("p, authenticated") ? " with a token" : "") + " is");
    }
    if (data.counted) add(body, "p", Number(cell.dataset.h || 0).toLocaleString() + " logged requests");
    add(body, "p", "more, with a request for example");
    add(body, "pre", command(who, row.dataset.method, row.dataset.example));
    detail.hidden = false;
  }

  function close() {
    detail.hidden = true;
    if (picked) picked.classList.remove("picked");
    picked = null;
  }

  table.addEventListener("click", (e) => {
    const cell = e.target.closest("td, th");
    if (isCell(cell)) return cell === picked ? close() : show(cell);
    const head = heads.indexOf(cell);
    if (head >= 0) {
      focus = focus === head ? -1 : head;
      filter();
    }
  });
  let on = null;
  table.addEventListener("mouseover", (e) => {
    const cell = e.target.closest("td");
    if (on) on.classList.remove("on");
    on = null;
    if (!isCell(cell)) return;
    on = heads[cell.cellIndex - 2];
    on.classList.add("on");
    if (!cell.title) {
      const r = data.rules[cell.dataset.r];
      cell.title = data.subjects[cell.cellIndex - 2] + " " + words2[cell.classList[0]] + (r ? " by " + r[1] + ":" + r[2] + "\n" + r[0] : ": no rule");
    }
  });

  // One cell can be reached by Tab, the others from there with the arrow keys.
  let reachable = rows.length ? rows[0].cells[2] : null;
  if (reachable) reachable.tabIndex = 0;
  function go(to) {
    if (!to) return;
    reachable.removeAttribute("tabindex");
    reachable = to;
    to.tabIndex = 0;
    to.focus();
    if (!detail.hidden) show(to);
  }
  function beside(cell, step) {
    do { cell = step > 0 ? cell.nextElementSibling : cell.previousElementSibling; } while (cell && cell.hidden);
    return isCell(cell) ? cell : null;
  }
  function beyond(cell, step) {
    let row = cell.parentElement;
    do { row = step > 0 ? row.nextElementSibling : row.previousElementSibling; } while (row && row.hidden);
    return row && row.cells[cell.cellIndex];
  }
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") return close();
    if (e.key === "/" && e.target.tagName !== "INPUT") { e.preventDefault(); return $("rows").focus(); }
    if (!isCell(e.target)) return;
    const moves = { ArrowRight: [beside, 1], ArrowLeft: [beside, -1], ArrowDown: [beyond, 1], ArrowUp: [beyond, -1] };
    if (moves[e.key]) { e.preventDefault(); go(moves[e.key][0](e.target, moves[e.key][1])); }
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); show(e.target); }
  });
  $("close").addEventListener("click", close);
  $("clear").addEventListener("click", () => { $("controls").reset(); focus = -1; filter(); });
  $("controls").addEventListener("submit", (e) => e.preventDefault());
  $("controls").addEventListener("input", filter);
})();
