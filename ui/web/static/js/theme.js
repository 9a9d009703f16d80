/**
 * Dark or light: the reader's choice if one was made, else the system's.
 */

const KEY = "coprof-theme";

export function isDark() {
	const chosen = document.documentElement.dataset.theme;
	return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/**
 * Take up the choice of an earlier visit, and call `onChange` now and whenever it changes.
 * @param {(isDark: boolean) => void} onChange
 * @returns {() => void} turns it over
 */
export function followTheme(onChange) {
	const chosen = remembered();
	if (chosen) document.documentElement.dataset.theme = chosen;
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => onChange(isDark()));
	onChange(isDark());
	return () => {
		const next = isDark() ? "light" : "dark";
		document.documentElement.dataset.theme = next;
		try {
			localStorage.setItem(KEY, next);
		} catch (error) {
			if (!(error instanceof DOMException)) throw error; // storage is off: the choice lasts as long as the page
		}
		onChange(isDark());
	};
}

function remembered() {
	try {
		const chosen = localStorage.getItem(KEY);
		return chosen === "dark" || chosen === "light" ? chosen : null;
	} catch (error) {
		if (error instanceof DOMException) return null;
		throw error;
	}
}
