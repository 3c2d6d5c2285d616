// discovery.mjs URL
//
// Finds out how to log in, as Element Web does: by the metadata of a login by OAuth, and if there is none, by the
// types of login.

import { ClientPrefix, Method, createClient } from "matrix-js-sdk";

import { finish } from "./client.mjs";

const [baseUrl] = process.argv.slice(2);

const client = createClient({ baseUrl });

/** What a request fails with. */
async function failure(request) {
    try {
        return { succeeded: await request };
    } catch (error) {
        return { name: error.name, errcode: error.errcode, status: error.httpStatus };
    }
}

finish({
    metadata: await failure(client.getAuthMetadata()),
    stable: await failure(
        client.http.request(Method.Get, "/auth_metadata", undefined, undefined, { prefix: ClientPrefix.V1 }),
    ),
    flows: (await client.loginFlows()).flows,
    versions: (await client.getVersions()).versions.length > 0,
});
