// Requests to the server, and what to tell people of those that fail.

const TIMEOUT_MS = 60_000;

/** A request that failed: status 0 when there was no answer, and the seconds to wait, if known. */
export class Failed extends Error {
    constructor(status, payload = {}, wait = 0) {
        super(`status ${status}`);
        this.status = status;
        this.errcode = payload.errcode ?? "";
        this.said = payload.error ?? "";
        this.wait = wait;
    }
}

/** Send a request; return the JSON of the answer. */
export async function send(url, { body, token } = {}) {
    const headers = { Accept: "application/json" };
    if (token !== undefined) {
        headers.Authorization = `Bearer ${token}`;
    }
    if (body !== undefined) {
        headers["Content-Type"] = "application/json";
    }
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
    try {
        const response = await fetch(url, {
            method: body === undefined ? "GET" : "POST",
            headers,
            body: body === undefined ? undefined : JSON.stringify(body),
            cache: "no-store",
            credentials: "omit",
            redirect: "error",
            signal: abort.signal,
        });
        const payload = await response.json().catch((error) => {
            if (error instanceof SyntaxError) {
                return {}; // such as the HTML of a proxy
            }
            throw error;
        });
        if (!response.ok) {
            throw new Failed(response.status, payload, secondsToWait(response, payload));
        }
        return payload;
    } catch (error) {
        throw error instanceof Failed ? error : new Failed(0);
    } finally {
        clearTimeout(timer);
    }
}

function secondsToWait(response, payload) {
    if (Number.isFinite(payload.retry_after_ms)) {
        return Math.ceil(payload.retry_after_ms / 1000);
    }
    const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    return Number.isFinite(seconds) ? seconds : 0;
}

/** Say in a sentence or two what failed, and what to do. */
export function explain(failed, server) {
    if (failed.status === 0) {
        return navigator.onLine === false
            ? "You are offline. Connect to the internet and try again."
            : `${server} cannot be reached. Check your connection and try again.`;
    }
    if (failed.status === 429) {
        return `Too many attempts. ${tryAgain(failed.wait)}`;
    }
    if (failed.errcode === "M_USER_LOCKED") {
        return `This account is locked. The people who run ${server} can unlock it.`;
    }
    if (failed.errcode === "M_USER_DEACTIVATED") {
        return "This account has been deactivated.";
    }
    if (failed.status >= 500) {
        return `${sentence(failed.said || "The server has a problem")} ${tryAgain(failed.wait)}`;
    }
    return sentence(failed.said || `The server refused this (error ${failed.status})`);
}

function tryAgain(seconds) {
    return seconds > 0 ? `Try again in ${duration(seconds)}.` : "Try again in a moment.";
}

function sentence(text) {
    return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** A duration in words: exact below two minutes, then in minutes. */
export function duration(seconds) {
    if (seconds < 120) {
        return seconds === 1 ? "1 second" : `${seconds} seconds`;
    }
    return `${Math.ceil(seconds / 60)} minutes`;
}
