/** An app over the scripted model, and what the tests say to it. */
import type { Hono } from "hono";
import { createEngine } from "../../src/infer/engine.ts";
import type { Engine } from "../../src/infer/types.ts";
import { type AppOptions, createApp } from "../../server/app.ts";
import { byteTokenizer, type Scripted, scriptedRunner } from "../infer/scripted.ts";

export interface Site {
  app: Hono;
  engine: Engine;
  runner: Scripted;
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

/** @param script what the model says to a prompt; a chat's prompt is `role:content` lines */
export function site(
  script: (prompt: string) => string,
  o: { slots?: number; waiting?: number; contextLength?: number; tools?: boolean; app?: AppOptions } = {},
): Site {
  const runner = scriptedRunner(script, o);
  const engine = createEngine({
    model: "org/scripted",
    tokenizer: byteTokenizer({ tools: o.tools }),
    runner,
    eos: [],
    waiting: o.waiting ?? 8,
  });
  const app = createApp(engine, o.app);
  const post = async (path: string, body: unknown, init: RequestInit = {}) =>
    await app.request(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  return { app, engine, runner, post };
}

/** The data of each event of a stream. */
export async function events(response: Response): Promise<string[]> {
  const text = await response.text();
  return text.split("\n\n").filter((e) => e.startsWith("data: ")).map((e) => e.slice(6));
}

// deno-lint-ignore no-explicit-any
export type Json = any;
