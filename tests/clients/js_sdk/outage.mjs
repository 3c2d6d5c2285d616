// outage.mjs URL USER PASSWORD DOWN_URL
//
// Logs in and lets its access token expire, while DOWN_URL, a proxy with nothing behind it, answers its first
// refresh; then that is over.

import { finish, login, refreshing, until } from "./client.mjs";

const [baseUrl, user, password, downUrl] = process.argv.slice(2);

const session = await login(baseUrl, user, password);
const { client, seen } = refreshing(baseUrl, session, [downUrl, baseUrl]);
const errors = [];
await until(async () => {
    try {
        await client.whoami();
    } catch (error) {
        errors.push(error.name);
    }
    return seen.refreshes > 0 || seen.loggedOut;
}, "a refresh after the outage");
finish({ ...seen, errors, loggedOut: seen.loggedOut, whoami: seen.loggedOut ? null : await client.whoami() });
