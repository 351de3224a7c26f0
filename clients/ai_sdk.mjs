// The AI SDK with its provider for OpenAI's interface: a chat, a stream, and an error.
import assert from "node:assert";
import { generateText, streamText } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const provider = createOpenAICompatible({ name: "fleet", baseURL: process.env.BASE_URL, apiKey: "none", includeUsage: true });
const ask = { model: provider(process.env.MODEL), prompt: "Name three colors.", maxOutputTokens: 12, temperature: 0, maxRetries: 0 };
const answer = await generateText(ask);
assert(answer.text);
const stream = streamText(ask);
let streamed = "";
for await (const part of stream.textStream) streamed += part;
assert.equal(streamed, answer.text);
assert((await stream.usage).outputTokens > 0);
await assert.rejects(generateText({ ...ask, model: provider("acme/none") }), (error) => error.statusCode === 404);
