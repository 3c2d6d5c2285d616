// cross_signing.mjs URL USER PASSWORD ASKED_FILE ALLOWED_FILE
//
// Sets up cross-signing on a new account, and replaces its keys. When it is sent to a page for that, it writes the
// page's URL to ASKED_FILE, and tries again when there is ALLOWED_FILE.

import { existsSync, renameSync, writeFileSync } from "node:fs";

import { finish, login, refreshing, until } from "./client.mjs";

const [baseUrl, user, password, askedFile, allowedFile] = process.argv.slice(2);

const session = await login(baseUrl, user, password);
const { client, seen } = refreshing(baseUrl, session, [baseUrl]);
await client.initRustCrypto({ useIndexedDB: false });
await client.startClient({ initialSyncLimit: 1, pollTimeout: 500 });

const crypto = client.getCrypto();

/** Ask the homeserver: a client that reads old keys while it uploads new ones may forget the new ones. */
async function masterKey() {
    const { master_keys: keys } = await client.downloadKeysForUsers([session.user_id]);
    return Object.values(keys[session.user_id].keys)[0];
}

const attempts = [];

/** Upload keys, and note how each attempt ended. */
async function upload(makeRequest) {
    try {
        const uploaded = await makeRequest(null);
        attempts.push("uploaded");
        return uploaded;
    } catch (error) {
        const { flows, params, errcode } = error.data ?? {};
        attempts.push({ name: error.name, status: error.httpStatus, flows, params, errcode });
        writeFileSync(`${askedFile}.new`, params[flows[0].stages[0]].url);
        renameSync(`${askedFile}.new`, askedFile);
        await until(() => existsSync(allowedFile), "the user at the page");
        const uploaded = await makeRequest({ session: error.data.session });
        attempts.push("uploaded");
        return uploaded;
    }
}

await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: upload });
const status = await crypto.getCrossSigningStatus();
const device = await crypto.getDeviceVerificationStatus(session.user_id, session.device_id);
const firstKey = await masterKey();
await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys: upload });
const secondKey = await masterKey();
client.stopClient();
finish({
    deviceId: session.device_id,
    attempts,
    keys: [firstKey, secondKey],
    publicKeysOnDevice: status.publicKeysOnDevice,
    crossSigned: device.signedByOwner,
    loggedOut: seen.loggedOut,
});
