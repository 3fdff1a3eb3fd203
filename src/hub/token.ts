/** Who we are on the Hub. @module */
import process from "node:process";

/** The token that is given, else the environment's. */
export function hubToken(given: string | null | undefined): string | undefined {
  return given || process.env.HF_TOKEN || process.env.HUGGING_FACE_HUB_TOKEN;
}
