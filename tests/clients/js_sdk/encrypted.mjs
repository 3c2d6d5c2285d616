// encrypted.mjs URL USER PASSWORD PEER MESSAGE
//
// Makes an encrypted room, invites PEER, sends MESSAGE once PEER has joined, waits for an encrypted message from PEER,
// and for a refresh of the access token meanwhile.

import { MatrixEventEvent, ClientEvent, Preset } from "matrix-js-sdk";

import { finish, login, refreshing, until } from "./client.mjs";

const [baseUrl, user, password, peer, message] = process.argv.slice(2);

const session = await login(baseUrl, user, password);
const { client, seen } = refreshing(baseUrl, session, [baseUrl]);
const received = [];

/** Note a message of the peer that was encrypted, once it is in the clear. */
function note(event) {
    if (event.getSender() === peer && event.isEncrypted() && event.getType() === "m.room.message") {
        received.push(event.getContent().body);
    }
}
client.on(MatrixEventEvent.Decrypted, note);
client.on(ClientEvent.Event, note);

await client.initRustCrypto({ useIndexedDB: false });
await client.startClient({ initialSyncLimit: 10, pollTimeout: 500 });
const { room_id: roomId } = await client.createRoom({
    preset: Preset.PrivateChat,
    invite: [peer],
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
});
await until(
    async () => client.getRoom(roomId)?.getMember(peer)?.membership === "join",
    "the peer in the room",
);
await client.sendMessage(roomId, { msgtype: "m.text", body: message });
await until(async () => received.length > 0, "the peer's message");
await until(async () => seen.refreshes > 0, "a refresh");
const encrypted = await client.getCrypto().isEncryptionEnabledInRoom(roomId);
client.stopClient();
finish({ userId: session.user_id, deviceId: session.device_id, received, encrypted, ...seen });
