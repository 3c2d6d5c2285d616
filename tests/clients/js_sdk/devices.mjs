// devices.mjs URL USER PASSWORD
//
// Logs in on four devices, deletes one of them and then two at once through the SDK's interactive authentication, first
// with a wrong password, and logs out on the last.

import { AuthType, InteractiveAuth } from "matrix-js-sdk";

import { finish, login, refreshing } from "./client.mjs";

const [baseUrl, user, password] = process.argv.slice(2);

const sessions = [];
for (let number = 0; number < 4; number += 1) {
    sessions.push(await login(baseUrl, user, password));
}
const [own, ...others] = sessions;
const { client, seen } = refreshing(baseUrl, own, [baseUrl]);
const devices = async () => (await client.getDevices()).devices.map((device) => device.device_id).sort();

const stages = [];

/** Do what needs the password again; it is typed wrong at first. */
async function interactively(doRequest) {
    const passwords = [`not ${password}`, password];
    const auth = new InteractiveAuth({
        matrixClient: client,
        doRequest,
        stateUpdated: (stage, status) => {
            stages.push([stage, status.errcode ?? null]);
            const typed = passwords.shift();
            if (typed === undefined) {
                throw new Error("the password is asked for a third time");
            }
            auth.submitAuthDict({
                type: AuthType.Password,
                identifier: { type: "m.id.user", user: own.user_id },
                password: typed,
            });
        },
        requestEmailToken: async () => ({ sid: "" }),
    });
    return await auth.attemptAuth();
}

const result = { before: await devices(), all: sessions.map((session) => session.device_id) };
result.one = await interactively((auth) => client.deleteDevice(others[0].device_id, auth ?? undefined));
result.afterOne = await devices();
result.two = await interactively((auth) =>
    client.deleteMultipleDevices([others[1].device_id, others[2].device_id], auth ?? undefined),
);
result.afterTwo = await devices();
await client.setDeviceDetails(own.device_id, { display_name: "renamed" });
result.renamed = (await client.getDevice(own.device_id)).display_name;
result.logout = await client.logout(true);
finish({ ...result, stages, loggedOut: seen.loggedOut });
