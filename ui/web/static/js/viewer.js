/**
 * Entry of the viewer: address -> questions -> page, and back. Polls every ten seconds while live, because a window
 * is ten seconds long; not while the page is hidden.
 */

import { readFlame, readOverview, Refused } from "./api.js";
import { CoresChart } from "./chart.js";
import { byId, el, isTyping } from "./dom.js";
import { FlamePanel } from "./flamepanel.js";
import { clock, duration, shownName } from "./format.js";
import { workloadColour } from "./palette.js";
import { DEFAULT_SINCE, formatState, isLive, isoTime, otherRange, parseState, spanMs } from "./state.js";
import { followTheme, isDark } from "./theme.js";
import { emptyWords, staleWords, trustLine } from "./trust.js";
import { showWorkloads } from "./workloads.js";

/** @typedef {import("./state.js").ViewerState} ViewerState */
/** @typedef {import("./api.js").Overview} Overview */
/** @typedef {import("./api.js").Flame} Flame */

const POLL_MS = 10_000;
const LATEST_LIVE_SPAN = ["-5m", "-15m", "-1h", "-6h", "-24h"];

let state = parseState(location.search);
/** @type {{whole: Overview, part: Overview, flame: Flame | null} | null} */
let shown = null;
let asking = new AbortController();
let timer = 0;

const panel = new FlamePanel(byId("flame"), byId("functions"), (changed) => setState({ ...changed }, { isQuiet: true }));
const chart = new CoresChart(byId("chart"), (from, to) => (from ? pickPart(from, to) : setState({ from: 0, to: 0 })));

/**
 * @param {Partial<ViewerState>} change
 * @param {{isQuiet?: boolean}} [how] quiet: already on the page, no step of the back button
 */
function setState(change, { isQuiet = false } = {}) {
	state = { ...state, ...change };
	const address = location.pathname + formatState(state);
	if (isQuiet) {
		history.replaceState(null, "", address);
		return;
	}
	if (address !== location.pathname + location.search) history.pushState(null, "", address);
	refresh();
}

/** A part of a moving range would slide away under the reader: picking one stops the clock. */
/**
 * @param {number} from
 * @param {number} to
 */
function pickPart(from, to) {
	setState({ ...frozenRange(), from, to });
}

function frozenRange() {
	if (!isLive(state) || !shown) return {};
	return { since: isoTime(shown.whole.range.since_ms), until: isoTime(shown.whole.range.until_ms) };
}

async function refresh() {
	asking.abort();
	asking = new AbortController();
	clearTimeout(timer);
	showControls();
	try {
		const answers = await ask(asking.signal);
		show(answers.whole, answers.part, answers.flame, answers.refused);
	} catch (error) {
		if (error instanceof DOMException && error.name === "AbortError") return;
		if (!(error instanceof Refused)) throw error;
		byId("banner").textContent = error.message;
		byId("banner").hidden = false;
		if (!shown || error.status) panel.say([el("strong", {}, "No answer"), el("p", {}, error.message)]);
	}
	schedule();
}

/**
 * @param {AbortSignal} signal
 */
async function ask(signal) {
	const range = { since: state.since, until: state.until };
	const part = state.from ? { since: String(state.from), until: String(state.to) } : range;
	const questions = [
		readOverview({ ...range, node: state.node }, signal),
		state.from ? readOverview({ ...part, node: state.node }, signal) : null,
		readFlame({ ...part, node: state.node, workload: state.workload }, signal).catch((error) => {
			if (error instanceof Refused && error.status === 400) return error; // the range may be fine without this workload
			throw error;
		}),
	];
	const [whole, ofPart, flame] = /** @type {[Overview, Overview | null, Flame | Refused]} */ (await Promise.all(questions));
	return { whole, part: ofPart ?? whole, flame: flame instanceof Refused ? null : flame, refused: flame instanceof Refused ? flame.message : "" };
}

/**
 * @param {Overview} whole
 * @param {Overview} part
 * @param {Flame | null} flame
 * @param {string} refused why there is no flame graph
 */
function show(whole, part, flame, refused) {
	const now = Date.now();
	const isFirst = shown === null;
	shown = { whole, part, flame };
	const stale = staleWords(whole, isLive(state), now);
	byId("banner").textContent = stale;
	byId("banner").hidden = !stale;
	showRange();
	showNodes(whole);
	showLists();
	byId("trust").replaceChildren(...trustLine(part, flame));
	const empty = flame ? emptyWords(part, flame, state.workload, now) : emptyRange(part, refused);
	if (empty) panel.say(empty);
	else if (flame) panel.show(flame, isFirst || !panel.tree ? state.zoom : undefined);
}

/**
 * @param {Overview} part
 * @param {string} refused
 */
function emptyRange(part, refused) {
	const words = part.samples ? "Nothing of this workload here" : "No samples in this range";
	return [el("strong", {}, words), el("p", {}, refused)];
}

function showLists() {
	if (!shown) return;
	const dark = isDark();
	const colour = workloadColours(shown.whole, dark);
	showWorkloads(byId("workloads"), shown.part.workloads, {
		chosen: state.workload,
		link: (workload) => formatState({ ...state, workload, zoom: "" }),
		onChoose: (workload) => setState({ workload, zoom: "" }),
		colour,
	});
	chart.show(shown.whole, shown.whole.series.names.map(colour), dark, { from: state.from, to: state.to });
}

/**
 * @param {Overview} overview
 * @param {boolean} dark
 * @returns {(workload: string) => string}
 */
function workloadColours(overview, dark) {
	/** @type {Map<string, string>} */
	const colours = new Map();
	/** @type {Record<string, number>} */
	const ranks = {};
	for (const { workload, service_class } of overview.workloads) {
		const rank = (ranks[service_class] = (ranks[service_class] ?? -1) + 1);
		colours.set(workload, workloadColour(service_class, rank, dark));
	}
	return (workload) => colours.get(workload) ?? workloadColour("system", 3, dark);
}

function showRange() {
	if (!shown) return;
	const { range } = shown.part;
	const now = Date.now();
	const length = duration((range.until_ms - range.since_ms) * 1e6);
	byId("range").textContent = `${clock(range.since_ms, now)} – ${clock(range.until_ms, now)} · ${length}`;
	byId("whole").hidden = !state.from;
}

/** @param {Overview} overview */
function showNodes(overview) {
	const select = /** @type {HTMLSelectElement} */ (byId("node"));
	const names = overview.nodes.map(({ name }) => name);
	if (state.node && !names.includes(state.node)) names.push(state.node);
	select.hidden = names.length < 2 && !state.node;
	if (select.dataset.names === names.join("\0")) {
		select.value = state.node;
		return;
	}
	select.dataset.names = names.join("\0");
	select.replaceChildren(el("option", { value: "" }, "All nodes"), ...names.map((name) => el("option", { value: name }, shownName(name, 80))));
	select.value = state.node;
}

function showControls() {
	const live = isLive(state);
	byId("live").setAttribute("aria-pressed", String(live));
	for (const button of document.querySelectorAll("[data-since]")) {
		const isOn = button instanceof HTMLElement && state.since.replace(/^-?/, "-") === button.dataset.since && !state.until;
		button.setAttribute("aria-pressed", String(isOn));
	}
	document.title = state.workload ? `${shownName(state.workload, 80)} · coprof` : "coprof";
}

function schedule() {
	clearTimeout(timer);
	if (isLive(state) && !document.hidden) timer = window.setTimeout(refresh, POLL_MS);
}

function toggleLive() {
	if (isLive(state)) {
		setState(frozenRange());
		return;
	}
	const length = shown ? shown.whole.range.until_ms - shown.whole.range.since_ms : 0;
	const since = LATEST_LIVE_SPAN.find((span) => spanMs(span) >= length) ?? LATEST_LIVE_SPAN[LATEST_LIVE_SPAN.length - 1];
	setState({ since: length ? since : DEFAULT_SINCE, until: "", from: 0, to: 0 });
}

/**
 * @param {number} factor
 * @param {number} shift
 */
function moveRange(factor, shift) {
	if (!shown) return;
	if (state.from && shift) {
		const length = state.to - state.from;
		setState({ from: state.from + shift * length, to: state.to + shift * length });
		return;
	}
	setState({ ...otherRange(shown.whole.range, factor, shift), from: 0, to: 0 });
}

function zoomToPart() {
	if (state.from) setState({ since: isoTime(state.from), until: isoTime(state.to), from: 0, to: 0 });
}

/** @param {KeyboardEvent} event */
function onKey(event) {
	const help = /** @type {HTMLDialogElement} */ (byId("help"));
	if (help.open || panel.onKey(event) || isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
	/** @type {Record<string, () => void>} */
	const actions = {
		t: turnTheme,
		l: toggleLive,
		z: zoomToPart,
		w: () => byId("workloads").querySelector("a")?.focus(),
		"?": () => help.showModal(),
		"[": () => moveRange(1, -0.5),
		"]": () => moveRange(1, 0.5),
		"-": () => moveRange(2, 0),
		"=": () => moveRange(0.5, 0),
		"+": () => moveRange(0.5, 0),
		Escape: () => state.from && setState({ from: 0, to: 0 }),
	};
	const index = Number(event.key);
	if (index >= 1 && index <= LATEST_LIVE_SPAN.length) setState({ since: LATEST_LIVE_SPAN[index - 1], until: "", from: 0, to: 0 });
	else if (actions[event.key]) actions[event.key]();
	else return;
	event.preventDefault();
}

/** Arrow keys walk the list of workloads. */
/** @param {KeyboardEvent} event */
function onListKey(event) {
	const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
	if (!step) return;
	event.preventDefault();
	const links = [...byId("workloads").querySelectorAll("a")];
	links[links.findIndex((link) => link === document.activeElement) + step]?.focus();
}

const turnTheme = followTheme((dark) => {
	panel.setDark(dark);
	showLists();
});
byId("theme").addEventListener("click", turnTheme);
byId("live").addEventListener("click", toggleLive);
byId("whole").addEventListener("click", () => setState({ from: 0, to: 0 }));
byId("earlier").addEventListener("click", () => moveRange(1, -0.5));
byId("later").addEventListener("click", () => moveRange(1, 0.5));
byId("wider").addEventListener("click", () => moveRange(2, 0));
byId("help-button").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("help")).showModal());
byId("node").addEventListener("change", (event) => setState({ node: /** @type {HTMLSelectElement} */ (event.target).value, zoom: "" }));
byId("workloads").addEventListener("keydown", onListKey);
for (const button of document.querySelectorAll("[data-since]")) {
	if (button instanceof HTMLElement) button.addEventListener("click", () => setState({ since: button.dataset.since ?? DEFAULT_SINCE, until: "", from: 0, to: 0 }));
}
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : isLive(state) && refresh()));
window.addEventListener("popstate", () => {
	state = parseState(location.search);
	panel.apply(state);
	refresh();
});
panel.apply(state);
refresh();
