// What the programs here have in common: logging in with matrix-js-sdk, and a client that refreshes.

import { ClientEvent, HttpApiEvent, createClient } from "matrix-js-sdk";

const PATIENCE_MS = 120_000;

/** Log in as a client that refreshes; the answer. */
export async function login(baseUrl, user, password) {
    return await createClient({ baseUrl }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user },
        password,
        refresh_token: true,
        initial_device_display_name: "matrix-js-sdk",
    });
}

/**
 * A client that the SDK refreshes by itself.
 *
 * refreshUrls are taken in turn for the refreshes; the last one serves all that follow. "seen" fills with
 * what happened.
 */
export function refreshing(baseUrl, session, refreshUrls) {
    const seen = { refreshes: 0, refreshErrors: [], tokens: [session.access_token], loggedOut: false };
    const urls = [...refreshUrls];
    const client = createClient({
        baseUrl,
        userId: session.user_id,
        deviceId: session.device_id,
        accessToken: session.access_token,
        refreshToken: session.refresh_token,
        tokenRefreshFunction: async (refreshToken) => {
            const url = urls.length > 1 ? urls.shift() : urls[0];
            try {
                // Another client, as Element does it: the SDK holds this one's requests back meanwhile.
                const pair = await createClient({ baseUrl: url }).refreshToken(refreshToken);
                seen.refreshes += 1;
                seen.tokens.push(pair.access_token);
                return { accessToken: pair.access_token, refreshToken: pair.refresh_token };
            } catch (error) {
                seen.refreshErrors.push(`${error.constructor.name} ${error.httpStatus}`);
                throw error;
            }
        },
    });
    client.on(HttpApiEvent.SessionLoggedOut, () => {
        seen.loggedOut = true;
    });
    return { client, seen };
}

/** Wait until a condition holds, trying again and again. */
export async function until(condition, what) {
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await condition())) {
        if (Date.now() > deadline) {
            throw new Error(`waited in vain: ${what}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
}

/** Count the syncs of a client that end well. */
export function countSyncs(client) {
    const syncs = { done: 0 };
    client.on(ClientEvent.Sync, (state) => {
        if (state === "SYNCING") {
            syncs.done += 1;
        }
    });
    return syncs;
}

/** Say what happened, and end. */
export function finish(result) {
    console.log("RESULT " + JSON.stringify(result));
    process.exit(0);
}
