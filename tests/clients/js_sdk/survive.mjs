// survive.mjs URL USER PASSWORD SYNCING_FILE FAILED_FILE
//
// Syncs; makes SYNCING_FILE when it does, and FAILED_FILE when a refresh has failed. Ends when it has refreshed and
// synced after that.

import { writeFileSync } from "node:fs";

import { countSyncs, finish, login, refreshing, until } from "./client.mjs";

const [baseUrl, user, password, syncingFile, failedFile] = process.argv.slice(2);

const session = await login(baseUrl, user, password);
const { client, seen } = refreshing(baseUrl, session, [baseUrl]);
const syncs = countSyncs(client);
await client.startClient({ initialSyncLimit: 1, pollTimeout: 500 });
await until(() => syncs.done > 0, "a sync");
writeFileSync(syncingFile, "");
await until(() => seen.refreshErrors.length > 0 || seen.loggedOut, "a failed refresh");
writeFileSync(failedFile, "");
const before = seen.refreshes;
await until(() => seen.refreshes > before || seen.loggedOut, "a refresh after the outage");
const done = syncs.done;
await until(() => syncs.done > done || seen.loggedOut, "a sync after the outage");
client.stopClient();
finish({ ...seen, whoami: seen.loggedOut ? null : await client.whoami() });
