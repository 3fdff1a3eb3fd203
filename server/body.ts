/** The JSON of a request. @module */
import { invalid } from "./errors.ts";

/** The parsed body. @throws {ApiError} 400 when it is no JSON */
export async function readJson(request: Request): Promise<unknown> {
  const body = await request.text();
  if (body === "") throw invalid(null, "Cannot read the request: its body is empty and must be a JSON object");
  try {
    return JSON.parse(body);
  } catch (e) {
    throw invalid(null, `Cannot read the request: its body is not JSON (${(e as Error).message})`);
  }
}
