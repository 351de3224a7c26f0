// The AI SDK with its provider for OpenAI's interface: a chat, a stream, a tool, a schema, and an error.
import assert from "node:assert";
import { generateText, jsonSchema, Output, streamText, tool } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const provider = createOpenAICompatible({ name: "fleet", baseURL: process.env.BASE_URL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true });
const ask = { model: provider(process.env.MODEL), prompt: "Name three colors.", maxOutputTokens: 12, temperature: 0, maxRetries: 0 };
const answer = await generateText(ask);
assert(answer.text);
const stream = streamText(ask);
let streamed = "";
for await (const part of stream.textStream) streamed += part;
assert.equal(streamed, answer.text);
assert((await stream.usage).outputTokens > 0);
const schema = jsonSchema({ type: "object", properties: { is_warm: { type: "boolean" } }, required: ["is_warm"], additionalProperties: false });
const judge = tool({ inputSchema: schema });
const question = { ...ask, model: provider(process.env.TOOLS_MODEL), prompt: "Is red warm?", maxOutputTokens: 60 };
const called = await generateText({ ...question, tools: { judge }, toolChoice: "required" });
assert.equal(typeof called.toolCalls[0].input.is_warm, "boolean");
const found = await generateText({ ...question, output: Output.object({ schema }) });
assert.equal(typeof found.output.is_warm, "boolean");
await assert.rejects(generateText({ ...ask, model: provider("acme/none") }), (error) => error.statusCode === 404);
