/**
 * The flame graph with all that belongs to it: breadcrumb, search, legend, tooltip, table of functions.
 * The same in the viewer and in a single file; neither network nor address here.
 */

import { el, isTyping } from "./dom.js";
import { FlameView } from "./flameview.js";
import { count, duration, percent } from "./format.js";
import { FunctionTable } from "./functions.js";
import { spanOf } from "./layout.js";
import { moduleWeights } from "./palette.js";
import { collectMatches, findMatches, matchedValue, neighbourMatch, parseQuery } from "./search.js";
import { Tooltip } from "./tooltip.js";
import { decodeTree, keyOf, pathTo, rowOf } from "./tree.js";

/** @typedef {import("./tree.js").FlameAnswer} FlameAnswer */

/**
 * @typedef {object} PanelState what an address remembers of the panel
 * @property {string} zoom path key, "" for the root
 * @property {string} search
 * @property {boolean} isFlame root at the bottom
 * @property {import("./palette.js").ColourBy} colourBy
 */

const LEGEND_MODULES = 7;

export class FlamePanel {
	/**
	 * @param {HTMLElement} host
	 * @param {HTMLElement} tableHost
	 * @param {(state: PanelState) => void} onState after the reader changed it
	 */
	constructor(host, tableHost, onState) {
		this.onState = onState;
		/** @type {import("./tree.js").Tree | null} */
		this.tree = null;
		this.pickedFrame = -1;
		this.problem = "";
		this.crumbs = el("ol", { class: "crumbs", "aria-label": "Zoomed to" });
		this.input = el("input", { type: "search", placeholder: "Search: text or /regex/", "aria-label": "Search frames", spellcheck: "false", autocomplete: "off", maxlength: 500 });
		this.input.addEventListener("input", () => this.search(this.input.value, true));
		this.input.addEventListener("keydown", (event) => this.onSearchKey(event));
		this.found = el("output", { class: "found", "aria-live": "polite" });
		const button = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ action) =>
			el("button", { type: "button", title, "aria-label": title, onclick: action }, text);
		const previous = button("↑", "Previous match (N)", () => this.next(-1));
		const next = button("↓", "Next match (n)", () => this.next(1));
		this.orientation = button("Icicle", "Turn over: icicle or flame (i)", () => this.turn());
		this.colouring = button("By module", "Colour by module or by kind (c)", () => this.switchColours());
		const reset = button("Reset", "Whole graph (0)", () => this.reset());
		const tools = el("div", { class: "tools" }, this.found, this.input, previous, next, this.orientation, this.colouring, reset);
		this.stage = el("div", { class: "stage" });
		this.message = el("div", { class: "message", role: "status", hidden: true });
		this.legend = el("div", { class: "legend" });
		this.said = el("div", { class: "said", "aria-live": "polite" });
		host.replaceChildren(
			el("div", { class: "flame-head" }, this.crumbs, tools),
			el("div", { class: "stage-frame" }, this.stage, this.message),
			el("div", { class: "flame-foot" }, this.legend, this.said),
		);
		this.table = new FunctionTable(tableHost, (frame) => this.pick(frame));
		this.tooltip = new Tooltip(document.body);
		this.view = new FlameView(this.stage, {
			hover: (row, x, y) => this.onHover(row, x, y),
			select: (row) => this.onSelect(row),
			zoom: () => this.onZoom(),
		});
	}

	/**
	 * @param {FlameAnswer} answer
	 * @param {string} [zoomKey] where to zoom; without it the zoom stays
	 */
	show(answer, zoomKey) {
		this.say(null);
		const tree = decodeTree(answer);
		const picked = this.tree && this.pickedFrame >= 0 ? this.frameText(this.tree, this.pickedFrame) : null;
		this.tree = tree;
		this.view.setTree(tree, zoomKey);
		this.pickedFrame = picked === null ? -1 : tree.frames.name.findIndex((_, frame) => this.frameText(tree, frame) === picked);
		this.search(this.input.value, false);
		if (this.pickedFrame >= 0) this.markPicked();
		this.refresh();
	}

	/**
	 * @param {import("./tree.js").Tree} tree
	 * @param {number} frame
	 */
	frameText(tree, frame) {
		return `${tree.frames.module[frame]}!${tree.frames.name[frame]}`;
	}

	/**
	 * Words in place of the graph; `null` for the graph.
	 * @param {(string | Node)[] | null} words
	 */
	say(words) {
		this.message.hidden = words === null;
		this.stage.classList.toggle("is-empty", words !== null);
		if (words === null) return;
		this.message.replaceChildren(...words);
		this.crumbs.replaceChildren();
		this.legend.replaceChildren();
		this.said.replaceChildren();
		this.found.replaceChildren();
		this.tooltip.hide();
		this.tree = null;
		this.table.clear();
	}

	/** @param {PanelState} state */
	apply(state) {
		if (this.input.value !== state.search) this.search((this.input.value = state.search), false);
		this.view.setOrientation(state.isFlame);
		if (this.view.colourBy !== state.colourBy) {
			this.view.colourBy = state.colourBy;
			this.view.recolour();
		}
		if (this.tree && this.zoomKey() !== state.zoom) this.view.zoomTo(Math.max(0, rowOf(this.view.keys, state.zoom)), true);
		this.refresh();
	}

	/** @returns {PanelState} */
	state() {
		return { zoom: this.zoomKey(), search: this.input.value, isFlame: this.view.isFlame, colourBy: this.view.colourBy };
	}

	zoomKey() {
		return this.view.zoomRow > 0 ? keyOf(this.view.keys, this.view.zoomRow) : "";
	}

	/** @param {boolean} isDark */
	setDark(isDark) {
		this.view.isDark = isDark;
		this.view.recolour();
		this.refresh();
	}

	refresh() {
		this.orientation.textContent = this.view.isFlame ? "Flame" : "Icicle";
		this.colouring.textContent = this.view.colourBy === "module" ? "By module" : "By kind";
		if (!this.tree) return;
		this.showCrumbs(this.tree);
		this.showLegend(this.tree);
		this.showFound();
		this.table.show(this.tree, this.view.zoomRow, this.view.colours);
	}

	/** @param {import("./tree.js").Tree} tree */
	showCrumbs(tree) {
		const items = pathTo(tree, this.view.zoomRow).map((row) => {
			const name = tree.frames.name[tree.frame[row]];
			return el("li", {}, el("button", { type: "button", title: name.slice(0, 300), onclick: () => this.view.zoomTo(row) }, el("bdi", {}, name.slice(0, 120))));
		});
		this.crumbs.replaceChildren(...items);
		items[items.length - 1]?.setAttribute("aria-current", "true");
		this.crumbs.scrollLeft = this.crumbs.scrollWidth;
	}

	/** @param {import("./tree.js").Tree} tree */
	showLegend(tree) {
		const weights = this.view.colourBy === "module" ? [...moduleWeights(tree)] : kindWeights(tree);
		this.legend.replaceChildren(...weights.slice(0, LEGEND_MODULES).map(([name, { self, frame }]) => {
			const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
			swatch.style.background = this.view.colours[frame];
			return el("span", { class: "chip", title: name.slice(0, 300) || "no module" }, swatch, el("bdi", {}, name.slice(0, 60) || "no module"), ` ${percent(self, tree.total[0])}`);
		}));
	}

	/**
	 * @param {string} query
	 * @param {boolean} isByReader
	 */
	search(query, isByReader) {
		const { tree, view } = this;
		if (isByReader) {
			this.pickedFrame = -1;
			this.onState(this.state());
		}
		this.problem = "";
		if (!tree || !view.layout) return;
		view.setMatches(null);
		if (query) {
			try {
				view.setMatches(findMatches(tree, view.layout, parseQuery(query)));
			} catch (error) {
				if (!(error instanceof SyntaxError)) throw error;
				this.problem = "not a regular expression";
			}
		}
		this.showFound();
	}

	showFound() {
		const { tree, view, found } = this;
		if (!tree || !view.layout) return;
		found.classList.toggle("is-problem", Boolean(this.problem));
		if (this.problem || !view.matches) {
			found.textContent = this.problem;
			return;
		}
		const all = percent(matchedValue(view.layout, view.matches, spanOf(view.layout, 0)), tree.total[0]);
		const span = spanOf(view.layout, view.zoomRow);
		const isWhole = view.zoomRow === 0;
		const zoomed = isWhole ? "" : `, ${percent(matchedValue(view.layout, view.matches, span), span.right - span.left)} of zoom`;
		const frames = view.matches.rows.length;
		found.textContent = frames ? `matched ${all} of all${zoomed} · ${count(frames)} frame${frames === 1 ? "" : "s"}` : "no match";
	}

	/** @param {1 | -1} step */
	next(step) {
		if (!this.view.matches) return;
		const row = neighbourMatch(this.view.matches, this.view.selected, step);
		if (row >= 0) this.view.select(row);
	}

	/**
	 * Mark every frame of a function that was picked in the table; picking it again unmarks.
	 * @param {number} frame
	 */
	pick(frame) {
		this.input.value = "";
		this.pickedFrame = this.pickedFrame === frame ? -1 : frame;
		this.markPicked();
		this.table.mark(this.pickedFrame);
		this.onState(this.state());
	}

	markPicked() {
		const { tree, view } = this;
		if (!tree || !view.layout) return;
		view.setMatches(this.pickedFrame < 0 ? null : collectMatches(tree, view.layout, (frame) => frame === this.pickedFrame));
		this.showFound();
	}

	turn() {
		this.view.setOrientation(!this.view.isFlame);
		this.refresh();
		this.onState(this.state());
	}

	switchColours() {
		this.view.colourBy = this.view.colourBy === "module" ? "kind" : "module";
		this.view.recolour();
		this.refresh();
		this.onState(this.state());
	}

	reset() {
		this.view.select(-1);
		this.view.zoomTo(0);
	}

	/**
	 * @param {number} row
	 * @param {number} x
	 * @param {number} y
	 */
	onHover(row, x, y) {
		if (!this.tree || row < 0) {
			this.tooltip.hide();
			return;
		}
		this.tooltip.show(this.tree, row, this.view.zoomRow, x, y);
		this.table.mark(this.tree.frame[row]);
	}

	/** @param {number} row */
	onSelect(row) {
		if (!this.tree) return;
		if (row < 0) {
			this.said.textContent = "";
			return;
		}
		const frame = this.tree.frame[row];
		const { name, state } = this.tree.frames;
		const share = percent(this.tree.total[row], this.tree.total[0]);
		const reason = state[frame] === "ok" ? "" : ` · ${state[frame]}`;
		this.said.replaceChildren(el("bdi", {}, name[frame].slice(0, 300)), ` · ${duration(this.tree.total[row])} · ${share}${reason}`);
		this.table.mark(frame, true);
	}

	onZoom() {
		this.refresh();
		this.onState(this.state());
	}

	/** @param {KeyboardEvent} event */
	onSearchKey(event) {
		if (event.key === "Enter") this.next(event.shiftKey ? -1 : 1);
		else if (event.key === "Escape") {
			if (this.input.value) this.search((this.input.value = ""), true);
			this.view.scroller.focus();
		} else return;
		event.preventDefault();
	}

	/**
	 * Keys that work wherever the focus is; true when one was used.
	 * @param {KeyboardEvent} event
	 */
	onKey(event) {
		if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return false;
		/** @type {Record<string, () => void>} */
		const actions = {
			"/": () => this.input.select(),
			n: () => this.next(1),
			N: () => this.next(-1),
			i: () => this.turn(),
			c: () => this.switchColours(),
			0: () => this.reset(),
			f: () => this.view.scroller.focus(),
		};
		const action = actions[event.key];
		if (!action) return false;
		event.preventDefault();
		action();
		return true;
	}
}

/**
 * @param {import("./tree.js").Tree} tree
 * @returns {[string, {self: number, frame: number}][]}
 */
function kindWeights(tree) {
	/** @type {Map<string, {self: number, frame: number}>} */
	const weights = new Map();
	for (const { self, kind, frame } of moduleWeights(tree).values()) {
		const entry = weights.get(kind);
		if (entry) entry.self += self;
		else weights.set(kind, { self, frame });
	}
	return [...weights].sort((a, b) => b[1].self - a[1].self);
}
