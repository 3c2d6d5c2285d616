// The dialogue that asks before something is ended.

import { BusyButton } from "./sign_in.js";

const find = (id) => document.getElementById(id);

const dialog = find("confirm");
const label = dialog.querySelector("#confirmed .label");
let current;

/**
 * Ask, and carry out what is confirmed.
 *
 * choices are those of the list under the text, as [value, name]. carryOut(chosen) returns what went
 * wrong, or "". done() is called after that, when the dialogue is closed.
 */
export function confirm({ title, text, action, busy, choices = [], carryOut, done }) {
    find("confirm-title").textContent = title;
    find("confirm-text").textContent = text;
    find("confirm-problem").textContent = "";
    label.textContent = action;
    find("keep-field").hidden = choices.length === 0;
    find("keep").replaceChildren(...choices.map(([value, name]) => new Option(name, value)));
    current = { button: new BusyButton(find("confirmed"), busy), carryOut, done };
    dialog.showModal();
}

/** Close the dialogue, whatever it asks. */
export function closeConfirm() {
    dialog.close();
}

find("confirm-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { button, carryOut, done } = current;
    if (!button.isFree) {
        return;
    }
    find("confirm-problem").textContent = "";
    button.begin();
    const problem = await carryOut(find("keep").value);
    button.end();
    if (problem === "") {
        dialog.close();
        done();
    } else {
        find("confirm-problem").textContent = problem;
    }
});

find("cancel").addEventListener("click", () => dialog.close());
dialog.addEventListener("cancel", (event) => {
    if (!current.button.isFree) {
        event.preventDefault();
    }
});
