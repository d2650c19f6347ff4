// The wall of phones. The server sends what changed; this page shows it, and sends what somebody does.
// Texts of messages are only ever set as text, never as HTML.

const phones = new Map();
const seen = new Set();
const state = { application: false, gateway: null, clock: false, ahead_s: 0, chosen: null, language: "python", first: true };
const $ = (selector) => document.querySelector(selector);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function time(iso) {
  return new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

function toast(text) {
  $("#toast").textContent = text;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => ($("#toast").textContent = ""), 4000);
}

// Returns the answer's JSON; shows the server's own words if it refuses.
async function send(path, body = {}, method = "POST") {
  const answer = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json" },
    body: method === "GET" || method === "DELETE" ? undefined : JSON.stringify(body),
  });
  const said = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw new Error(said.error || answer.statusText);
  return said;
}

function act(work) {
  return async (event) => {
    event?.stopPropagation();
    try {
      await work(event);
    } catch (error) {
      toast(error.message);
    }
  };
}

// ---- phones

const path = (phone, what) => `/sandbox/phones/${encodeURIComponent(phone.registration)}/${what}`;

function toggle(phone, label, pressed, change) {
  return el(
    "button",
    { type: "button", "aria-pressed": String(pressed), onclick: act(() => send(path(phone, "settings"), change)) },
    label,
  );
}

function message(phone, item) {
  const key = `${phone.id}/${item.id}`;
  const fresh = !seen.has(key) && !state.first;
  seen.add(key);
  const classes = ["message", item.kind];
  if (fresh) classes.push("arrives");
  if (item.kind === "push") return push(phone, item, classes);
  if (item.arrived === false && !/failed|undelivered/.test(item.state)) classes.push("waits");
  const names = { sms: "SMS", whatsapp: "WhatsApp", reply: "reply" };
  const ticks = item.state === "delivered" || item.state === "read" ? "✓✓ " : "";
  return el("div", { class: classes.join(" ") }, item.body, ...(item.media || []).map(attachment), el("small", {}, `${names[item.kind]} ${time(item.at)} · ${ticks}${item.state}`));
}

// A picture as the phone shows it; what is no picture, or cannot be fetched, as its address. Only this browser fetches it.
function attachment(url) {
  const link = el("a", { href: url, target: "_blank", rel: "noreferrer" }, url);
  return el("img", { src: url, alt: url, onerror: (event) => event.target.replaceWith(link) });
}

function push(phone, item, classes) {
  if (!item.on_screen) classes.push("off");
  if (item.notification && item.notification === state.chosen) classes.push("chosen");
  const made = el(
    "div",
    { class: classes.join(" "), tabindex: item.notification ? "0" : null, onclick: () => item.notification && choose(item.notification) },
    el("b", {}, item.title),
    item.body,
    el("small", {}, `push ${time(item.at)} · ${[item.state, ...item.notes].join(" · ")}`),
    item.on_screen &&
      el(
        "div",
        { class: "acts" },
        el("button", { type: "button", onclick: act(() => send(path(phone, "tap"), { push: item.id })) }, "Tap"),
        el("button", { type: "button", onclick: act(() => send(path(phone, "dismiss"), { push: item.id })) }, "Swipe away"),
      ),
  );
  made.addEventListener("keydown", (event) => event.key === "Enter" && event.target === made && item.notification && choose(item.notification));
  return made;
}

function answerBox(phone) {
  const field = el("input", { name: "text", placeholder: "Write back: STOP, YES, …", "aria-label": `Write back as ${phone.name || phone.number}`, maxlength: "1600" });
  return el(
    "form",
    {
      class: "answer",
      onsubmit: act(async (event) => {
        event.preventDefault();
        if (!field.value.trim()) return;
        await send(path(phone, "reply"), { text: field.value });
        field.value = "";
      }),
    },
    field,
    el("button", {}, "Send"),
  );
}

async function newNumber(phone) {
  const number = prompt("The new number, as +46701740699", phone.number || "+46");
  if (number) await send(path(phone, "settings"), { number });
}

function draw(phone) {
  const old = document.getElementById(`phone-${phone.id}`);
  const typed = old?.querySelector(".answer input");
  const draft = typed?.value || "";
  const focused = typed !== undefined && typed === document.activeElement;
  const screen = el("div", { class: "screen", tabindex: "0", role: "log", "aria-label": `Messages of ${phone.name || phone.id}` });
  screen.append(...phone.messages.map((item) => message(phone, item)));
  if (!phone.messages.length) screen.append(el("p", { class: "nothing" }, phone.installed === false ? "the app is not installed" : "nothing yet"));
  const badges = [phone.habit && "taps", phone.offline && "offline", phone.installed === false && "no app"];
  const name = phone.name || (phone.registration ? phone.registration.slice(0, 24) : "a number");
  const made = el(
    "article",
    { class: "phone", id: `phone-${phone.id}`, "aria-label": phone.name || phone.number || phone.id },
    el("div", { class: "owner" }, el("b", {}, name, ...badges.filter(Boolean).map((b) => el("em", {}, b))), el("span", {}, phone.number || "")),
    screen,
    phone.registration && phone.number && answerBox(phone),
    phone.registration &&
      el(
        "div",
        { class: "settings" },
        toggle(phone, "notifications", phone.notifications, { notifications: !phone.notifications }),
        toggle(phone, "airplane mode", phone.offline, { offline: !phone.offline }),
        toggle(phone, phone.installed ? "uninstall" : "install", false, { installed: !phone.installed }),
        phone.user && el("button", { type: "button", onclick: act(() => newNumber(phone)) }, "new number"),
      ),
  );
  if (old) old.replaceWith(made);
  else $("#phones").append(made);
  const field = made.querySelector(".answer input");
  if (field) {
    field.value = draft;
    if (focused) field.focus();
  }
  screen.scrollTop = screen.scrollHeight;
}

function filter() {
  const wanted = $("#search").value.trim().toLowerCase();
  for (const phone of phones.values()) {
    const words = [phone.name, phone.user, phone.number, phone.registration, ...phone.messages.map((m) => `${m.title || ""} ${m.body} ${m.notification || ""}`)];
    const shown = document.getElementById(`phone-${phone.id}`);
    if (shown) shown.hidden = Boolean(wanted) && !words.join(" ").toLowerCase().includes(wanted);
  }
  $("#empty").hidden = phones.size > 0;
}

// ---- the timeline

function choose(id) {
  state.chosen = id;
  link();
  for (const phone of phones.values()) draw(phone);
  filter();
  tell();
}

function until(iso, now) {
  const left = Math.max(0, Math.round((new Date(iso) - now) / 1000));
  const hours = Math.floor(left / 3600);
  const rest = `${String(Math.floor((left % 3600) / 60)).padStart(hours ? 2 : 1, "0")}:${String(left % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${rest}` : rest;
}

async function tell() {
  clearTimeout(tell.timer);
  const id = state.chosen;
  if (!id || !state.application) return;
  // Without a story it is accepted, and not yet in the database.
  const { story: told } = await send(`/sandbox/notifications/${encodeURIComponent(id)}`, {}, "GET").catch(() => ({}));
  if (id !== state.chosen) return;
  if (told) timeline(told);
  if (!told || told.open) tell.timer = setTimeout(tell, 1000);
}

function timeline(told) {
  const now = new Date(told.now);
  const channel = { push: "push", sms: "SMS", whatsapp: "WhatsApp message" };
  const next = told.next && told.next.state === "scheduled" && told.next.channel !== "push";
  const parts = [
    el("h2", {}, "Timeline"),
    el("p", { class: "state" }, `${told.user || "somebody"}: ${told.state}${told.reason ? ` (${told.reason.replaceAll("_", " ")})` : ""}`),
    el("code", {}, told.id),
    told.open &&
      el(
        "p",
        { class: "next" },
        el("span", {}, next ? `${channel[told.next.channel] || told.next.channel} decided in ${until(told.next.at, now)}` : "under way"),
        el("button", { type: "button", onclick: act(() => send(`/sandbox/notifications/${told.id}/cancel`).then(tell)) }, "Cancel"),
      ),
    el("ol", {}, ...told.moments.map((m) => el("li", { class: m.ahead ? "ahead" : "" }, el("time", { datetime: m.at }, time(m.at)), el("span", {}, m.sentence)))),
  ];
  $("#timeline").replaceChildren(...parts.filter(Boolean));
}

// ---- the compose box

const form = () => $("#compose form");
const fields = () => Object.fromEntries(new FormData(form()));

function people() {
  const users = [...new Set([...phones.values()].map((p) => p.user).filter(Boolean))];
  const select = form().elements.user;
  if (users.join() === [...select.options].map((o) => o.value).join()) return;
  const before = select.value;
  select.replaceChildren(...users.map((u) => el("option", { value: u }, u)));
  if (users.includes(before)) select.value = before;
  code();
}

const words = { 10: "seconds=10", 60: "minutes=1", 300: "minutes=5", 3600: "hours=1", 86400: "days=1" };

function python(said) {
  const q = (text) => JSON.stringify(text);
  const sms = said.when ? `    sms=Sms(${said.text ? `${q(said.text)}, ` : ""}when=${q(said.when)}, after=timedelta(${words[said.after_s]})),\n` : "";
  return `from datetime import timedelta\n\nfrom knocktwice import Client, Push, Sms\n\nclient = Client()\nclient.notify(\n    user=${q(said.user || "ada")},\n    push=Push(${q(said.title)}, ${q(said.body)}),\n${sms})`;
}

function curl(said) {
  const body = { user: said.user || "ada", push: { title: said.title, body: said.body } };
  if (said.when) body.sms = { ...(said.text ? { text: said.text } : {}), when: said.when, after_s: Number(said.after_s) };
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl ${state.gateway || "$GATEWAY"}/v1/notifications \\\n  -H "Authorization: Bearer $KEY" \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

function code() {
  $(".code code").textContent = (state.language === "python" ? python : curl)(fields());
}

// ---- everything else

function webhooks(list) {
  const open = new Set([...document.querySelectorAll("#webhooks details[open]")].map((d) => d.dataset.id));
  $("#webhooks .hint").hidden = list.length > 0;
  $("#webhooks ol").replaceChildren(
    ...list.map((w) => {
      let body = w.body;
      try {
        body = JSON.stringify(JSON.parse(w.body), null, 2);
      } catch {
        // It is shown as it came.
      }
      return el("li", {}, el("details", { "data-id": w.id, open: open.has(w.id) }, el("summary", {}, `${time(w.at)} ${w.event}`), el("pre", {}, body)));
    }),
  );
}

function link() {
  const parts = new URLSearchParams();
  if (state.chosen) parts.set("n", state.chosen);
  if ($("#search").value) parts.set("q", $("#search").value);
  history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname);
}

function news(told) {
  state.application = told.application;
  state.gateway = told.gateway;
  state.ahead_s = told.ahead_s;
  for (const hidden of ["#compose", "#add", "#story"]) $(hidden).hidden = !told.application;
  $("#clock").hidden = !told.clock;
  for (const id of told.gone) {
    phones.delete(id);
    document.getElementById(`phone-${id}`)?.remove();
  }
  for (const phone of told.phones) {
    phones.set(phone.id, phone);
    draw(phone);
  }
  state.first = false;
  webhooks(told.webhooks);
  $("#faults").textContent = told.faults.join(" · ");
  $("#mend").hidden = !told.faults.length;
  people();
  filter();
  tell();
}

async function notify(said) {
  const { id } = await send("/sandbox/notifications", { ...said, after_s: Number(said.after_s) });
  choose(id);
}

// The story that 'make demo' tells: one taps, one ignores it, one has notifications off.
async function story() {
  const { ids } = await send("/sandbox/story");
  choose(ids[1]);
}

$("#add").addEventListener("click", () => {
  $("#person .error").textContent = "";
  $("#person").showModal();
});
$("#person form").addEventListener("submit", async (event) => {
  if (event.submitter.value !== "add") return;
  event.preventDefault();
  const said = Object.fromEntries(new FormData(event.target));
  try {
    await send("/sandbox/people", { ...said, number: said.number || null, notifications: "notifications" in said });
    event.target.reset();
    $("#person").close();
  } catch (error) {
    $("#person .error").textContent = error.message;
  }
});
$("#story").addEventListener("click", act(story));
$("#clear").addEventListener("click", act(async () => {
  await send("/sandbox?keep=phones", {}, "DELETE");
  state.chosen = null;
  link();
  $("#timeline").replaceChildren(el("h2", {}, "Timeline"), el("p", { class: "hint" }, "Choose a push, or send something."));
}));
$("#share").addEventListener("click", act(async () => {
  link();
  await navigator.clipboard.writeText(location.href);
  toast("The link is on the clipboard.");
}));
$("#mend").addEventListener("click", act(() => send("/sandbox/rules", {}, "DELETE")));
for (const id of ["#fcm", "#twilio"]) {
  $(id).addEventListener("change", act(async (event) => {
    const rule = event.target.value;
    event.target.value = "";
    if (rule) await send("/sandbox/rules", JSON.parse(rule));
  }));
}
for (const button of document.querySelectorAll("[data-clock]")) {
  const to = button.dataset.clock;
  button.addEventListener("click", act(async () => {
    const { moved } = await send("/sandbox/clock", to === "due" ? { to } : { advance_s: Number(to) });
    if (!moved) toast("Nothing waits for a later moment.");
    tell();
  }));
}
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => {
    state.language = tab.dataset.lang;
    for (const other of document.querySelectorAll("[role=tab]")) other.setAttribute("aria-selected", String(other === tab));
    code();
  });
}
form().addEventListener("input", code);
form().addEventListener("submit", async (event) => {
  event.preventDefault();
  const error = form().querySelector(".error");
  error.textContent = "";
  try {
    await notify(fields());
  } catch (refused) {
    error.textContent = refused.message;
  }
});
$("#search").addEventListener("input", () => {
  filter();
  link();
});
setInterval(() => ($("#time").textContent = time(Date.now() + state.ahead_s * 1000)), 500);

const asked = new URLSearchParams(location.hash.slice(1));
state.chosen = asked.get("n");
$("#search").value = asked.get("q") || "";
const stream = new EventSource("/sandbox/stream");
stream.onmessage = (event) => news(JSON.parse(event.data));
stream.onerror = () => toast("The sandbox does not answer; trying again …");
stream.onopen = () => ($("#toast").textContent = "");
