// Strokes to an image as EMNIST's were made: centred, scaled to its box, soft at the edges.

const SIDE = 28;
const BOX = 24; // of the character, in pixels: two are left free on either side
const RADIUS = 1.25; // of the pen, in pixels
const SOFT = 0.9; // half the width of the edge
const SMALLEST = 0.2; // of the drawing area: a dot stays a dot

/**
 * @param {[number, number][][]} strokes - points, in units of the drawing area.
 * @returns {Uint8Array} 28x28 pixels, 255 for ink.
 */
export function rasterise(strokes) {
  const pixels = new Uint8Array(SIDE * SIDE);
  const points = strokes.flat();
  if (points.length === 0) return pixels;
  const [low, high] = [Math.min, Math.max].map((pick) => [0, 1].map((axis) => pick(...points.map((p) => p[axis]))));
  const extent = Math.max(high[0] - low[0], high[1] - low[1], SMALLEST);
  const scale = (BOX - 2 * RADIUS) / extent;
  const place = (point) => point.map((v, axis) => (v - (low[axis] + high[axis]) / 2) * scale + SIDE / 2);
  const lines = strokes.flatMap((stroke) => {
    const placed = stroke.map(place);
    return placed.length === 1 ? [[placed[0], placed[0]]] : placed.slice(1).map((p, i) => [placed[i], p]);
  });
  for (let at = 0; at < pixels.length; at++) {
    const centre = [(at % SIDE) + 0.5, Math.floor(at / SIDE) + 0.5];
    const nearest = Math.min(...lines.map((line) => distance(centre, line)));
    const ink = Math.min(Math.max((RADIUS + SOFT - nearest) / (2 * SOFT), 0), 1);
    pixels[at] = Math.round(255 * ink * ink * (3 - 2 * ink)); // a smooth step
  }
  return pixels;
}

function distance([x, y], [[ax, ay], [bx, by]]) {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const along = length ? Math.min(Math.max(((x - ax) * dx + (y - ay) * dy) / length, 0), 1) : 0;
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}

/** Lets a canvas be drawn on with finger, pen or mouse; `onChange` gets all strokes. */
export function drawOn(canvas, onChange) {
  const context = canvas.getContext("2d");
  let strokes = [];
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const repaint = () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: canvas.width / 14 });
    for (const stroke of strokes) {
      context.beginPath();
      for (const [x, y] of [stroke[0], ...stroke]) context.lineTo(x * canvas.width, y * canvas.height);
      context.stroke();
    }
  };
  const changed = () => {
    repaint();
    onChange(strokes);
  };
  let drawing = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    strokes.push([point(event)]);
    changed();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(point));
    changed();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (drawing = false));
  return {
    clear() {
      strokes = [];
      changed();
    },
    undo() {
      strokes.pop();
      changed();
    },
  };
}
