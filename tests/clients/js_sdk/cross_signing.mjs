// cross_signing.mjs URL USER PASSWORD
//
// Sets up cross-signing on a new account, and tries to replace its keys.

import { finish, login, refreshing } from "./client.mjs";

const [baseUrl, user, password] = process.argv.slice(2);

const session = await login(baseUrl, user, password);
const { client, seen } = refreshing(baseUrl, session, [baseUrl]);
await client.initRustCrypto({ useIndexedDB: false });
await client.startClient({ initialSyncLimit: 1, pollTimeout: 500 });

const crypto = client.getCrypto();
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
        throw error;
    }
}

await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: upload });
const status = await crypto.getCrossSigningStatus();
const device = await crypto.getDeviceVerificationStatus(session.user_id, session.device_id);
let replaced = true;
try {
    await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys: upload });
} catch {
    replaced = false;
}
client.stopClient();
finish({
    deviceId: session.device_id,
    attempts,
    replaced,
    publicKeysOnDevice: status.publicKeysOnDevice,
    crossSigned: device.signedByOwner,
    loggedOut: seen.loggedOut,
});
