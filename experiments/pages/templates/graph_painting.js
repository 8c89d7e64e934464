/* Edges as curves on a canvas. */

const SLICE = 14; // milliseconds of drawing at a stretch: many edges come frame by frame, and the page answers in between

// `edgesByPair`: of every layer pair, strongest first; `colourOf(edge)`: as CSS writes it.
function paintEdges(canvas, size, run, edgesByPair, opacity, colourOf) {
  const ratio = size.height > TALLEST / 2 ? 1 : window.devicePixelRatio || 1;
  canvas.width = Math.round(size.width * ratio);
  canvas.height = Math.round(size.height * ratio);
  canvas.style.width = `${size.width}px`;
  canvas.style.height = `${size.height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const turn = canvas.turn = (canvas.turn ?? 0) + 1; // a later drawing ends an earlier one
  const drawing = strokes(context, run, edgesByPair, opacity, colourOf);
  const slice = () => {
    if (canvas.turn !== turn) return;
    const end = performance.now() + SLICE;
    while (!drawing.next().done) if (performance.now() > end) { requestAnimationFrame(slice); return; }
  };
  slice();
}

function* strokes(context, run, edgesByPair, opacity, colourOf) {
  const known = new Map(), resolved = (colour) => {
    if (!known.has(colour)) known.set(colour, themeColour(colour));
    return known.get(colour);
  };
  for (const [index, edges] of edgesByPair.entries()) {
    const {layers} = run, {largest} = run.pairs[index];
    const from = layers[index].x + layers[index].width, to = layers[index + 1].x, middle = (from + to) / 2;
    const crowding = Math.sqrt(Math.max(1, edges.length / 150)); // many lines are drawn thinner and fainter
    for (let i = edges.length - 1; i >= 0; i--) { // the strongest last, on top
      const edge = edges[i], {source, target, strength, constant} = edge;
      const relative = Math.min(1, Math.sqrt(strength / largest));
      context.strokeStyle = resolved(colourOf(edge));
      context.globalAlpha = Math.max(0.08, Math.min(1, opacity * (0.5 + relative) / crowding));
      context.lineWidth = constant ? 1 : 0.5 + 3.5 * relative / crowding;
      if (constant) context.setLineDash([4, 4]);
      context.beginPath();
      context.moveTo(from, source.y);
      context.bezierCurveTo(middle, source.y, middle, target.y, to, target.y);
      context.stroke();
      if (constant) context.setLineDash([]);
      if (i % 64 === 0) yield;
    }
  }
}
