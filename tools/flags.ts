/** Writes docs/flags.md and docs/unsloth-flags.md from their tables: `deno run -A tools/flags.ts`. @module */
import { writeFileSync } from "node:fs";
import { flagsMarkdown } from "../src/cli/help.ts";
import { unslothFlagsPage } from "../tests/cli/unsloth_flags.ts";

writeFileSync(new URL("../docs/flags.md", import.meta.url), flagsMarkdown());
writeFileSync(new URL("../docs/unsloth-flags.md", import.meta.url), unslothFlagsPage());
