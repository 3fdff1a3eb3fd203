/** The Python that has peft, mlx-lm and tensorboard (tests/oracles/requirements.txt), and scripts run by it. */
import { spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Path of the interpreter; undefined: these tests are skipped. */
export const python: string | undefined = process.env.UNSLOTH_TEST_PYTHON;

/** For a suite's name: why it is skipped. */
export const why: string = python ? "" : " (UNSLOTH_TEST_PYTHON names no Python that has it)";

/**
 * Runs a script of this folder and gives what it printed last, as JSON.
 * @throws with the script's own error output when it fails
 */
export function askPython<T>(script: string, ...args: string[]): Promise<T> {
  const path = fileURLToPath(new URL(script, import.meta.url));
  // what is imported is kept compiled: nothing was at installation
  const env = { ...process.env, PYTHONDONTWRITEBYTECODE: "" };
  const child = spawn(python!, [path, ...args], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = { stdout: "", stderr: "" };
  child.stdout.on("data", (b) => said.stdout += b);
  child.stderr.on("data", (b) => said.stderr += b);
  return new Promise((done, refuse) => {
    child.on("error", refuse);
    child.on("close", (code) => {
      if (code === 0) {
        done(JSON.parse(said.stdout.trim().split("\n").at(-1)!) as T);
      } else refuse(new Error(`${script} failed: ${said.stderr.slice(-2000)}`));
    });
  });
}
