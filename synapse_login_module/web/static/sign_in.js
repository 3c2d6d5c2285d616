// The form for user name and password, which both pages have.

import { Failed, explain } from "./http.js";

const WRONG = "Invalid username or password";

/** What to say when it is no request that failed. */
export const BROKEN = "Something went wrong on this page. Load it again.";

const find = (id) => document.getElementById(id);

/**
 * Run the sign-in form.
 *
 * submit({user, password}) signs in; it throws what send() throws. It may also throw a Refusal.
 */
export function runSignIn(server, submit) {
    const form = find("sign-in-form");
    const button = new BusyButton(find("submit"), "Signing in…");
    const user = new Field(find("user"), find("user-problem"));
    const password = new Field(find("password"), find("password-problem"));
    const problem = find("form-problem");
    const reveal = new Reveal(find("reveal"), password.input);

    async function attempt() {
        user.clear();
        password.clear();
        problem.textContent = "";
        const typed = { user: user.input.value.trim(), password: password.input.value };
        if (typed.password === "") {
            password.complain("Enter your password.");
        }
        if (typed.user === "") {
            user.complain("Enter your username.");
        }
        if (typed.user === "" || typed.password === "") {
            return;
        }
        reveal.hide();
        button.begin();
        find("status").textContent = "Signing in…";
        try {
            await submit(typed);
            form.reset();
            button.end();
        } catch (error) {
            button.end();
            tell(error);
        } finally {
            find("status").textContent = "";
        }
    }

    function tell(error) {
        if (error instanceof Failed && error.status === 403 && error.said === WRONG) {
            password.complain("This username and password do not match.");
            password.input.select();
            return;
        }
        if (error instanceof Failed) {
            problem.textContent = explain(error, server);
        } else {
            problem.textContent = error instanceof Refusal ? error.message : BROKEN;
        }
        if (error instanceof Failed && error.wait > 0) {
            button.wait(error.wait, () => {
                problem.textContent = "";
                find("status").textContent = "You can try again now.";
            });
        }
    }

    form.addEventListener("submit", (event) => {
        event.preventDefault();
        if (button.isFree) {
            attempt();
        }
    });
    return {
        /** Show the form again, with something to say. */
        show(said) {
            password.input.value = "";
            problem.textContent = said;
            (user.input.value === "" ? user : password).input.focus();
        },
    };
}

/** The page refuses to sign in; the message says why. */
export class Refusal extends Error {}

/** An input and the place for what is wrong with it. */
class Field {
    constructor(input, problem) {
        this.input = input;
        this.problem = problem;
        input.addEventListener("input", () => this.clear());
    }

    complain(text) {
        this.input.setAttribute("aria-invalid", "true");
        this.problem.textContent = text;
        this.input.focus();
    }

    clear() {
        this.input.removeAttribute("aria-invalid");
        this.problem.textContent = "";
    }
}

/** The button that shows and hides the password. */
class Reveal {
    constructor(button, input) {
        this.button = button;
        this.input = input;
        button.hidden = false;
        button.addEventListener("click", () => this.set(input.type === "password"));
    }

    set(isShown) {
        this.input.type = isShown ? "text" : "password";
        this.button.textContent = isShown ? "Hide" : "Show";
        this.button.setAttribute("aria-label", isShown ? "Hide password" : "Show password");
    }

    hide() {
        this.set(false);
    }
}

/**
 * A button with something to wait for. It keeps the focus meanwhile, as a disabled one would not.
 */
export class BusyButton {
    constructor(button, busyLabel) {
        this.button = button;
        this.label = button.querySelector(".label");
        this.text = this.label.textContent;
        this.busyLabel = busyLabel;
    }

    get isFree() {
        return this.button.getAttribute("aria-disabled") !== "true";
    }

    begin() {
        this.button.setAttribute("aria-disabled", "true");
        this.button.classList.add("busy");
        this.label.textContent = this.busyLabel;
    }

    end() {
        this.button.removeAttribute("aria-disabled");
        this.button.classList.remove("busy");
        this.label.textContent = this.text;
    }

    /** Count down the seconds until the next attempt can succeed. */
    wait(seconds, then) {
        const until = performance.now() + seconds * 1000;
        this.button.setAttribute("aria-disabled", "true");
        const show = () => {
            const left = Math.ceil((until - performance.now()) / 1000);
            if (left <= 0) {
                clearInterval(timer);
                this.end();
                then();
                return;
            }
            const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
            this.label.textContent = `Try again in ${clock}`;
        };
        const timer = setInterval(show, 1000);
        show();
    }
}
