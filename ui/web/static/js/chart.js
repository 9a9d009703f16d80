/**
 * Cores in use over time, stacked by workload; dragging picks a part of it. Drawn by uPlot, whose script the page loads.
 */

import { THEMES } from "./palette.js";

/** @typedef {import("./api.js").Overview} Overview */

/** @returns {typeof import("uplot") | undefined} */
function library() {
	return /** @type {any} */ (window).uPlot;
}

export class CoresChart {
	/**
	 * @param {HTMLElement} host
	 * @param {(fromMs: number, toMs: number) => void} onPick zeros when the part was given up
	 */
	constructor(host, onPick) {
		this.host = host;
		this.onPick = onPick;
		/** @type {import("uplot") | null} */
		this.plot = null;
		this.part = { from: 0, to: 0 };
		/** @type {{overview: Overview, colours: string[], isDark: boolean} | null} */
		this.shown = null;
		new ResizeObserver(() => this.fit()).observe(host);
	}

	/**
	 * @param {Overview} overview
	 * @param {string[]} colours by entry of `overview.series.names`
	 * @param {boolean} isDark
	 * @param {{from: number, to: number}} part
	 */
	show(overview, colours, isDark, part) {
		const uPlot = library();
		if (!uPlot) {
			this.host.textContent = "The chart library is missing: run npm ci --ignore-scripts where coprof is installed.";
			return;
		}
		this.part = part;
		const isSame = this.plot && this.shown && this.shown.isDark === isDark && this.shown.colours.join() === colours.join() && this.shown.overview.series.names.join("\0") === overview.series.names.join("\0");
		this.shown = { overview, colours, isDark };
		const data = stack(overview);
		if (isSame && this.plot) {
			this.plot.setData(data, false);
			this.plot.setScale("x", { min: overview.range.since_ms / 1000, max: overview.range.until_ms / 1000 });
			this.showPart();
			return;
		}
		this.plot?.destroy();
		this.host.replaceChildren();
		this.plot = new uPlot(this.options(overview, colours, isDark), data, this.host);
		this.showPart();
	}

	/**
	 * @param {Overview} overview
	 * @param {string[]} colours
	 * @param {boolean} isDark
	 * @returns {import("uplot").Options}
	 */
	options(overview, colours, isDark) {
		const theme = THEMES[isDark ? "dark" : "light"];
		const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
		const axis = { stroke: theme.faint, font: `${Math.round(rem * 0.85)}px system-ui, sans-serif`, ticks: { show: false }, grid: { stroke: theme.line, width: 1 } };
		const names = overview.series.names;
		return {
			...this.size(),
			padding: [8, 22, 0, 0],
			legend: { show: false },
			cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false, dist: 4 } },
			scales: {
				x: { time: true, range: () => this.limits() },
				y: { range: (_plot, _low, high) => [0, niceTop(high, overview.cpus)] },
			},
			axes: [
				{ ...axis, size: Math.round(rem * 1.9), values: timeLabels },
				{ ...axis, size: Math.round(rem * 3.6), values: (_plot, splits) => splits.map((value) => String(Number(value.toPrecision(3)))), space: 28 },
			],
			series: [{}, ...names.map((name, index) => ({ label: name, stroke: colours[index], width: 1, fill: colours[index], points: { show: false }, spanGaps: false }))],
			hooks: { setSelect: [(plot) => this.onSelect(plot)] },
		};
	}

	/** @returns {[number, number]} */
	limits() {
		const range = this.shown?.overview.range;
		return range ? [range.since_ms / 1000, range.until_ms / 1000] : [0, 1];
	}

	size() {
		return { width: Math.max(100, this.host.clientWidth), height: Math.max(60, this.host.clientHeight) };
	}

	fit() {
		if (!this.plot || !this.host.clientWidth) return;
		this.plot.setSize(this.size());
		this.showPart();
	}

	/** @param {import("uplot")} plot */
	onSelect(plot) {
		if (this.isQuiet) return;
		const { left, width } = plot.select;
		if (width < 2) {
			if (this.part.from) this.onPick(0, 0);
			return;
		}
		this.onPick(Math.round(plot.posToVal(left, "x") * 1000), Math.round(plot.posToVal(left + width, "x") * 1000));
	}

	showPart() {
		const { plot, part } = this;
		if (!plot) return;
		const [left, right] = part.from ? [part.from, part.to].map((ms) => plot.valToPos(ms / 1000, "x")) : [0, 0];
		this.isQuiet = true;
		plot.setSelect({ left, width: right - left, top: 0, height: plot.over.clientHeight }, false);
		this.isQuiet = false;
	}
}

/**
 * Running sums, the topmost line first: each area is drawn over the larger one before it.
 * @param {Overview} overview
 * @returns {import("uplot").AlignedData}
 */
export function stack(overview) {
	const { times_ms, cores: lines, step_ms } = overview.series;
	// A value is the mean of the step that begins at its time; the middle of it is where it is true.
	const times = times_ms.map((ms) => (ms + step_ms / 2) / 1000);
	/** @type {(number | null)[][]} */
	const sums = [];
	/** @type {(number | null)[]} */
	let below = times.map(() => 0);
	for (const line of lines.toReversed()) {
		below = line.map((value, index) => (value === null ? null : value + (below[index] ?? 0)));
		sums.push(below);
	}
	return [times, ...sums.reverse()];
}

/**
 * @param {number} high
 * @param {number} cpus
 */
function niceTop(high, cpus) {
	if (cpus && high > cpus * 0.6) return Math.max(cpus, high);
	return high > 0 ? high * 1.15 : 1;
}

/**
 * @param {import("uplot")} _plot
 * @param {number[]} splits Unix seconds
 * @param {number} _axis
 * @param {number} _space
 * @param {number} step seconds
 */
function timeLabels(_plot, splits, _axis, _space, step) {
	let day = "";
	return splits.map((second) => {
		const at = new Date(second * 1000);
		const time = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}) });
		const date = at.toDateString();
		const isNewDay = day !== "" && day !== date;
		day = date;
		return isNewDay || step >= 86400 ? at.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : time;
	});
}
