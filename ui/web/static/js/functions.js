/**
 * The table of functions: the flame graph's numbers as text, for eyes, screen readers and keyboards alike.
 */

import { el } from "./dom.js";
import { duration, percent } from "./format.js";
import { functionsBelow } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */

const MOST_ROWS = 200; // beyond, search is the better tool

export class FunctionTable {
	/**
	 * @param {HTMLElement} host
	 * @param {(frame: number) => void} onPick
	 */
	constructor(host, onPick) {
		this.onPick = onPick;
		/** @type {"self" | "total"} */
		this.sortBy = "self";
		this.caption = el("caption", {});
		this.body = el("tbody", {});
		this.headSelf = el("th", { scope: "col" }, el("button", { type: "button", onclick: () => this.sort("self") }, "Self"));
		this.headTotal = el("th", { scope: "col" }, el("button", { type: "button", onclick: () => this.sort("total") }, "Total"));
		const head = el("thead", {}, el("tr", {}, this.headSelf, this.headTotal, el("th", { scope: "col" }, "Function")));
		host.replaceChildren(el("table", { class: "functions" }, this.caption, head, this.body));
		/** @type {Tree | null} */
		this.tree = null;
		this.top = 0;
		/** @type {string[]} */
		this.colours = [];
		/** @type {Map<number, HTMLTableRowElement>} */
		this.rows = new Map();
		this.marked = -1;
	}

	/** @param {"self" | "total"} sortBy */
	sort(sortBy) {
		this.sortBy = sortBy;
		if (this.tree) this.show(this.tree, this.top, this.colours);
	}

	clear() {
		this.tree = null;
		this.rows.clear();
		this.body.replaceChildren();
		this.caption.textContent = "Functions";
	}

	/**
	 * @param {Tree} tree
	 * @param {number} top row whose subtree is summed
	 * @param {string[]} colours by frame
	 */
	show(tree, top, colours) {
		[this.tree, this.top, this.colours] = [tree, top, colours];
		const sorted = functionsBelow(tree, top);
		if (this.sortBy === "total") sorted.sort((a, b) => b.total - a.total);
		this.headSelf.setAttribute("aria-sort", this.sortBy === "self" ? "descending" : "none");
		this.headTotal.setAttribute("aria-sort", this.sortBy === "total" ? "descending" : "none");
		this.caption.textContent = top > 0 ? "Functions of the zoomed part" : "Functions";
		const whole = tree.total[top];
		this.rows.clear();
		const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.key : undefined;
		this.body.replaceChildren(...sorted.slice(0, MOST_ROWS).map((row) => this.row(tree, row, whole)));
		if (focused) [...this.body.querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
		this.mark(this.marked);
	}

	/**
	 * @param {Tree} tree
	 * @param {import("./tree.js").FunctionRow} entry
	 * @param {number} whole
	 */
	row(tree, { frame, self, total }, whole) {
		const { name, module } = tree.frames;
		const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
		swatch.style.background = this.colours[frame] ?? "";
		const button = el("button", { type: "button", onclick: () => this.onPick(frame), title: `${name[frame].slice(0, 300)}\n${module[frame].slice(0, 300)}` }, swatch, el("bdi", {}, name[frame].slice(0, 300)));
		button.dataset.key = `${module[frame]}!${name[frame]}`.slice(0, 600);
		const cells = [self, total].map((value) => el("td", { title: duration(value) }, percent(value, whole)));
		const row = el("tr", {}, ...cells, el("th", { scope: "row" }, button));
		this.rows.set(frame, row);
		return row;
	}

	/**
	 * Mark the row of a frame; -1 for none.
	 * @param {number} frame
	 * @param {boolean} [isSeen] scroll it into sight
	 */
	mark(frame, isSeen = false) {
		this.rows.get(this.marked)?.classList.remove("marked");
		this.marked = frame;
		const row = this.rows.get(frame);
		row?.classList.add("marked");
		if (isSeen) row?.scrollIntoView({ block: "nearest" });
	}
}
