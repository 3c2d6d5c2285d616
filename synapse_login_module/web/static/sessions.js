// The list of sessions.

const find = (id) => document.getElementById(id);

const exact = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [
    ["year", 365 * 86_400],
    ["month", 30 * 86_400],
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
];

/** The name of a session's device, for people. */
export function nameOf(session) {
    return session.display_name?.trim() || "Unnamed session";
}

/** The same, so that no two sessions have one name. */
export function fullNameOf(session) {
    return `${nameOf(session)} (${session.device_id})`;
}

/** Show the sessions, the one that was refreshed last first. */
export function showSessions(sessions, signOut) {
    find("loading").hidden = true;
    find("empty").hidden = sessions.length > 0;
    find("everywhere").hidden = sessions.length === 0;
    find("others").hidden = sessions.length < 2;
    find("count").textContent = sessions.length > 1 ? `${sessions.length} sessions` : "";
    find("sessions").hidden = sessions.length === 0;
    find("sessions").replaceChildren(
        ...sessions.map((session, index) => row(session, index === 0 && sessions.length > 1, signOut)),
    );
}

function row(session, isNewest, signOut) {
    const item = find("session").content.firstElementChild.cloneNode(true);
    item.dataset.device = session.device_id;
    item.querySelector(".tile").textContent = [...nameOf(session)][0].toUpperCase();
    item.querySelector(".name").textContent = nameOf(session);
    item.querySelector(".badge").hidden = !isNewest;
    item.querySelector("code").textContent = session.device_id;
    item.querySelector(".times").append(...times(session));
    item.querySelector("button .unseen").textContent = ` ${fullNameOf(session)}`;
    item.querySelector("button").addEventListener("click", () => signOut(session));
    return item;
}

function times({ signed_in_ts: signedIn, refreshed_ts: refreshed }) {
    const parts = [];
    if (signedIn !== null) {
        const [word, text] = isOld(signedIn) ? ["Since", day.format(signedIn)] : ["Signed in", ago(signedIn)];
        parts.push(span(`${word} `, time(signedIn, text)));
    }
    if (refreshed !== null && refreshed !== signedIn) {
        parts.push(span("refreshed ", time(refreshed, ago(refreshed))));
    }
    return parts.flatMap((each, index) => (index === 0 ? [each] : [dot(), each]));
}

function span(...content) {
    const made = document.createElement("span");
    made.append(...content);
    return made;
}

function dot() {
    const made = span(" · ");
    made.className = "dot";
    return made;
}

function time(ms, text) {
    const made = document.createElement("time");
    made.dateTime = new Date(ms).toISOString();
    made.title = exact.format(ms);
    made.textContent = text;
    return made;
}

function isOld(ms) {
    return Date.now() - ms > 86_400_000;
}

function ago(ms) {
    const seconds = (Date.now() - ms) / 1000;
    for (const [unit, size] of UNITS) {
        if (seconds >= size) {
            return relative.format(-Math.floor(seconds / size), unit);
        }
    }
    return "just now";
}
