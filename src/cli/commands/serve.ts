/** `serve`: OpenAI's API over HTTP, until it is interrupted. @module */
import { createApp, serve } from "../../../server/app.ts";
import type { CliContext } from "../context.ts";
import { openSettingsEngine } from "../engine.ts";
import type { Settings } from "../settings.ts";

/** Runs the command. */
export async function run(settings: Settings, context: CliContext): Promise<number> {
  const { config } = settings, { terminal, signal } = context;
  const engine = await openSettingsEngine(settings, context, { slots: config.parallel, waiting: config.queue });
  try {
    const app = createApp(engine, { apiKeys: config.api_key === null ? [] : [config.api_key] });
    const server = await serve(app, { host: config.host, port: config.port });
    terminal.out(`Serving ${engine.model} at ${server.url}/v1 (context ${engine.contextLength} tokens, Ctrl-C ends)`);
    if (signal.aborted === false) await new Promise((done) => signal.addEventListener("abort", done, { once: true }));
    await server.close();
    return 0;
  } finally {
    await engine.close();
  }
}
