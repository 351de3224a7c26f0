// OpenAI's SDK for Node: a chat, a stream, a tool, a schema, a response, and an error.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none", maxRetries: 0 });
const ask = { model: process.env.MODEL, messages: [{ role: "user", content: "Name three colors." }], max_tokens: 12, temperature: 0 };
const answer = await client.chat.completions.create(ask);
const text = answer.choices[0].message.content;
assert(text);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }))
  streamed += chunk.choices[0]?.delta?.content ?? "";
assert.equal(streamed, text);
const response = await client.responses.create({ model: process.env.MODEL, input: "Name three colors.", max_output_tokens: 12, temperature: 0 });
assert.equal(response.output_text, text);
const schema = { type: "object", properties: { is_warm: { type: "boolean" } }, required: ["is_warm"], additionalProperties: false };
const question = { model: process.env.TOOLS_MODEL, messages: [{ role: "user", content: "Is red warm?" }], max_tokens: 60, temperature: 0 };
const tool = { type: "function", function: { name: "judge", parameters: schema } };
const called = await client.chat.completions.create({ ...question, tools: [tool], tool_choice: "required" });
assert.equal(typeof JSON.parse(called.choices[0].message.tool_calls[0].function.arguments).is_warm, "boolean");
const format = { type: "json_schema", json_schema: { name: "color", strict: true, schema } };
const found = await client.chat.completions.create({ ...question, response_format: format });
assert.equal(typeof JSON.parse(found.choices[0].message.content).is_warm, "boolean");
await assert.rejects(client.chat.completions.create({ ...ask, model: "acme/none" }), (error) => error.code === "model_not_found");
