/** The page of `deno task demo --page`: reads messages as fast as the slider says, and shows the queues. */
import { reconnect } from "../../lib/browser.ts";

/** Maximum number of messages that this page keeps before it stops reading. */
const MOST = 64;
/** Messages per second for each step of the slider. */
const SPEEDS = [0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, Infinity];
/** Time between two measurements, in milliseconds, and the number of measurements in the chart. */
const INTERVAL = 100;
const LOOKS = 300;

const element = (id) => document.getElementById(id);
const numbers = new Intl.NumberFormat("en");
const speed = element("speed");
const compression = element("compression");

const settings = new URLSearchParams(location.hash.slice(1));
if (settings.has("speed")) speed.value = settings.get("speed");
compression.checked = settings.has("compression");

const waiting = [];
let onRoom;
let onMessage;
let received = 0;
let read = 0;
let connections = 0;
/** The server's statistics. */
let server = { sent: 0, outbox: 0, capacity: 1, waited: 0, longest: 0, wire: 0 };

/** Takes messages from the connection while there is room for them. */
async function receiveAll() {
  for await (const ws of reconnect("/feed", { minDelay: 100 })) {
    connections++;
    try {
      for await (const message of ws) {
        received++;
        waiting.push(message);
        onMessage?.();
        if (waiting.length >= MOST) await new Promise((resolve) => onRoom = resolve);
      }
    } catch (error) {
      if (!ws.isOwnError(error)) throw error;
    }
  }
}

/** Reads the queued messages at the speed of the slider. */
async function readAll() {
  for (;;) {
    if (waiting.length === 0) await new Promise((resolve) => onMessage = resolve);
    const perSecond = SPEEDS[speed.value];
    if (perSecond === 0) await pause(INTERVAL);
    else {
      // Timers of a page are too inexact for more than 50 pauses per second.
      const turn = perSecond === Infinity ? 256 : Math.max(1, Math.round(perSecond / 50));
      waiting.shift();
      read++;
      onRoom?.();
      if (read % turn === 0) await pause(1000 * turn / perSecond);
    }
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Tells the server about the compression, and receives its statistics. */
async function follow() {
  for await (const ws of reconnect("/control", { minDelay: 100 })) {
    const tell = () => void ws.send(JSON.stringify({ compress: compression.checked }));
    compression.addEventListener("change", tell);
    tell();
    try {
      for await (const message of ws) server = JSON.parse(message);
    } catch (error) {
      if (!ws.isOwnError(error)) throw error;
    }
    compression.removeEventListener("change", tell);
  }
}

const history = [];
let before = { received: 0, at: performance.now() };

/** Shows the number of messages in each queue. */
function show() {
  const now = { received, at: performance.now() };
  const seconds = (now.at - before.at) / 1000;
  history.push({ rate: (now.received - before.received) / seconds, queue: waiting.length / MOST });
  before = now;
  if (history.length > LOOKS) history.shift();
  // The average of one second, so that the number is readable.
  const last = history.slice(-10);
  const rate = last.reduce((sum, look) => sum + look.rate, 0) / last.length;
  element("rate").textContent = numbers.format(Math.round(rate));
  element("throughput").textContent = `${(rate * 16 / 1024).toFixed(1)} MiB/s`;
  element("sent").textContent = numbers.format(server.sent);
  element("longest").textContent = `${numbers.format(Math.round(server.longest))} ms`;
  element("wire").textContent = numbers.format(Math.round(server.wire));
  element("outbox").textContent = `${numbers.format(Math.round(server.outbox / 1024))} KiB`;
  element("read").textContent = numbers.format(read);
  element("queue").textContent = `${waiting.length} of ${MOST}`;
  element("again").textContent = connections < 2 ? "never" : `${connections - 1} times`;
  fill("server", server.outbox / server.capacity);
  fill("page", waiting.length / MOST);
  const waits = server.waited > 200;
  const state = element("state");
  state.classList.toggle("waits", waits);
  say(
    state,
    waits
      ? "The sender is paused: its send() waits for this page."
      : "Messages flow: the sender need not wait.",
  );
  draw();
}

function fill(id, share) {
  const percent = Math.min(100, Math.round(share * 100));
  const card = element(id);
  const bar = card.querySelector(".bar");
  card.classList.toggle("full", percent >= 100);
  bar.setAttribute("aria-valuenow", percent);
  bar.firstElementChild.style.width = `${percent}%`;
}

/** Sets a text only if it has changed, because a screen reader announces it. */
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function draw() {
  const most = Math.max(1, ...history.map(({ rate }) => rate));
  const points = (valueOf) =>
    history.map((look, at) => `${at + LOOKS - history.length},${99 - 98 * valueOf(look)}`).join(
      " ",
    );
  element("rates").setAttribute("points", points(({ rate }) => rate / most));
  element("queues").setAttribute("points", points(({ queue }) => queue));
  element("most").textContent = numbers.format(Math.round(most));
}

function showSpeed() {
  const perSecond = SPEEDS[speed.value];
  const text = perSecond === 0
    ? "stopped"
    : perSecond === Infinity
    ? "as fast as it can"
    : `${numbers.format(perSecond)} messages/s`;
  element("speed-text").textContent = text;
  speed.setAttribute("aria-valuetext", text);
}

speed.addEventListener("input", showSpeed);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
showSpeed();
element("line").textContent = "WebSocketStream" in globalThis
  ? "WebSocketStream"
  : "WebSocket, which cannot slow the server down";
setInterval(show, INTERVAL);
receiveAll();
readAll();
follow();
