// A producer in Node: npm install; node producer.mjs "Why is the sky blue?" [model] [queue]
// Queues a Celery message and its entry in the ledger in one MULTI, and reads the stream. ../../docs/wire-format.md says how.
import { randomUUID } from "node:crypto";
import { createClient } from "redis";

const [question = "What is photosynthesis?", model = "smollm2-135m", queue = "tier-under-3B"] = process.argv.slice(2);
const client = await createClient({ url: process.env.REDIS_URL ?? "redis://localhost:6379/0" }).connect();
const bell = await client.duplicate().connect();

const id = randomUUID();
const stream = `celery-mlx:stream:${id}`;
let ring = () => {};
await bell.subscribe(stream, () => ring()); // before the first look, so that nothing falls in between

await submit({ model, messages: [{ role: "user", content: question }], max_tokens: 64 });
await read();
await Promise.all([client.close(), bell.close()]);

async function submit(parameters) {
  const body = JSON.stringify([[], parameters, { callbacks: null, errbacks: null, chain: null, chord: null }]);
  const message = JSON.stringify({
    body: Buffer.from(body).toString("base64"),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    headers: { task: "tasks.generate", id, root_id: id, lang: "js", retries: 0 },
    properties: {
      correlation_id: id,
      delivery_mode: 2,
      delivery_info: { exchange: "", routing_key: queue },
      priority: 0,
      body_encoding: "base64",
      delivery_tag: randomUUID(),
    },
  });
  const [seconds, microseconds] = await client.sendCommand(["TIME"]);
  const entry = { at: Number(seconds) + Number(microseconds) / 1e6, queue, message };
  await client.multi().hSet("celery-mlx:ledger", id, JSON.stringify(entry)).lPush(queue, message).exec();
}

async function read() {
  let from = "-";
  for (;;) {
    const rung = new Promise((resolve) => { ring = resolve; });
    for (const { id: entry, message } of await client.xRange(stream, from, "+")) {
      from = `(${entry}`;
      const record = JSON.parse(message.d);
      if (record.type === "token" && record.kind === "content") process.stdout.write(record.text);
      if (record.type === "error") { console.error(`\n${record.code}: ${record.message}`); process.exitCode = 1; return; }
      if (record.type === "end") { console.log(`\n\n${record.finish_reason}: ${record.index} tokens`); return; }
    }
    // Pub/sub is at most once: after a second of silence, look anyway.
    await Promise.race([rung, new Promise((resolve) => setTimeout(resolve, 1000))]);
  }
}
