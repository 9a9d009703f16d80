/**
 * What of a flame graph is seen, and which frame is meant.
 *
 * Layout, drawing and input are elsewhere; this holds the view (a span of the root's width and a scroll position), moves it,
 * and says through `Events` what was hovered, selected or zoomed to. New data keeps zoom and selection by path.
 */

import { drawFlame, drawMarks, FONT } from "./draw.js";
import { el } from "./dom.js";
import { FlameInput } from "./flameinput.js";
import { layOut, rowAt, spanOf, visibleRects } from "./layout.js";
import { frameColours, ModuleSlots, THEMES } from "./palette.js";
import { keyOf, pathKeys, rowOf } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./layout.js").View} View */
/** @typedef {import("./search.js").Matches} Matches */
/** @typedef {import("./palette.js").ColourBy} ColourBy */

/**
 * @typedef {object} Events
 * @property {(row: number, x: number, y: number) => void} hover -1 when the pointer is on no frame; x and y in the window
 * @property {(row: number) => void} select
 * @property {() => void} zoom after the zoomed row or the span has changed
 */

const GLIDE_MS = 140;
const FEWEST_UNITS = 1e-9; // deepest zoom, as a share of the root

export class FlameView {
	/**
	 * @param {HTMLElement} host filled with a canvas and a scroller; its size is followed
	 * @param {Events} events
	 */
	constructor(host, events) {
		this.events = events;
		this.canvas = el("canvas", { "aria-hidden": "true" });
		this.marks = el("canvas", { "aria-hidden": "true" }); // what moves with the pointer: cheap to draw again
		this.spacer = el("div", { class: "flame-spacer" });
		this.scroller = el("div", {
			class: "flame-scroller",
			tabindex: 0,
			role: "application",
			"aria-roledescription": "flame graph",
			"aria-label": "Flame graph. Arrow keys move between frames, Enter zooms, Escape zooms out. The same numbers are in the table of functions.",
		}, this.spacer);
		host.replaceChildren(this.canvas, this.marks, this.scroller);
		this.host = host;
		this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d", { alpha: false }));
		this.marksContext = /** @type {CanvasRenderingContext2D} */ (this.marks.getContext("2d"));
		/** @type {Tree | null} */
		this.tree = null;
		/** @type {import("./tree.js").PathKeys} */
		this.keys = { low: new Uint32Array(), high: new Uint32Array() };
		/** @type {import("./draw.js").Scene | null} what is on the canvas */
		this.scene = null;
		/** @type {View} */
		this.view = { left: 0, right: 1 };
		this.zoomRow = 0;
		this.selected = -1;
		this.hovered = -1;
		/** @type {Matches | null} */
		this.matches = null;
		this.isFlame = false; // root at the bottom
		/** @type {ColourBy} */
		this.colourBy = "module";
		this.slots = new ModuleSlots();
		this.isDark = false;
		/** @type {string[]} */
		this.colours = [];
		/** @type {Map<string, number>} */
		this.textWidths = new Map();
		/** @type {{from: number, to: number} | null} */
		this.brush = null;
		this.pending = 0;
		this.glide = 0;
		this.font = "";
		new FlameInput(this);
		new ResizeObserver(() => this.resize()).observe(host);
	}

	/**
	 * @param {Tree} tree
	 * @param {string} [zoomKey] path key to zoom to; without it the zoom stays where it was
	 */
	setTree(tree, zoomKey) {
		const keep = this.tree ? { zoom: keyOf(this.keys, this.zoomRow), selected: keyOf(this.keys, this.selected), part: this.partOfZoom() } : null;
		this.tree = tree;
		this.layout = layOut(tree);
		this.keys = pathKeys(tree);
		this.slots.assign(tree);
		this.recolour();
		this.matches = null;
		this.hovered = -1;
		this.selected = keep?.selected ? rowOf(this.keys, keep.selected) : -1;
		const wanted = zoomKey ?? keep?.zoom;
		const row = wanted ? rowOf(this.keys, wanted) : 0;
		this.zoomRow = Math.max(0, row);
		const span = spanOf(this.layout, this.zoomRow);
		const part = row >= 0 && zoomKey === undefined && keep ? keep.part : { left: 0, right: 1 };
		const width = span.right - span.left;
		this.view = { left: span.left + part.left * width, right: span.left + part.right * width };
		this.resize();
	}

	/** The view as a part of the zoomed row's span. */
	partOfZoom() {
		if (!this.layout) return { left: 0, right: 1 };
		const span = spanOf(this.layout, this.zoomRow);
		const width = span.right - span.left || 1;
		return { left: (this.view.left - span.left) / width, right: (this.view.right - span.left) / width };
	}

	recolour() {
		if (this.tree) this.colours = frameColours(this.tree, this.slots, this.colourBy, THEMES[this.isDark ? "dark" : "light"]);
		this.redraw();
	}

	/** @param {Matches | null} matches */
	setMatches(matches) {
		this.matches = matches;
		this.redraw();
	}

	/** @param {boolean} isFlame */
	setOrientation(isFlame) {
		if (this.isFlame === isFlame) return;
		this.isFlame = isFlame;
		this.scroller.scrollTop = isFlame ? this.spacer.offsetHeight : 0;
		this.redraw();
	}

	resize() {
		const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
		this.fontSize = Math.round(rem * 0.92 * 2) / 2;
		this.rowHeight = Math.round(rem * 1.5);
		this.ratio = window.devicePixelRatio || 1;
		this.width = this.scroller.clientWidth;
		this.height = this.host.clientHeight;
		const needed = (this.layout?.levels ?? 0) * this.rowHeight;
		const wasAtEnd = this.isFlame && this.scroller.scrollTop + this.height >= this.spacer.offsetHeight - 2;
		this.spacer.style.height = `${needed}px`;
		if (wasAtEnd) this.scroller.scrollTop = needed;
		const [wide, high] = [Math.round(this.width * this.ratio), Math.round(this.height * this.ratio)];
		if (this.canvas.width !== wide || this.canvas.height !== high) {
			for (const canvas of [this.canvas, this.marks]) {
				canvas.width = wide;
				canvas.height = high;
				canvas.style.width = `${this.width}px`;
				canvas.style.height = `${this.height}px`;
			}
		}
		const font = `${this.fontSize}px ${FONT}`;
		if (font !== this.font) this.textWidths.clear();
		this.font = font;
		this.redraw();
	}

	redraw() {
		this.isStale = true;
		this.redrawMarks();
	}

	redrawMarks() {
		if (!this.pending) this.pending = requestAnimationFrame(() => this.draw());
	}

	draw() {
		this.pending = 0;
		if (!this.tree || !this.layout || !this.width || !this.height) return;
		if (this.isStale || !this.scene) {
			this.isStale = false;
			this.scene = this.makeScene(this.tree, this.layout);
			drawFlame(this.context, this.scene, this.textWidths);
		}
		drawMarks(this.marksContext, this.scene, { selected: this.selected, hovered: this.hovered, brush: this.brush });
	}

	/**
	 * @param {Tree} tree
	 * @param {import("./layout.js").Layout} layout
	 * @returns {import("./draw.js").Scene}
	 */
	makeScene(tree, layout) {
		const [first, last] = this.visibleLevels();
		const width = this.width ?? 0;
		return {
			tree,
			layout,
			rects: visibleRects(layout, this.view, width, first, last),
			colours: this.colours,
			theme: THEMES[this.isDark ? "dark" : "light"],
			width,
			height: this.height ?? 0,
			rowHeight: this.rowHeight ?? 20,
			fontSize: this.fontSize ?? 12,
			ratio: this.ratio ?? 1,
			levelTop: (level) => this.levelTop(level),
			matches: this.matches,
			zoomLevel: tree.depth[this.zoomRow],
		};
	}

	/** @param {number} level */
	levelTop(level) {
		const row = this.rowHeight ?? 20;
		if (!this.isFlame) return level * row - this.scroller.scrollTop;
		const content = Math.max(this.height ?? 0, (this.layout?.levels ?? 0) * row);
		return content - (level + 1) * row - this.scroller.scrollTop;
	}

	/** @returns {[number, number]} */
	visibleLevels() {
		const row = this.rowHeight ?? 20;
		const top = Math.floor(-this.levelTop(0) / row);
		const shown = Math.ceil((this.height ?? 0) / row) + 1;
		if (!this.isFlame) return [top, top + shown];
		const lowest = Math.floor((this.levelTop(0) - (this.height ?? 0)) / row);
		return [lowest, lowest + shown + 1];
	}

	/**
	 * @param {number} x in the canvas
	 * @param {number} y
	 */
	rowAtPoint(x, y) {
		if (!this.layout || !this.width) return -1;
		const row = this.rowHeight ?? 20;
		const level = this.isFlame ? Math.floor((this.levelTop(0) + row - y - 1e-6) / row) : Math.floor((y - this.levelTop(0)) / row);
		return rowAt(this.layout, this.valueAt(x), level);
	}

	/** @param {number} x */
	valueAt(x) {
		return this.view.left + (x / (this.width || 1)) * (this.view.right - this.view.left);
	}

	/**
	 * @param {number} row
	 * @param {boolean} [isQuiet] tell nobody: the caller knows
	 */
	zoomTo(row, isQuiet = false) {
		if (!this.layout || row < 0) return;
		this.zoomRow = row;
		this.glideTo(spanOf(this.layout, row));
		if (!isQuiet) this.events.zoom();
	}

	isWhole() {
		return !this.layout || this.view.right - this.view.left >= this.layout.total;
	}

	zoomOut() {
		if (!this.tree || !this.layout) return;
		const span = spanOf(this.layout, this.zoomRow);
		const isPart = span.left < this.view.left || span.right > this.view.right;
		this.zoomTo(isPart ? this.zoomRow : Math.max(0, this.tree.parent[this.zoomRow]));
	}

	/** @param {View} wanted any span; cut to the root and to the deepest zoom */
	setSpan(wanted) {
		if (!this.layout || !this.tree) return;
		const { total } = this.layout;
		const width = Math.min(total, Math.max(wanted.right - wanted.left, total * FEWEST_UNITS));
		const left = Math.min(Math.max(0, wanted.left), total - width);
		this.stopGlide();
		this.view = { left, right: left + width };
		this.zoomRow = this.innermostAround(this.view);
		this.redraw();
		this.events.zoom();
	}

	/** @param {View} span */
	innermostAround(span) {
		const { layout, tree } = this;
		if (!layout || !tree) return 0;
		const slack = layout.total * 1e-12;
		let inner = 0;
		for (let level = 1; level < layout.levels; level++) {
			const row = rowAt(layout, (span.left + span.right) / 2, level);
			if (row < 0) break;
			const own = spanOf(layout, row);
			if (own.left > span.left + slack || own.right < span.right - slack) break;
			inner = row;
		}
		return inner;
	}

	/** @param {View} target */
	glideTo(target) {
		this.stopGlide();
		if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
			this.view = target;
			this.redraw();
			return;
		}
		const from = this.view;
		const began = performance.now();
		/** @param {number} now */
		const step = (now) => {
			const part = Math.min(1, Math.max(0, (now - began) / GLIDE_MS));
			const eased = 1 - (1 - part) ** 3;
			this.view = { left: from.left + (target.left - from.left) * eased, right: from.right + (target.right - from.right) * eased };
			this.glide = part < 1 ? requestAnimationFrame(step) : 0;
			if (part === 1) this.view = target;
			this.redraw();
		};
		this.glide = requestAnimationFrame(step);
	}

	stopGlide() {
		cancelAnimationFrame(this.glide);
		this.glide = 0;
	}

	/** @param {number} row */
	select(row) {
		this.selected = row;
		this.reveal(row);
		this.redrawMarks();
		this.events.select(row);
	}

	/**
	 * Scroll and, if need be, zoom out so that `row` is seen.
	 * @param {number} row
	 */
	reveal(row) {
		if (row < 0 || !this.tree || !this.layout) return;
		const span = spanOf(this.layout, row);
		let around = this.zoomRow;
		while (around > 0 && !(around <= row && row < this.tree.end[around]) && !(row <= around && around < this.tree.end[row])) {
			around = this.tree.parent[around];
		}
		if (around !== this.zoomRow || span.right <= this.view.left || span.left >= this.view.right) this.zoomTo(around);
		const height = this.rowHeight ?? 20;
		const top = this.levelTop(this.tree.depth[row]);
		if (top < 0) this.scroller.scrollTop += top - height;
		else if (top + height > (this.height ?? 0)) this.scroller.scrollTop += top + 2 * height - (this.height ?? 0);
	}

	/**
	 * @param {"up" | "down" | "left" | "right"} direction as seen on the screen
	 */
	move(direction) {
		const { tree } = this;
		if (!tree?.size) return;
		if (this.selected < 0) return this.select(this.zoomRow);
		const at = this.selected;
		if (direction === "up" || direction === "down") {
			const isOutward = (direction === "up") !== this.isFlame;
			const next = isOutward ? tree.parent[at] : this.widestChild(at);
			if (next >= 0) this.select(next);
			return;
		}
		const next = this.sibling(at, direction === "right" ? 1 : -1);
		if (next >= 0) this.select(next);
	}

	/** @param {number} row */
	widestChild(row) {
		const tree = /** @type {Tree} */ (this.tree);
		let best = -1;
		for (let child = row + 1; child < tree.end[row]; child = tree.end[child]) {
			if (best < 0 || tree.total[child] > tree.total[best]) best = child;
		}
		return best;
	}

	/**
	 * @param {number} row
	 * @param {1 | -1} step
	 */
	sibling(row, step) {
		const { tree, layout } = this;
		if (!tree || !layout) return -1;
		const level = tree.depth[row];
		const at = layout.position[row] + step;
		return at >= layout.start[level] && at < layout.start[level + 1] ? layout.row[at] : -1;
	}

	/**
	 * @param {number} row
	 * @param {number} x
	 * @param {number} y
	 */
	hover(row, x, y) {
		if (row !== this.hovered) this.redrawMarks();
		this.hovered = row;
		this.events.hover(row, x, y);
	}
}
