/**
 * Entry of a single-file flame graph: the answer lies in the page, nothing is fetched.
 */

import { byId, isTyping } from "./dom.js";
import { FlamePanel } from "./flamepanel.js";
import { followTheme } from "./theme.js";

const panel = new FlamePanel(byId("flame"), byId("functions"), () => {});
const turnTheme = followTheme((isDark) => panel.setDark(isDark));
byId("theme").addEventListener("click", turnTheme);
document.addEventListener("keydown", (event) => {
	if (panel.onKey(event) || isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
	if (event.key === "t") turnTheme();
});
const answer = JSON.parse(byId("flame-data").textContent ?? "");
if (answer.tree.samples[0] > 0) panel.show(answer);
else panel.say(["No samples in this selection."]);
