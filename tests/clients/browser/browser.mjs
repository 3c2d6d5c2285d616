// What the programs here have in common: a browser that notes all that a page lets out.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");

export const PHONE = { width: 320, height: 640 };
export const DESKTOP = { width: 1280, height: 800 };

/** Start Chromium, without its sandbox where the tests run as root. */
export async function launch() {
    return await chromium.launch({
        executablePath: process.env.CHROMIUM,
        chromiumSandbox: process.getuid() !== 0,
    });
}

/** Open a page in a window of its own; seen fills with what it lets out. */
export async function open(browser, url, options = {}) {
    const { init, ...more } = options;
    const context = await browser.newContext({ viewport: DESKTOP, locale: "en-GB", timezoneId: "UTC", ...more });
    const page = await context.newPage();
    const seen = { console: [], errors: [], violations: [], urls: [] };
    page.on("console", (message) => seen.console.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => seen.errors.push(String(error)));
    page.on("request", (request) => seen.urls.push(request.url()));
    page.on("framenavigated", (frame) => seen.urls.push(frame.url()));
    await page.exposeFunction("noteViolation", (violation) => seen.violations.push(violation));
    await page.addInitScript(() => {
        document.addEventListener("securitypolicyviolation", (event) =>
            window.noteViolation(`${event.effectiveDirective} ${event.blockedURI}`));
    });
    if (init !== undefined) {
        await page.addInitScript(init);
    }
    await page.goto(url);
    return { page, seen, context };
}

/** What the page has stored, and what its title and URL say. */
export async function traces({ page, seen, context }) {
    const kept = await page.evaluate(() => ({
        local: JSON.stringify(localStorage),
        session: JSON.stringify(sessionStorage),
        title: document.title,
        url: location.href,
        history: JSON.stringify(history.state),
    }));
    const cookies = await context.cookies();
    return { ...seen, ...kept, cookies: cookies.length };
}

/** Check a page for accessibility; what axe-core finds, one line each. */
export async function accessibility(page) {
    await page.evaluate(AXE);
    const result = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"], preload: false }));
    return result.violations.flatMap((each) => each.nodes.map((node) => `${each.id}: ${node.target} ${node.failureSummary}`));
}

/** By how many pixels a page is wider than its window. */
export async function overflow(page) {
    return await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

/** The id of the element that has the focus; its text where it has none. */
export async function focused(page) {
    return await page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
}

/** Sign in to the form of either page. */
export async function signIn(page, user, password) {
    await page.locator("#user").fill(user);
    await page.locator("#password").fill(password);
    await page.locator("#submit").click();
}

/** Have the test's server do something; its state. */
export async function control(base, orders = {}) {
    const response = await fetch(`${base}/test/control`, { method: "POST", body: JSON.stringify(orders) });
    return await response.json();
}
