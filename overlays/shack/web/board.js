// The class on one page. It only reads, and shows every answer as text: anyone on the network can
// write to consul. Each source may fail on its own; what it told last stays until it answers again.
"use strict";

const EVERY_MS = 5000;
const TIMEOUT_MS = 4000;
const FRESH_MS = 15 * 60 * 1000;
const MOST_LETTERS = 200;
const MOST_BYTES = 8 << 20;
const STATES = {
  "joined": ["✔", "joined", ""],
  "booting": ["↻", "setting up", "Wait: a first boot takes minutes. If the stage does not change, look at the node."],
  "problem": ["⚠", "problem", "Read the message on the node's tile; it is also in rpi-image/status on its card."],
  "other-address": ["⇄", "other address", "The node has another address than planned: check for a second DHCP server, or boot it again."],
  "missing": ["✖", "missing", "Check power, network cable or wifi, and the activity LED; then read the card with rpi-image status --card."],
  "unknown": ["?", "not known", "The shack does not answer: run make status in its folder."],
};

const main = document.querySelector("main");
const swarmMode = main.dataset.kind === "swarm-mode";
const list = document.getElementById("nodes");
const tiles = new Map();
const seen = {};
const changed = new Map();
let busy = false;

for (const item of list.children) {
  const part = (name) => item.querySelector("." + name);
  tiles.set(item.dataset.host, {
    item, expected: item.dataset.address, seat: part("seat").textContent, owner: part("owner").textContent,
    icon: part("icon"), word: part("word"), what: part("what"), card: part("card"),
    bar: item.querySelector("progress"), shown: {},
  });
}

const text = (value) => (typeof value === "string" ? [...value.slice(0, 4 * MOST_LETTERS)] : [])
  .filter((letter) => !/[\p{C}\p{Zl}\p{Zp}]/u.test(letter)).slice(0, MOST_LETTERS).join("");

function set(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

async function ask(name) {
  const answer = await fetch("api/" + name, { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
  if (answer.status === 404 && name === "progress") return [];  // no node has told anything yet
  if (!answer.ok) throw new Error(`${name} answered ${answer.status}`);
  const body = await answer.text();
  if (body.length > MOST_BYTES) throw new Error(`${name} answered too much`);
  return JSON.parse(body);
}

const readers = {
  members(found) {
    const members = new Map();
    for (const node of found) members.set(String(node.Node).toLowerCase(), text(node.Address));
    return members;
  },
  checks(found) {
    const lost = new Set();
    for (const check of found) {
      if (check.CheckID === "serfHealth" && check.Status !== "passing") lost.add(String(check.Node).toLowerCase());
    }
    return lost;
  },
  progress(found) {
    const told = new Map();
    for (const entry of found) {
      const name = String(entry?.Key).split("/").pop();
      if (tiles.has(name)) {
        const document = decoded(entry.Value);
        if (document) told.set(name, document);
      }
    }
    return told;
  },
  manager(found) {
    const engines = new Map();
    if (swarmMode) {
      for (const node of found) engines.set(String(node.Description.Hostname).toLowerCase(), text(node.Status.State));
      return engines;
    }
    // Rows of a name, then indented ones that begin with └ (docs of classic Swarm's /info).
    let name = "";
    for (const [key, value] of found.SystemStatus || found.DriverStatus || []) {
      if (!String(key).includes("└")) { name = String(key).replace(/[\b ]/g, "").toLowerCase(); engines.set(name, "Healthy"); }
      else if (String(key).includes("Status")) engines.set(name, text(value));
    }
    return engines;
  },
  findings(found) {
    return found.map((each) => ({ place: text(each.place), what: text(each.what), message: text(each.message), hint: text(each.hint) }));
  },
  cards(found) {
    const cards = new Map();
    for (const node of found.nodes) cards.set(node.hostname, node);
    return cards;
  },
};

function decoded(value) {
  if (typeof value !== "string" || value.length > 6000) return null;
  try {
    const found = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(value), (c) => c.charCodeAt(0))));
    if (!found || typeof found !== "object" || Array.isArray(found)) return null;
    const percent = Number.isInteger(found.percent) ? Math.min(Math.max(found.percent, 0), 100) : null;
    return { stage: text(found.stage), error: text(found.error), updated: text(found.updated), percent, raw: value };
  } catch { return null; }
}

// By the clock of the node, or because it changed while this page was open.
function isFresh(name, told) {
  const last = changed.get(name);
  if (!last || last.raw !== told.raw) changed.set(name, { raw: told.raw, at: last ? Date.now() : 0 });
  return Math.abs(Date.now() - Date.parse(told.updated)) < FRESH_MS || Date.now() - changed.get(name).at < FRESH_MS;
}

function cardWord(card) {
  return card.card === "never" ? "never written" : text(card.card);
}

// What `rpi-image board` has found out itself.
const THERE = { "unhealthy": "problem", "wrong-arch": "problem" };
function looked(node) {
  const state = THERE[node.there] || (Object.hasOwn(STATES, node.there) ? node.there : "unknown");
  const told = node.progress && node.progress.stage !== "ready" ? node.progress : null;
  const words = told ? [text(told.stage), told.percent === null ? "" : `${told.percent} %`, text(told.error)] : [];
  for (const found of state === "problem" ? node.findings : []) words.push(text(found.detail));
  return { state, what: words.filter(Boolean).join(", "), percent: told ? told.percent : null };
}

function look(name, tile) {
  const card = seen.cards?.get(name);
  if (card) return looked(card);
  const told = seen.progress?.get(name);
  const fresh = told && isFresh(name, told);
  const engine = seen.manager?.get(name);
  const address = seen.members?.get(name);
  const words = told && fresh && told.stage !== "ready" ? [told.stage, told.percent === null ? "" : `${told.percent} %`] : [];
  const what = [...words, fresh ? told.error : ""].filter(Boolean).join(", ");
  const percent = words.length ? told.percent : null;
  const there = swarmMode ? engine === "ready" : address !== undefined && !seen.checks?.has(name);
  if (!(swarmMode ? seen.manager : seen.members)) return { state: "unknown", what, percent };
  if (!there) return { state: fresh ? (told.error ? "problem" : "booting") : "missing", what, percent };
  if (fresh && told.error) return { state: "problem", what, percent };
  if (!swarmMode && engine && engine !== "Healthy") return { state: "problem", what: `Docker: ${engine}`, percent };
  if (!swarmMode && tile.expected && address !== tile.expected) return { state: "other-address", what: address, percent };
  return { state: "joined", what, percent };
}

function age(name) {
  const told = seen.progress?.get(name);
  const minutes = told ? Math.round((Date.now() - Date.parse(told.updated)) / 60000) : NaN;
  return Number.isFinite(minutes) && minutes >= 0 ? `${minutes} min ago` : "";
}

function paint() {
  const counts = {};
  for (const [name, tile] of tiles) {
    const now = look(name, tile);
    counts[now.state] = (counts[now.state] || 0) + 1;
    const [icon, word] = STATES[now.state];
    if (tile.item.dataset.state !== now.state) tile.item.dataset.state = now.state;
    set(tile.icon, icon);
    set(tile.word, word);
    set(tile.what, now.what);
    tile.bar.hidden = now.percent === null;
    if (now.percent !== null) tile.bar.value = now.percent;
    const card = seen.cards?.get(name);
    if (card) set(tile.card, `card: ${cardWord(card)}${card.changes?.length ? ` (${card.changes.map((c) => text(c.setting)).join(", ").slice(0, 60)})` : ""}`);
    tile.shown = now;
  }
  const present = Object.keys(STATES).filter((state) => counts[state]);
  set(document.getElementById("totals"), present.map((state) => `${STATES[state][0]}\u00a0${counts[state]}\u00a0${STATES[state][1].replace(" ", "\u00a0")}`).join("  "));
  const advice = present.filter((state) => STATES[state][2]);
  const lines = document.getElementById("advice");
  if (lines.dataset.for !== advice.join()) {
    lines.dataset.for = advice.join();
    lines.replaceChildren(...advice.map((state) => {
      const line = document.createElement("li");
      line.textContent = `${STATES[state][1]}: ${STATES[state][2]}`;
      return line;
    }));
  }
  document.getElementById("todo").hidden = !advice.length;
  showFindings();
  showOne();
}

// What `rpi-image check` says of the file, with its lines.
function showFindings() {
  const section = document.getElementById("check");
  if (!section || !seen.findings) return;
  section.hidden = !seen.findings.length;
  const lines = document.getElementById("findings"), key = JSON.stringify(seen.findings);
  if (lines.dataset.key === key) return;
  lines.dataset.key = key;
  lines.replaceChildren(...seen.findings.map((found) => {
    const line = document.createElement("li"), place = document.createElement("code");
    line.dataset.what = found.what;
    place.textContent = found.place;
    line.append(place, ` ${found.what}: ${found.message}${found.hint ? ` (${found.hint})` : ""}`);
    return line;
  }));
}

// The page of one node, where the QR code of its label leads.
function showOne() {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* not one of ours */ }
  const tile = tiles.get(name);
  document.getElementById("one").hidden = !tile;
  document.getElementById("all").hidden = Boolean(tile);
  if (!tile) return;
  const now = tile.shown;
  set(document.getElementById("one-name"), name);
  const card = seen.cards?.get(name);
  const rows = [
    ["state", now.state ? `${STATES[now.state][0]} ${STATES[now.state][1]}` : ""], ["now", now.what || ""], ["told", age(name)], ["owner", tile.owner],
    ["seat", tile.seat.replace(/^seat /, "")], ["address", seen.members?.get(name) || tile.expected || `${name}.local`],
    ["card", card ? cardWord(card) : ""], ["do next", (card && text(card.next)) || (now.state && STATES[now.state][2])],
  ].filter(([, value]) => value);
  const key = JSON.stringify(rows);
  const facts = document.getElementById("one-facts");
  if (facts.dataset.key === key) return;
  facts.dataset.key = key;
  facts.replaceChildren(...rows.flatMap(([term, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term;
    dd.textContent = value;
    return [dt, dd];
  }));
}

async function refresh() {
  if (busy || document.hidden) return;
  busy = true;
  const names = main.dataset.reads.split(" ").filter((name) => name in readers);
  const results = await Promise.allSettled(names.map(async (name) => { seen[name] = readers[name](await ask(name)); }));
  const silent = names.filter((_, n) => results[n].status === "rejected");
  const trouble = document.getElementById("trouble");
  set(trouble, silent.length ? `No answer from the shack about: ${silent.join(", ")}. What is shown may be old.` : "");
  trouble.hidden = !silent.length;
  if (silent.length < names.length) set(document.getElementById("clock"), `as of ${new Date().toLocaleTimeString()}`);
  paint();
  busy = false;
}

// Seats such as A1, B12 or 2-4 are rows and columns.
function seatRows() {
  const places = [...tiles.values()].map((tile) => /^seat ([A-Za-z]|\d{1,2}[ -])[ -]?(\d{1,2})$/.exec(tile.seat));
  const keys = new Set(places.map((place) => place && place[0].toLowerCase()));
  if (!places.length || places.includes(null) || keys.size !== places.length) return;
  list.classList.add("seats");
  const rows = places.map(([, row]) => (/\d/.test(row) ? parseInt(row, 10) : row.toLowerCase().charCodeAt(0)));
  const columns = places.map(([, , column]) => Number(column));
  [...tiles.values()].forEach((tile, n) => {
    tile.item.style.setProperty("--row", rows[n] - Math.min(...rows) + 1);
    tile.item.style.setProperty("--column", columns[n] - Math.min(...columns) + 1);
  });
}

// The keyboard goes on from the heading of what is shown.
function focusShown() {
  document.getElementById(document.getElementById("one").hidden ? "all-name" : "one-name").focus();
}

seatRows();
showOne();
// After the browser has scrolled to the tile of that name, which takes the focus away.
addEventListener("load", () => setTimeout(() => { if (location.hash) focusShown(); }));
addEventListener("hashchange", () => { showOne(); focusShown(); });
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY_MS);
refresh();
