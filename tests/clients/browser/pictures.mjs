// Takes the pictures of docs/pages.rst: pictures.mjs FOLDER URL USER PASSWORD.

import { launch, open, signIn } from "./browser.mjs";

const [folder, base, user, password] = process.argv.slice(2);
const LOGIN = `${base}/_matrix/static/client/login/?device_id=VTMHQEWPKL&initial_device_display_name=Element%20X`;
const ACCOUNT = `${base}/_matrix/login/account`;
const WINDOWS = { phone: { width: 360, height: 720 }, desktop: { width: 1024, height: 720 } };

const browser = await launch();
for (const colorScheme of ["light", "dark"]) {
    for (const [window, viewport] of Object.entries(WINDOWS)) {
        const options = { colorScheme, viewport, reducedMotion: "reduce" };
        const take = async (page, what) => {
            await page.mouse.move(1, 1);
            await page.screenshot({ path: `${folder}/pages-${what}-${window}-${colorScheme}.png`, animations: "disabled", caret: "hide" });
        };
        const login = await open(browser, LOGIN, { ...options, init: () => (window.onLogin = () => undefined) });
        await take(login.page, "login");
        if (process.env.ALL) {
            await signIn(login.page, user, "wrong");
            await login.page.locator("#password-problem:not(:empty)").waitFor();
            await take(login.page, "wrong");
            await signIn(login.page, user, password);
            await login.page.locator("#done").waitFor();
            await take(login.page, "done");
        }
        await login.context.close();
        for (const [what, query] of process.env.ALL ? [["account", ""], ["reset", "?action=org.matrix.cross_signing_reset"], ["view", "?action=org.matrix.device_view&device_id=KDWQMHSAZV"]] : [["account", ""]]) {
            const { page, context } = await open(browser, ACCOUNT + query, options);
            await signIn(page, user, password);
            await page.locator(".session").first().waitFor();
            await take(page, what);
            if (process.env.ALL && what === "account") {
                await page.locator("#others").click();
                await take(page, "dialog");
            }
            await context.close();
        }
    }
}
await browser.close();
