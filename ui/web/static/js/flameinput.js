/**
 * Pointer, wheel and keyboard on a flame graph to moves of its view.
 *
 * A click zooms; the wheel zooms around the pointer, with Shift it scrolls; a drag sideways zooms to the span, up and
 * down it scrolls. Arrows move the selection as seen on the screen.
 */

/** @typedef {import("./flameview.js").FlameView} FlameView */

const WHEEL_ZOOM = 1.0018; // a notch of 100 zooms by a fifth
const DRAG_FROM_PX = 4;

export class FlameInput {
	/** @param {FlameView} graph */
	constructor(graph) {
		this.graph = graph;
		/** @type {{x: number, y: number, scrollTop: number, mode: "" | "span" | "scroll"} | null} */
		this.drag = null;
		const { scroller } = this.graph;
		scroller.addEventListener("scroll", () => this.graph.redraw());
		scroller.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
		scroller.addEventListener("pointerdown", (event) => this.onDown(event));
		scroller.addEventListener("pointermove", (event) => this.onMove(event));
		scroller.addEventListener("pointerup", (event) => this.onUp(event));
		scroller.addEventListener("pointercancel", () => this.endDrag());
		scroller.addEventListener("pointerleave", () => this.graph.hover(-1, 0, 0));
		scroller.addEventListener("keydown", (event) => this.onKey(event));
	}

	/** @param {WheelEvent} event */
	onWheel(event) {
		if (event.shiftKey || !this.graph.width) return; // the browser scrolls
		event.preventDefault();
		const width = this.graph.view.right - this.graph.view.left;
		if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
			const by = (event.deltaX / this.graph.width) * width;
			this.graph.setSpan({ left: this.graph.view.left + by, right: this.graph.view.right + by });
			return;
		}
		const x = event.clientX - this.graph.scroller.getBoundingClientRect().left;
		const scale = WHEEL_ZOOM ** (event.deltaMode === 1 ? event.deltaY * 33 : event.deltaY);
		const fixed = this.graph.valueAt(x);
		this.graph.setSpan({ left: fixed - (fixed - this.graph.view.left) * scale, right: fixed + (this.graph.view.right - fixed) * scale });
	}

	/** @param {PointerEvent} event */
	onDown(event) {
		const box = this.graph.scroller.getBoundingClientRect();
		const x = event.clientX - box.left;
		if (event.button !== 0 || x >= (this.graph.width ?? 0)) return; // a press on the scroll bar is the browser's
		this.drag = { x, y: event.clientY - box.top, scrollTop: this.graph.scroller.scrollTop, mode: "" };
		this.graph.scroller.setPointerCapture(event.pointerId);
	}

	/** @param {PointerEvent} event */
	onMove(event) {
		const box = this.graph.scroller.getBoundingClientRect();
		const [x, y] = [event.clientX - box.left, event.clientY - box.top];
		if (!this.drag) {
			this.graph.hover(x < (this.graph.width ?? 0) ? this.graph.rowAtPoint(x, y) : -1, event.clientX, event.clientY);
			return;
		}
		const [movedX, movedY] = [x - this.drag.x, y - this.drag.y];
		if (!this.drag.mode && Math.hypot(movedX, movedY) >= DRAG_FROM_PX) {
			this.drag.mode = Math.abs(movedX) >= Math.abs(movedY) ? "span" : "scroll";
			this.graph.hover(-1, 0, 0);
		}
		if (this.drag.mode === "scroll") this.graph.scroller.scrollTop = this.drag.scrollTop - movedY;
		if (this.drag.mode === "span") {
			this.graph.brush = { from: this.drag.x, to: Math.min(Math.max(0, x), this.graph.width ?? 0) };
			this.graph.redrawMarks();
		}
	}

	/** @param {PointerEvent} event */
	onUp(event) {
		if (!this.drag) return;
		const { mode, x, y } = this.drag;
		const { brush } = this.graph;
		this.endDrag();
		if (mode === "span" && brush) {
			const [from, to] = [this.graph.valueAt(Math.min(brush.from, brush.to)), this.graph.valueAt(Math.max(brush.from, brush.to))];
			this.graph.setSpan({ left: from, right: to });
		} else if (!mode) {
			const row = this.graph.rowAtPoint(x, y);
			if (row < 0) return;
			this.graph.zoomTo(row);
			this.graph.select(row);
		}
		event.preventDefault();
	}

	endDrag() {
		this.drag = null;
		this.graph.brush = null;
		this.graph.redrawMarks();
	}

	/** @param {KeyboardEvent} event */
	onKey(event) {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		if (event.key === "Escape" && this.graph.isWhole()) return; // the page may have something else to give up
		/** @type {Record<string, () => void>} */
		const actions = {
			ArrowUp: () => this.graph.move("up"),
			ArrowDown: () => this.graph.move("down"),
			ArrowLeft: () => this.graph.move("left"),
			ArrowRight: () => this.graph.move("right"),
			Enter: () => this.graph.zoomTo(this.graph.selected < 0 ? this.graph.zoomRow : this.graph.selected),
			Escape: () => this.graph.zoomOut(),
			Home: () => this.graph.zoomTo(0),
		};
		const action = actions[event.key];
		if (!action) return;
		event.preventDefault();
		event.stopPropagation();
		action();
	}
}
