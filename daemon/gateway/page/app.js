// The page of the gateway: a queue of files, pushed one after the other.
"use strict";

const $ = (id) => document.getElementById(id);
const queue = []; // transfers that wait, in order
let running = null;
let chosen = []; // files, before they are sent

// Choosing.

function choose(files) {
  chosen = Array.from(files);
  const n = chosen.length;
  const total = chosen.reduce((sum, f) => sum + f.size, 0);
  $("hint").textContent = n === 0 ? "or drop them here"
    : n === 1 ? `${chosen[0].name}, ${sizeText(total)}` : `${n} files, ${sizeText(total)}`;
  $("send").textContent = n > 1 ? `Send ${n} files` : "Send";
}

$("files").addEventListener("change", () => choose($("files").files));
$("require").addEventListener("change", askNumber);

// askNumber asks for a number only where it means something: one that is out of
// sight and wrong would hold the form up.
function askNumber() {
  $("number").disabled = $("number").hidden = $("require").value !== "number";
}

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (e) => {
    e.preventDefault(); // a file dropped beside the zone would replace the page
    const inside = e.target instanceof Element && e.target.closest("#drop");
    $("drop").classList.toggle("over", Boolean(inside) && (kind === "dragenter" || kind === "dragover"));
    if (kind === "drop" && inside) choose(e.dataTransfer.files);
  });
}

$("form").addEventListener("submit", (e) => {
  e.preventDefault();
  if (chosen.length === 0) {
    say("Choose a file first.");
    $("files").focus();
    return;
  }
  const options = { require: $("require").value, force: $("force").checked };
  if (options.require === "number") options.require = $("number").value;
  for (const file of chosen) enqueue(new Transfer(file, options));
  $("form").reset();
  askNumber();
  choose([]);
});

// A page that is left takes what it sends with it.
addEventListener("beforeunload", (e) => { if (running) e.preventDefault(); });

// The queue.

function enqueue(transfer) {
  transfer.wait();
  queue.push(transfer);
  next();
}

function next() {
  if (running || queue.length === 0) return;
  running = queue.shift();
  running.run().finally(() => {
    running = null;
    next();
  });
}

// Transfer is one file on its way, and the card that shows it.
class Transfer {
  constructor(file, options) {
    this.file = file;
    this.options = options;
    this.rows = new Map();
    this.card = $("transfer-template").content.firstElementChild.cloneNode(true);
    this.part("name").textContent = this.part("name").title = file.name;
    this.part("size").textContent = sizeText(file.size);
    this.part("whole").setAttribute("aria-label", `${file.name}, all readers`);
    this.part("cancel").addEventListener("click", () => this.cancel());
    this.part("retry").addEventListener("click", () => enqueue(this));
    this.part("replace").addEventListener("click", () => {
      this.options = { ...this.options, force: true };
      enqueue(this);
    });
    this.part("remove").addEventListener("click", () => this.remove());
    $("transfers").append(this.card);
    $("transfers-title").hidden = false;
  }

  part(name) { return this.card.querySelector(`.${name}`); }

  wait() {
    this.cancelled = false;
    this.show("", "waiting");
    this.part("whole").value = 0;
    this.part("rows").replaceChildren();
    this.rows.clear();
  }

  // show puts the card into a state, with a message where something is wrong.
  // A button that goes while it has the focus leaves it to the next one.
  show(state, text, message) {
    const focused = this.card.contains(document.activeElement) ? document.activeElement : null;
    this.card.className = `transfer ${state}`;
    this.part("state").textContent = text;
    this.part("message").textContent = message ?? "";
    this.part("message").hidden = !message;
    const over = state !== "" && state !== "active";
    this.part("cancel").hidden = over;
    this.part("retry").hidden = state !== "failed" && state !== "partly";
    this.part("remove").hidden = !over;
    this.part("replace").hidden = true;
    if (focused?.hidden) this.card.querySelector("button:not([hidden])").focus();
  }

  async run() {
    this.show("active", "sending");
    say(`Sending ${this.file.name}.`);
    const id = newID();
    const events = await this.listen(id);
    const answer = this.cancelled ? { cancelled: true } : await this.upload(id);
    events?.close();
    this.finish(answer);
    this.request?.abort(); // nobody wants the rest
    this.request = this.answered = null;
  }

  // listen opens the events of the upload. It goes on without them when they
  // do not come.
  listen(id) {
    if (!window.EventSource) return null;
    const events = new EventSource(`events/${id}`);
    events.addEventListener("progress", (e) => this.progress(JSON.parse(e.data)));
    events.addEventListener("done", (e) => {
      events.close();
      this.answered?.(JSON.parse(e.data));
    });
    return new Promise((resolve) => {
      const late = setTimeout(() => resolve(events), 1500);
      events.onopen = () => { clearTimeout(late); resolve(events); };
      events.onerror = () => {
        if (events.readyState === EventSource.CLOSED) { clearTimeout(late); resolve(null); }
      };
    });
  }

  // upload sends the file and resolves with the answer, whatever it is. The
  // last of the events is the answer too: a browser that is still sending does
  // not look for the one that comes on the same connection.
  upload(id) {
    const query = new URLSearchParams({ id, require: this.options.require });
    if (this.options.force) query.set("force", "1");
    return new Promise((resolve) => {
      this.answered = resolve;
      const request = new XMLHttpRequest(); // unlike fetch it tells how far it is
      this.request = request;
      request.open("PUT", `broadcast/${encodeURIComponent(this.file.name.toWellFormed?.() ?? this.file.name)}?${query}`);
      request.responseType = "json";
      request.upload.onprogress = (e) => {
        if (this.rows.size === 0) this.whole(e.loaded); // there are no events
      };
      request.onload = () => resolve(request.response ?? { status: request.status, message: `the gateway answered ${request.status}` });
      request.onerror = () => resolve({ status: 0, message: "The connection to the gateway was lost, or the file cannot be read." });
      request.onabort = () => resolve({ status: 0, cancelled: true });
      request.send(this.file);
    });
  }

  progress(p) {
    for (const reader of p.readers ?? []) this.row(reader.name, reader.state, reader.offset, reader.text);
    this.whole(p.acked);
    this.part("state").textContent = p.note || (this.file.size > 0 && p.acked >= this.file.size ? "checking" : "sending");
  }

  whole(bytes) { this.part("whole").value = this.share(bytes); }

  share(bytes) { return this.file.size === 0 ? 1 : Math.min(1, bytes / this.file.size); }

  row(name, state, offset, text, word = state) {
    let row = this.rows.get(name);
    if (!row) {
      row = $("row-template").content.firstElementChild.cloneNode(true);
      row.querySelector(".reader").textContent = name;
      row.querySelector("progress").setAttribute("aria-label", `${this.file.name}, ${name}`);
      this.rows.set(name, row);
      this.part("rows").append(row);
    }
    const done = state === "published" || state === "unchanged";
    row.className = `row ${state}`;
    row.querySelector("progress").value = done ? 1 : this.share(offset);
    const share = Math.floor(this.share(offset) * 100);
    row.querySelector(".word").textContent = state === "receiving" ? `${share} %` : word;
    row.querySelector(".detail").textContent = plain(text ?? "");
    row.querySelector(".detail").hidden = !text;
  }

  finish(answer) {
    for (const [key, r] of Object.entries(answer.data ?? {})) {
      if (key !== "duration" && key !== "files") {
        const name = key.startsWith("/") ? key.slice(1) : key;
        const spared = r.code === "policy"; // another reader is why, and says so
        this.row(name, r.status, r.bytes, spared ? "" : r.message || receiptText(r), spared ? "not published" : r.status);
      }
    }
    const there = answer.code === "exists" || Object.values(answer.data ?? {}).some((r) => r.code === "exists");
    const name = this.file.name;
    if (answer.cancelled) {
      this.show("failed", "cancelled");
      say(`${name} was cancelled.`);
    } else if (answer.status === 200) {
      this.part("whole").value = 1;
      this.show("done", "done");
      say(`${name} is on all readers.`);
    } else if (answer.status === 207) {
      this.part("whole").value = 1;
      this.show("partly", "done in part", answer.message);
      this.part("replace").hidden = !there;
      say(`${name}: ${answer.message}`);
    } else {
      this.show("failed", "failed", plain(answer.message));
      this.part("replace").hidden = !there;
      say(`${name} failed: ${plain(answer.message)}`);
    }
  }

  cancel() {
    this.cancelled = true;
    const at = queue.indexOf(this);
    if (at >= 0) {
      queue.splice(at, 1);
      this.finish({ cancelled: true });
    }
    this.request?.abort();
  }

  remove() {
    this.card.remove();
    $("transfers-title").hidden = $("transfers").childElementCount === 0;
    $("files").focus();
  }
}

// Words.

function receiptText(r) { return [r.location, r.digest].filter(Boolean).join("\n"); }

function sizeText(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; bytes >= 1024 && i < units.length - 1; i++) bytes /= 1024;
  return `${i === 0 ? bytes : bytes.toFixed(1)} ${units[i]}`;
}

// plain is a message without the parameter that there is a button for.
function plain(text) { return text.replace(/; \?force replaces [^;)"]*/g, ""); }

function say(text) { $("status").textContent = text; }

// newID names an upload. It is no secret from who can see the page;
// crypto.randomUUID would need a secure context.
function newID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// Who is there.

fetch("readyz").then((r) => r.json()).then((answer) => {
  const names = Object.entries(answer.data ?? {}).map(([name, r]) => (r.error ? `${name} (not there)` : name));
  $("readers").textContent = names.length === 0 ? answer.message
    : names.length > 8 ? `To ${answer.message}.` : `To ${names.join(", ")}.`;
}).catch(() => {}); // the line says something general already
