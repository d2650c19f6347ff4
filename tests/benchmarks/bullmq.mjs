// The pipeline as one would write it with BullMQ: a job for each notification and step, a delayed job for the wait.
//
//   node bullmq.mjs work         one worker process; prints " ready." when it takes jobs
//   node bullmq.mjs feed COUNT   hand COUNT notifications over one by one; prints {"until", "cpu_s"}
import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import { Queue, Worker } from "bullmq";
import Redis from "ioredis";
import pg from "pg";

const env = process.env;
const COUNTDOWN_MS = Number(env.TEXTBOOK_COUNTDOWN_S) * 1000;
const PEOPLE = 100_000;
const connect = () => new Redis({ path: env.PEER_SOCKET, db: Number(env.PEER_DB), maxRetriesPerRequest: null });
const kept = { removeOnComplete: true, removeOnFail: true };
const queues = Object.fromEntries(
  ["push", "receipt", "check", "sms"].map((name) => [name, new Queue(name, { connection: connect(), prefix: "bull" })]),
);

async function feed(count) {
  const looks = connect();
  const before = process.cpuUsage();
  let pushed = [];
  const room = async (most) => {
    while ((await looks.llen("bull:push:wait")) >= most) await new Promise((go) => setTimeout(go, 10));
  };
  let made = 0;
  const caller = async () => {
    while (made < count) {
      const order = made++;
      const id = randomUUID();
      const person = `user-${order % PEOPLE}`;
      await queues.push.add("push", { id, person, title: `Order ${order} is ready`, body: `Hi Ana, your order ${order} is ready.` }, kept);
      if (order % 2) pushed.push(id);
      if (pushed.length > 64) await queues.receipt.add("receipt", { id: pushed.shift() }, kept);
      if (order % 32 === 0) await room(64);
    }
  };
  await Promise.all(Array.from({ length: 32 }, caller));
  const until = Date.now() / 1000;
  await room(1);
  await Promise.all(pushed.map((id) => queues.receipt.add("receipt", { id }, kept)));
  const spent = process.cpuUsage(before);
  console.log(JSON.stringify({ until, cpu_s: (spent.user + spent.system) / 1e6 }));
  process.exit(0);
}

async function work() {
  const pool = new pg.Pool({ max: 10 });
  const redis = connect();
  const account = JSON.parse(readFileSync(env.GOOGLE_APPLICATION_CREDENTIALS));
  const provider = http2.connect(env.KNOCKTWICE_FCM_URL, { ca: readFileSync(env.BENCHMARK_CA) });
  const post = (path, type, authorization, body) =>
    new Promise((done, failed) => {
      const request = provider.request({ ":method": "POST", ":path": path, "content-type": type, authorization });
      let answer = "", status = 0;
      request.on("response", (headers) => { status = headers[":status"]; });
      request.setEncoding("utf8");
      request.on("data", (part) => { answer += part; });
      request.on("end", () => (status < 300 ? done(JSON.parse(answer)) : failed(new Error(`${status}`))));
      request.on("error", failed);
      request.end(body);
    });
  const basic = "Basic " + Buffer.from(`${env.TWILIO_ACCOUNT_SID}:${env.TWILIO_AUTH_TOKEN}`).toString("base64");
  const bearer = "Bearer ya29." + "x".repeat(200);
  redis.defineCommand("count", {
    numberOfKeys: 2,
    lua: `if redis.call('SET', KEYS[1], 1, 'NX', 'EX', 30) then
            local n = redis.call('INCR', KEYS[2]) redis.call('EXPIRE', KEYS[2], 172800) return n <= 10 and 1 or 0
          end return 0`,
  });
  const jobs = {
    async push({ id, person, title, body }) {
      const { rows } = await pool.query("SELECT token FROM textbook_people WHERE id = $1", [person]);
      await pool.query(
        "INSERT INTO textbook_notifications (id, person_id, title, body, state, created_at) VALUES ($1, $2, $3, $4, 'new', now())",
        [id, person, title, body],
      );
      const message = { token: rows[0].token, notification: { title, body }, data: { id }, android: { priority: "high", ttl: "3s" } };
      const sent = await post(`/v1/projects/${account.project_id}/messages:send`, "application/json", bearer, JSON.stringify({ message }));
      await pool.query("UPDATE textbook_notifications SET state = 'pushed', push_name = $2 WHERE id = $1", [id, sent.name]);
      await queues.check.add("check", { id }, { ...kept, delay: COUNTDOWN_MS });
    },
    async receipt({ id }) {
      await pool.query("UPDATE textbook_notifications SET delivered_at = now() WHERE id = $1", [id]);
    },
    async check({ id }) {
      const { rows } = await pool.query(
        "SELECT n.state, n.delivered_at, n.body, p.phone FROM textbook_notifications n JOIN textbook_people p ON p.id = n.person_id WHERE n.id = $1",
        [id],
      );
      const [row] = rows;
      if (row.state !== "pushed") return;
      const end = (state) => pool.query("UPDATE textbook_notifications SET state = $2, finished_at = now() WHERE id = $1", [id, state]);
      if (row.delivered_at) return end("reached");
      const content = createHash("sha256").update(row.body).digest("hex");
      const day = new Date().toISOString().slice(0, 10);
      if (!(await redis.count(`content:${row.phone}:${content}`, `day:${row.phone}:${day}`))) return end("suppressed");
      await queues.sms.add("sms", { id }, kept);
    },
    async sms({ id }) {
      const { rows } = await pool.query(
        "SELECT n.state, n.body, p.phone FROM textbook_notifications n JOIN textbook_people p ON p.id = n.person_id WHERE n.id = $1",
        [id],
      );
      const [row] = rows;
      if (row.state !== "pushed") return;
      const form = new URLSearchParams({ To: row.phone, From: env.KNOCKTWICE_TWILIO_FROM, Body: row.body }).toString();
      const sent = await post(`/2010-04-01/Accounts/${env.TWILIO_ACCOUNT_SID}/Messages.json`, "application/x-www-form-urlencoded", basic, form);
      await pool.query("UPDATE textbook_notifications SET state = 'texted', sms_sid = $2, finished_at = now() WHERE id = $1", [id, sent.sid]);
    },
  };
  for (const [name, job] of Object.entries(jobs)) {
    const worker = new Worker(name, ({ data }) => job(data), { connection: connect(), prefix: "bull", concurrency: 64 });
    worker.on("failed", (_, error) => console.error(name, error.message));
    await worker.waitUntilReady();
  }
  console.log(" ready.");
}

await (process.argv[2] === "feed" ? feed(Number(process.argv[3])) : work());
