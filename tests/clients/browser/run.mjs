// Runs one scenario in Chromium: run.mjs SCENARIO URL USER PASSWORD. Prints what was seen.

import { PHONE, accessibility, control, focused, launch, open, overflow, signIn, traces } from "./browser.mjs";

const [name, base, user, password] = process.argv.slice(2);
const LOGIN = `${base}/_matrix/static/client/login/`;
const ACCOUNT = `${base}/_matrix/login/account`;
const browser = await launch();

/** Keep the response, as a client that follows the specification does. */
function specificationClient() {
    window.taken = [];
    window.onLogin = (response) => window.taken.push(response);
}

/** Text of an element, once it has some. */
async function said(page, selector) {
    await page.waitForFunction((each) => document.querySelector(each)?.textContent.trim(), selector);
    return (await page.locator(selector).textContent()).trim();
}

async function listed(page) {
    return await page.locator("#sessions code").allTextContents();
}

async function enterAccount(query = "", options = {}) {
    const opened = await open(browser, `${ACCOUNT}${query}`, options);
    await signIn(opened.page, user, password);
    await opened.page.locator("#loading").waitFor({ state: "hidden" });
    return opened;
}

const scenarios = {
    /** Log in with the keyboard alone, with what the query asks for. */
    async keyboard() {
        const opened = await open(browser, `${LOGIN}?device_id=WEBVIEW&initial_device_display_name=A%20phone&refresh_token=true`, { init: specificationClient });
        const { page } = opened;
        const order = [await focused(page)];
        await page.keyboard.type(user);
        for (let each = 0; each < 3; each += 1) {
            await page.keyboard.press("Tab");
            order.push(await focused(page));
        }
        await page.keyboard.press("Shift+Tab");
        await page.keyboard.press("Shift+Tab");
        await page.keyboard.type(password);
        const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineWidth);
        await page.keyboard.press("Enter");
        await page.waitForFunction(() => window.taken.length);
        await page.locator("#done-title").waitFor();
        return {
            order, outline,
            taken: await page.evaluate(() => window.taken),
            focus: await focused(page),
            left: await page.locator("#password").inputValue(),
            traces: await traces(opened),
        };
    },

    /** The client that sets matrixLogin.onLogin once the page is loaded, and is told by a frame. */
    async olderClient() {
        const opened = await open(browser, LOGIN);
        const { page } = opened;
        await page.evaluate(() => {
            window.matrixLogin.onLogin = (response) => {
                window.response = response;
                const frame = document.createElement("iframe");
                frame.setAttribute("src", `js:${JSON.stringify({ action: "onLogin" })}`);
                document.documentElement.appendChild(frame);
                frame.remove();
            };
        });
        await signIn(page, user, password);
        await page.waitForFunction(() => window.response);
        return { response: await page.evaluate(() => window.response), traces: await traces(opened) };
    },

    /** The page in an ordinary browser, where no app takes the response. */
    async noClient() {
        const opened = await open(browser, LOGIN);
        await signIn(opened.page, user, password);
        return { said: await said(opened.page, "#form-problem"), state: await control(base), traces: await traces(opened) };
    },

    /** A wrong password, and then nothing at all. */
    async wrong() {
        const opened = await open(browser, LOGIN, { init: specificationClient });
        const { page } = opened;
        await signIn(page, user, "not the password of anybody");
        const problem = await said(page, "#password-problem");
        await page.locator("#submit:not([aria-disabled])").waitFor();
        const result = {
            problem,
            focus: await focused(page),
            description: await page.locator("#password").evaluate((each) => each.getAttribute("aria-describedby")),
            invalid: await page.locator("#password").getAttribute("aria-invalid"),
            form: await page.locator("#form-problem").textContent(),
            below: await page.evaluate(() => {
                const input = document.getElementById("password").getBoundingClientRect();
                return document.getElementById("password-problem").getBoundingClientRect().top - input.bottom;
            }),
            accessibility: await accessibility(page),
        };
        await page.keyboard.type("x");
        result.afterTyping = await page.locator("#password-problem").textContent();
        await page.locator("#user").fill("");
        await page.locator("#password").fill("");
        await page.locator("#submit").click();
        result.empty = [await said(page, "#user-problem"), await said(page, "#password-problem")];
        result.emptyFocus = await focused(page);
        return { ...result, traces: await traces(opened) };
    },

    /** What is said while the server or the network is in trouble. */
    async troubles() {
        const { page, context } = await open(browser, LOGIN, { init: specificationClient });
        const result = {};
        await control(base, { down: true });
        await page.clock.install();
        await signIn(page, user, password);
        result.down = await said(page, "#form-problem");
        result.countdown = await page.locator("#submit").textContent();
        result.blocked = await page.locator("#submit").getAttribute("aria-disabled");
        await control(base, { down: false });
        await page.clock.runFor(6000);
        result.again = await page.locator("#status").textContent();
        result.label = await page.locator("#submit").textContent();
        await context.setOffline(true);
        await page.locator("#submit").click();
        result.offline = await said(page, "#form-problem");
        await context.setOffline(false);
        await page.route("**/v3/login", (route) => route.abort());
        await page.locator("#submit").click();
        await page.waitForFunction(() => document.getElementById("form-problem").textContent.includes("reached"));
        result.unreachable = await page.locator("#form-problem").textContent();
        await page.unroute("**/v3/login");
        for (const [key, status, payload] of [
            ["limited", 429, { errcode: "M_LIMIT_EXCEEDED", error: "Too Many Requests", retry_after_ms: 300_000 }],
            ["locked", 401, { errcode: "M_USER_LOCKED", error: "This account has been locked" }],
            ["deactivated", 403, { errcode: "M_USER_DEACTIVATED", error: "…" }],
            ["notLinked", 403, { errcode: "M_FORBIDDEN", error: "It is not linked to yours" }],
        ]) {
            await page.route("**/v3/login", (route) => route.fulfill({ status, json: payload }));
            await page.locator("#submit").click();
            await page.waitForFunction((before) => {
                const now = document.getElementById("form-problem").textContent;
                return now !== "" && now !== before;
            }, result.last ?? result.unreachable);
            result[key] = result.last = await page.locator("#form-problem").textContent();
            await page.unroute("**/v3/login");
            await page.clock.runFor(301_000);
        }
        await page.route("**/v3/login", (route) => route.fulfill({ status: 502, contentType: "text/html", body: "<h1>" }));
        await page.locator("#submit").click();
        await page.waitForFunction(() => document.getElementById("form-problem").textContent.includes("problem"));
        result.html = await page.locator("#form-problem").textContent();
        return result;
    },

    /** The account page: the list, one sign-out by keyboard, all others, everywhere. */
    async account() {
        const opened = await enterAccount();
        const { page } = opened;
        const result = {
            focus: await focused(page),
            user: await page.locator("#user-id").textContent(),
            listed: await listed(page),
            names: await page.locator("#sessions .name").allTextContents(),
            newest: await page.locator(".badge:visible").count(),
            times: await page.locator("#sessions time").count(),
        };
        const button = page.getByRole("button", { name: `Sign out Tablet (TABLET)` });
        await button.focus();
        await page.keyboard.press("Enter");
        result.asked = await said(page, "#confirm-title");
        result.inDialog = await focused(page);
        await page.keyboard.press("Escape");
        result.afterEscape = await focused(page);
        await page.keyboard.press("Enter");
        await page.keyboard.press("Tab");
        await page.keyboard.press("Enter");
        result.message = await said(page, "#message");
        await page.locator("#confirm").waitFor({ state: "hidden" });
        result.focusAfter = await focused(page);
        result.afterOne = await listed(page);
        await page.locator("#others").click();
        result.choices = await page.locator("#keep option").allTextContents();
        await page.locator("#keep").selectOption("PHONE");
        await page.locator("#confirmed").click();
        await page.locator("#confirm").waitFor({ state: "hidden" });
        result.afterOthers = await listed(page);
        result.othersOffered = await page.locator("#others").isVisible();
        await page.locator("#all").click();
        await page.locator("#confirmed").click();
        await page.locator("#confirm").waitFor({ state: "hidden" });
        result.afterAll = await listed(page);
        result.empty = await page.locator("#empty").isVisible();
        result.state = await control(base);
        await page.locator("#leave").click();
        result.left = [await page.locator("#account").isHidden(), await page.locator("#user-id").textContent(), await page.locator("#user").inputValue()];
        return { ...result, traces: await traces(opened) };
    },

    /** The reset of cross-signing. */
    async reset() {
        const opened = await open(browser, `${ACCOUNT}?action=org.matrix.cross_signing_reset`);
        const { page } = opened;
        const purpose = await page.locator("#purpose").textContent();
        await signIn(page, user, password);
        const title = await said(page, "#request-title");
        const focus = await focused(page);
        const violations = await accessibility(page);
        await control(base, { homeserverDown: true });
        await page.locator("#request-do").click();
        const problem = await said(page, "#request-problem");
        const before = await control(base, { homeserverDown: false });
        await page.locator("#request-do").click();
        await page.getByRole("heading", { name: "Go back to your app now" }).waitFor();
        return {
            purpose, title, focus, problem, violations,
            text: await page.locator("#request-text").textContent(),
            allowedBefore: before.allowed,
            allowed: (await control(base)).allowed,
            traces: await traces(opened),
        };
    },

    /** Every other action that an app may ask for. */
    async actions() {
        const result = {};
        for (const [action, device] of [["device_delete", "TABLET"], ["session_end", "DESK"]]) {
            const { page } = await enterAccount(`?action=org.matrix.${action}&device_id=${device}`);
            result[action] = [await said(page, "#request-title")];
            await page.locator("#request-do").click();
            await page.getByRole("heading", { name: "Done" }).waitFor();
            result[action].push(await listed(page));
        }
        result.deleted = (await control(base)).deleted;
        const { page: gone } = await enterAccount("?action=org.matrix.device_delete&device_id=GONE");
        result.gone = await said(gone, "#message");
        for (const action of ["device_view", "session_view"]) {
            const { page } = await enterAccount(`?action=org.matrix.${action}&device_id=PHONE`);
            result[action] = await page.locator(".session.wanted code").textContent();
        }
        for (const action of ["profile", "account_deactivate", "fly"]) {
            const { page } = await enterAccount(`?action=org.matrix.${action}`);
            result[action] = await said(page, "#message");
        }
        for (const action of ["devices_list", "sessions_list", "device_delete"]) {
            const { page } = await enterAccount(`?action=org.matrix.${action}`);
            result[`${action} alone`] = [await page.locator("#message").textContent(), (await listed(page)).length];
        }
        return result;
    },

    /** A page token that expires, by the server's clock and by the page's own. */
    async expired() {
        const opened = await enterAccount();
        const { page } = opened;
        await control(base, { advance: 900 });
        await page.getByRole("button", { name: /^Sign out Phone/ }).click();
        await page.locator("#confirmed").click();
        await page.locator("#sign-in").waitFor();
        const result = {
            said: await page.locator("#form-problem").textContent(),
            focus: await focused(page),
            dialog: await page.locator("#confirm").isVisible(),
            left: await page.locator("#sessions").textContent(),
            sessions: (await control(base)).sessions.length,
        };
        await page.clock.install();
        await signIn(page, user, password);
        await page.locator("#account-title").waitFor();
        await page.clock.runFor(900_000);
        result.byItself = await said(page, "#form-problem");
        await signIn(page, user, password);
        await page.locator("#account-title").waitFor();
        await page.goto(LOGIN);
        await page.goBack();
        result.returned = [await page.locator("#sign-in").isVisible(), await page.locator("#password").inputValue(), await page.locator("#user-id").textContent()];
        return { ...result, traces: await traces(opened) };
    },

    /** An answer that comes when the account has been left. */
    async late() {
        const { page } = await open(browser, ACCOUNT);
        let release;
        const held = new Promise((resolve) => (release = resolve));
        await page.route("**/account/sessions", async (route) => {
            await held;
            await route.continue();
        });
        await signIn(page, user, password);
        await page.locator("#leave").click();
        const answer = page.waitForResponse("**/account/sessions");
        release();
        await (await answer).finished();
        await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
        return { sessions: await page.locator("#sessions").textContent(), visible: await page.locator("#sign-in").isVisible() };
    },

    /** Both pages in each state, by light and dark, on a phone and a desktop. */
    async looks() {
        const result = { accessibility: [], overflow: {}, backgrounds: {} };
        async function look(page, what) {
            result.accessibility.push(...(await accessibility(page)).map((each) => `${what}: ${each}`));
            result.overflow[what] = await overflow(page);
        }
        for (const colorScheme of ["light", "dark"]) {
            for (const [window, viewport] of [["phone", PHONE], ["desktop", { width: 1280, height: 800 }]]) {
                const options = { colorScheme, viewport, reducedMotion: "reduce" };
                const where = `${colorScheme} ${window}`;
                const login = await open(browser, LOGIN, options);
                await look(login.page, `${where} login`);
                result.backgrounds[where] = await login.page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
                await signIn(login.page, user, password);
                await said(login.page, "#form-problem");
                await look(login.page, `${where} refusal`);
                const { page } = await enterAccount("?action=org.matrix.device_delete&device_id=TABLET", options);
                await said(page, "#request-title");
                await look(page, `${where} account`);
                await page.locator("#others").click();
                await look(page, `${where} dialog`);
                await login.context.close();
            }
        }
        return result;
    },

    /** The pages without JavaScript, and before their scripts have come. */
    async noScript() {
        const result = {};
        for (const [key, url] of [["login", LOGIN], ["account", ACCOUNT]]) {
            const context = await browser.newContext({ javaScriptEnabled: false });
            const page = await context.newPage();
            await page.goto(url);
            result[key] = (await page.locator("noscript").textContent()).trim();
            await page.locator("#user").fill(user);
            await page.locator("#password").fill(password);
            const sent = [];
            page.on("request", (request) => sent.push(request.url()));
            const refused = page.waitForEvent("console", (message) => message.text().includes("form-action"));
            // Not awaited: the navigation that it waits for never comes.
            page.locator("#submit").click({ noWaitAfter: true }).catch(() => undefined);
            await refused;
            result[`${key} sent`] = sent;
        }
        return result;
    },

    /** Another site puts the pages into frames. */
    async framed() {
        const other = base.replace("127.0.0.1", "localhost");
        const result = {};
        for (const [key, url, from] of [["login", LOGIN, other], ["account", ACCOUNT, other], ["login, own", LOGIN, base]]) {
            const { page } = await open(browser, `${from}/test/frame?${encodeURIComponent(url)}`);
            await page.waitForLoadState();
            const frame = page.frames()[1];
            result[key] = await frame.locator("#user").count();
        }
        return result;
    },

    /** Another site asks for what the account page asks for. */
    async otherSite() {
        const { page } = await open(browser, `${base.replace("127.0.0.1", "localhost")}/test/frame`);
        return await page.evaluate(async ([url, given]) => {
            const outcomes = {};
            for (const [key, type] of [["json", "application/json"], ["simple", "text/plain"]]) {
                outcomes[key] = await fetch(`${url}/sign_in`, { method: "POST", headers: { "Content-Type": type }, body: JSON.stringify(given) })
                    .then((response) => response.text(), () => "not readable");
            }
            return outcomes;
        }, [ACCOUNT, { user, password }]);
    },
};

let result;
try {
    result = await scenarios[name]();
} finally {
    await browser.close();
}
console.log("RESULT " + JSON.stringify(result));
