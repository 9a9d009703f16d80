/**
 * The ranked list of workloads: service class, cores, share. Each row is a link, so that it opens in a tab of its own.
 */

import { el } from "./dom.js";
import { cores, count, percent, shownName } from "./format.js";

/** @typedef {import("./api.js").Workload} Workload */

/**
 * @typedef {object} ListContext
 * @property {string} chosen "" for all
 * @property {(workload: string) => string} link
 * @property {(workload: string) => void} onChoose
 * @property {(workload: string) => string} colour
 */

/**
 * @param {HTMLElement} host a table body; keeps the focus on the same workload
 * @param {Workload[]} workloads
 * @param {ListContext} context
 */
export function showWorkloads(host, workloads, context) {
	const focused = document.activeElement instanceof HTMLAnchorElement && host.contains(document.activeElement) ? document.activeElement.dataset.workload : undefined;
	const cpuNs = workloads.reduce((sum, { cpu_ns }) => sum + cpu_ns, 0);
	const isKnown = workloads.every((workload) => workload.cores !== null) && workloads.length > 0;
	const all = {
		workload: "",
		service_class: "",
		cpu_ns: cpuNs,
		cores: isKnown ? workloads.reduce((sum, workload) => sum + (workload.cores ?? 0), 0) : null,
		samples: workloads.reduce((sum, { samples }) => sum + samples, 0),
		cgroups: workloads.reduce((sum, { cgroups }) => sum + cgroups, 0),
	};
	const rows = [all, ...workloads].map((workload) => workloadRow(workload, cpuNs, context));
	if (context.chosen && !workloads.some(({ workload }) => workload === context.chosen)) {
		rows.push(workloadRow({ ...all, workload: context.chosen, cpu_ns: 0, cores: 0, samples: 0, cgroups: 0 }, cpuNs, context));
	}
	host.replaceChildren(...rows);
	if (focused !== undefined) [...host.querySelectorAll("a")].find((link) => link.dataset.workload === focused)?.focus();
}

/**
 * @param {Workload} entry
 * @param {number} wholeNs
 * @param {ListContext} context
 */
function workloadRow(entry, wholeNs, { chosen, link, onChoose, colour }) {
	const { workload, service_class, cpu_ns, samples, cgroups } = entry;
	const name = workload === "" ? "All workloads" : shownName(workload, 300);
	const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
	swatch.style.background = workload ? colour(workload) : "transparent";
	const bar = el("span", { class: "bar", "aria-hidden": "true" });
	bar.style.width = workload && wholeNs ? `${Math.max(0.5, (100 * cpu_ns) / wholeNs)}%` : "0";
	bar.style.background = workload ? colour(workload) : "transparent";
	/** @type {EventListener} */
	const choose = (event) => {
		if (event instanceof MouseEvent && (event.ctrlKey || event.metaKey || event.shiftKey || event.button)) return;
		event.preventDefault();
		onChoose(workload);
	};
	const anchor = el("a", { href: link(workload), onclick: choose, title: `${name}\n${count(samples)} samples, ${count(cgroups)} cgroup${cgroups === 1 ? "" : "s"}` }, swatch, el("bdi", {}, name));
	anchor.dataset.workload = workload;
	if (workload === chosen) anchor.setAttribute("aria-current", "true");
	const tag = service_class ? el("span", { class: `class class-${["online", "offline"].includes(service_class) ? service_class : "system"}` }, service_class) : "";
	return el("tr", workload === chosen ? { class: "chosen" } : {},
		el("th", { scope: "row" }, anchor, bar),
		el("td", {}, tag),
		el("td", { class: "number" }, entry.cores === null ? "–" : cores(entry.cores)),
		el("td", { class: "number" }, workload ? percent(cpu_ns, wholeNs) : ""),
	);
}
