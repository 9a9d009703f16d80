/**
 * Frames and workloads to colours, for light and dark pages.
 *
 * Hues follow Okabe and Ito's set for colour-blind readers: the kernel is blue, user code everything but blue, and hues
 * next to each other differ in lightness as well. A frame without a name is pale. Colour is never the only sign.
 */

import { fnv1a } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {"module" | "kind"} ColourBy */

/** Hue, lightness offset, chroma factor of the heaviest user modules, in that order; all further ones share `REST`. */
const MODULE_SLOTS = [
	[66, 0.02, 1],
	[172, 0, 0.8],
	[350, -0.03, 0.85],
	[102, 0.07, 0.95],
	[38, -0.05, 0.95],
	[305, -0.03, 0.75],
];
const REST = [80, 0.05, 0.3];
const KERNEL = [250, -0.02, 0.85];
const KERNEL_MODULE = [225, 0.04, 0.7];
const PLAIN = [260, 0.06, 0.08];

/** @typedef {{lightness: number, chroma: number, text: string, faint: string, back: string, line: string, accent: string}} Theme */

/** @type {Record<"light" | "dark", Theme>} */
export const THEMES = {
	light: { lightness: 0.82, chroma: 0.105, text: "#1b1f27", faint: "#6a7280", back: "#ffffff", line: "#dfe3ea", accent: "#0b57d0" },
	dark: { lightness: 0.47, chroma: 0.085, text: "#f2f4f8", faint: "#8b94a5", back: "#14171d", line: "#2b313c", accent: "#8ab4ff" },
};

/**
 * Remembers which module has which colour, so that colours stay when live data changes the order.
 */
export class ModuleSlots {
	constructor() {
		/** @type {Map<string, number>} */
		this.slots = new Map();
	}

	/** @param {Tree} tree */
	assign(tree) {
		const weight = moduleWeights(tree);
		for (const [module, { kind }] of weight) {
			if (this.slots.size >= MODULE_SLOTS.length) return;
			if (module && kind === "user" && !this.slots.has(module)) this.slots.set(module, this.slots.size);
		}
	}
}

/**
 * Self value by module, the heaviest first.
 * @param {Tree} tree
 * @returns {Map<string, {self: number, kind: string, frame: number}>}
 */
export function moduleWeights(tree) {
	/** @type {Map<string, {self: number, kind: string, frame: number}>} */
	const weight = new Map();
	for (let row = 0; row < tree.size; row++) {
		const frame = tree.frame[row];
		const kind = tree.frames.kind[frame];
		if (kind === "root" || kind === "workload") continue;
		const module = tree.frames.module[frame];
		const entry = weight.get(module);
		if (entry) entry.self += tree.self[row];
		else weight.set(module, { self: tree.self[row], kind, frame });
	}
	return new Map([...weight].sort((a, b) => b[1].self - a[1].self));
}

/**
 * Fill colour by frame.
 * @param {Tree} tree
 * @param {ModuleSlots} slots
 * @param {ColourBy} colourBy
 * @param {Theme} theme
 * @returns {string[]}
 */
export function frameColours(tree, slots, colourBy, theme) {
	const { name, module, kind, state } = tree.frames;
	return name.map((text, frame) => {
		const base = colourBy === "module" ? moduleSlot(kind[frame], module[frame], slots) : kindSlot(kind[frame]);
		const isNamed = state[frame] === "ok";
		const shade = kind[frame] === "user" || kind[frame] === "kernel" ? ((fnv1a(text) % 16) / 15 - 0.5) * 0.035 : 0;
		return oklch(theme, base, shade, isNamed ? 1 : 0.4);
	});
}

/**
 * @param {string} kind
 * @param {string} module
 * @param {ModuleSlots} slots
 */
function moduleSlot(kind, module, slots) {
	if (kind !== "user") return kind === "kernel" && module.startsWith("[") ? KERNEL_MODULE : kindSlot(kind);
	const slot = slots.slots.get(module);
	return slot === undefined ? REST : MODULE_SLOTS[slot];
}

/** @param {string} kind */
function kindSlot(kind) {
	if (kind === "kernel") return KERNEL;
	return kind === "user" ? MODULE_SLOTS[0] : PLAIN;
}

/**
 * @param {Theme} theme
 * @param {number[]} slot
 * @param {number} shade
 * @param {number} strength
 */
function oklch(theme, [hue, lighter, chroma], shade, strength) {
	return `oklch(${(theme.lightness + lighter * 0.8 + shade).toFixed(3)} ${(theme.chroma * chroma * strength).toFixed(3)} ${hue})`;
}

const CLASS_HUES = { online: 250, offline: 62, system: 270 };

/**
 * Colour of a workload in chart and list: blue online, orange offline, grey system, lighter by rank within its class.
 * @param {string} serviceClass
 * @param {number} rank among the workloads of its class
 * @param {boolean} isDark
 */
export function workloadColour(serviceClass, rank, isDark) {
	const hue = CLASS_HUES[/** @type {keyof typeof CLASS_HUES} */ (serviceClass)] ?? CLASS_HUES.system;
	const chroma = serviceClass === "online" || serviceClass === "offline" ? 0.11 : 0.012;
	const step = [0, 0.1, -0.1, 0.17, 0.05][rank % 5];
	return `oklch(${((isDark ? 0.62 : 0.7) + step * 0.9).toFixed(3)} ${chroma} ${hue + ((rank % 3) - 1) * 6})`;
}
