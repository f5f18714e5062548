// The station screen: what running `flash --queue` and `apply --queue` do. It only reads, and shows
// everything as text.
"use strict";

const EVERY_MS = 700;
const TIMEOUT_MS = 4000;
const MOST_LETTERS = 200;
const WORDS = { writing: ["↻", "writing"], done: ["✔", "done"], failed: ["✖", "failed"] };

const list = document.getElementById("cards");
const button = document.getElementById("sound");
const tiles = new Map();
const told = new Map();
let first = true;
let busy = false;
let audio = null;

const text = (value) => (typeof value === "string" || Number.isInteger(value) ? [...String(value).slice(0, 4 * MOST_LETTERS)] : [])
  .filter((letter) => !/[\p{C}\p{Zl}\p{Zp}]/u.test(letter)).slice(0, MOST_LETTERS).join("");

function set(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// ---- sound: browsers allow it after a click only, so it is off at first

function isOn() { return button.getAttribute("aria-pressed") === "true"; }

function switchSound(on) {
  button.setAttribute("aria-pressed", String(on));
  set(button, on ? "Sound is on" : "Sound is off");
  if (on) { audio ||= new AudioContext(); audio.resume(); }
}

function beep(good) {
  document.body.dataset.sound = isOn() ? (good ? "done" : "failed") : "muted";
  if (!isOn()) return;
  (good ? [660, 880] : [220, 165, 220]).forEach((pitch, n) => {
    const tone = audio.createOscillator(), volume = audio.createGain();
    tone.frequency.value = pitch;
    volume.gain.value = 0.2;
    tone.connect(volume).connect(audio.destination);
    tone.start(audio.currentTime + 0.2 * n);
    tone.stop(audio.currentTime + 0.2 * n + 0.18);
  });
}

// ---- cards

function tileOf(key) {
  if (!tiles.has(key)) {
    const item = document.createElement("li");
    const part = (name, kind = "span") => {
      const made = document.createElement(kind);
      made.className = name;
      item.append(made);
      return made;
    };
    const tile = { item, name: part("name"), state: part("state"), bar: part("bar", "progress"), reader: part("reader"), why: part("why") };
    tile.bar.max = 100;
    tile.bar.setAttribute("aria-label", "progress");
    tiles.set(key, tile);
  }
  return tiles.get(key);
}

function showCard(key, card) {
  const tile = tileOf(key);
  const state = Object.hasOwn(WORDS, card.state) ? card.state : "writing";
  const [icon, word] = WORDS[state];
  const percent = Number.isInteger(card.percent) ? Math.min(Math.max(card.percent, 0), 100) : null;
  tile.item.dataset.state = state;
  set(tile.name, `${text(card.node)}${card.label ? `, label ${text(card.label)}` : ""}`);
  set(tile.state, `${icon} ${word}${state === "writing" && percent !== null ? ` ${percent} %` : ""}`);
  tile.bar.hidden = state !== "writing";
  if (percent === null) tile.bar.removeAttribute("value"); else tile.bar.value = percent;
  set(tile.reader, [text(card.reader), text(card.owner)].filter(Boolean).join(", "));
  set(tile.why, state === "failed" ? text(card.error) : state === "done" ? "Remove the card and attach its label." : "");
  const mark = `${text(card.number)} ${state}`;
  if (told.get(key) !== mark) {
    told.set(key, mark);
    if (!first && state !== "writing") {
      beep(state === "done");
      set(document.getElementById("news"), `${tile.name.textContent} ${word}`);
    }
  }
  return tile.item;
}

function show(stations) {
  const next = stations.find((station) => station.next) || stations[0];
  set(document.getElementById("next-node"), (next && text(next.next)) || "–");
  set(document.getElementById("next-label"), next && next.label ? `label ${text(next.label)}` : "");
  set(document.getElementById("next-owner"), next ? text(next.owner) : "No station is running: start rpi-image flash --queue.");
  set(document.getElementById("left"), next ? `${text(next.left)} of ${text(next.of)} nodes wait for a card` : "");
  const keys = [], items = [];
  for (const station of stations) {
    for (const card of Array.isArray(station.cards) ? station.cards.slice(0, 32) : []) {
      if (!card || typeof card !== "object") continue;
      const key = `${text(station.station)} ${text(card.reader)}`;
      if (keys.includes(key)) continue;
      keys.push(key);
      items.push(showCard(key, card));
    }
  }
  for (const key of [...tiles.keys()]) if (!keys.includes(key)) { tiles.delete(key); told.delete(key); }
  if (items.length !== list.children.length || items.some((item, n) => list.children[n] !== item)) list.replaceChildren(...items);
  first = false;
}

async function refresh() {
  if (busy) return;
  busy = true;
  const trouble = document.getElementById("trouble");
  try {
    const answer = await fetch("api/stations", { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    const found = await answer.json();
    show((Array.isArray(found) ? found : []).filter((station) => station && typeof station === "object"));
    trouble.hidden = true;
  } catch {
    set(trouble, "rpi-image board does not answer: start it again. What is shown may be old.");
    trouble.hidden = false;
  }
  busy = false;
}

button.addEventListener("click", () => switchSound(!isOn()));
setInterval(refresh, EVERY_MS);
refresh();
