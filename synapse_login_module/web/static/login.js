// The login fallback page: logs in, and hands the response to the app that has opened the page.

import { send } from "./http.js";
import { Refusal, runSignIn } from "./sign_in.js";

const ENDPOINT = new URL("../../../client/v3/login", document.baseURI);
const PASSED_ON = ["device_id", "initial_device_display_name"];

// Older clients set a function of this object once the page is loaded.
window.matrixLogin ??= {};

runSignIn(document.body.dataset.server, async ({ user, password }) => {
    if (receiver() === undefined) {
        // A login now would leave a device behind that nothing uses.
        throw new Refusal("A Matrix app has to open this page, and none is waiting. Go back to your app and start there.");
    }
    const response = await send(ENDPOINT, {
        body: {
            type: "m.login.password",
            identifier: identifierOf(user),
            password,
            ...parameters(new URLSearchParams(location.search)),
        },
    });
    document.getElementById("sign-in").hidden = true;
    document.getElementById("done").hidden = false;
    document.getElementById("done-title").focus();
    try {
        receiver()(response);
    } catch (error) {
        reportError(error); // the app's own
    }
});

/** The function that takes the response: the specification's, or else that of older clients. */
function receiver() {
    if (typeof window.onLogin === "function") {
        return (response) => window.onLogin(response);
    }
    if (typeof window.matrixLogin.onLogin === "function") {
        return (response) => window.matrixLogin.onLogin(response);
    }
    return undefined;
}

/** A name, an e-mail address or a full user ID. A name holds no "@". */
function identifierOf(typed) {
    return typed.includes("@") && !typed.startsWith("@")
        ? { type: "m.id.thirdparty", medium: "email", address: typed }
        : { type: "m.id.user", user: typed };
}

/** What the client asks for in the query (specification: "Login Fallback"). */
function parameters(query) {
    const given = {};
    for (const name of PASSED_ON) {
        if (query.get(name)) {
            given[name] = query.get(name);
        }
    }
    if (query.get("refresh_token") === "true") {
        given.refresh_token = true;
    }
    return given;
}
