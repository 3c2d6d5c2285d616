// session.mjs URL USER PASSWORD sync|whoami
//
// Logs in, lets access tokens expire, and carries on: with the sync loop, or asking who it is.

import { countSyncs, finish, login, refreshing, until } from "./client.mjs";

const [baseUrl, user, password, how] = process.argv.slice(2);
const REFRESHES = 2;

const session = await login(baseUrl, user, password);
const { client, seen } = refreshing(baseUrl, session, [baseUrl]);
const result = { userId: session.user_id, expiresInMs: session.expires_in_ms };
result.whoami = await client.whoami();

if (how === "sync") {
    const syncs = countSyncs(client);
    await client.startClient({ initialSyncLimit: 1, pollTimeout: 500 });
    await until(() => seen.refreshes >= REFRESHES, "refreshes of the sync loop");
    const before = syncs.done;
    await until(() => syncs.done > before, "a sync after the refreshes");
    client.stopClient();
    result.syncs = syncs.done;
} else {
    await until(async () => {
        await client.whoami();
        return seen.refreshes >= REFRESHES;
    }, "refreshes");
}

result.whoamiAfter = await client.whoami();
result.logout = await client.logout(true);
finish({ ...result, ...seen, distinctTokens: new Set(seen.tokens).size });
