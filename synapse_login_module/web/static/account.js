// The account page. The page token lives in a variable of this module, and nowhere else.

import { closeConfirm, confirm } from "./confirm.js";
import { Failed, explain, send } from "./http.js";
import { fullNameOf, nameOf, showSessions } from "./sessions.js";
import { BROKEN, BusyButton, runSignIn } from "./sign_in.js";

const find = (id) => document.getElementById(id);
const server = document.body.dataset.server;
const query = new URLSearchParams(location.search);
const clock = new Intl.DateTimeFormat("en", { timeStyle: "short" });

const LOST = "Messages that only this device can decrypt are lost to it.";
const RESET = "Reset your encryption identity";

let token;
let sessions = [];
let forgetting;

const signInForm = runSignIn(server, async (typed) => {
    const made = await request("sign_in", typed);
    token = made.token;
    forgetting = setTimeout(() => leave("You were signed out of this page after 15 minutes. Sign in to go on."), made.expires_in_ms);
    enter(made);
});

/** What the app that has opened the page wants (specification v1.18, and the names of before). */
const asked = (() => {
    switch (query.get("action")) {
        case null:
        case "":
        case "org.matrix.devices_list":
        case "org.matrix.sessions_list":
            return {};
        case "org.matrix.cross_signing_reset":
            return { purpose: "Sign in to reset your encryption identity.", show: offerReset };
        case "org.matrix.device_delete":
        case "org.matrix.session_end":
            return query.get("device_id")
                ? { purpose: "Sign in to sign out one of your devices.", show: offerSignOut }
                : {};
        case "org.matrix.device_view":
        case "org.matrix.session_view":
            return query.get("device_id") ? { show: highlight } : {};
        case "org.matrix.profile":
            return { show: () => say("Your name and picture are in the settings of your app. This page cannot change them.") };
        case "org.matrix.account_deactivate":
            return { show: () => say(`This page cannot deactivate accounts. The people who run ${server} can.`) };
        default:
            return { show: () => say("Your app has asked for something that this page does not have. You can manage your sessions here.") };
    }
})();

if (asked.purpose) {
    find("purpose").textContent = asked.purpose;
}

/** Send a request with the page token, once there is one. */
function request(name, body) {
    return send(new URL(`account/${name}`, document.baseURI), { body, token });
}

/** Run a request; return what went wrong, or "". An invalid page token leads back to the sign-in. */
async function trying(work) {
    try {
        await work();
        return "";
    } catch (error) {
        if (error instanceof Failed && error.status === 401 && error.errcode === "M_UNKNOWN_TOKEN") {
            leave("You are no longer signed in to this page. Sign in to go on.");
            return "";
        }
        if (!(error instanceof Failed)) {
            return BROKEN;
        }
        return explain(error, server);
    }
}

async function enter({ user_id: userId, expires_in_ms: lifetime }) {
    find("user-id").textContent = userId;
    find("until").textContent = `This page signs you out at ${clock.format(Date.now() + lifetime)}.`;
    say("");
    find("request").hidden = true;
    find("sign-in").hidden = true;
    find("account").hidden = false;
    find("account-title").focus();
    if (await load()) {
        asked.show?.();
    }
}

/** Read the sessions again; return whether that went well. */
async function load() {
    find("loading").hidden = false;
    find("devices").setAttribute("aria-busy", "true");
    const before = token;
    const problem = await trying(async () => {
        const found = await request("sessions");
        if (token === before) { // and nobody has left meanwhile
            sessions = found.sessions;
            showSessions(sessions, askSignOut);
        }
    });
    find("loading").hidden = true;
    find("devices").removeAttribute("aria-busy");
    if (problem !== "") {
        complain(problem);
        return false;
    }
    return token !== undefined && token === before;
}

/** Forget everything of the user, and show the sign-in. */
function leave(said = "") {
    clearTimeout(forgetting);
    token = undefined;
    sessions = [];
    showSessions([], askSignOut);
    for (const id of ["user-id", "message", "request-title", "until"]) {
        find(id).textContent = "";
    }
    find("request-text").replaceChildren();
    closeConfirm();
    find("account").hidden = true;
    find("sign-in").hidden = false;
    signInForm.show(said);
}

find("leave").addEventListener("click", () => {
    find("user").value = "";
    leave();
});
// The browser may keep the page in memory when somebody goes elsewhere, and show it again.
window.addEventListener("pagehide", () => token !== undefined && leave());

function say(text) {
    find("message").className = "notice";
    find("message").textContent = text;
}

function complain(text) {
    find("message").className = "notice problem";
    find("message").textContent = text;
}

/** Ask before sessions end. Afterwards say that they have, and show what is left. */
function askToEnd({ name, body, said, ...shown }) {
    confirm({
        ...shown,
        busy: "Signing out…",
        carryOut: (chosen) => trying(async () => {
            await request(name, body(chosen));
            say(said);
            await load();
        }),
        done: () => token !== undefined && find("devices-title").focus(),
    });
}

function askSignOut(session) {
    askToEnd({
        name: "sign_out",
        body: () => ({ device_id: session.device_id }),
        title: `Sign out ${nameOf(session)}?`,
        text: `Device ${session.device_id} has to sign in again, as a new device. ${LOST}`,
        action: "Sign out",
        said: `${nameOf(session)} is signed out.`,
    });
}

find("others").addEventListener("click", () => {
    askToEnd({
        name: "sign_out_all",
        body: (keep) => ({ keep }),
        title: "Sign out all others?",
        text: "All sessions but the one that you keep have to sign in again, as new devices.",
        action: "Sign out all others",
        said: "All other sessions are signed out.",
        choices: sessions.map((each) => [each.device_id, fullNameOf(each)]),
    });
});

find("all").addEventListener("click", () => {
    askToEnd({
        name: "sign_out_all",
        body: () => ({}),
        title: "Sign out everywhere?",
        text: "Every session has to sign in again, as a new device. Make sure that your messages are backed up, or that you have your recovery key.",
        action: "Sign out everywhere",
        said: "You are signed out everywhere.",
    });
});

/** Show the card of what the app has asked for. */
function offer({ title, text, action, busy, carryOut }) {
    find("request-title").textContent = title;
    find("request-text").replaceChildren(...text.map(paragraph));
    find("request-problem").textContent = "";
    find("request-actions").hidden = false;
    const old = find("request-do");
    const fresh = old.cloneNode(true);
    fresh.querySelector(".label").textContent = action;
    old.replaceWith(fresh);
    const button = new BusyButton(fresh, busy);
    fresh.addEventListener("click", async () => {
        if (button.isFree) {
            find("request-problem").textContent = "";
            button.begin();
            find("request-problem").textContent = await trying(carryOut);
            button.end();
        }
    });
    find("request").hidden = false;
    find("request-title").focus();
}

/** Replace the card by what came of it. */
function conclude(title, ...text) {
    find("request-title").textContent = title;
    find("request-text").replaceChildren(...text.map(paragraph));
    find("request-actions").hidden = true;
    find("request-title").focus();
}

function paragraph(text) {
    const made = document.createElement("p");
    made.textContent = text;
    return made;
}

find("request-skip").addEventListener("click", () => {
    find("request").hidden = true;
    find("devices-title").focus();
});

function offerReset() {
    offer({
        title: `${RESET}?`,
        text: [
            "Your encryption identity is what your contacts and your own devices know you by. Reset it only if you have lost all your devices and your recovery key.",
            "Afterwards your contacts have to verify you again, and you may lose old encrypted messages that are not backed up.",
        ],
        action: "Allow the reset",
        busy: "Allowing…",
        carryOut: async () => {
            await request("reset_cross_signing", {});
            conclude(
                "Go back to your app now",
                "Your app can reset your encryption identity within the next ten minutes. You can close this page.",
            );
        },
    });
}

function offerSignOut() {
    const deviceId = query.get("device_id");
    const session = sessions.find((each) => each.device_id === deviceId);
    if (session === undefined) {
        say(`Device ${deviceId} is not signed in.`);
        return;
    }
    const name = nameOf(session);
    offer({
        title: `Sign out ${name}?`,
        text: [`Device ${deviceId} has to sign in again, as a new device. ${LOST}`],
        action: "Sign out",
        busy: "Signing out…",
        carryOut: async () => {
            await request("sign_out", { device_id: deviceId });
            await load();
            conclude("Done", `${name} is signed out. You can go back to your app.`);
        },
    });
}

function highlight() {
    const item = [...find("sessions").children].find((each) => each.dataset.device === query.get("device_id"));
    if (item === undefined) {
        say(`Device ${query.get("device_id")} is not signed in.`);
        return;
    }
    item.classList.add("wanted");
    item.scrollIntoView({ block: "center" });
    item.focus();
}
