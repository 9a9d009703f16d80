/**
 * Elements from plain values. The only way text gets into a page here, and it never becomes markup.
 */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | EventListener>} [properties] `on...` listeners, else attributes; false leaves one out
 * @param {(Node | string)[]} children strings become text
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, properties = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(properties)) {
		if (typeof value === "function") element.addEventListener(name.slice(2), value);
		else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
	}
	element.append(...children);
	return element;
}

/**
 * The element of the page with this id; the page and its script are one, so a missing one is a defect.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
	const element = document.getElementById(id);
	if (!element) throw new Error(`page has no element ${id}`);
	return element;
}

/** @param {Event} event */
export function isTyping(event) {
	return event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
}
