/** Writes docs/flags.md from the table of settings: `deno run -A tools/flags.ts`. @module */
import { writeFileSync } from "node:fs";
import { flagsMarkdown } from "../src/cli/help.ts";

writeFileSync(new URL("../docs/flags.md", import.meta.url), flagsMarkdown());
