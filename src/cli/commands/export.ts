/** `export`. @module */
import { ConfigError } from "../../core/errors.ts";

/** Runs the command. */
export function run(): Promise<number> {
  throw new ConfigError("Cannot run export: it is not built yet");
}
