/**
 * What is known of one frame, beside the pointer.
 */

import { el } from "./dom.js";
import { count, duration, percent } from "./format.js";

/** @typedef {import("./tree.js").Tree} Tree */

const LONGEST_NAME = 600; // letters; more would cover the graph that is being read
const AWAY_PX = 14;

/** @type {Record<string, string>} */
const KINDS = { user: "user code", kernel: "kernel", workload: "workload", root: "everything selected", synthetic: "not a function" };

export class Tooltip {
	/** @param {HTMLElement} host */
	constructor(host) {
		this.box = el("div", { class: "tooltip", role: "tooltip", hidden: true });
		host.append(this.box);
	}

	hide() {
		this.box.hidden = true;
	}

	/**
	 * @param {Tree} tree
	 * @param {number} row
	 * @param {number} zoomRow
	 * @param {number} x in the window
	 * @param {number} y
	 */
	show(tree, row, zoomRow, x, y) {
		this.box.replaceChildren(...describe(tree, row, zoomRow));
		this.box.hidden = false;
		const { offsetWidth, offsetHeight } = this.box;
		const left = x + AWAY_PX + offsetWidth > window.innerWidth ? x - AWAY_PX - offsetWidth : x + AWAY_PX;
		const top = y + AWAY_PX + offsetHeight > window.innerHeight ? y - AWAY_PX - offsetHeight : y + AWAY_PX;
		this.box.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
	}
}

/**
 * @param {Tree} tree
 * @param {number} row
 * @param {number} zoomRow
 * @returns {HTMLElement[]}
 */
function describe(tree, row, zoomRow) {
	const frame = tree.frame[row];
	const { name, module, kind, state } = tree.frames;
	const shown = name[frame].length > LONGEST_NAME ? `${name[frame].slice(0, LONGEST_NAME)}…` : name[frame];
	const where = [module[frame], KINDS[kind[frame]] ?? kind[frame]].filter(Boolean).join(" · ");
	const facts = el("dl", {});
	facts.append(...fact("total", tree.total[row], tree, zoomRow), ...fact("self", tree.self[row], tree, zoomRow));
	facts.append(el("dt", {}, "samples"), el("dd", {}, count(tree.samples[row])));
	const parts = [el("strong", {}, el("bdi", {}, shown)), el("span", { class: "faint" }, el("bdi", {}, where)), facts];
	if (state[frame] !== "ok") parts.push(el("span", { class: "reason" }, kind[frame] === "synthetic" ? state[frame] : `no name: ${state[frame]}`));
	return parts;
}

/**
 * @param {string} label
 * @param {number} value
 * @param {Tree} tree
 * @param {number} zoomRow
 */
function fact(label, value, tree, zoomRow) {
	const shares = zoomRow > 0 ? `${percent(value, tree.total[0])} of all, ${percent(value, tree.total[zoomRow])} of zoom` : percent(value, tree.total[0]);
	return [el("dt", {}, label), el("dd", {}, `${duration(value)} · ${shares}`)];
}
